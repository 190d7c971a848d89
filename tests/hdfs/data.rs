//! What can be wrong with the cube data themselves, or with the room for a copy of them.

use std::fs;

use super::bed::{Parent, Site, USER, admin, bed_for_all};
use super::outcome::assert_nothing_left;
use kytx::hadoop::manifest::{Apart, CubeManifest};

fn owner(data: &CubeManifest, name: &str) -> String {
    data.entries.iter().find(|entry| entry.path == name.into()).unwrap().owner.clone()
}

/// A file of another block size fails a plain `distcp`; other owners fail one that keeps owners without the right to; and
/// a quota is met in the middle of it.
#[test]
fn odd_block_sizes_and_other_peoples_files_come_back_and_a_quota_costs_an_attempt() {
    let Some(_bed) =
        bed_for_all("odd_block_sizes_and_other_peoples_files_come_back_and_a_quota_costs_an_attempt")
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
