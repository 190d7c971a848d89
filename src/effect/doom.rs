//! Death at a chosen moment: for `kytx rehearse`, which shows on an operator's own home that any moment will do.
//!
//! A doomed run counts everything that changes the machine (each call of [`Fs`] that writes, each program it runs, each
//! record) and ends itself with SIGKILL at the entry of the n-th: n - 1 have happened or are under way, and the n-th
//! never does. Nothing is unwound and nothing is flushed, as with any other kill.

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

use super::fs::{Attrs, Fs, FsFile, Meta, Site, Timestamp, Xattr};
use super::os::OsFs;
use super::shell::{Call, Ran, Shell};

/// When to die, and how far it is.
#[derive(Debug)]
pub struct Doom {
    at: u64,
    calls: AtomicU64,
    /// How many calls there were before those that `at` counts; `u64::MAX` while that is still to come.
    from: AtomicU64,
}

impl Doom {
    /// Death at the `at`-th call after [`Doom::arm`]; 0 never comes, and only counts.
    pub fn at(at: u64) -> Self {
        Self { at, calls: AtomicU64::new(0), from: AtomicU64::new(u64::MAX) }
    }

    /// From here on the calls count towards it.
    pub fn arm(&self) {
        self.from.store(self.calls(), Ordering::SeqCst);
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// A call begins.
    pub fn call(&self) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let from = self.from.load(Ordering::SeqCst);
        if self.at > 0 && from.checked_add(self.at) == Some(number) {
            let _ = kill_process(getpid(), Signal::KILL);
            // The signal is on its way to every thread; none may get as far as the call.
            loop {
                std::thread::park();
            }
        }
    }
}

/// The machine's file system under a doom.
#[derive(Clone, Debug)]
pub struct DoomedFs(pub Arc<Doom>);

struct DoomedFile {
    file: Box<dyn FsFile>,
    doom: Arc<Doom>,
}

impl DoomedFs {
    fn doomed(&self, file: Box<dyn FsFile>) -> Box<dyn FsFile> {
        Box::new(DoomedFile { file, doom: Arc::clone(&self.0) })
    }

    fn os(&self) -> OsFs {
        self.0.call();
        OsFs
    }
}

impl Read for DoomedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for DoomedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.doom.call();
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for DoomedFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl FsFile for DoomedFile {
    fn sync_for(&mut self, site: Site) -> io::Result<()> {
        self.doom.call();
        self.file.sync_for(site)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.doom.call();
        self.file.set_len(bytes)
    }

    fn start_writeback(&mut self) {
        self.file.start_writeback();
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        self.file.next_data(offset)
    }
}

impl Fs for DoomedFs {
    fn stat(&self, path: &Path) -> io::Result<Meta> {
        OsFs.stat(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        OsFs.list(dir)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        OsFs.read_link(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        OsFs.xattrs(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        // Not counted: what is opened for reading changes nothing, and what is written later counts by itself.
        Ok(self.doomed(OsFs.open(path)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        Ok(self.doomed(OsFs.open_append(path)?))
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FsFile>> {
        Ok(self.doomed(self.os().create(path, mode)?))
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.os().mkdir(path, mode)
    }

    fn mkfifo(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.os().mkfifo(path, mode)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.os().symlink(target, link)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.os().hard_link(existing, link)
    }

    fn set_attrs(&self, path: &Path, attrs: &Attrs) -> io::Result<()> {
        self.os().set_attrs(path, attrs)
    }

    fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.os().set_xattr(path, name, value)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.os().rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.os().exchange(a, b)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.os().unlink(path)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.os().rmdir(path)
    }

    fn sync_dir_for(&self, dir: &Path, site: Site) -> io::Result<()> {
        self.os().sync_dir_for(dir, site)
    }

    fn sync_fs_for(&self, path: &Path, site: Site) -> io::Result<()> {
        self.os().sync_fs_for(path, site)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsFs.free_bytes(path)
    }

    fn born(&self, path: &Path) -> io::Result<Option<Timestamp>> {
        OsFs.born(path)
    }
}

/// A shell under a doom: it may come before a program is started, and after it has ended.
pub struct DoomedShell<'a> {
    /// What runs the programs.
    pub shell: &'a dyn Shell,
    /// When it comes.
    pub doom: &'a Doom,
}

impl Shell for DoomedShell<'_> {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        self.doom.call();
        let ran = self.shell.run(call);
        self.doom.call();
        ran
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_machine_counts_and_what_looks_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let doom = Arc::new(Doom::at(0));
        let fs = DoomedFs(Arc::clone(&doom));
        let path = dir.path().join("f");
        let mut file = fs.create(&path, 0o600).unwrap();
        file.write_all(b"x").unwrap();
        file.sync().unwrap();
        assert_eq!(doom.calls(), 3);
        fs.stat(&path).unwrap();
        fs.list(dir.path()).unwrap();
        fs.open(&path).unwrap().read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(doom.calls(), 3);
        fs.rename(&path, &dir.path().join("g")).unwrap();
        (&fs as &dyn Fs).sync_dir(dir.path()).unwrap();
        assert_eq!(doom.calls(), 5);
    }
}
