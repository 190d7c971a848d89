//! The real file system: the only place that calls it for writing.

#![allow(clippy::disallowed_methods)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    self as sys, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, StatxFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::{Errno, retry_on_intr};

use super::fs::{Attrs, Fs, FsFile, Kind, Meta, Site, Timestamp, Xattr};

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFs;

struct OsFile(File);

impl Read for OsFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        unless_interrupted(|| self.0.read(buffer))
    }
}

impl Write for OsFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        unless_interrupted(|| self.0.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for OsFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

impl FsFile for OsFile {
    fn sync_for(&mut self, _: Site) -> io::Result<()> {
        // fsync, not fdatasync: a file that is carried also has times and modes to keep.
        self.0.sync_all()
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn start_writeback(&mut self) {
        // rustix has no sync_file_range; POSIX_FADV_DONTNEED starts write-back of dirty pages on Linux, and the
        // clean ones that it drops are of a file that nobody reads again soon.
        let _ = sys::fadvise(&self.0, 0, None, sys::Advice::DontNeed);
    }

    fn next_data(&mut self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let length = self.0.metadata()?.len();
        if offset >= length {
            return Ok(None);
        }
        match sys::seek(&self.0, sys::SeekFrom::Data(offset)) {
            Ok(start) => {
                let end = sys::seek(&self.0, sys::SeekFrom::Hole(start))?;
                Ok(Some((start, end)))
            }
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(Some((offset, length))),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "the widths differ between architectures")]
fn meta_of(stat: &sys::Stat) -> Meta {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::Device,
    };
    let time = |s, ns| Timestamp { s: s as i64, ns: ns as u32 };
    Meta {
        kind,
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u64,
        allocated: stat.st_blocks as u64 * 512,
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        nlink: stat.st_nlink as u64,
    }
}

fn mode_of(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

fn open_with(path: &Path, flags: OFlags) -> io::Result<Box<dyn FsFile>> {
    // O_NONBLOCK: opening a FIFO that nobody writes to must fail, not hang.
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(retry_on_intr(|| sys::open(path, flags, Mode::empty()))?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(Box::new(OsFile(file)))
}

/// Makes a call again that a signal interrupted: it has done nothing, and nothing is wrong. A hard NFS mount and FUSE
/// let signals through where a local disk does not.
fn unless_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads a value of unknown length: asks for the length, then reads, again if it grew in between. The question for the
/// length is a call of its own: rustix takes an empty buffer for one that nothing is to be put into.
fn read_growing(
    query: impl Fn() -> rustix::io::Result<usize>,
    call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    loop {
        let needed = query()?;
        let mut value = vec![0; needed];
        if needed == 0 {
            return Ok(value);
        }
        match call(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
}

impl Fs for OsFs {
    fn stat(&self, path: &Path) -> io::Result<Meta> {
        Ok(meta_of(&sys::lstat(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in unless_interrupted(|| std::fs::read_dir(dir))? {
            names.push(entry?.file_name());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::read_link(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<Xattr>> {
        let names = match read_growing(|| sys::llistxattr_query(path), |buffer| sys::llistxattr(path, buffer))
        {
            Ok(names) => names,
            Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut found = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let key = std::ffi::OsStr::from_bytes(name);
            match read_growing(|| sys::lgetxattr_query(path, key), |buffer| sys::lgetxattr(path, key, buffer))
            {
                Ok(value) => found.push((name.to_vec(), value)),
                // Removed in between, or a namespace that this user may list but not read (`trusted.`).
                Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        open_with(path, OFlags::RDONLY)
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        open_with(path, OFlags::WRONLY | OFlags::APPEND)
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FsFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = retry_on_intr(|| sys::open(path, flags, mode_of(mode)))?;
        sys::fchmod(&file, mode_of(mode))?;
        Ok(Box::new(OsFile(File::from(file))))
    }

    fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        sys::mkdir(path, mode_of(mode))?;
        Ok(sys::chmod(path, mode_of(mode))?)
    }

    fn mkfifo(&self, path: &Path, mode: u32) -> io::Result<()> {
        sys::mknodat(CWD, path, FileType::Fifo, mode_of(mode), 0)?;
        Ok(sys::chmod(path, mode_of(mode))?)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        Ok(sys::symlink(target, link)?)
    }

    fn hard_link(&self, existing: &Path, link: &Path) -> io::Result<()> {
        // linkat without AT_SYMLINK_FOLLOW: a link to a symbolic link is a second name of the link itself.
        Ok(sys::linkat(CWD, existing, CWD, link, AtFlags::empty())?)
    }

    fn set_attrs(&self, path: &Path, attrs: &Attrs) -> io::Result<()> {
        if let Some((uid, gid)) = attrs.owner {
            let (uid, gid) = (sys::Uid::from_raw(uid), sys::Gid::from_raw(gid));
            sys::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if let Some(mode) = attrs.mode
            && self.stat(path)?.kind != Kind::Symlink
        {
            sys::chmod(path, mode_of(mode))?;
        }
        if let Some(mtime) = attrs.mtime {
            let time = Timespec { tv_sec: mtime.s, tv_nsec: i64::from(mtime.ns) };
            let times = Timestamps { last_access: time, last_modification: time };
            sys::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(sys::lsetxattr(path, std::ffi::OsStr::from_bytes(name), value, XattrFlags::empty())?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(sys::rename(from, to)?)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        match sys::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(()),
            // ENOSYS: a kernel before 3.15. EINVAL: a file system without it (NFS, old overlay).
            Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => Err(io::ErrorKind::Unsupported.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Ok(sys::unlink(path)?)
    }

    fn rmdir(&self, path: &Path) -> io::Result<()> {
        Ok(sys::rmdir(path)?)
    }

    fn sync_dir_for(&self, dir: &Path, _: Site) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_on_intr(|| sys::open(dir, flags, Mode::empty()))?;
        Ok(retry_on_intr(|| sys::fsync(&dir))?)
    }

    fn sync_fs_for(&self, path: &Path, _: Site) -> io::Result<()> {
        if !kernel_at_least(5, 8) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let handle = retry_on_intr(|| sys::open(path, flags, Mode::empty()))?;
        match sys::syncfs(&handle) {
            Ok(()) => Ok(()),
            Err(Errno::NOSYS | Errno::INVAL) => Err(io::ErrorKind::Unsupported.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        unless_interrupted(|| fs2::available_space(path))
    }

    fn reflink(&self, existing: &Path, copy: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let source = sys::open(existing, flags, Mode::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = sys::open(copy, flags, mode_of(0o600))?;
        match sys::ioctl_ficlone(&target, &source) {
            Ok(()) => Ok(()),
            Err(errno) => {
                sys::unlink(copy)?;
                // EXDEV: another file system. EINVAL: not a regular file, or not this one's kind of file.
                match errno {
                    Errno::NOTSUP
                    | Errno::NOTTY
                    | Errno::XDEV
                    | Errno::INVAL
                    | Errno::NOSYS
                    | Errno::PERM => Err(io::ErrorKind::Unsupported.into()),
                    errno => Err(errno.into()),
                }
            }
        }
    }

    fn born(&self, path: &Path) -> io::Result<Option<Timestamp>> {
        match sys::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME) {
            Ok(found) => {
                let known = found.stx_mask & StatxFlags::BTIME.bits() != 0;
                let time = found.stx_btime;
                Ok(known.then_some(Timestamp { s: time.tv_sec, ns: time.tv_nsec }))
            }
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether the running kernel is of this version or a later one. Unreadable counts as older.
fn kernel_at_least(major: u32, minor: u32) -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(a)), Some(Ok(b))) => (a, b) >= (major, minor),
        _ => false,
    }
}

/// The real path of an existing file or directory, every link resolved.
pub fn real_path(path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

/// The host's name.
pub fn host_name() -> String {
    OsString::from_vec(rustix::system::uname().nodename().to_bytes().to_vec()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creation_never_replaces_and_ignores_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        OsFs.create(&path, 0o4755).unwrap().write_all(b"x").unwrap();
        assert_eq!(OsFs.stat(&path).unwrap().mode, 0o4755);
        assert_eq!(OsFs.create(&path, 0o600).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        OsFs.mkdir(&dir.path().join("d"), 0o777).unwrap();
        assert_eq!(OsFs.stat(&dir.path().join("d")).unwrap().mode, 0o777);
    }

    #[test]
    fn opening_a_fifo_or_a_link_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        OsFs.mkfifo(&dir.path().join("fifo"), 0o600).unwrap();
        OsFs.symlink(Path::new("/etc/hostname"), &dir.path().join("link")).unwrap();
        assert!(OsFs.open(&dir.path().join("fifo")).is_err());
        assert!(OsFs.open(&dir.path().join("link")).is_err());
    }

    #[test]
    fn exchange_swaps_two_names() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        OsFs.mkdir(&a, 0o700).unwrap();
        OsFs.create(&b, 0o600).unwrap();
        OsFs.exchange(&a, &b).unwrap();
        assert_eq!((OsFs.stat(&a).unwrap().kind, OsFs.stat(&b).unwrap().kind), (Kind::File, Kind::Dir));
    }

    #[test]
    fn a_reflink_is_the_same_content_or_nothing_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        OsFs.create(&a, 0o600).unwrap().write_all(&[7; 10_000]).unwrap();
        match OsFs.reflink(&a, &b) {
            Ok(()) => assert_eq!(std::fs::read(&b).unwrap(), [7; 10_000]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                assert!(!b.exists());
            }
        }
        assert_eq!(OsFs.reflink(&a, &a).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn holes_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = OsFs.create(&dir.path().join("sparse"), 0o600).unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(file.next_data(0).unwrap(), None);
        file.seek(SeekFrom::Start(512 << 10)).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let (start, end) = file.next_data(0).unwrap().unwrap();
        assert!(start <= 512 << 10 && end >= (512 << 10) + 4096);
    }
}
