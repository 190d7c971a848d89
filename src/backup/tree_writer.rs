//! Makes a tree from entries and their content, for unpacking a package and for restoring an archive.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::manifest::Entry;
use super::walk::root_join;
use crate::effect::fs::{Attrs, Fs, FsFile, Kind};
use crate::effect::tree::Context;
use crate::raw_path::RawPath;

/// Takes entries in, one after the other: parents before children, each file's content between begin and end.
pub trait Sink {
    /// An entry begins.
    fn begin(&mut self, entry: &Entry) -> io::Result<()>;
    /// The next piece of the content of a regular file.
    fn content(&mut self, chunk: &[u8]) -> io::Result<()>;
    /// The entry is complete.
    fn end(&mut self, entry: &Entry) -> io::Result<()>;
    /// The entry's content cannot be had in full: nothing is to remain of it.
    fn lose(&mut self, entry: &Entry) -> io::Result<()>;
}

/// A sink for those who only want to look.
pub struct Nowhere;

impl Sink for Nowhere {
    fn begin(&mut self, _: &Entry) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn end(&mut self, _: &Entry) -> io::Result<()> {
        Ok(())
    }

    fn lose(&mut self, _: &Entry) -> io::Result<()> {
        Ok(())
    }
}

/// What happens to a file that is complete: it is synced, or not.
pub type Closing<'a> = &'a dyn Fn(PathBuf, Box<dyn FsFile>) -> io::Result<()>;

/// Does not sync: for a scratch directory.
pub fn forget(_: PathBuf, _: Box<dyn FsFile>) -> io::Result<()> {
    Ok(())
}

/// Runs `work` with a closing that syncs every file by one of several threads, and returns once all are synced.
///
/// Several, because a file system's journal commits many at the price of one. The handle that wrote is the one that
/// is synced: a handle opened later may miss an earlier write-back error. With one thread or none everything happens
/// here, in order.
pub fn with_syncing<T, E: From<io::Error>>(
    threads: usize,
    work: impl FnOnce(Closing<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let sync = |path: PathBuf, mut file: Box<dyn FsFile>| file.sync().context("sync", &path);
    if threads <= 1 {
        return work(&sync);
    }
    let (queue, taken) = sync_channel::<(PathBuf, Box<dyn FsFile>)>(4 * threads);
    let taken = Mutex::new(taken);
    let failure = Mutex::new(None);
    let fetch_failure = || failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    let worked = thread::scope(|scope| {
        let worker = || {
            loop {
                let next = taken.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((path, file)) = next else { return };
                if let Err(error) = sync(path, file) {
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        };
        let queue = queue;
        for number in 0..threads {
            match thread::Builder::new().spawn_scoped(scope, worker) {
                // One is enough.
                Err(error) if number == 0 => return Err(error.into()),
                _ => {}
            }
        }
        work(&|path, file| {
            if let Some(error) = fetch_failure() {
                return Err(error);
            }
            queue.send((path, file)).map_err(|_| io::Error::other("BUG: the syncing threads are gone"))
        })
    })?;
    // Only now every thread has ended: what failed last must not get lost.
    fetch_failure().map_or(Ok(worked), |error| Err(error.into()))
}

/// Makes a tree under a directory that it creates.
pub struct TreeWriter<'a> {
    fs: &'a dyn Fs,
    into: &'a Path,
    closing: Closing<'a>,
    dirs: HashSet<RawPath>,
    open: Option<Box<dyn FsFile>>,
    unflushed_bytes: u64,
    owner_lost: Vec<RawPath>,
}

/// How much is written before the medium is told to start.
const WRITEBACK_BYTES: u64 = 8 << 20;

impl<'a> TreeWriter<'a> {
    /// Creates the directory, which must not exist.
    pub fn create(fs: &'a dyn Fs, into: &'a Path, closing: Closing<'a>) -> io::Result<Self> {
        fs.mkdir(into, 0o700).context("create", into)?;
        let dirs = HashSet::from([RawPath::default()]);
        Ok(Self { fs, into, closing, dirs, open: None, unflushed_bytes: 0, owner_lost: Vec::new() })
    }

    /// Gives the directories their attributes, deepest first, as what was put into them changed their times and as
    /// a read-only one could have taken nothing in. `entries` are sorted; those that are not directories are passed
    /// over. Returns the entries whose owner could not be set, as only root may give files away.
    pub fn finish(mut self, entries: &[Entry]) -> io::Result<Vec<RawPath>> {
        for entry in entries.iter().rev().filter(|entry| entry.kind == Kind::Dir) {
            if self.dirs.contains(&entry.path) {
                self.set_attrs(&root_join(self.into, &entry.path), entry)?;
            }
        }
        Ok(self.owner_lost)
    }

    /// What is above an entry and was never announced, as after damage.
    fn make_parents(&mut self, path: &RawPath) -> io::Result<()> {
        let Some(slash) = path.as_bytes().iter().rposition(|byte| *byte == b'/') else { return Ok(()) };
        let parent = RawPath::new(&path.as_bytes()[..slash]);
        if self.dirs.contains(&parent) {
            return Ok(());
        }
        self.make_parents(&parent)?;
        self.make_dir(&parent)
    }

    fn make_dir(&mut self, path: &RawPath) -> io::Result<()> {
        if self.dirs.insert(path.clone()) {
            let full = root_join(self.into, path);
            self.fs.mkdir(&full, 0o700).context("create", &full)?;
        }
        Ok(())
    }

    fn set_attrs(&mut self, full: &Path, entry: &Entry) -> io::Result<()> {
        let meta = self.fs.stat(full).context("look at", full)?;
        let mut mode = entry.mode;
        if (meta.uid, meta.gid) != (entry.uid, entry.gid) {
            let owner = Attrs { owner: Some((entry.uid, entry.gid)), ..Attrs::default() };
            match self.fs.set_attrs(full, &owner) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    self.owner_lost.push(entry.path.clone());
                    // Without the owner a setuid bit would lend the wrong rights.
                    mode &= 0o1777;
                }
                other => other.context("set the owner of", full)?,
            }
        }
        for (name, value) in &entry.xattrs {
            match self.fs.set_xattr(full, name, value) {
                // A file system without them, or a namespace for root alone: the comparison that follows says so.
                Err(error)
                    if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {}
                other => other.context("set the attributes of", full)?,
            }
        }
        let attrs = Attrs { mode: Some(mode), mtime: Some(entry.mtime), owner: None };
        self.fs.set_attrs(full, &attrs).context("set the attributes of", full)
    }
}

impl Sink for TreeWriter<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        let full = root_join(self.into, &entry.path);
        self.make_parents(&entry.path)?;
        match entry.kind {
            Kind::Dir => self.make_dir(&entry.path),
            Kind::File if entry.is_later_name() => {
                let first = entry.hard_link.as_ref().expect("BUG: a later name has a first one");
                self.fs.hard_link(&root_join(self.into, first), &full).context("link", &full)
            }
            Kind::File => {
                // 0600 until it is complete: it may hold secrets, and its mode may forbid writing.
                self.open = Some(self.fs.create(&full, 0o600).context("create", &full)?);
                self.unflushed_bytes = 0;
                Ok(())
            }
            Kind::Symlink => {
                let target = entry.target.as_ref().expect("BUG: a symbolic link has a target");
                self.fs.symlink(target.as_path(), &full).context("create", &full)
            }
            Kind::Fifo => self.fs.mkfifo(&full, 0o600).context("create", &full),
            Kind::Socket | Kind::Device => Ok(()),
        }
    }

    fn content(&mut self, chunk: &[u8]) -> io::Result<()> {
        let file = self.open.as_mut().expect("BUG: content belongs to a file that was begun");
        file.write_all(chunk)?;
        self.unflushed_bytes += chunk.len() as u64;
        if self.unflushed_bytes >= WRITEBACK_BYTES {
            file.start_writeback();
            self.unflushed_bytes = 0;
        }
        Ok(())
    }

    fn end(&mut self, entry: &Entry) -> io::Result<()> {
        let full = root_join(self.into, &entry.path);
        let has_attrs = !entry.is_later_name() && entry.kind != Kind::Dir && entry.is_archivable();
        if has_attrs {
            // Before the sync, so that it covers them.
            self.set_attrs(&full, entry)?;
        }
        match self.open.take() {
            Some(file) => (self.closing)(full, file),
            None => Ok(()),
        }
    }

    fn lose(&mut self, entry: &Entry) -> io::Result<()> {
        match self.open.take() {
            Some(_) => self.fs.unlink(&root_join(self.into, &entry.path)),
            None => Ok(()),
        }
    }
}

/// Makes the names in a tree durable: every directory, deepest first. The tree's own name is its caller's business.
pub fn sync_dirs(fs: &dyn Fs, root: &Path, entries: &[Entry]) -> io::Result<()> {
    for entry in entries.iter().rev().filter(|entry| entry.kind == Kind::Dir) {
        let full = root_join(root, &entry.path);
        fs.sync_dir(&full).context("sync", &full)?;
    }
    Ok(())
}
