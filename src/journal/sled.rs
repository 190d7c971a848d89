//! The store: sled, made durable and kept from doing harm. The only file that knows sled.
//!
//! sled 0.34.7 by itself is not fit for a write-ahead log: `flush` never syncs, an unfinished snapshot makes a store
//! unopenable, damage reads as an earlier past or as a panic. `journal-format.md` 8 and 15 say what is done about it.

use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, Instant};

use super::codec::Frame;
use super::decide::Pair;
use crate::effect::fs::{Fs, FsFile, Kind, exists, read_file};

/// sled frees its own lock some time after the last handle is dropped.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// No store is longer: 65,535 steps in full-length frames are about a third of it.
const FILE_LIMIT_BYTES: u64 = 1 << 30;

/// Why the store could not do something. After it the handle is dead.
#[derive(Debug, thiserror::Error)]
pub enum SledFault {
    /// Another process has the store open, although kytx's own lock is held.
    #[error("the store is open in another process")]
    Busy,
    /// The file system refused.
    #[error("cannot {doing} the store")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// sled found damage, or panicked.
    #[error("cannot {doing} the store: {what}")]
    Broken {
        /// What was tried.
        doing: &'static str,
        /// What sled said.
        what: String,
    },
}

/// What of sled is used: the seam at which a simulated one, on a simulated file system, stands in for it. Whatever
/// makes it durable is on this side of the seam.
pub trait Tables: Sync {
    /// Opens the table in a directory, making an empty one where there is none. It writes there, and syncs nothing that
    /// can be relied on.
    fn open(&self, path: &Path) -> Result<Box<dyn Table>, SledFault>;
}

/// An open table. Dropping it closes it.
pub trait Table: Send {
    /// Everything in it, in the order of the keys.
    fn pairs(&self) -> Result<Vec<Pair>, SledFault>;
    /// Adds pairs and hands them to the kernel. They are not durable then.
    fn add(&self, pairs: &[Pair]) -> Result<(), SledFault>;
}

/// The real sled.
pub(super) struct SledTables;

struct SledTable(Option<::sled::Db>);

impl SledTable {
    fn db(&self) -> &::sled::Db {
        self.0.as_ref().expect("BUG: the store is open until it is dropped")
    }
}

impl Tables for SledTables {
    fn open(&self, path: &Path) -> Result<Box<dyn Table>, SledFault> {
        Ok(Box::new(SledTable(Some(open_patiently(path)?))))
    }
}

impl Table for SledTable {
    fn pairs(&self) -> Result<Vec<Pair>, SledFault> {
        let db = self.db();
        guarded("read", || {
            db.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
        })
    }

    fn add(&self, pairs: &[Pair]) -> Result<(), SledFault> {
        let db = self.db();
        guarded("append to", || {
            for (key, value) in pairs {
                db.insert(key, &value[..])?;
            }
            db.flush().map(drop)
        })
    }
}

impl Drop for SledTable {
    fn drop(&mut self) {
        // sled syncs in its own drop and panics if that fails. What matters has been synced; the rest is repeated
        // at the next open.
        let db = self.0.take();
        let _ = guarded("close", || {
            drop(db);
            Ok(())
        });
    }
}

/// An open store.
pub(super) struct Sled {
    table: Box<dyn Table>,
    /// kytx's own descriptor of sled's `db` file, held open so that no write-back error is missed.
    file: Box<dyn FsFile>,
}

impl Sled {
    /// Opens the store in `path`, making an empty one where there is none, and syncs whatever sled wrote. The caller
    /// holds kytx's lock.
    pub(super) fn open(fs: &dyn Fs, tables: &dyn Tables, path: &Path) -> Result<Self, SledFault> {
        let io = |doing| move |source| SledFault::Io { doing, source };
        remove_unfinished_snapshots(fs, path).map_err(io("clear"))?;
        let table = tables.open(path)?;
        let store = Self { table, file: fs.open(&path.join("db")).map_err(io("open"))? };
        sync_store(fs, path).map_err(io("sync"))?;
        let blobs = path.join("blobs");
        if exists(fs, &blobs).map_err(io("list"))? && !fs.list(&blobs).map_err(io("list"))?.is_empty() {
            return Err(SledFault::Broken { doing: "use", what: "its `blobs` is not empty".to_owned() });
        }
        Ok(store)
    }

    /// Everything in it, in the order of the keys.
    pub(super) fn pairs(&self) -> Result<Vec<Pair>, SledFault> {
        self.table.pairs()
    }

    /// Adds frames and returns once they are durable.
    pub(super) fn append<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a Frame>,
    ) -> Result<(), SledFault> {
        let pairs: Vec<Pair> =
            frames.into_iter().map(|frame| (frame.key().to_vec(), frame.value().to_vec())).collect();
        self.table.add(&pairs)?;
        // sled's flush ends in sync_file_range, which syncs neither length nor allocation nor the disk's cache.
        self.file.sync().map_err(|source| SledFault::Io { doing: "sync", source })
    }
}

/// Which side of a copy failed.
pub(super) enum CopyFault {
    /// The store cannot be read.
    Read(std::io::Error),
    /// The copy cannot be written.
    Write(std::io::Error),
}

/// Copies a store to `to`, so that it can be judged without being changed: opening a damaged one cuts it.
pub(super) fn copy_for_judgement(fs: &dyn Fs, from: &Path, to: &Path) -> Result<(), CopyFault> {
    fs.mkdir(to, 0o700).map_err(CopyFault::Write)?;
    for name in fs.list(from).map_err(CopyFault::Read)? {
        let (source, target) = (from.join(&name), to.join(&name));
        match fs.stat(&source).map_err(CopyFault::Read)?.kind {
            Kind::Dir => copy_for_judgement(fs, &source, &target)?,
            Kind::File => {
                let content = read_file(fs, &source, FILE_LIMIT_BYTES).map_err(CopyFault::Read)?;
                let mut copy = fs.create(&target, 0o600).map_err(CopyFault::Write)?;
                copy.write_all(&content).map_err(CopyFault::Write)?;
            }
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Device => {}
        }
    }
    Ok(())
}

/// Syncs every file of the store and its directories: sled syncs no directory ever. The store's own name is synced by
/// whoever gives it.
pub(super) fn sync_store(fs: &dyn Fs, path: &Path) -> std::io::Result<()> {
    for name in fs.list(path)? {
        let child = path.join(name);
        match fs.stat(&child)?.kind {
            Kind::File => fs.open(&child)?.sync()?,
            Kind::Dir => fs.sync_dir(&child)?,
            Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Device => {}
        }
    }
    fs.sync_dir(path)
}

/// A kill while sled renews its snapshot leaves `snap.N.generating`, which no later open survives.
fn remove_unfinished_snapshots(fs: &dyn Fs, path: &Path) -> std::io::Result<()> {
    if !exists(fs, path)? {
        return Ok(());
    }
    for name in fs.list(path)? {
        let text = name.to_string_lossy();
        if text.starts_with("snap.") && text.ends_with(".generating") {
            fs.unlink(&path.join(name))?;
        }
    }
    Ok(())
}

fn open_patiently(path: &Path) -> Result<::sled::Db, SledFault> {
    // sled's reading and writing wait for ever where not one of its threads could be started.
    let trial = std::thread::Builder::new().spawn(|| ());
    let _ = trial.map_err(|source| SledFault::Io { doing: "start a thread for", source })?.join();
    let start = Instant::now();
    loop {
        // No background flusher: every append is synced here, so it would only add a thread.
        let config = ::sled::Config::new().path(path).flush_every_ms(None);
        match guarded("open", || config.open()) {
            Err(SledFault::Io { source, .. }) if source.to_string().contains("could not acquire lock") => {
                if start.elapsed() > LOCK_WAIT {
                    return Err(SledFault::Busy);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Runs a call of sled's; an error or a panic in it becomes a fault.
fn guarded<T>(doing: &'static str, call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, SledFault> {
    install_quiet_hook();
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(false);
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(::sled::Error::Io(source))) => Err(SledFault::Io { doing, source: restored(source) }),
        Ok(Err(other)) => Err(SledFault::Broken { doing, what: other.to_string() }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(SledFault::Broken { doing, what: text.unwrap_or_else(|| "sled panicked".to_owned()) })
        }
    }
}

/// sled keeps the first error that it meets, and hands out copies, in which the error number is only text
/// (`Os { code: 28, kind: ...`).
fn restored(error: std::io::Error) -> std::io::Error {
    let text = error.to_string();
    let number = text.strip_prefix("Os { code: ").and_then(|rest| rest.split(',').next()?.parse().ok());
    number.filter(|_| error.raw_os_error().is_none()).map_or(error, std::io::Error::from_raw_os_error)
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A panic that is caught and reported as a fault must not also print a backtrace at the operator.
fn install_quiet_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                previous(info);
            }
        }));
    });
}
