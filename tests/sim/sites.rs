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

/// A request whose removal alone nothing notices: its name, those together with which it is missed, and why.
type Redundant = (&'static str, &'static [&'static str], &'static str);

/// All of them, by file and line.
const REDUNDANT: &[Redundant] = &[
    (
        "src/effect/tree.rs copy_tree_syncing_once sync_fs",
        &[],
        "asks, before the first write, whether the file system can be synced as a whole",
    ),
    (
        "src/effect/tree.rs sync_tree sync_dir",
        &[],
        "the name of the tree that is archived was synced when it was given, by the swap",
    ),
    (
        "src/hadoop/local.rs mirror sync_dir",
        &[],
        "an early copy that is lost is made again by the final pass, but within the downtime",
    ),
    (
        "src/journal/ballast.rs make_with sync",
        &[],
        "a ballast that is lost is made again; synced so that its room is taken on the disk and not only promised",
    ),
    ("src/journal/ballast.rs make_with sync_dir", &[], "likewise"),
    (
        "src/journal/sled.rs sync_store sync_dir",
        &[],
        "the names in `blobs`, of which there are none, or the store is refused",
    ),
    (
        "src/journal/store.rs retire sync_dir",
        &[],
        "whatever is kept of the two renames opens (A3), and the next journal's names come after them; where A3 is \
         false, the new name is there before the old one is gone",
    ),
    (
        "src/journal/store.rs rename sync_dir",
        &["src/journal/store.rs open sync_dir"],
        "a creation and a repair end with an opening, which syncs the same directory; the order of the two renames \
         does not matter, as each half alone is repaired",
    ),
    (
        "src/journal/store.rs open sync",
        &[],
        "a record that a killed kytx left unsynced in the twin is sure in the store by then, and completed from it",
    ),
    (
        "src/journal/store.rs open sync_dir",
        &["src/journal/store.rs rename sync_dir"],
        "likewise, but for a kytx that was killed right before the sync of its rename: the half that is lost is repaired",
    ),
    (
        "src/mutate/carry_customisations.rs make_parents sync_dir",
        &[],
        "`sync_parents` syncs every directory above an item once it is in place",
    ),
];

/// Requests that no history here comes to, and why.
const NOT_SIMULATED: &[(&str, &str)] = &[
    (
        "src/cli/cluster_lock.rs remove sync_dir",
        "the lock of the cube data is taken around what is driven here",
    ),
    ("src/hadoop/lock.rs publish sync_dir", "likewise"),
    ("src/hadoop/lock.rs clear sync_dir", "likewise"),
    ("src/journal/ballast.rs release sync_dir", "the simulated disk is never full"),
    (
        "src/kyligence/service.rs remove_if_there sync_dir",
        "there are no processes here, and no files that name them",
    ),
    (
        "src/state_dir.rs remove_claim sync_dir",
        "the state is in its default place here, where no claim is made",
    ),
];

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
            rest.split(['(', '<']).next().unwrap().clone_into(&mut function);
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
    let is_wanted = |name: &str| only.as_ref().is_none_or(|word| name.contains(word.as_str()));
    for (place, name) in &places {
        if !is_wanted(name) {
            continue;
        }
        if !asked.contains(place) {
            not_simulated.push(name.clone());
            println!("{name}: not simulated");
            continue;
        }
        if let Some(harm) = look_for_harm(std::slice::from_ref(place)) {
            println!("{name}: {harm}");
        } else {
            println!("{name}: UNNOTICED");
            redundant.push(name.clone());
        }
    }
    let table: Vec<&str> = REDUNDANT.iter().map(|(name, ..)| *name).filter(|name| is_wanted(name)).collect();
    assert_eq!(redundant, table, "the table of redundant syncs");
    let table: Vec<&str> =
        NOT_SIMULATED.iter().map(|(name, _)| *name).filter(|name| is_wanted(name)).collect();
    assert_eq!(not_simulated, table, "the table of what is not simulated");
    for (name, others, _) in
        REDUNDANT.iter().filter(|(name, others, _)| !others.is_empty() && is_wanted(name))
    {
        let wanted = |(_, found): &(&Place, &String)| name == found || others.contains(&found.as_str());
        let group: Vec<Place> = places.iter().filter(wanted).map(|(place, _)| place.clone()).collect();
        assert_eq!(group.len(), 1 + others.len(), "{name}: {group:?}");
        let harm = look_for_harm(&group);
        println!("{name}, with {others:?}: {harm:?}");
        assert!(harm.is_some(), "{name} is not missed, even with {others:?}");
    }
}
