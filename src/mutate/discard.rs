//! Deletes a tree, a file, or a copy of cube data that this transaction made or replaced.
//!
//! *Crash windows.* The name is moved aside first, durably, so that nothing half-deleted can be taken for the thing
//! itself; then what is aside is deleted. A kill in between leaves it aside, and the next run deletes it.
//! *Probe.* By absence. *Undone*: never; these run only past the commit record (I5).

use super::cluster::{leftovers, remove_root, with_cluster};
use super::snapshot_cube_data::SnapshotCubeData;
use super::{Act, Machine, sync_parent};
use crate::effect::fs::exists;
use crate::effect::tree::{Context, discard_tree, measure_tree, sibling};
use crate::engine::{MutationError, Sight, Task};
use crate::raw_path::RawPath;
use crate::txn::{CubeCopy, Observed};

pub(super) struct DiscardLocal<'a> {
    pub path: &'a RawPath,
}

impl Act for DiscardLocal<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let path = self.path.as_path();
        let aside = sibling(path, ".discarded");
        let there = exists(machine.fs, path).context("look at", path)?;
        let moved = exists(machine.fs, &aside).context("look at", &aside)?;
        Ok(Sight::of(match (there, moved) {
            (false, false) => Observed::After,
            (false, true) if task.inputs.is_some() => Observed::Torn,
            // What an earlier transaction left aside goes with the next thing that is discarded under this name.
            (true, _) | (false, true) => Observed::Before,
        }))
    }

    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        let (bytes, entries) = measure_tree(machine.fs, self.path.as_path())?;
        Ok(Some(measured(self.path, bytes, entries)))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(discard_tree(machine.fs, self.path.as_path(), &machine.tick())?)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, self.path.as_path())
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}

fn measured(path: &RawPath, bytes: u64, entries: u64) -> Vec<u8> {
    let measured = serde_json::json!({ "path": path, "bytes": bytes, "entries": entries });
    serde_json::to_vec(&measured).expect("BUG: plain data has a JSON form")
}

/// The directory that holds the copies of all transactions.
fn holder(root: &RawPath) -> RawPath {
    let bytes = root.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte == b'/').expect("BUG: a copy has a directory above it");
    RawPath::new(&bytes[..end])
}

/// Whether nothing but an empty directory is left of this transaction's copy, and of all others.
pub(super) fn holder_is_empty(machine: &Machine<'_>, root: &RawPath) -> Result<bool, MutationError> {
    let holder = holder(root);
    Ok(machine.hdfs.exists(&holder)? && machine.hdfs.list(&holder)?.is_empty())
}

/// Removes the directory that held this transaction's copy. I6: never with the copy of another transaction in it,
/// which may come at any moment, so it is for the file system to say whether it is empty.
pub(super) fn remove_holder(machine: &Machine<'_>, root: &RawPath) -> Result<(), MutationError> {
    Ok(machine.hdfs.remove_if_empty(&holder(root))?)
}

/// The same on a cluster.
pub(super) struct DiscardClusterData<'a> {
    pub root: &'a RawPath,
}

impl Act for DiscardClusterData<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let left = with_cluster(machine, |cluster| leftovers(cluster, self.root))?;
        Ok(Sight::of(match (left, task.inputs) {
            (false, _) => Observed::After,
            (true, None) => Observed::Before,
            (true, Some(_)) => Observed::Torn,
        }))
    }

    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        let counted = with_cluster(machine, |cluster| Ok(cluster.count(std::slice::from_ref(self.root))));
        // Nothing but a directory above it may be left.
        let (bytes, entries) = match counted?.as_deref() {
            Ok([counted, ..]) => (counted.bytes, counted.dirs + counted.files),
            Ok([]) | Err(_) => (0, 0),
        };
        Ok(Some(measured(self.root, bytes, entries)))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        with_cluster(machine, |cluster| remove_root(cluster, self.root))
    }

    fn make_durable(&self, _: &Machine<'_>) -> Result<(), MutationError> {
        Ok(())
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}

pub(super) struct DiscardSnapshot<'a> {
    pub cube: &'a CubeCopy,
}

impl Act for DiscardSnapshot<'_> {
    fn probe(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<Sight, MutationError> {
        let there = SnapshotCubeData { cube: self.cube }.is_there(machine)?;
        Ok(Sight::of(if there { Observed::Before } else { Observed::After }))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        SnapshotCubeData { cube: self.cube }.delete(machine)
    }

    fn make_durable(&self, _: &Machine<'_>) -> Result<(), MutationError> {
        Ok(())
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}

pub(super) struct DiscardCubeData<'a> {
    pub root: &'a RawPath,
}

impl DiscardCubeData<'_> {
    fn aside(&self) -> RawPath {
        let mut name = self.root.as_bytes().to_vec();
        name.extend_from_slice(b".discarded");
        RawPath::new(name)
    }
}

impl Act for DiscardCubeData<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let there = machine.hdfs.exists(self.root)?;
        let moved = machine.hdfs.exists(&self.aside())?;
        Ok(Sight::of(match (there, moved) {
            (false, false) if task.inputs.is_none() || !holder_is_empty(machine, self.root)? => {
                Observed::After
            }
            (false, _) if task.inputs.is_some() => Observed::Torn,
            (true | false, _) => Observed::Before,
        }))
    }

    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        let (bytes, entries) = machine.hdfs.measure(self.root)?;
        Ok(Some(measured(self.root, bytes, entries)))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let tick = machine.tick();
        if machine.hdfs.exists(self.root)? {
            machine.hdfs.remove(&self.aside(), &tick)?;
            machine.hdfs.rename(self.root, &self.aside())?;
        }
        machine.hdfs.remove(&self.aside(), &tick)?;
        remove_holder(machine, self.root)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        Ok(machine.hdfs.make_durable(self.root)?)
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}
