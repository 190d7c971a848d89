//! What can be wrong with the cube data themselves, or with the room for a copy of them.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::bed::{Parent, Site, USER, admin, bed, bed_for_all, decay, wait_for};
use super::outcome::{assert_as_before, assert_nothing_left};

const EARLY: [&str; 2] = ["--stop-before", "stop-service"];

/// Somebody who writes a file and does not close it.
struct Writer(Child);

impl Writer {
    fn open(file: &str) -> Self {
        let mut child = Command::new("hadoop")
            .args([
                "fs",
                "-Ddfs.client.block.write.replace-datanode-on-failure.enable=false",
                "-appendToFile",
                "-",
                file,
            ])
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

/// A file of another block size fails a plain `distcp`; other owners fail one that keeps owners without the right to.
#[test]
fn odd_block_sizes_and_other_peoples_files_are_copied_and_come_back() {
    let Some(_bed) = bed("odd_block_sizes_and_other_peoples_files_are_copied_and_come_back") else { return };
    let site = Site::new(USER, Parent::Own);
    let odd = site.machine.root.join("odd");
    std::fs::write(&odd, vec![7; 300_000]).unwrap();
    let path = format!("{}/parquet/odd.parquet", site.source());
    admin("hadoop", &["fs", "-Ddfs.blocksize=131072", "-put", odd.to_str().unwrap(), &path]);
    let theirs = format!("{}/parquet/empty", site.source());
    admin("hadoop", &["fs", "-chown", "other:othergrp", &path, &theirs]);
    admin("hadoop", &["fs", "-chmod", "644", &path, &theirs]);
    let before = site.data();
    site.begin(&[]).expect_code(0);
    site.change();
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    let after = site.data();
    assert_eq!(before.0.content_root(), after.0.content_root());
    assert!(ran.stderr.contains("attributes that could not be set"), "{}", ran.stderr);
    // Nobody but a superuser can give a file away: the one that the new release deleted is the user's now.
    let owner = |data: &kytx::hadoop::manifest::CubeManifest, name: &str| {
        data.entries.iter().find(|entry| entry.path == name.into()).unwrap().owner.clone()
    };
    assert_eq!(owner(&after.0, "parquet/odd.parquet"), "other");
    assert_eq!(owner(&after.0, "parquet/empty"), USER);
    assert_nothing_left(&site);
}

#[test]
fn a_file_that_is_open_fails_the_copy_by_name_until_its_lease_is_recovered() {
    let Some(_bed) = bed_for_all("a_file_that_is_open_fails_the_copy_by_name_until_its_lease_is_recovered")
    else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let file = format!("{}/dict/1.dict", site.source());
    let mut writer = Writer::open(&file);
    site.begin(&EARLY).explains(4, &["under construction"]);
    // Its writer dies: the lease stays.
    writer.dies();
    site.run("resume", &EARLY).explains(4, &["under construction"]);
    admin("hdfs", &["debug", "recoverLease", "-path", &file, "-retries", "10"]);
    let ran = site.run("resume", &EARLY).expect_code(4);
    assert!(ran.stdout.contains("as asked"), "{}", ran.stderr);
    site.run("abort", &["--yes"]).expect_code(0);
    assert_nothing_left(&site);
}

#[test]
fn a_quota_that_a_copy_meets_is_named_and_costs_nothing_once_it_is_raised() {
    let Some(_bed) = bed_for_all("a_quota_that_a_copy_meets_is_named_and_costs_nothing_once_it_is_raised")
    else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let before = site.data();
    site.begin(&["--stop-before", "copy-cube-data-early"]).expect_code(4);
    admin("hdfs", &["dfsadmin", "-setSpaceQuota", "4m", &site.working_dir]);
    site.run("resume", &[]).explains(4, &["quota"]);
    admin("hdfs", &["dfsadmin", "-clrSpaceQuota", &site.working_dir]);
    admin("hdfs", &["dfsadmin", "-setQuota", "27", &site.working_dir]);
    site.run("resume", &[]).explains(4, &["quota"]);
    admin("hdfs", &["dfsadmin", "-clrQuota", &site.working_dir]);
    site.run("resume", &[]).expect_code(0);
    site.change();
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
}

/// What is rotten before the upgrade cannot be copied, and must not pass for a backup.
#[test]
fn a_decayed_block_of_the_source_fails_the_copy_by_name() {
    let Some(_bed) = bed_for_all("a_decayed_block_of_the_source_fails_the_copy_by_name") else { return };
    let site = Site::new(USER, Parent::Own);
    decay(&format!("{}/parquet/large.parquet", site.source()));
    site.begin(&EARLY).explains(4, &["large.parquet"]);
    site.run("abort", &["--yes"]).expect_code(0);
    assert_nothing_left(&site);
}
