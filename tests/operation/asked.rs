//! A service that answers as a script says: every way in which the real one and what stands before it misbehave.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use kytx::kyligence::checkup::{Check, Expected, Level, Verdict, ask};
use kytx::kyligence::rest::{Credentials, Dialect, Rest};
use kytx::kyligence::smoke::{Recorded, Statement, answer};

/// What the server does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    Json(Value),
    Status(u16, &'static str),
    Page,
    /// The connection is closed without a word.
    Cut,
    /// Half of what was announced, and then nothing more.
    Half,
    /// Nothing, for longer than the asker waits.
    Slow,
}

/// Serves until the test's end; the script says what the answer to a method and a path is.
fn serve(script: impl Fn(&str, &str) -> Reply + Send + 'static) -> u16 {
    serve_bodies(move |method, path, _| script(method, path))
}

/// The same with the body of the request.
pub(super) fn serve_bodies(script: impl Fn(&str, &str, &str) -> Reply + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut waiting = Vec::new();
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            let _ = connection.read_exact(&mut body);
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let mut write = |status: u16, kind: &str, body: &str, announced: usize| {
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n"
                );
                let _ = connection.write_all(format!("{head}{body}").as_bytes());
            };
            match script(method, path, &String::from_utf8_lossy(&body)) {
                Reply::Json(value) => {
                    let body = json!({"code": "000", "data": value, "msg": ""}).to_string();
                    write(200, "application/json", &body, body.len());
                }
                Reply::Status(status, body) => write(status, "text/html", body, body.len()),
                Reply::Page => write(200, "text/html", "<html>Log in</html>", 19),
                Reply::Cut => {}
                Reply::Half => write(200, "application/json", "{\"code\":\"000\",", 500),
                // Kept open: the asker's own limit ends it.
                Reply::Slow => waiting.push(connection),
            }
        }
    });
    port
}

pub(super) fn rest(port: u16) -> Rest {
    let credentials = Credentials::new("ADMIN", "KYLIN");
    Rest { port, tls: false, dialect: Dialect::V2, credentials, limit: Duration::from_millis(400) }
}

fn expected(projects: &[&str], cubes: usize) -> Expected {
    let projects: BTreeSet<String> = projects.iter().map(|name| (*name).to_owned()).collect();
    Expected { projects, cubes: Some(cubes) }
}

fn verdict(checks: &[Check], level: Level) -> Option<(Verdict, &str)> {
    checks.iter().find(|check| check.level == level).map(|check| (check.verdict, check.what.as_str()))
}

/// As a healthy service does, but for one path.
fn healthy(path: &str) -> Reply {
    match path.split('?').next().unwrap_or_default() {
        "/kylin/api/user/authentication" => Reply::Json(json!({})),
        "/kylin/api/projects" => Reply::Json(json!([{"name": "sales"}, {"name": "web"}])),
        "/kylin/api/cubes" => Reply::Json(json!({"cubes": [{"name": "a"}], "size": 1})),
        "/kylin/api/query" => Reply::Json(json!({"results": [["1"]], "isException": false})),
        _ => Reply::Status(404, ""),
    }
}

#[test]
fn a_healthy_service_is_good_at_every_level() {
    let port = serve(|_, path| healthy(path));
    let statement = Statement { project: "sales".into(), sql: "select 1".into() };
    let before = answer(&rest(port), &statement).unwrap();
    let checks = ask(&rest(port), Some(&expected(&["sales", "web"], 1)), Some(&[before]));
    assert!(checks.iter().all(|check| check.verdict == Verdict::Good), "{checks:?}");
    assert_eq!(checks.len(), 4);
}

#[test]
fn every_misbehaviour_at_the_login_is_told_and_nothing_is_asked_after_it() {
    for (reply, word) in [
        (Reply::Status(503, "<html>Service Unavailable</html>"), "503"),
        (Reply::Status(401, "<html></html>"), "not let in"),
        (Reply::Status(302, ""), "not let in"),
        (Reply::Page, "a page instead of data"),
        (Reply::Cut, "no answer"),
        (Reply::Half, "no answer"),
        (Reply::Slow, "no answer"),
    ] {
        let login = reply.clone();
        let port =
            serve(move |_, path| if path.contains("authentication") { login.clone() } else { healthy(path) });
        let checks = ask(&rest(port), Some(&expected(&["sales"], 1)), None);
        assert_eq!(checks.len(), 1, "{checks:?}");
        let (verdict, what) = verdict(&checks, Level::Login).unwrap();
        assert_eq!(verdict, Verdict::Bad, "{what}");
        assert!(what.contains(word), "{word}: {what}");
    }
    // Nobody listens at all.
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    assert_eq!(verdict(&ask(&rest(free), None, None), Level::Login).unwrap().0, Verdict::Bad);
}

#[test]
fn lists_are_read_page_by_page_and_held_against_the_backup() {
    let names: Vec<String> = (0..250).map(|number| format!("p{number:03}")).collect();
    let paged = names.clone();
    let port = serve(move |_, path| {
        if !path.contains("/projects") {
            return healthy(path);
        }
        let page: usize =
            path.split("pageOffset=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        let page: Vec<Value> =
            paged.iter().skip(page * 100).take(100).map(|name| json!({"name": name})).collect();
        Reply::Json(json!({"projects": page, "size": 250}))
    });
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let found = |expected: &Expected| {
        let checks = ask(&rest(port), Some(expected), None);
        let (verdict, what) = verdict(&checks, Level::Projects).unwrap();
        (verdict, what.to_owned())
    };
    assert_eq!(found(&expected(&all, 1)).0, Verdict::Good);
    let (verdict, what) = found(&expected(&[&all[..], &["lost"]].concat(), 1));
    assert_eq!(verdict, Verdict::Bad);
    assert!(what.contains("1 of the metadata backup are not there") && what.contains("lost"), "{what}");
    let (verdict, what) = found(&expected(&all[1..], 1));
    assert_eq!(verdict, Verdict::Doubtful);
    assert!(what.contains("p000"), "{what}");
}

#[test]
fn fewer_cubes_are_bad_and_more_are_doubtful() {
    for (count, verdict_of) in [(1, Verdict::Good), (2, Verdict::Bad), (0, Verdict::Doubtful)] {
        let port = serve(|_, path| healthy(path));
        let checks = ask(&rest(port), Some(&expected(&["sales", "web"], count)), None);
        assert_eq!(verdict(&checks, Level::Cubes).unwrap().0, verdict_of);
    }
}

#[test]
fn a_query_that_fails_with_200_is_a_failed_query() {
    let statement = Statement { project: "sales".into(), sql: "select a from b where password='x'".into() };
    let port = serve(|_, path| healthy(path));
    let before: Vec<Recorded> = vec![answer(&rest(port), &statement).unwrap()];
    for (reply, word) in [
        (
            Reply::Json(json!({"isException": true, "exceptionMessage": "no table\nat Some.class"})),
            "no table",
        ),
        (Reply::Json(json!({"results": [["2"]], "isException": false})), "other values"),
        (Reply::Json(json!({"results": [], "isException": false})), "1 rows before the upgrade, 0 now"),
        (Reply::Status(500, "<html></html>"), "500"),
        (Reply::Page, "a page instead of data"),
        (Reply::Cut, "no answer"),
    ] {
        let script = reply.clone();
        let port = serve(move |_, path| if path.contains("/query") { script.clone() } else { healthy(path) });
        let checks = ask(&rest(port), None, Some(&before));
        let (verdict, what) = verdict(&checks, Level::Queries).unwrap();
        assert_eq!(verdict, Verdict::Bad);
        assert!(what.contains(word) && what.contains("1 of 1 differ"), "{word}: {what}");
        assert!(!what.contains("'x'"), "{what}");
    }
}
