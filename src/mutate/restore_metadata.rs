//! The way back of the metadata: in full, or by what differs.
//!
//! In full the store is emptied and restored: with fifty thousand entries that are minutes, most of them with an empty
//! store (reference 22.3). By what differs a backup of the store as it is now is made and proven like any other; entries
//! that came since are removed, those that changed or went are laid over by one restore; then a second backup must hold
//! exactly what the one of before the upgrade holds. Whatever goes wrong on that way leads to the way in full, which makes
//! no use of it.
//! After a major upgrade the cube data are back already, and with them the content of large entries: one that came since
//! has lost its own, at which the tool stumbles, and that too leads to the way in full.
//! *Crash windows.* Killed anywhere, the next attempt looks at the store anew. It is never empty on the way by what
//! differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Machine, back_up_metadata, product, refused};
use crate::backup::compare::Ignoring;
use crate::backup::manifest::{Entry, Manifest};
use crate::backup::verify::{Finding, Severity, in_full, verify_tree};
use crate::backup::walk::{Contents, root_join};
use crate::digest::Digest;
use crate::effect::fs::Kind;
use crate::effect::tree::{Context, copy_tree, make_dirs, no_tick, parent_of, remove_tree, sibling};
use crate::engine::MutationError;
use crate::kyligence::home::Layout;
use crate::kyligence::metadata::{back_up, lay_over, remove, restore_exact};
use crate::raw_path::RawPath;

/// How the metadata are restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestoreHow {
    /// By what differs where that is the shorter way, else in full.
    #[default]
    Auto,
    /// The store is emptied and restored.
    Full,
    /// By what differs where that can be proven, else in full.
    Difference,
}

/// Backups with fewer entries are restored in full: emptying and restoring take some 9 ms an entry, the two backups of
/// the other way, each with its listings, half a minute at least (measured, reference 22.2 and 22.3).
const SHORTER_FROM_ENTRIES: usize = 4_000;

/// Entries that are removed one by one at most: each is a start of Java.
const REMOVED_MAX: usize = 40;

/// Restores the metadata from a backup that has this manifest, with the tools of the home that is at a path now.
pub(super) fn restore_metadata(
    machine: &Machine<'_>,
    home: &RawPath,
    backup: &RawPath,
    expected: Digest,
) -> Result<(), MutationError> {
    let manifest = Manifest::read(machine.fs, &back_up_metadata::manifest_path(backup), &expected);
    let verify = || verify(machine, backup, manifest.as_ref().map_err(ToString::to_string)?);
    if let Ok(kept) = &manifest
        && wants_difference(machine, home, kept)?
        && verify().is_ok()
    {
        match by_difference(machine, home, backup, kept) {
            Ok(()) => return Ok(()),
            Err(MutationError::Interrupted) => return Err(MutationError::Interrupted),
            Err(error) => machine.progress.say(&format!(
                "restoring only what differs did not do ({}); the store is emptied and restored in full",
                in_full(&error)
            )),
        }
    }
    product::with_metadata(machine, home, |home, tools| {
        restore_exact(tools, &home.path, home.layout, backup.as_path(), &verify, true)
    })
}

/// Compares the backup with its manifest. Other times and modes are no reason to keep the way back shut, and an interrupted
/// restore may have put a `UUID` file into the directory.
fn verify(machine: &Machine<'_>, backup: &RawPath, manifest: &Manifest) -> Result<(), String> {
    let ignoring = Ignoring { owner: true, dir_mtime: true, xattrs: true };
    let (path, tick) = (backup.as_path(), machine.tick());
    let findings = verify_tree(machine.fs, path, manifest, Contents::Hash, ignoring, machine.threads, &tick)
        .map_err(|error| error.to_string())?;
    let is_damage =
        |finding: &&Finding| finding.severity == Severity::Damage && finding.subject.file_name() != b"UUID";
    findings.iter().find(is_damage).map_or(Ok(()), |finding| Err(finding.to_string()))
}

fn wants_difference(machine: &Machine<'_>, home: &RawPath, kept: &Manifest) -> Result<bool, MutationError> {
    let is_wanted = match machine.restore {
        RestoreHow::Full => false,
        RestoreHow::Difference => true,
        RestoreHow::Auto => files(kept).len() >= SHORTER_FROM_ENTRIES,
    };
    // The tool of the newer layout has one command for both, and none that removes an entry.
    Ok(is_wanted && product::home(machine, home)?.layout == Layout::Tomcat)
}

fn by_difference(
    machine: &Machine<'_>,
    home: &RawPath,
    backup: &RawPath,
    kept: &Manifest,
) -> Result<(), MutationError> {
    let (now, manifest) = fresh_backup(machine, home)?;
    let (added, differing) = difference(kept, &manifest);
    remove_tree(machine.fs, &now, &no_tick)?;
    if added.len() > REMOVED_MAX {
        return Err(refused(format!(
            "{} entries came since, too many to be removed one by one",
            added.len()
        )));
    }
    machine.progress.say(&format!(
        "of {} entries of the metadata {} are put back and {} removed",
        files(kept).len(),
        differing.len(),
        added.len()
    ));
    let only = sibling(backup.as_path(), ".difference");
    lay_out(machine, backup.as_path(), &only, &differing)?;
    product::with_metadata(machine, home, |home, tools| {
        for path in &added {
            remove(tools, &home.path, &format!("/{path}"))?;
        }
        if differing.is_empty() { Ok(()) } else { lay_over(tools, &home.path, home.layout, &only) }
    })?;
    let (now, manifest) = fresh_backup(machine, home)?;
    remove_tree(machine.fs, &now, &no_tick)?;
    remove_tree(machine.fs, &only, &no_tick)?;
    let (added, differing) = difference(kept, &manifest);
    match added.iter().chain(&differing).next() {
        None => Ok(()),
        Some(path) => Err(refused(format!("`{path}` still is not as it was"))),
    }
}

/// A backup of the store as it is now, proven as every backup is, and what it holds.
fn fresh_backup(machine: &Machine<'_>, home: &RawPath) -> Result<(PathBuf, Manifest), MutationError> {
    back_up_metadata::leave_the_second(machine, &home.as_path().join("meta_backups"))?;
    let made =
        product::with_metadata(machine, home, |home, tools| back_up(tools, &home.path, home.layout, true))?;
    let manifest = Manifest::walk(machine.fs, &made.dir, Contents::Hash, machine.threads, &machine.tick())?;
    Ok((made.dir, manifest))
}

/// Puts those entries of the backup that are to be laid over into a directory of their own, times and all: the tool takes
/// the times of files for those of entries.
fn lay_out(
    machine: &Machine<'_>,
    backup: &Path,
    only: &Path,
    paths: &[RawPath],
) -> Result<(), MutationError> {
    remove_tree(machine.fs, only, &no_tick)?;
    make_dirs(machine.fs, only, 0o700)?;
    for path in paths {
        let target = root_join(only, path);
        make_dirs(machine.fs, parent_of(&target), 0o700)?;
        copy_tree(machine.fs, &root_join(backup, path), &target, &machine.tick()).context("copy", &target)?;
    }
    Ok(())
}

/// The entries of the metadata that a backup holds. `UUID` is the backup's own.
fn files(manifest: &Manifest) -> BTreeMap<&RawPath, &Entry> {
    let is_entry = |entry: &&Entry| entry.kind == Kind::File && entry.path.as_bytes() != b"UUID";
    manifest.entries.iter().filter(is_entry).map(|entry| (&entry.path, entry)).collect()
}

/// What is in the store now and was not, and what is to be put back: sorted by path.
fn difference(kept: &Manifest, now: &Manifest) -> (Vec<RawPath>, Vec<RawPath>) {
    let (kept, now) = (files(kept), files(now));
    // A store keeps milliseconds.
    let time = |entry: &Entry| (entry.mtime.s, entry.mtime.ns / 1_000_000);
    let is_same = |a: &Entry, b: &Entry| a.content == b.content && a.size == b.size && time(a) == time(b);
    let added = now.keys().filter(|path| !kept.contains_key(*path)).map(|path| (*path).clone());
    let differing = kept
        .iter()
        .filter(|(path, entry)| !now.get(*path).is_some_and(|found| is_same(entry, found)))
        .map(|(path, _)| (*path).clone());
    (added.collect(), differing.collect())
}
