//! The machine's file system with a fence around one directory and, if wanted, a failing call.

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kytx::effect::fs::{Attrs, Fs, FsFile, Meta, Site, Xattr};
use kytx::effect::os::OsFs;

/// A call that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// How many calls pass before.
    pub after: u32,
    /// The error number.
    pub errno: i32,
    /// Every later call fails as well.
    pub for_good: bool,
    /// Looks fail too, and not only changes.
    pub looks: bool,
}

/// The file system.
pub struct GuardedFs {
    root: PathBuf,
    free_bytes: u64,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    fault: Mutex<Option<Fault>>,
    written_bytes: AtomicU64,
}

impl Inner {
    fn pass(&self, look: bool) -> io::Result<()> {
        let mut slot = self.fault.lock().expect("no holder panics");
        let Some(fault) = slot.as_mut().filter(|fault| !look || fault.looks) else { return Ok(()) };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        let errno = fault.errno;
        if !fault.for_good {
            *slot = None;
        }
        Err(io::Error::from_raw_os_error(errno))
    }
}

impl GuardedFs {
    /// Nothing may be changed but below `root`, where so much is said to be free.
    pub fn new(root: &Path, free_bytes: u64) -> Self {
        Self { root: root.to_owned(), free_bytes, inner: Arc::default() }
    }

    /// Plants a fault, or takes it away.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.inner.fault.lock().expect("no holder panics") = fault;
    }

    /// Bytes of content written so far.
    pub fn written_bytes(&self) -> u64 {
        self.inner.written_bytes.load(Ordering::Relaxed)
    }

    fn change(&self, path: &Path) -> io::Result<()> {
        let inside =
            path.starts_with(&self.root) && !path.components().any(|part| part == Component::ParentDir);
        assert!(inside, "a change outside: `{}`", path.display());
        self.inner.pass(false)
    }

    fn look(&self) -> io::Result<()> {
        self.inner.pass(true)
    }

    fn guard(&self, file: Box<dyn FsFile>) -> Box<dyn FsFile> {
        Box::new(GuardedFile { file, inner: Arc::clone(&self.inner) })
    }
}

struct GuardedFile {
    file: Box<dyn FsFile>,
    inner: Arc<Inner>,
}

impl Read for GuardedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.pass(true)?;
        self.file.read(buffer)
    }
}

impl Seek for GuardedFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Write for GuardedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.inner.pass(false) {
            // A torn write: half of it has reached the medium.
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.inner.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FsFile for GuardedFile {
    // Nothing is forced to the medium: what is fuzzed is read back from the kernel.
    fn sync_for(&mut self, _: Site) -> io::Result<()> {
        self.inner.pass(false)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.inner.pass(false)?;
        self.file.set_len(bytes)
    }

    fn start_writeback(&mut self) {}

    fn next_data(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        self.file.next_data(offset)
    }
}

impl Fs for GuardedFs {
    fn stat(&self, path: &Path) -> io::Result<Meta> {
        self.look()?;
        OsFs.stat(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.look()?;
        OsFs.list(dir)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.look()?;
        OsFs.read_link(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        self.look()?;
        OsFs.xattrs(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.look()?;
        OsFs.open(path).map(|file| self.guard(file))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.change(path)?;
        OsFs.open_append(path).map(|file| self.guard(file))
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FsFile>> {
        self.change(path)?;
        OsFs.create(path, mode).map(|file| self.guard(file))
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.change(path)?;
        OsFs.mkdir(path, mode)
    }

    fn mkfifo(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.change(path)?;
        OsFs.mkfifo(path, mode)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.change(link)?;
        OsFs.symlink(target, link)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.change(existing)?;
        self.change(link)?;
        OsFs.hard_link(existing, link)
    }

    fn set_attrs(&self, path: &Path, attrs: &Attrs) -> io::Result<()> {
        self.change(path)?;
        OsFs.set_attrs(path, attrs)
    }

    fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.change(path)?;
        OsFs.set_xattr(path, name, value)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(from)?;
        self.change(to)?;
        OsFs.rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.change(a)?;
        self.change(b)?;
        OsFs.exchange(a, b)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change(path)?;
        OsFs.unlink(path)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.change(path)?;
        OsFs.rmdir(path)
    }

    fn sync_dir_for(&self, _: &Path, _: Site) -> io::Result<()> {
        self.inner.pass(false)
    }

    fn sync_fs_for(&self, _: &Path, _: Site) -> io::Result<()> {
        self.inner.pass(false)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        self.look()?;
        Ok(self.free_bytes)
    }
}
