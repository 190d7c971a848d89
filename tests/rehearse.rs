//! `kytx rehearse`: the operator's upgrade on a copy of the operator's home. What it must never do is touch anything
//! outside its directory; what it must do is find a copy that did not end right.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it looks into test machines, and says what was explored"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kytx::testbed::{Nasty, Options};
use serde_json::Value;
use support::census::{exhaustive, seed};
use support::commands::{begin, on_home, on_upgrade, spawn, text};
use support::snapshot::{Snapshot, assert_same_tree};
use support::{Machine, Ran, kytx_binary, options, wait_until};

/// A machine whose service runs, and a directory beside everything that it has.
struct Site {
    machine: Machine,
    scratch: tempfile::TempDir,
}

impl Site {
    fn new(options: &Options) -> Self {
        let machine = Machine::new(options);
        machine.start();
        let scratch = tempfile::Builder::new().prefix("kytx-rehearsal-").tempdir().unwrap();
        fs::create_dir(scratch.path().join("tmp")).unwrap();
        Self { machine, scratch }
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("in")
    }

    fn words<'a>(&'a self, dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let machine = &self.machine;
        let mut words =
            vec!["rehearse", text(&machine.home), "--package", text(&machine.package), "--in", dir];
        words.extend(more);
        words
    }

    fn rehearse(&self, more: &[&str]) -> Ran {
        let dir = self.dir();
        let mut command = self.machine.kytx(&self.words(text(&dir), more));
        Ran::of(command.env("TMPDIR", self.scratch.path().join("tmp")))
    }

    fn report(&self, more: &[&str]) -> Value {
        let ran = self.rehearse(&[more, &["--json"]].concat()).expect_code(0);
        serde_json::from_str(&ran.stdout).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = kytx::testbed::end_processes_below(self.scratch.path());
    }
}

fn sum(report: &Value, field: &str) -> u64 {
    report["steps"].as_array().unwrap().iter().map(|step| step[field].as_u64().unwrap()).sum()
}

/// Each step is killed, resumed to the new release and aborted to the old one; the machine itself does not notice.
#[test]
fn a_rehearsal_kills_every_step_and_touches_nothing_but_its_directory() {
    println!("KYTX_SEED={}", seed());
    let mut nasty = options().major();
    nasty.nasty = Nasty { special: false, ..Nasty::ALL };
    nasty.home_link = true;
    nasty.neighbour = true;
    for (number, options) in [options(), nasty, options().ke4()].into_iter().enumerate() {
        let site = Site::new(&options);
        let machine = &site.machine;
        let service = machine.pid();
        let before = Snapshot::take(&machine.root, &[]);
        let seed = seed().to_string();
        // Two kills a step on the first machine, one on the others; three if everything is asked for.
        let few = ["--seed", &seed, "--kills", if number == 0 { "18" } else { "1" }];
        let few = if exhaustive() { &few[..2] } else { &few[..] };
        let report = site.report(few);
        assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));
        assert_eq!(machine.pid(), service);
        assert_eq!(machine.processes().unwrap(), [service], "the service was not contacted");
        assert!(!site.dir().exists(), "the rehearsal is cleared away");
        assert!(fs::read_dir(site.scratch.path().join("tmp")).unwrap().next().is_none());

        let steps = report["steps"].as_array().unwrap();
        let planned = on_upgrade(machine, "plan", &["--json"]).expect_code(0).stdout;
        let planned: Value = serde_json::from_str(&planned).unwrap();
        let names = |steps: &Value, stage: &str| -> Vec<String> {
            let steps = steps.as_array().unwrap().iter();
            let of_stage = steps.filter(|step| step["stage"].is_null() || step["stage"] == stage);
            of_stage.map(|step| step["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(&report["steps"], "apply"), names(&planned["steps"], "apply"));
        for step in steps {
            assert!(step["killed_forward"].as_u64().unwrap() > 0, "{step}");
            assert!(step["resumed_to_new"].as_u64().unwrap() > 0, "{step}");
        }
        // The second half of the kills on the way forward, and each on the way back, ends in the old release.
        let of_three = number == 0 || exhaustive();
        assert!(!of_three || sum(&report, "killed_back") > 0);
        assert!(!of_three || sum(&report, "aborted_to_old") >= steps.len() as u64, "{report:#}");
        assert_eq!(report["violations"], Value::Array(Vec::new()));
        println!("{} steps, {} comparisons: {report:#}", steps.len(), report["comparisons"]);
    }
}

/// A file of the copy that somebody changes after a recovery is found, named, and ends with 6; the copy stays.
#[test]
fn a_copy_that_does_not_end_right_is_found() {
    let site = Site::new(&options());
    let dir = site.dir();
    let words = site.words(text(&dir), &["--seed", "3"]);
    let running = spawn(&site.machine, &words);
    // The operator's own file, in the old release and in the new one.
    let own = dir.join("opt/kyligence/conf/.operator");
    let log = dir.join("rehearsal.log");
    wait_until("the first kill has come", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("signal: 9"))
    });
    // Again and again, as the home may be between two renames, or be the other tree just now.
    let mut running = running;
    wait_until("the rehearsal ends", || {
        if own.exists() {
            let _ = fs::write(&own, "changed by a stranger\n");
        }
        running.try_wait().unwrap().is_some()
    });
    let ran: Ran = running.wait_with_output().unwrap().into();
    let ran = ran.expect_code(6);
    assert!(ran.stdout.contains("WRONG: begin killed at call"), "{}", ran.stdout);
    assert!(ran.stdout.contains("NOT every kill ended right."), "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!("Everything is left in `{}`", text(&dir))), "{}", ran.stdout);
    assert!(dir.join("opt/kyligence").exists());
    assert!(kytx::testbed::processes_below(site.scratch.path()).unwrap().is_empty());
}

#[test]
fn a_rehearsal_refuses_a_place_that_is_in_use_and_says_first_what_it_needs() {
    let site = Site::new(&options());
    let machine = &site.machine;
    let before = Snapshot::take(&machine.root, &[]);
    let within = machine.home.join("rehearsal");
    let around = machine.home.parent().unwrap();
    let state = around.join(".kytx/kyligence/rehearsal");
    for dir in [text(&within), text(around), text(&state)] {
        machine.run(&site.words(dir, &[])).explains(3, &["lie inside one another", "--in DIR"]);
    }
    machine.run(&site.words(text(site.scratch.path()), &[])).explains(3, &["is not empty", "--in DIR"]);
    machine.run(&site.words(text(&machine.package), &[])).explains(3, &["is no directory"]);
    let blank = site.scratch.path().join("a blank");
    machine.run(&site.words(text(&blank), &[])).explains(3, &["blank"]);
    assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));

    // The first line, before anything is made.
    let dir = site.dir();
    fs::create_dir(&dir).unwrap();
    let ran = site.rehearse(&["--kills", "1", "--keep"]).expect_code(0);
    assert!(ran.stdout.starts_with("The rehearsal needs 1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("as each step is met, and not 1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Every kill ended right"), "{}", ran.stdout);
    assert!(dir.join("opt/kyligence/VERSION").exists(), "--keep keeps it");
    assert!(kytx::testbed::processes_below(site.scratch.path()).unwrap().is_empty());
}

/// With too little room nothing is made.
#[test]
fn a_rehearsal_without_room_is_refused() {
    let site = Site::new(&options());
    let small = site.scratch.path().join("small");
    fs::create_dir(&small).unwrap();
    let dir = small.join("in");
    // A file system of eight megabytes, in a mount namespace that is gone with the command.
    let is_root = rustix::process::getuid().is_root();
    let mut command = Command::new("unshare");
    command.args([if is_root { "-m" } else { "-rm" }, "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=8m none \"$1\" || exit 99; shift; \"$@\"; code=$?; ls -A \"$0\" >&2; exit $code");
    command.arg(&small).arg(&small).arg(kytx_binary()).args(site.words(text(&dir), &[]));
    command.env("JAVA_HOME", &site.machine.java_home).env("TMPDIR", site.scratch.path().join("tmp"));
    let ran = Ran::of(&mut command);
    if ran.code == 99 || (ran.code == 1 && ran.stderr.starts_with("unshare")) {
        println!("NOT RUN: no mount namespace here: {}", ran.stderr);
        return;
    }
    let ran = ran.explains(3, &["too little room", "--in DIR"]);
    assert!(ran.stdout.starts_with("The rehearsal needs 1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("where 8.00 MiB are free"), "{}", ran.stdout);
    let last = ran.stderr.lines().last().unwrap();
    assert!(last.contains("type:"), "nothing was made there: {}", ran.stderr);
}

/// A saved plan is rehearsed as it is, or refused.
#[test]
fn a_saved_plan_is_rehearsed_as_long_as_the_world_has_not_moved() {
    let site = Site::new(&options());
    let plan = site.scratch.path().join("agreed.plan");
    on_upgrade(&site.machine, "plan", &["--out", text(&plan)]).expect_code(0);
    site.rehearse(&["--plan", text(&plan), "--kills", "12"]).expect_code(0);
    fs::write(site.machine.home.join("conf/.operator"), "another\n").unwrap();
    site.rehearse(&["--plan", text(&plan)]).explains(3, &["out of date", "kytx plan"]);
}

/// The way to die is for rehearsals: on a home that is none it is refused, and nothing dies.
#[test]
fn the_doom_of_a_rehearsal_cannot_be_met_elsewhere() {
    let machine = Machine::new(&options());
    machine.start();
    let file = machine.root.join("opt/doom.json");
    fs::write(&file, r#"{"at":5}"#).unwrap();
    let before = Snapshot::take(&machine.root, &[]);
    begin(&machine, &["--doom", text(&file)]).expect_code(2);
    for command in ["resume", "abort"] {
        on_home(&machine, command, &["--doom", text(&file)]).expect_code(2);
    }
    assert_same_tree(&before, &Snapshot::take(&machine.root, &[]));
    let help = machine.run(&["begin", "--help"]).expect_code(0);
    assert!(!help.stdout.contains("doom"));
    assert!(Path::new(&file).exists());
}
