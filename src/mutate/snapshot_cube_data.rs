//! Makes a snapshot of the cube data, which costs a moment whatever their size.
//!
//! *Crash windows.* The name is the transaction's own, so that a snapshot that an attempt made before a kill is known;
//! the manifest is written after it, and only then is the step done.
//! *Probe.* By both of them.
//! *Undo.* Deletes the snapshot, once the cube data are back.

use super::cluster::{
    leftovers, remove_empty, snapshot_manifest_path, snapshot_name, snapshot_path, with_cluster,
    write_manifest,
};
use super::{Act, Machine, refused, sync_parent};
use crate::backup::walk::hash_file;
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::Context;
use crate::engine::{MutationError, Sight, Task};
use crate::hadoop::cluster::ClusterError;
use crate::hadoop::survey::Sums;
use crate::txn::{CubeCopy, Direction, Observed};

pub(super) struct SnapshotCubeData<'a> {
    pub cube: &'a CubeCopy,
}

impl SnapshotCubeData<'_> {
    pub(super) fn is_there(&self, machine: &Machine<'_>) -> Result<bool, MutationError> {
        let path = snapshot_path(self.cube);
        with_cluster(machine, |cluster| Ok(cluster.look(&[path])?[0].is_some()))
    }

    pub(super) fn delete(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        if !self.is_there(machine)? {
            return Ok(());
        }
        let name = snapshot_name(self.cube);
        let deleted = with_cluster(machine, |cluster| Ok(cluster.delete_snapshot(&self.cube.source, &name)?));
        if self.is_there(machine)? {
            deleted?;
            return Err(refused(format!("the snapshot `{}` was not deleted", snapshot_path(self.cube))));
        }
        Ok(())
    }
}

impl Act for SnapshotCubeData<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        if task.direction == Direction::Backward {
            let left = self.is_there(machine)?
                || with_cluster(machine, |cluster| leftovers(cluster, &self.cube.root))?;
            return Ok(Sight::of(if left { Observed::Torn } else { Observed::Before }));
        }
        let manifest = snapshot_manifest_path(machine.state, self.cube);
        let recorded = exists(machine.fs, &manifest).context("look at", &manifest)?;
        // Each look starts a Java within the downtime: none where the answer is known without it.
        if task.inputs.is_some() && !recorded {
            return Ok(Sight::of(Observed::Torn));
        }
        Ok(match (self.is_there(machine)?, task.inputs) {
            (true, None) => Sight::foreign(format!("`{}` is there already", snapshot_path(self.cube))),
            (false, None) => Sight::of(Observed::Before),
            (true, Some(_)) => Sight::of(Observed::After),
            (false, Some(_)) => Sight::of(Observed::Torn),
        })
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let (path, name) = (snapshot_path(self.cube), snapshot_name(self.cube));
        let manifest = with_cluster(machine, |cluster| {
            // Refused if an attempt before a kill has made it; whether it is there the survey says.
            let made = cluster.create_snapshot(&self.cube.source, &name);
            match (cluster.survey(std::slice::from_ref(&path), Sums::Wanted), made) {
                (Ok(mut trees), _) => Ok(trees.remove(0)),
                (Err(ClusterError::Wrong { .. }), Err(refusal)) => Err(refusal.into()),
                (Err(error), _) => Err(error.into()),
            }
        })?;
        write_manifest(machine, &snapshot_manifest_path(machine.state, self.cube), manifest)
    }

    fn outputs(&self, machine: &Machine<'_>) -> Result<Digest, MutationError> {
        Ok(hash_file(machine.fs, &snapshot_manifest_path(machine.state, self.cube), &machine.tick())?.1)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, &snapshot_manifest_path(machine.state, self.cube))
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        self.delete(machine)?;
        // A restore may have left kytx's own directory, with nothing in it.
        with_cluster(machine, |cluster| remove_empty(cluster, &self.cube.root))
    }
}
