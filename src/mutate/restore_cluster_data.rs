//! Puts cube data on a cluster back, as the undoing of `hand-over-data`.
//!
//! Nothing is replaced before what replaces it is verified: by its manifest, which the journal names, by HDFS's checksums
//! and by the NameNode's word on its blocks. Then, where the copy may take the place of the directory, two renames: the
//! changed directory aside, the copy into place. Where it may not (no right to rename there, quotas or snapshots that hang
//! on the directory itself, owners that the copy could not keep) the directory stays and DistCp makes its content that of
//! the copy or the snapshot, moving only what differs.
//! *Crash windows.* Between the renames the directory is absent and the copy there: the next attempt goes on with the
//! second. A job that was cut off is awaited, and what still differs is copied again. Other directories beside the
//! instance's own are never named in any command.

use super::cluster::{
    Attempt, await_jobs, cluster_copy_path, copy_manifest_path, few, learn_owners, read_cube_manifest,
    remove_empty, run_job, snapshot_manifest_path, snapshot_path, txn_of, with_cluster,
};
use super::copy_cluster_data::{remove_litter, settle_root};
use super::{Machine, refused};
use crate::digest::Digest;
use crate::engine::MutationError;
use crate::hadoop::cluster::Cluster;
use crate::hadoop::job::Job;
use crate::hadoop::manifest::{Apart, CubeManifest};
use crate::hadoop::parse::without_authority;
use crate::hadoop::survey::Sums;
use crate::raw_path::RawPath;
use crate::txn::CubeCopy;

/// What was recorded of each backup.
struct Recorded {
    copy: Option<CubeManifest>,
    snapshot: Option<CubeManifest>,
}

fn recorded(
    machine: &Machine<'_>,
    cube: &CubeCopy,
    copy: Option<Digest>,
    snapshot: Option<Digest>,
) -> Result<Recorded, MutationError> {
    let read = |path: std::path::PathBuf, digest: Option<Digest>| {
        digest.map(|digest| read_cube_manifest(machine.fs, &path, digest)).transpose()
    };
    Ok(Recorded {
        copy: read(copy_manifest_path(machine.state, cube), copy)?,
        snapshot: read(snapshot_manifest_path(machine.state, cube), snapshot)?,
    })
}

/// I7: proves that the way back is whole before anything may change.
pub(super) fn check_way_back(
    machine: &Machine<'_>,
    cube: &CubeCopy,
    copy: Option<Digest>,
    snapshot: Option<Digest>,
) -> Result<(), MutationError> {
    let recorded = recorded(machine, cube, copy, snapshot)?;
    if recorded.copy.is_none() && recorded.snapshot.is_none() {
        return Err(refused(format!("there is neither a copy nor a snapshot of `{}`", cube.source)));
    }
    Ok(())
}

/// Puts the cube data back, from any window of an earlier attempt.
pub(super) fn restore(
    machine: &Machine<'_>,
    cube: &CubeCopy,
    copy: Option<Digest>,
    snapshot: Option<Digest>,
) -> Result<(), MutationError> {
    let recorded = recorded(machine, cube, copy, snapshot)?;
    with_cluster(machine, |cluster| {
        let restoring = Restoring { machine, cluster, cube };
        if Attempt::read(machine, cube)?.open {
            // Its target is the live directory, which no rename takes from it: what YARN does not say is not guessed.
            await_jobs(machine, cluster, &txn_of(&cube.root))?;
        }
        match (recorded.snapshot, recorded.copy) {
            (Some(manifest), copy) => match (restoring.take_snapshot(&manifest), copy) {
                (Err(MutationError::Failed(why)), Some(manifest)) => {
                    machine.progress.say(&format!("the snapshot cannot be used ({why}); the copy is"));
                    restoring.take_copy(&manifest)
                }
                (result, _) => result,
            },
            (None, Some(manifest)) => restoring.take_copy(&manifest),
            (None, None) => {
                Err(refused(format!("there is neither a copy nor a snapshot of `{}`", cube.source)))
            }
        }
    })
}

struct Restoring<'m, 'a> {
    machine: &'m Machine<'a>,
    cluster: &'m Cluster<'m>,
    cube: &'m CubeCopy,
}

impl Restoring<'_, '_> {
    fn take_snapshot(&self, manifest: &CubeManifest) -> Result<(), MutationError> {
        let (snapshot, source) = (snapshot_path(self.cube), &self.cube.source);
        let mut trees = self.cluster.survey(&[snapshot.clone(), source.clone()], Sums::Wanted)?;
        let live = trees.pop().expect("BUG: two trees were asked for");
        // A snapshot keeps everything of a directory but its time: that is the live one's, also within the snapshot.
        let apart = Apart { owner: false, dir_times: true };
        self.trust(manifest, &trees[0], &snapshot, apart)?;
        if manifest.differences(&live, apart).is_empty() {
            self.tell_attributes(manifest, &live);
            return Ok(());
        }
        self.converge(manifest, &snapshot)
    }

    fn take_copy(&self, manifest: &CubeManifest) -> Result<(), MutationError> {
        let (copy, source) = (cluster_copy_path(self.cube), &self.cube.source);
        let there = self.cluster.look(&[copy.clone(), source.clone()])?;
        let apart = Apart { owner: !Attempt::read(self.machine, self.cube)?.keep().owner, dir_times: true };
        match (there[0].is_some(), there[1].is_some()) {
            (false, false) => Err(refused(format!("neither `{source}` nor its copy `{copy}` is there"))),
            (false, true) => {
                // It is in place already, or somebody took it.
                let live = self.cluster.survey(std::slice::from_ref(source), Sums::Wanted)?.remove(0);
                self.trust(manifest, &live, source, apart)
            }
            (true, false) => {
                let found = self.cluster.survey(std::slice::from_ref(&copy), Sums::Wanted)?.remove(0);
                self.trust(manifest, &found, &copy, apart)?;
                Ok(self.cluster.rename_surely(&copy, source)?)
            }
            (true, true) => {
                let mut trees = self.cluster.survey(&[copy.clone(), source.clone()], Sums::Wanted)?;
                let live = trees.pop().expect("BUG: two trees were asked for");
                self.trust(manifest, &trees[0], &copy, apart)?;
                if manifest.differences(&live, Apart::default()).is_empty() {
                    return Ok(());
                }
                if !apart.owner && self.may_rename()? && self.swap(&copy)? {
                    return Ok(());
                }
                self.converge(manifest, &copy)
            }
        }
    }

    /// Refuses to replace anything by what is not what was recorded.
    fn trust(
        &self,
        manifest: &CubeManifest,
        found: &CubeManifest,
        at: &RawPath,
        apart: Apart,
    ) -> Result<(), MutationError> {
        let differences = manifest.differences(found, apart);
        let damage = match self.cluster.blocks(at)? {
            _ if !differences.is_empty() => few(&differences),
            Err(damage) => format!("blocks cannot be read: {}", damage.join("; ")),
            Ok(()) => return Ok(()),
        };
        Err(refused(format!(
            "`{at}` is damaged, so nothing was restored from it: {damage}. `{}` is as the new release left it, and \
             `{at}` stays as it is",
            self.cube.source
        )))
    }

    /// Whether the copy may take the directory's place: nothing may hang on the directory itself.
    fn may_rename(&self) -> Result<bool, MutationError> {
        let source = &self.cube.source;
        if crate::hadoop::scheme(source) != Some("hdfs") {
            return Ok(false);
        }
        let plain = without_authority(source);
        let inside = |dir: &RawPath| dir.as_bytes().starts_with(plain.as_bytes());
        if self.cluster.snapshottable()?.iter().any(inside) {
            return Ok(false);
        }
        let counted = self.cluster.count(std::slice::from_ref(source))?;
        Ok(counted.iter().all(|counted| counted.names_left.is_none() && counted.bytes_left.is_none()))
    }

    /// The changed directory aside, the copy into its place. `false` if the first rename was refused: then nothing has
    /// changed.
    fn swap(&self, copy: &RawPath) -> Result<bool, MutationError> {
        let names = self.cluster.names_in(&self.cube.root)?;
        let aside = |number: usize| self.cube.root.join(&format!("aside-{number}").as_str().into());
        // One of these is free, as there are as many of them as there are names, and one more.
        let aside = (0..=names.len()).map(aside).find(|aside| !names.contains(aside));
        let aside = aside.expect("BUG: more names than there are");
        if let Err(error) = self.cluster.rename_surely(&self.cube.source, &aside) {
            if self.cluster.look(std::slice::from_ref(&self.cube.source))?[0].is_none() {
                return Err(error.into());
            }
            self.machine
                .progress
                .say(&format!("the directory stays in its place ({error}); its content is put back"));
            return Ok(false);
        }
        self.cluster.rename_surely(copy, &self.cube.source)?;
        Ok(true)
    }

    /// Makes the content of the directory that of the backup.
    fn converge(&self, manifest: &CubeManifest, from: &RawPath) -> Result<(), MutationError> {
        let Self { machine, cluster, cube } = *self;
        let mut attempt = Attempt::read(machine, cube)?;
        if attempt.owner.is_none() {
            learn_owners(cluster, cube, from, &mut attempt)?;
            remove_empty(cluster, &cube.root)?;
        }
        attempt = Attempt { generation: attempt.generation + 1, open: true, ..attempt };
        attempt.write(machine, cube)?;
        let txn = txn_of(&cube.root);
        let job = Job { txn, what: "restore", generation: attempt.generation, keep: attempt.keep() };
        run_job(machine, cluster, cube, &job, (from, &cube.source))?;
        let mut live = cluster.survey(std::slice::from_ref(&cube.source), Sums::Wanted)?.remove(0);
        remove_litter(cluster, &cube.source, &mut live)?;
        settle_root(cluster, &cube.source, manifest, &mut live)?;
        let differences = manifest.differences(&live, Apart::default());
        if differences.iter().any(|difference| difference.is_content) {
            return Err(refused(format!(
                "`{}` is not yet what it was: {}; the backup `{from}` is whole",
                cube.source,
                few(&differences)
            )));
        }
        self.tell_attributes(manifest, &live);
        Ok(())
    }

    /// Tells which attributes could not be put back.
    fn tell_attributes(&self, manifest: &CubeManifest, live: &CubeManifest) {
        let differences = manifest.differences(live, Apart::default());
        if !differences.is_empty() {
            self.machine.progress.say(&format!(
                "the content of `{}` is back; attributes that could not be set: {}",
                self.cube.source,
                few(&differences)
            ));
        }
    }
}
