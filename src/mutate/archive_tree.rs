//! Writes the archive of the old tree beside the home, and reads it back.
//!
//! *Crash windows.* The archive grows as `.part` under its own name. Manifest and index are written and synced, then
//! the record that names both, then one rename gives the archive its name. A kill before that leaves a part, which the
//! next attempt replaces; its existence under its final name is proof that it was read back, and that the tree is
//! durable which the manifest describes.
//! *Probe.* By that name. *Apply.* Sync the tree, walk, write, read back, rename.
//! *Undo.* Nothing but an unfinished part: an archive harms nobody, and may be all that an operator still trusts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Act, Machine, sync_parent};
use crate::backup::archive::write;
use crate::backup::manifest::Manifest;
use crate::backup::read_back::read_back;
use crate::backup::walk::{Contents, hash_file};
use crate::digest::Digest;
use crate::effect::fs::{exists, read_file};
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of, remove_tree, sibling, sync_tree};
use crate::engine::{MutationError, Sight, Task};
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;
use crate::txn::{Direction, Observed};

/// The list of sockets and devices is the only long thing in a record.
const RECORD_LIMIT_BYTES: u64 = 64 << 20;

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
    /// The archive's inode, by which it is told from a file of its name that somebody else wrote.
    #[serde(default)]
    pub ino: u64,
    /// Its length, as the number of a removed file's inode is soon given again.
    #[serde(default)]
    pub size_bytes: u64,
}

/// Where the record of an archive is; its manifest and its index have the same name with another ending.
pub fn record_path(state: &StateDir, archive: &RawPath) -> PathBuf {
    state.backup().join(RawPath::new(archive.file_name())).with_added_extension("record")
}

impl ArchiveTree<'_> {
    fn side(&self, machine: &Machine<'_>, ending: &str) -> PathBuf {
        record_path(machine.state, self.archive).with_extension(ending)
    }

    /// Whether what has the archive's name is what the record was written for.
    fn is_ours(&self, machine: &Machine<'_>) -> Result<bool, MutationError> {
        let path = self.side(machine, "record");
        if !exists(machine.fs, &path).context("look at", &path)? {
            return Ok(false);
        }
        let text = read_file(machine.fs, &path, RECORD_LIMIT_BYTES).context("read", &path)?;
        let archive = self.archive.as_path();
        let meta = machine.fs.stat(archive).context("look at", archive)?;
        Ok(serde_json::from_slice(&text)
            .is_ok_and(|record: ArchiveRecord| (record.ino, record.size_bytes) == (meta.ino, meta.size)))
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
            (true, Some(_)) if self.is_ours(machine)? => Sight::of(Observed::After),
            (true, _) => {
                Sight::foreign(format!("`{}` exists already, and not by this transaction", self.archive))
            }
            (false, None) => Sight::of(Observed::Before),
            (false, Some(_)) => Sight::of(Observed::Torn),
        })
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let (archive, part) = (self.archive.as_path(), self.unfinished());
        let tick = machine.tick();
        make_dirs(machine.fs, &machine.state.backup(), 0o700)?;
        remove_tree(machine.fs, &part, &tick)?;
        // The manifest will say what the tree holds. Much of that was written by the product, which syncs nothing: its
        // metadata backup, minutes ago. Before the archive has its name, as afterwards nothing comes back to this.
        sync_tree(machine.fs, self.tree.as_path(), &tick)?;
        let listing =
            Manifest::walk(machine.fs, self.tree.as_path(), Contents::Skip, machine.threads, &tick)?;
        machine.progress.total(listing.content_bytes() * 2);
        let made = write(machine.fs, self.tree.as_path(), &listing, self.top, &part, machine.threads, &tick)?;
        read_back(machine.fs, &part, &made.index, &made.manifest, machine.threads, &tick)?;
        let meta = machine.fs.stat(&part).context("look at", &part)?;
        let record = ArchiveRecord {
            manifest: made.manifest.write(machine.fs, &self.side(machine, "manifest"))?,
            index: made.index.write(machine.fs, &self.side(machine, "index"))?,
            skipped: made.skipped,
            ino: meta.ino,
            size_bytes: meta.size,
        };
        let text = serde_json::to_vec(&record).expect("BUG: plain data has a JSON form");
        atomic_write(machine.fs, &self.side(machine, "record"), &text, 0o600)?;
        if exists(machine.fs, archive).context("look at", archive)? {
            return Err(MutationError::Foreign(format!(
                "`{}` appeared while the archive was written, and not by this transaction",
                self.archive
            )));
        }
        machine.fs.rename(&part, archive).context("rename", &part)?;
        machine.fs.sync_dir(parent_of(archive)).context("sync", parent_of(archive))?;
        Ok(())
    }

    fn outputs(&self, machine: &Machine<'_>) -> Result<Digest, MutationError> {
        Ok(hash_file(machine.fs, &self.side(machine, "record"), &machine.tick())?.1)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, self.archive.as_path())
    }

    fn undo(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(remove_tree(machine.fs, &self.unfinished(), &machine.tick())?)
    }

    fn part(&self) -> Option<PathBuf> {
        Some(self.unfinished())
    }
}
