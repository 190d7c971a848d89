//! Carries the operator's customisations into the spare tree, in two passes.
//!
//! The first pass copies every byte while the service is up. The second runs after the stop and costs a look a file:
//! it makes sure that nothing copied has changed since, and links what the live service went on writing (logs,
//! metadata backups), whose size therefore never enters the downtime.
//!
//! *Crash windows.* Everything happens in the spare tree, where nobody looks. Every item is made anew unless it is
//! there with the planned content, so a half-made one is replaced.
//! *Probe.* The first pass by content, item by item; the second cannot be observed for less than doing it.
//! A source that is not what the plan saw is foreign, and named.
//! *Undo.* Nothing: the spare tree goes as a whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Act, Machine, refused};
use crate::backup::manifest::Manifest;
use crate::backup::walk::Contents;
use crate::digest::Digest;
use crate::effect::fs::{Fs, Kind, Meta, Timestamp, read_file, stat_opt};
use crate::effect::tree::{Context, atomic_write, copy_attrs, copy_tree, parent_of, remove_tree, sibling};
use crate::engine::{MutationError, Sight, Task};
use crate::kyligence::carry::{CarryItem, CarryList, How};
use crate::raw_path::RawPath;
use crate::txn::{CarryPass, Direction, Observed, SideFile};

pub(super) struct CarryCustomisations<'a> {
    pub home: &'a RawPath,
    pub spare: &'a RawPath,
    pub list: &'a SideFile,
    pub pass: CarryPass,
}

/// What says, without reading content, that nothing below a path has been touched.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    path: RawPath,
    ino: u64,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

/// The digest by which a source is planned and a copy is known: of a file, a link or a whole tree.
pub fn item_digest(fs: &dyn Fs, path: &Path, threads: usize) -> io::Result<Digest> {
    let manifest = Manifest::walk(fs, path, Contents::Hash, threads, &crate::effect::tree::no_tick)
        .map_err(io::Error::other)?;
    manifest.content_digest(&RawPath::default()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

/// Where the content of an edited file is kept, relative to the state directory.
pub fn content_name(content: &Digest) -> String {
    format!("{}{content}", crate::state_dir::CONTENT_PREFIX)
}

impl CarryCustomisations<'_> {
    fn items(&self, machine: &Machine<'_>) -> Result<Vec<CarryItem>, MutationError> {
        let text = machine.state.read_side(machine.fs, self.list)?;
        let list: CarryList = serde_json::from_slice(&text)
            .map_err(|error| MutationError::Foreign(format!("the carry list: {error}")))?;
        Ok(list.items)
    }

    fn source(&self, item: &CarryItem) -> PathBuf {
        self.home.join(&item.from).to_path_buf()
    }

    fn target(&self, item: &CarryItem) -> PathBuf {
        self.spare.join(&item.to).to_path_buf()
    }

    fn seen_path(&self, machine: &Machine<'_>) -> PathBuf {
        sibling(&machine.state.root().join(self.list.path.as_path()), ".seen")
    }

    /// The source as the plan saw it, or foreign.
    fn check_source(&self, machine: &Machine<'_>, item: &CarryItem) -> Result<(), MutationError> {
        let Some(expected) = item.expected else { return Ok(()) };
        let source = self.source(item);
        let foreign = |what: &str| {
            let raw = RawPath::from(source.as_path());
            Err(MutationError::Foreign(format!("`{raw}` has been {what} since the plan was made")))
        };
        if stat_opt(machine.fs, &source).context("look at", &source)?.is_none() {
            return foreign("removed");
        }
        match item_digest(machine.fs, &source, machine.threads)? {
            found if found == expected => Ok(()),
            _ => foreign("changed (its content, its rights or its time)"),
        }
    }

    /// Whether the item is in the spare tree as planned.
    fn is_carried(&self, machine: &Machine<'_>, item: &CarryItem) -> Result<bool, MutationError> {
        let target = self.target(item);
        let Some(meta) = stat_opt(machine.fs, &target).context("look at", &target)? else { return Ok(false) };
        Ok(match &item.how {
            How::Copy => Some(item_digest(machine.fs, &target, machine.threads)?) == item.expected,
            How::Edited { content } => {
                meta.kind == Kind::File
                    && crate::backup::walk::hash_file(machine.fs, &target, &machine.tick())?.1 == *content
            }
            How::Symlink { target: points_to } => {
                meta.kind == Kind::Symlink && machine.fs.read_link(&target)? == points_to.as_path()
            }
            How::Link => true,
        })
    }

    fn carry(&self, machine: &Machine<'_>, item: &CarryItem) -> Result<(), MutationError> {
        let (fs, tick) = (machine.fs, machine.tick());
        let (source, target) = (self.source(item), self.target(item));
        self.make_parents(machine, &item.to)?;
        remove_tree(fs, &target, &tick)?;
        match &item.how {
            How::Copy => {
                for path in copy_tree(fs, &source, &target, &tick)?.owner_lost {
                    machine
                        .progress
                        .say(&format!("the owner of `{}` could not be kept", RawPath::from(path)));
                }
            }
            How::Edited { content } => {
                let side = SideFile {
                    path: RawPath::from("plan").join(&content_name(content).as_str().into()),
                    digest: *content,
                };
                let bytes = machine.state.read_side(fs, &side)?;
                atomic_write(fs, &target, &bytes, 0o600)?;
                let real = self.through_links(&source)?;
                let meta = fs.stat(&real).context("look at", &real)?;
                copy_attrs(fs, &real, &target, &meta)?;
                fs.open(&target).context("open", &target)?.sync().context("sync", &target)?;
            }
            How::Symlink { target: points_to } => {
                fs.symlink(points_to.as_path(), &target).context("create", &target)?;
            }
            How::Link => {}
        }
        fs.sync_dir(parent_of(&target)).context("sync", parent_of(&target))?;
        Ok(())
    }

    /// The file behind links within the home, whose attributes an edited file takes.
    fn through_links(&self, source: &Path) -> Result<PathBuf, MutationError> {
        let real = crate::effect::os::real_path(source).context("resolve", source)?;
        if !real.starts_with(self.home.as_path()) {
            // A file outside the home lends no attributes to one inside.
            return Ok(source.to_owned());
        }
        Ok(real)
    }

    /// Makes the directories above a target that the new release does not have, like those of the old home.
    fn make_parents(&self, machine: &Machine<'_>, to: &RawPath) -> Result<(), MutationError> {
        let spare = self.spare.as_path();
        let target = spare.join(to.as_path());
        let missing: Vec<&Path> = target
            .ancestors()
            .skip(1)
            .take_while(|dir| *dir != spare)
            .filter(|dir| stat_opt(machine.fs, dir).is_ok_and(|meta| meta.is_none()))
            .collect();
        for dir in missing.into_iter().rev() {
            let like = self.home.as_path().join(dir.strip_prefix(spare).expect("BUG: below the spare tree"));
            let like =
                stat_opt(machine.fs, &like)?.filter(|meta| meta.kind == Kind::Dir).map_or(0o755, |m| m.mode);
            machine.fs.mkdir(dir, like).context("create", dir)?;
            machine.fs.sync_dir(parent_of(dir)).context("sync", parent_of(dir))?;
        }
        Ok(())
    }

    fn copy_pass(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        let items = self.items(machine)?;
        let mut seen = BTreeMap::new();
        for item in items.iter().filter(|item| item.how != How::Link) {
            // Looked at before it is compared and copied: a change in between shows in the second pass.
            let look = looks(machine.fs, &self.source(item))?;
            self.check_source(machine, item)?;
            if !self.is_carried(machine, item)? {
                self.carry(machine, item)?;
            }
            if !self.is_carried(machine, item)? {
                return Err(refused(format!("`{}` changed while it was copied", item.from)));
            }
            seen.insert(item.from.to_string(), look);
        }
        let text = serde_json::to_vec(&seen).expect("BUG: plain data has a JSON form");
        Ok(atomic_write(machine.fs, &self.seen_path(machine), &text, 0o600)?)
    }

    fn settle_pass(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        // The list only saves reading: what is not in it is compared by content.
        let seen: BTreeMap<String, Vec<Look>> = read_file(machine.fs, &self.seen_path(machine), 256 << 20)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        for item in self.items(machine)? {
            let source = self.source(&item);
            if item.how == How::Link {
                self.make_parents(machine, &item.to)?;
                link_tree(machine, &source, &self.target(&item))?;
            } else if seen.get(&item.from.to_string()) != Some(&looks(machine.fs, &source)?) {
                self.check_source(machine, &item)?;
            }
        }
        Ok(())
    }
}

/// What a look at everything below a path shows.
fn looks(fs: &dyn Fs, path: &Path) -> io::Result<Vec<Look>> {
    fn visit(fs: &dyn Fs, path: &Path, found: &mut Vec<Look>) -> io::Result<()> {
        let Some(meta) = stat_opt(fs, path).context("look at", path)? else { return Ok(()) };
        let Meta { ino, size, mtime, ctime, .. } = meta;
        found.push(Look { path: path.into(), ino, size, mtime, ctime });
        if meta.kind == Kind::Dir {
            for name in fs.list(path).context("list", path)? {
                visit(fs, &path.join(name), found)?;
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    visit(fs, path, &mut found)?;
    Ok(found)
}

/// Gives everything below `from` a second name below `to`; what has the name already stays.
fn link_tree(machine: &Machine<'_>, from: &Path, to: &Path) -> Result<(), MutationError> {
    let fs = machine.fs;
    let Some(meta) = stat_opt(fs, from).context("look at", from)? else { return Ok(()) };
    let there = stat_opt(fs, to).context("look at", to)?;
    match meta.kind {
        Kind::Dir => {
            match there {
                None => fs.mkdir(to, 0o700).context("create", to)?,
                Some(there) if there.kind == Kind::Dir => {}
                Some(_) => return Ok(()),
            }
            for name in fs.list(from).context("list", from)? {
                link_tree(machine, &from.join(&name), &to.join(&name))?;
            }
            if there.is_none() {
                copy_attrs(fs, from, to, &meta)?;
            }
            fs.sync_dir(to).context("sync", to)?;
        }
        // A socket or a device means nothing without the process behind it.
        Kind::Socket | Kind::Device => {}
        Kind::File | Kind::Symlink | Kind::Fifo if there.is_none() => {
            if fs.hard_link(from, to).is_err() {
                // Too many links, or a kernel that lets nobody link what is not theirs: a copy serves as well.
                copy_tree(fs, from, to, &machine.tick())?;
            }
        }
        Kind::File | Kind::Symlink | Kind::Fifo => {}
    }
    Ok(())
}

impl Act for CarryCustomisations<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        if task.direction == Direction::Backward || task.inputs.is_none() {
            return Ok(Sight::of(Observed::Before));
        }
        if self.pass == CarryPass::Copy {
            let seen = self.seen_path(machine);
            let finished = stat_opt(machine.fs, &seen).context("look at", &seen)?.is_some();
            if !finished {
                return Ok(Sight::of(Observed::Torn));
            }
            for item in self.items(machine)?.iter().filter(|item| item.how != How::Link) {
                if !self.is_carried(machine, item)? {
                    return Ok(Sight::of(Observed::Torn));
                }
            }
            return Ok(Sight::of(Observed::After));
        }
        Ok(Sight::of(Observed::Torn))
    }

    fn apply(&self, machine: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        match self.pass {
            CarryPass::Copy => self.copy_pass(machine),
            CarryPass::Settle => self.settle_pass(machine),
        }
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(())
    }
}
