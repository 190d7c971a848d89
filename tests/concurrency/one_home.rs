//! One home, several state directories: whatever they are named, one upgrade at a time has the home.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use kytx::testbed::Knob;

use crate::Gate;
use crate::counted::count;
use crate::support::census::{exhaustive, seed};
use crate::support::commands::{
    begin, begin_words, finish, on_home, spawn, state_dir, status, text, version,
};
use crate::support::killer::{Counted, Outcome, Victims, run_killed_at};
use crate::support::product::WRITTEN;
use crate::support::snapshot::{Snapshot, assert_same_tree};
use crate::support::{Machine, options};

fn at(machine: &Machine, name: &str) -> PathBuf {
    machine.root.join(name)
}

fn claim(machine: &Machine) -> PathBuf {
    state_dir(machine).join("claim.json")
}

/// I8: the lock of the home is one, whatever `--state-dir` says.
#[test]
fn i8_a_second_begin_with_another_state_directory_meets_the_first() {
    let machine = Machine::new(&options());
    machine.start();
    let (a, b) = (at(&machine, "a"), at(&machine, "b"));
    let (in_a, in_b) = (["--state-dir", text(&a)], ["--state-dir", text(&b)]);
    for (first, second) in [(&in_a[..], &in_b[..]), (&in_a, &[]), (&[], &in_b)] {
        let gate = Gate::close(&machine, Knob::StopGate, "gate");
        let running = spawn(&machine, &begin_words(&machine, first));
        gate.wait_until_reached();
        let holder = format!("process {}", running.id());
        begin(&machine, second).explains(7, &["another kytx is at work", &holder]);
        for command in ["resume", "abort"] {
            let yes = if command == "abort" { &["--yes"][..] } else { &[] };
            // Where it leads without a word about the state directory: to the one that is in use.
            on_home(&machine, command, yes).explains(7, &[&holder]);
        }
        assert_eq!(status(&machine)["holder"]["pid"], running.id());
        gate.open();
        assert_eq!(finish(running).code, 0);
        gate.close_again();
        machine.knobs.unset(Knob::StopGate).unwrap();
        on_home(&machine, "abort", &["--yes"]).expect_code(0);
        assert!(!claim(&machine).exists());
    }
}

/// One after the other: what is open in one place is in the way of every other, and is found from every command.
#[test]
fn an_upgrade_that_is_open_in_one_state_directory_keeps_another_from_beginning() {
    let machine = Machine::new(&options());
    machine.start();
    let (a, b) = (at(&machine, "a"), at(&machine, "b"));
    let (in_a, in_b) = (["--state-dir", text(&a)], ["--state-dir", text(&b)]);
    let stop = ["--stop-before", "stop-service"];
    begin(&machine, &[&in_a[..], &stop].concat()).expect_code(4);
    let before = Snapshot::take(&machine.root, &["opt/.kytx", "b", "calls.log"]);
    let resume = format!("kytx resume {} --state-dir {}", text(&machine.home), text(&a));
    for other in [&in_b[..], &[]] {
        begin(&machine, other).explains(4, &["open already", text(&a), "stop-service", &resume]);
    }
    assert_same_tree(&before, &Snapshot::take(&machine.root, &["opt/.kytx", "b", "calls.log"]));
    assert!(!b.join("journal.log").exists() && !state_dir(&machine).join("journal.log").exists());

    // Without a word about the state directory the commands find it, and name it in what they say to type.
    for command in ["log", "verify"] {
        on_home(&machine, command, &[]).expect_code(0);
    }
    let next = on_home(&machine, "status", &[]).expect_code(0).stdout;
    assert!(next.contains(&resume), "{next}");
    on_home(&machine, "abort", &["--dry-run"]).expect_code(0);
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(version(&machine).contains("3.4.5"));
    begin(&machine, &in_b).explains(4, &["open already", "not yet committed", "kytx commit"]);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(!claim(&machine).exists());

    // The other way round: what is open in the default place is in the way of any other.
    begin(&machine, &stop).expect_code(4);
    let resume = format!("type:  kytx resume {}\n", text(&machine.home));
    begin(&machine, &in_b).explains(4, &["open already", ".kytx/kyligence", &resume]);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);

    // Free again, for another place, and through a commit.
    begin(&machine, &in_b).expect_code(0);
    begin(&machine, &in_a).explains(4, &["open already", text(&b)]);
    on_home(&machine, "commit", &["--yes"]).expect_code(0);
    assert!(!claim(&machine).exists());
    on_home(&machine, "resume", &in_b).expect_code(8);
}

/// A home is one whatever it is called, and so is a state directory.
#[test]
fn a_linked_home_and_a_linked_state_directory_are_what_they_point_to() {
    let mut options = options();
    options.home_link = true;
    let machine = Machine::new(&options);
    machine.start();
    let (a, linked) = (at(&machine, "states/a"), at(&machine, "link/a"));
    symlink("states", at(&machine, "link")).unwrap();
    fs::create_dir(at(&machine, "states")).unwrap();
    begin(&machine, &["--state-dir", text(&linked), "--stop-before", "stop-service"]).expect_code(4);
    let real = text(&machine.real_home).to_owned();
    let package = text(&machine.package).to_owned();
    let words = ["begin", "--silent", "--package", &package, &real];
    machine.run(&words).explains(4, &["open already", text(&a)]);
    // Its own state directory by its other name: the same refusal, from the journal itself.
    begin(&machine, &["--state-dir", text(&a)]).explains(4, &["open already"]);
    machine.run(&["resume", &real]).expect_code(0);
    assert_eq!(fs::read_link(&machine.home).unwrap(), PathBuf::from("kyligence-old"));
    machine.run(&["abort", "--yes", &real]).expect_code(0);

    // The default place, named: one lock, one journal, and nothing to claim.
    let default = state_dir(&machine);
    begin(&machine, &["--state-dir", text(&default)]).expect_code(0);
    assert!(!claim(&machine).exists());
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
}

#[test]
fn a_state_directory_that_is_gone_or_of_another_home_is_told() {
    let machine = Machine::new(&options());
    machine.start();
    let (a, away) = (at(&machine, "a"), at(&machine, "away"));
    begin(&machine, &["--state-dir", text(&a), "--stop-before", "stop-service"]).expect_code(4);
    let other = machine.root.join("opt/other");
    let words = ["abort", "--yes", text(&other), "--state-dir", text(&a)];
    machine.run(&words).explains(2, &["that of another home", text(&machine.home), "kytx status"]);

    fs::rename(&a, &away).unwrap();
    let remove = format!("rm {}", text(&claim(&machine)));
    for command in ["status", "log", "verify", "resume"] {
        on_home(&machine, command, &[]).explains(5, &["is gone", text(&a), &remove]);
    }
    begin(&machine, &[]).explains(5, &["is gone", text(&a), &remove]);
    fs::rename(&away, &a).unwrap();
    let good = fs::read(claim(&machine)).unwrap();
    fs::write(claim(&machine), &good[..good.len() / 2]).unwrap();
    for command in ["status", "resume"] {
        on_home(&machine, command, &[]).explains(5, &["nobody can say", "claim.json", "--state-dir DIR"]);
    }
    begin(&machine, &[]).explains(5, &["nobody can say"]);
    // Whoever knows where it is needs no claim.
    on_home(&machine, "status", &["--state-dir", text(&a)]).expect_code(0);
    fs::write(claim(&machine), good).unwrap();
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(!claim(&machine).exists());
}

/// The claim's own crash windows: `begin` killed at its calls up to the first step, and `abort` at its last ones. Then
/// there is at most one open upgrade; another state directory is refused if there is one, and free if there is none.
#[test]
fn i8_killed_around_its_claim_a_home_has_one_upgrade_or_none() {
    let machine = Machine::new(&options());
    machine.start();
    let home = Snapshot::take(&machine.real_home, &WRITTEN);
    let (a, b) = (at(&machine, "a"), at(&machine, "b"));
    let in_a = ["--state-dir", text(&a), "--stop-before", "stage-tree"];
    let words = begin_words(&machine, &in_a);
    let abort = ["abort", "--yes", text(&machine.home)];
    // The calls of the undisturbed runs.
    let calls = |words: &[&str], code: i32| {
        let traced = run_killed_at(machine.kytx(words), 0, Counted::Own, Victims::Program);
        match traced.outcome {
            Outcome::Finished { count, code: ended } if ended == code => count,
            other => panic!("{other:?}: {}", traced.stderr),
        }
    };
    // Twice: the first run of a place makes its directories, the later ones retire a journal.
    let begins: Vec<u64> = (0..2)
        .map(|_| {
            let count = calls(&words, 4);
            on_home(&machine, "abort", &["--yes"]).expect_code(0);
            count
        })
        .collect();
    calls(&words, 4);
    let aborts = calls(&abort, 0);
    let stride = if exhaustive() { 1 } else { 9 };
    let first = seed() % stride;
    println!("KYTX_SEED={} calls: begin {begins:?}, abort {aborts}, each {stride}th", seed());
    let mut kills = 0;
    let (mut refused, mut free) = (0, 0);
    for fresh in [true, false] {
        let count = begins[usize::from(!fresh)];
        for at in (1 + first..=count).step_by(stride as usize) {
            if fresh {
                let _ = fs::remove_dir_all(&a);
                let _ = fs::remove_dir_all(state_dir(&machine));
            }
            let killed = run_killed_at(machine.kytx(&words), at, Counted::Own, Victims::Program);
            kills += u64::from(killed.outcome == Outcome::Killed);
            if another_begins_or_is_refused(&machine, &a, &b, &format!("begin killed at {at}")) {
                free += 1;
            } else {
                refused += 1;
            }
        }
    }
    for at in (1 + first..=aborts).step_by(stride as usize) {
        begin(&machine, &in_a).expect_code(4);
        let killed = run_killed_at(machine.kytx(&abort), at, Counted::Own, Victims::Program);
        kills += u64::from(killed.outcome == Outcome::Killed);
        if another_begins_or_is_refused(&machine, &a, &b, &format!("abort killed at {at}")) {
            free += 1;
        } else {
            refused += 1;
        }
    }
    println!("killed around a claim: {kills}; another refused {refused}, free {free}");
    count(&[("kills around a claim", kills)]);
    assert!(refused > 0 && free > 0, "both sides of each window are met");
    assert_same_tree(&home, &Snapshot::take(&machine.real_home, &WRITTEN));
    assert!(machine.is_ready());
}

/// After a kill: whether another state directory could begin. Ends with nothing open.
fn another_begins_or_is_refused(machine: &Machine, a: &PathBuf, b: &PathBuf, story: &str) -> bool {
    let phase = |dir: &PathBuf| {
        let ran = machine.run(&["status", "--json", "--state-dir", text(dir)]);
        match ran.code {
            0 => serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["phase"]
                .as_str()
                .unwrap()
                .to_owned(),
            8 => "none".to_owned(),
            // Killed between the two halves of the journal: there is one, and the next opening completes it.
            9 if ran.stderr.contains("will rebuild it") => "half".to_owned(),
            code => panic!("{story}: status exits {code}: {}", ran.stderr),
        }
    };
    let is_open = |phase: &str| !["none", "ended"].contains(&phase);
    let in_a = phase(a);
    let ran = begin(machine, &["--state-dir", text(b), "--stop-before", "stage-tree"]);
    let begun = ran.stdout.contains("Stopped before");
    assert_eq!(is_open(&phase(b)), begun, "{story}: {}", ran.stderr);
    if begun {
        assert!(!is_open(&in_a), "{story}: two upgrades of one home are open; the first is {in_a}");
    } else {
        assert!(is_open(&in_a), "{story}: `{in_a}`, and yet refused: {}", ran.stderr);
        assert!([4, 9].contains(&ran.code), "{story}: {}: {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(text(a)), "{story}: {}", ran.stderr);
    }
    // Found without being named, wherever it is.
    let ended = on_home(machine, "abort", &["--yes"]);
    assert!(ended.code == 0, "{story}, then abort: {}: {}", ended.code, ended.stderr);
    assert!(!is_open(&phase(a)) && !is_open(&phase(b)), "{story}");
    assert!(!claim(machine).exists(), "{story}: the claim outlives its upgrade");
    begun
}
