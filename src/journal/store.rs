//! The journal in its two places: create, open and repair, append, retire.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::ballast;
use super::codec::{Frame, Head};
use super::decide::{Decision, Reading, StoreRepair, TwinRepair, decide};
use super::sled::{CopyFault, Sled, SledFault, SledTables, Tables, copy_for_judgement, sync_store};
use super::{Journal, JournalError, OpenError, is_bad_medium, twin};
use crate::effect::fs::{Fs, FsFile, exists};
use crate::effect::tree::{make_dirs, no_tick, remove_tree, sibling};
use crate::raw_path::RawPath;
use crate::txn::{Lsn, Record};

/// An open journal. I8: the caller holds kytx's lock from before it is opened until it is dropped.
pub struct Store<'fs> {
    fs: &'fs dyn Fs,
    dir: PathBuf,
    sled: Sled,
    twin: Box<dyn FsFile>,
    head: Head,
    ended: bool,
    poisoned: bool,
    /// Whether this is the way back, to which the ballast belongs.
    returns: bool,
}

/// What an opening gives.
pub struct Opened<'fs> {
    /// The journal, ready for more records.
    pub store: Store<'fs>,
    /// Everything in it. Never empty.
    pub records: Vec<(Lsn, Record)>,
    /// What had to be repaired, for the operator to know.
    pub repairs: Vec<Repair>,
}

/// A repair that an opening made. Displays as a sentence without its full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A crash had cut an append short between its two writes.
    TwinCompleted {
        /// The record that was completed.
        lsn: Lsn,
    },
    /// The twin was damaged and has been rebuilt from the store.
    TwinRebuilt {
        /// What was wrong.
        why: String,
        /// Where the damaged file is kept; `None` if there was none.
        kept: Option<PathBuf>,
    },
    /// The store was damaged and has been rebuilt from the twin.
    StoreRebuilt {
        /// What was wrong.
        why: String,
        /// Where the damaged directory is kept; `None` if there was none.
        kept: Option<PathBuf>,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, from, why, kept) = match self {
            Self::TwinCompleted { lsn } => {
                return write!(
                    f,
                    "the journal's last record, {lsn}, had been written in one of its two places; it was completed"
                );
            }
            Self::TwinRebuilt { why, kept } => ("twin", "store", why, kept),
            Self::StoreRebuilt { why, kept } => ("store", "twin", why, kept),
        };
        write!(f, "the journal's {what} was rebuilt from its {from}: {why}")?;
        match kept {
            Some(path) => write!(f, "; what was there is kept as `{}`", RawPath::from(path.as_path())),
            None => Ok(()),
        }
    }
}

impl<'fs> Store<'fs> {
    /// Creates a journal in the state directory `dir`, with its first record. Made aside, synced, then renamed into
    /// place, so that a journal without a record never exists and an empty one is always damage.
    ///
    /// # Errors
    /// [`OpenError::Exists`] if there is one, whole or in part.
    pub fn create(fs: &'fs dyn Fs, dir: &Path, first: &Record) -> Result<Self, OpenError> {
        Self::create_over(fs, &SledTables, dir, first)
    }

    /// The same over another sled than the real one.
    pub fn create_over(
        fs: &'fs dyn Fs,
        tables: &'fs dyn Tables,
        dir: &Path,
        first: &Record,
    ) -> Result<Self, OpenError> {
        let places = Places { fs, tables, dir };
        if places.has_store()? || places.has_twin()? {
            return Err(OpenError::Exists { dir: dir.to_owned() });
        }
        let frame = Frame::seal(Head::START, first).map_err(OpenError::Begin)?;
        places.clear_leftovers()?;
        ballast::make(fs, dir).map_err(|source| OpenError::io("make the ballast in", dir, source))?;
        let frames = [frame];
        places.build_store(&frames)?;
        places.build_twin(&frames)?;
        // Whichever name survives a crash here, the next opening makes the other from it.
        places.publish_twin()?;
        places.publish_store()?;
        places.open(&frames)
    }

    /// Opens the journal in the state directory `dir`, after comparing its two places and repairing one from the
    /// other if need be.
    pub fn open(fs: &'fs dyn Fs, dir: &Path) -> Result<Opened<'fs>, OpenError> {
        Self::open_over(fs, &SledTables, dir)
    }

    /// The same over another sled than the real one.
    pub fn open_over(fs: &'fs dyn Fs, tables: &'fs dyn Tables, dir: &Path) -> Result<Opened<'fs>, OpenError> {
        let opened = Self::open_once(fs, tables, dir)?;
        ballast::make_if_ample(fs, dir);
        Ok(opened)
    }

    /// Opens the journal for the way back, which must work on a full disk: where there is no room, the ballast is set
    /// free. Whoever goes forward opens without it, or its own work would use the room up that the way back needs.
    pub fn open_for_return(fs: &'fs dyn Fs, dir: &Path) -> Result<Opened<'fs>, OpenError> {
        let mut opened = match Self::open(fs, dir) {
            // sled's reopening needs room, and so do the copy to judge and a rebuild.
            Err(error) if error.is_full() && ballast::release(fs, dir).is_ok_and(|bytes| bytes > 0) => {
                Self::open(fs, dir)
            }
            other => other,
        }?;
        opened.store.make_room();
        Ok(opened)
    }

    fn open_once(fs: &'fs dyn Fs, tables: &'fs dyn Tables, dir: &Path) -> Result<Opened<'fs>, OpenError> {
        let places = Places { fs, tables, dir };
        let twin = match twin::scan(fs, dir) {
            Err(OpenError::Io { source, .. }) if is_bad_medium(&source) => {
                Some(Reading::broken(format!("it cannot be read: {source}")))
            }
            other => other?,
        };
        let has_store = places.has_store()?;
        if twin.is_none() && !has_store {
            return Err(OpenError::NoJournal { dir: dir.to_owned() });
        }
        places.clear_leftovers()?;
        let store = if has_store { Some(places.judge_store()?) } else { None };
        let decision = decide(store.as_ref(), twin.as_ref())?;
        let repairs = places.repair(&decision)?;
        let store = places.open(&decision.truth)?;
        let records = decision.truth.into_iter().map(|frame| (frame.lsn, frame.record)).collect();
        Ok(Opened { store, records, repairs })
    }

    /// Moves the journal of an ended transaction, both places, into the directory `into`, which is made if it is
    /// missing, so that another can be created. After a crash at any point the journal either is still opened in
    /// full, and retiring it again completes the move, or is gone from `dir` in full.
    ///
    /// # Errors
    /// [`OpenError::NotEnded`] if the last record is not `End`.
    pub fn retire(self, into: &Path) -> Result<(), OpenError> {
        let Self { fs, dir, sled, ended, poisoned, .. } = self;
        if !ended || poisoned {
            return Err(OpenError::NotEnded { dir });
        }
        drop(sled);
        make_dirs(fs, into, 0o700).map_err(|source| OpenError::io("create", into, source))?;
        let moved_store = into.join(STORE_NAME);
        // Left by a retirement that the power cut before its names were durable; the same records are still here.
        remove_tree(fs, &moved_store, &no_tick)
            .map_err(|source| OpenError::io("remove", &moved_store, source))?;
        // The twin last, as it comes first when a journal is made: who looks without a lock reads the twin, and must
        // never meet a store without one. What a crash leaves in between is a twin without a store, which opens.
        for (from, to) in [(store_path(&dir), moved_store), (twin::path(&dir), twin::path(into))] {
            fs.rename(&from, &to).map_err(|source| OpenError::io("move", &from, source))?;
            // The new name first: a crash between the two leaves two names and never none.
            for parent in [into, &dir] {
                fs.sync_dir(parent).map_err(|source| OpenError::io("sync", parent, source))?;
            }
        }
        Ok(())
    }

    /// Sets the ballast free if the disk is short of room, now or when an append finds it so: the way back must get
    /// through on a full one.
    pub fn make_room(&mut self) {
        if !std::mem::replace(&mut self.returns, true) {
            ballast::release_if_short(self.fs, &self.dir);
        }
    }

    /// The last record's place.
    pub fn last(&self) -> Lsn {
        self.head.lsn
    }

    fn write(&mut self, frame: &Frame) -> Result<(), JournalError> {
        // The store first, so that of two undamaged places the twin is never ahead.
        match self.sled.append([frame]) {
            Err(SledFault::Io { source, .. }) if ballast::is_full(&source) => return Err(self.full(source)),
            other => other.map_err(JournalError::Store)?,
        }
        match twin::append(&mut *self.twin, frame) {
            Err(source) if ballast::is_full(&source) => Err(self.full(source)),
            other => other.map_err(|source| JournalError::Twin { path: twin::path(&self.dir), source }),
        }
    }

    /// The append is not tried again in this process: nobody can say what sled has kept of the failed one. The next
    /// opening finds a clean state, and room if this is the way back.
    fn full(&self, source: std::io::Error) -> JournalError {
        let released_bytes = if self.returns { ballast::release(self.fs, &self.dir).unwrap_or(0) } else { 0 };
        JournalError::Full { released_bytes, source }
    }
}

impl Journal for Store<'_> {
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        let frame = Frame::seal(self.head, record)?;
        // I2: whoever acts on this record does so after the return, when both places hold it.
        self.poisoned = true;
        self.write(&frame)?;
        self.poisoned = false;
        self.head = frame.head();
        self.ended = matches!(record, Record::End { .. });
        Ok(frame.lsn)
    }
}

/// The store's name in the state directory.
const STORE_NAME: &str = "journal";

/// Where the store of the state directory `dir` is.
pub(super) fn store_path(dir: &Path) -> PathBuf {
    dir.join(STORE_NAME)
}

/// The journal's names in one state directory.
struct Places<'fs, 'dir> {
    fs: &'fs dyn Fs,
    tables: &'fs dyn Tables,
    dir: &'dir Path,
}

impl<'fs> Places<'fs, '_> {
    fn has_store(&self) -> Result<bool, OpenError> {
        let path = store_path(self.dir);
        exists(self.fs, &path).map_err(|source| OpenError::io("look at", &path, source))
    }

    fn has_twin(&self) -> Result<bool, OpenError> {
        let path = twin::path(self.dir);
        exists(self.fs, &path).map_err(|source| OpenError::io("look at", &path, source))
    }

    /// A store that is being built; never one that was in use.
    fn new_store(&self) -> PathBuf {
        sibling(&store_path(self.dir), ".new")
    }

    fn new_twin(&self) -> PathBuf {
        sibling(&twin::path(self.dir), ".part")
    }

    /// The copy on which a store is judged.
    fn copy(&self) -> PathBuf {
        sibling(&store_path(self.dir), ".copy")
    }

    fn clear_leftovers(&self) -> Result<(), OpenError> {
        for path in [self.new_store(), self.copy(), self.new_twin(), ballast::trial(self.dir)] {
            self.remove(&path)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), OpenError> {
        remove_tree(self.fs, path, &no_tick).map_err(|source| OpenError::io("remove", path, source))
    }

    /// Reads the store from a copy: sled cuts a damaged store when it opens it, and a journal that is refused must
    /// be left as it was found.
    fn judge_store(&self) -> Result<Reading, OpenError> {
        let copy = self.copy();
        let reading = self.judge_copy(&copy);
        self.remove(&copy)?;
        reading
    }

    fn judge_copy(&self, copy: &Path) -> Result<Reading, OpenError> {
        let path = store_path(self.dir);
        match copy_for_judgement(self.fs, &path, copy) {
            Ok(()) => {}
            Err(CopyFault::Read(source)) if is_bad_medium(&source) => {
                return Ok(Reading::broken(format!("it cannot be read: {source}")));
            }
            Err(CopyFault::Read(source)) => return Err(OpenError::io("read", &path, source)),
            Err(CopyFault::Write(source)) => return Err(OpenError::io("write", copy, source)),
        }
        let db = copy.join("db");
        if !exists(self.fs, &db).map_err(|source| OpenError::io("look at", &db, source))? {
            // sled would make a new, empty one.
            return Ok(Reading::broken("its file `db` is missing".to_owned()));
        }
        match Sled::open(self.fs, self.tables, copy).and_then(|sled| sled.pairs()) {
            Ok(pairs) => Ok(Reading::of_pairs(&pairs)),
            // What the system refuses to do with the copy says nothing about the store.
            Err(SledFault::Io { source, .. }) if source.raw_os_error().is_some() => {
                Err(OpenError::io("use", copy, source))
            }
            Err(fault) => Ok(Reading::broken(with_cause(&fault))),
        }
    }

    /// The twin first: if both need work, the store's truth was found only in memory until the twin holds it.
    fn repair(&self, decision: &Decision) -> Result<Vec<Repair>, OpenError> {
        let mut repairs = Vec::new();
        match &decision.twin {
            TwinRepair::None => {}
            TwinRepair::Complete { lsn } => {
                self.build_twin(&decision.truth)?;
                self.publish_twin()?;
                repairs.push(Repair::TwinCompleted { lsn: *lsn });
            }
            TwinRepair::Rebuild { why } => {
                self.build_twin(&decision.truth)?;
                let kept = self.set_aside(&twin::path(self.dir))?;
                self.publish_twin()?;
                repairs.push(Repair::TwinRebuilt { why: why.clone(), kept });
            }
        }
        if let StoreRepair::Rebuild { why } = &decision.store {
            self.build_store(&decision.truth)?;
            let kept = self.set_aside(&store_path(self.dir))?;
            self.publish_store()?;
            repairs.push(Repair::StoreRebuilt { why: why.clone(), kept });
        }
        Ok(repairs)
    }

    /// Renames what is there to the first free `.damaged-N`. A crash right after it leaves one of two places
    /// missing, which the next opening rebuilds.
    fn set_aside(&self, path: &Path) -> Result<Option<PathBuf>, OpenError> {
        let look =
            |path: &Path| exists(self.fs, path).map_err(|source| OpenError::io("look at", path, source));
        if !look(path)? {
            return Ok(None);
        }
        let mut number = 1;
        let aside = loop {
            let name = sibling(path, &format!(".damaged-{number}"));
            if !look(&name)? {
                break name;
            }
            number += 1;
        };
        self.rename(path, &aside)?;
        Ok(Some(aside))
    }

    fn build_store(&self, frames: &[Frame]) -> Result<(), OpenError> {
        let path = self.new_store();
        let mut store = Sled::open(self.fs, self.tables, &path).map_err(OpenError::Store)?;
        store.append(frames).map_err(OpenError::Store)?;
        drop(store);
        sync_store(self.fs, &path).map_err(|source| OpenError::io("sync", &path, source))
    }

    fn publish_store(&self) -> Result<(), OpenError> {
        self.rename(&self.new_store(), &store_path(self.dir))
    }

    fn build_twin(&self, frames: &[Frame]) -> Result<(), OpenError> {
        let path = self.new_twin();
        let build = || {
            let mut file = self.fs.create(&path, 0o600)?;
            file.write_all(&twin::bytes_of(frames))?;
            file.sync()
        };
        build().map_err(|source| OpenError::io("write", &path, source))
    }

    fn publish_twin(&self) -> Result<(), OpenError> {
        self.rename(&self.new_twin(), &twin::path(self.dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), OpenError> {
        self.fs.rename(from, to).map_err(|source| OpenError::io("rename", from, source))?;
        self.fs.sync_dir(self.dir).map_err(|source| OpenError::io("sync", self.dir, source))
    }

    /// Opens both places, which hold exactly `truth`, and syncs what an earlier kytx may have left unsynced.
    fn open(&self, truth: &[Frame]) -> Result<Store<'fs>, OpenError> {
        let sled = Sled::open(self.fs, self.tables, &store_path(self.dir)).map_err(|fault| match fault {
            SledFault::Busy => OpenError::Busy { dir: self.dir.to_owned() },
            other => OpenError::Store(other),
        })?;
        let read = Reading::of_pairs(&sled.pairs().map_err(OpenError::Store)?);
        // Pair check: the copy was judged, this is the original.
        if read.frames != truth {
            return Err(OpenError::damaged("the store does not read as its copy did".to_owned()));
        }
        let path = twin::path(self.dir);
        let open_twin = || {
            let mut twin = self.fs.open_append(&path)?;
            // A frame that a killed kytx wrote but did not sync is read like any other: make it durable now.
            twin.sync()?;
            self.fs.sync_dir(self.dir)?;
            Ok(twin)
        };
        let twin = open_twin().map_err(|source| OpenError::io("open", &path, source))?;
        let last = truth.last().expect("BUG: a journal has a first record");
        Ok(Store {
            fs: self.fs,
            dir: self.dir.to_owned(),
            sled,
            twin,
            head: last.head(),
            ended: matches!(last.record, Record::End { .. }),
            poisoned: false,
            returns: false,
        })
    }
}

fn with_cause(fault: &SledFault) -> String {
    match std::error::Error::source(fault) {
        Some(cause) => format!("{fault}: {cause}"),
        None => fault.to_string(),
    }
}
