//! `status`, `log` and `verify`, running all the while beside a working kytx.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::counted::count;
use crate::support::census::exhaustive;
use crate::support::commands::{begin, on_home, state_dir};
use crate::support::product::WRITTEN;
use crate::support::snapshot::{Snapshot, assert_same_tree};
use crate::support::{Machine, options};

/// What one look saw.
struct Seen {
    code: i32,
    transaction: String,
    rank: usize,
    records: u64,
}

const PHASES: [&str; 6] = ["planning", "applying", "applied", "aborting", "committing", "ended"];

/// They disturb nothing and nothing disturbs them: each look answers, what it sees only goes forward, and the upgrade
/// is the same upgrade.
#[test]
fn looks_disturb_nothing_and_are_disturbed_by_nothing() {
    let wanted: u64 = if exhaustive() { 5_000 } else { 600 };
    let machine = Machine::new(&options().major());
    machine.start();
    let old = tree(&machine);
    // Undisturbed: what it makes, and how many records it writes.
    begin(&machine, &[]).expect_code(0);
    let new = tree(&machine);
    let records =
        |machine: &Machine| on_home(machine, "log", &["--json"]).expect_code(0).stdout.lines().count();
    let of_begin = records(&machine);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    let of_abort = records(&machine);
    tidy(&machine);

    let (mut looks, mut rounds) = (0, 0);
    while looks < wanted {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let statuses = scope.spawn(|| look_until(&over, || status(&machine)));
            let logs = scope.spawn(|| look_until(&over, || log(&machine)));
            let verifies = scope.spawn(|| look_until(&over, || verify(&machine)));
            // Whatever fails here must not leave the lookers looking for ever.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                begin(&machine, &[]).expect_code(0);
                assert_eq!(new.diff_but_dir_times(&tree(&machine)), Vec::<String>::new());
                assert_eq!(records(&machine), of_begin);
                on_home(&machine, "abort", &["--yes"]).expect_code(0);
                assert_same_tree(&old, &tree(&machine));
                assert_eq!(records(&machine), of_abort);
            }));
            over.store(true, Ordering::SeqCst);
            looks += check("status", &statuses.join().unwrap());
            looks += check("log", &logs.join().unwrap());
            looks += check("verify", &verifies.join().unwrap());
            if let Err(panic) = worked {
                std::panic::resume_unwind(panic);
            }
        });
        assert!(!state_dir(&machine).join("drill").exists());
        tidy(&machine);
        rounds += 1;
    }
    count(&[("looks", looks), ("upgrades looked at", rounds)]);
}

fn look_until(over: &AtomicBool, mut look: impl FnMut() -> Seen) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !over.load(Ordering::SeqCst) {
        seen.push(look());
    }
    seen
}

/// Within one transaction phases and records only go forward, and no look sees an earlier one again.
fn check(what: &str, seen: &[Seen]) -> u64 {
    let answered: Vec<&Seen> = seen.iter().filter(|seen| seen.code == 0).collect();
    for pair in answered.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if before.transaction == after.transaction {
            assert!(
                before.rank <= after.rank,
                "{what}: {} after {}",
                PHASES[after.rank],
                PHASES[before.rank]
            );
            assert!(before.records <= after.records, "{what}: {} after {}", after.records, before.records);
        }
    }
    let mut names: Vec<&str> = answered.iter().map(|seen| seen.transaction.as_str()).collect();
    names.dedup();
    let mut distinct = names.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(names.len(), distinct.len(), "{what}: an earlier transaction is seen again");
    seen.len() as u64
}

fn status(machine: &Machine) -> Seen {
    let ran = on_home(machine, "status", &["--json"]);
    if ran.code != 0 {
        // Between two journals there is none.
        let ran = ran.explains(8, &["no upgrade is open"]);
        return Seen { code: ran.code, transaction: String::new(), rank: 0, records: 0 };
    }
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    let phase = status["phase"].as_str().unwrap();
    let steps = status["steps"].as_array().unwrap();
    // The steps agree with the phase.
    let in_hand =
        steps.iter().filter(|step| ["intended", "undoing"].contains(&step["state"].as_str().unwrap()));
    assert!(in_hand.count() <= 1, "one step at a time: {status}");
    Seen {
        code: 0,
        transaction: status["transaction"].as_str().unwrap().to_owned(),
        rank: PHASES.iter().position(|known| *known == phase).expect("a known phase"),
        records: status["journal"]["records"].as_u64().unwrap(),
    }
}

fn log(machine: &Machine) -> Seen {
    let ran = on_home(machine, "log", &["--json"]);
    if ran.code != 0 {
        let ran = ran.explains(8, &["no upgrade is open"]);
        return Seen { code: ran.code, transaction: String::new(), rank: 0, records: 0 };
    }
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["lsn"], number as u64 + 1);
    }
    let transaction = lines[0]["txn"].as_str().unwrap().to_owned();
    Seen { code: 0, transaction, rank: 0, records: lines.len() as u64 }
}

fn verify(machine: &Machine) -> Seen {
    let ran = on_home(machine, "verify", &["--json"]);
    match ran.code {
        0 => {
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(report["damaged"], false, "{report}");
        }
        8 => assert!(ran.stderr.contains("no upgrade is open") || ran.stderr.contains("nothing to verify")),
        code => panic!("verify exits {code}: {}\n{}", ran.stdout, ran.stderr),
    }
    Seen { code: ran.code, transaction: String::new(), rank: 0, records: 0 }
}

fn tree(machine: &Machine) -> Snapshot {
    Snapshot::take(&machine.real_home, &WRITTEN)
}

/// What an abort leaves to the operator.
fn tidy(machine: &Machine) {
    let _ = std::fs::remove_file(machine.root.join("opt/kyligence.backup.tar.gz"));
}
