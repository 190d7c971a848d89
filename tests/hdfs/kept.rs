//! The ways in which cube data are kept, and what becomes of them when what was kept is gone or spoiled.

use super::bed::{Parent, Site, USER, admin, bed, bed_for_all, decay, names_in};
use super::outcome::{assert_as_before, assert_as_before_but_dir_times, assert_nothing_left};

fn snapshottable(parent: Parent) -> Site {
    let site = Site::new(USER, parent);
    admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    site
}

fn snapshot(site: &Site) -> String {
    format!("kytx-{}", site.status("transaction"))
}

#[test]
fn with_both_the_copy_comes_from_the_snapshot_and_either_is_a_way_back() {
    let Some(_bed) = bed("with_both_the_copy_comes_from_the_snapshot_and_either_is_a_way_back") else {
        return;
    };
    let site = snapshottable(Parent::Own);
    let before = site.data();
    site.begin(&["--cube-backup", "both"]).expect_code(0);
    for level in ["--quick", "--deep"] {
        site.run("verify", &[level]).expect_code(0);
    }
    site.change();
    // Somebody deletes the snapshot: the copy is there still.
    admin("hadoop", &["fs", "-deleteSnapshot", &site.source(), &snapshot(&site)]);
    site.run("verify", &[]).expect_code(6);
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    assert!(
        ran.stderr.contains("the snapshot cannot be used") && ran.stderr.contains("the copy is"),
        "{}",
        ran.stderr
    );
    assert_as_before_but_dir_times(&before, &site);
    assert_nothing_left(&site);
    assert!(site.machine.is_ready());
}

#[test]
fn with_both_an_abort_and_a_commit_leave_nothing() {
    let Some(_bed) = bed_for_all("with_both_an_abort_and_a_commit_leave_nothing") else { return };
    let site = snapshottable(Parent::Own);
    let before = site.data();
    site.begin(&["--cube-backup", "both"]).expect_code(0);
    site.change();
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before_but_dir_times(&before, &site);
    assert_nothing_left(&site);
    site.begin(&["--cube-backup", "both"]).expect_code(0);
    site.change();
    let changed = site.data();
    site.run("commit", &["--yes"]).expect_code(0);
    assert_as_before(&changed, &site);
    assert_nothing_left(&site);
}

/// Another's snapshot on the same directory is never touched, and never in the way.
#[test]
fn i6_a_foreign_snapshot_outlives_both_ends_of_an_upgrade() {
    let Some(_bed) = bed_for_all("i6_a_foreign_snapshot_outlives_both_ends_of_an_upgrade") else { return };
    let site = snapshottable(Parent::Own);
    admin("hadoop", &["fs", "-createSnapshot", &site.source(), "theirs"]);
    let before = site.data();
    let theirs = || assert_eq!(names_in(&format!("{}/.snapshot", site.source())), ["theirs"]);
    for how in ["snapshot", "distcp"] {
        site.begin(&["--cube-backup", how]).expect_code(0);
        site.change();
        site.run("abort", &["--yes"]).expect_code(0);
        assert_as_before_but_dir_times(&before, &site);
        theirs();
    }
    site.begin(&["--cube-backup", "both"]).expect_code(0);
    site.run("commit", &["--yes"]).expect_code(0);
    theirs();
}

#[test]
fn i7_a_snapshot_that_is_gone_or_decayed_is_not_restored_from() {
    let Some(_bed) = bed_for_all("i7_a_snapshot_that_is_gone_or_decayed_is_not_restored_from") else {
        return;
    };
    let site = snapshottable(Parent::Own);
    site.begin(&["--cube-backup", "snapshot"]).expect_code(0);
    site.change();
    let changed = site.data();
    let large = format!("{}/.snapshot/{}/parquet/large.parquet", site.source(), snapshot(&site));
    decay(&large);
    let ran = site.run("verify", &["--deep"]).expect_code(6);
    assert!(ran.stdout.contains("large.parquet"), "{}", ran.stdout);
    site.run("abort", &["--yes"]).explains(4, &["is damaged", "as the new release left it"]);
    assert_eq!(changed.0.content_root(), site.data().0.content_root());
    admin("hadoop", &["fs", "-deleteSnapshot", &site.source(), &snapshot(&site)]);
    site.run("resume", &[]).explains(4, &["is not there"]);
    assert_eq!(changed.0.content_root(), site.data().0.content_root());
}

#[test]
fn a_whole_working_directory_is_kept_with_what_others_have_in_it() {
    let Some(_bed) = bed_for_all("a_whole_working_directory_is_kept_with_what_others_have_in_it") else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let root = format!("{}-own", site.working_dir);
    admin("hadoop", &["fs", "-mkdir", &root]);
    admin("hadoop", &["fs", "-chown", USER, &root]);
    let before = site.data();
    let whole = ["--whole-working-dir", "--hdfs-root", &format!("{root}/kept")];
    site.begin(&whole).expect_code(0);
    site.change();
    admin("hadoop", &["fs", "-rm", "-skipTrash", &format!("{}/other_instance/theirs", site.working_dir)]);
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(names_in(&root).is_empty());
    site.begin(&whole).expect_code(0);
    site.run("commit", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert!(names_in(&root).is_empty());
}
