//! Whole major upgrades with cube data on a real HDFS, copied by real DistCp jobs on YARN. The servers come from
//! `testbed/hadoop`; `tests/run` brings them up.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks into test machines")]

mod hdfs {
    pub mod bed;
    pub mod kills;
    mod lock;
    pub mod outcome;
}
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};

use hdfs::bed::{
    Parent, Site, USER, admin, bed, decay, job_in, kill_client, names_in, signal_copiers, wait_for,
};
use hdfs::kills::Kills;
use hdfs::outcome::{assert_as_before, assert_as_before_but_dir_times, assert_nothing_left};
use rustix::process::{Pid, Signal, kill_process};
use support::Ran;

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
    admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    let before = site.data();
    site.begin(&[]).expect_code(0);
    let calls = calls_in_downtime(&site);
    assert!(calls <= 12, "{calls} commands between stop and start");
    assert!(!site.calls().iter().any(|call| call.contains("distcp")), "auto takes the snapshot");
    site.change();
    site.run("verify", &[]).expect_code(0);
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    assert!(ran.stderr.contains("attributes that could not be set"), "{}", ran.stderr);
    assert_as_before_but_dir_times(&before, &site);
    assert_nothing_left(&site);
    let before = site.data();
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
    admin("hadoop", &["fs", "-mkdir", &root]);
    admin("hadoop", &["fs", "-chown", USER, &root]);
    let before = site.data();
    let root = format!("{root}/kept");
    site.begin(&["--hdfs-root", &root]).expect_code(0);
    site.change();
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    assert!(ran.stderr.contains("the directory stays in its place"), "{}", ran.stderr);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(names_in(&format!("{}-own", site.working_dir)).is_empty());
}

/// kytx is killed again and again in one upgrade and one abort, each time in another state, and resumed.
#[test]
fn i3_an_upgrade_with_a_copy_survives_a_kill_in_every_state() {
    let Some(_bed) = bed("i3_an_upgrade_with_a_copy_survives_a_kill_in_every_state") else { return };
    let site = Site::new(USER, Parent::Own);
    let before = site.data();
    let mut kills = Kills::new(&site, "HDFS, by copy", &[]);
    // The early pass: before the job is there, while it waits, while it runs, when it is over.
    kills.at("instead hadoop distcp");
    kills.at_job("ACCEPTED");
    kills.at_job("RUNNING");
    kills.at("after hadoop distcp");
    kills.go_on(&["--stop-before", "stop-service"], 4);
    // The final pass: the job in an orphan's hands; verified; under its next name; published, and not quite.
    kills.at("during hadoop distcp");
    kills.at("instead hadoop fs -put");
    kills.at("after -mv *stage-e*stage-e");
    kills.at("instead -mv */data");
    kills.at("after -mv */data");
    kills.go_on(&[], 0);
    site.run("verify", &["--deep"]).expect_code(0);
    site.change();
    kills.abort();
    // The way back: before the directory goes aside, between the two renames, after them; and the copy's end.
    kills.at("instead -mv */aside-0");
    kills.at("after -mv */aside-0");
    kills.at("after -mv */kylin_metadata");
    kills.at("during -rm -r");
    kills.go_on(&[], 0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
    kills.publish();
}

#[test]
fn i3_an_upgrade_with_a_snapshot_survives_a_kill_in_every_state() {
    let Some(_bed) = bed("i3_an_upgrade_with_a_snapshot_survives_a_kill_in_every_state") else { return };
    let site = Site::new(USER, Parent::Own);
    admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    let before = site.data();
    let mut kills = Kills::new(&site, "HDFS, by snapshot", &["--cube-backup", "snapshot"]);
    kills.at("instead -createSnapshot");
    kills.at("after -createSnapshot");
    kills.at("after -checksum");
    kills.go_on(&[], 0);
    site.change();
    kills.abort();
    // The job that puts the content back: not yet there, at work, over; then the snapshot's end.
    kills.at("instead hadoop distcp");
    kills.at_job("RUNNING");
    kills.at("after hadoop distcp");
    kills.at("instead -deleteSnapshot");
    kills.at("after -deleteSnapshot");
    kills.go_on(&[], 0);
    assert_as_before_but_dir_times(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
    kills.publish();
}

#[test]
fn a_stop_leaves_the_job_running_and_resume_picks_it_up() {
    let Some(_bed) = bed("a_stop_leaves_the_job_running_and_resume_picks_it_up") else { return };
    let site = Site::new(USER, Parent::Own);
    let words = site.begin_words(&[]);
    let child = site.spawn(&words.iter().map(String::as_str).collect::<Vec<_>>());
    // Held where it is, so that it is at work for as long as this test needs it.
    wait_for("a job copies", || signal_copiers(Signal::STOP) > 0);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap()).expect_code(130);
    assert!(ran.stderr.contains("runs on in YARN; `resume` picks it up"), "{}", ran.stderr);
    assert!(job_in("RUNNING"), "the job runs on");
    let looked = site.run("status", &[]).expect_code(0).stdout;
    assert!(looked.contains("copy job:    application_") && looked.contains("% done"), "{looked}");
    let home = site.machine.home.to_str().unwrap();
    let mut child = site.spawn(&["resume", home, "--stop-before", "stop-service"]);
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = |line: &String| line.contains("waiting for the copy job application_");
    assert!(said.by_ref().any(|line| waits(&line)), "it awaits the job that is at work");
    wait_for("the job goes on", || {
        signal_copiers(Signal::CONT);
        !job_in("RUNNING")
    });
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{rest:?}");
    // An abort ends what is still copied, and leaves nothing.
    site.run("abort", &["--yes"]).expect_code(0);
    assert_nothing_left(&site);
}

#[test]
fn check_names_what_is_wrong_with_the_cluster() {
    let Some(_bed) = bed("check_names_what_is_wrong_with_the_cluster") else { return };
    let site = Site::new(USER, Parent::Own);
    let check = |what: &[&str]| {
        let package = site.machine.package.to_str().unwrap().to_owned();
        let ran = site.run("check", &["--package", &package]).expect_code(3);
        for words in what {
            assert!(ran.stdout.contains(words), "no `{words}` in {}", ran.stdout);
        }
    };
    admin("hdfs", &["dfsadmin", "-setSpaceQuota", "4m", &site.working_dir]);
    admin("hdfs", &["dfsadmin", "-setQuota", "25", &site.working_dir]);
    check(&["BLOCK P9: the space quota of", "BLOCK P9: the name quota of", "note P9", "-allowSnapshot"]);
    admin("hdfs", &["dfsadmin", "-clrSpaceQuota", &site.working_dir]);
    admin("hdfs", &["dfsadmin", "-safemode", "enter"]);
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        check(&["BLOCK P14: the NameNode is in safe mode"]);
    }));
    admin("hdfs", &["dfsadmin", "-safemode", "leave"]);
    found.unwrap();
}

#[test]
fn i6_what_is_there_already_is_not_copied_into_nor_removed() {
    let Some(_bed) = bed("i6_what_is_there_already_is_not_copied_into_nor_removed") else { return };
    let site = Site::new(USER, Parent::Own);
    site.begin(&["--stop-before", "copy-cube-data-early"]).expect_code(4);
    let root = format!("{}/_kytx/tx/{}", site.working_dir, site.status("transaction"));
    let theirs = format!("{root}/data/theirs");
    admin("hadoop", &["fs", "-mkdir", "-p", &theirs]);
    site.run("resume", &[]).explains(5, &["is not this transaction's"]);
    assert_eq!(names_in(&format!("{root}/data")), ["theirs"], "nothing was copied into it");
    site.run("abort", &["--yes"]).expect_code(0);
    assert_eq!(names_in(&format!("{root}/data")), ["theirs"]);
}

#[test]
fn i7_a_decayed_block_of_the_copy_is_found_by_reading_and_the_copy_is_not_trusted() {
    let Some(_bed) = bed("i7_a_decayed_block_of_the_copy_is_found_by_reading_and_the_copy_is_not_trusted")
    else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    site.begin(&[]).expect_code(0);
    let copy =
        format!("{}/_kytx/tx/{}/data/parquet/large.parquet", site.working_dir, site.status("transaction"));
    decay(&copy);
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
