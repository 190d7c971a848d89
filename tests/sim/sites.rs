//! What each request for durability is there for: each in the code, one after another, is swallowed, and the
//! simulation must find a crash after which something that kytx promises does not hold.
//!
//! The places are read from the source, so that one which nothing simulates is seen, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kytx::effect::tree::{copy_tree_syncing_once, no_tick};

use crate::campaign::{Found, Share, explore, histories};
use crate::crash::{Model, Walk};
use crate::explore::History;
use crate::scene::{self, HOME};
use crate::sim_fs::{Lacking, Place, SimFs};
use crate::support::census::{Census, seed};

/// Requests whose removal nothing notices, and why.
const REDUNDANT: &[(&str, &str)] = &[];

/// Requests that no history here comes to, and why.
const NOT_SIMULATED: &[(&str, &str)] = &[];

/// Every place in the code that asks for durability, by name: file, function, what is asked for, and its number there.
fn places() -> BTreeMap<Place, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("testbed") {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("tests.rs") {
                read_places(&path, &mut found);
            }
        }
    }
    found
}

fn read_places(path: &Path, found: &mut BTreeMap<Place, String>) {
    let text = fs::read_to_string(path).unwrap();
    let short = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_str().unwrap().to_owned();
    let (mut function, mut counts) = (String::new(), BTreeMap::<String, usize>::new());
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        if let Some((_, rest)) = code.split_once("fn ") {
            function = rest.split(['(', '<']).next().unwrap().to_owned();
        }
        for call in [".sync()", ".sync_dir(", ".sync_fs("] {
            if code.contains(call) {
                let name = format!("{short} {function} {}", call.trim_matches(['.', '(', ')']));
                let count = counts.entry(name.clone()).or_default();
                *count += 1;
                let name = if *count > 1 { format!("{name} {count}") } else { name };
                found.insert((short.clone(), number as u32 + 1), name);
            }
        }
    }
}

/// The copy that is synced as a whole is for stores of many files, which would take the simulation long: here it is by
/// itself. Returns the places that asked, and what is missing from the copy if the power goes once it has returned.
fn copy_at_once(deaf_to: &[Place]) -> (Vec<Place>, Option<String>) {
    let base = scene::build(true);
    let fs = SimFs::mount(base.clone(), Lacking::default(), deaf_to.to_vec(), 1);
    copy_tree_syncing_once(&fs, HOME.as_ref(), "/copy".as_ref(), &no_tick).unwrap();
    let core = fs.core();
    let mut walk = Walk::new(Model::Strict, &base, &core.log, 0);
    while walk.at < core.log.len() {
        walk.step();
    }
    let copy = scene::tree(&walk.build(&walk.fates(0)), "/copy");
    let harm = scene::difference(&scene::tree(&base, HOME), &copy);
    (core.asked.iter().cloned().collect(), harm)
}

/// What the simulation makes of places that are swallowed: the first state that goes wrong.
fn look_for_harm(places: &[Place]) -> Option<String> {
    if let (_, Some(harm)) = copy_at_once(places) {
        return Some(format!("a copy that is synced once: {harm}"));
    }
    let histories = histories(places);
    let meeting: Vec<History> = histories
        .into_iter()
        .filter(|history| places.iter().any(|place| history.asked.contains(place)))
        .collect();
    // The strict model alone: what it finds nothing in, the other does not either. Power cuts first, then kills that a
    // power cut follows, as they take longer.
    let usual = Share {
        seed: seed(),
        per_mille: 5,
        drawn: 0,
        again_every: 50,
        again: 1,
        kill_every: 0,
        only_one: true,
    };
    let kills = Share { per_mille: 0, kill_every: 1, again_every: 1_000, ..usual };
    [usual, kills].iter().find_map(|share| {
        let mut census = Census::new("sites", share.seed);
        let Found { violations, .. } = explore(Model::Strict, share, &meeting, &mut census);
        violations.into_iter().next().map(|(name, fault)| format!("{name}: {fault}"))
    })
}

#[test]
fn each_sync_in_the_code_is_there_for_something() {
    let (mut asked, harm) = copy_at_once(&[]);
    assert_eq!(harm, None);
    asked.extend(histories(&[]).into_iter().flat_map(|history| history.asked));
    let (mut redundant, mut not_simulated) = (Vec::new(), Vec::new());
    let places = places();
    for place in &asked {
        assert!(places.contains_key(place), "the source has no sync at {place:?}");
    }
    // One again, by a word of its name: `KYTX_SIM_SITE=retire`.
    let only = std::env::var("KYTX_SIM_SITE").ok();
    for (place, name) in &places {
        if only.as_ref().is_some_and(|word| !name.contains(word.as_str())) {
            continue;
        }
        if !asked.contains(place) {
            not_simulated.push(name.clone());
            println!("{name}: not simulated");
            continue;
        }
        match look_for_harm(std::slice::from_ref(place)) {
            Some(harm) => println!("{name}: {harm}"),
            None => {
                println!("{name}: UNNOTICED");
                redundant.push(name.clone());
            }
        }
    }
    let listed =
        |table: &[(&str, &str)]| table.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(redundant, listed(REDUNDANT), "the table of redundant syncs");
    assert_eq!(not_simulated, listed(NOT_SIMULATED), "the table of what is not simulated");
}
