//! The machine's file system with an accident at a counted call.

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kytx::effect::fs::{Attrs, Fs, FsFile, Meta, Site, Xattr};
use kytx::effect::os::OsFs;

/// What happens at a call that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accident {
    /// Nothing.
    None,
    /// From this call on, counted from 0, nothing happens any more: the process is gone. A write that is the first to
    /// fail leaves half of its bytes behind.
    DeadFrom(usize),
    /// This call fails with this error number, and the next ones work.
    Error(usize, i32),
    /// Nothing may be changed at all.
    ReadOnly,
}

/// One call that changed something, or failed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The method's name.
    pub call: &'static str,
    /// What it changed; of two names, the one that is new.
    pub path: PathBuf,
    /// Whether it was performed.
    pub performed: bool,
}

/// What kernel and file system cannot do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// `RENAME_EXCHANGE`.
    pub exchange: bool,
    /// A `syncfs` that reports errors.
    pub sync_fs: bool,
}

/// The file system.
#[derive(Clone)]
pub struct FaultFs {
    accident: Accident,
    lacking: Lacking,
    made: Arc<Mutex<Vec<Made>>>,
}

impl FaultFs {
    /// With this accident.
    pub fn new(accident: Accident, lacking: Lacking) -> Self {
        Self { accident, lacking, made: Arc::default() }
    }

    /// Every call so far that changes something.
    pub fn made(&self) -> Vec<Made> {
        self.made.lock().unwrap().clone()
    }

    /// The calls that an accident prevented.
    pub fn prevented(&self) -> Vec<Made> {
        self.made().into_iter().filter(|made| !made.performed).collect()
    }

    fn admit(&self, call: &'static str, path: &Path) -> io::Result<()> {
        let mut made = self.made.lock().unwrap();
        let number = made.len();
        let error = match self.accident {
            Accident::DeadFrom(from) if number >= from => Some(io::Error::other("the process is gone")),
            Accident::Error(at, errno) if number == at => Some(io::Error::from_raw_os_error(errno)),
            Accident::ReadOnly => panic!("a look changed something: {call} `{}`", path.display()),
            Accident::None | Accident::DeadFrom(_) | Accident::Error(..) => None,
        };
        made.push(Made { call, path: path.to_owned(), performed: error.is_none() });
        error.map_or(Ok(()), Err)
    }

    fn is_first_failure(&self) -> bool {
        self.prevented().len() == 1
    }

    fn open(&self, path: &Path, file: Box<dyn FsFile>) -> Box<dyn FsFile> {
        Box::new(FaultFile { fs: self.clone(), path: path.to_owned(), file })
    }
}

struct FaultFile {
    fs: FaultFs,
    path: PathBuf,
    file: Box<dyn FsFile>,
}

impl Read for FaultFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for FaultFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Write for FaultFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.fs.admit("write", &self.path) {
            if self.fs.is_first_failure() {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        // In full, so that the count of calls does not depend on the kernel's mood.
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl FsFile for FaultFile {
    fn sync_for(&mut self, _: Site) -> io::Result<()> {
        self.fs.admit("sync", &self.path)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.fs.admit("set_len", &self.path)?;
        self.file.set_len(bytes)
    }

    fn start_writeback(&mut self) {}

    fn next_data(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        self.file.next_data(offset)
    }
}

impl Fs for FaultFs {
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
        OsFs.open(path).map(|file| self.open(path, file))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.admit("open_append", path)?;
        OsFs.open_append(path).map(|file| self.open(path, file))
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FsFile>> {
        self.admit("create", path)?;
        OsFs.create(path, mode).map(|file| self.open(path, file))
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.admit("mkdir", path)?;
        OsFs.mkdir(path, mode)
    }

    fn mkfifo(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.admit("mkfifo", path)?;
        OsFs.mkfifo(path, mode)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.admit("symlink", link)?;
        OsFs.symlink(target, link)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        self.admit("hard_link", link)?;
        OsFs.hard_link(existing, link)
    }

    fn set_attrs(&self, path: &Path, attrs: &Attrs) -> io::Result<()> {
        self.admit("set_attrs", path)?;
        OsFs.set_attrs(path, attrs)
    }

    fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
        self.admit("set_xattr", path)?;
        OsFs.set_xattr(path, name, value)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.admit("rename", to)?;
        OsFs.rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        if self.lacking.exchange {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.admit("exchange", a)?;
        OsFs.exchange(a, b)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.admit("unlink", path)?;
        OsFs.unlink(path)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.admit("rmdir", path)?;
        OsFs.rmdir(path)
    }

    // Nothing is forced to the medium here: it costs time, and what these tests look at is what the kernel shows.
    fn sync_dir_for(&self, dir: &Path, _: Site) -> io::Result<()> {
        self.admit("sync_dir", dir)
    }

    fn sync_fs_for(&self, path: &Path, _: Site) -> io::Result<()> {
        if self.lacking.sync_fs {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.admit("sync_fs", path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        OsFs.free_bytes(path)
    }
}
