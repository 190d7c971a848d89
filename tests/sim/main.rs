//! What a power cut can leave behind, on a disk in memory: see `crash` for what is legal.
//!
//! `cargo test --test sim`; one state again, in words: `KYTX_SIM_STATE=MODEL:SCENARIO:POINT:CHOICE cargo test --test
//! sim one_state`.

#![allow(clippy::print_stdout, reason = "the counts are part of the result")]

mod crash;
mod disk;
mod explore;
mod product;
mod promise;
mod run;
mod scene;
mod sim_fs;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use explore::{History, SCENARIOS};

#[test]
fn probe() {
    for scenario in SCENARIOS {
        let t = Instant::now();
        let history = History::run(scenario, None);
        println!("{}: log {} in {:?}, sites {}", scenario.name, history.line.log.len(), t.elapsed(), history.asked.len());
        for model in crash::Model::ALL {
            let t = Instant::now();
            let seen = Mutex::new(HashSet::new());
            let (mut n, mut bad, mut reg) = (0, 0, 0);
            history.explore(&history.line, model, (0, 1), &seen, &|walk| { vec![0, 1, 2 + walk.at % 7] }, &mut |at, choice, _, verdict| {
                n += 1;
                if let Err(fault) = &verdict.end {
                    bad += 1;
                    if bad < 9 { println!("  {}:{}:{at}:{choice} {:?} {fault}", model.name(), scenario.name, verdict.cell); }
                }
            });
            let mut walk = crash::Walk::new(model, &history.line.base, &history.line.log, 0);
            while walk.at < history.line.log.len() { if walk.step() { reg += walk.regular(); } }
            println!("  {} {n} states, {bad} bad, {:?}, regular {reg}", model.name(), t.elapsed());
        }
    }
}
