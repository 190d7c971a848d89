//! What the mutations of cube data on a cluster share: names, the number of the attempt, copying by jobs.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::ProductShell;
use super::{Machine, refused};
use crate::digest::Digest;
use crate::effect::fs::{exists, read_file};
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of};
use crate::engine::MutationError;
use crate::hadoop::cluster::{Cluster, ClusterError};
use crate::hadoop::job::{Ended, Following, Job, Keep};
use crate::hadoop::manifest::CubeManifest;
use crate::hadoop::scheme;
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;
use crate::txn::CubeCopy;

/// The longest manifest that is read back: some ten million files.
const MANIFEST_LIMIT_BYTES: u64 = 4 << 30;
/// How often a job that is awaited is asked after.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Whether a path is on a cluster and not on a local disk.
pub(super) fn is_on_cluster(path: &RawPath) -> bool {
    scheme(path) != Some("file")
}

/// Works on the cluster. The time is not kytx's own.
pub(super) fn with_cluster<T>(
    machine: &Machine<'_>,
    work: impl FnOnce(&Cluster<'_>) -> Result<T, MutationError>,
) -> Result<T, MutationError> {
    let shell = ProductShell(machine);
    work(&Cluster::new(&shell, machine.state.root()))
}

/// The transaction's name, which kytx's directory on the cluster has.
pub(super) fn txn_of(root: &RawPath) -> String {
    String::from_utf8_lossy(root.file_name()).into_owned()
}

/// The name of the snapshot: the same in every attempt, so that one that is there is known.
pub fn snapshot_name(cube: &CubeCopy) -> String {
    format!("kytx-{}", txn_of(&cube.root))
}

/// The snapshot, as a directory.
pub fn snapshot_path(cube: &CubeCopy) -> RawPath {
    cube.source.join(&".snapshot".into()).join(&snapshot_name(cube).as_str().into())
}

/// The published copy.
pub fn cluster_copy_path(cube: &CubeCopy) -> RawPath {
    cube.root.join(&"data".into())
}

fn backup_file(state: &StateDir, cube: &CubeCopy, name: &str) -> PathBuf {
    state.backup().join(txn_of(&cube.root)).join(name)
}

/// Where the manifest of the published copy is.
pub fn copy_manifest_path(state: &StateDir, cube: &CubeCopy) -> PathBuf {
    backup_file(state, cube, "cube.copy.json")
}

/// Where the manifest of the snapshot is.
pub fn snapshot_manifest_path(state: &StateDir, cube: &CubeCopy) -> PathBuf {
    backup_file(state, cube, "cube.snapshot.json")
}

/// A manifest as it is written, with the digests that are told.
#[derive(Serialize, Deserialize)]
struct Written {
    schema: String,
    content_root: Digest,
    attribute_root: Digest,
    files: usize,
    bytes: u64,
    manifest: CubeManifest,
}

const SCHEMA: &str = "kytx.cube-manifest.v1";

/// Writes a manifest, durably, and tells its digests.
pub(super) fn write_manifest(
    machine: &Machine<'_>,
    path: &std::path::Path,
    manifest: CubeManifest,
) -> Result<(), MutationError> {
    let written = Written {
        schema: SCHEMA.to_owned(),
        content_root: manifest.content_root(),
        attribute_root: manifest.attribute_root(),
        files: manifest.files(),
        bytes: manifest.bytes(),
        manifest,
    };
    machine.progress.say(&format!(
        "cube data: {} files, {} bytes; blake3 over names, lengths and HDFS checksums {}, over attributes {}",
        written.files, written.bytes, written.content_root, written.attribute_root
    ));
    make_dirs(machine.fs, parent_of(path), 0o700)?;
    let text = serde_json::to_vec(&written).expect("BUG: plain data has a JSON form");
    Ok(atomic_write(machine.fs, path, &text, 0o600)?)
}

/// Reads a manifest that the journal names by digest.
pub fn read_cube_manifest(
    fs: &dyn crate::effect::fs::Fs,
    path: &std::path::Path,
    expected: Digest,
) -> std::io::Result<CubeManifest> {
    let text = read_file(fs, path, MANIFEST_LIMIT_BYTES).context("read", path)?;
    let wrong = |what: &str| {
        let what = format!("`{}` {what}", path.display());
        std::io::Error::new(std::io::ErrorKind::InvalidData, what)
    };
    if Digest::of(&text) != expected {
        return Err(wrong("is not what the journal names: it has been changed"));
    }
    let written: Written =
        serde_json::from_slice(&text).map_err(|error| wrong(&format!("cannot be understood: {error}")))?;
    let roots = (written.manifest.content_root(), written.manifest.attribute_root());
    if written.schema != SCHEMA || roots != (written.content_root, written.attribute_root) {
        return Err(wrong("contradicts itself"));
    }
    Ok(written.manifest)
}

/// How far copying has come. Written before a job is started: a job that nobody wrote down cannot be found again.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Attempt {
    /// The number of the last attempt; 0 before the first.
    pub generation: u32,
    /// Whether its job may still be at work.
    pub open: bool,
    /// Whether the early pass is through.
    pub early_done: bool,
    /// Whether owner and group of everything may be given; not known before the first attempt.
    pub owner: Option<bool>,
    /// Whether there are access lists.
    pub acl: bool,
}

impl Attempt {
    pub(super) fn read(machine: &Machine<'_>, cube: &CubeCopy) -> Result<Self, MutationError> {
        let path = backup_file(machine.state, cube, "cube.attempt");
        if !exists(machine.fs, &path).context("look at", &path)? {
            return Ok(Self::default());
        }
        let text = read_file(machine.fs, &path, 1 << 16)?;
        serde_json::from_slice(&text)
            .map_err(|error| MutationError::Foreign(format!("`{}`: {error}", path.display())))
    }

    pub(super) fn write(self, machine: &Machine<'_>, cube: &CubeCopy) -> Result<(), MutationError> {
        let path = backup_file(machine.state, cube, "cube.attempt");
        make_dirs(machine.fs, parent_of(&path), 0o700)?;
        let text = serde_json::to_vec(&self).expect("BUG: plain data has a JSON form");
        Ok(atomic_write(machine.fs, &path, &text, 0o600)?)
    }

    pub(super) fn keep(self) -> Keep {
        Keep { owner: self.owner == Some(true), acl: self.acl }
    }
}

/// Whether a job of this transaction may be at work.
pub fn may_have_job(fs: &dyn crate::effect::fs::Fs, state: &StateDir, cube: &CubeCopy) -> bool {
    let text = read_file(fs, &backup_file(state, cube, "cube.attempt"), 1 << 16).unwrap_or_default();
    serde_json::from_slice(&text).is_ok_and(|attempt: Attempt| attempt.open)
}

/// Waits until no job of this transaction is at work. The death of its client, which the orphan lock proves, does not
/// end a job.
pub(super) fn await_jobs(
    machine: &Machine<'_>,
    cluster: &Cluster<'_>,
    txn: &str,
) -> Result<(), MutationError> {
    let mut told = String::new();
    loop {
        let jobs = cluster.jobs(txn)?;
        let Some(job) = jobs.iter().find(|job| !job.has_ended()) else { return Ok(()) };
        let line = format!("waiting for the copy job {} ({}, {})", job.id, job.state, job.progress);
        if line != told {
            machine.progress.say(&line);
            told = line;
        }
        if machine.wait(ASK_EVERY).is_err() {
            machine.progress.say(&format!("the copy job {} runs on; `resume` picks it up", job.id));
            return Err(MutationError::Interrupted);
        }
    }
}

/// Runs one job to its end, whatever becomes of its client.
pub(super) fn run_job(
    machine: &Machine<'_>,
    cluster: &Cluster<'_>,
    cube: &CubeCopy,
    job: &Job,
    (source, target): (&RawPath, &RawPath),
) -> Result<(), MutationError> {
    let stop_requested = || (machine.stop_requested)();
    let told = |percent| machine.progress.say(&format!("copy job {}: {percent} %", job.name()));
    let mut following = Following::new(&stop_requested, &told);
    match cluster.distcp(job, source, target, &mut following)? {
        Ended::Well => {}
        Ended::Left { submitted } => {
            let what = if submitted { "runs on in YARN; `resume` picks it up" } else { "was not started" };
            machine.progress.say(&format!("the copy job {} {what}", job.name()));
            return Err(MutationError::Interrupted);
        }
        // By itself that says nothing of the job: the client may have been killed, or have lost sight of it.
        Ended::Otherwise(what) => {
            await_jobs(machine, cluster, &job.txn)?;
            let name = job.name();
            let ended = cluster.jobs(&job.txn)?.into_iter().find(|known| known.name.ends_with(&name));
            let done = ended.as_ref().is_some_and(|ended| ended.final_state == "SUCCEEDED");
            if !done {
                close(machine, cube)?;
                let state = ended.map_or("not known to YARN".to_owned(), |ended| ended.final_state);
                return Err(refused(format!("the copy job {name} failed ({state}): {what}")));
            }
            machine
                .progress
                .say(&format!("the client of copy job {name} was lost ({what}); the job succeeded"));
        }
    }
    close(machine, cube)
}

fn close(machine: &Machine<'_>, cube: &CubeCopy) -> Result<(), MutationError> {
    let attempt = Attempt::read(machine, cube)?;
    Attempt { open: false, ..attempt }.write(machine, cube)
}

fn stage_number(path: &RawPath) -> Option<u32> {
    std::str::from_utf8(path.file_name()).ok()?.strip_prefix("stage-e")?.parse().ok()
}

fn stage_path(cube: &CubeCopy, generation: u32) -> RawPath {
    cube.root.join(&format!("stage-e{generation}").as_str().into())
}

/// Makes the stage hold what the source holds, under a new number, and returns it. What is there from earlier attempts
/// is renamed to it: that keeps their progress, and takes its target from a job that may still be alive.
pub(super) fn copy_to_stage(
    machine: &Machine<'_>,
    cluster: &Cluster<'_>,
    cube: &CubeCopy,
    source: &RawPath,
) -> Result<RawPath, MutationError> {
    let txn = txn_of(&cube.root);
    let mut attempt = Attempt::read(machine, cube)?;
    if attempt.open {
        match await_jobs(machine, cluster, &txn) {
            Ok(()) => {}
            Err(MutationError::Failed(error)) => machine.progress.say(&format!(
                "YARN cannot be asked for earlier copy jobs ({error}); the copy goes on under another name"
            )),
            Err(other) => return Err(other),
        }
    }
    if attempt.owner.is_none() {
        learn_owners(cluster, cube, source, &mut attempt)?;
    }
    let mut stages: Vec<(u32, RawPath)> = cluster
        .names_in(&cube.root)?
        .into_iter()
        .filter_map(|path| Some((stage_number(&path)?, path)))
        .collect();
    stages.sort();
    let newest = stages.pop();
    let highest = newest.as_ref().map_or(0, |(number, _)| *number).max(attempt.generation);
    attempt = Attempt { generation: highest + 1, open: true, ..attempt };
    attempt.write(machine, cube)?;
    // A job that lost its target makes the old name again and leaves litter there.
    let old: Vec<RawPath> = stages.into_iter().map(|(_, path)| path).collect();
    if !old.is_empty() {
        cluster.remove(&old)?;
    }
    let stage = stage_path(cube, attempt.generation);
    if let Some((_, path)) = newest {
        cluster.rename_surely(&path, &stage)?;
    }
    let job = Job { txn, what: "copy", generation: attempt.generation, keep: attempt.keep() };
    run_job(machine, cluster, cube, &job, (source, &stage))?;
    Ok(stage)
}

/// Makes kytx's directory, and learns by trying whether owners and groups may be given: only a superuser may give to
/// another owner, and nobody can be asked whether he is one.
pub(super) fn learn_owners(
    cluster: &Cluster<'_>,
    cube: &CubeCopy,
    source: &RawPath,
    attempt: &mut Attempt,
) -> Result<(), MutationError> {
    let probe = cube.root.join(&"probe".into());
    cluster.make_dirs(std::slice::from_ref(&probe))?;
    let (mut who, has_acl) = cluster.owners(source)?;
    let own = cluster.look(std::slice::from_ref(&probe))?.remove(0);
    let own = own.ok_or_else(|| refused(format!("`{probe}` was made and is not there")))?;
    who.remove(&(own.owner, own.group));
    let mut may = true;
    for (owner, group) in &who {
        may = may && cluster.may_give(&probe, owner, group)?;
    }
    cluster.remove(&[probe])?;
    (attempt.owner, attempt.acl) = (Some(may), has_acl);
    Ok(())
}

/// Ends the jobs of this transaction that are still at work, as nobody wants what they copy any more.
pub(super) fn end_jobs(
    machine: &Machine<'_>,
    cluster: &Cluster<'_>,
    cube: &CubeCopy,
) -> Result<(), MutationError> {
    if !Attempt::read(machine, cube)?.open {
        return Ok(());
    }
    let txn = txn_of(&cube.root);
    let jobs = match cluster.jobs(&txn) {
        Ok(jobs) => jobs,
        Err(error @ ClusterError::Run { .. }) => return Err(error.into()),
        Err(error) => {
            // What it still writes lands below a name that goes: its target is renamed away before it is deleted.
            machine.progress.say(&format!("YARN cannot be asked for copy jobs: {error}"));
            return Ok(());
        }
    };
    for job in jobs.iter().filter(|job| !job.has_ended()) {
        machine.progress.say(&format!("ending the copy job {}", job.id));
        cluster.kill_job(&job.id)?;
    }
    await_jobs(machine, cluster, &txn)?;
    close(machine, cube)
}

/// The directories above a transaction's own, which go with the last transaction.
fn holders(root: &RawPath) -> [RawPath; 2] {
    let above = |path: &RawPath| {
        let end =
            path.as_bytes().iter().rposition(|byte| *byte == b'/').expect("BUG: it has a directory above");
        RawPath::new(&path.as_bytes()[..end])
    };
    let tx = above(root);
    let all = above(&tx);
    [tx, all]
}

fn discarded(root: &RawPath) -> RawPath {
    let mut name = root.as_bytes().to_vec();
    name.extend_from_slice(b".discarded");
    RawPath::new(name)
}

/// Whether anything of this transaction is left on the cluster: its directory, what was moved aside to be deleted, or
/// directories above it with nothing in them.
pub(super) fn leftovers(cluster: &Cluster<'_>, root: &RawPath) -> Result<bool, MutationError> {
    let [tx, all] = holders(root);
    let there = cluster.look(&[root.clone(), discarded(root), tx.clone(), all.clone()])?;
    Ok(match [0, 1, 2, 3].map(|at| there[at].is_some()) {
        [true, ..] | [_, true, ..] => true,
        [_, _, true, _] => cluster.names_in(&tx)?.is_empty(),
        [_, _, _, true] => cluster.names_in(&all)?.is_empty(),
        _ => false,
    })
}

/// Removes this transaction's directory, aside first so that nothing half deleted can be taken for a copy, and those
/// above it if they are empty. I6: never with another transaction's in them; the NameNode says whether they are empty.
pub(super) fn remove_root(cluster: &Cluster<'_>, root: &RawPath) -> Result<(), MutationError> {
    let aside = discarded(root);
    let there = cluster.look(&[root.clone(), aside.clone()])?;
    if there[0].is_some() {
        if there[1].is_some() {
            cluster.remove(std::slice::from_ref(&aside))?;
        }
        cluster.rename_surely(root, &aside)?;
    }
    // With the root again: a job that lost its target there may have made it anew.
    cluster.remove(&[aside, root.clone()])?;
    Ok(cluster.remove_if_empty(&holders(root))?)
}

/// Removes this transaction's directory and those above it, each only if it is empty.
pub(super) fn remove_empty(cluster: &Cluster<'_>, root: &RawPath) -> Result<(), MutationError> {
    let [tx, all] = holders(root);
    Ok(cluster.remove_if_empty(&[root.clone(), tx, all])?)
}

/// Names and attributes in words, the first few of many.
pub(super) fn few(differences: &[crate::hadoop::manifest::Difference]) -> String {
    const SHOWN: usize = 5;
    let mut words: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
    if differences.len() > SHOWN {
        words.push(format!("and {} more", differences.len() - SHOWN));
    }
    words.join("; ")
}
