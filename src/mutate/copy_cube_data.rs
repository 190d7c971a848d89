//! Copies cube data aside, in two passes: the bulk while the service runs, the difference after the stop.
//!
//! *Crash windows.* The copy grows as `stage` in kytx's own directory on the same file system. Each pass makes it an
//! exact mirror again, whatever an earlier attempt left. The manifest is written and synced before one rename makes
//! `stage` to `copy`.
//! *Probe.* The early pass by the list of what it read, the final pass by `copy`.
//! *Apply.* Mirror; every file is hashed as it is copied, and what the final pass finds untouched by size, times and
//! inode since then is not read again, so that the downtime does not grow with the data.
//! *Undo.* The early pass owns the directory and removes it; the final pass has nothing of its own.

use std::path::PathBuf;

use super::discard::{holder_is_empty, remove_holder};
use super::{Act, Machine, refused, sync_parent};
use crate::backup::manifest::{Manifest, tree_order};
use crate::backup::walk::hash_file;
use crate::digest::Digest;
use crate::effect::fs::{exists, read_file};
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of};
use crate::engine::{MutationError, Sight, Task};
use crate::hadoop::Mirrored;
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;
use crate::txn::{CopyPass, CubeCopy, Direction, Observed};

/// The list of what was read is one line a file; a gigabyte of it would be several million files.
const SEEN_LIMIT_BYTES: u64 = 1 << 30;

pub(super) struct CopyCubeData<'a> {
    pub cube: &'a CubeCopy,
    pub pass: CopyPass,
}

/// Where the manifest of the copy is: in the state directory, under the transaction's name.
pub fn manifest_path(state: &StateDir, cube: &CubeCopy) -> PathBuf {
    state.backup().join(RawPath::new(cube.root.file_name())).join("cube.manifest")
}

/// The published copy.
pub fn copy_path(cube: &CubeCopy) -> RawPath {
    cube.root.join(&"copy".into())
}

impl CopyCubeData<'_> {
    fn stage(&self) -> RawPath {
        self.cube.root.join(&"stage".into())
    }

    fn seen_path(&self, machine: &Machine<'_>) -> PathBuf {
        manifest_path(machine.state, self.cube).with_file_name("cube.seen")
    }

    fn seen(&self, machine: &Machine<'_>) -> Result<Vec<Mirrored>, MutationError> {
        let path = self.seen_path(machine);
        if !exists(machine.fs, &path).context("look at", &path)? {
            return Ok(Vec::new());
        }
        // It only saves reading: what cannot be understood is as good as nothing.
        Ok(serde_json::from_slice(&read_file(machine.fs, &path, SEEN_LIMIT_BYTES)?).unwrap_or_default())
    }

    fn mirror(&self, machine: &Machine<'_>) -> Result<Vec<Mirrored>, MutationError> {
        machine.hdfs.reach(&self.cube.source)?;
        machine.hdfs.make_dirs(&self.cube.root)?;
        machine.progress.total(machine.hdfs.measure(&self.cube.source)?.0);
        let seen = self.seen(machine)?;
        Ok(machine.hdfs.mirror(&self.cube.source, &self.stage(), &seen, &machine.tick())?)
    }

    fn copy_early(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        let seen = self.mirror(machine)?;
        let text = serde_json::to_vec(&seen).expect("BUG: plain data has a JSON form");
        let path = self.seen_path(machine);
        make_dirs(machine.fs, parent_of(&path), 0o700)?;
        Ok(atomic_write(machine.fs, &path, &text, 0o600)?)
    }

    fn copy_final(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        let mirrored = self.mirror(machine)?;
        let mut entries: Vec<_> = mirrored.into_iter().map(|mirrored| mirrored.entry).collect();
        entries.sort_unstable_by(|a, b| tree_order(&a.path, &b.path));
        let path = manifest_path(machine.state, self.cube);
        make_dirs(machine.fs, parent_of(&path), 0o700)?;
        Manifest { entries }.write(machine.fs, &path)?;
        Ok(machine.hdfs.rename(&self.stage(), &copy_path(self.cube))?)
    }
}

impl Act for CopyCubeData<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        if task.direction == Direction::Backward {
            let root = &self.cube.root;
            let left = self.pass == CopyPass::Early
                && (machine.hdfs.exists(root)? || holder_is_empty(machine, root)?);
            return Ok(Sight::of(if left { Observed::Torn } else { Observed::Before }));
        }
        let made = match self.pass {
            // I6: what is there before the intent is somebody's, and undoing would remove it.
            CopyPass::Early if task.inputs.is_none() => machine.hdfs.exists(&self.cube.root)?,
            CopyPass::Early => {
                let path = self.seen_path(machine);
                exists(machine.fs, &path).context("look at", &path)?
            }
            CopyPass::Final => machine.hdfs.exists(&copy_path(self.cube))?,
        };
        Ok(match (made, task.inputs) {
            (true, None) => {
                Sight::foreign(format!("`{}` is not this transaction's, or not yet", self.cube.root))
            }
            (true, Some(_)) => Sight::of(Observed::After),
            (false, None) => Sight::of(Observed::Before),
            (false, Some(_)) => Sight::of(Observed::Torn),
        })
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        match self.pass {
            CopyPass::Early => self.copy_early(machine),
            CopyPass::Final => self.copy_final(machine),
        }
    }

    fn outputs(&self, machine: &Machine<'_>) -> Result<Digest, MutationError> {
        match self.pass {
            CopyPass::Early => Ok(Digest::ZERO),
            CopyPass::Final => {
                Ok(hash_file(machine.fs, &manifest_path(machine.state, self.cube), &machine.tick())?.1)
            }
        }
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, &manifest_path(machine.state, self.cube))?;
        Ok(machine.hdfs.make_durable(&self.cube.root)?)
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        if self.pass == CopyPass::Final {
            return Ok(());
        }
        // A copy that is still here was never handed over or is back in place; one more look before it goes.
        if !machine.hdfs.exists(&self.cube.source)? {
            return Err(refused(format!(
                "`{}` is missing, so its copy below `{}` is not deleted",
                self.cube.source, self.cube.root
            )));
        }
        machine.hdfs.remove(&self.cube.root, &machine.tick())?;
        remove_holder(machine, &self.cube.root)
    }
}
