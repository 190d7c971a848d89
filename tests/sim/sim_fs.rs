//! A file system in memory that writes down every change, so that it can be told what a power cut leaves of them.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use kytx::effect::fs::{Attrs, Fs, FsFile, Kind, Meta, Site, Timestamp, Xattr};

use crate::disk::{Database, Image, Ino, Op};
use crate::volume::{Core, ELOOP, error};
pub use crate::volume::{Lacking, Logged, Place};

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct SimFs(Arc<Mutex<Core>>);

/// Less than what makes an opening of the journal renew its ballast.
const FREE_BYTES: u64 = 32 << 20;

impl SimFs {
    /// Mounts what a disk holds. Every boot has times of its own.
    pub fn mount(image: Image, lacking: Lacking, deaf_to: Vec<Place>, boot: i64) -> Self {
        Self(Arc::new(Mutex::new(Core::new(image, lacking, deaf_to, boot))))
    }

    /// The same machine after a process has died and the power has not: `log` is still on its way to the medium.
    pub fn revive(base: &Image, log: &[Logged], lacking: Lacking, deaf_to: Vec<Place>, boot: i64) -> Self {
        let fs = Self::mount(base.clone(), lacking, deaf_to, boot);
        {
            let mut core = fs.core();
            for (op, time) in log {
                core.image.apply(op, *time);
            }
            core.log = log.to_vec();
        }
        fs
    }

    /// What is behind it.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap()
    }

    /// Time goes by, and everything has reached the medium.
    pub fn settle(&self) {
        self.core().log.push((Op::SyncAll, Timestamp::default()));
    }

    /// The product's database.
    pub fn database(&self) -> Database {
        self.core().image.database.as_ref().clone()
    }

    /// The product's database commits.
    pub fn commit(&self, database: Database) {
        self.core().change(Op::Commit(Arc::new(database)));
    }
}

struct SimFile {
    fs: SimFs,
    ino: Ino,
    at: u64,
    appends: bool,
}

impl Read for SimFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fs.core().image.node(self.ino).content.read(self.at, buffer);
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut core = self.fs.core();
        if self.appends {
            self.at = core.image.node(self.ino).content.size;
        }
        core.change(Op::Write(self.ino, self.at, Arc::new(bytes.to_vec())));
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SimFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let size = self.fs.core().image.node(self.ino).content.size;
        self.at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        }
        .ok_or_else(|| error(ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

impl FsFile for SimFile {
    fn sync_for(&mut self, site: Site) -> io::Result<()> {
        self.fs.core().force(Op::SyncFile(self.ino), site);
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        let mut core = self.fs.core();
        if core.image.node(self.ino).content.size != bytes {
            core.change(Op::Len(self.ino, bytes));
        }
        Ok(())
    }

    fn start_writeback(&mut self) {}

    fn next_data(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        Ok(self.fs.core().image.node(self.ino).content.next_data(offset))
    }
}

impl SimFs {
    fn handle(&self, ino: Ino, appends: bool) -> Box<dyn FsFile> {
        Box::new(SimFile { fs: self.clone(), ino, at: 0, appends })
    }

    fn open_file(&self, path: &Path, appends: bool) -> io::Result<Box<dyn FsFile>> {
        let (ino, kind) = {
            let core = self.core();
            let (ino, node) = core.node(path)?;
            (ino, node.kind)
        };
        match kind {
            Kind::File => Ok(self.handle(ino, appends)),
            Kind::Dir => Err(error(ErrorKind::IsADirectory)),
            Kind::Symlink => Err(io::Error::from_raw_os_error(ELOOP)),
            _ => Err(error(ErrorKind::InvalidInput)),
        }
    }
}

impl Fs for SimFs {
    fn stat(&self, path: &Path) -> io::Result<Meta> {
        let core = self.core();
        let (ino, node) = core.node(path)?;
        let (size, allocated) = match node.kind {
            Kind::File => (node.content.size, node.content.allocated()),
            Kind::Symlink => (node.target.len() as u64, 0),
            _ => (BLOCK_OF_NAMES, BLOCK_OF_NAMES),
        };
        Ok(Meta {
            kind: node.kind,
            mode: node.mode,
            uid: node.owner.0,
            gid: node.owner.1,
            size,
            allocated,
            mtime: node.mtime,
            ctime: node.ctime,
            dev: 1,
            ino,
            nlink: node.nlink,
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let core = self.core();
        let (_, node) = core.node(dir)?;
        if node.kind != Kind::Dir {
            return Err(error(ErrorKind::NotADirectory));
        }
        Ok(node.names.keys().cloned().collect())
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let core = self.core();
        let (_, node) = core.node(path)?;
        if node.kind != Kind::Symlink {
            return Err(error(ErrorKind::InvalidInput));
        }
        Ok(PathBuf::from(&node.target))
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        let core = self.core();
        Ok(core.node(path)?.1.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.open_file(path, false)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        self.open_file(path, true)
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FsFile>> {
        let ino = self.core().make(path, Kind::File, mode, Path::new(""))?;
        Ok(self.handle(ino, false))
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.core().make(path, Kind::Dir, mode, Path::new("")).map(drop)
    }

    fn mkfifo(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.core().make(path, Kind::Fifo, mode, Path::new("")).map(drop)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.core().make(link, Kind::Symlink, 0o777, target).map(drop)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        let mut core = self.core();
        let (ino, node) = core.node(existing)?;
        let (dir, name) = core.free_place(link)?;
        if node.kind == Kind::Dir {
            return Err(error(ErrorKind::PermissionDenied));
        }
        core.give(dir, name, ino);
        Ok(())
    }

    fn set_attrs(&self, path: &Path, attrs: &Attrs) -> io::Result<()> {
        let mut core = self.core();
        let (ino, node) = core.node(path)?;
        let mut attrs = attrs.clone();
        if node.kind == Kind::Symlink {
            attrs.mode = None;
        }
        core.change(Op::Attrs(ino, attrs));
        Ok(())
    }

    fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
        let mut core = self.core();
        let ino = core.find(path)?;
        core.change(Op::Xattr(ino, name.to_vec(), value.to_vec()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.core().rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.core().exchange(a, b)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.core().remove(path, false)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.core().remove(path, true)
    }

    fn sync_dir_for(&self, dir: &Path, site: Site) -> io::Result<()> {
        let mut core = self.core();
        let ino = core.find(dir)?;
        core.force(Op::SyncDir(ino), site);
        Ok(())
    }

    fn sync_fs_for(&self, path: &Path, site: Site) -> io::Result<()> {
        let mut core = self.core();
        core.find(path)?;
        if core.lacking.sync_fs {
            return Err(error(ErrorKind::Unsupported));
        }
        core.force(Op::SyncAll, site);
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(FREE_BYTES)
    }

    fn born(&self, path: &Path) -> io::Result<Option<Timestamp>> {
        Ok(Some(self.core().node(path)?.1.born))
    }
}

/// What a directory takes.
const BLOCK_OF_NAMES: u64 = 4096;
