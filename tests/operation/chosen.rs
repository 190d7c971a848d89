//! The default data source of a project with several: set over REST only when asked for, once, and read back.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::asked::{Reply, rest, serve_bodies};
use super::support::Ran;
use super::support::commands::{metadata, on_home, text};
use super::whole::{kap_2, of_release_3};
use kytx::kyligence::default_source::{ChooseError, Chosen, Source, choose};
use kytx::kyligence::rest::RestError;

fn web() -> Value {
    json!({"name": "web", "owner": "ADMIN", "tables": ["A", "B"], "override_kylin_properties": {"kylin.x": "1"}})
}

/// A service with one project that keeps what it is told, as far as `keeps` lets it; returns what it was told, too.
fn service(project: Value, keeps: bool) -> (u16, Arc<Mutex<Vec<Value>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (kept, log) = (Mutex::new(project), Arc::clone(&told));
    let port =
        serve_bodies(move |method, path, body| match (method, path.split('?').next().unwrap_or_default()) {
            ("GET", "/kylin/api/projects") => {
                Reply::Json(json!({"projects": [*kept.lock().unwrap()], "size": 1}))
            }
            ("PUT", "/kylin/api/projects") => {
                let body: Value = serde_json::from_str(body).unwrap();
                if keeps {
                    *kept.lock().unwrap() =
                        serde_json::from_str(body["projectDescData"].as_str().unwrap()).unwrap();
                }
                log.lock().unwrap().push(body);
                Reply::Json(json!({}))
            }
            _ => Reply::Status(404, ""),
        });
    (port, told)
}

#[test]
fn a_choice_changes_one_property_and_is_read_back() {
    let (port, told) = service(web(), true);
    assert_eq!(choose(&rest(port), "web", Source::Kafka), Ok(Chosen::Now));
    let body = told.lock().unwrap().pop().unwrap();
    assert_eq!(body["formerProjectName"], "web");
    let mut wanted = web();
    wanted["override_kylin_properties"]["kylin.source.default"] = "1".into();
    assert_eq!(serde_json::from_str::<Value>(body["projectDescData"].as_str().unwrap()).unwrap(), wanted);
    // Again: it is seen, and nothing is written. Otherwise: refused, and nothing is written.
    assert_eq!(choose(&rest(port), "web", Source::Kafka), Ok(Chosen::Before));
    let other = choose(&rest(port), "web", Source::Hive);
    assert_eq!(other, Err(ChooseError::Other { project: "web".into(), code: "1".into() }));
    let nobody = choose(&rest(port), "sales", Source::Hive);
    assert_eq!(nobody, Err(ChooseError::NoProject { project: "sales".into() }));
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_service_that_says_yes_and_keeps_nothing_is_not_believed() {
    let (port, told) = service(web(), false);
    let lied = choose(&rest(port), "web", Source::Hive);
    assert_eq!(lied, Err(ChooseError::NotKept { project: "web".into(), found: "not set".into() }));
    assert_eq!(told.lock().unwrap().len(), 1);
    for (reply, is_it) in [
        (Reply::Page, (|error| matches!(error, RestError::Page)) as fn(&RestError) -> bool),
        (Reply::Status(503, ""), |error| matches!(error, RestError::Status { status: 503, .. })),
        (Reply::Cut, |error| matches!(error, RestError::NoAnswer { .. })),
        (Reply::Half, |error| matches!(error, RestError::NoAnswer { .. })),
    ] {
        let port = serve_bodies(
            move |method, _, _| {
                if method == "PUT" { reply.clone() } else { Reply::Json(json!([web()])) }
            },
        );
        let Err(ChooseError::Rest(error)) = choose(&rest(port), "web", Source::Hive) else {
            panic!("believed")
        };
        assert!(is_it(&error), "{error}");
    }
}

#[test]
fn a_default_source_is_set_after_the_migration_and_an_abort_takes_it_back() {
    let machine = kap_2();
    let package = of_release_3(&machine);
    let licence = machine.root.join("licence");
    machine.start();
    let before = metadata(&machine);
    let words = [
        &["begin", text(&machine.home), "--package", text(&package), "--silent", "--licence", text(&licence)]
            [..],
        &["--user", "ADMIN", "--default-source", "web=kafka", "--default-source", "sales=hive"],
    ]
    .concat();
    let asked = |words: &[&str]| Ran::of(machine.kytx(words).env("KYTX_PASSWORD", "KYLIN"));
    let chosen = || {
        let project = metadata(&machine)["project/web.json"].clone().unwrap();
        serde_json::from_slice::<Value>(&project).unwrap()["override_kylin_properties"]["kylin.source.default"].clone()
    };
    // By itself the choice is named and nothing is set.
    asked(&words).expect_code(0);
    assert_eq!(chosen(), Value::Null);
    let resume = ["resume", text(&machine.home), "--set-default-source"];
    machine.run(&resume).expect_code(2);
    let set = asked(&[&resume[..], &["--user", "ADMIN"]].concat()).expect_code(0);
    assert!(set.stderr.contains("It cannot be changed later"), "{}", set.stderr);
    assert!(set.stdout.contains("`web` is `kafka`: it was set and read back."), "{}", set.stdout);
    assert!(set.stdout.contains("`sales` needs no default data source"), "{}", set.stdout);
    assert_eq!(chosen(), "1");
    let again = asked(&[&resume[..], &["--user", "ADMIN"]].concat()).expect_code(0);
    assert!(again.stdout.contains("it had been set before"), "{}", again.stdout);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(metadata(&machine), before);
    // In one go, and with what it means said before anything is begun.
    let begun = asked(&[&words[..], &["--set-default-source"]].concat()).expect_code(0);
    let said = begun.stderr.find("the default data source of `web` is set to `kafka`. It cannot be").unwrap();
    assert!(said < begun.stderr.find("[1/").unwrap(), "{}", begun.stderr);
    assert_eq!(chosen(), "1");
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(metadata(&machine), before);
}
