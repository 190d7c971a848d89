//! The real kytx, killed at counted moments of whole upgrades, of the ways back, of commits, and of the recoveries
//! themselves. However it was killed, `resume` ends in the new release and `abort` in the old one.
//!
//! A moment is a system call of the traced run that changes something (`support/killer.rs`); nothing sleeps and nothing
//! depends on time. `KYTX_SEED` repeats a run, `KYTX_KILLS` scales it, in percent.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]
#![allow(
    clippy::print_stdout,
    reason = "a run of many minutes says its seed, its counts, and each violation at once"
)]

#[path = "kill/moments.rs"]
mod moments;
#[path = "kill/site.rs"]
mod site;
mod support;

use std::collections::BTreeSet;
use std::thread;

use moments::{Measured, Random, Windows};
use site::{Goal, Site, Tally};
use support::killer::{Counted, Victims};
use support::options;

/// One series of kills: what is upgraded, and who is killed.
struct Series {
    name: &'static str,
    major: bool,
    counted: Counted,
    victims: Victims,
    /// How many upgrades are killed; each is killed again on its way.
    upgrades: u64,
    /// How many commits are killed likewise.
    commits: u64,
}

const SERIES: [Series; 4] = [
    Series {
        name: "minor, kytx killed",
        major: false,
        counted: Counted::Own,
        victims: Victims::Program,
        upgrades: 26,
        commits: 2,
    },
    Series {
        name: "major, kytx killed",
        major: true,
        counted: Counted::Own,
        victims: Victims::Program,
        upgrades: 36,
        commits: 0,
    },
    Series {
        name: "major, commits killed",
        major: true,
        counted: Counted::Own,
        victims: Victims::Program,
        upgrades: 2,
        commits: 16,
    },
    Series {
        name: "major, kytx and its scripts killed",
        major: true,
        counted: Counted::Descendants,
        victims: Victims::Descendants,
        upgrades: 24,
        commits: 2,
    },
];

/// I11 and I7: whatever was killed, going on reaches the new release and going back reaches the old one, whole.
#[test]
fn i11_i7_killed_at_any_moment_an_upgrade_ends_new_or_old_and_nothing_is_lost() {
    let seed = std::env::var("KYTX_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_124);
    let percent = std::env::var("KYTX_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    println!("KYTX_SEED={seed} KYTX_KILLS={percent}");
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let runs: Vec<_> = (0_u64..)
            .zip(&SERIES)
            .map(|(number, series)| scope.spawn(move || run(series, Random::new(seed + number), percent)))
            .collect();
        runs.into_iter().map(|run| run.join().expect("a series runs to its end")).collect()
    });
    let moments: usize = tallies.iter().map(|tally| tally.moments.len()).sum();
    let again: u64 = tallies.iter().map(|tally| tally.second_kills).sum();
    let violations: Vec<&String> = tallies.iter().flat_map(|tally| &tally.violations).collect();
    for (series, tally) in SERIES.iter().zip(&tallies) {
        println!("{}: {} moments, {} second kills", series.name, tally.moments.len(), tally.second_kills);
    }
    println!(
        "kill moments: {moments} distinct, {again} second kills, {} violations (KYTX_SEED={seed})",
        violations.len()
    );
    let text: Vec<&str> = violations.iter().map(|violation| violation.as_str()).collect();
    assert!(violations.is_empty(), "{}", text.join("\n\n"));
    let reached: BTreeSet<_> = tallies.iter().flat_map(|tally| tally.reached.iter().cloned()).collect();
    let planned: BTreeSet<_> = tallies.iter().flat_map(|tally| tally.planned.iter().cloned()).collect();
    let missed: Vec<_> = planned.difference(&reached).collect();
    assert!(missed.is_empty() || percent < 100, "no kill in {missed:?}");
    assert!(percent < 100 || (moments >= 300 && again >= 100), "too few kills");
}

fn run(series: &Series, mut random: Random, percent: u64) -> Tally {
    let mut tally = Tally::new(series.name);
    let options = if series.major { options().major() } else { options() };
    let (upgrades, commits) =
        ((series.upgrades * percent).div_ceil(100), (series.commits * percent).div_ceil(100));
    let mut site = Site::new(&options, series.counted, series.victims);
    let windows = site.measure(&mut tally);
    let mut backs = windows.abort.choose(upgrades, &mut random).into_iter().rev();
    for (number, at) in windows.begin.choose(upgrades, &mut random).into_iter().enumerate() {
        let mut back_at = || backs.next().unwrap_or(1);
        upgrade(&mut site, &windows, at, number % 3 != 2, &mut back_at, &mut random, &mut tally);
        renew(&mut site, series, &options, &tally);
    }
    // One series sees to it that every step is met.
    if series.major && series.counted == Counted::Own && upgrades > 10 && percent >= 100 {
        reach_all(&mut site, &windows.steps, &mut tally);
    }
    for at in windows.commit.choose(commits, &mut random) {
        let mut site = Site::new(&options, series.counted, series.victims);
        site.measure_upgrade();
        let kills: Vec<u64> =
            std::iter::once(at).chain((0..3).map(|_| random.up_to(windows.commit.calls() * 2 / 3))).collect();
        site.go(Goal::Committed, &kills, &mut tally);
        site.check_committed(&mut tally);
    }
    tally
}

/// A machine that shows a violation says nothing about the next kill.
fn renew(site: &mut Site, series: &Series, options: &kytx::testbed::Options, tally: &Tally) {
    if tally.violations.len() > site.violations_seen {
        *site = Site::new(options, series.counted, series.victims);
        site.measure(&mut Tally::new(series.name));
        site.violations_seen = tally.violations.len();
    }
}

/// Kills within every step that no kill has met yet, both ways.
fn reach_all(site: &mut Site, steps: &[String], tally: &mut Tally) {
    for (number, name) in steps.iter().enumerate() {
        let misses = |phase: &str| !tally.reached.contains(&(phase.to_owned(), name.clone()));
        if misses("applying") || misses("aborting") {
            site.meet(number, steps.len() - 1 - number, tally);
        }
    }
}

/// An upgrade that is killed at a call of `begin`, perhaps completed, and in any case undone, which is killed too.
fn upgrade(
    site: &mut Site,
    windows: &Measured,
    at: u64,
    goes_on: bool,
    back_at: &mut dyn FnMut() -> u64,
    random: &mut Random,
    tally: &mut Tally,
) {
    let left = |windows: &Windows, at: u64| windows.calls().saturating_sub(at) + 60;
    site.begin(at, tally);
    if goes_on {
        let kills: Vec<u64> = (0..2).map(|_| random.up_to(left(&windows.begin, at))).collect();
        site.go(Goal::Applied, &kills, tally);
        if site.is_open() {
            site.check_new(tally);
        }
    }
    if site.is_open() {
        let first = back_at();
        let kills = [first, random.up_to(left(&windows.abort, first)), random.up_to(120)];
        site.go(Goal::Aborted, &kills, tally);
    }
    site.check_old(tally);
}
