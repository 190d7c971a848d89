//! Unpacks the package into the spare tree.
//!
//! *Crash windows.* The tree grows under the name `spare.part`; every file and directory of it is synced before one
//! rename gives it its name. A kill before that leaves a part, which the next attempt removes and makes anew.
//! *Probe.* By the two names. A spare tree that no intent of this transaction explains is somebody's, and foreign.
//! *Apply.* Unpack, hashing every file against what the plan saw; rename; sync the directory.
//! *Undo.* Move the tree aside, delete it.

use std::path::PathBuf;

use super::{Act, Machine, sync_parent};
use crate::backup::unpack::unpack;
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::{Context, discard_tree, make_dirs, parent_of, remove_tree, sibling};
use crate::engine::{MutationError, Sight, Task};
use crate::raw_path::RawPath;
use crate::txn::{Direction, Observed, Owner};

pub(super) struct StageTree<'a> {
    pub package: &'a RawPath,
    pub content: Digest,
    pub spare: &'a RawPath,
    pub owner: Owner,
}

impl Act for StageTree<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let spare = self.spare.as_path();
        let there = |suffix: &str| {
            let path = sibling(spare, suffix);
            exists(machine.fs, &path).context("look at", &path)
        };
        let (whole, part, aside) = (there("")?, there(".part")?, there(".discarded")?);
        if task.inputs.is_none() {
            // Parts and discarded trees are leftovers of kytx's own, and are removed before they are in the way.
            return Ok(if whole {
                Sight::foreign(format!("`{}` exists already, and not by this transaction", self.spare))
            } else {
                Sight::of(Observed::Before)
            });
        }
        Ok(Sight::of(match (whole, part, aside, task.direction) {
            (true, ..) => Observed::After,
            (false, true, ..) | (false, _, true, Direction::Backward) => Observed::Torn,
            (false, false, ..) => Observed::Before,
        }))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let spare = self.spare.as_path();
        let part = sibling(spare, ".part");
        let tick = machine.tick();
        for leftover in [part.clone(), sibling(spare, ".discarded")] {
            remove_tree(machine.fs, &leftover, &tick)?;
        }
        make_dirs(machine.fs, parent_of(spare), 0o700)?;
        unpack(
            machine.fs,
            self.package.as_path(),
            &self.content,
            &part,
            (self.owner.uid, self.owner.gid),
            machine.threads,
            &tick,
        )?;
        machine.fs.rename(&part, spare).context("rename", &part)?;
        machine.fs.sync_dir(parent_of(spare)).context("sync", parent_of(spare))?;
        Ok(())
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, self.spare.as_path())
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let spare = self.spare.as_path();
        let tick = machine.tick();
        discard_tree(machine.fs, spare, &tick)?;
        remove_tree(machine.fs, &sibling(spare, ".part"), &tick)?;
        Ok(())
    }

    fn part(&self) -> Option<PathBuf> {
        Some(sibling(self.spare.as_path(), ".part"))
    }
}
