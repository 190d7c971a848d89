//! Whole major upgrades with cube data on a real HDFS, copied by real DistCp jobs on YARN. The servers come from
//! `testbed/hadoop`; `tests/run` brings them up.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks into test machines")]

mod hdfs {
    pub mod bed;
}
mod support;

use hdfs::bed::{Parent, Site, USER, bed};

#[track_caller]
fn assert_as_before(
    before: &(kytx::hadoop::manifest::CubeManifest, kytx::hadoop::manifest::CubeManifest),
    site: &Site,
) {
    let after = site.data();
    let found = before.0.differences(&after.0, kytx::hadoop::manifest::Apart::default());
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(before.0.content_root(), after.0.content_root());
    assert_eq!(before.0.attribute_root(), after.0.attribute_root());
    assert_eq!(before.1, after.1, "another instance's data are not ours");
}

#[test]
fn an_aborted_upgrade_with_a_copy_leaves_the_cube_data_as_they_were() {
    let Some(_bed) = bed("an_aborted_upgrade_with_a_copy_leaves_the_cube_data_as_they_were") else { return };
    let site = Site::new(USER, Parent::Own);
    let before = site.data();
    site.begin(&[]).expect_code(0);
    site.change();
    assert_ne!(before.0.content_root(), site.data().0.content_root());
    site.run("abort", &["--yes"]).expect_code(0);
    assert_as_before(&before, &site);
    assert_eq!(
        site.names_in(&site.working_dir),
        ["kylin_metadata", "other_instance"],
        "nothing of kytx is left"
    );
    assert!(site.machine.is_ready());
}
