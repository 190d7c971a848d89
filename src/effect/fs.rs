//! The file system at the grain at which a crash can fall between two calls.
//!
//! Everything kytx changes goes through [`Fs`], one system call a method, so that a simulated file system can stand
//! in for it and enumerate what a crash leaves behind. Nothing here syncs on its own: durability is asked for by
//! name, with `sync`, `sync_dir` and `sync_fs`. These say where in the code they are called, so that the simulation can
//! leave out each of them in turn and show what it is there for. Functions built from these calls (an atomic
//! write, a tree copy, a tree removal) are in `effect/tree.rs`, over `&dyn Fs`.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::Location;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A point in time, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC; negative before.
    pub s: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub ns: u32,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

/// What `lstat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes allocated on the medium; less than `size` for a sparse file.
    pub allocated: u64,
    /// When the content changed.
    pub mtime: Timestamp,
    /// When content or attributes changed.
    pub ctime: Timestamp,
    /// The device that holds it.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u64,
}

/// Attributes to set on an existing entry. `None` leaves one alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attrs {
    /// Permission bits. Not settable on a symbolic link, where it is passed over.
    pub mode: Option<u32>,
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Modification time; the access time is set to the same.
    pub mtime: Option<Timestamp>,
}

/// One extended attribute: its name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Where in the code durability is asked for.
pub type Site = &'static Location<'static>;

/// An open file.
pub trait FsFile: Read + Write + Seek + Send {
    /// What `sync` does, on behalf of the place that calls it.
    fn sync_for(&mut self, site: Site) -> io::Result<()>;
    /// Sets the length; a hole is left where it grows.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;
    /// Starts writing dirty pages out, and waits for nothing. It makes nothing durable; it only makes the later
    /// `sync` short. A file system that cannot do it does nothing.
    fn start_writeback(&mut self);
    /// The next range at or after `offset` that holds data, as start and end; `None` at the end of the file. A file
    /// system without holes answers with all that is left.
    fn next_data(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>>;
}

impl dyn FsFile + '_ {
    /// Forces content, length and attributes to the medium (`fsync`).
    #[track_caller]
    pub fn sync(&mut self) -> io::Result<()> {
        self.sync_for(Location::caller())
    }
}

/// The file system. Object-safe and shareable between threads; paths are never followed through a final symbolic
/// link.
pub trait Fs: Sync {
    /// `lstat`.
    fn stat(&self, path: &Path) -> io::Result<Meta>;
    /// The names in a directory, without `.` and `..`, sorted by their bytes.
    fn list(&self, dir: &Path) -> io::Result<Vec<std::ffi::OsString>>;
    /// Where a symbolic link points.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// The extended attributes, sorted by name. None where the file system has none.
    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>>;
    /// Opens an existing regular file for reading. Never blocks on a FIFO and never follows a link.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Opens an existing regular file for appending.
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>>;
    /// Creates a file that must not exist (`O_EXCL`), with this mode whatever the umask.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FsFile>>;
    /// Creates a directory that must not exist, with this mode whatever the umask.
    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Creates a FIFO that must not exist.
    fn mkfifo(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Creates a symbolic link that must not exist.
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;
    /// Creates another name for a file.
    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()>;
    /// Sets attributes, owner first (it clears setuid), then mode, then times.
    fn set_attrs(&self, path: &Path, attrs: &Attrs) -> io::Result<()>;
    /// Sets one extended attribute.
    fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> io::Result<()>;
    /// Renames, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Swaps two names in one act (`RENAME_EXCHANGE`). `Unsupported` where kernel or file system cannot.
    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()>;
    /// Removes a name that is not a directory.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &Path) -> io::Result<()>;
    /// What `sync_dir` does, on behalf of the place that calls it.
    fn sync_dir_for(&self, dir: &Path, site: Site) -> io::Result<()>;
    /// What `sync_fs` does, on behalf of the place that calls it.
    fn sync_fs_for(&self, path: &Path, site: Site) -> io::Result<()>;
    /// Bytes that an unprivileged process can still use on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Makes a file that must not exist, with the content of another and room shared with it until one is written
    /// (`FICLONE`). `Unsupported` where the file system cannot; no file is left then.
    fn reflink(&self, existing: &Path, copy: &Path) -> io::Result<()> {
        let _ = (existing, copy);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// When the inode was made: with its number it names an inode for good, as numbers of removed ones are given
    /// again. `None` where kernel (`statx`, Linux 4.11) or file system does not say.
    fn born(&self, path: &Path) -> io::Result<Option<Timestamp>> {
        self.stat(path).map(|_| None)
    }
}

impl dyn Fs + '_ {
    /// Forces a directory's names to the medium.
    #[track_caller]
    pub fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.sync_dir_for(dir, Location::caller())
    }

    /// Forces the whole file system that holds `path` to the medium. `Unsupported` where errors of earlier writes
    /// would not be reported (`syncfs` before Linux 5.8): sync file by file then.
    #[track_caller]
    pub fn sync_fs(&self, path: &Path) -> io::Result<()> {
        self.sync_fs_for(path, Location::caller())
    }
}

/// Whether anything has this name.
pub fn exists(fs: &dyn Fs, path: &Path) -> io::Result<bool> {
    Ok(stat_opt(fs, path)?.is_some())
}

/// `lstat`, with `None` for a name that is not there.
pub fn stat_opt(fs: &dyn Fs, path: &Path) -> io::Result<Option<Meta>> {
    match fs.stat(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads the end of a file that may be growing, as text: from the byte `from` on, and at most its last `limit_bytes`. What is
/// not UTF-8 is replaced.
pub fn read_end(fs: &dyn Fs, path: &Path, from: u64, limit_bytes: u64) -> io::Result<String> {
    let end = fs.stat(path)?.size;
    let mut file = fs.open(path)?;
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(limit_bytes))))?;
    let mut text = Vec::new();
    file.take(limit_bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads a whole regular file of at most `limit_bytes`; a longer one is an error, never cut.
pub fn read_file(fs: &dyn Fs, path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs.open(path)?.take(limit_bytes + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("`{}` is longer than {limit_bytes} bytes", path.display()),
        ));
    }
    Ok(content)
}
