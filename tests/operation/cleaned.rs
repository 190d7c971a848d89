//! The cleaning that the manual recommends from release 2 to 3: before the backups or not at all.

use std::fs;

use super::support::Ran;
use super::support::commands::{begin, metadata, on_home, text, version};
use super::support::{Machine, options};
use super::whole::{kap_2, of_release_3};
use kytx::testbed::Knob;

const SCRIPTS: [&str; 3] = ["MetadataChecker", "clean", "KapStorageCleanupCLI"];

/// What was called of the product, in a word or two, in order.
fn called(machine: &Machine) -> Vec<String> {
    let calls = machine.calls().unwrap();
    calls.iter().map(|call| format!("{} {}", call.script, call.args)).collect()
}

fn litter(machine: &Machine) -> [std::path::PathBuf; 2] {
    machine.store.put("garbage/1", b"nothing refers to it").unwrap();
    let file = machine.store.working().join("garbage/1.parquet");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "no segment names it").unwrap();
    [machine.store.dir().join("garbage/1"), file]
}

#[test]
fn outdated_data_are_listed_and_deleted_before_the_backups_and_never_after() {
    let machine = kap_2();
    let package = of_release_3(&machine);
    let licence = machine.root.join("licence");
    let words = [
        &["begin", text(&machine.home), "--package", text(&package), "--silent", "--licence", text(&licence)]
            [..],
        &["--jobs-finished"],
    ]
    .concat();
    let clean = |machine: &Machine| -> Ran { machine.run(&[&words[..], &["--clean-outdated"]].concat()) };
    let garbage = litter(&machine);
    machine.start();
    clean(&machine).explains(3, &["nothing is cleaned up while the service runs", "kylin.sh stop"]);
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    // A tool that fails ends it before anything is deleted.
    machine.knobs.set(Knob::StoreDown, 1).unwrap();
    clean(&machine).explains(3, &["the cleaning failed", "MetadataChecker check` failed (exit code 1)"]);
    machine.knobs.unset(Knob::StoreDown).unwrap();
    assert!(garbage.iter().all(|path| path.exists()));

    let from = called(&machine).len();
    let ran = clean(&machine).expect_code(0);
    assert!(ran.stderr.contains("garbage/1") && ran.stderr.contains("garbage/1.parquet"), "{}", ran.stderr);
    assert!(!metadata(&machine).contains_key("garbage/1") && garbage.iter().all(|path| !path.exists()));
    let calls = called(&machine).split_off(from);
    let backup = calls.iter().position(|call| call == "metastore.sh backup").unwrap();
    let cleans = |call: &String| SCRIPTS.iter().any(|word| call.contains(word));
    assert_eq!(calls[..backup].iter().filter(|call| cleans(call)).count(), 5, "{calls:?}");
    assert!(!calls[backup..].iter().any(cleans), "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains("recovery")), "nobody said that something is broken");
    // While the upgrade is open there is no such thing.
    clean(&machine).explains(4, &["is open already"]);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(version(&machine).contains("2.5.3"));
    assert!(!metadata(&machine).contains_key("garbage/1"), "what was cleaned up does not come back");
    let told = machine.run(&["check", text(&machine.home), "--package", text(&package)]);
    assert!(told.stdout.contains("`begin --clean-outdated`"), "{}", told.stdout);
}

#[test]
fn later_releases_are_not_cleaned_up() {
    let machine = Machine::new(&options());
    begin(&machine, &["--clean-outdated"]).explains(2, &["for an upgrade from release 2"]);
}
