//! Carries the operator's customisations into the spare tree, in two passes.
//!
//! The first pass copies every byte while the service is up. The second runs after the stop and costs a look a file:
//! it makes sure that nothing copied has changed since, and links what the live service went on writing (logs,
//! metadata backups), whose size therefore never enters the downtime.
//!
//! *Crash windows.* Everything happens in the spare tree, where nobody looks. Every item grows under another name and
//! gets its own by one rename, so that what is there with the planned content is there with its attributes, too.
//! *Probe.* The first pass by content, item by item; the second cannot be observed for less than doing it.
//! A source that is not what the plan saw is foreign, and named.
//! *Undo.* Nothing: the spare tree goes as a whole.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Act, Machine, refused, sync_parent};
use crate::backup::manifest::Manifest;
use crate::backup::walk::Contents;
use crate::digest::Digest;
use crate::effect::fs::{Fs, Kind, Meta, Timestamp, read_file, stat_opt};
use crate::effect::tree::{
    Context, atomic_write, copy_attrs, copy_tree, parent_of, remove_tree, resolve, sibling,
};
use crate::engine::{MutationError, Sight, Task};
use crate::kyligence::carry::{CarryItem, CarryList, How};
use crate::raw_path::RawPath;
use crate::txn::{CarryPass, Direction, Observed, SideFile};

/// The name under which an item grows, beside its target.
const PART: &str = ".kytx-part";

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
        let raw = RawPath::from(source.as_path());
        let foreign =
            |what: &str| MutationError::Foreign(format!("`{raw}` has been {what} since the plan was made"));
        if stat_opt(machine.fs, &source).context("look at", &source)?.is_none() {
            return Err(foreign("removed"));
        }
        if item_digest(machine.fs, &source, machine.threads)? != expected {
            return Err(foreign("changed (its content, its rights or its time)"));
        }
        Ok(())
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
        // Whole and synced before it has its name: with the name it counts as carried, attributes and all.
        let part = parent_of(&target).join(PART);
        remove_tree(fs, &part, &tick)?;
        match &item.how {
            How::Copy => {
                for path in copy_tree(fs, &source, &part, &tick)?.owner_lost {
                    say_owner_lost(machine, &path);
                }
            }
            How::Edited { content } => {
                let side = SideFile {
                    path: RawPath::from("plan").join(&content_name(content).as_str().into()),
                    digest: *content,
                };
                let bytes = machine.state.read_side(fs, &side)?;
                // The source may be a link, within the home or out of it: the attributes are the file's.
                let real = resolve(fs, &source).context("resolve", &source)?;
                let meta = fs.stat(&real).context("look at", &real)?;
                let mut file = fs.create(&part, 0o600).context("create", &part)?;
                file.write_all(&bytes).context("write", &part)?;
                if copy_attrs(fs, &real, &part, &meta)? {
                    say_owner_lost(machine, &target);
                }
                file.sync().context("sync", &part)?;
            }
            How::Symlink { target: points_to } => {
                fs.symlink(points_to.as_path(), &part).context("create", &part)?;
            }
            How::Link => return Ok(()),
        }
        remove_tree(fs, &target, &tick)?;
        Ok(fs.rename(&part, &target).context("rename", &part)?)
    }

    /// Syncs the directories above a target, up to the spare tree: an earlier attempt may have made names in any of
    /// them and not got to it.
    fn sync_parents(&self, machine: &Machine<'_>, item: &CarryItem) -> Result<(), MutationError> {
        let target = self.target(item);
        for dir in target.ancestors().skip(1).take_while(|dir| dir.starts_with(self.spare.as_path())) {
            if stat_opt(machine.fs, dir).context("look at", dir)?.is_some() {
                machine.fs.sync_dir(dir).context("sync", dir)?;
            }
        }
        Ok(())
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
            self.sync_parents(machine, item)?;
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
                self.sync_parents(machine, &item)?;
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

fn say_owner_lost(machine: &Machine<'_>, path: &Path) {
    machine.progress.say(&format!("the owner of `{}` could not be kept", RawPath::from(path)));
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
                Some(there) if there.kind == Kind::Dir => {
                    remove_tree(fs, &to.join(PART), &machine.tick())?;
                }
                Some(_) => return Ok(()),
            }
            for name in fs.list(from).context("list", from)? {
                link_tree(machine, &from.join(&name), &to.join(&name))?;
            }
            // Also where it was there: an earlier attempt may have made it and not got to this.
            copy_attrs(fs, from, to, &meta)?;
            fs.sync_dir(to).context("sync", to)?;
        }
        Kind::File | Kind::Symlink | Kind::Fifo if there.is_none() => link_or_copy(machine, from, to)?,
        // A socket or a device means nothing without the process behind it.
        Kind::File | Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Device => {}
    }
    Ok(())
}

fn link_or_copy(machine: &Machine<'_>, from: &Path, to: &Path) -> Result<(), MutationError> {
    let fs = machine.fs;
    match fs.hard_link(from, to) {
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::TooManyLinks
                    | ErrorKind::PermissionDenied
                    | ErrorKind::CrossesDevices
                    | ErrorKind::Unsupported
            ) =>
        {
            // A kernel that lets nobody link what is not theirs, and the like: a copy serves as well. Whole before it
            // has its name, as what has the name stays.
            let part = parent_of(to).join(PART);
            remove_tree(fs, &part, &machine.tick())?;
            copy_tree(fs, from, &part, &machine.tick())?;
            Ok(fs.rename(&part, to).context("rename", &part)?)
        }
        other => Ok(other.context("link", to)?),
    }
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

    /// What an earlier transaction has seen says nothing about this one.
    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        if self.pass == CarryPass::Copy {
            remove_tree(machine.fs, &self.seen_path(machine), &machine.tick())?;
        }
        Ok(None)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        sync_parent(machine, &self.seen_path(machine))
    }

    fn undo(&self, _: &Machine<'_>, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(())
    }
}
