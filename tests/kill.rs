//! The kill grid: the real kytx is killed at every system call that changes something, of `begin`, `resume`, `abort` and
//! `commit`, its own and its scripts'; and whatever it was killed at, `resume` ends in the new release and `abort` in
//! the old one, byte for byte.
//!
//! A moment is a call that is counted (`kill/sieve.rs`); nothing sleeps and nothing depends on time. Each state is made
//! afresh: the machine as it was, the command, the kill. `resume` and `abort` from the same state are two such runs, as
//! a tree is known by its inode and a copy of a machine is another machine. `resume` is that of an upgrade that was
//! stopped before its first step.
//!
//! `KYTX_SEED` repeats a run. It explores a share that the seed chooses, in which every step is met before its intent
//! and before its outcome, both ways; `KYTX_EXHAUSTIVE=1` explores everything and tells how far it is, and
//! `KYTX_EXHAUSTIVE=2` kills every recovery as well.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]
#![allow(
    clippy::print_stdout,
    reason = "a run of many minutes says its seed, its counts, and each violation at once"
)]

#[path = "kill/grid.rs"]
mod grid;
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
#[path = "kill/site.rs"]
mod site;
#[path = "kill/state.rs"]
mod state;
mod support;

use grid::Grid;
use support::census;
use support::random::Random;

const TEST: &str = "i11_i7_killed_at_any_call_an_upgrade_ends_new_or_old_and_nothing_is_lost";

/// I11 and I7: whatever was killed, going on reaches the new release and going back reaches the old one, whole.
#[test]
fn i11_i7_killed_at_any_call_an_upgrade_ends_new_or_old_and_nothing_is_lost() {
    let Some(memory) = shelter::enter(TEST) else { return };
    let seed = census::seed();
    println!("KYTX_SEED={seed}");
    let mut random = Random::new(seed);
    let scratch = tempfile::Builder::new().prefix("kytx-grid-").tempdir_in(memory).unwrap();
    let (measured, windows) = grid::measure(scratch.path());
    let jobs = if census::exhaustive() {
        let every = std::env::var("KYTX_EXHAUSTIVE").is_ok_and(|text| text == "2");
        grid::all(&measured, &mut random, if every { 1 } else { 8 })
    } else {
        grid::share(&measured, &mut random)
    };
    println!("{} runs", jobs.len());
    let mut grid = Grid::new(seed);
    let tell_every = if census::exhaustive() { 200 } else { 100 };
    grid.explore(&jobs, workers(), scratch.path(), tell_every);
    let missed = |grid: &Grid| windows.difference(&grid.met).cloned().collect::<Vec<_>>();
    for _ in 0..3 {
        let jobs = grid::share_for(&missed(&grid), &measured, &mut random);
        grid.explore(&jobs, workers(), scratch.path(), tell_every);
    }
    grid.census.publish();
    assert!(grid.violations.is_empty(), "{}", grid.violations.join("\n\n"));
    let missed = missed(&grid);
    // Windows of one or two calls drift from run to run; every call in turn meets them all.
    let passed_over = if census::exhaustive() { 0 } else { windows.len() / 20 };
    assert!(missed.len() <= passed_over, "no kill in {missed:?}");
}

/// Half of the time is waiting for other programs, hence two a core.
fn workers() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from).min(2)
}
