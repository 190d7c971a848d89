//! Whole upgrades whose service is looked at after its start, and later.

use std::fs;

use serde_json::Value;

use super::support::commands::{begin_words, metadata, on_home, text, version};
use super::support::{Machine, Ran, options};
use kytx::testbed::Knob;

const QUERIES: &str =
    "-- project: sales\nselect part_dt, sum(price)\n  from orders group by part_dt;\nselect 1;\n";

/// kytx with a user who is known.
fn asked(machine: &Machine, words: &[&str]) -> Ran {
    Ran::of(machine.kytx(words).env("KYTX_PASSWORD", "KYLIN"))
}

fn begun(machine: &Machine, more: &[&str]) -> Ran {
    asked(machine, &begin_words(machine, &[&["--user", "ADMIN"], more].concat()))
}

fn verify(machine: &Machine, more: &[&str]) -> Ran {
    let words = [&["verify", text(&machine.home), "--service"], more].concat();
    asked(machine, &words)
}

#[test]
fn the_new_release_is_looked_at_level_by_level_and_its_answers_are_held_against_the_old_ones() {
    let machine = Machine::new(&options().major());
    machine.start();
    let file = machine.root.join("queries.sql");
    fs::write(&file, QUERIES).unwrap();
    let ran = begun(&machine, &["--smoke-query", text(&file)]).expect_code(0);
    let good = "Service in order: process, log, port, http, version, login, projects, cubes, queries.";
    assert!(ran.stdout.contains(good), "{}", ran.stdout);
    assert!(ran.stdout.contains("Until the commit run no garbage cleanup"), "{}", ran.stdout);
    // What the rows held is kept nowhere.
    let kept = fs::read_to_string(
        machine.real_home.with_file_name(".kytx").join("kyligence/plan/content-answers.json"),
    );
    assert!(!kept.unwrap().contains("web"));

    let later = verify(&machine, &["--user", "ADMIN", "--json"]).expect_code(0);
    let report: Value = serde_json::from_str(&later.stdout).unwrap();
    assert_eq!((&report["schema"], &report["bad"]), (&"kytx.service.v1".into(), &false.into()));
    assert_eq!(report["levels"].as_array().unwrap().len(), 9);

    // A project that goes is bad, one that comes is looked at.
    let project = machine.store.dir().join("project/sales.json");
    let content = fs::read(&project).unwrap();
    fs::remove_file(&project).unwrap();
    let gone = verify(&machine, &["--user", "ADMIN"]).expect_code(6);
    assert!(gone.stdout.contains("projects: NOT IN ORDER: 1 of the metadata backup"), "{}", gone.stdout);
    fs::write(&project, content).unwrap();
    fs::write(machine.store.dir().join("project/own.json"), r#"{"name":"own"}"#).unwrap();
    let more = verify(&machine, &["--user", "ADMIN"]).expect_code(6);
    assert!(more.stdout.contains("projects: look at it: 1 were made since"), "{}", more.stdout);
    // The stand-in answers queries with its projects, so that this is seen there as well.
    assert!(more.stdout.contains("queries: NOT IN ORDER: 2 of 2 differ"), "{}", more.stdout);
    let nobody = verify(&machine, &[]).expect_code(0);
    assert!(nobody.stdout.contains("process, log, port, http, version."), "{}", nobody.stdout);

    machine.script("kylin.sh", &["stop"]).expect_code(0);
    let down = verify(&machine, &[]).expect_code(6);
    for line in ["process: NOT IN ORDER", "port: NOT IN ORDER", "http: NOT IN ORDER"] {
        assert!(down.stdout.contains(line), "no `{line}` in {}", down.stdout);
    }
}

#[test]
fn a_resume_logs_in_as_begin_does_and_tells_what_it_could_not_ask() {
    let machine = Machine::new(&options().major());
    machine.start();
    let stopped = |machine: &Machine| begun(machine, &["--stop-before", "start-service"]).expect_code(4);
    let resume = ["resume", text(&machine.home)];
    let as_admin = [&resume[..], &["--user", "ADMIN"]].concat();
    stopped(&machine);
    // Without the password the upgrade is completed, and the level is told as not known.
    let nobody = machine.run(&as_admin).expect_code(0);
    assert!(nobody.stdout.contains("login: not known: no password for `ADMIN`"), "{}", nobody.stdout);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    stopped(&machine);
    let file = machine.root.join("password");
    fs::write(&file, "KYLIN\n").unwrap();
    let ran = machine.run(&[&as_admin[..], &["--password-file", text(&file)]].concat()).expect_code(0);
    assert!(ran.stdout.contains("version, login, projects, cubes."), "{}", ran.stdout);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    stopped(&machine);
    fs::write(&file, "wrong\n").unwrap();
    let wrong = machine.run(&[&as_admin[..], &["--password-file", text(&file)]].concat()).expect_code(4);
    assert!(wrong.stdout.contains("login: NOT IN ORDER: the user is not let in"), "{}", wrong.stdout);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
}

#[test]
fn an_unhealthy_release_is_undone_or_left_to_the_operator_as_they_say() {
    let machine = Machine::new(&options().major());
    machine.start();
    let before = metadata(&machine);
    let file = machine.root.join("queries.sql");
    fs::write(&file, QUERIES).unwrap();
    let new = machine.knobs.of_version(&machine.options.new_version);
    new.set(Knob::HttpMode, "query-fails").unwrap();
    let smoke = ["--smoke-query", text(&file)];
    let undone = begun(&machine, &[&smoke[..], &["--on-unhealthy", "abort"]].concat()).expect_code(3);
    assert!(undone.stderr.contains("queries: NOT IN ORDER: 2 of 2 differ"), "{}", undone.stderr);
    assert!(undone.stderr.contains("as `--on-unhealthy abort` says"), "{}", undone.stderr);
    assert!(version(&machine).contains("3.3.3") && machine.is_ready());
    assert_eq!(metadata(&machine), before);

    new.set(Knob::HttpMode, "other-rows").unwrap();
    let left = begun(&machine, &smoke).expect_code(4);
    assert!(left.stdout.contains("2 rows before the upgrade, 3 now"), "{}", left.stdout);
    assert!(version(&machine).contains("3.4.5") && machine.is_ready());
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(metadata(&machine), before);
}

#[test]
fn queries_that_the_old_release_does_not_answer_are_refused_before_the_stop() {
    let machine = Machine::new(&options());
    let pid = machine.start();
    let file = machine.root.join("queries.sql");
    let smoke = ["--smoke-query", text(&file)];
    begun(&machine, &smoke).explains(3, &["cannot read"]);
    fs::write(&file, "select 1;").unwrap();
    begun(&machine, &smoke).explains(3, &["-- project: NAME"]);
    fs::write(&file, QUERIES).unwrap();
    machine.knobs.set(Knob::HttpMode, "query-fails").unwrap();
    begun(&machine, &smoke).explains(3, &["the old release does not answer `select part_dt", "it fails"]);
    machine.knobs.set(Knob::HttpMode, "login-page").unwrap();
    begun(&machine, &[&smoke[..], &["--jobs-finished"]].concat()).expect_code(3);
    assert_eq!(machine.pid(), pid);
    // Who asks must be said.
    asked(&machine, &begin_words(&machine, &smoke)).expect_code(2);
}

#[test]
fn clean_up_lines_of_crontabs_are_named_as_long_as_the_upgrade_is_open() {
    let machine = Machine::new(&options());
    let programs = tempfile::tempdir().unwrap();
    let crontab = programs.path().join("crontab");
    let home = text(&machine.home);
    let line = format!("0 1 * * * {home}/bin/kylin.sh io.kyligence.kap.tool.routine.RoutineTool -c");
    fs::write(&crontab, format!("#!/bin/sh\necho '{line}'\n")).unwrap();
    fs::set_permissions(&crontab, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut dirs = vec![programs.path().to_owned()];
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let path = std::env::join_paths(dirs).unwrap();
    machine.start();
    let ran = Ran::of(machine.kytx(&begin_words(&machine, &[])).env("PATH", &path)).expect_code(0);
    assert!(ran.stdout.contains("cleans up behind the upgrade: `0 1 * * *"), "{}", ran.stdout);
    let words = ["verify", home, "--service"];
    let later = Ran::of(machine.kytx(&words).env("PATH", &path)).expect_code(0);
    assert!(later.stdout.contains("cleans up behind the upgrade"), "{}", later.stdout);
    on_home(&machine, "commit", &["--yes"]).expect_code(0);
    let ended = Ran::of(machine.kytx(&words).env("PATH", &path)).expect_code(0);
    assert!(!ended.stdout.contains("cleans up"), "{}", ended.stdout);
}

#[test]
fn ke_4_is_looked_at_by_its_own_ways() {
    let machine = Machine::new(&options().ke4());
    machine.start();
    let ran = begun(&machine, &[]).expect_code(0);
    assert!(
        ran.stdout.contains("Service in order: process, log, port, http, login, projects."),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("version: not known") && ran.stdout.contains("cubes: not known"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("cleans up by itself at midnight"), "{}", ran.stdout);
}
