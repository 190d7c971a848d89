//! Backs up the metadata into the state directory, and proves the backup.
//!
//! *Crash windows.* The product's tool may be killed half-way, and goes on alone if only kytx is: either way a later
//! attempt makes a backup of its own under another name. The copy in the state directory grows as `.part`; its
//! manifest is written and synced before one rename gives the copy its name.
//! *Probe.* By the copy and its manifest.
//! *Apply.* Prove the working directory reachable, run the tool, judge it by everything but its exit code and by what the
//! tool lists before and after, refuse if a job in it is not finished, copy the result out of `meta_backups` at once
//! (others delete there), compare, name it.
//! *Undo.* Nothing: a backup harms nobody.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Act, Machine, product, refused, sync_parent};
use crate::backup::compare::{Ignoring, compare};
use crate::backup::manifest::Manifest;
use crate::backup::walk::{Contents, hash_file};
use crate::digest::Digest;
use crate::effect::fs::{exists, stat_opt};
use crate::effect::tree::{
    Context, copy_tree, copy_tree_syncing_once, make_dirs, measure_tree, parent_of, remove_tree, sibling,
};
use crate::engine::{MutationError, Sight, Task};
use crate::kyligence::home::Layout;
use crate::kyligence::jobs::{UnfinishedJobs, unfinished_in_backup};
use crate::kyligence::metadata::back_up;
use crate::kyligence::preflight::CheckId;
use crate::kyligence::service::Stopped;
use crate::raw_path::RawPath;
use crate::txn::{Direction, Observed};

/// A backup of more entries than this is synced as a whole and not file by file, as the service is down: a large store
/// has some fifty thousand. Below it that would cost more than it saves, since it writes out everybody's dirty data.
const SYNC_ONCE_ABOVE: u64 = 300;

pub(super) struct BackUpMetadata<'a> {
    pub home: &'a RawPath,
    pub backup: &'a RawPath,
}

/// Where the manifest of a metadata backup is: beside it.
pub fn manifest_path(backup: &RawPath) -> PathBuf {
    sibling(backup.as_path(), ".manifest")
}

/// The tool names a backup by the second, and writes into a directory that it finds under that name: an attempt right
/// after a failed one, or after somebody else's, would mix two backups. So a second in which a backup was begun is left
/// to pass.
pub(super) fn leave_the_second(machine: &Machine<'_>, dir: &Path) -> Result<(), MutationError> {
    let Some(meta) = stat_opt(machine.fs, dir).context("look at", dir)? else { return Ok(()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A directory is as old as its latest name.
    if meta.mtime.s == now.as_secs() as i64 {
        let rest = Duration::from_nanos(1_000_000_000 - u64::from(now.subsec_nanos()));
        machine.wait(rest).map_err(|Stopped| MutationError::Interrupted)?;
    }
    Ok(())
}

/// Nothing can start a job any more, so this look, unlike the one before the stop, cannot be overtaken.
fn refuse_unfinished_jobs(machine: &Machine<'_>, dir: &Path, layout: Layout) -> Result<(), MutationError> {
    if machine.has_overridden(CheckId::P3) {
        return Ok(());
    }
    let jobs = unfinished_in_backup(machine.fs, dir, layout)?;
    if jobs.is_empty() { Ok(()) } else { Err(UnfinishedJobs { jobs }.into()) }
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
        leave_the_second(machine, &self.home.as_path().join("meta_backups"))?;
        let (made, layout) = product::with_metadata(machine, self.home, |home, tools| {
            let compares = !machine.has_overridden(CheckId::P17);
            Ok((back_up(tools, &home.path, home.layout, compares)?, home.layout))
        })?;
        refuse_unfinished_jobs(machine, &made.dir, layout)?;

        let backup = self.backup.as_path();
        let part = sibling(backup, ".part");
        let tick = machine.tick();
        make_dirs(machine.fs, parent_of(backup), 0o700)?;
        remove_tree(machine.fs, &part, &tick)?;
        if measure_tree(machine.fs, &made.dir)?.1 > SYNC_ONCE_ABOVE {
            copy_tree_syncing_once(machine.fs, &made.dir, &part, &tick)?;
        } else {
            copy_tree(machine.fs, &made.dir, &part, &tick)?;
        }
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

    fn part(&self) -> Option<PathBuf> {
        Some(sibling(self.backup.as_path(), ".part"))
    }
}
