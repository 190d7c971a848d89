//! A machine that somebody changed by hand: between the plan and its begin, between a stop and the resume. kytx names
//! what differs, loses nothing, and goes on once it is put back.

#![allow(clippy::disallowed_methods, reason = "it changes test machines by hand")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use support::commands::{
    begin, begin_words, metadata, on_home, on_upgrade, outside, state_dir, status, text, version,
};
use support::snapshot::{Snapshot, assert_same_tree};
use support::{Machine, options};

use kytx::testbed::Options;

/// Everything, but for what each run writes about itself.
fn everything(machine: &Machine) -> Snapshot {
    // What a step had made in the spare tree by then may be there.
    let own = ["spare", "log", "steps", "holder.json", "lock", "child", "journal", "journal.log"];
    let mut ignored: Vec<String> = own.iter().map(|name| format!("opt/.kytx/kyligence/{name}")).collect();
    // Each run says there that it has the lock.
    ignored.push("hdfs/kylin/_kytx/lock".to_owned());
    Snapshot::take(&machine.root, &ignored.iter().map(String::as_str).collect::<Vec<_>>())
}

fn stopped_before(options: &Options, step: &str) -> Machine {
    let machine = Machine::new(options);
    machine.start();
    begin(&machine, &["--stop-before", step]).expect_code(4);
    machine
}

/// The resume refuses, says these words, and touches nothing.
#[track_caller]
fn resume_is_foreign(machine: &Machine, words: &[&str]) {
    let before = everything(machine);
    on_home(machine, "resume", &[]).explains(5, words);
    assert_same_tree(&before, &everything(machine));
}

#[track_caller]
fn goes_on(machine: &Machine) {
    on_home(machine, "resume", &[]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(machine).contains(&machine.options.new_version));
}

#[track_caller]
fn goes_back(machine: &Machine) {
    on_home(machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(machine).contains(&machine.options.old_version));
}

// ---------------------------------------------------------------------------------------------- plan and begin

#[test]
fn a_saved_plan_holds_only_while_nothing_moves() {
    let machine = Machine::new(&options());
    machine.start();
    let plan = machine.root.join("plan.json");
    on_upgrade(&machine, "plan", &["--out", text(&plan)]).expect_code(0);
    let edited = machine.home.join("conf/setenv.sh");
    let aside = machine.root.join("aside");
    fs::rename(&edited, &aside).unwrap();
    fs::write(&edited, "export KYLIN_JVM_SETTINGS=-Xmx1g\n").unwrap();
    let with_plan = ["--plan", text(&plan)];
    let before = outside(&machine);
    begin(&machine, &with_plan).explains(3, &["out of date", "customisations of the home", "kytx plan"]);
    assert_same_tree(&before, &outside(&machine));
    // With its time, as it was.
    fs::rename(&aside, &edited).unwrap();

    let package = fs::read(&machine.package).unwrap();
    let other = Machine::new(&{
        let mut other = options();
        other.seed = kytx::testbed::Seed(2);
        other
    });
    fs::copy(&other.package, &machine.package).unwrap();
    let before = outside(&machine);
    begin(&machine, &with_plan).explains(3, &["out of date", "stage-tree", "package"]);
    assert_same_tree(&before, &outside(&machine));
    fs::write(&machine.package, package).unwrap();

    begin(&machine, &[&with_plan[..], &["--no-start"]].concat())
        .explains(3, &["out of date", "start-service"]);
    let planned: serde_json::Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
    begin(&machine, &with_plan).expect_code(0);
    assert_eq!(status(&machine)["transaction"], planned["transaction"]);
}

#[test]
fn what_is_no_saved_plan_is_refused() {
    let machine = Machine::new(&options());
    let file = machine.root.join("plan.json");
    let words = ["--plan", text(&file)];
    let before = outside(&machine);
    begin(&machine, &words).explains(3, &["no saved plan"]);
    assert_same_tree(&before, &outside(&machine));
    for content in ["", "{}", r#"{"schema":"kytx.saved-plan.v9","transaction":"0","plan":"0","steps":[]}"#] {
        fs::write(&file, content).unwrap();
        begin(&machine, &words).explains(3, &["no saved plan"]);
    }
}

#[test]
fn a_package_that_changes_after_the_plan_is_not_unpacked() {
    let machine = stopped_before(&options(), "stage-tree");
    let whole = fs::read(&machine.package).unwrap();
    let mut cut = whole.clone();
    cut.truncate(whole.len() / 2);
    fs::write(&machine.package, cut).unwrap();
    on_home(&machine, "resume", &[]).explains(4, &["stage-tree", "kytx abort"]);
    assert!(machine.is_ready(), "nothing was stopped");
    fs::write(&machine.package, whole).unwrap();
    goes_on(&machine);
}

// ---------------------------------------------------------------------------------------------- stop and resume

#[test]
fn a_carried_file_that_is_edited_is_not_lost() {
    for step in ["carry-customisations", "settle-customisations"] {
        let machine = stopped_before(&options(), step);
        let file = machine.home.join("conf/setenv.sh");
        let aside = machine.root.join("aside");
        fs::rename(&file, &aside).unwrap();
        fs::write(&file, "edited meanwhile\n").unwrap();
        resume_is_foreign(&machine, &["conf/setenv.sh", "has been changed", "kytx resume", "kytx abort"]);
        fs::rename(&aside, &file).unwrap();
        goes_on(&machine);
    }
}

#[test]
fn a_carried_file_that_is_removed_is_named() {
    for step in ["carry-customisations", "settle-customisations"] {
        let machine = stopped_before(&options(), step);
        let file = machine.home.join("conf/user.keytab");
        let aside = machine.root.join("aside");
        fs::rename(&file, &aside).unwrap();
        resume_is_foreign(&machine, &["conf/user.keytab", "has been removed", "kytx abort"]);
        fs::rename(&aside, &file).unwrap();
        goes_on(&machine);
    }
}

#[test]
fn an_abort_keeps_an_edit_that_was_made_meanwhile() {
    let machine = stopped_before(&options(), "settle-customisations");
    let file = machine.home.join("conf/setenv.sh");
    fs::write(&file, "edited meanwhile\n").unwrap();
    resume_is_foreign(&machine, &["conf/setenv.sh"]);
    goes_back(&machine);
    assert_eq!(fs::read_to_string(&file).unwrap(), "edited meanwhile\n");
}

#[test]
fn a_home_that_was_replaced_is_not_swapped() {
    let machine = stopped_before(&options(), "start-service");
    // Swapped already: the home is the new tree. Somebody puts another directory in its place.
    let aside = machine.root.join("aside");
    fs::rename(&machine.home, &aside).unwrap();
    fs::create_dir(&machine.home).unwrap();
    fs::write(machine.home.join("theirs"), "theirs").unwrap();
    let before = everything(&machine);
    let ran = on_home(&machine, "resume", &[]);
    assert!(ran.code == 4 || ran.code == 5, "{ran:?}");
    on_home(&machine, "abort", &["--yes"]).explains(5, &["exchange-trees", "are not the two trees"]);
    assert_eq!(fs::read_to_string(machine.home.join("theirs")).unwrap(), "theirs");
    assert_same_tree(&before, &everything(&machine));
    fs::remove_dir_all(&machine.home).unwrap();
    fs::rename(&aside, &machine.home).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(machine.is_ready());
    assert!(version(&machine).contains("3.4.2"));
}

#[test]
fn a_spare_tree_that_was_moved_away_is_missed_before_the_swap() {
    let machine = stopped_before(&options(), "exchange-trees");
    let spare = state_dir(&machine).join("spare");
    let aside = machine.root.join("aside");
    fs::rename(&spare, &aside).unwrap();
    resume_is_foreign(&machine, &["exchange-trees", "spare", "must both be directories"]);
    fs::rename(&aside, &spare).unwrap();
    goes_on(&machine);
}

#[test]
fn a_spare_tree_that_was_moved_away_is_missed_on_the_way_back() {
    let machine = stopped_before(&options(), "start-service");
    let before_metadata = metadata(&machine);
    let spare = state_dir(&machine).join("spare");
    let aside = machine.root.join("aside");
    fs::rename(&spare, &aside).unwrap();
    on_home(&machine, "abort", &["--yes"]).explains(5, &["exchange-trees", "are not the two trees"]);
    assert!(version(&machine).contains("3.4.5"), "the only tree there is stays");
    fs::rename(&aside, &spare).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(version(&machine).contains("3.4.2"));
    assert_eq!(metadata(&machine), before_metadata);
    assert!(machine.is_ready());
}

#[test]
fn both_trees_gone_is_for_a_person() {
    let machine = stopped_before(&options(), "exchange-trees");
    let spare = state_dir(&machine).join("spare");
    let aside: [PathBuf; 2] = ["aside-home", "aside-spare"].map(|name| machine.root.join(name));
    fs::rename(&machine.home, &aside[0]).unwrap();
    fs::rename(&spare, &aside[1]).unwrap();
    resume_is_foreign(&machine, &["exchange-trees", "must both be directories"]);
    on_home(&machine, "status", &[]).expect_code(0);
    begin(&machine, &[]).explains(3, &["does not exist", "kytx status"]);
    fs::rename(&aside[0], &machine.home).unwrap();
    fs::rename(&aside[1], &spare).unwrap();
    goes_on(&machine);
}

#[test]
fn a_service_that_was_started_by_hand_is_not_swapped_away_under() {
    let machine = stopped_before(&options(), "exchange-trees");
    let pid = machine.start();
    let inode = fs::metadata(&machine.home).unwrap();
    on_home(&machine, "resume", &[]).explains(4, &["runs again", &pid.to_string(), "kytx resume"]);
    assert!(machine.is_ready());
    assert_eq!(fs::metadata(&machine.home).unwrap().ino(), inode.ino());
    let _ = machine.script("kylin.sh", &["stop"]);
    goes_on(&machine);
}

#[test]
fn a_new_service_that_was_started_by_hand_is_named() {
    let machine = stopped_before(&options(), "start-service");
    let pid = machine.start();
    on_home(&machine, "resume", &[])
        .explains(5, &["start-service", &pid.to_string(), "kytx did not start it"]);
    assert!(machine.is_ready());
    let _ = machine.script("kylin.sh", &["stop"]);
    goes_on(&machine);
}

#[test]
fn an_archive_name_that_was_taken_meanwhile_is_not_written_over() {
    let machine = stopped_before(&options(), "archive-tree");
    let archive = machine.home.with_file_name("kyligence.backup.tar.gz");
    fs::write(&archive, "somebody's").unwrap();
    resume_is_foreign(&machine, &["archive-tree", "exists already, and not by this transaction"]);
    assert_eq!(fs::read_to_string(&archive).unwrap(), "somebody's");
    fs::remove_file(&archive).unwrap();
    goes_on(&machine);
    goes_back(&machine);
}

#[test]
fn a_directory_in_the_way_of_the_cube_copy_is_not_taken_for_one() {
    let machine = stopped_before(&options().major(), "copy-cube-data");
    let transaction = status(&machine)["transaction"].as_str().unwrap().to_owned();
    let copy = machine.working_dir.join("_kytx").join(transaction).join("copy");
    fs::create_dir_all(&copy).unwrap();
    fs::write(copy.join("theirs"), "theirs").unwrap();
    resume_is_foreign(&machine, &["copy-cube-data", "is not this transaction's"]);
    assert_eq!(fs::read_to_string(copy.join("theirs")).unwrap(), "theirs");
    fs::remove_dir_all(&copy).unwrap();
    goes_on(&machine);
    goes_back(&machine);
}

#[test]
fn a_spare_tree_without_a_journal_is_nobody_s_to_delete() {
    let machine = Machine::new(&options());
    let spare = state_dir(&machine).join("spare");
    fs::create_dir_all(&spare).unwrap();
    fs::write(spare.join("theirs"), "theirs").unwrap();
    let before = outside(&machine);
    begin(&machine, &[]).explains(5, &["spare tree", "move it away"]);
    assert_eq!(fs::read_to_string(spare.join("theirs")).unwrap(), "theirs");
    assert_same_tree(&before, &outside(&machine));
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let machine = Machine::new(&options().major());
    machine.start();
    let before = metadata(&machine);
    begin(&machine, &[]).expect_code(0);
    let transaction = status(&machine)["transaction"].as_str().unwrap().to_owned();
    let entry = state_dir(&machine).join("backup").join(transaction).join("metadata/project/sales.json");
    let was = fs::read(&entry).unwrap();
    fs::write(&entry, "damaged").unwrap();
    on_home(&machine, "verify", &["--deep"]).expect_code(6);
    let migrated = metadata(&machine);
    on_home(&machine, "abort", &["--yes"])
        .explains(4, &["hand-over-data", "the store was not emptied", "sales.json"]);
    assert_eq!(metadata(&machine), migrated);
    fs::write(&entry, was).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    assert_eq!(metadata(&machine), before);
    assert!(machine.is_ready());
}

#[test]
fn begin_words_are_refused_on_an_open_upgrade() {
    let machine = stopped_before(&options(), "stage-tree");
    machine.run(&begin_words(&machine, &[])).explains(4, &["open already", "kytx resume", "kytx abort"]);
    goes_back(&machine);
}

#[test]
fn i6_a_home_that_was_restored_by_hand_is_not_taken_for_the_new_tree() {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &[]).expect_code(0);
    let _ = machine.script("kylin.sh", &["stop"]);
    // The manual's way back. ext4 soon gives the number of the removed directory's inode again.
    fs::remove_dir_all(&machine.home).unwrap();
    let archive = machine.home.with_file_name("kyligence.backup.tar.gz");
    let parent = machine.home.parent().unwrap();
    let tar = std::process::Command::new("tar").arg("-zxf").arg(archive).arg("-C").arg(parent).status();
    assert!(tar.unwrap().success());
    let before = everything(&machine);
    on_home(&machine, "abort", &["--yes"]).explains(5, &["exchange-trees", "are not the two trees"]);
    assert_same_tree(&before, &everything(&machine));
    assert!(version(&machine).contains("3.4.2"));
}
