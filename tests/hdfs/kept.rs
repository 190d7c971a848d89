//! The ways in which cube data are kept, and what becomes of them when what was kept is gone or spoiled.

use super::bed::{Parent, Site, USER, admin, bed, bed_for_all, names_in};
use super::kills::Kills;
use super::outcome::{
    assert_as_before, assert_as_before_but_dir_times, assert_nothing_left, assert_nothing_left_but,
};

fn snapshottable() -> Site {
    let site = Site::new(USER, Parent::Own);
    admin("hdfs", &["dfsadmin", "-allowSnapshot", &site.source()]);
    site
}

fn snapshot(site: &Site) -> String {
    format!("kytx-{}", site.status("transaction"))
}

/// Both ends of an upgrade with both, under the eyes of another's snapshot: an abort for which the snapshot is gone, and a
/// commit that is killed in each state of what it discards.
#[test]
fn i6_with_both_either_is_a_way_back_and_a_commit_that_is_killed_discards_ours_alone() {
    let Some(_bed) = bed("i6_with_both_either_is_a_way_back_and_a_commit_that_is_killed_discards_ours_alone")
    else {
        return;
    };
    let site = snapshottable();
    admin("hadoop", &["fs", "-createSnapshot", &site.source(), "theirs"]);
    let before = site.data();
    site.begin(&["--cube-backup", "both"]).expect_code(0);
    let from = format!(".snapshot/{} ", snapshot(&site));
    assert!(site.log().lines().any(|line| line.contains("distcp") && line.contains(&from)), "its source");
    site.change();
    // Somebody deletes the snapshot: the copy is there still.
    admin("hadoop", &["fs", "-deleteSnapshot", &site.source(), &snapshot(&site)]);
    site.run("verify", &[]).expect_code(6);
    let ran = site.run("abort", &["--yes"]).expect_code(0);
    let told = ["the snapshot cannot be used", "the copy is"];
    assert!(told.iter().all(|words| ran.stderr.contains(words)), "{}", ran.stderr);
    assert_as_before_but_dir_times(&before, &site);
    assert_nothing_left_but(&site, &["theirs"]);
    assert!(site.machine.is_ready());

    site.begin(&["--cube-backup", "both"]).expect_code(0);
    site.change();
    let changed = site.data();
    let mut kills = Kills::new(&site, "HDFS, commit", &[]);
    kills.commit();
    kills.at("instead -mv *.discarded");
    kills.at("after -mv *.discarded");
    kills.at("during -rm -r");
    kills.at("instead -deleteSnapshot");
    kills.at("after -deleteSnapshot");
    kills.go_on(&[], 0);
    assert_as_before(&changed, &site);
    assert_nothing_left_but(&site, &["theirs"]);
    kills.publish();
}

#[test]
fn a_whole_working_directory_is_kept_with_what_others_have_in_it() {
    let Some(_bed) = bed_for_all("a_whole_working_directory_is_kept_with_what_others_have_in_it") else {
        return;
    };
    let site = Site::new(USER, Parent::Own);
    let own = format!("{}-own", site.working_dir);
    admin("hadoop", &["fs", "-mkdir", &own]);
    admin("hadoop", &["fs", "-chown", USER, &own]);
    let before = site.data();
    let root = format!("{own}/kept");
    let whole = ["--whole-working-dir", "--hdfs-root", &root];
    // Another's upgrade is open in what would be kept.
    let stranger = site.beside();
    stranger.begin(&["--cube-backup", "none", "--stop-before", "stage-tree"]).expect_code(4);
    site.begin(&whole).explains(3, &["_kytx/lock", "another upgrade in this working directory is open"]);
    stranger.run("abort", &["--yes"]).expect_code(0);
    site.begin(&whole).expect_code(0);
    site.change();
    let theirs = format!("{}/other_instance/theirs", site.working_dir);
    admin("hadoop", &["fs", "-rm", "-skipTrash", &theirs]);
    assert_eq!(names_in(&format!("{root}/lock/kylin_metadata")), ["LOCK"], "no lock is in what is copied");
    let other = site.beside();
    let begun = other.begin(&["--cube-backup", "distcp", "--whole-working-dir", "--hdfs-root", &root]);
    begun.explains(7, &["open elsewhere", site.machine.home.to_str().unwrap()]);
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_nothing_left(&site);
    assert!(names_in(&own).is_empty());
}
