//! Backs up the metadata into the state directory, and proves the backup.
//!
//! *Crash windows.* The product's tool may be killed half-way, and goes on alone if only kytx is: either way a later
//! attempt makes a backup of its own under another name. The copy in the state directory grows as `.part`; its
//! manifest is written and synced before one rename gives the copy its name.
//! *Probe.* By the copy and its manifest.
//! *Apply.* Prove the working directory reachable, run the tool, judge it by everything but its exit code, copy the
//! result out of `meta_backups` at once (others delete there), compare, name it.
//! *Undo.* Nothing: a backup harms nobody.

use std::path::PathBuf;
use std::time::Duration;

use super::machine::ProductShell;
use super::{Act, Machine, product, refused, sync_parent};
use crate::backup::compare::{Ignoring, compare};
use crate::backup::manifest::Manifest;
use crate::backup::walk::{Contents, hash_file};
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::{Context, copy_tree_syncing_once, make_dirs, parent_of, remove_tree, sibling};
use crate::engine::{MutationError, Sight, Task};
use crate::kyligence::metadata::{MetadataError, MetadataTools, back_up};
use crate::kyligence::service::Stopped;
use crate::raw_path::RawPath;
use crate::txn::{Direction, Observed};

/// Two backups of the product's tool that are so far apart have different names.
const NAMES_DIFFER_AFTER: Duration = Duration::from_secs(1);

pub(super) struct BackUpMetadata<'a> {
    pub home: &'a RawPath,
    pub backup: &'a RawPath,
}

/// Where the manifest of a metadata backup is: beside it.
pub fn manifest_path(backup: &RawPath) -> PathBuf {
    sibling(backup.as_path(), ".manifest")
}

impl Act for BackUpMetadata<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        if task.direction == Direction::Backward {
            return Ok(Sight::of(Observed::Before));
        }
        let backup = self.backup.as_path();
        let there = exists(machine.fs, backup).context("look at", backup)?;
        Ok(match (there, task.inputs) {
            (true, None) => {
                Sight::foreign(format!("`{}` exists already, and not by this transaction", self.backup))
            }
            (true, Some(_)) => Sight::of(Observed::After),
            (false, None) => Sight::of(Observed::Before),
            (false, Some(_)) => Sight::of(Observed::Torn),
        })
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        let home = product::home(machine, self.home)?;
        let tools = MetadataTools {
            shell: &ProductShell(machine),
            fs: machine.fs,
            working_dir_reachable: &|| product::reach_working_dir(machine, &home),
            time_limit: None,
        };
        let made = match back_up(&tools, &home.path, home.layout) {
            // The tool names directories by the second, and an attempt that was killed may have used this one up.
            Err(MetadataError::NotFresh { .. }) => {
                machine.wait(NAMES_DIFFER_AFTER).map_err(|Stopped| MutationError::Interrupted)?;
                back_up(&tools, &home.path, home.layout)?
            }
            other => other?,
        };

        let backup = self.backup.as_path();
        let part = sibling(backup, ".part");
        let tick = machine.tick();
        make_dirs(machine.fs, parent_of(backup), 0o700)?;
        remove_tree(machine.fs, &part, &tick)?;
        // A large store has some fifty thousand entries, and the service is down.
        copy_tree_syncing_once(machine.fs, &made.dir, &part, &tick)?;
        let walk = |path| Manifest::walk(machine.fs, path, Contents::Hash, machine.threads, &tick);
        let (source, copy) = (walk(&made.dir)?, walk(&part)?);
        let ignoring = Ignoring { owner: true, dir_mtime: true, xattrs: true };
        if let Some(difference) = compare(&source, &copy, ignoring).first() {
            return Err(refused(format!("the metadata backup changed while it was copied: {difference}")));
        }
        copy.write(machine.fs, &manifest_path(self.backup))?;
        machine.fs.rename(&part, backup).context("rename", &part)?;
        machine.fs.sync_dir(parent_of(backup)).context("sync", parent_of(backup))?;
        Ok(())
    }

    fn outputs(&self, machine: &Machine<'_>) -> Result<Digest, MutationError> {
        Ok(hash_file(machine.fs, &manifest_path(self.backup), &machine.tick())?.1)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, self.backup.as_path())
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(())
    }
}
