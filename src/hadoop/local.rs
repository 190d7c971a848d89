//! Cube data in a `file:` working directory: kytx's own copier.
//!
//! A copy whose size and time agree with the source is not believed for that: unless a pass that was finished, and
//! synced whole, has seen the same source, its content is compared. So one sync a file is enough, after its attributes.

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{Hdfs, HdfsError, Mirrored, scheme};
use crate::backup::manifest::Entry;
use crate::backup::walk::hash_file;
use crate::digest::{Digest, Hasher};
use crate::effect::fs::{Fs, Kind, Meta, exists, stat_opt};
use crate::effect::tree::{self, Context, Tick, copy_attrs, parent_of, remove_tree};
use crate::raw_path::RawPath;

const CHUNK_BYTES: usize = 1 << 20;

/// The `file:` scheme, over the machine's file system.
pub struct LocalHdfs<'a> {
    fs: &'a dyn Fs,
}

impl<'a> LocalHdfs<'a> {
    /// Works through this file system.
    pub fn new(fs: &'a dyn Fs) -> Self {
        Self { fs }
    }
}

/// The local path that a `file:` path names: `file:/a`, `file:///a` and `file://localhost/a` are one.
pub fn local_path(path: &RawPath) -> Result<PathBuf, HdfsError> {
    let refuse = || HdfsError::Scheme(path.clone());
    if scheme(path) != Some("file") {
        return Err(refuse());
    }
    let rest = &path.as_bytes()[b"file:".len()..];
    let rest = rest.strip_prefix(b"//localhost").or_else(|| rest.strip_prefix(b"//")).unwrap_or(rest);
    if rest.first() != Some(&b'/') {
        return Err(refuse());
    }
    Ok(RawPath::new(rest).to_path_buf())
}

impl Hdfs for LocalHdfs<'_> {
    fn reach(&self, dir: &RawPath) -> Result<(), HdfsError> {
        let path = local_path(dir)?;
        self.fs.list(&path).context("reach", &path)?;
        Ok(())
    }

    fn exists(&self, path: &RawPath) -> Result<bool, HdfsError> {
        Ok(exists(self.fs, &local_path(path)?)?)
    }

    fn list(&self, dir: &RawPath) -> Result<Vec<RawPath>, HdfsError> {
        let path = local_path(dir)?;
        Ok(self
            .fs
            .list(&path)
            .context("list", &path)?
            .into_iter()
            .map(|name| PathBuf::from(name).into())
            .collect())
    }

    fn measure(&self, path: &RawPath) -> Result<(u64, u64), HdfsError> {
        Ok(tree::measure_tree(self.fs, &local_path(path)?)?)
    }

    fn make_dirs(&self, dir: &RawPath) -> Result<(), HdfsError> {
        Ok(tree::make_dirs(self.fs, &local_path(dir)?, 0o700)?)
    }

    fn mirror(
        &self,
        source: &RawPath,
        target: &RawPath,
        known: &[Mirrored],
        tick: Tick<'_>,
    ) -> Result<Vec<Mirrored>, HdfsError> {
        let (source, target) = (local_path(source)?, local_path(target)?);
        let mut mirror = Mirror { fs: self.fs, known, tick, done: Vec::new() };
        mirror.entry(&source, &target, &RawPath::default())?;
        self.fs.sync_dir(parent_of(&target)).context("sync", parent_of(&target))?;
        mirror.done.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
        Ok(mirror.done)
    }

    fn manifest(&self, path: &RawPath, tick: Tick<'_>) -> Result<Vec<Entry>, HdfsError> {
        let root = local_path(path)?;
        let mut entries = Vec::new();
        list_entries(self.fs, &root, &RawPath::default(), tick, &mut entries)?;
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn rename(&self, from: &RawPath, to: &RawPath) -> Result<(), HdfsError> {
        let (source, target) = (local_path(from)?, local_path(to)?);
        if exists(self.fs, &target)? {
            return Err(HdfsError::Exists(to.clone()));
        }
        self.fs.rename(&source, &target).context("rename", &source)?;
        for parent in [parent_of(&target), parent_of(&source)] {
            self.fs.sync_dir(parent).context("sync", parent)?;
        }
        Ok(())
    }

    fn remove_if_empty(&self, dir: &RawPath) -> Result<(), HdfsError> {
        let path = local_path(dir)?;
        match self.fs.rmdir(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Ok(())
            }
            // Another spelling of "not empty" (EEXIST), which POSIX allows.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => {
                other.context("remove", &path)?;
                Ok(self.fs.sync_dir(parent_of(&path)).context("sync", parent_of(&path))?)
            }
        }
    }

    fn make_durable(&self, path: &RawPath) -> Result<(), HdfsError> {
        let path = local_path(path)?;
        // The names within, and the name itself or its absence.
        for dir in [path.as_path(), parent_of(&path), parent_of(parent_of(&path))] {
            if stat_opt(self.fs, dir).context("look at", dir)?.is_some_and(|meta| meta.kind == Kind::Dir) {
                self.fs.sync_dir(dir).context("sync", dir)?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &RawPath, tick: Tick<'_>) -> Result<(), HdfsError> {
        Ok(remove_tree(self.fs, &local_path(path)?, tick)?)
    }
}

struct Mirror<'a> {
    fs: &'a dyn Fs,
    known: &'a [Mirrored],
    tick: Tick<'a>,
    done: Vec<Mirrored>,
}

impl Mirror<'_> {
    fn entry(&mut self, source: &Path, target: &Path, path: &RawPath) -> io::Result<()> {
        let meta = self.fs.stat(source).context("look at", source)?;
        let there = stat_opt(self.fs, target).context("look at", target)?;
        if there.is_some_and(|there| there.kind != meta.kind) {
            remove_tree(self.fs, target, self.tick)?;
        }
        let mut content = None;
        let mut link = None;
        match meta.kind {
            Kind::File => content = Some(self.file(source, target, path, &meta)?),
            Kind::Dir => self.dir(source, target, path, &meta)?,
            Kind::Symlink => {
                let points_to = self.fs.read_link(source).context("read", source)?;
                remove_tree(self.fs, target, self.tick)?;
                self.fs.symlink(&points_to, target).context("create", target)?;
                copy_attrs(self.fs, source, target, &meta)?;
                link = Some(points_to.into());
            }
            // No cube data: nothing that Hadoop writes.
            Kind::Fifo | Kind::Socket | Kind::Device => return Ok(()),
        }
        let entry = entry_of(self.fs, target, path.clone(), content, link)?;
        self.done.push(Mirrored { entry, source_ctime: meta.ctime, source_ino: meta.ino });
        Ok(())
    }

    fn dir(&mut self, source: &Path, target: &Path, path: &RawPath, meta: &Meta) -> io::Result<()> {
        if !exists(self.fs, target)? {
            self.fs.mkdir(target, 0o700).context("create", target)?;
        }
        let names = self.fs.list(source).context("list", source)?;
        for name in self.fs.list(target).context("list", target)? {
            if names.binary_search(&name).is_err() {
                remove_tree(self.fs, &target.join(name), self.tick)?;
            }
        }
        for name in names {
            let below = path.join(&PathBuf::from(&name).into());
            self.entry(&source.join(&name), &target.join(&name), &below)?;
        }
        copy_attrs(self.fs, source, target, meta)?;
        self.fs.sync_dir(target).context("sync", target)
    }

    fn file(&self, source: &Path, target: &Path, path: &RawPath, meta: &Meta) -> io::Result<Digest> {
        let alike = |there: &Meta| (there.size, there.mtime) == (meta.size, meta.mtime);
        if let Some(there) = stat_opt(self.fs, target)?
            && alike(&there)
        {
            if let Some(content) = self.unchanged(path, meta) {
                return Ok(content);
            }
            let content = hash_file(self.fs, source, self.tick)?.1;
            if hash_file(self.fs, target, self.tick)?.1 == content {
                copy_attrs(self.fs, source, target, meta)?;
                return Ok(content);
            }
        }
        if exists(self.fs, target)? {
            self.fs.unlink(target).context("remove", target)?;
        }
        copy_hashing(self.fs, source, target, meta, self.tick)
    }

    /// What an earlier pass read, if the source has not been touched since by any measure.
    fn unchanged(&self, path: &RawPath, meta: &Meta) -> Option<Digest> {
        let at = self.known.binary_search_by(|known| known.entry.path.cmp(path)).ok()?;
        let known = &self.known[at];
        let same = (known.entry.size, known.entry.mtime, known.source_ctime, known.source_ino)
            == (meta.size, meta.mtime, meta.ctime, meta.ino);
        known.entry.content.filter(|_| same)
    }
}

fn copy_hashing(
    fs: &dyn Fs,
    source: &Path,
    target: &Path,
    meta: &Meta,
    tick: Tick<'_>,
) -> io::Result<Digest> {
    let mut reader = fs.open(source).context("open", source)?;
    let mut writer = fs.create(target, 0o600).context("create", target)?;
    let mut hasher = Hasher::plain();
    let mut buffer = vec![0; CHUNK_BYTES.min(meta.size.max(1) as usize)];
    loop {
        let count = reader.read(&mut buffer).context("read", source)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        writer.write_all(&buffer[..count]).context("write", target)?;
        tick(count as u64)?;
    }
    copy_attrs(fs, source, target, meta)?;
    writer.sync().context("sync", target)?;
    Ok(hasher.finish())
}

fn entry_of(
    fs: &dyn Fs,
    path: &Path,
    name: RawPath,
    content: Option<Digest>,
    target: Option<RawPath>,
) -> io::Result<Entry> {
    let meta = fs.stat(path).context("look at", path)?;
    Ok(Entry {
        path: name,
        kind: meta.kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        size: if meta.kind == Kind::File { meta.size } else { 0 },
        hard_link: None,
        target,
        xattrs: fs.xattrs(path).context("read the attributes of", path)?,
        content,
    })
}

fn list_entries(
    fs: &dyn Fs,
    path: &Path,
    name: &RawPath,
    tick: Tick<'_>,
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    let meta = fs.stat(path).context("look at", path)?;
    let content = if meta.kind == Kind::File { Some(hash_file(fs, path, tick)?.1) } else { None };
    let target = match meta.kind {
        Kind::Symlink => Some(fs.read_link(path).context("read", path)?.into()),
        _ => None,
    };
    entries.push(entry_of(fs, path, name.clone(), content, target)?);
    if meta.kind == Kind::Dir {
        for child in fs.list(path).context("list", path)? {
            let below = name.join(&PathBuf::from(&child).into());
            list_entries(fs, &path.join(&child), &below, tick, entries)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::os::OsFs;
    use crate::effect::tree::no_tick;

    fn write(path: &Path, content: &[u8]) {
        if exists(&OsFs, path).unwrap() {
            OsFs.unlink(path).unwrap();
        }
        OsFs.create(path, 0o640).unwrap().write_all(content).unwrap();
    }

    fn scene() -> (tempfile::TempDir, RawPath, RawPath) {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("kylin");
        OsFs.mkdir(&source, 0o755).unwrap();
        OsFs.mkdir(&source.join("cube"), 0o750).unwrap();
        write(&source.join("cube/a"), b"aaa");
        write(&source.join("cube/b"), b"bbb");
        let uri = |name: &str| RawPath::from(format!("file://{}/{name}", dir.path().display()).as_str());
        let (source, target) = (uri("kylin"), uri("copy"));
        (dir, source, target)
    }

    #[test]
    fn spellings_of_one_local_path() {
        for text in ["file:/a/b", "file:///a/b", "file://localhost/a/b"] {
            assert_eq!(local_path(&text.into()).unwrap(), Path::new("/a/b"), "{text}");
        }
        for text in ["/a/b", "hdfs://h/a", "file:a", "file://host/a"] {
            assert!(local_path(&text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mirror_is_exact_and_the_second_pass_reads_only_what_changed() {
        let (dir, source, target) = scene();
        let hdfs = LocalHdfs::new(&OsFs);
        let first = hdfs.mirror(&source, &target, &[], &no_tick).unwrap();
        write(&dir.path().join("kylin/cube/b"), b"BBBB");
        write(&dir.path().join("kylin/cube/c"), b"c");
        OsFs.unlink(&dir.path().join("kylin/cube/a")).unwrap();
        let read = std::sync::atomic::AtomicU64::new(0);
        let count = |bytes| {
            read.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        };
        let second = hdfs.mirror(&source, &target, &first, &count).unwrap();
        assert_eq!(hdfs.manifest(&target, &no_tick).unwrap(), hdfs.manifest(&source, &no_tick).unwrap());
        let entries: Vec<_> = second.into_iter().map(|mirrored| mirrored.entry).collect();
        assert_eq!(entries, hdfs.manifest(&source, &no_tick).unwrap());
        assert_eq!(read.into_inner(), 5 + 3, "four and one copied, three removed");
    }

    #[test]
    fn a_copy_that_was_cut_off_is_made_anew() {
        let (dir, source, target) = scene();
        let hdfs = LocalHdfs::new(&OsFs);
        hdfs.mirror(&source, &target, &[], &no_tick).unwrap();
        write(&dir.path().join("copy/cube/a"), b"a");
        write(&dir.path().join("copy/cube/left-over"), b"x");
        hdfs.mirror(&source, &target, &[], &no_tick).unwrap();
        assert_eq!(hdfs.manifest(&target, &no_tick).unwrap(), hdfs.manifest(&source, &no_tick).unwrap());
    }

    #[test]
    fn a_rename_never_replaces() {
        let (dir, source, target) = scene();
        let hdfs = LocalHdfs::new(&OsFs);
        OsFs.mkdir(&dir.path().join("copy"), 0o700).unwrap();
        assert!(matches!(hdfs.rename(&source, &target), Err(HdfsError::Exists(_))));
        hdfs.remove(&target, &no_tick).unwrap();
        hdfs.rename(&source, &target).unwrap();
        assert!(hdfs.reach(&source).is_err());
        hdfs.reach(&target).unwrap();
    }
}
