//! Swaps the spare tree and the live tree.
//!
//! *Crash windows.* With `RENAME_EXCHANGE` there is none: the swap is one act, and what may be lost with the power is
//! the whole of it. Where kernel or file system cannot (before Linux 3.15, NFS), it is three renames over a parking
//! name, live to parked, spare to live, parked to spare, each made durable before the next; in the two windows
//! between them the home's path is empty or the spare's is, and the inodes say which. One intent covers all of them,
//! since the position of two inodes among three names tells every window apart without a record of its own.
//!
//! *Probe.* By inode, number and birth, never by content: both trees may hold the same release. The device number is left out, as it
//! changes over a reboot.
//! *Apply* and *undo* are the same act with the two sides changed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Act, Machine, product, refused};
use crate::effect::fs::{Kind, Timestamp, stat_opt};
use crate::effect::tree::{Context, parent_of, sibling};
use crate::engine::{MutationError, Sight, Task};
use crate::raw_path::RawPath;
use crate::txn::Observed;

pub(super) struct ExchangeTrees<'a> {
    pub live: &'a RawPath,
    pub spare: &'a RawPath,
}

/// Which inode is which, looked up when the step is intended.
#[derive(Serialize, Deserialize)]
struct Inodes {
    old: Inode,
    new: Inode,
}

/// An inode, by its number and, where that is known, by when it was made: a tree that was removed and unpacked again by
/// hand may well get the number of the one that was removed.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Inode {
    number: u64,
    #[serde(default)]
    born: Option<Timestamp>,
}

impl PartialEq for Inode {
    fn eq(&self, other: &Self) -> bool {
        let same_birth = self.born.is_none() || other.born.is_none() || self.born == other.born;
        self.number == other.number && same_birth
    }
}

impl ExchangeTrees<'_> {
    fn parked(&self) -> PathBuf {
        sibling(self.spare.as_path(), ".parked")
    }

    fn names(&self) -> [PathBuf; 3] {
        [self.live.to_path_buf(), self.spare.to_path_buf(), self.parked()]
    }

    fn inode(machine: &Machine<'_>, path: &Path) -> Result<Option<Inode>, MutationError> {
        match stat_opt(machine.fs, path).context("look at", path)? {
            Some(meta) if meta.kind == Kind::Dir => {
                let born = machine.fs.born(path).context("look at", path)?;
                Ok(Some(Inode { number: meta.ino, born }))
            }
            // Anything else under one of the names is nobody's tree; 0 is no inode.
            Some(_) => Ok(Some(Inode::default())),
            None => Ok(None),
        }
    }

    fn inodes(machine: &Machine<'_>, task: &Task<'_>) -> Result<Inodes, MutationError> {
        let inputs = task.inputs.expect("BUG: the intent is durable");
        let content = machine.state.read_inputs(machine.fs, task.step, inputs)?;
        serde_json::from_slice(&content)
            .map_err(|error| MutationError::Foreign(format!("the step's inputs: {error}")))
    }

    /// Moves `incoming` to the live name and `outgoing` to the spare name, from any window of an earlier attempt.
    fn swap(&self, machine: &Machine<'_>, incoming: Inode, outgoing: Inode) -> Result<(), MutationError> {
        let [live, spare, parked] = self.names();
        let fs = machine.fs;
        let at = |path: &Path| Self::inode(machine, path);
        if at(&live)? == Some(outgoing) && at(&spare)? == Some(incoming) {
            match fs.exchange(&live, &spare) {
                Ok(()) => return self.sync_parents(machine),
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                    fs.rename(&live, &parked).context("rename", &live)?;
                    self.sync_parents(machine)?;
                }
                Err(error) => return Err(Err::<(), _>(error).context("exchange", &live).unwrap_err().into()),
            }
        }
        if at(&live)?.is_none() && at(&spare)? == Some(incoming) {
            fs.rename(&spare, &live).context("rename", &spare)?;
            self.sync_parents(machine)?;
        }
        if at(&spare)?.is_none() && at(&parked)? == Some(outgoing) {
            fs.rename(&parked, &spare).context("rename", &parked)?;
        }
        self.sync_parents(machine)
    }

    fn sync_parents(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        for dir in [parent_of(self.live.as_path()), parent_of(self.spare.as_path())] {
            machine.fs.sync_dir(dir).context("sync", dir)?;
        }
        Ok(())
    }
}

impl Act for ExchangeTrees<'_> {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        let [live, spare, parked] = self.names();
        let at = [&live, &spare, &parked].map(|path| Self::inode(machine, path));
        let [at_live, at_spare, at_parked] = at;
        let found = (at_live?, at_spare?, at_parked?);
        if task.inputs.is_none() {
            return Ok(match found {
                (Some(live), Some(spare), None) if live.number != 0 && spare.number != 0 => {
                    Sight::of(Observed::Before)
                }
                _ => Sight::foreign(format!(
                    "`{}` and `{}` must both be directories, and `{}` must not exist",
                    self.live,
                    self.spare,
                    RawPath::from(parked.as_path())
                )),
            });
        }
        let Inodes { old, new } = Self::inodes(machine, task)?;
        let (old, new) = (Some(old), Some(new));
        Ok(match found {
            (live, spare, None) if (live, spare) == (old, new) => Sight::of(Observed::Before),
            (live, spare, None) if (live, spare) == (new, old) => Sight::of(Observed::After),
            // The windows of the three renames, forward and backward.
            (None, spare, parked) if (spare, parked) == (new, old) || (spare, parked) == (old, new) => {
                Sight::of(Observed::Torn)
            }
            (live, None, parked) if (live, parked) == (new, old) || (live, parked) == (old, new) => {
                Sight::of(Observed::Torn)
            }
            _ => Sight::foreign(format!(
                "`{}` and `{}` are not the two trees that were to be swapped",
                self.live, self.spare
            )),
        })
    }

    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        let inode = |path: &RawPath| Self::inode(machine, path.as_path()).map(Option::unwrap_or_default);
        let inodes = Inodes { old: inode(self.live)?, new: inode(self.spare)? };
        Ok(Some(serde_json::to_vec(&inodes).expect("BUG: plain data has a JSON form")))
    }

    fn apply(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError> {
        let Inodes { old, new } = Self::inodes(machine, task)?;
        nobody_serves(machine, self.live)?;
        self.turn(machine, new, old)
    }

    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError> {
        self.sync_parents(machine)
    }

    fn undo(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError> {
        let Inodes { old, new } = Self::inodes(machine, task)?;
        nobody_serves(machine, self.live)?;
        self.turn(machine, old, new)
    }
}

/// A home must not be swapped under a running service. The operator, a guardian or a cron line may have started one
/// since the stop.
fn nobody_serves(machine: &Machine<'_>, live: &RawPath) -> Result<(), MutationError> {
    let processes = product::processes(machine, live.as_path())?;
    match processes.services().next() {
        Some(service) => Err(refused(format!(
            "the service of `{live}` runs again (process {}): stop it, and whatever started it",
            service.pid
        ))),
        None => Ok(()),
    }
}

impl ExchangeTrees<'_> {
    /// As [`Self::swap`], also from a window of the other direction: there, the tree that was on its way out comes
    /// back first.
    fn turn(&self, machine: &Machine<'_>, incoming: Inode, outgoing: Inode) -> Result<(), MutationError> {
        let [live, spare, parked] = self.names();
        if Self::inode(machine, &parked)? == Some(incoming) {
            if Self::inode(machine, &live)? == Some(outgoing) {
                machine.fs.rename(&live, &spare).context("rename", &live)?;
                self.sync_parents(machine)?;
            }
            machine.fs.rename(&parked, &live).context("rename", &parked)?;
            self.sync_parents(machine)?;
        }
        self.swap(machine, incoming, outgoing)
    }
}
