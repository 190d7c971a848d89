//! Copies cube data aside on a cluster, in two passes: the bulk while the service runs, the difference after the stop.
//!
//! *Crash windows.* The copy grows in `stage-e<n>` of kytx's own directory, by a job that goes on when its client or
//! kytx dies. An attempt that is taken up again waits for the job of the one before, and then copies what still
//! differs, under the next number. The manifest is written and synced before one rename makes the stage to `data`.
//! *Probe.* The early pass by its mark in the state directory, the final pass by `data`.
//! *Apply.* DistCp `-update -delete`; then both trees are listed with HDFS's own checksum of every file and compared.
//! *Undo.* The early pass owns the directory, ends its jobs and removes it; the final pass has nothing of its own.

use super::cluster::{
    Attempt, cluster_copy_path, copy_manifest_path, copy_to_stage, end_jobs, few, leftovers, remove_root,
    snapshot_manifest_path, snapshot_path, with_cluster, write_manifest,
};
use super::{Act, Machine, refused, sync_parent};
use crate::backup::walk::hash_file;
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::Context;
use crate::engine::{MutationError, Sight, Task};
use crate::hadoop::cluster::Cluster;
use crate::hadoop::manifest::{Apart, CubeManifest};
use crate::hadoop::survey::Sums;
use crate::raw_path::RawPath;
use crate::txn::{CopyPass, CubeCopy, Direction, Observed};

pub(super) struct CopyClusterData<'a> {
    pub cube: &'a CubeCopy,
    pub pass: CopyPass,
}

impl CopyClusterData<'_> {
    fn copy_early(&self, machine: &Machine<'_>, cluster: &Cluster<'_>) -> Result<(), MutationError> {
        copy_to_stage(machine, cluster, self.cube, &self.cube.source)?;
        let attempt = Attempt::read(machine, self.cube)?;
        Attempt { early_done: true, ..attempt }.write(machine, self.cube)
    }

    /// What is copied after the stop: the snapshot if there is one, which nobody can change.
    fn source(&self, machine: &Machine<'_>) -> Result<RawPath, MutationError> {
        let manifest = snapshot_manifest_path(machine.state, self.cube);
        let has_snapshot = exists(machine.fs, &manifest).context("look at", &manifest)?;
        Ok(if has_snapshot { snapshot_path(self.cube) } else { self.cube.source.clone() })
    }

    fn copy_final(&self, machine: &Machine<'_>, cluster: &Cluster<'_>) -> Result<(), MutationError> {
        let source = self.source(machine)?;
        let stage = copy_to_stage(machine, cluster, self.cube, &source)?;
        let manifest = self.verified(machine, cluster, &source, &stage)?;
        let path = copy_manifest_path(machine.state, self.cube);
        write_manifest(machine, &path, manifest)?;
        cluster.put(&path, &self.cube.root.join(&"MANIFEST".into()))?;
        Ok(cluster.rename_surely(&stage, &cluster_copy_path(self.cube))?)
    }

    /// Proves that the stage is the source. Returns what the source holds.
    fn verified(
        &self,
        machine: &Machine<'_>,
        cluster: &Cluster<'_>,
        source: &RawPath,
        stage: &RawPath,
    ) -> Result<CubeManifest, MutationError> {
        let mut trees = cluster.survey(&[source.clone(), stage.clone()], Sums::Wanted)?;
        let mut copy = trees.pop().expect("BUG: two trees were asked for");
        let original = trees.pop().expect("BUG: two trees were asked for");
        remove_litter(cluster, stage, &mut copy)?;
        settle_root(cluster, stage, &original, &mut copy)?;
        let owner = Attempt::read(machine, self.cube)?.keep().owner;
        let apart = Apart { owner: !owner, dir_times: true };
        let found = original.differences(&copy, apart);
        if !found.is_empty() {
            return Err(refused(format!("`{stage}` is no exact copy of `{source}`: {}", few(&found))));
        }
        let found = original.differences(&copy, Apart::default());
        if !found.is_empty() {
            machine
                .progress
                .say(&format!("the copy of the cube data differs in attributes: {}", few(&found)));
        }
        if let Err(damage) = cluster.blocks(stage)? {
            return Err(refused(format!("blocks of `{stage}` are damaged: {}", damage.join("; "))));
        }
        Ok(original)
    }
}

/// Removes what attempts of jobs that were ended have left between the files.
pub(super) fn remove_litter(
    cluster: &Cluster<'_>,
    root: &RawPath,
    tree: &mut CubeManifest,
) -> Result<(), MutationError> {
    let is_litter = |path: &RawPath| {
        let name = path.file_name();
        name.starts_with(b".distcp.tmp.") || name.starts_with(b".____distcpSplit____")
    };
    let litter: Vec<RawPath> = tree
        .entries
        .iter()
        .filter(|entry| is_litter(&entry.path))
        .map(|entry| root.join(&entry.path))
        .collect();
    tree.entries.retain(|entry| !is_litter(&entry.path));
    Ok(cluster.remove(&litter)?)
}

/// DistCp leaves the root of its target as it was made: it gets the attributes of the original here.
pub(super) fn settle_root(
    cluster: &Cluster<'_>,
    root: &RawPath,
    original: &CubeManifest,
    tree: &mut CubeManifest,
) -> Result<(), MutationError> {
    let [like, is] = [original.entries.first(), tree.entries.first()]
        .map(|entry| entry.cloned().expect("BUG: a survey holds the root"));
    let differ = (&is.owner, &is.group, is.mode, &is.acl) != (&like.owner, &like.group, like.mode, &like.acl);
    if differ {
        cluster.set_attributes(root, &is, &like)?;
        let survey = cluster.root_of(root)?;
        tree.entries[0] = crate::hadoop::manifest::CubeEntry { mtime_ms: is.mtime_ms, ..survey };
    }
    Ok(())
}

impl Act for CopyClusterData<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let root = &self.cube.root;
        if task.direction == Direction::Backward {
            let left =
                self.pass == CopyPass::Early && with_cluster(machine, |cluster| leftovers(cluster, root))?;
            return Ok(Sight::of(if left { Observed::Torn } else { Observed::Before }));
        }
        let there = |path: &RawPath| {
            with_cluster(machine, |cluster| Ok(cluster.look(std::slice::from_ref(path))?[0].is_some()))
        };
        let recorded = || {
            let manifest = copy_manifest_path(machine.state, self.cube);
            exists(machine.fs, &manifest).context("look at", &manifest)
        };
        let made = match self.pass {
            // I6: what is there before the intent is somebody's, and undoing would remove it.
            CopyPass::Early if task.inputs.is_none() => there(root)?,
            CopyPass::Early => Attempt::read(machine, self.cube)?.early_done,
            // Each look starts a Java within the downtime: none where the answer is known without it.
            CopyPass::Final if task.inputs.is_some() && !recorded()? => false,
            CopyPass::Final => there(&cluster_copy_path(self.cube))?,
        };
        Ok(match (made, task.inputs) {
            (true, None) => Sight::foreign(format!("`{root}` is not this transaction's, or not yet")),
            (true, Some(_)) => Sight::of(Observed::After),
            (false, None) => Sight::of(Observed::Before),
            (false, Some(_)) => Sight::of(Observed::Torn),
        })
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        with_cluster(machine, |cluster| match self.pass {
            CopyPass::Early => self.copy_early(machine, cluster),
            CopyPass::Final => self.copy_final(machine, cluster),
        })
    }

    fn outputs(&self, machine: &Machine<'_>) -> Result<Digest, MutationError> {
        match self.pass {
            CopyPass::Early => Ok(Digest::ZERO),
            CopyPass::Final => {
                Ok(hash_file(machine.fs, &copy_manifest_path(machine.state, self.cube), &machine.tick())?.1)
            }
        }
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, &copy_manifest_path(machine.state, self.cube))
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        if self.pass == CopyPass::Final {
            return Ok(());
        }
        with_cluster(machine, |cluster| {
            // A copy that is still here was never handed over or is back in place; one more look before it goes.
            if cluster.look(std::slice::from_ref(&self.cube.source))?[0].is_none() {
                return Err(refused(format!(
                    "`{}` is missing, so its copy below `{}` is not deleted",
                    self.cube.source, self.cube.root
                )));
            }
            end_jobs(machine, cluster, self.cube)?;
            remove_root(cluster, &self.cube.root)
        })
    }
}
