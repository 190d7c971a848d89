//! Unfinished jobs: the service asked over an interface that lies, the metadata backup searched after the stop, and what
//! becomes of the upgrade.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kytx::kyligence::jobs::{Asked, discard, unfinished};
use kytx::kyligence::rest::{Credentials, Dialect, Rest, RestError};

use support::commands::{begin_words, on_home, outside, state_dir, status, step_state, text, version};
use support::snapshot::assert_same_tree;
use support::{Machine, Ran, options, wait_until};

// ---------------------------------------------------------------------------------------------- a scripted service

/// What the scripted service does with a request.
#[derive(Clone, Debug)]
enum Reply {
    /// Answers.
    Says(u16, String),
    /// Promises more than it sends, and closes.
    Cuts(String),
    /// Sends a byte now and then, for as long as the other side listens.
    Trickles,
    /// Closes without a word.
    Closes,
}

/// A service on a port of its own that answers as it is told and remembers what it was asked.
struct Scripted {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(reply: impl Fn(&str) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                // What the other side does with the answer is the test's business.
                let _ = connection.and_then(|connection| answer(connection, &reply, &log));
            }
        });
        Self { port, asked }
    }

    fn rest(&self, dialect: Dialect) -> Rest {
        let credentials = Credentials::new("ADMIN", "a password");
        // Long enough for every answer that comes at all, on the slowest machine.
        Rest { port: self.port, tls: false, dialect, credentials, limit: Duration::from_secs(20) }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    mut connection: TcpStream,
    reply: &dyn Fn(&str) -> Reply,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let (mut first, mut line, mut body_bytes) = (String::new(), String::new(), 0);
    reader.read_line(&mut first)?;
    while reader.read_line(&mut line)? > 2 {
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body)?;
    let request =
        format!("{} {}", first.trim().trim_end_matches(" HTTP/1.1"), String::from_utf8_lossy(&body));
    log.lock().unwrap().push(request.trim().to_owned());
    match reply(&request) {
        Reply::Says(status, body) => {
            let location = if status == 302 { "Location: /kylin/login\r\n" } else { "" };
            let length = body.len();
            write!(
                connection,
                "HTTP/1.1 {status} X\r\n{location}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
        }
        Reply::Cuts(body) => {
            let length = body.len() + 1000;
            write!(connection, "HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n{body}")
        }
        Reply::Trickles => {
            write!(connection, "HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n")?;
            loop {
                connection.write_all(b" ")?;
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        Reply::Closes => Ok(()),
    }
}

/// One job as every generation writes it.
fn job(id: usize, status: &str) -> String {
    format!(r#"{{"uuid":"job-{id}","name":"build {id}","job_status":"{status}","project":"sales"}}"#)
}

/// A page in the form of a dialect.
fn page(dialect: Dialect, jobs: &[String], total: usize) -> String {
    let jobs = jobs.join(",");
    match dialect {
        Dialect::V2 => format!(r#"{{"code":"000","data":{{"size":{total},"jobs":[{jobs}]}},"msg":""}}"#),
        Dialect::Bare => format!("[{jobs}]"),
        Dialect::V4 => format!(
            r#"{{"code":"000","data":{{"value":[{jobs}],"offset":0,"limit":100,"total_size":{total}}},"msg":""}}"#
        ),
    }
}

const DIALECTS: [Dialect; 3] = [Dialect::V2, Dialect::Bare, Dialect::V4];

fn time_filter(request: &str) -> u8 {
    let tail = request.split("timeFilter=").nth(1).or_else(|| request.split("time_filter=").nth(1)).unwrap();
    tail[..1].parse().unwrap()
}

#[test]
fn all_time_is_asked_for_first_and_the_other_word_for_it_when_that_is_refused() {
    for dialect in DIALECTS {
        // Five is all time, as in Kylin 3: four would hide an old job.
        let hides_by_4 = Scripted::new(move |request| {
            let jobs: Vec<String> =
                (time_filter(request) == 5).then(|| job(1, "ERROR")).into_iter().collect();
            Reply::Says(200, page(dialect, &jobs, jobs.len()))
        });
        let asked = unfinished(&hides_by_4.rest(dialect)).unwrap();
        assert_eq!((asked.total, asked.all_time), (1, true), "{dialect:?}");
        assert_eq!(asked.jobs[0].to_string(), "job-1 `build 1` (ERROR)");

        // Five is refused: four is all time, as the manual says, and only in the newest form that is certain.
        for refusal in [
            Reply::Says(500, r#"{"code":"999","msg":"unknown filter","stacktrace":"x"}"#.to_owned()),
            Reply::Says(400, "<html>Bad Request</html>".to_owned()),
        ] {
            let knows_4 = Scripted::new(move |request| match time_filter(request) {
                5 => refusal.clone(),
                _ => Reply::Says(200, page(dialect, &[], 0)),
            });
            let asked = unfinished(&knows_4.rest(dialect)).unwrap();
            let nothing = Asked { jobs: Vec::new(), total: 0, all_time: dialect == Dialect::V4 };
            assert_eq!(asked, nothing, "{dialect:?}");
            assert_eq!(knows_4.asked().len(), 2);
        }
    }
    // In the enveloped forms a refusal may come with 200.
    let refuses_politely = Scripted::new(|request| match time_filter(request) {
        5 => Reply::Says(200, r#"{"code":"999","data":null,"msg":"illegal"}"#.to_owned()),
        _ => Reply::Says(200, page(Dialect::V2, &[job(1, "STOPPED")], 1)),
    });
    assert_eq!(unfinished(&refuses_politely.rest(Dialect::V2)).unwrap().total, 1);
}

#[test]
fn pages_are_read_to_the_end_and_a_service_that_never_ends_is_left() {
    for dialect in DIALECTS {
        let full: Vec<String> = (0..100).map(|id| job(id, "PENDING")).collect();
        let rest: Vec<String> = (100..130).map(|id| job(id, "RUNNING")).collect();
        let pages = Scripted::new(move |request| {
            let first = ["pageOffset=0&", "page_offset=0&", "&offset=0 "].iter().any(|o| request.contains(o));
            Reply::Says(200, page(dialect, if first { &full } else { &rest }, 130))
        });
        let asked = unfinished(&pages.rest(dialect)).unwrap();
        assert_eq!((asked.jobs.len(), asked.total), (130, 130), "{dialect:?}");
        assert_eq!(pages.asked().len(), 2, "{dialect:?}");

        let same: Vec<String> = (0..100).map(|id| job(id, "ERROR")).collect();
        let for_ever = Scripted::new(move |_| Reply::Says(200, page(dialect, &same, 1_000_000)));
        let asked = unfinished(&for_ever.rest(dialect)).unwrap();
        assert_eq!(asked.jobs.len(), 100);
        assert_eq!(for_ever.asked().len(), 2, "a page without news is the last");

        // A service that passes over the filter by status lists finished ones too.
        let mixed = [job(1, "FINISHED"), job(2, "ERROR"), job(3, "DISCARDED")];
        let mixed = Scripted::new(move |_| Reply::Says(200, page(dialect, &mixed, 3)));
        assert_eq!(unfinished(&mixed.rest(dialect)).unwrap().total, 1, "{dialect:?}");
    }
    // Counted, and not listed.
    let counted = Scripted::new(|_| Reply::Says(200, page(Dialect::V2, &[], 7)));
    assert_eq!(unfinished(&counted.rest(Dialect::V2)).unwrap().total, 7);
}

#[test]
fn what_is_no_answer_is_an_error_that_says_what_came() {
    let cut = page(Dialect::V2, &[], 0);
    let cases: [(Reply, &str, usize); 9] = [
        (Reply::Closes, "no answer on port", 1),
        (Reply::Cuts(cut), "no answer on port", 1),
        (Reply::Says(503, "<html>Service Unavailable</html>".into()), "HTTP status 503", 1),
        (
            Reply::Says(200, "<html><form action=\"/kylin/login\">Log in</form></html>".into()),
            "a page instead",
            1,
        ),
        (Reply::Says(302, String::new()), "does not accept this user", 1),
        (Reply::Says(401, "<html>Unauthorized</html>".into()), "does not accept this user", 1),
        (Reply::Says(200, "{\"code\":\"000\",\"data\":{}}".into()), "no list of jobs", 1),
        (Reply::Says(200, "[1,2".into()), "a page instead", 1),
        (Reply::Says(500, "boom".into()), "HTTP status 500", 2),
    ];
    for (reply, words, questions) in cases {
        let service = Scripted::new({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let error = unfinished(&service.rest(Dialect::V2)).unwrap_err().to_string();
        assert!(error.contains(words), "{reply:?}: {error}");
        assert!(!error.contains("a password"), "{error}");
        // The other word for all time is for a refused question, not for a service that is not there.
        assert_eq!(service.asked().len(), questions, "{reply:?}");
    }
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let mut rest = Scripted::new(|_| Reply::Closes).rest(Dialect::V2);
    rest.port = nobody;
    assert!(matches!(unfinished(&rest), Err(RestError::NoAnswer { .. })));
}

#[test]
fn a_service_that_never_finishes_its_answer_is_left() {
    let service = Scripted::new(|_| Reply::Trickles);
    let mut rest = service.rest(Dialect::V2);
    rest.limit = Duration::from_millis(300);
    assert!(matches!(unfinished(&rest), Err(RestError::NoAnswer { .. })));
}

#[test]
fn a_job_is_discarded_in_the_words_of_its_generation() {
    for (dialect, words) in [
        (Dialect::V2, "PUT /kylin/api/jobs/job-1/cancel {}"),
        (Dialect::Bare, "PUT /kylin/api/jobs/job-1/cancel {}"),
        (
            Dialect::V4,
            r#"PUT /kylin/api/jobs/status {"action":"DISCARD","job_ids":["job-1"],"project":"sales","statuses":[]}"#,
        ),
    ] {
        let service = Scripted::new(move |request| {
            if request.starts_with("PUT") {
                Reply::Says(200, r#"{"code":"000","data":"","msg":""}"#.to_owned())
            } else {
                Reply::Says(200, page(dialect, &[job(1, "ERROR")], 1))
            }
        });
        let rest = service.rest(dialect);
        let found = unfinished(&rest).unwrap();
        discard(&rest, &found.jobs[0]).unwrap();
        assert_eq!(service.asked()[1], words);
    }
}

// ---------------------------------------------------------------------------------------------- a machine

const PASSWORD: &str = "KYLIN";

/// The stand-in's one job, with another status.
fn set_job(machine: &Machine, status: &str) {
    match machine.options.layout {
        kytx::testbed::Layout::Ke3 => {
            let entry = format!(r#"{{"uuid":"6f1e3c2a","status":"{status}","content":"","info":{{}}}}"#);
            machine.store.put("execute_output/6f1e3c2a", entry.as_bytes()).unwrap();
        }
        kytx::testbed::Layout::Ke4 => {
            let entry = format!(r#"{{"uuid":"7d","output":{{"status":"{status}"}}}}"#);
            machine.store.put("sales/execute/7d.json", entry.as_bytes()).unwrap();
        }
    }
}

fn as_admin(machine: &Machine, words: &[&str]) -> Command {
    let mut command = machine.kytx(words);
    command.args(["--user", "ADMIN"]).env("KYTX_PASSWORD", PASSWORD);
    command
}

fn check_words(machine: &Machine) -> Vec<&str> {
    vec!["check", text(&machine.home), "--package", text(&machine.package)]
}

fn typed(mut command: Command, input: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // kytx may refuse before it reads.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

#[test]
fn the_running_service_is_asked_in_every_generation() {
    for options in [options(), options().kylin3(), options().ke4()] {
        let machine = Machine::new(&options);
        machine.start();
        let clean = Ran::of(&mut as_admin(&machine, &check_words(&machine))).expect_code(0);
        assert!(!clean.stdout.contains(" P3:"), "{}", clean.stdout);
        set_job(&machine, "ERROR");
        let before = outside(&machine);
        let found = Ran::of(&mut as_admin(&machine, &check_words(&machine))).expect_code(3);
        assert!(
            found.stdout.contains("BLOCK P3: 1 job is not finished, as the service says"),
            "{}",
            found.stdout
        );
        let overridden = [&check_words(&machine)[..], &["--override", "P3=it is an old one"]].concat();
        Ran::of(&mut as_admin(&machine, &overridden)).expect_code(0);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "wrong-Pa55\n").unwrap();
        let words =
            [&check_words(&machine)[..], &["--user", "ADMIN", "--password-file", text(&file)]].concat();
        let refused = machine.run(&words).expect_code(3);
        assert!(refused.stdout.contains("does not accept this user and password"), "{}", refused.stdout);
        assert!(!refused.stdout.contains("wrong-Pa55") && !refused.stderr.contains("wrong-Pa55"));
        let words = [&check_words(&machine)[..], &["--user", "ADMIN"]].concat();
        assert!(machine.run(&words).expect_code(3).stdout.contains("KYTX_PASSWORD"));
        assert_same_tree(&before, &outside(&machine));
    }
}

#[test]
fn the_password_reaches_no_journal_no_log_and_no_program() {
    let machine = Machine::new(&options());
    machine.start();
    let secret = "KYLIN-of-this-test";
    // Not the right one: what is kept of it must be nothing all the same.
    let words = begin_words(&machine, &["--user", "ADMIN", "--jobs-finished"]);
    let mut command = machine.kytx(&words);
    let ran = Ran::of(command.env("KYTX_PASSWORD", secret)).expect_code(4);
    assert!(ran.stdout.contains("login: NOT IN ORDER"), "{}", ran.stdout);
    assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret));
    for pid in machine.processes().unwrap() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains("KYTX_PASSWORD"), "process {pid} got it");
    }
    let holds = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).contains(secret);
    let mut dirs = vec![machine.root.clone()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                assert!(!holds(&entry.path()), "{}", entry.path().display());
            }
        }
    }
}

#[test]
fn an_unfinished_job_in_the_backup_takes_everything_back_and_the_service_runs_again() {
    for options in [options(), options().ke4()] {
        let machine = Machine::new(&options);
        machine.start();
        // `READY` is what a job of before the stop looks like in the metadata.
        set_job(&machine, "READY");
        let before = version(&machine);
        let ran = machine.run(&begin_words(&machine, &[])).expect_code(3);
        assert!(ran.stderr.contains("1 job in the metadata backup is not finished"), "{}", ran.stderr);
        assert!(ran.stderr.contains("--on-unfinished-jobs restart"), "{}", ran.stderr);
        assert_eq!(version(&machine), before);
        assert!(machine.is_ready(), "the service runs again");
        assert_eq!(status(&machine)["outcome"], "aborted");
        assert!(!state_dir(&machine).join("spare").exists());
    }
}

#[test]
fn an_unfinished_job_in_the_backup_may_also_stop_the_upgrade_or_be_overridden() {
    let machine = Machine::new(&options());
    machine.start();
    set_job(&machine, "ERROR");
    let before = version(&machine);
    let words = begin_words(&machine, &["--on-unfinished-jobs", "stop"]);
    machine.run(&words).explains(4, &["is not finished", "6f1e3c2a", "kytx abort"]);
    assert!(!machine.is_ready());
    assert_eq!(step_state(&status(&machine), "back-up-metadata"), "intended");
    // The answer is found again, and nothing is swapped, however often it is asked for.
    on_home(&machine, "resume", &["--on-unfinished-jobs", "stop"]).expect_code(4);
    assert_eq!(version(&machine), before);
    on_home(&machine, "resume", &[]).expect_code(3);
    assert!(machine.is_ready());
    assert_eq!(version(&machine), before);

    let words = begin_words(&machine, &["--override", "P3=it will be discarded afterwards"]);
    machine.run(&words).expect_code(0);
    assert_ne!(version(&machine), before);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
}

#[test]
fn a_service_that_was_down_stays_down_when_a_job_is_found() {
    let machine = Machine::new(&options());
    set_job(&machine, "STOPPED");
    machine.run(&begin_words(&machine, &[])).expect_code(3);
    assert!(machine.processes().unwrap().is_empty());
}

#[test]
fn jobs_are_discarded_only_after_a_yes() {
    for options in [options(), options().kylin3()] {
        let machine = Machine::new(&options);
        machine.start();
        set_job(&machine, "ERROR");
        let words = ["begin", text(&machine.home), "--package", text(&machine.package), "--discard-jobs"];
        let ran = typed(as_admin(&machine, &words), "n\n").expect_code(3);
        assert!(ran.stderr.contains("1 job not finished: 6f1e3c2a"), "{}", ran.stderr);
        let status =
            || String::from_utf8(fs::read(machine.store.dir().join("execute_output/6f1e3c2a")).unwrap());
        assert!(status().unwrap().contains("ERROR"));
        // The end of input is no consent either.
        typed(as_admin(&machine, &words), "").expect_code(3);
        assert!(status().unwrap().contains("ERROR"));
        let ran = typed(as_admin(&machine, &words), "y\ny\n").expect_code(0);
        assert!(ran.stderr.contains("discarded 6f1e3c2a"), "{}", ran.stderr);
        assert!(status().unwrap().contains("DISCARDED"));
    }
}

#[test]
fn jobs_are_waited_for_with_a_limit() {
    let machine = Machine::new(&options());
    machine.start();
    set_job(&machine, "RUNNING");
    let before = version(&machine);
    let ran = Ran::of(&mut as_admin(&machine, &begin_words(&machine, &["--wait-for-jobs=0"])));
    ran.explains(3, &["1 job not finished after 0 s", "6f1e3c2a", "Nothing was changed."]);
    assert_eq!(version(&machine), before);
    assert!(machine.is_ready());

    let mut command = as_admin(&machine, &begin_words(&machine, &["--wait-for-jobs"]));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("waiting for 1 job (0 s): 6f1e3c2a"), "{line}");
    set_job(&machine, "SUCCEED");
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert_ne!(version(&machine), before);
}

#[test]
fn nobody_is_asked_without_a_service_or_a_user() {
    let machine = Machine::new(&options());
    let words = begin_words(&machine, &["--discard-jobs"]);
    machine.run(&words).expect_code(2);
    let ran = Ran::of(&mut as_admin(&machine, &begin_words(&machine, &["--wait-for-jobs=1"])));
    ran.explains(3, &["cannot ask the service", "no answer on port", "Nothing was changed."]);
    let unknown = machine.run(&check_words(&machine)).expect_code(0);
    assert!(
        unknown.stdout.contains("warning P3: whether every job is finished is not known"),
        "{}",
        unknown.stdout
    );
    let word = [&check_words(&machine)[..], &["--jobs-finished"]].concat();
    let word = machine.run(&word).expect_code(0);
    assert!(word.stdout.contains("(the operator's word)"), "{}", word.stdout);
}

#[test]
fn the_log_of_a_running_service_is_read() {
    let machine = Machine::new(&options());
    machine.start();
    let log = machine.home.join("logs/kylin.log");
    let line = "2026-03-14 01:02:03,004 INFO  [JobFetcher-1] x : 2 running, 0 scheduled, 2 actual running, 0 stopped, 0 ready, \
                0 waiting, 5 succeed, 0 error, 1 discarded\n";
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(line.as_bytes()).unwrap();
    let ran = machine.run(&check_words(&machine)).expect_code(3);
    assert!(
        ran.stdout.contains("BLOCK P3: the newest count in `logs/kylin.log` says 2 running"),
        "{}",
        ran.stdout
    );
    // Of a service that is down the line tells nothing any more.
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    machine.run(&check_words(&machine)).expect_code(0);
    wait_until("the service is gone", || machine.processes().unwrap().is_empty());
}
