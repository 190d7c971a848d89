//! What a power cut can leave behind, on a disk in memory: see `crash` for what is legal.
//!
//! `cargo test --test sim`; one state again, in words: `KYTX_SIM_STATE=MODEL:SCENARIO:POINT:CHOICE cargo test --test
//! sim one_state`.

#![allow(clippy::print_stdout, reason = "the counts are part of the result")]

mod campaign;
mod crash;
mod disk;
mod explore;
mod legal;
mod product;
mod promise;
mod regressions;
mod run;
mod scene;
mod sim_fs;
mod sites;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod volume;

use std::time::Instant;

use campaign::{Found, Name, histories, share};
use crash::Model;
use support::census::{Census, seed};

/// How many distinct states each model is good for in the share of a usual run.
const STATES_MIN: [(Model, u64); 2] = [(Model::Strict, 85_000), (Model::Ordered, 3_500)];

/// Explores one model.
fn explore(model: Model) {
    let (seed, begun) = (seed(), Instant::now());
    let mut census = Census::new(&format!("simulated: {}", model.name()), seed);
    let histories = histories(&[]);
    let found = campaign::explore(model, &share(seed, model), &histories, &mut census);
    census.figures.insert("second crashes".to_owned(), found.second_crashes);
    census.figures.insert("seconds".to_owned(), begun.elapsed().as_secs());
    report(&census, &found);
    let states = census.totals().0;
    let wanted = STATES_MIN.iter().find(|(of, _)| *of == model).unwrap().1;
    assert!(states >= wanted, "{states} states");
    assert_every_window_met(&census, &histories);
}

/// Publishes the count, and fails with the words that bring each bad state back.
fn report(census: &Census, found: &Found) {
    census.publish();
    for (name, fault) in found.violations.iter().take(20) {
        println!("KYTX_SIM_STATE={name} cargo test --test sim one_state  # {fault}");
    }
    assert!(found.violations.is_empty(), "{} states went wrong", found.violations.len());
    assert_eq!(census.totals().2, 0, "states from which nothing goes on");
}

/// Every step, before its intent and before its outcome.
fn assert_every_window_met(census: &Census, histories: &[explore::History]) {
    for step in histories[0].steps() {
        for window in ["before intent", "before outcome"] {
            let met = census.cells.keys().any(|cell| cell.step == step && cell.window == window);
            // What is found so is never intended.
            assert!(met || (step == "stop-service" && window == "before outcome"), "{step}, {window}");
        }
    }
}

#[test]
fn i7_a_power_cut_on_a_strict_disk_ends_with_the_old_machine_or_the_new_one() {
    explore(Model::Strict);
}

#[test]
fn i9_a_power_cut_on_an_ordered_disk_forgets_no_acknowledged_record() {
    explore(Model::Ordered);
}

/// What a kytx that was killed left on its way to the medium, another must not take for sure.
#[test]
fn i2_a_kill_and_then_a_power_cut_loses_nothing_that_was_relied_on() {
    let seed = seed();
    let mut census = Census::new("simulated: killed, then strict", seed);
    let share = campaign::kills(seed);
    let found = campaign::explore(Model::Strict, &share, &histories(&[]), &mut census);
    report(&census, &found);
    assert!(census.totals().0 > 1_000);
}

/// One state again, by the name that a failing run has printed.
#[test]
fn one_state() {
    let name = std::env::var("KYTX_SIM_STATE").unwrap_or_else(|_| "strict:upgrade:300:1".to_owned());
    let name: Name = name.parse().unwrap();
    let verdict = campaign::one(&name);
    println!("{name}: {:?}: {:?}", verdict.cell, verdict.end);
    if let Err(fault) = verdict.end {
        panic!("{name}: {fault}");
    }
}
