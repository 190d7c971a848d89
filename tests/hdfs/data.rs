//! What can be wrong with the cube data themselves, or with the room for a copy of them.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::bed::{Parent, Site, USER, admin, bed, bed_for_all, decay, wait_for};
use super::outcome::{assert_as_before, assert_nothing_left};
use kytx::hadoop::manifest::{Apart, CubeManifest};

const EARLY: [&str; 2] = ["--stop-before", "stop-service"];

/// Somebody who writes a file and does not close it.
struct Writer(Child);

impl Writer {
    fn open(file: &str) -> Self {
        let mut child = Command::new("hadoop")
            .args(["fs", "-appendToFile", "-", file])
            .env_remove("HADOOP_USER_NAME")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.as_mut().unwrap().write_all(b"more").unwrap();
        wait_for("the file is open", || {
            admin("hdfs", &["fsck", file, "-openforwrite"]).contains("OPENFORWRITE")
        });
        Self(child)
    }

    /// It dies, and its lease stays until it expires.
    fn dies(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.dies();
    }
}

fn owner(data: &CubeManifest, name: &str) -> String {
    data.entries.iter().find(|entry| entry.path == name.into()).unwrap().owner.clone()
}

/// A file of another block size fails a plain `distcp`; other owners fail one that keeps owners without the right to; and
/// a quota is met in the middle of it.
#[test]
fn odd_block_sizes_and_other_peoples_files_come_back_and_a_quota_costs_an_attempt() {
    let Some(_bed) = bed("odd_block_sizes_and_other_peoples_files_come_back_and_a_quota_costs_an_attempt")
    else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let odd = site.machine.root.join("odd");
    fs::write(&odd, vec![7; 300_000]).unwrap();
    let path = format!("{}/parquet/odd.parquet", site.source());
    admin("hadoop", &["fs", "-Ddfs.blocksize=131072", "-put", odd.to_str().unwrap(), &path]);
    // One that stays as it is, and one that the new release deletes.
    let theirs = format!("{}/parquet/empty", site.source());
    admin("hadoop", &["fs", "-chown", "other:othergrp", &path, &theirs]);
    let before = site.data();
    site.begin(&["--stop-before", "copy-cube-data-early"]).expect_code(4);
    admin("hdfs", &["dfsadmin", "-setSpaceQuota", "4m", &site.working_dir]);
    site.run("resume", &[]).explains(4, &["quota"]);
    admin("hdfs", &["dfsadmin", "-clrSpaceQuota", &site.working_dir]);
    site.run("resume", &[]).expect_code(0);
    site.change();
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    assert!(ran.stderr.contains("attributes that could not be set"), "{}", ran.stderr);
    let after = site.data();
    assert_eq!(before.0.content_root(), after.0.content_root());
    let found = before.0.differences(&after.0, Apart { owner: true, dir_times: true });
    assert!(!found.iter().any(|difference| difference.is_content), "{found:?}");
    // Nobody but a superuser can give a file away, or set the time of another's: the one that was deleted is the user's now.
    assert_eq!(owner(&after.0, "parquet/odd.parquet"), "other");
    assert_eq!(owner(&after.0, "parquet/empty"), USER);
    assert_nothing_left(&site);
}

/// Each is told by name, and costs no more than an attempt: a file that is being written, the lease of a writer that is
/// dead, a quota of names; and what is rotten before the upgrade does not pass for a backup.
#[test]
fn what_cannot_be_copied_is_told_by_name() {
    let Some(_bed) = bed_for_all("what_cannot_be_copied_is_told_by_name") else { return };
    let site = Site::new(USER, Parent::Own);
    let file = format!("{}/dict/1.dict", site.source());
    let mut writer = Writer::open(&file);
    site.begin(&EARLY).explains(4, &["1.dict", "under construction"]);
    writer.dies();
    site.run("resume", &EARLY).explains(4, &["1.dict", "under construction"]);
    admin("hdfs", &["debug", "recoverLease", "-path", &file, "-retries", "10"]);
    let before = site.data();
    // Room for the names that a failed attempt has left, and for one more.
    admin("hdfs", &["dfsadmin", "-setQuota", "26", &site.working_dir]);
    site.run("resume", &EARLY).explains(4, &["quota"]);
    admin("hdfs", &["dfsadmin", "-clrQuota", &site.working_dir]);
    let ran = site.run("resume", &EARLY).expect_code(4);
    assert!(ran.stdout.contains("as asked"), "{}", ran.stderr);
    decay(&format!("{}/parquet/large.parquet", site.source()));
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    site.begin(&EARLY).explains(4, &["large.parquet"]);
    site.run("abort", &["--yes"]).expect_code(0);
    assert_nothing_left(&site);
}
