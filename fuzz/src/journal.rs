//! A real journal, store and twin, through any script of appends, damage and failing calls.

use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Result, Unstructured};
use kytx::digest::Digest;
use kytx::journal::codec::VERSION;
use kytx::journal::{Frame, Head, Journal, JournalError, OpenError, Store, samples, twin};
use kytx::txn::Record;

use super::decode::forge;
use super::guarded_fs::{Fault, GuardedFs};
use super::scratch::{Scratch, entries, walk};

/// An opening copies the store, and sled makes a file of half a megabyte: more turns would only be slow.
const TURNS_MAX: usize = 24;

/// EIO, ENOSPC, EACCES, EMFILE.
const EIO: i32 = 5;
const ERRNOS: [i32; 4] = [EIO, 28, 13, 24];

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u8),
    Cut,
    ZeroSector,
    Delete,
    Garbage,
    /// A whole frame of a version to come.
    Newer,
    /// A FIFO beside the store's files, which no copy may wait for.
    Fifo,
    /// A value in a side file, which kytx never makes.
    Blob,
    /// The last frames are gone, and nothing else.
    Forget,
    /// Another journal of the same length.
    Replace,
    /// For sled the store is sound: an entry is gone, or altered, or all are gone.
    Entry(u8),
}

/// How much of the two places can still be trusted.
#[allow(clippy::struct_excessive_bools, reason = "a table of marks")]
#[derive(Clone, Copy, Debug, Default)]
struct Harm {
    store: bool,
    twin: bool,
    /// The twin may be longer than what was acknowledged, or newer, or another: a refusal is right.
    grown: bool,
    /// The twin may be another journal, which is believed where it is the only one.
    replaced: bool,
}

/// A script's progress.
struct Script<'fs> {
    fs: &'fs GuardedFs,
    dir: PathBuf,
    records: Vec<Record>,
    /// How many records were acknowledged, or found by an opening.
    acknowledged: usize,
    /// One more may be found: its append failed.
    in_flight: bool,
    harm: Harm,
    faulty: bool,
    /// Reads fail as those of a broken medium do.
    unreadable: bool,
    retiring: usize,
    store: Option<Store<'fs>>,
}

/// I9: whatever one fault does to one of its two places, an opening finds every record that was acknowledged, and no
/// other; what it cannot make good it refuses and leaves as it was. Never a panic, never an earlier past.
pub fn journal(data: &[u8]) {
    let mut source = Unstructured::new(data);
    let scratch = Scratch::new();
    let dir = scratch.path().join("state");
    fs::create_dir(&dir).expect("the scratch directory takes it");
    let ample = source.ratio(1, 4).unwrap_or(false);
    let guard = GuardedFs::new(&dir, if ample { u64::MAX } else { 0 });
    let records = match source.int_in_range(0..=2u8) {
        Ok(0) => samples::example(),
        Ok(1) => samples::aborted(),
        // In no legal order: a journal keeps what it is given.
        _ => samples::records(),
    };
    let mut script = Script {
        fs: &guard,
        dir,
        records,
        acknowledged: 0,
        in_flight: false,
        harm: Harm::default(),
        faulty: false,
        unreadable: false,
        retiring: 0,
        store: None,
    };
    for _ in 0..TURNS_MAX {
        if source.is_empty() {
            break;
        }
        match script.turn(&mut source) {
            Ok(true) => {}
            // Refused for good, or no more turns.
            Ok(false) | Err(_) => return,
        }
    }
    script.set_fault(None);
    script.open();
}

impl Script<'_> {
    /// One turn of the script. `false` if the journal is refused for good.
    fn turn(&mut self, source: &mut Unstructured<'_>) -> Result<bool> {
        match source.int_in_range(0..=16u8)? {
            0..=3 => {
                if self.store.is_none() && !self.open() {
                    return Ok(false);
                }
                self.append(usize::from(source.int_in_range(1..=12u8)?));
            }
            4 => self.append_too_long(),
            5 => self.store = None,
            6 => return Ok(self.open()),
            7..=9 => self.damage(source)?,
            10 | 11 => {
                let fault = Fault {
                    after: source.int_in_range(0..=255u32)?,
                    errno: *source.choose(&ERRNOS)?,
                    for_good: source.arbitrary()?,
                    looks: source.arbitrary()?,
                };
                self.set_fault(Some(fault));
            }
            12 => self.set_fault(None),
            13 => self.look(),
            14 => self.leave_things_behind(),
            15 => self.create_again(),
            _ => self.retire(),
        }
        Ok(true)
    }

    fn set_fault(&mut self, fault: Option<Fault>) {
        self.fs.set_fault(fault);
        self.faulty = fault.is_some();
        // A store that the medium does not give back is a damaged one: kept aside, and rebuilt from the twin.
        self.unreadable = fault.is_some_and(|fault| fault.looks && fault.errno == EIO);
    }

    /// Opens, or creates where there is none. `false` if it is refused, rightly.
    fn open(&mut self) -> bool {
        self.store = None;
        let before = content_of(&self.dir);
        match Store::open(self.fs, &self.dir) {
            // Somebody has forged both places, and nothing can tell.
            Ok(_) if self.harm.replaced && (self.harm.store || self.unreadable) => false,
            Ok(opened) => {
                let found: Vec<&Record> = opened.records.iter().map(|(_, record)| record).collect();
                let lsns = opened.records.iter().map(|(lsn, _)| lsn.0);
                assert!(lsns.eq(1..=found.len() as u64));
                let most = self.acknowledged + usize::from(self.in_flight);
                assert!(found.len() <= most, "{} records of {most}", found.len());
                assert!(
                    found.iter().zip(&self.records).all(|(ours, theirs)| *ours == theirs),
                    "another record"
                );
                let forgotten = found.len() < self.acknowledged;
                assert!(!forgotten || (self.harm.store && self.harm.twin), "forgotten: {:?}", opened.repairs);
                opened.repairs.iter().for_each(|repair| assert!(!repair.to_string().is_empty()));
                assert_eq!(opened.store.last().0, found.len() as u64);
                self.acknowledged = found.len();
                (self.in_flight, self.harm, self.retiring) = (false, Harm::default(), 0);
                self.store = Some(opened.store);
                true
            }
            Err(OpenError::NoJournal { .. }) if self.retiring > 0 || self.acknowledged == 0 => {
                self.retiring = 0;
                self.create()
            }
            Err(OpenError::NoJournal { .. }) if self.harm.store && self.harm.twin => false,
            Err(error) => self.refused(&error, &before),
        }
    }

    fn create(&mut self) -> bool {
        (self.acknowledged, self.in_flight, self.harm) = (0, true, Harm::default());
        match Store::create(self.fs, &self.dir, &self.records[0]) {
            Ok(store) => {
                (self.acknowledged, self.in_flight) = (1, false);
                self.store = Some(store);
                true
            }
            Err(error) => {
                assert!(self.faulty, "cannot create: {error:?}");
                // The script goes on: the next opening finds it or creates it. The twin is published first, so the store
                // may be missing.
                self.harm.store = true;
                true
            }
        }
    }

    /// I9: what is there is never replaced.
    fn create_again(&mut self) {
        self.store = None;
        let before = content_of(&self.dir);
        if before.is_empty() {
            return;
        }
        let error =
            Store::create(self.fs, &self.dir, &self.records[0]).err().expect("a journal was replaced");
        assert!(self.faulty || matches!(error, OpenError::Exists { .. }), "{error:?}");
        assert_eq!(content_of(&self.dir), before);
    }

    fn refused(&self, error: &OpenError, before: &[(PathBuf, Digest)]) -> bool {
        assert!(!error.to_string().is_empty());
        let damage = matches!(
            error,
            OpenError::Damaged { .. } | OpenError::Conflict { .. } | OpenError::TooNew { .. }
        );
        if damage {
            assert!(error.is_unreadable());
            assert_eq!(content_of(&self.dir), before, "refused, and changed: {error}");
        }
        let Harm { store, twin, grown, .. } = self.harm;
        assert!(self.faulty || (store && twin) || grown, "refused: {error:?}");
        self.faulty && !damage
    }

    fn append(&mut self, count: usize) {
        for _ in 0..count {
            let (Some(store), Some(record)) = (&mut self.store, self.records.get(self.acknowledged)) else {
                return;
            };
            match store.append(record) {
                Ok(lsn) => {
                    self.acknowledged += 1;
                    assert_eq!((lsn.0, store.last()), (self.acknowledged as u64, lsn));
                }
                Err(error) => {
                    assert!(self.faulty && !matches!(error, JournalError::TooLarge(_)), "{error:?}");
                    assert!(matches!(store.append(record), Err(JournalError::Poisoned)));
                    self.in_flight = true;
                    self.harm.twin = true;
                    self.store = None;
                }
            }
        }
    }

    fn append_too_long(&mut self) {
        let Some(store) = &mut self.store else { return };
        let before = content_of(&self.dir);
        let long = samples::begin_with_user(&"u".repeat(5000));
        let refused = store.append(&long);
        assert!(matches!(refused, Err(JournalError::TooLarge(_))), "{refused:?}");
        assert_eq!(content_of(&self.dir), before);
    }

    fn damage(&mut self, source: &mut Unstructured<'_>) -> Result<()> {
        // A store that is open is not damaged under sled's hands: that is a question to sled.
        self.store = None;
        let mut files: Vec<_> =
            walk(&self.dir.join("journal")).into_iter().filter(|path| path.is_file()).collect();
        files.push(self.dir.join("journal"));
        files.push(self.dir.join("journal.log"));
        files.push(self.dir.join("journal.log"));
        let path = source.choose(&files)?.clone();
        let damage = match source.int_in_range(0..=12u8)? {
            0 | 1 => Damage::Flip(source.arbitrary()?),
            2 => Damage::Cut,
            3 => Damage::ZeroSector,
            4 => Damage::Delete,
            5 => Damage::Garbage,
            6 => Damage::Newer,
            7 => Damage::Fifo,
            8 => Damage::Blob,
            9 => Damage::Forget,
            10 => Damage::Replace,
            11 => Damage::Entry(source.arbitrary()?),
            _ => Damage::Flip(0x40),
        };
        let at = usize::from(source.arbitrary::<u16>()?);
        let is_twin = path.ends_with("journal.log");
        if matches!(damage, Damage::Entry(_)) && self.harm.store {
            // sled may panic at what is damaged already, and only kytx catches that.
            return Ok(());
        }
        if !harm(&path, damage, at, is_twin) {
            return Ok(());
        }
        if is_twin {
            self.harm.twin = true;
            self.harm.grown |= matches!(damage, Damage::Garbage | Damage::Newer | Damage::Replace);
            self.harm.replaced |= matches!(damage, Damage::Replace);
        } else {
            self.harm.store = true;
        }
        Ok(())
    }

    /// I9 for those who only look: whole records from the first on, or a refusal, and nothing is touched.
    fn look(&mut self) {
        let before = content_of(&self.dir);
        match twin::read(self.fs, &self.dir) {
            Ok(view) => {
                let most = self.acknowledged + usize::from(self.in_flight);
                assert!(view.frames.len() <= most || self.harm.grown);
                let same =
                    view.frames.iter().zip(&self.records).all(|(frame, record)| frame.record == *record);
                assert!(same || self.harm.replaced, "another record");
                let trusted = !self.harm.twin && self.retiring == 0;
                assert!(!trusted || (view.frames.len() >= self.acknowledged && !view.torn_tail));
            }
            Err(OpenError::NoJournal { .. }) if self.acknowledged == 0 || self.retiring > 0 => {}
            Err(error) => {
                assert!(self.faulty || self.harm.twin || self.retiring > 0 || self.in_flight, "{error:?}");
            }
        }
        assert_eq!(content_of(&self.dir), before, "a look changed something");
    }

    /// What creations and openings that were killed leave.
    fn leave_things_behind(&mut self) {
        self.store = None;
        for name in ["journal.new", "journal.copy"] {
            let _ = fs::create_dir(self.dir.join(name));
            let _ = fs::write(self.dir.join(name).join("db"), b"part");
        }
        let _ = fs::write(self.dir.join("journal.log.part"), b"part");
        let _ = fs::write(self.dir.join("journal.log.new"), b"part");
        if self.dir.join("journal").is_dir() {
            let _ = fs::write(self.dir.join("journal/snap.00000000000000FF.generating"), b"part");
        }
    }

    fn retire(&mut self) {
        let Some(store) = self.store.take() else { return };
        let ended = matches!(self.records.get(self.acknowledged.wrapping_sub(1)), Some(Record::End { .. }));
        let into = self.dir.join("history");
        match store.retire(&into) {
            Ok(()) => {
                assert!(ended, "retired before its end");
                assert!(!self.dir.join("journal").exists() && !self.dir.join("journal.log").exists());
                (self.acknowledged, self.in_flight) = (0, false);
            }
            Err(OpenError::NotEnded { .. }) => assert!(!ended),
            Err(error) => {
                assert!(ended && self.faulty, "{error:?}");
                // The store may have been moved, and the twin not.
                (self.retiring, self.harm.store) = (self.retiring + 1, true);
            }
        }
    }
}

/// Does it, and says whether anything has changed.
fn harm(path: &Path, damage: Damage, at: usize, is_twin: bool) -> bool {
    if path.is_dir() {
        return match damage {
            Damage::Delete => fs::remove_dir_all(path).is_ok(),
            Damage::Blob => {
                let blobs = path.join("blobs");
                let _ = fs::create_dir(&blobs);
                fs::write(blobs.join("1"), b"value").is_ok()
            }
            Damage::Fifo => {
                let fifo = path.join("pipe");
                let mode = 0o600;
                kytx::effect::fs::Fs::mkfifo(&kytx::effect::os::OsFs, &fifo, mode).is_ok()
            }
            Damage::Entry(which) => alter_entry(path, which, at),
            _ => false,
        };
    }
    let Ok(mut content) = fs::read(path) else { return false };
    let before = content.clone();
    // Half a megabyte of a store is empty; its head is where things are.
    let at = at % content.len().clamp(1, 16 << 10);
    match damage {
        Damage::Flip(mask) => content.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= mask),
        Damage::Cut => content.truncate(at),
        Damage::ZeroSector => content.iter_mut().skip(at / 512 * 512).take(512).for_each(|byte| *byte = 0),
        Damage::Delete => return fs::remove_file(path).is_ok(),
        Damage::Garbage => content.extend_from_slice(&vec![at as u8; 1 + at % 600]),
        Damage::Newer if is_twin => {
            let head = twin::parse(&content).frames.last().map_or(Head::START, Frame::head);
            let frame = forge(head, VERSION + 1, [0, 1], b"what is to come");
            content.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            content.extend_from_slice(&frame);
        }
        Damage::Forget if is_twin => {
            let mut frames = twin::parse(&content).frames;
            frames.truncate(at % frames.len().max(1) + 1);
            content = twin::bytes_of(&frames);
        }
        Damage::Replace if is_twin => {
            let frames = twin::parse(&content).frames;
            content = twin::bytes_of(&other_frames(frames.len()));
        }
        Damage::Newer | Damage::Fifo | Damage::Blob | Damage::Forget | Damage::Replace | Damage::Entry(_) => {
            return false;
        }
    }
    content != before && fs::write(path, content).is_ok()
}

/// Changes what the store holds behind its back. An error or a panic of sled's is none of kytx's.
fn alter_entry(path: &Path, which: u8, at: usize) -> bool {
    if !path.ends_with("journal") || !path.join("db").is_file() {
        return false;
    }
    let alter = || {
        let db = sled::Config::new().path(path).flush_every_ms(None).open()?;
        let keys: Vec<_> = db.iter().keys().collect::<sled::Result<_>>()?;
        let Some(key) = keys.get(at % keys.len().max(1)) else { return Ok(()) };
        match which % 3 {
            0 => drop(db.remove(key)?),
            1 => drop(db.insert(key, &b"altered"[..])?),
            _ => db.clear()?,
        }
        db.flush().map(drop)
    };
    // Whatever came of it, sled has opened the store and may have changed it.
    let _ = alter();
    true
}

/// A journal of that many records that never was.
fn other_frames(count: usize) -> Vec<Frame> {
    let mut head = Head::START;
    let record = samples::begin_with_user("somebody else");
    let seal = |_| {
        let frame = Frame::seal(head, &record).expect("it is short");
        head = frame.head();
        frame
    };
    (0..count).map(seal).collect()
}

/// What every file of the two places holds.
fn content_of(dir: &Path) -> Vec<(PathBuf, Digest)> {
    let mut paths = walk(&dir.join("journal"));
    paths.extend(entries(dir).into_iter().filter(|path| path.ends_with("journal.log")));
    let content = |path: PathBuf| fs::read(&path).ok().map(|bytes| (path, Digest::of(&bytes)));
    paths.into_iter().filter(|path| path.is_file()).filter_map(content).collect()
}
