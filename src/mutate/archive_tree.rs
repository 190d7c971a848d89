//! Writes the archive of the old tree beside the home, and reads it back.
//!
//! *Crash windows.* The archive grows as `.part` under its own name. Manifest and index are written and synced, then
//! the record that names both, then one rename gives the archive its name. A kill before that leaves a part, which the
//! next attempt replaces; its existence under its final name is proof that it was read back.
//! *Probe.* By that name. *Apply.* Walk, write, read back, rename.
//! *Undo.* Nothing but an unfinished part: an archive harms nobody, and may be all that an operator still trusts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Act, Machine};
use crate::backup::archive::write;
use crate::backup::manifest::Manifest;
use crate::backup::read_back::read_back;
use crate::backup::walk::{Contents, hash_file};
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of, remove_tree, sibling};
use crate::engine::{MutationError, Sight, Task};
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;
use crate::txn::{Direction, Observed};

pub(super) struct ArchiveTree<'a> {
    pub tree: &'a RawPath,
    pub archive: &'a RawPath,
    pub top: &'a RawPath,
}

/// What belongs to an archive, by digest; the step's outputs name this record by its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// Plain blake3 of the manifest's file.
    pub manifest: Digest,
    /// Plain blake3 of the index' file.
    pub index: Digest,
    /// Sockets and devices, which an archive cannot hold.
    pub skipped: Vec<RawPath>,
}

/// Where the record of an archive is; its manifest and its index have the same name with another ending.
pub fn record_path(state: &StateDir, archive: &RawPath) -> PathBuf {
    state.backup().join(RawPath::new(archive.file_name())).with_added_extension("record")
}

impl ArchiveTree<'_> {
    fn side(&self, machine: &Machine<'_>, ending: &str) -> PathBuf {
        record_path(machine.state, self.archive).with_extension(ending)
    }

    fn unfinished(&self) -> PathBuf {
        sibling(self.archive.as_path(), ".part")
    }
}

impl Act for ArchiveTree<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let there = |path: &Path| exists(machine.fs, path).context("look at", path);
        let part = there(&self.unfinished())?;
        if task.direction == Direction::Backward {
            return Ok(Sight::of(if part { Observed::Torn } else { Observed::Before }));
        }
        Ok(match (there(self.archive.as_path())?, task.inputs) {
            (true, None) => {
                Sight::foreign(format!("`{}` exists already, and not by this transaction", self.archive))
            }
            (true, Some(_)) => Sight::of(Observed::After),
            (false, None) => Sight::of(Observed::Before),
            (false, Some(_)) => Sight::of(Observed::Torn),
        })
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let (archive, part) = (self.archive.as_path(), self.unfinished());
        let tick = machine.tick();
        make_dirs(machine.fs, &machine.state.backup(), 0o700)?;
        remove_tree(machine.fs, &part, &tick)?;
        let listing =
            Manifest::walk(machine.fs, self.tree.as_path(), Contents::Skip, machine.threads, &tick)?;
        machine.progress.total(listing.content_bytes() * 2);
        let made = write(machine.fs, self.tree.as_path(), &listing, self.top, &part, machine.threads, &tick)?;
        read_back(machine.fs, &part, &made.index, &made.manifest, machine.threads, &tick)?;
        let record = ArchiveRecord {
            manifest: made.manifest.write(machine.fs, &self.side(machine, "manifest"))?,
            index: made.index.write(machine.fs, &self.side(machine, "index"))?,
            skipped: made.skipped,
        };
        let text = serde_json::to_vec(&record).expect("BUG: plain data has a JSON form");
        atomic_write(machine.fs, &self.side(machine, "record"), &text, 0o600)?;
        machine.fs.rename(&part, archive).context("rename", &part)?;
        machine.fs.sync_dir(parent_of(archive)).context("sync", parent_of(archive))?;
        Ok(())
    }

    fn outputs(&self, machine: &Machine<'_>) -> Result<Digest, MutationError> {
        Ok(hash_file(machine.fs, &self.side(machine, "record"), &machine.tick())?.1)
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(remove_tree(machine.fs, &self.unfinished(), &machine.tick())?)
    }

    fn part(&self) -> Option<PathBuf> {
        Some(self.unfinished())
    }
}
