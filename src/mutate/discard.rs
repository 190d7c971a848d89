//! Deletes a tree, a file, or a copy of cube data that this transaction made or replaced.
//!
//! *Crash windows.* The name is moved aside first, durably, so that nothing half-deleted can be taken for the thing
//! itself; then what is aside is deleted. A kill in between leaves it aside, and the next run deletes it.
//! *Probe.* By absence. *Undone*: never; these run only past the commit record (I5).

use super::{Act, Machine, MutationError};
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::{Context, discard_tree, measure_tree, sibling};
use crate::engine::{Sight, Task};
use crate::raw_path::RawPath;
use crate::txn::Observed;

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
            (true, _) => Observed::Before,
            (false, true) if task.inputs.is_some() => Observed::Torn,
            // What an earlier transaction left aside goes with the next thing that is discarded under this name.
            (false, true) => Observed::Before,
            (false, false) => Observed::After,
        }))
    }

    fn inputs(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<Vec<u8>, MutationError> {
        let (bytes, entries) = measure_tree(machine.fs, self.path.as_path())?;
        Ok(serde_json::to_vec(&serde_json::json!({ "path": self.path, "bytes": bytes, "entries": entries }))
            .expect("BUG: plain data has a JSON form"))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<Digest, MutationError> {
        discard_tree(machine.fs, self.path.as_path(), &machine.tick())?;
        Ok(Digest::ZERO)
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
            (true, _) => Observed::Before,
            (false, true) if task.inputs.is_some() => Observed::Torn,
            (false, true) => Observed::Before,
            (false, false) => Observed::After,
        }))
    }

    fn inputs(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<Vec<u8>, MutationError> {
        let (bytes, entries) = machine.hdfs.measure(self.root)?;
        Ok(serde_json::to_vec(&serde_json::json!({ "path": self.root, "bytes": bytes, "entries": entries }))
            .expect("BUG: plain data has a JSON form"))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<Digest, MutationError> {
        let tick = machine.tick();
        if machine.hdfs.exists(self.root)? {
            machine.hdfs.remove(&self.aside(), &tick)?;
            machine.hdfs.rename(self.root, &self.aside())?;
        }
        machine.hdfs.remove(&self.aside(), &tick)?;
        Ok(Digest::ZERO)
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}
