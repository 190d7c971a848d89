//! What becomes of the cube data in an upgrade: where they are, how they are kept, and what speaks against it.

use std::path::PathBuf;

use super::args::{CubeBackup, UpgradeArgs};
use super::error::CommandError;
use super::scratch::with_scratch_shell;
use crate::effect::os::OsFs;
use crate::hadoop::cluster::{Cluster, ClusterError};
use crate::hadoop::local::{LocalHdfs, local_path};
use crate::hadoop::parse::without_authority;
use crate::hadoop::{Hdfs, scheme};
use crate::kyligence::home::Home;
use crate::kyligence::planner::CubeKept;
use crate::kyligence::preflight::ClusterFacts;
use crate::kyligence::version::UpgradeKind;
use crate::raw_path::RawPath;
use crate::txn::{CubeCopy, TxnId};

/// The name of kytx's own directory in a working directory.
pub const OWN_DIR: &str = "_kytx";

/// Schemes in which a directory is renamed in one act.
pub(super) const ATOMIC: [&str; 3] = ["hdfs", "viewfs", "maprfs"];

/// What was decided.
#[derive(Default)]
pub struct CubeDecision {
    /// The cube data and how they are kept, if they are to be.
    pub cube: Option<(CubeCopy, CubeKept)>,
    /// Sentences about it.
    pub remarks: Vec<String>,
    /// Bytes that a copy takes on the local file system, and where.
    pub local: Option<(PathBuf, u64)>,
    /// What was asked of the cluster.
    pub cluster: Option<ClusterFacts>,
}

/// Decides.
pub fn decide(
    args: &UpgradeArgs,
    kind: UpgradeKind,
    home: &Home,
    txn: &TxnId,
) -> Result<CubeDecision, CommandError> {
    let how = args.cube_backup;
    if how == CubeBackup::None || (how == CubeBackup::Auto && kind != UpgradeKind::Major) {
        let why = match (how, kind) {
            (CubeBackup::None, UpgradeKind::Major) => {
                "The cube data are not copied, as asked: an abort restores home and metadata, but what the new release changes in the cube data stays changed."
            }
            _ => "The cube data are not copied: a minor upgrade does not change them.",
        };
        return Ok(CubeDecision { remarks: vec![why.to_owned()], ..CubeDecision::default() });
    }
    let working_dir = home.working_dir().map_err(|error| no_cube_copy().because(&error))?;
    let shared = RawPath::from(working_dir.shared.as_str());
    let instance = working_dir.instance.map(|instance| RawPath::from(instance.as_str()));
    let source = match (args.whole_working_dir, instance) {
        (true, _) => shared.clone(),
        (false, Some(instance)) => instance,
        (false, None) => {
            return Err(no_cube_copy()
                .why("the metadata store is a local directory, so this instance's folder of the working directory is not known"));
        }
    };
    let given = args.hdfs_root.as_deref().map(RawPath::from);
    if scheme(&shared) == Some("file") {
        return local(how, &source, &given.unwrap_or_else(|| shared.join(&OWN_DIR.into())), txn);
    }
    let asked = with_scratch_shell("hadoop", |shell, scratch| {
        let cluster = Cluster::new(shell, scratch);
        on_cluster(&cluster, how, &shared, &source, given.as_ref(), txn)
    });
    asked.map_err(|error| no_cube_copy().because(&error))?
}

fn no_cube_copy() -> CommandError {
    CommandError::refused("the cube data cannot be copied")
        .hint("copy them by hand (`hadoop distcp`), then add `--cube-backup none`")
}

/// kytx's directory must not be inside what it copies.
fn check_apart(source: &RawPath, root: &RawPath) -> Result<(), CommandError> {
    let inside = |inner: &RawPath, outer: &RawPath| {
        let rest = inner.as_bytes().strip_prefix(outer.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    if inside(root, source) || inside(source, root) {
        return Err(no_cube_copy()
            .why(format!("kytx's directory `{root}` and the cube data `{source}` lie inside one another"))
            .hint("give another place with `--hdfs-root`"));
    }
    Ok(())
}

fn local(
    how: CubeBackup,
    source: &RawPath,
    root: &RawPath,
    txn: &TxnId,
) -> Result<CubeDecision, CommandError> {
    if matches!(how, CubeBackup::Snapshot | CubeBackup::Both) {
        return Err(no_cube_copy()
            .why(format!("`{source}` is on a local file system, which kytx makes no snapshots of")));
    }
    if scheme(root) != Some("file") {
        return Err(no_cube_copy().why(format!("`{root}` and `{source}` are not in one file system")));
    }
    check_apart(source, root)?;
    let refuse = |error| no_cube_copy().because(&error);
    let hdfs = LocalHdfs::new(&OsFs);
    hdfs.reach(source).map_err(refuse)?;
    let (bytes, _) = hdfs.measure(source).map_err(refuse)?;
    let local = (local_path(source).map_err(refuse)?, bytes);
    let cube = CubeCopy { source: source.clone(), root: root.join(&txn.0.as_str().into()) };
    Ok(CubeDecision {
        cube: Some((cube, CubeKept::Copy)),
        remarks: Vec::new(),
        local: Some(local),
        cluster: None,
    })
}

/// A path with its file system in front: a plain one is in that of the configuration.
fn qualified(path: &RawPath, default_fs: &str) -> RawPath {
    match scheme(path) {
        Some(_) => path.clone(),
        None => RawPath::from(default_fs.trim_end_matches('/')).joined(path),
    }
}

impl RawPath {
    /// Two paths in a row, the second with a slash of its own.
    fn joined(&self, tail: &Self) -> Self {
        Self::new([self.as_bytes(), tail.as_bytes()].concat())
    }
}

fn on_cluster(
    cluster: &Cluster<'_>,
    how: CubeBackup,
    shared: &RawPath,
    source: &RawPath,
    given: Option<&RawPath>,
    txn: &TxnId,
) -> Result<CubeDecision, CommandError> {
    let refuse = |error: ClusterError| no_cube_copy().because(&error);
    let needs_default = [Some(source), given].into_iter().flatten().any(|path| scheme(path).is_none());
    let default_fs =
        if needs_default { cluster.configured("fs.defaultFS").map_err(refuse)? } else { String::new() };
    if needs_default && scheme(&default_fs.as_str().into()) == Some("file") {
        return Err(no_cube_copy()
            .why(format!("`{source}` has no scheme, and `fs.defaultFS` is `{default_fs}`: no cluster is configured here"))
            .hint("set `HADOOP_CONF_DIR` as the product's own scripts have it"));
    }
    let source = qualified(source, &default_fs);
    let root = given.map_or_else(|| shared.join(&OWN_DIR.into()), Clone::clone);
    let root = qualified(&root, &default_fs);
    check_apart(&source, &root)?;
    let snapshottable = cluster.snapshottable().is_ok_and(|dirs| dirs.contains(&without_authority(&source)));
    let kept = match how {
        CubeBackup::Auto if snapshottable => CubeKept::Snapshot,
        CubeBackup::Snapshot => CubeKept::Snapshot,
        CubeBackup::Both => CubeKept::Both,
        CubeBackup::Auto | CubeBackup::Distcp | CubeBackup::None => CubeKept::Copy,
    };
    let facts = gather(cluster, &source, &root, kept, snapshottable);
    let root = root.join(&"tx".into()).join(&txn.0.as_str().into());
    let remark = match kept {
        CubeKept::Copy => format!("The cube data `{source}` are copied by DistCp below `{root}`."),
        CubeKept::Snapshot => format!(
            "A snapshot keeps the cube data `{source}`; what the new release deletes takes space until the commit."
        ),
        CubeKept::Both => {
            format!("A snapshot keeps the cube data `{source}`, and DistCp copies it below `{root}`.")
        }
    };
    Ok(CubeDecision {
        cube: Some((CubeCopy { source, root }, kept)),
        remarks: vec![remark],
        local: None,
        cluster: Some(facts),
    })
}

fn ancestors(path: &RawPath) -> Vec<RawPath> {
    let plain = without_authority(path);
    let authority = &path.as_bytes()[..path.as_bytes().len() - plain.as_bytes().len()];
    let whole = |end: usize| RawPath::new([authority, &plain.as_bytes()[..end]].concat());
    let slashes = plain.as_bytes().iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| whole(at.max(1))).collect()
}

fn gather(
    cluster: &Cluster<'_>,
    source: &RawPath,
    root: &RawPath,
    kept: CubeKept,
    snapshottable: bool,
) -> ClusterFacts {
    // An error in words, its causes included.
    let words = |error: ClusterError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    };
    let above = ancestors(root);
    let asked: Vec<RawPath> = above.iter().cloned().chain([source.clone()]).collect();
    let there = cluster.look(&asked);
    let existing: Vec<RawPath> = match &there {
        Ok(there) => {
            asked.iter().zip(there).filter(|(_, here)| here.is_some()).map(|(path, _)| path.clone()).collect()
        }
        Err(_) => Vec::new(),
    };
    let reached = match there {
        Err(error) => Err(words(error)),
        Ok(_) if existing.contains(source) => Ok(()),
        Ok(_) => Err("it is not there".to_owned()),
    };
    let replication =
        cluster.configured("dfs.replication").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let counted = if existing.is_empty() { Ok(Vec::new()) } else { cluster.count(&existing) };
    let counted = counted.unwrap_or_default();
    let own = counted.iter().find(|counted| counted.path == *source);
    let needed = own.map_or((0, 0), |own| (own.bytes.saturating_mul(replication), own.dirs + own.files + 4));
    let home = above.iter().rev().find(|dir| existing.contains(dir)).cloned().unwrap_or_else(|| root.clone());
    let on_hdfs = scheme(source) == Some("hdfs");
    let unknown = "only HDFS is asked for that".to_owned();
    ClusterFacts {
        source: source.clone(),
        root: root.clone(),
        reached,
        safe_mode: if on_hdfs { cluster.safe_mode().map_err(words) } else { Err(unknown.clone()) },
        free_bytes: cluster.free_bytes(&home).map_err(words),
        needed_bytes: if kept.has_copy() { needed.0 } else { 0 },
        needed_names: if kept.has_copy() { needed.1 } else { 0 },
        quotas: counted
            .iter()
            .filter(|counted| counted.path != *source)
            .map(|counted| (counted.path.clone(), counted.bytes_left, counted.names_left))
            .collect(),
        open_files: if on_hdfs { cluster.open_files(source).map_err(words) } else { Err(unknown) },
        snapshottable,
        wanted: (kept.has_snapshot(), kept.has_copy()),
        writable: (home.clone(), cluster.writable(&home).unwrap_or(None)),
        yarn: if kept.has_copy() { cluster.jobs("none").map(|_| ()).map_err(words) } else { Ok(()) },
        no_atomic_rename: scheme(source).filter(|scheme| !ATOMIC.contains(scheme)).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_is_in_the_default_file_system_and_has_its_ancestors_there() {
        assert_eq!(qualified(&"/kylin/m".into(), "hdfs://ns/"), "hdfs://ns/kylin/m".into());
        assert_eq!(qualified(&"hdfs://other/kylin".into(), ""), "hdfs://other/kylin".into());
        let expected = ["hdfs://ns/", "hdfs://ns/kylin"].map(RawPath::from);
        assert_eq!(ancestors(&"hdfs://ns/kylin/_kytx".into()), expected);
    }

    #[test]
    fn kytx_never_copies_into_what_it_copies() {
        let apart = |source: &str, root: &str| check_apart(&source.into(), &root.into()).is_ok();
        assert!(apart("hdfs://ns/kylin/m", "hdfs://ns/kylin/_kytx"));
        assert!(apart("hdfs://ns/kylin/m", "hdfs://ns/kylin/m2"));
        assert!(!apart("hdfs://ns/kylin", "hdfs://ns/kylin/_kytx"));
        assert!(!apart("hdfs://ns/kylin/m", "hdfs://ns/kylin"));
    }
}
