//! The same grid over the manual's procedure: a plain shell script (`manual/upgrade.sh`) is killed with all its children at
//! every call that changes something, and then the operator does what the manual would have him do: run it again, or
//! roll back (`manual/rollback.sh`). What the machine comes to is counted beside kytx's, in the same form; it is no
//! violation of anything of ours, so the test asserts what is known of the procedure, and that it was seen.
//!
//! `KYTX_SEED` repeats a run, which explores a share; `KYTX_EXHAUSTIVE=1` explores every call.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]
#![allow(clippy::print_stdout, reason = "it says its seed and what it came to")]

#[path = "manual/fate.rs"]
mod fate;
#[path = "kill/limited.rs"]
mod limited;
#[path = "kill/moments.rs"]
mod moments;
#[path = "kill/renewed.rs"]
mod renewed;
#[path = "kill/shelter.rs"]
mod shelter;
#[path = "kill/sieve.rs"]
mod sieve;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fate::{Fate, Yard};
use moments::Windows;
use sieve::{Blow, Counted, Victims};
use support::census::{self, Cell, Census};
use support::random::Random;

const TEST: &str = "killed_at_any_call_the_manual_s_procedure_loses_what_it_is_known_to_lose";

/// Both ways from one call.
struct Found {
    at: u64,
    /// The part of the procedure that was killed.
    part: String,
    rerun: Fate,
    rollback: Fate,
}

#[test]
fn killed_at_any_call_the_manual_s_procedure_loses_what_it_is_known_to_lose() {
    let Some(memory) = shelter::enter(TEST) else { return };
    let seed = census::seed();
    println!("KYTX_SEED={seed}");
    let scratch = tempfile::Builder::new().prefix("kytx-manual-").tempdir_in(memory).unwrap();
    let yard = Yard::new(scratch.path());
    let undisturbed = yard.killed(None);
    let windows = Windows::new(&[], undisturbed.calls.len() as u64);
    let moments: Vec<u64> = if census::exhaustive() {
        (1..=windows.calls()).collect()
    } else {
        windows.choose(60, &mut Random::new(seed))
    };
    drop(yard);
    let found = explore(&moments, scratch.path());
    let census = count(seed, &found);
    census.publish();
    for (name, counts) in fates(&found) {
        println!("  {name}: {counts}");
    }
    let parts: BTreeSet<&str> = found.iter().map(|found| found.part.as_str()).collect();
    assert!(
        ["back up metadata", "unpack", "carry", "delete", "start"].iter().all(|part| parts.contains(part))
    );
    let meets = |fate: Fate, way: fn(&Found) -> Fate| found.iter().any(|found| way(found) == fate);
    // Deleted, and nothing in its place: run again, the procedure does not even begin. A share may miss the few calls.
    assert!(!census::exhaustive() || meets(Fate::NoInstallation, |found| found.rerun));
    // Before anything was touched it harms nobody.
    assert!(meets(Fate::New, |found| found.rerun) && meets(Fate::Old, |found| found.rollback));
}

fn explore(moments: &[u64], scratch: &Path) -> Vec<Found> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = 2 * std::thread::available_parallelism().map_or(1, usize::from).min(2);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let yard = Yard::new(scratch);
                while let Some(&at) = moments.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let blow = Blow { counted: Counted::All, at, victims: Victims::Tree };
                    let run = yard.killed(Some(blow));
                    if !run.struck {
                        continue;
                    }
                    let part = run.stdout.lines().rfind(|line| fate::PARTS.contains(line));
                    let part = part.unwrap_or("stop").to_owned();
                    let rerun = yard.rerun();
                    yard.killed(Some(blow));
                    let rollback = yard.roll_back();
                    found.lock().unwrap().push(Found { at, part, rerun, rollback });
                }
            });
        }
    });
    found.into_inner().unwrap()
}

fn count(seed: u64, found: &[Found]) -> Census {
    let mut census = Census::new("manual procedure", seed);
    census.figures.insert(
        "kill points".to_owned(),
        found.iter().map(|found| found.at).collect::<BTreeSet<_>>().len() as u64,
    );
    for Found { part, rerun, rollback, .. } in found {
        let counts = census.at(&Cell {
            phase: "procedure".to_owned(),
            step: part.clone(),
            window: String::new(),
            accident: "SIGKILL, scripts too".to_owned(),
        });
        counts.states += 1;
        *counts.seen.entry("killed".to_owned()).or_default() += 1;
        *counts.after_resume.entry(rerun.name().to_owned()).or_default() += 1;
        *counts.after_abort.entry(rollback.name().to_owned()).or_default() += 1;
        counts.violations += u64::from(!rerun.is_fine() || !rollback.is_fine());
        counts.stuck += u64::from(!rerun.is_fine() && !rollback.is_fine());
    }
    census
}

/// How often each way came to what.
fn fates(found: &[Found]) -> std::collections::BTreeMap<String, usize> {
    let mut counts = std::collections::BTreeMap::new();
    for Found { rerun, rollback, .. } in found {
        *counts.entry(format!("run again: {}", rerun.name())).or_default() += 1;
        *counts.entry(format!("rolled back: {}", rollback.name())).or_default() += 1;
    }
    counts
}
