//! The proof of the pure core: `txn` and `engine` against a machine in memory that has accidents everywhere.
//!
//! Every accident of every command (a power cut at any point, a journal that fails at any append, a signal before any
//! question, a stop before any step), times resume and abort, times every accident of that recovery, times resume and
//! abort again. After every event the invariants of `journal-format.md` are checked; `planted` shows that each of them
//! can fail.

#![allow(clippy::print_stdout, reason = "the counts are part of the result")]
#![allow(clippy::single_match_else, reason = "both outcomes of an admission read alike")]

#[allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "shared with grids that use more of it; it leaves its count where it is told to"
)]
#[path = "../support/census.rs"]
mod census;
mod explore;
mod failures;
mod planted;
mod properties;
mod saga;
mod world;

use std::sync::OnceLock;

use explore::Tally;
use world::invariants;

/// The exhaustive walk, done once for all the tests that read it.
fn walk() -> &'static Tally {
    static WALK: OnceLock<Tally> = OnceLock::new();
    WALK.get_or_init(|| {
        let mut tally = explore::double_accidents(explore::accidents(2));
        println!(
            "model: {} runs, accidents: {:?}, {} committed, {} aborted; events: {:?}; the same journal met {} times \
             with another machine",
            tally.runs,
            tally.accidents,
            tally.committed,
            tally.aborted,
            tally.events,
            tally.verdicts_compared
        );
        tally.census.exhaustive = true;
        let histories = tally.accidents.values().sum();
        let figures = [
            ("commands run", tally.runs),
            ("histories of one or two accidents", histories),
            ("distinct journals with a machine", tally.distinct.len()),
        ];
        tally.census.figures = figures.map(|(name, figure)| (name.to_owned(), figure as u64)).into();
        tally.census.publish();
        tally
    })
}

fn assert_upheld(law: &str, seen: &str) {
    let tally = walk();
    assert_eq!(tally.of(law), [] as [&invariants::Violation; 0], "{law}");
    assert!(tally.events.get(seen).is_some_and(|count| *count > 10_000), "{law} was put to the test");
}

fn assert_clean(tally: &Tally) {
    assert_eq!(tally.violations, []);
}

#[test]
fn every_accident_twice_over_ends_with_the_old_machine_or_the_new_one() {
    let tally = walk();
    assert_clean(tally);
    let histories: usize = tally.accidents.values().sum();
    assert!(histories >= 50_000, "{histories} histories of one or two accidents");
    assert!(tally.committed > 5_000 && tally.aborted > 5_000);
}

#[test]
fn what_happens_next_is_a_function_of_the_journal_alone() {
    assert_eq!(walk().of("verdict"), [] as [&invariants::Violation; 0]);
    assert!(walk().verdicts_compared > 1_000, "one journal was met with several machines");
}

#[test]
fn i1_nothing_changes_before_the_plan_is_sealed() {
    assert_upheld("I1", "changes");
}

#[test]
fn i2_an_intent_is_durable_before_its_act_and_an_act_before_its_outcome() {
    assert_upheld("I2", "acts");
}

#[test]
fn i3_every_act_follows_a_look_in_the_same_run() {
    assert_upheld("I3", "looks");
}

#[test]
fn i4_forward_in_plan_order_backward_in_reverse() {
    assert_upheld("I4", "acts");
}

#[test]
fn i5_nothing_is_undone_after_commit_nor_applied_after_abort() {
    assert_upheld("I5", "records");
}

#[test]
fn i6_only_what_is_ours_is_undone_or_deleted() {
    assert_upheld("I6", "changes");
}

#[test]
fn i7_the_old_tree_metadata_and_cube_data_exist_until_commit() {
    assert_upheld("I7", "changes");
}

#[test]
fn i11_an_act_reaches_its_end_from_wherever_a_crash_left_it() {
    assert_upheld("I11", "acts ended");
}

#[test]
fn a_stop_is_obeyed_before_the_next_act_and_before_the_named_step() {
    assert_upheld("stop", "stops");
    assert!(walk().accidents["stop-before"] > 1_000);
}

#[test]
fn nothing_follows_an_append_that_failed() {
    assert_upheld("poisoned", "refused appends");
}

#[test]
fn i12_resume_and_abort_ask_nothing_that_begin_has_asked() {
    assert_upheld("I12", "runs");
    assert!(walk().events["questions"] > 0);
}

#[test]
fn a_third_accident_changes_nothing() {
    const SEED: u64 = 0x5eed_0b5e;
    let tally = explore::triple_accidents(SEED, 5_000);
    println!("model: seed {SEED:#x}: {} runs, accidents: {:?}", tally.runs, tally.accidents);
    assert_clean(&tally);
    assert!(tally.accidents.values().sum::<usize>() > 6_000, "{:?}", tally.accidents);
    assert!(tally.accidents.len() == 5, "every kind: {:?}", tally.accidents);
}

#[test]
fn a_failing_step_leaves_a_transaction_that_can_be_finished_either_way() {
    let tally = failures::failures();
    println!("model: failures: {} runs, {} failures", tally.runs, tally.events["failures"]);
    assert_clean(&tally);
    assert!(tally.events["failures"] > 200);
}

#[test]
fn i6_what_a_stranger_put_there_is_never_touched() {
    let (tally, halts) = failures::strangers();
    println!("model: strangers: {} runs, {halts} halts", tally.runs);
    assert_clean(&tally);
    assert!(halts > 200);
}
