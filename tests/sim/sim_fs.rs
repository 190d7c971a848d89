//! A file system in memory that writes down every change, so that it can be told what a power cut leaves of them.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use kytx::effect::fs::{Attrs, Fs, FsFile, Kind, Meta, Site, Timestamp, Xattr};

use crate::disk::{Database, Image, Ino, Node, Op, Put, ROOT};

/// What the file system cannot do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// `RENAME_EXCHANGE`.
    pub exchange: bool,
    /// A `syncfs` that reports errors.
    pub sync_fs: bool,
}

/// Where in the code durability is asked for: file and line.
pub type Place = (String, u32);

/// One change, with its time.
pub type Logged = (Op, Timestamp);

/// The file system. Clones are the same one.
#[derive(Clone)]
pub struct SimFs(Arc<Mutex<Core>>);

/// What is behind it.
pub struct Core {
    /// What a running system sees.
    pub image: Image,
    /// Every change since it was mounted.
    pub log: Vec<Logged>,
    /// The places that have asked for durability.
    pub asked: BTreeSet<Place>,
    lacking: Lacking,
    /// The place whose requests are swallowed.
    deaf_to: Option<Place>,
    clock: i64,
    /// The number of the inode made last. Those free at the boot are given again first, as real file systems do.
    last: Ino,
}

/// Less than what makes an opening of the journal renew its ballast.
const FREE_BYTES: u64 = 32 << 20;

impl SimFs {
    /// Mounts what a disk holds. Every boot has times of its own.
    pub fn mount(image: Image, lacking: Lacking, deaf_to: Option<Place>, boot: i64) -> Self {
        let clock = 1_500_000_000 + boot * 1_000_000;
        let (log, asked) = (Vec::new(), BTreeSet::new());
        Self(Arc::new(Mutex::new(Core { image, log, asked, lacking, deaf_to, clock, last: ROOT })))
    }

    /// What is behind it.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap()
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

fn error(kind: ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl Core {
    fn tick(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { s: self.clock, ns: 7 }
    }

    /// Performs a change, and writes it down.
    pub fn change(&mut self, op: Op) {
        let time = self.tick();
        self.image.apply(&op, time);
        self.log.push((op, time));
    }

    fn force(&mut self, op: Op, site: Site) {
        let place = (site.file().to_owned(), site.line());
        let heard = self.deaf_to.as_ref() != Some(&place);
        self.asked.insert(place);
        if heard {
            self.log.push((op, Timestamp::default()));
        }
    }

    /// The inode behind a path, whose last component is not followed.
    fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut above = Vec::new();
        let mut at = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir => at = above.pop().unwrap_or(ROOT),
                Component::Normal(name) => {
                    let node = self.image.node(at);
                    if node.kind != Kind::Dir {
                        return Err(error(ErrorKind::NotADirectory));
                    }
                    above.push(at);
                    at = *node.names.get(name).ok_or_else(|| error(ErrorKind::NotFound))?;
                }
                Component::Prefix(_) => unreachable!("BUG: no such paths here"),
            }
        }
        Ok(at)
    }

    fn node(&self, path: &Path) -> io::Result<(Ino, &Node)> {
        let ino = self.find(path)?;
        Ok((ino, self.image.node(ino)))
    }

    /// The directory that holds a name, and the name.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Ino, &'p OsStr)> {
        let (dir, node) = self.node(path.parent().unwrap_or(Path::new("/")))?;
        if node.kind != Kind::Dir {
            return Err(error(ErrorKind::NotADirectory));
        }
        Ok((dir, path.file_name().ok_or_else(|| error(ErrorKind::InvalidInput))?))
    }

    fn free_place<'p>(&self, path: &'p Path) -> io::Result<(Ino, &'p OsStr)> {
        let (dir, name) = self.place(path)?;
        if self.image.node(dir).names.contains_key(name) {
            return Err(error(ErrorKind::AlreadyExists));
        }
        Ok((dir, name))
    }

    fn give(&mut self, dir: Ino, name: &OsStr, ino: Ino) {
        self.change(Op::Names(vec![Put { dir, name: name.to_owned(), now: Some(ino) }], vec![ino]));
    }

    fn make(&mut self, path: &Path, kind: Kind, mode: u32, target: &Path) -> io::Result<Ino> {
        let (dir, name) = self.free_place(path)?;
        while self.image.nodes.contains_key(&self.last) {
            self.last += 1;
        }
        let ino = self.last;
        let mut node = Node::new(kind, mode & 0o7777, self.tick());
        node.target = target.as_os_str().to_owned();
        self.change(Op::Make(ino, Arc::new(node)));
        self.give(dir, name, ino);
        Ok(ino)
    }

    fn remove(&mut self, path: &Path, dir_wanted: bool) -> io::Result<()> {
        let (ino, node) = self.node(path)?;
        match (node.kind == Kind::Dir, dir_wanted) {
            (true, false) => return Err(error(ErrorKind::IsADirectory)),
            (false, true) => return Err(error(ErrorKind::NotADirectory)),
            (true, true) if !node.names.is_empty() => return Err(error(ErrorKind::DirectoryNotEmpty)),
            _ => {}
        }
        let (dir, name) = self.place(path)?;
        self.change(Op::Names(vec![Put { dir, name: name.to_owned(), now: None }], vec![ino]));
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.find(from)?;
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        if let Some(&there) = self.image.node(to_dir).names.get(to_name) {
            let (moved, there) = (self.image.node(ino), self.image.node(there));
            match (moved.kind == Kind::Dir, there.kind == Kind::Dir) {
                (true, false) => return Err(error(ErrorKind::NotADirectory)),
                (false, true) => return Err(error(ErrorKind::IsADirectory)),
                (true, true) if !there.names.is_empty() => return Err(error(ErrorKind::DirectoryNotEmpty)),
                _ => {}
            }
        }
        let puts = vec![
            Put { dir: from_dir, name: from_name.to_owned(), now: None },
            Put { dir: to_dir, name: to_name.to_owned(), now: Some(ino) },
        ];
        self.change(Op::Names(puts, vec![ino]));
        Ok(())
    }

    fn exchange(&mut self, a: &Path, b: &Path) -> io::Result<()> {
        if self.lacking.exchange {
            return Err(error(ErrorKind::Unsupported));
        }
        let (ino_a, ino_b) = (self.find(a)?, self.find(b)?);
        let ((dir_a, name_a), (dir_b, name_b)) = (self.place(a)?, self.place(b)?);
        let puts = vec![
            Put { dir: dir_a, name: name_a.to_owned(), now: Some(ino_b) },
            Put { dir: dir_b, name: name_b.to_owned(), now: Some(ino_a) },
        ];
        self.change(Op::Names(puts, vec![ino_a, ino_b]));
        Ok(())
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
        self.fs.core().force(Op::SyncFile(self.ino, site), site);
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
        if node.kind == Kind::Dir {
            return Err(error(ErrorKind::PermissionDenied));
        }
        let (dir, name) = core.free_place(link)?;
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
        core.force(Op::SyncDir(ino, site), site);
        Ok(())
    }

    fn sync_fs_for(&self, path: &Path, site: Site) -> io::Result<()> {
        let mut core = self.core();
        core.find(path)?;
        if core.lacking.sync_fs {
            return Err(error(ErrorKind::Unsupported));
        }
        core.force(Op::SyncAll(site), site);
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
