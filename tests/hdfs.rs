//! Whole major upgrades with cube data on a real HDFS, copied by real DistCp jobs on YARN. The servers come from
//! `testbed/hadoop`; `tests/run` brings them up.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks into test machines")]

mod hdfs {
    pub mod bed;
}
mod support;

use std::fs;
use std::path::PathBuf;

use hdfs::bed::{Parent, Site, USER, bed, job_in, kill_client, wait_for};
use kytx::hadoop::manifest::{Apart, CubeManifest};
use support::Ran;

type Data = (CubeManifest, CubeManifest);

#[track_caller]
fn assert_as_before(before: &Data, site: &Site) {
    let after = site.data();
    let found = before.0.differences(&after.0, Apart::default());
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(before.0.content_root(), after.0.content_root());
    assert_eq!(before.0.attribute_root(), after.0.attribute_root());
    assert_eq!(before.1, after.1, "another instance's data are not ours");
}

#[track_caller]
fn assert_nothing_left(site: &Site) {
    assert_eq!(
        site.names_in(&site.working_dir),
        ["kylin_metadata", "other_instance"],
        "nothing of kytx is left"
    );
    assert!(site.names_in(&format!("{}/.snapshot", site.source())).is_empty());
    let jobs = ["NEW", "SUBMITTED", "ACCEPTED", "RUNNING"].into_iter().filter(|state| job_in(state));
    assert_eq!(jobs.collect::<Vec<_>>(), [""; 0], "no job is left");
}

/// How many programs of Hadoop ran between the stop of the service and its start.
fn calls_in_downtime(site: &Site) -> usize {
    let state = support::commands::state_dir(&site.machine);
    let logs = fs::read_dir(state.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let begin = logs.into_iter().find(|path| path.to_str().unwrap().ends_with("-begin.log")).unwrap();
    let log = fs::read_to_string(begin).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("| $ ")).collect();
    let at = |word: &str| lines.iter().position(|line| line.contains(word)).unwrap();
    let hadoop = ["| $ hadoop ", "| $ hdfs ", "| $ yarn "];
    let downtime = &lines[at("kylin.sh stop")..at("kylin.sh start")];
    downtime.iter().filter(|line| hadoop.iter().any(|program| line.contains(program))).count()
}

fn transaction(site: &Site) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&site.run("status", &["--json"]).expect_code(0).stdout).unwrap();
    status["transaction"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned()
}

#[test]
fn an_aborted_upgrade_with_a_copy_leaves_the_cube_data_as_they_were() {
    let Some(_bed) = bed("an_aborted_upgrade_with_a_copy_leaves_the_cube_data_as_they_were") else { return };
    let site = Site::new(USER, Parent::Own);
    let before = site.data();
    let ran = site.begin(&[]).expect_code(0);
    assert!(ran.stderr.contains("blake3"), "the digests are told: {}", ran.stderr);
    let calls = calls_in_downtime(&site);
    assert!(calls <= 20, "{calls} commands between stop and start");
    site.change();
    assert_ne!(before.0.content_root(), site.data().0.content_root());
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
}

#[test]
fn a_client_killed_under_kytx_costs_nothing_and_a_commit_removes_the_copy() {
    let Some(_bed) = bed("a_client_killed_under_kytx_costs_nothing_and_a_commit_removes_the_copy") else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let words = site.begin_words(&[]);
    let child = site.spawn(&words.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for("a job runs", || job_in("RUNNING"));
    kill_client();
    let ran = Ran::from(child.wait_with_output().unwrap()).expect_code(0);
    assert!(ran.stderr.contains("was lost") && ran.stderr.contains("the job succeeded"), "{}", ran.stderr);
    for level in ["--quick", "--deep"] {
        site.run("verify", &[level]).expect_code(0);
    }
    site.change();
    let changed = site.data();
    site.run("commit", &["--yes"]).expect_code(0);
    assert_as_before(&changed, &site);
    assert_nothing_left(&site);
}

#[test]
fn an_aborted_upgrade_with_a_snapshot_leaves_the_cube_data_as_they_were() {
    let Some(_bed) = bed("an_aborted_upgrade_with_a_snapshot_leaves_the_cube_data_as_they_were") else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    site.admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    let before = site.data();
    site.begin(&[]).expect_code(0);
    let calls = calls_in_downtime(&site);
    assert!(calls <= 12, "{calls} commands between stop and start");
    assert!(!site.calls().iter().any(|call| call.contains("distcp")), "auto takes the snapshot");
    site.change();
    site.run("verify", &[]).expect_code(0);
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    // And the same again, to its other end.
    site.begin(&[]).expect_code(0);
    site.run("commit", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
}

#[test]
fn where_the_directory_cannot_be_renamed_its_content_is_put_back() {
    let Some(_bed) = bed("where_the_directory_cannot_be_renamed_its_content_is_put_back") else { return };
    let site = Site::new(USER, Parent::Foreign);
    let root = format!("{}-own", site.working_dir);
    site.begin(&[]).explains(3, &["BLOCK P11", "--hdfs-root"]);
    site.admin("hadoop", &["fs", "-mkdir", &root]);
    site.admin("hadoop", &["fs", "-chown", USER, &root]);
    let before = site.data();
    let root = format!("{root}/kept");
    site.begin(&["--hdfs-root", &root]).expect_code(0);
    site.change();
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    assert!(ran.stderr.contains("the directory stays in its place"), "{}", ran.stderr);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(site.names_in(&format!("{}-own", site.working_dir)).is_empty());
}

/// kytx is killed again and again in one upgrade and one abort, each time in another state, and resumed.
#[test]
fn i3_an_upgrade_with_a_copy_survives_a_kill_in_every_state() {
    let Some(_bed) = bed("i3_an_upgrade_with_a_copy_survives_a_kill_in_every_state") else { return };
    let site = Site::new(USER, Parent::Own);
    let before = site.data();
    let home = site.machine.home.to_str().unwrap().to_owned();
    let begin = site.begin_words(&[]);
    let begin: Vec<&str> = begin.iter().map(String::as_str).collect();
    let (resume, abort) = (["resume", home.as_str()], ["abort", home.as_str(), "--yes"]);
    // The early pass: before the job is there, while it waits, while it runs, when it is over.
    site.killed_at(&begin, "instead hadoop distcp");
    site.killed_at_job(&resume, "ACCEPTED");
    site.killed_at_job(&resume, "RUNNING");
    site.killed_at(&resume, "after hadoop distcp");
    site.run("resume", &["--stop-before", "stop-service"]).expect_code(4);
    // The final pass: the job in an orphan's hands; verified; published; and each only half.
    site.killed_at(&resume, "during hadoop distcp");
    site.killed_at(&resume, "instead hadoop fs -put");
    site.killed_at(&resume, "after -mv *stage-e*stage-e");
    site.killed_at(&resume, "instead -mv */data");
    site.killed_at(&resume, "after -mv */data");
    site.run("resume", &[]).expect_code(0);
    site.run("verify", &["--deep"]).expect_code(0);
    site.change();
    // The way back: before the directory goes aside, between the two renames, after them; and the copy's end.
    site.killed_at(&abort, "instead -mv */aside-0");
    site.killed_at(&resume, "after -mv */aside-0");
    site.killed_at(&resume, "after -mv */kylin_metadata");
    site.killed_at(&resume, "during -rm -r");
    site.run("resume", &[]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
}

#[test]
fn i3_an_upgrade_with_a_snapshot_survives_a_kill_in_every_state() {
    let Some(_bed) = bed("i3_an_upgrade_with_a_snapshot_survives_a_kill_in_every_state") else { return };
    let site = Site::new(USER, Parent::Own);
    site.admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    let before = site.data();
    let home = site.machine.home.to_str().unwrap().to_owned();
    let begin = site.begin_words(&["--cube-backup", "snapshot"]);
    let begin: Vec<&str> = begin.iter().map(String::as_str).collect();
    let (resume, abort) = (["resume", home.as_str()], ["abort", home.as_str(), "--yes"]);
    site.killed_at(&begin, "instead -createSnapshot");
    site.killed_at(&resume, "after -createSnapshot");
    site.killed_at(&resume, "after -checksum");
    site.run("resume", &[]).expect_code(0);
    site.change();
    // The job that puts the content back: not yet there, at work, over; then the snapshot's end.
    site.killed_at(&abort, "instead hadoop distcp");
    site.killed_at_job(&resume, "RUNNING");
    site.killed_at(&resume, "after hadoop distcp");
    site.killed_at(&resume, "instead -deleteSnapshot");
    site.killed_at(&resume, "after -deleteSnapshot");
    site.run("resume", &[]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
}

#[test]
fn i6_what_is_there_already_is_not_copied_into_nor_removed() {
    let Some(_bed) = bed("i6_what_is_there_already_is_not_copied_into_nor_removed") else { return };
    let site = Site::new(USER, Parent::Own);
    site.begin(&["--stop-before", "copy-cube-data-early"]).expect_code(4);
    let root = format!("{}/_kytx/tx/{}", site.working_dir, transaction(&site));
    let theirs = format!("{root}/data/theirs");
    site.admin("hadoop", &["fs", "-mkdir", "-p", &theirs]);
    site.run("resume", &[]).explains(5, &["is not this transaction's"]);
    assert_eq!(site.names_in(&format!("{root}/data")), ["theirs"], "nothing was copied into it");
    site.run("abort", &["--yes"]).expect_code(0);
    assert_eq!(site.names_in(&format!("{root}/data")), ["theirs"]);
}

/// The files of blocks that the DataNode of the bed holds.
fn block_files(dir: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(block_files(path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn i7_a_decayed_block_of_the_copy_is_found_by_reading_and_the_copy_is_not_trusted() {
    let Some(_bed) = bed("i7_a_decayed_block_of_the_copy_is_found_by_reading_and_the_copy_is_not_trusted")
    else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    site.begin(&[]).expect_code(0);
    let copy = format!("{}/_kytx/tx/{}/data/parquet/large.parquet", site.working_dir, transaction(&site));
    let blocks = site.admin("hdfs", &["fsck", &copy, "-files", "-blocks"]);
    let at = blocks.find("blk_").unwrap_or_else(|| panic!("{blocks}"));
    let name = blocks[at..].split('_').take(2).collect::<Vec<_>>().join("_");
    let dir = PathBuf::from(std::env::var("HADOOP_BED_DIR").unwrap()).join("datanode");
    let block = block_files(dir).into_iter().find(|path| path.file_name().unwrap() == name.as_str()).unwrap();
    let mut bytes = fs::read(&block).unwrap();
    bytes[1000] ^= 1;
    fs::write(&block, bytes).unwrap();
    // HDFS's checksum comes from what was noted at writing: nothing but reading finds it.
    site.run("verify", &[]).expect_code(0);
    let ran = site.run("verify", &["--deep"]).expect_code(6);
    assert!(
        ran.stdout.contains("data/parquet/large.parquet") && ran.stdout.contains("DAMAGED"),
        "{}",
        ran.stdout
    );
    site.change();
    let changed = site.data();
    let ran = site
        .run("abort", &["--yes"])
        .explains(4, &["is damaged", "large.parquet", "as the new release left it"]);
    assert!(!ran.stderr.contains("BUG"));
    assert_as_before(&changed, &site);
}
