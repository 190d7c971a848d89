//! Whole upgrades by the real binary against the stand-in: committed, aborted, stopped, resumed.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]

mod support;

use support::product::WRITTEN;
use support::snapshot::{Snapshot, assert_same_tree};
use support::{Machine, Ran, options};

use kytx::testbed::StoreContent as Content;

fn begin(machine: &Machine, more: &[&str]) -> Ran {
    let home = machine.home.to_str().unwrap();
    let package = machine.package.to_str().unwrap();
    let mut args = vec!["begin", home, "--package", package, "--silent"];
    args.extend(more);
    machine.run(&args)
}

fn command(machine: &Machine, command: &str, more: &[&str]) -> Ran {
    let mut args = vec![command, machine.home.to_str().unwrap()];
    args.extend(more);
    machine.run(&args)
}

fn version(machine: &Machine) -> String {
    std::fs::read_to_string(machine.home.join("VERSION")).unwrap().trim().to_owned()
}

/// The same entries with the same content, but for what every start of the product rewrites (reference 22.6).
fn assert_metadata(before: &Content, after: &Content) {
    let without = |content: &Content| -> Content {
        content
            .iter()
            .filter(|(path, _)| !path.starts_with("user"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    assert_eq!(without(before), without(after));
}

#[test]
fn a_major_upgrade_is_applied_verified_and_committed() {
    let machine = Machine::new(&options().major());
    machine.start();
    let ran = begin(&machine, &[]).expect_code(0);
    let last = ran.stdout.lines().last().unwrap();
    assert!(
        last.contains("not yet committed") && last.contains("kytx commit") && last.contains("kytx abort"),
        "{last}"
    );
    assert!(ran.stdout.contains("Backup location:") && ran.stdout.contains("Downtime: "), "{}", ran.stdout);
    assert!(machine.is_ready());
    assert!(version(&machine).contains("3.4.5"), "{}", version(&machine));
    for level in ["--quick", "--deep", "--drill"] {
        command(&machine, "verify", &[level]).expect_code(0);
    }
    command(&machine, "verify", &[]).expect_code(0);
    command(&machine, "commit", &["--yes"]).expect_code(0);
    command(&machine, "resume", &[]).expect_code(8);
    assert!(machine.is_ready());
    assert!(!machine.root.join(".kytx").join("nothing").exists());
}

#[test]
fn an_aborted_major_upgrade_leaves_home_metadata_and_cube_data_as_they_were() {
    let machine = Machine::new(&options().major());
    machine.start();
    let home = Snapshot::take(&machine.real_home, &WRITTEN);
    // Large metadata entries are files there too; the product's restore writes them anew, with their content.
    let cube = Snapshot::take(&machine.working_dir.join("kylin_metadata"), &["resources-jdbc"]);
    let metadata = machine.store.content().unwrap();
    begin(&machine, &[]).expect_code(0);
    command(&machine, "abort", &["--yes"]).expect_code(0);
    assert_same_tree(&home, &Snapshot::take(&machine.real_home, &WRITTEN));
    assert_same_tree(
        &cube,
        &Snapshot::take(&machine.working_dir.join("kylin_metadata"), &["resources-jdbc"]),
    );
    assert_eq!(std::fs::read_dir(&machine.working_dir).unwrap().count(), 1, "nothing of kytx is left there");
    assert_metadata(&metadata, &machine.store.content().unwrap());
    assert!(machine.is_ready());
}

#[test]
fn a_stopped_upgrade_is_resumed() {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &["--stop-before", "exchange-trees"]).expect_code(4);
    let status = command(&machine, "status", &["--json"]).expect_code(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["phase"], &status["schema"]), (&"applying".into(), &"kytx.status.v1".into()));
    assert!(!machine.is_ready());
    begin(&machine, &[]).expect_code(4);
    command(&machine, "resume", &[]).expect_code(0);
    assert!(machine.is_ready());
    let log = command(&machine, "log", &["--json"]).expect_code(0);
    assert!(log.stdout.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[test]
fn an_abort_before_the_new_release_was_started_leaves_the_metadata_store_alone() {
    let machine = Machine::new(&options().major());
    machine.start();
    begin(&machine, &["--stop-before", "start-service"]).expect_code(4);
    let metadata = machine.store.content().unwrap();
    command(&machine, "abort", &["--yes"]).expect_code(0);
    let calls = machine.calls().unwrap();
    let emptied = calls.iter().any(|call| call.args.starts_with("reset") || call.args.starts_with("restore"));
    assert!(!emptied, "a store that the new release never saw was emptied and restored");
    assert_metadata(&metadata, &machine.store.content().unwrap());
    assert!(machine.is_ready());
}
