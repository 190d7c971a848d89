//! What a site must look like afterwards.

use kytx::hadoop::manifest::{Apart, CubeManifest};

use super::bed::{Site, job_in, names_in};

/// The instance's folder and the neighbour's.
pub type Data = (CubeManifest, CubeManifest);

/// Everything is as it was.
#[track_caller]
pub fn assert_as_before(before: &Data, site: &Site) {
    let after = site.data();
    let found = before.0.differences(&after.0, Apart::default());
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(before.0.content_root(), after.0.content_root());
    assert_eq!(before.0.attribute_root(), after.0.attribute_root());
    assert_eq!(before.1, after.1, "another instance's data are not ours");
}

/// The same but for times of directories, which no snapshot of HDFS keeps.
#[track_caller]
pub fn assert_as_before_but_dir_times(before: &Data, site: &Site) {
    let after = site.data();
    let found = before.0.differences(&after.0, Apart { owner: false, dir_times: true });
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(before.0.content_root(), after.0.content_root());
    assert_eq!(before.1, after.1, "another instance's data are not ours");
}

/// Nothing of kytx is on the cluster: no copy, no lock, no snapshot, no job.
#[track_caller]
pub fn assert_nothing_left(site: &Site) {
    assert_eq!(names_in(&site.working_dir), ["kylin_metadata", "other_instance"], "nothing of kytx is left");
    assert!(names_in(&format!("{}/.snapshot", site.source())).is_empty());
    let jobs = ["NEW", "SUBMITTED", "ACCEPTED", "RUNNING"].into_iter().filter(|state| job_in(state));
    assert_eq!(jobs.collect::<Vec<_>>(), [""; 0], "no job is left");
}
