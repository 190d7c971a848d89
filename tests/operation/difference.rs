//! The way back of the metadata by what differs: shorter, exact, and never trusted.

use super::support::commands::{begin, metadata, on_home, state_dir, text};
use super::support::killer::{Counted, Outcome, Victims, run_killed_after};
use super::support::random::Random;
use super::support::{Machine, options};
use kytx::testbed::{Knob, StoreContent};

const BY_DIFFERENCE: [&str; 3] = ["--yes", "--restore", "difference"];

/// An upgrade after which entries were added, changed and removed, large ones among them; what the store held before.
fn upgraded() -> (Machine, StoreContent) {
    let machine = Machine::new(&options().major());
    let before = metadata(&machine);
    begin(&machine, &[]).expect_code(0);
    let store = &machine.store;
    store.put("cube/new_cube.json", b"{}").unwrap();
    store.put("user/NEW", b"{}").unwrap();
    store.put("project/sales.json", br#"{"name":"sales","tables":[]}"#).unwrap();
    store.put("table_snapshot/ORDERS/9b2.snapshot", b"changed").unwrap();
    std::fs::remove_file(store.dir().join("model_desc/sales_model.json")).unwrap();
    assert_ne!(metadata(&machine), before);
    (machine, before)
}

/// What the metadata tool was called for since then, but to list.
fn called(machine: &Machine, since: usize) -> Vec<String> {
    let calls = machine.calls().unwrap().split_off(since);
    let of_tool = calls.into_iter().filter(|call| call.script == "metastore.sh");
    let words = of_tool.map(|call| call.args.split(' ').next().unwrap().to_owned());
    words.filter(|word| word != "list").collect()
}

#[test]
fn only_what_differs_is_removed_and_put_back() {
    let (machine, before) = upgraded();
    let since = machine.calls().unwrap().len();
    let backups = state_dir(&machine).join("spare/meta_backups").read_dir().unwrap().count();
    let ran = on_home(&machine, "abort", &BY_DIFFERENCE).expect_code(0);
    assert_eq!(metadata(&machine), before);
    let words = called(&machine, since);
    assert_eq!(words.first().map(String::as_str), Some("backup"), "{words:?}");
    assert!(!words.contains(&"reset".to_owned()), "the store was never empty: {words:?} {}", ran.stderr);
    // Those two, and what the first start of the new release itself put in.
    assert!(words.iter().filter(|word| *word == "remove").count() >= 2, "{words:?}");
    assert_eq!(words.iter().filter(|word| *word == "restore").count(), 1, "{words:?}");
    assert_eq!(words.last().map(String::as_str), Some("backup"), "compared again: {words:?}");
    assert!(ran.stderr.contains("are put back and"), "{}", ran.stderr);
    // The backups that were made for it are gone again.
    assert_eq!(machine.real_home.join("meta_backups").read_dir().unwrap().count(), backups);
}

#[test]
fn a_small_store_is_emptied_and_restored_unless_told_otherwise() {
    let (machine, before) = upgraded();
    let since = machine.calls().unwrap().len();
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(metadata(&machine), before);
    assert_eq!(called(&machine, since), ["reset", "restore"]);
}

#[test]
fn where_the_difference_cannot_be_proven_the_store_is_restored_in_full() {
    for mode in ["empty", "failed-copy", "lost-markers", "forgets"] {
        let (machine, before) = upgraded();
        machine.knobs.of_version(&machine.options.old_version).set(Knob::BackupMode, mode).unwrap();
        let since = machine.calls().unwrap().len();
        let ran = on_home(&machine, "abort", &BY_DIFFERENCE).expect_code(0);
        assert!(ran.stderr.contains("restoring only what differs did not do ("), "{mode}: {}", ran.stderr);
        assert_eq!(metadata(&machine), before, "{mode}");
        let words = called(&machine, since);
        assert_eq!(words[words.len() - 2..], ["reset", "restore"], "{mode}: {words:?}");
    }
}

/// The content of a large entry lies with the cube data, which are put back first: of a new one only the marker is left,
/// at which the tool's own backup stumbles (reference 22.1).
#[test]
fn a_large_entry_that_came_since_is_left_to_the_way_in_full() {
    let (machine, before) = upgraded();
    machine.store.put("dict/DEFAULT.NEW/X/1.dict", b"a new large one").unwrap();
    let ran = on_home(&machine, "abort", &BY_DIFFERENCE).expect_code(0);
    let words = "restoring only what differs did not do (`metastore.sh backup` made no complete backup";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert_eq!(metadata(&machine), before);
}

#[test]
fn too_many_new_entries_are_not_removed_one_by_one() {
    let (machine, before) = upgraded();
    for number in 0..60 {
        machine.store.put(&format!("execute/{number}"), b"{}").unwrap();
    }
    let since = machine.calls().unwrap().len();
    on_home(&machine, "abort", &BY_DIFFERENCE).expect_code(0);
    assert_eq!(metadata(&machine), before);
    assert_eq!(called(&machine, since), ["backup", "reset", "restore"]);
}

#[test]
fn killed_anywhere_it_ends_where_it_should() {
    const SEED: u64 = 20_261_126;
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    let mut hits = 0;
    for (round, how) in ["difference", "full", "difference"].into_iter().enumerate() {
        let (machine, before) = upgraded();
        let abort = ["abort", text(&machine.home), "--yes", "--restore", "difference"];
        let n = 25 + random.up_to(160);
        let traced = run_killed_after(machine.kytx(&abort), 0, n, Counted::Own, Victims::Program);
        println!("round {round}, killed at change {n}: {:?}, resumed by {how}", traced.outcome);
        hits += u32::from(traced.outcome == Outcome::Killed);
        if traced.outcome == Outcome::Killed {
            // Killed before the turn back was recorded, the upgrade stands: `abort` serves both.
            on_home(&machine, "abort", &["--yes", "--restore", how]).expect_code(0);
        }
        assert_eq!(metadata(&machine), before, "round {round}");
    }
    assert!(hits > 0);
}
