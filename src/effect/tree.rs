//! What is built from [`Fs`] calls: atomic writes, copies and removals of whole trees.
//!
//! These are plain functions over `&dyn Fs`, so that a simulated file system exercises the very order of their syncs.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::fs::{Attrs, Fs, Kind, Meta, exists, stat_opt};

/// Bytes copied between two looks at the stop flag and two calls for write-back.
const CHUNK_BYTES: usize = 1 << 20;

/// Told how many bytes of content went by. An error it returns ends the work.
pub type Tick<'a> = &'a (dyn Fn(u64) -> io::Result<()> + Sync);

/// A tick that counts nothing and never stops.
pub fn no_tick(_: u64) -> io::Result<()> {
    Ok(())
}

/// Adds the operation and the path to an error.
pub trait Context<T> {
    /// `doing` reads after "cannot": "create", "rename".
    fn context(self, doing: &str, path: &Path) -> io::Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, doing: &str, path: &Path) -> Self {
        self.map_err(|error| {
            let path = crate::raw_path::RawPath::from(path);
            io::Error::new(error.kind(), format!("cannot {doing} `{path}`: {error}"))
        })
    }
}

/// The directory that holds a name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// `path` with something appended to its last component.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// How many links may lead on to one another, as in the kernel.
const LINK_LIMIT: usize = 40;

/// Where a path leads, every link in it resolved. Something must be there in the end.
pub fn resolve(fs: &dyn Fs, path: &Path) -> io::Result<PathBuf> {
    let mut real = PathBuf::from("/");
    let mut left: Vec<_> = path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            real.pop();
        } else {
            real.push(&part);
        }
        if fs.stat(&real)?.kind == Kind::Symlink {
            links += 1;
            if links > LINK_LIMIT {
                return Err(io::Error::other("it leads through too many links"));
            }
            let target = fs.read_link(&real)?;
            real.pop();
            left.extend(target.components().rev().map(|part| part.as_os_str().to_owned()));
        }
    }
    Ok(real)
}

/// Puts a file in place so that, whenever the power fails, either the old content or the new is there in full.
pub fn atomic_write(fs: &dyn Fs, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let part = sibling(path, ".part");
    if exists(fs, &part)? {
        fs.unlink(&part).context("remove", &part)?;
    }
    let mut file = fs.create(&part, mode).context("create", &part)?;
    file.write_all(content).context("write", &part)?;
    file.sync().context("sync", &part)?;
    drop(file);
    fs.rename(&part, path).context("rename", &part)?;
    fs.sync_dir(parent_of(path)).context("sync", parent_of(path))
}

/// Makes a directory and those above it that are missing, each durable before the next.
///
/// So is the lowest that is there: a kytx that was killed may have made it and not got to its sync.
pub fn make_dirs(fs: &dyn Fs, dir: &Path, mode: u32) -> io::Result<()> {
    match stat_opt(fs, dir).context("look at", dir)? {
        Some(Meta { kind: Kind::Dir, .. }) => {
            return match fs.sync_dir(parent_of(dir)) {
                // Where this user may not even look, it has made nothing.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other.context("sync", parent_of(dir)),
            };
        }
        Some(_) => {
            return Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                format!("`{}` is in the way: it is no directory", dir.display()),
            ));
        }
        None => make_dirs(fs, parent_of(dir), mode)?,
    }
    match fs.mkdir(dir, mode) {
        // Another kytx was faster: the lock that tells them apart lies in such a directory.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_dir = fs.stat(dir).is_ok_and(|meta| meta.kind == Kind::Dir);
            if is_dir { Ok(()) } else { Err(error) }.context("create", dir)?;
        }
        result => result.context("create", dir)?,
    }
    fs.sync_dir(parent_of(dir)).context("sync", parent_of(dir))
}

/// Removes whatever has this name, a whole tree included, and syncs the directory that held it. A name that is not
/// there is fine: the removal of an earlier run may have got this far.
///
/// Directories that their owner cannot write are opened up first, as a tree may hold read-only ones.
pub fn remove_tree(fs: &dyn Fs, path: &Path, tick: Tick<'_>) -> io::Result<()> {
    if let Some(meta) = stat_opt(fs, path).context("look at", path)? {
        remove_entry(fs, path, &meta, tick)?;
        fs.sync_dir(parent_of(path)).context("sync", parent_of(path))?;
    }
    Ok(())
}

fn remove_entry(fs: &dyn Fs, path: &Path, meta: &Meta, tick: Tick<'_>) -> io::Result<()> {
    if meta.kind != Kind::Dir {
        tick(meta.size)?;
        return fs.unlink(path).context("remove", path);
    }
    if meta.mode & 0o700 != 0o700 {
        let attrs = Attrs { mode: Some(meta.mode | 0o700), ..Attrs::default() };
        fs.set_attrs(path, &attrs).context("open up", path)?;
    }
    for name in fs.list(path).context("list", path)? {
        let child = path.join(name);
        let meta = fs.stat(&child).context("look at", &child)?;
        remove_entry(fs, &child, &meta, tick)?;
    }
    fs.rmdir(path).context("remove", path)
}

/// Renames a tree to a name beside it, durably, then removes it: from the first moment nothing half-removed can be
/// taken for the tree itself.
pub fn discard_tree(fs: &dyn Fs, path: &Path, tick: Tick<'_>) -> io::Result<()> {
    let aside = sibling(path, ".discarded");
    remove_tree(fs, &aside, tick)?;
    if exists(fs, path).context("look at", path)? {
        fs.rename(path, &aside).context("rename", path)?;
        fs.sync_dir(parent_of(path)).context("sync", parent_of(path))?;
    }
    remove_tree(fs, &aside, tick)
}

/// What a copy leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Sockets and devices: they mean nothing in another place. And what went away.
    pub skipped: Vec<PathBuf>,
    /// Entries whose owner could not be kept, as only root may give files away.
    pub owner_lost: Vec<PathBuf>,
}

/// Copies whatever has the name `from` to the name `to`, which must not exist: a whole tree with modes, owners,
/// times to the nanosecond, extended attributes, holes, links as links, hard links among the copied files as hard
/// links. Everything copied is synced, directories last and deepest first; the directory that holds `to` is not.
pub fn copy_tree(fs: &dyn Fs, from: &Path, to: &Path, tick: Tick<'_>) -> io::Result<CopyReport> {
    Copier::new(fs, tick, true).run(from, to)
}

/// The same, made durable as a whole by `syncfs` where it can be: tens of thousands of small files would each wait for
/// the medium. It also writes out what others have left dirty on the file system, so it is for trees of many files.
pub fn copy_tree_syncing_once(fs: &dyn Fs, from: &Path, to: &Path, tick: Tick<'_>) -> io::Result<CopyReport> {
    let parent = parent_of(to);
    // Asked before the first write: where it is not supported each file is to be synced by the handle that wrote it,
    // since one that is opened later may miss an earlier write-back error.
    match fs.sync_fs(parent) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return copy_tree(fs, from, to, tick),
        other => other.context("sync the file system of", parent)?,
    }
    let report = Copier::new(fs, tick, false).run(from, to)?;
    fs.sync_fs(parent).context("sync the file system of", parent)?;
    Ok(report)
}

/// The same for a tree that is in use, into one that need not last: a file whose room can be shared is not copied, an
/// entry that goes away meanwhile is passed over, and nothing is synced.
pub fn copy_live_tree(fs: &dyn Fs, from: &Path, to: &Path, tick: Tick<'_>) -> io::Result<CopyReport> {
    let mut copier = Copier::new(fs, tick, false);
    copier.live = true;
    copier.run(from, to)
}

/// Makes a tree durable that others have written, and that nobody writes any more. Where `syncfs` is not supported,
/// file by file: an error that was reported to whoever wrote one may then be missed.
pub fn sync_tree(fs: &dyn Fs, root: &Path, tick: Tick<'_>) -> io::Result<()> {
    match fs.sync_fs(root) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            sync_each(fs, root, tick)?;
            fs.sync_dir(parent_of(root)).context("sync", parent_of(root))
        }
        other => other.context("sync the file system of", root),
    }
}

fn sync_each(fs: &dyn Fs, path: &Path, tick: Tick<'_>) -> io::Result<()> {
    tick(0)?;
    match fs.stat(path).context("look at", path)?.kind {
        Kind::File => fs.open(path).and_then(|mut file| file.sync()).context("sync", path),
        Kind::Dir => {
            for name in fs.list(path).context("list", path)? {
                sync_each(fs, &path.join(name), tick)?;
            }
            fs.sync_dir(path).context("sync", path)
        }
        Kind::Symlink | Kind::Fifo | Kind::Socket | Kind::Device => Ok(()),
    }
}

struct Copier<'a> {
    fs: &'a dyn Fs,
    tick: Tick<'a>,
    /// The first copy of each file that has several names.
    seen: HashMap<(u64, u64), PathBuf>,
    report: CopyReport,
    /// Whether each entry is synced as it is made.
    syncs: bool,
    /// Whether entries may go away meanwhile, and files may share their room.
    live: bool,
}

impl<'a> Copier<'a> {
    fn new(fs: &'a dyn Fs, tick: Tick<'a>, syncs: bool) -> Self {
        Self { fs, tick, seen: HashMap::new(), report: CopyReport::default(), syncs, live: false }
    }

    fn run(mut self, from: &Path, to: &Path) -> io::Result<CopyReport> {
        self.copy(from, to)?;
        Ok(self.report)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let meta = self.fs.stat(from).context("look at", from)?;
        if meta.kind == Kind::File && meta.nlink > 1 {
            if let Some(first) = self.seen.get(&(meta.dev, meta.ino)) {
                return self.fs.hard_link(first, to).context("link", to);
            }
            self.seen.insert((meta.dev, meta.ino), to.to_owned());
        }
        match meta.kind {
            Kind::File => self.copy_file(from, to, &meta)?,
            Kind::Dir => {
                // Writable until its content is there, whatever its mode in the end.
                self.fs.mkdir(to, 0o700).context("create", to)?;
                for name in self.fs.list(from).context("list", from)? {
                    let from = from.join(&name);
                    match self.copy(&from, &to.join(&name)) {
                        Err(_) if self.live && !exists(self.fs, &from)? => self.report.skipped.push(from),
                        other => other?,
                    }
                }
            }
            Kind::Symlink => {
                let target = self.fs.read_link(from).context("read", from)?;
                self.fs.symlink(&target, to).context("create", to)?;
            }
            Kind::Fifo => self.fs.mkfifo(to, 0o600).context("create", to)?,
            Kind::Socket | Kind::Device => {
                self.report.skipped.push(from.to_owned());
                return Ok(());
            }
        }
        if copy_attrs(self.fs, from, to, &meta)? {
            self.report.owner_lost.push(to.to_owned());
        }
        if meta.kind == Kind::Dir && self.syncs {
            self.fs.sync_dir(to).context("sync", to)?;
        }
        Ok(())
    }

    fn copy_file(&self, from: &Path, to: &Path, meta: &Meta) -> io::Result<()> {
        if self.live {
            match self.fs.reflink(from, to) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                other => return other.context("clone", from),
            }
        }
        let mut source = self.fs.open(from).context("open", from)?;
        let mut target = self.fs.create(to, 0o600).context("create", to)?;
        let mut buffer = vec![0; CHUNK_BYTES.min(meta.size.max(1) as usize)];
        let mut offset = 0;
        while let Some((start, end)) = source.next_data(offset).context("read", from)? {
            source.seek(SeekFrom::Start(start))?;
            target.seek(SeekFrom::Start(start))?;
            let mut left = end - start;
            while left > 0 {
                let want = buffer.len().min(left as usize);
                let count = source.read(&mut buffer[..want]).context("read", from)?;
                if count == 0 {
                    break;
                }
                target.write_all(&buffer[..count]).context("write", to)?;
                left -= count as u64;
                (self.tick)(count as u64)?;
            }
            offset = end;
        }
        target.set_len(meta.size).context("set the length of", to)?;
        // Attributes first, so that the sync covers them.
        copy_attrs(self.fs, from, to, meta)?;
        if self.syncs { target.sync().context("sync", to) } else { Ok(()) }
    }
}

/// Gives `to` the owner, the extended attributes, the mode and the times of `from`. Returns whether the owner was
/// lost, as only root may give files away.
pub fn copy_attrs(fs: &dyn Fs, from: &Path, to: &Path, meta: &Meta) -> io::Result<bool> {
    let mut owner_lost = false;
    let present = fs.stat(to).context("look at", to)?;
    if (present.uid, present.gid) != (meta.uid, meta.gid) {
        let owner = Attrs { owner: Some((meta.uid, meta.gid)), ..Attrs::default() };
        match fs.set_attrs(to, &owner) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => owner_lost = true,
            other => other.context("set the owner of", to)?,
        }
    }
    for (name, value) in fs.xattrs(from).context("read the attributes of", from)? {
        match fs.set_xattr(to, &name, &value) {
            // A namespace that this user may read but not write (`security.`, `trusted.`).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other.context("set the attributes of", to)?,
        }
    }
    // Without the owner a setuid bit would lend the wrong rights.
    let mode = if owner_lost { meta.mode & 0o1777 } else { meta.mode };
    let attrs = Attrs { mode: Some(mode), mtime: Some(meta.mtime), owner: None };
    fs.set_attrs(to, &attrs).context("set the attributes of", to)?;
    Ok(owner_lost)
}

/// Counts the content bytes and the entries of a tree, looking only.
pub fn measure_tree(fs: &dyn Fs, path: &Path) -> io::Result<(u64, u64)> {
    let Some(meta) = stat_opt(fs, path).context("look at", path)? else { return Ok((0, 0)) };
    if meta.kind != Kind::Dir {
        return Ok((meta.size, 1));
    }
    let (mut bytes, mut entries) = (0, 1);
    for name in fs.list(path).context("list", path)? {
        let (more_bytes, more_entries) = measure_tree(fs, &path.join(name))?;
        bytes += more_bytes;
        entries += more_entries;
    }
    Ok((bytes, entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::fs::{Timestamp, read_file};
    use crate::effect::os::OsFs;

    #[test]
    fn an_atomic_write_replaces_and_survives_a_leftover_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        OsFs.create(&sibling(&path, ".part"), 0o600).unwrap().write_all(b"left over, longer").unwrap();
        atomic_write(&OsFs, &path, b"one", 0o640).unwrap();
        atomic_write(&OsFs, &path, b"two", 0o640).unwrap();
        assert_eq!(read_file(&OsFs, &path, 10).unwrap(), b"two");
        assert_eq!(OsFs.list(dir.path()).unwrap(), ["f"]);
        assert!(read_file(&OsFs, &path, 2).is_err(), "a longer file is an error, never cut");
    }

    #[test]
    fn a_path_is_resolved_as_the_kernel_does() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        make_dirs(&OsFs, &root.join("a/b"), 0o700).unwrap();
        OsFs.create(&root.join("a/b/f"), 0o600).unwrap();
        OsFs.symlink(Path::new("../a/./b/again"), &root.join("a/up")).unwrap();
        OsFs.symlink(Path::new("f"), &root.join("a/b/again")).unwrap();
        OsFs.symlink(&root.join("a"), &root.join("whole")).unwrap();
        for path in ["a/b/f", "a/up", "whole/up", "whole/../a/b/again"] {
            let path = root.join(path);
            assert_eq!(resolve(&OsFs, &path).unwrap(), path.canonicalize().unwrap(), "{}", path.display());
        }
        OsFs.symlink(Path::new("loop"), &root.join("loop")).unwrap();
        assert!(resolve(&OsFs, &root.join("loop")).is_err());
        assert_eq!(resolve(&OsFs, &root.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_copy_that_is_synced_once_is_the_same_copy() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        OsFs.mkdir(&from, 0o750).unwrap();
        OsFs.create(&from.join("f"), 0o604).unwrap().write_all(b"content").unwrap();
        let to = dir.path().join("to");
        assert_eq!(copy_tree_syncing_once(&OsFs, &from, &to, &no_tick).unwrap(), CopyReport::default());
        assert_eq!(read_file(&OsFs, &to.join("f"), 10).unwrap(), b"content");
        let stat = |path: PathBuf| OsFs.stat(&path).unwrap();
        assert_eq!(stat(to.clone()).mode, 0o750);
        assert_eq!(stat(to.join("f")).mtime, stat(from.join("f")).mtime);
        assert!(copy_tree_syncing_once(&OsFs, &from, &to, &no_tick).is_err(), "it never replaces");
    }

    #[test]
    fn a_copy_of_a_live_tree_is_the_same_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        OsFs.mkdir(&from, 0o750).unwrap();
        OsFs.create(&from.join("f"), 0o604).unwrap().write_all(b"content").unwrap();
        // What another process removes while the copy is made.
        let tick = |_| {
            let _ = OsFs.unlink(&from.join("late"));
            Ok(())
        };
        OsFs.create(&from.join("late"), 0o604).unwrap();
        let report = copy_live_tree(&OsFs, &from, &to, &tick).unwrap();
        assert_eq!(read_file(&OsFs, &to.join("f"), 10).unwrap(), b"content");
        let stat = |path: PathBuf| OsFs.stat(&path).unwrap();
        assert_eq!((stat(to.join("f")).mode, stat(to.clone()).mode), (0o604, 0o750));
        assert_eq!(stat(to.join("f")).mtime, stat(from.join("f")).mtime);
        // Where room is shared nothing is told to the tick, and nothing goes away.
        let gone = !exists(&OsFs, &from.join("late")).unwrap();
        assert_eq!(report.skipped, if gone { vec![from.join("late")] } else { Vec::new() });
    }

    #[test]
    fn directories_are_made_down_to_the_last_and_never_over_a_file() {
        let dir = tempfile::tempdir().unwrap();
        make_dirs(&OsFs, &dir.path().join("a/b/c"), 0o700).unwrap();
        make_dirs(&OsFs, &dir.path().join("a/b/c"), 0o755).unwrap();
        assert_eq!(OsFs.stat(&dir.path().join("a/b/c")).unwrap().mode, 0o700, "what is there stays as it is");
        OsFs.create(&dir.path().join("a/f"), 0o600).unwrap();
        let error = make_dirs(&OsFs, &dir.path().join("a/f"), 0o700).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        assert_eq!(measure_tree(&OsFs, &dir.path().join("a")).unwrap(), (0, 4));
        assert_eq!(measure_tree(&OsFs, &dir.path().join("none")).unwrap(), (0, 0));
    }

    #[test]
    fn a_discarded_tree_goes_with_what_an_earlier_run_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        make_dirs(&OsFs, &sibling(&path, ".discarded").join("half"), 0o500).unwrap();
        make_dirs(&OsFs, &path.join("closed"), 0o700).unwrap();
        OsFs.create(&path.join("closed/f"), 0o400).unwrap();
        OsFs.set_attrs(&path.join("closed"), &Attrs { mode: Some(0), ..Attrs::default() }).unwrap();
        discard_tree(&OsFs, &path, &no_tick).unwrap();
        discard_tree(&OsFs, &path, &no_tick).unwrap();
        assert!(OsFs.list(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_tick_ends_the_work_and_its_words_get_through() {
        let dir = tempfile::tempdir().unwrap();
        OsFs.create(&dir.path().join("f"), 0o600).unwrap().write_all(b"content").unwrap();
        let stop = |_| Err(io::Error::new(io::ErrorKind::Interrupted, "enough"));
        let error = copy_tree(&OsFs, &dir.path().join("f"), &dir.path().join("g"), &stop).unwrap_err();
        assert!(error.to_string().contains("enough"), "{error}");
        assert!(remove_tree(&OsFs, &dir.path().join("f"), &stop).is_err());
        assert!(exists(&OsFs, &dir.path().join("f")).unwrap());
    }

    #[test]
    fn a_copy_keeps_what_a_home_may_hold() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let time = Timestamp { s: -5, ns: 123_456_789 };
        OsFs.mkdir(&from, 0o700).unwrap();
        OsFs.mkdir(&from.join("closed"), 0o700).unwrap();
        OsFs.create(&from.join("closed/f"), 0o4755).unwrap().write_all(b"content").unwrap();
        OsFs.hard_link(&from.join("closed/f"), &from.join("again")).unwrap();
        OsFs.symlink(Path::new("nowhere"), &from.join("link")).unwrap();
        OsFs.mkfifo(&from.join("fifo"), 0o640).unwrap();
        let mut sparse = OsFs.create(&from.join("sparse"), 0o600).unwrap();
        sparse.set_len(1 << 20).unwrap();
        OsFs.set_attrs(&from.join("closed/f"), &Attrs { mtime: Some(time), ..Attrs::default() }).unwrap();
        let takes_xattrs = match OsFs.set_xattr(&from.join("closed/f"), b"user.kytx", b"va\0lue") {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
            other => other.map(|()| true).unwrap(),
        };
        if takes_xattrs {
            OsFs.set_xattr(&from.join("closed/f"), b"user.empty", b"").unwrap();
        }
        OsFs.set_attrs(&from.join("closed"), &Attrs { mode: Some(0o500), mtime: Some(time), owner: None })
            .unwrap();

        let report = copy_tree(&OsFs, &from, &to, &no_tick).unwrap();
        assert_eq!(report, CopyReport::default());
        let stat = |name: &str| OsFs.stat(&to.join(name)).unwrap();
        assert_eq!((stat("closed/f").mode, stat("closed/f").mtime, stat("closed/f").size), (0o4755, time, 7));
        assert_eq!((stat("closed").mode, stat("closed").mtime), (0o500, time));
        assert_eq!(stat("again").ino, stat("closed/f").ino);
        assert_eq!(OsFs.read_link(&to.join("link")).unwrap(), Path::new("nowhere"));
        assert_eq!((stat("fifo").kind, stat("fifo").mode), (Kind::Fifo, 0o640));
        assert_eq!((stat("sparse").size, stat("sparse").allocated), (1 << 20, 0));
        if takes_xattrs {
            let xattrs = OsFs.xattrs(&to.join("closed/f")).unwrap();
            assert!(xattrs.contains(&(b"user.kytx".to_vec(), b"va\0lue".to_vec())), "{xattrs:?}");
            assert!(xattrs.contains(&(b"user.empty".to_vec(), Vec::new())), "{xattrs:?}");
        }

        discard_tree(&OsFs, &to, &no_tick).unwrap();
        remove_tree(&OsFs, &from, &no_tick).unwrap();
        assert!(OsFs.list(dir.path()).unwrap().is_empty());
    }
}
