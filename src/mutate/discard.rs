//! Deletes a tree, a file, or a copy of cube data that this transaction made or replaced.
//!
//! *Crash windows.* The name is moved aside first, durably, so that nothing half-deleted can be taken for the thing
//! itself; then what is aside is deleted. A kill in between leaves it aside, and the next run deletes it.
//! *Probe.* By absence. *Undone*: never; these run only past the commit record (I5).

use super::{Act, Machine};
use crate::effect::fs::exists;
use crate::effect::tree::{Context, discard_tree, measure_tree, sibling};
use crate::engine::{MutationError, Sight, Task};
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

    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        let (bytes, entries) = measure_tree(machine.fs, self.path.as_path())?;
        Ok(Some(measured(self.path, bytes, entries)))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(discard_tree(machine.fs, self.path.as_path(), &machine.tick())?)
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}

fn measured(path: &RawPath, bytes: u64, entries: u64) -> Vec<u8> {
    let measured = serde_json::json!({ "path": path, "bytes": bytes, "entries": entries });
    serde_json::to_vec(&measured).expect("BUG: plain data has a JSON form")
}

/// Removes the directory that held this transaction's copy, if no other transaction has one there.
pub(super) fn remove_if_empty(machine: &Machine<'_>, root: &RawPath) -> Result<(), MutationError> {
    if let Some(parent) = empty_parent(machine, root)? {
        machine.hdfs.remove(&parent, &machine.tick())?;
    }
    Ok(())
}

/// The directory that held this transaction's copy, if it is there and holds nothing any more. A probe that sees it
/// must not call the copy gone altogether: a kill may have come between the removals of the two.
pub(super) fn empty_parent(machine: &Machine<'_>, root: &RawPath) -> Result<Option<RawPath>, MutationError> {
    let bytes = root.as_bytes();
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'/') else { return Ok(None) };
    let parent = RawPath::new(&bytes[..end]);
    let is_left = machine.hdfs.exists(&parent)? && machine.hdfs.list(&parent)?.is_empty();
    Ok(is_left.then_some(parent))
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
        let left = moved || empty_parent(machine, self.root)?.is_some();
        Ok(Sight::of(match (there, left) {
            (true, _) => Observed::Before,
            (false, true) if task.inputs.is_some() => Observed::Torn,
            (false, true) => Observed::Before,
            (false, false) => Observed::After,
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
        remove_if_empty(machine, self.root)
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        unreachable!("BUG: a cleanup step is never undone")
    }
}
