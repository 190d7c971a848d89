//! The ways in which the product's own upgrade script and the manual's procedure fail, by their numbers in the project's
//! reference, and each in the situation in which it fails: what kytx does there instead. The table at the end says which
//! numbers must have a test here.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks into test machines")]

#[path = "hdfs/bed.rs"]
#[allow(dead_code, reason = "most of it is for the tests on a cluster alone")]
mod hadoop;
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::read::GzDecoder;
use serde_json::Value;

use support::calls::{Memory, Seen, look};
use support::commands::{
    begin, begin_words, metadata, on_home, on_upgrade, outside, state_dir, status, step_state, text, typed,
    version,
};
use support::killer::{Counted, Outcome, Victims, WRITES, run_killed_after};
use support::snapshot::{Snapshot, assert_same_tree};
use support::tracer::{Call, Then, Watcher, trace};
use support::{Machine, Ran, is_alive, options, wait_until};

use kytx::testbed::{Knob, Nasty};

fn put(machine: &Machine, path: &str, content: &str) {
    let path = machine.real_home.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn read(machine: &Machine, path: &str) -> String {
    fs::read_to_string(machine.home.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn has(machine: &Machine, path: &str) -> bool {
    fs::symlink_metadata(machine.home.join(path)).is_ok()
}

/// Upgrades the home, and leaves the start to the operator: what is then in the home was put there by kytx.
fn swapped(machine: &Machine, more: &[&str]) {
    begin(machine, &[&["--no-start"], more].concat()).expect_code(0);
    assert!(version(machine).contains(machine.options.new_version.as_str()));
}

fn archive_of(machine: &Machine) -> PathBuf {
    machine
        .real_home
        .with_file_name(format!("{}.backup.tar.gz", machine.real_home.file_name().unwrap().to_str().unwrap()))
}

/// The members of an archive, read to its very end.
fn members(archive: &Path) -> BTreeSet<String> {
    let mut tar = tar::Archive::new(GzDecoder::new(File::open(archive).unwrap()));
    let mut names = BTreeSet::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        std::io::copy(&mut entry, &mut std::io::sink()).unwrap();
        names.insert(String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned());
    }
    names
}

/// The number of the journal's record that begins a step, as a whole run of the same plan has it.
fn intent_of(machine: &Machine, step: &str) -> usize {
    let id = status(machine)["steps"].as_array().unwrap().iter().find(|s| s["name"] == step).unwrap()["id"]
        .clone();
    let log = on_home(machine, "log", &["--json"]).expect_code(0).stdout;
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_step = |record: &&Value| record["record"] == "intent" && record["step"] == id;
    records.iter().find(of_step).unwrap_or_else(|| panic!("no intent in {log}"))["lsn"].as_u64().unwrap()
        as usize
}

/// Runs kytx and kills it at the `n`-th change after that record; whether it was.
fn killed_after(machine: &Machine, words: &[&str], records: usize, n: u64) -> bool {
    let traced = run_killed_after(machine.kytx(words), records, n, Counted::Own, Victims::Program);
    traced.outcome == Outcome::Killed
}

/// Kills upgrades within one step, after every change until the step is through, and looks after each kill.
fn killed_within(step: &str, look: impl Fn(&Machine)) {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &[]).expect_code(0);
    let record = intent_of(&machine, step);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    let mut within = 0;
    for n in [1, 2, 4, 7, 11] {
        fs::remove_file(archive_of(&machine)).unwrap_or_default();
        assert!(killed_after(&machine, &begin_words(&machine, &[]), record, n), "{step} at {n}");
        let state = step_state(&status(&machine), step);
        within += u32::from(state == "intended");
        look(&machine);
        // Run again as the script would be: it says where things stand, and does not start over on top.
        begin(&machine, &[]).explains(4, &["is open already", "kytx resume", "kytx abort"]);
        look(&machine);
        on_home(&machine, "abort", &["--yes"]).expect_code(0);
        assert!(machine.is_ready() && version(&machine).contains("3.4.2"));
    }
    assert!(within >= 2, "the step was hit {within} times");
}

// ---------------------------------------------------------------------------------------------- interruption

#[test]
fn f_01_a_kill_around_the_swap_leaves_a_home_at_the_homes_path() {
    killed_within("exchange-trees", |machine| {
        let release = version(machine);
        assert!(release.contains("3.4.2") || release.contains("3.4.5"), "{release}");
        assert!(has(machine, "bin/kylin.sh") && has(machine, "conf/kylin.properties"));
    });
}

#[test]
fn f_02_a_kill_while_the_old_home_is_deleted_spoils_no_archive() {
    let machine = Machine::new(&options());
    machine.start();
    begin(&machine, &[]).expect_code(0);
    let archive = archive_of(&machine);
    let (bytes, live) = (fs::read(&archive).unwrap(), Snapshot::take(&machine.real_home, &[]));
    // The commit record comes first, then the step's intent.
    let open = on_home(&machine, "log", &["--json"]).expect_code(0).stdout.lines().count();
    let words = ["commit", text(&machine.home), "--yes"];
    assert!(killed_after(&machine, &words, 2, 9));
    assert_eq!(step_state(&status(&machine), "discard-old-tree"), "intended", "after {open} records");
    assert_eq!(fs::read(&archive).unwrap(), bytes, "the archive is as it was");
    // A second run, in the same minute or in another, packs no remains.
    begin(&machine, &[]).explains(4, &["is open already", "kytx resume"]);
    assert_eq!(fs::read(&archive).unwrap(), bytes);
    assert_same_tree(&live, &Snapshot::take(&machine.real_home, &[]));
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(!archive.exists() && !state_dir(&machine).join("spare").exists());
}

#[test]
fn f_03_a_kill_while_the_archive_is_written_leaves_none_of_its_name() {
    killed_within("archive-tree", |machine| {
        let archive = archive_of(machine);
        if archive.exists() {
            assert!(members(&archive).contains("kyligence/VERSION"), "an archive of that name is whole");
        }
    });
}

#[test]
fn f_04_a_kill_while_customisations_are_copied_leaves_the_home_alone_and_no_mixture() {
    let machine = Machine::new(&options());
    // The product's own scripts write the rest into whichever home they are called in.
    let ignored = ["logs*", "pid", "meta_backups*", "bin/cached-*.sh"];
    swapped(&machine, &[]);
    let record = intent_of(&machine, "carry-customisations");
    let whole = Snapshot::take(&machine.real_home, &ignored);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    let old = Snapshot::take(&machine.real_home, &ignored);
    for n in [3, 40] {
        let words = begin_words(&machine, &["--no-start"]);
        assert!(killed_after(&machine, &words, record, n), "at {n}");
        assert_eq!(step_state(&status(&machine), "carry-customisations"), "intended");
        assert_same_tree(&old, &Snapshot::take(&machine.real_home, &ignored));
        on_home(&machine, "resume", &[]).expect_code(0);
        let resumed = Snapshot::take(&machine.real_home, &ignored);
        let lines = whole.diff_but_dir_times(&resumed);
        assert!(lines.is_empty(), "killed at {n}:\n{}", lines.join("\n"));
        on_home(&machine, "abort", &["--yes"]).expect_code(0);
    }
}

#[test]
fn f_05_trees_on_two_file_systems_are_never_moved_half() {
    let machine = Machine::new(&options());
    let shm = Path::new("/dev/shm");
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    if device(shm).is_ok_and(|shm| shm != device(&machine.root).unwrap()) {
        let other = shm.join(format!("kytx-f05-{}", std::process::id()));
        let before = outside(&machine);
        begin(&machine, &["--state-dir", text(&other)])
            .explains(3, &["another file system", "Nothing was changed."]);
        assert_same_tree(&before, &outside(&machine));
        assert!(!other.exists());
    }
    // A package from there is unpacked beside the home, and the swap is within one file system.
    swapped(&machine, &[]);
    assert_eq!(device(&machine.real_home).unwrap(), device(&state_dir(&machine).join("spare")).unwrap());
}

/// Writes to the archive of the old home, syncs of it, of the directory that holds it and of the journal, renames and
/// removals: in the order in which kytx makes these calls.
#[derive(Default)]
struct Ledger {
    memory: Memory,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Written,
    Synced,
    DirectorySynced,
    Renamed,
    Removed,
    Recorded,
}

impl Watcher for Ledger {
    fn entry(&mut self, call: &Call) -> Then {
        let Some(Seen { name, path, .. }) = look(&mut self.memory, call) else { return Then::Happen };
        let is_archive = path.to_string_lossy().contains(".backup.tar.gz");
        let syncs = ["fsync", "fdatasync"].contains(&name);
        self.entries.extend(match name {
            _ if WRITES.contains(&call.number) && is_archive => Some(Entry::Written),
            _ if syncs && is_archive => Some(Entry::Synced),
            _ if syncs && path.is_dir() && path.ends_with("opt") => Some(Entry::DirectorySynced),
            _ if syncs && path.ends_with("journal.log") => Some(Entry::Recorded),
            "rename" | "renameat" | "renameat2" => Some(Entry::Renamed),
            // The old tree lies in the spare tree's place.
            "unlink" | "unlinkat" | "rmdir" if is_archive || path.to_string_lossy().contains("/spare") => {
                Some(Entry::Removed)
            }
            _ => None,
        });
        Then::Happen
    }
}

#[test]
fn f_06_archive_and_directories_are_on_disk_before_anything_is_deleted() {
    let machine = Machine::new(&options());
    let ledger = |words: &[&str]| {
        let (ended, ledger) = trace(machine.kytx(words), Counted::Own, None, Ledger::default());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        ledger.entries
    };
    let begun = ledger(&begin_words(&machine, &[]));
    let next = |from: usize, wanted: Entry| {
        let found = begun[from..].iter().position(|entry| *entry == wanted);
        from + found.unwrap_or_else(|| panic!("no {wanted:?} after call {from} in {begun:?}"))
    };
    // Written, synced, named, the name synced, and only then in the journal: in that order.
    let written = begun.iter().rposition(|entry| *entry == Entry::Written).expect("an archive is written");
    let synced = next(written, Entry::Synced);
    let named = next(synced, Entry::Renamed);
    let kept = next(named, Entry::DirectorySynced);
    next(kept, Entry::Recorded);
    // The old home is there all the same, whatever has become of the archive.
    assert!(state_dir(&machine).join("spare/VERSION").exists());
    let committed = ledger(&["commit", text(&machine.home), "--yes"]);
    let recorded = committed.iter().position(|entry| *entry == Entry::Recorded);
    let removed = committed.iter().position(|entry| *entry == Entry::Removed);
    assert!(recorded.is_some() && removed.is_some() && removed > recorded, "{committed:?}");
    assert!(!committed.contains(&Entry::Written), "{committed:?}");
}

#[test]
fn f_07_a_restore_that_is_killed_leaves_no_maintenance_mode() {
    let mut options = options().ke4();
    // A major upgrade, which changes metadata.
    "4.4.6.0".clone_into(&mut options.old_version);
    let machine = Machine::new(&options);
    machine.start();
    let before = metadata(&machine);
    begin(&machine, &[]).expect_code(0);
    machine.knobs.set(Knob::RestoreMode, "killed").unwrap();
    on_home(&machine, "abort", &["--yes"]).expect_code(4);
    machine.knobs.unset(Knob::RestoreMode).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
    assert!(!machine.root.join("metadata.maintenance").exists(), "maintenance mode is off");
    assert_eq!(metadata(&machine), before);
}

#[test]
fn f_08_a_lock_of_a_killed_start_blocks_no_start() {
    let machine = Machine::new(&options());
    machine.start();
    machine.knobs.set(Knob::LockStays, 1).unwrap();
    begin(&machine, &[]).expect_code(0);
    assert!(
        !has(&machine, "LOCK"),
        "the start of the new release left it, and the operator's next would be blocked"
    );
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready() && !has(&machine, "LOCK"), "so did that of the old one");
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    machine.script("kylin.sh", &["start"]).expect_code(0);
    machine.script("kylin.sh", &["stop"]).expect_code(0);
    machine.script("kylin.sh", &["start"]).expect_code(1);
    assert!(has(&machine, "LOCK"));
    begin(&machine, &[]).expect_code(0);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
}

// ---------------------------------------------------------------------------------------------- paths

#[test]
fn f_09_a_copy_job_that_outlives_its_client_is_awaited_and_neither_nests_nor_races() {
    let test = "f_09_a_copy_job_that_outlives_its_client_is_awaited_and_neither_nests_nor_races";
    let Some(_bed) = hadoop::bed(test) else { return };
    let site = hadoop::Site::new(hadoop::USER, hadoop::Parent::Own);
    let before = site.data();
    let words = site.begin_words(&[]);
    // kytx dies and the job runs on; then its client dies as well, under the kytx that resumes.
    site.killed_at_job(&words.iter().map(String::as_str).collect::<Vec<_>>(), "RUNNING");
    let ran = site.run("resume", &[]).expect_code(0);
    assert!(!hadoop::job_in("RUNNING"), "it was waited for: {}", ran.stderr);
    site.run("verify", &["--deep"]).expect_code(0);
    let copy = format!("{}/_kytx/tx/{}/data", site.working_dir, site.status("transaction"));
    assert_eq!(hadoop::names_in(&copy), hadoop::names_in(&site.source()), "no copy within the copy");
    site.change();
    site.run("abort", &["--yes"]).expect_code(0);
    assert_eq!(before.0.content_root(), site.data().0.content_root());
    assert_eq!(before.1.content_root(), site.data().1.content_root(), "the neighbour's data");
}

#[test]
fn f_10_a_symlinked_home_is_archived_and_swapped_itself_and_not_its_link() {
    let mut options = options();
    options.home_link = true;
    let machine = Machine::new(&options);
    machine.start();
    begin(&machine, &[]).expect_code(0);
    assert_eq!(fs::read_link(&machine.home).unwrap(), Path::new("kyligence-old"));
    assert!(version(&machine).contains("3.4.5"));
    let archived = members(&archive_of(&machine));
    assert!(archived.contains("kyligence-old/VERSION") && archived.len() > 50, "{} members", archived.len());
}

#[test]
fn f_11_a_blank_in_the_homes_path_is_explained() {
    let mut options = options();
    options.blank = true;
    let machine = Machine::new(&options);
    let before = Snapshot::take(&machine.root, &["opt with blank/.kytx"]);
    begin(&machine, &[]).explains(3, &["blank", "Nothing was changed."]);
    assert_same_tree(&before, &Snapshot::take(&machine.root, &["opt with blank/.kytx"]));
}

#[test]
fn f_12_a_blank_in_the_packages_path_means_nothing() {
    let mut options = options();
    options.package_dir = true;
    let machine = Machine::new(&options);
    let dir = machine.root.join("new packages");
    fs::rename(machine.root.join("downloads"), &dir).unwrap();
    let package = dir.join(machine.package_dir.as_ref().unwrap().file_name().unwrap());
    let before = Snapshot::take(&dir, &[]);
    let words = ["begin", text(&machine.home), "--package", text(&package), "--silent", "--no-start"];
    machine.run(&words).expect_code(0);
    assert!(version(&machine).contains("3.4.5"));
    assert_same_tree(&before, &Snapshot::take(&dir, &[]));
    assert!(!Path::new("/logs").exists() && !Path::new("/conf").exists());
}

#[test]
fn f_13_regex_characters_in_the_homes_path_lose_no_customised_directory() {
    let machine = Machine::new(&options());
    let home = machine.home.with_file_name("ky+l[i]n.*");
    fs::rename(&machine.home, &home).unwrap();
    let words = ["begin", text(&home), "--package", text(&machine.package), "--silent", "--no-start"];
    machine.run(&words).expect_code(0);
    assert!(fs::read_to_string(home.join("VERSION")).unwrap().contains("3.4.5"));
    assert!(home.join("site-scripts/check.sh").exists());
}

#[test]
fn f_14_a_blank_in_a_configuration_files_name_is_no_failure() {
    let machine = Machine::new(&options());
    put(&machine, "conf/my own settings.xml", "<own/>");
    swapped(&machine, &[]);
    assert_eq!(read(&machine, "conf/my own settings.xml"), "<own/>");
}

#[test]
fn f_15_a_package_inside_the_home_is_refused() {
    let machine = Machine::new(&options());
    let inside = machine.home.join("new.tar.gz");
    fs::copy(&machine.package, &inside).unwrap();
    let before = outside(&machine);
    let words = ["begin", text(&machine.home), "--package", text(&inside), "--silent"];
    machine.run(&words).explains(3, &["lie inside one another", "Nothing was changed."]);
    assert_same_tree(&before, &outside(&machine));
}

#[test]
fn f_16_home_and_package_are_compared_as_places_and_not_as_text() {
    let mut options = options();
    options.package_dir = true;
    let machine = Machine::new(&options);
    let package = machine.package_dir.clone().unwrap();
    let link = machine.root.join("opt/link");
    symlink(&package, &link).unwrap();
    // The home that was named is below `downloads`, and so is its state.
    let all = || Snapshot::take(&machine.root, &["downloads/.kytx"]);
    let before = all();
    let words = ["begin", text(&link), "--package", text(&package), "--silent"];
    machine.run(&words).explains(3, &["lie inside one another", "Nothing was changed."]);
    assert_same_tree(&before, &all());
}

#[test]
fn f_17_names_of_any_bytes_are_carried() {
    let mut options = options();
    options.nasty = Nasty { names: true, ..Nasty::default() };
    let machine = Machine::new(&options);
    let of = |machine: &Machine| Snapshot::take(&machine.home.join("-own [dir]+*"), &[]);
    let before = of(&machine);
    assert!(before.len() > 6);
    swapped(&machine, &[]);
    assert_same_tree(&before, &of(&machine));
}

#[test]
fn f_18_a_backup_that_a_blank_would_empty_is_not_made() {
    let mut options = options();
    options.blank = true;
    let machine = Machine::new(&options);
    machine.start();
    begin(&machine, &[]).explains(3, &["blank"]);
    assert!(machine.is_ready(), "nothing was stopped");
    assert!(!machine.calls().unwrap().iter().any(|call| call.script == "metastore.sh"));
}

// ---------------------------------------------------------------------------------------------- results

#[test]
fn f_20_a_backup_that_failed_with_0_ends_the_upgrade() {
    for options in [options(), options().ke4()] {
        let machine = Machine::new(&options);
        machine.start();
        let old = version(&machine);
        machine.knobs.set(Knob::BackupMode, "empty").unwrap();
        begin(&machine, &[]).explains(4, &["back-up-metadata", "kytx abort"]);
        assert_eq!(version(&machine), old);
        on_home(&machine, "abort", &["--yes"]).expect_code(0);
        assert!(machine.is_ready());
    }
}

#[test]
fn f_20_a_backup_that_lost_an_entry_without_a_word_is_held_against_what_is_listed() {
    let machine = Machine::new(&options());
    machine.start();
    let (old, before) = (version(&machine), metadata(&machine));
    machine.knobs.set(Knob::BackupMode, "forgets").unwrap();
    let words =
        ["lacks 1 entries that `metastore.sh list` named before", "`/cube/web_cube.json`", "kytx abort"];
    begin(&machine, &[]).explains(4, &words);
    machine.store.put("cube/web_cube.json", before["cube/web_cube.json"].as_deref().unwrap()).unwrap();
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!((version(&machine), metadata(&machine)), (old, before));
    // Where the operator leaves the comparison out, nothing else tells.
    begin(&machine, &["--override", "P17=the store is compared otherwise"]).expect_code(0);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
}

#[test]
fn f_21_an_empty_backup_is_not_restored() {
    let machine = Machine::new(&options().major());
    machine.start();
    begin(&machine, &[]).expect_code(0);
    let transaction = status(&machine)["transaction"].as_str().unwrap().to_owned();
    let backup = state_dir(&machine).join("backup").join(transaction).join("metadata");
    let aside = backup.with_extension("aside");
    fs::rename(&backup, &aside).unwrap();
    fs::create_dir(&backup).unwrap();
    let before = metadata(&machine);
    let ran = on_home(&machine, "abort", &["--yes"]);
    assert!(ran.code == 4 || ran.code == 5, "{}: {}", ran.code, ran.stderr);
    assert_eq!(metadata(&machine), before, "the store was not emptied");
    fs::remove_dir(&backup).unwrap();
    fs::rename(&aside, &backup).unwrap();
    on_home(&machine, "resume", &[]).expect_code(0);
}

#[test]
fn f_22_entries_that_the_new_release_added_are_gone_after_the_way_back() {
    let machine = Machine::new(&options().major());
    machine.start();
    let before = metadata(&machine);
    begin(&machine, &[]).expect_code(0);
    assert!(metadata(&machine).keys().any(|path| !before.contains_key(path)), "the new release added some");
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert_eq!(metadata(&machine), before);
}

#[test]
fn f_23_no_python_is_needed() {
    let machine = Machine::new(&options());
    let bin = machine.root.join("bin-without-python");
    fs::create_dir(&bin).unwrap();
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("python") {
                // Names of an earlier directory win, as they do on the path.
                let _ = symlink(entry.path(), bin.join(name));
            }
        }
    }
    let mut command = machine.kytx(&begin_words(&machine, &[]));
    Ran::of(command.env("PATH", &bin)).expect_code(0);
    assert!(machine.is_ready());
}

#[test]
fn f_24_a_write_hadoop_conf_without_hive_site_is_no_failure() {
    let machine = Machine::new(&options().ke4());
    put(&machine, "hadoop_conf/hive-site.xml", "<h/>");
    put(&machine, "write_hadoop_conf/core-site.xml", "<c/>");
    swapped(&machine, &[]);
    assert_eq!(read(&machine, "hadoop_conf/hive-site.xml"), "<h/>");
    assert_eq!(read(&machine, "write_hadoop_conf/core-site.xml"), "<c/>");
}

#[test]
fn f_25_a_no_is_no_success_and_leaves_the_package_clean() {
    let mut options = options();
    options.package_dir = true;
    let machine = Machine::new(&options);
    let package = machine.package_dir.clone().unwrap();
    let before = outside(&machine);
    let words = ["begin", text(&machine.home), "--package", text(&package)];
    typed(&machine, &words, "n\n").explains(3, &["no confirmation", "Nothing was changed."]);
    assert_same_tree(&before, &outside(&machine));
    on_home(&machine, "status", &[]).expect_code(8);
}

#[test]
fn f_26_answers_mean_what_they_say() {
    let machine = Machine::new(&options());
    let words = ["begin", text(&machine.home), "--package", text(&machine.package), "--no-start"];
    for no in ["", "\n", "n\n", "maybe\n"] {
        typed(&machine, &words, no).expect_code(3);
        assert!(version(&machine).contains("3.4.2"), "{no:?} is no");
    }
    for yes in ["Y\n", "yes\n", "y\n"] {
        typed(&machine, &words, yes).expect_code(0);
        on_home(&machine, "abort", &["--yes"]).expect_code(0);
    }
}

#[test]
fn f_27_the_difference_of_configurations_is_that_of_old_and_new() {
    let machine = Machine::new(&options());
    let plan = on_upgrade(&machine, "plan", &["--json"]).expect_code(0).stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let change = |key: &str| {
        plan["properties"].as_array().unwrap().iter().find(|change| change["key"] == key).cloned().unwrap()
    };
    let jobs = change("kylin.job.max-concurrent-jobs");
    assert_eq!((&jobs["old"], &jobs["new"]), (&"10".into(), &"20".into()));
    assert!(change("kylin.query.new-planner")["old"].is_null());
}

#[test]
fn f_28_a_home_without_a_directory_of_drivers_is_upgraded_in_silence() {
    let machine = Machine::new(&options().ke4());
    fs::remove_dir_all(machine.home.join("lib/ext")).unwrap();
    let ran = begin(&machine, &["--no-start"]).expect_code(0);
    assert!(!ran.stderr.contains("lib/ext"), "{}", ran.stderr);
    assert!(version(&machine).contains("4.5.7"));
}

#[test]
fn f_29_a_start_that_returned_0_is_not_taken_for_a_service_that_answers() {
    let machine = Machine::new(&options());
    machine.start();
    machine.knobs.of_version(&machine.options.new_version).set(Knob::HttpMode, "never").unwrap();
    begin(&machine, &["--start-timeout", "1"]).explains(4, &["did not answer", "kytx abort"]);
    on_home(&machine, "abort", &["--yes"]).expect_code(0);
    assert!(machine.is_ready());
}

/// A process that has nothing to do with the product; gone with the value.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn f_30_a_stranger_with_the_number_in_a_stale_pid_file_lives() {
    for options in [options(), options().ke4()] {
        let machine = Machine::new(&options);
        let stranger = Stranger::new();
        let pid = stranger.0.id();
        put(&machine, "pid", &format!("{pid}\n"));
        let ran = on_upgrade(&machine, "check", &[]).expect_code(0);
        assert!(
            ran.stdout.contains(&format!("names process {pid}, which is not of this home")),
            "{}",
            ran.stdout
        );
        begin(&machine, &[]).expect_code(0);
        assert!(is_alive(pid as i32), "the stranger lives");
        assert!(machine.is_ready());
        on_home(&machine, "abort", &["--yes"]).expect_code(0);
        assert!(is_alive(pid as i32), "and still does");
    }
}

#[test]
fn f_30_a_stop_that_says_it_stopped_is_not_believed_while_the_process_lives() {
    let machine = Machine::new(&options());
    let pid = machine.start();
    machine.knobs.set(Knob::StopMode, "lies").unwrap();
    machine.knobs.set(Knob::TermIgnoredMs, 1_500).unwrap();
    // At the gate of the backup the process must be gone, though the script returned at once.
    let gate = machine.root.join("gate");
    machine.knobs.set(Knob::BackupGate, gate.display()).unwrap();
    std::thread::scope(|scope| {
        let begun = scope.spawn(|| begin(&machine, &[]));
        wait_until("the backup is at work", || {
            gate.with_extension("reached").exists() || begun.is_finished()
        });
        let lives = is_alive(pid);
        fs::write(&gate, "").unwrap();
        let ran = begun.join().unwrap().expect_code(0);
        assert!(!lives, "backed up under a service that runs: {}", ran.stderr);
    });
    let stops = machine.calls().unwrap().into_iter().filter(|call| call.args == "stop").count();
    assert_eq!(stops, 1, "the script was called once, and the rest was seen by looking");
    assert!(machine.is_ready());
}

#[test]
fn f_31_properties_are_read_where_the_products_own_reader_says_nothing() {
    let machine = Machine::new(&options().major());
    machine.start();
    machine.knobs.set(Knob::PropertiesBroken, 1).unwrap();
    assert_eq!(machine.script("get-properties.sh", &["kylin.env.hdfs-working-dir"]).stdout.trim(), "");
    begin(&machine, &[]).expect_code(0);
    assert_eq!(step_state(&status(&machine), "copy-cube-data"), "done");
    assert!(machine.is_ready());
}

#[test]
fn f_32_the_archive_has_the_name_of_the_manual_and_the_way_back_by_hand_works() {
    let machine = Machine::new(&options());
    let ran = begin(&machine, &["--no-start"]).expect_code(0);
    let archive = archive_of(&machine);
    assert!(ran.stdout.contains(&format!("Backup location:{}\n", text(&archive))), "{}", ran.stdout);
    fs::remove_dir_all(&machine.real_home).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-zxf").arg(&archive).current_dir(machine.real_home.parent().unwrap());
    Ran::of(&mut tar).expect_code(0);
    assert!(version(&machine).contains("3.4.2"));
    machine.start();
}

// ---------------------------------------------------------------------------------------------- kept and lost

#[test]
fn f_40_new_keys_and_new_defaults_survive() {
    let mut options = options();
    options.old_package = true;
    let machine = Machine::new(&options);
    swapped(&machine, &["--old-package", text(machine.old_package.as_deref().unwrap())]);
    let merged = read(&machine, "conf/kylin.properties");
    let value = |key: &str| {
        merged
            .lines()
            .find_map(|line| line.split_once('=').filter(|(name, _)| *name == key))
            .map(|(_, value)| value)
    };
    assert_eq!(value("kylin.query.new-planner"), Some("true"), "a new key");
    assert_eq!(value("kylin.job.max-concurrent-jobs"), Some("20"), "a new default that nobody had changed");
    assert_eq!(value("kylin.engine.spark-conf.spark.executor.memory"), Some("16G"), "the operator's value");
}

#[test]
fn f_41_metadata_backups_survive_the_archive() {
    let machine = Machine::new(&options());
    swapped(&machine, &[]);
    assert!(has(&machine, "meta_backups/meta_2020_01_01_00_00_00/UUID"), "the operator's own");
    fs::remove_file(archive_of(&machine)).unwrap();
    let transaction = status(&machine)["transaction"].as_str().unwrap().to_owned();
    assert!(state_dir(&machine).join("backup").join(transaction).join("metadata/project").is_dir());
}

#[test]
fn f_42_nothing_of_the_operators_is_lost_without_a_word() {
    let machine = Machine::new(&options());
    put(&machine, "bin/own.sh", "#!/bin/sh\n");
    put(&machine, "spark/jars/own-driver.jar", "driver");
    put(&machine, "tomcat/lib/redis-session.jar", "session");
    put(&machine, "conf/own.template", "template");
    put(&machine, "spark/conf/own-defaults.conf", "spark");
    let plan = on_upgrade(&machine, "plan", &[]).expect_code(0).stdout;
    swapped(&machine, &[]);
    for path in ["conf/.operator", "bin/own.sh", "spark/jars/own-driver.jar", "tomcat/lib/redis-session.jar"]
        .into_iter()
        .chain(["conf/own.template", "spark/conf/own-defaults.conf"])
    {
        assert!(has(&machine, path) || plan.contains(path), "`{path}` is neither carried nor named");
    }
    assert!(has(&machine, "conf/.operator"));
    assert!(has(&machine, "logs/before-3.4.2.2028-GA/kylin.log"), "the old logs");
    let machine = Machine::new(&options().ke4());
    swapped(&machine, &[]);
    assert_eq!(read(&machine, "server/.keystore"), "the operator's key store");
}

#[test]
fn f_43_what_means_nothing_in_the_new_home_stays_behind() {
    let machine = Machine::new(&options());
    let litter = [
        "pid",
        "kgid",
        "child_process",
        "LOCK",
        "tmp/job",
        "work/x",
        "logrotate/cron",
        "spark_backup/marker",
        "appid",
        "bin/check-env-bypass",
        "bin/cached-hive-dependency.sh",
    ];
    for path in litter {
        put(&machine, path, "4194305\n");
    }
    swapped(&machine, &[]);
    for path in litter {
        assert!(!has(&machine, path), "`{path}` was carried");
    }
}

#[test]
fn f_44_the_profile_stays_a_choice_by_link() {
    for links in [false, true] {
        let mut options = options();
        options.nasty = Nasty { links, ..Nasty::default() };
        let machine = Machine::new(&options);
        swapped(&machine, &[]);
        let target =
            |path: &str| fs::read_link(machine.home.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let chosen = if links { "profile_min" } else { "profile_prod" };
        assert_eq!(target("conf/profile"), Path::new(chosen), "relative, and the operator's choice");
        assert_eq!(target("conf/kylin.properties"), Path::new("profile/kylin.properties"));
        assert_eq!(target("conf/kylin_hive_conf.xml"), Path::new("profile/kylin_hive_conf.xml"));
    }
}

#[test]
fn f_45_carried_files_keep_owner_mode_time_and_links() {
    let mut options = options();
    options.nasty = Nasty { links: true, attributes: true, ..Nasty::default() };
    let machine = Machine::new(&options);
    let taken = || ["site-data", "site-attributes"].map(|dir| Snapshot::take(&machine.home.join(dir), &[]));
    let keytab = || {
        let meta = fs::metadata(machine.home.join("conf/user.keytab")).unwrap();
        (meta.uid(), meta.gid(), meta.permissions().mode(), meta.mtime(), meta.mtime_nsec())
    };
    let (before, key) = (taken(), keytab());
    swapped(&machine, &[]);
    for (before, after) in before.iter().zip(&taken()) {
        assert_same_tree(before, after);
    }
    assert_eq!(keytab(), key);
    on_home(&machine, "verify", &["--drill"]).expect_code(0);
}

#[test]
fn f_46_dumps_are_left_and_named_by_their_size() {
    let machine = Machine::new(&options());
    for dir in ["kybot_dump", "diag_dump", "meta_fetch"] {
        put(&machine, &format!("{dir}/large"), &"x".repeat(100_000));
    }
    let plan = on_upgrade(&machine, "plan", &[]).expect_code(0).stdout;
    swapped(&machine, &[]);
    for dir in ["kybot_dump", "diag_dump", "meta_fetch"] {
        assert!(!has(&machine, dir), "`{dir}` was carried");
        assert!(plan.contains(&format!("{dir}: left in the old tree: 100000 bytes")), "{plan}");
    }
}

// ---------------------------------------------------------------------------------------------- the table

/// The numbers of the reference's table, each of which has a test here.
const PROVED: [u32; 38] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30, 31, 32, 40, 41, 42, 43, 44, 45, 46,
];

#[test]
fn every_failure_mode_of_the_table_has_its_test_and_every_test_its_row() {
    let mut source = String::new();
    File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!()))
        .unwrap()
        .read_to_string(&mut source)
        .unwrap();
    let mut attributed = false;
    let mut named = BTreeSet::new();
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("fn f_").filter(|_| attributed) {
            named.insert(rest.split('_').next().unwrap().parse::<u32>().unwrap());
        }
        attributed = line == "#[test]";
    }
    assert_eq!(named, BTreeSet::from(PROVED));
}
