//! Walks a tree and records what it holds.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use super::manifest::{Entry, Manifest, ManifestError, tree_order};
use super::parallel::fan_out;
use crate::digest::{Digest, Hasher};
use crate::effect::fs::{Fs, Kind, Meta, Xattr};
use crate::effect::tree::{Context, Tick};
use crate::raw_path::RawPath;

/// Whether the content of files is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Only what `lstat` and the list of attributes say.
    Skip,
    /// Every file is hashed.
    Hash,
}

/// Large enough for blake3 to use its widest lanes, small enough to stay in the second-level cache.
const CHUNK_BYTES: usize = 256 << 10;

impl Manifest {
    /// Walks a tree, or takes in a single file or link, as `root`.
    ///
    /// The tree may be alive: a name that goes away in the meantime counts as never seen, and a file that grows is
    /// recorded with the length that was hashed.
    pub fn walk(
        fs: &dyn Fs,
        root: &Path,
        contents: Contents,
        threads: usize,
        tick: Tick<'_>,
    ) -> Result<Self, ManifestError> {
        let meta = fs.stat(root).context("look at", root)?;
        let mut found = Vec::new();
        let mut pending = vec![(RawPath::default(), meta)];
        while let Some((path, meta)) = pending.pop() {
            let full = root_join(root, &path);
            if meta.kind == Kind::Dir {
                for name in unless_gone(fs.list(&full).context("list", &full))?.unwrap_or_default() {
                    let child = path.join(&Path::new(&name).into());
                    let full = root_join(root, &child);
                    if let Some(meta) = unless_gone(fs.stat(&full).context("look at", &full))? {
                        pending.push((child, meta));
                    }
                }
            }
            if let Some(entry) = look(fs, &full, path, &meta)? {
                found.push((entry, meta));
            }
            tick(0)?;
        }
        found.sort_unstable_by(|(a, _), (b, _)| tree_order(&a.path, &b.path));
        group_hard_links(&mut found);
        let mut manifest = Self { entries: found.into_iter().map(|(entry, _)| entry).collect() };
        if contents == Contents::Hash {
            manifest.hash_contents(fs, root, threads, tick)?;
        }
        Ok(manifest)
    }

    fn hash_contents(
        &mut self,
        fs: &dyn Fs,
        root: &Path,
        threads: usize,
        tick: Tick<'_>,
    ) -> Result<(), ManifestError> {
        let wanted = |entry: &Entry| entry.kind == Kind::File && !entry.is_later_name();
        let mut order: Vec<usize> =
            (0..self.entries.len()).filter(|place| wanted(&self.entries[*place])).collect();
        // The largest first: a fat jar that comes last would leave the other threads idle.
        order.sort_by_key(|place| std::cmp::Reverse(self.entries[*place].size));
        let entries = &self.entries;
        let hashed = fan_out(threads, &order, |place| {
            let full = root_join(root, &entries[*place].path);
            unless_gone(hash_file(fs, &full, tick))
        })?;
        let mut by_path = HashMap::new();
        for (place, result) in order.into_iter().zip(hashed) {
            by_path.insert(self.entries[place].path.clone(), result);
        }
        self.entries.retain_mut(|entry| {
            if entry.kind != Kind::File {
                return true;
            }
            let first = entry.hard_link.as_ref().unwrap_or(&entry.path);
            let Some((size, digest)) = by_path.get(first).copied().flatten() else { return false };
            (entry.size, entry.content) = (size, Some(digest));
            true
        });
        Ok(())
    }
}

/// Hashes one file; how many bytes it had, and their plain blake3.
pub fn hash_file(fs: &dyn Fs, path: &Path, tick: Tick<'_>) -> io::Result<(u64, Digest)> {
    let mut file = fs.open(path).context("open", path)?;
    let mut hasher = Hasher::plain();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer).context("read", path)?;
        if count == 0 {
            return Ok((bytes, hasher.finish()));
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
        tick(count as u64)?;
    }
}

/// `root` with a relative path below it; `root` itself for the empty one.
pub fn root_join(root: &Path, path: &RawPath) -> std::path::PathBuf {
    if path.as_bytes().is_empty() { root.to_owned() } else { root.join(path) }
}

/// Whether an attribute belongs to the file rather than to the machine it lies on. Labels that the policy gives by
/// place (`security.selinux`, `security.ima`) and what only the file system understands (`system.nfs4_acl`,
/// `trusted.overlay.*`) say nothing about a backup.
pub fn is_portable_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn look(fs: &dyn Fs, full: &Path, path: RawPath, meta: &Meta) -> io::Result<Option<Entry>> {
    let target = if meta.kind == Kind::Symlink {
        let Some(target) = unless_gone(fs.read_link(full).context("read the link", full))? else {
            return Ok(None);
        };
        Some(target.into())
    } else {
        None
    };
    let Some(xattrs) = unless_gone(fs.xattrs(full).context("read the attributes of", full))? else {
        return Ok(None);
    };
    let xattrs: Vec<Xattr> = xattrs.into_iter().filter(|(name, _)| is_portable_xattr(name)).collect();
    Ok(Some(Entry {
        path,
        kind: meta.kind,
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime: meta.mtime,
        size: if meta.kind == Kind::File { meta.size } else { 0 },
        hard_link: None,
        target,
        xattrs,
        content: None,
    }))
}

/// Names of one inode are known only once all of them are in order: the first in order is the one the others name.
fn group_hard_links(found: &mut [(Entry, Meta)]) {
    let mut names: HashMap<(u64, u64), (RawPath, u32)> = HashMap::new();
    let shared = |meta: &Meta| meta.kind == Kind::File && meta.nlink > 1;
    for (entry, meta) in found.iter() {
        if shared(meta) {
            names.entry((meta.dev, meta.ino)).or_insert_with(|| (entry.path.clone(), 0)).1 += 1;
        }
    }
    for (entry, meta) in found.iter_mut().filter(|(_, meta)| shared(meta)) {
        let (first, count) = &names[&(meta.dev, meta.ino)];
        entry.hard_link = (*count > 1).then(|| first.clone());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use crate::effect::fs::{Attrs, Timestamp};
    use crate::effect::os::OsFs;
    use crate::effect::tree::no_tick;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixListener;

    /// A tree with everything that a home may hold. Foreign owners are there if the test runs as root.
    pub(crate) fn awkward_tree(root: &Path) {
        fs::create_dir_all(root.join("lib/ext")).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        let noise: Vec<u8> =
            (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        fs::write(root.join("lib/noise.jar"), &noise[..3_000_001]).unwrap();
        fs::write(root.join("lib/text.log"), "one line of a log\n".repeat(120_000)).unwrap();
        fs::write(root.join("empty-file"), "").unwrap();
        fs::write(root.join("kylin.sh"), "#!/bin/sh\n").unwrap();
        OsFs.set_attrs(&root.join("kylin.sh"), &Attrs { mode: Some(0o4755), ..Attrs::default() }).unwrap();
        fs::hard_link(root.join("lib/text.log"), root.join("a second name")).unwrap();
        fs::hard_link(root.join("kylin.sh"), root.join("zz")).unwrap();
        for (target, name) in [("lib", "to-dir"), ("nowhere/at/all", "dangling"), ("/etc/hadoop", "absolute")]
        {
            std::os::unix::fs::symlink(target, root.join(name)).unwrap();
        }
        let long = "d".repeat(200);
        fs::create_dir_all(root.join(&long).join(&long)).unwrap();
        fs::write(root.join(&long).join(&long).join("e".repeat(255)), "far down").unwrap();
        std::os::unix::fs::symlink("t".repeat(300), root.join("long-target")).unwrap();
        fs::hard_link(root.join(&long).join(&long).join("e".repeat(255)), root.join("y-link-to-far"))
            .unwrap();
        for name in
            [&b"new\nline"[..], b"-dash", b" blank ", b"bad\xff\xfeutf8", "\u{4e2d}\u{6587}".as_bytes()]
        {
            fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
        }
        fs::write(root.join(format!("{}\u{4e2d}", "\u{6587}".repeat(70))), "long and not ASCII").unwrap();
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(5 << 20).unwrap();
        OsFs.mkfifo(&root.join("fifo"), 0o640).unwrap();
        UnixListener::bind(root.join("socket")).unwrap();
        let _ = OsFs.set_xattr(&root.join("empty-file"), b"user.kytx=%odd", b"line\nand \0 nul");
        let old = Attrs { mtime: Some(Timestamp { s: -5, ns: 123_456_789 }), ..Attrs::default() };
        OsFs.set_attrs(&root.join("dangling"), &old).unwrap();
        OsFs.set_attrs(&root.join("empty-file"), &old).unwrap();
        let zero = Attrs { mtime: Some(Timestamp::default()), ..Attrs::default() };
        OsFs.set_attrs(&root.join("-dash"), &zero).unwrap();
        let foreign = Attrs { owner: Some((12345, 4_000_000_000)), ..Attrs::default() };
        let _ = OsFs.set_attrs(&root.join("sparse"), &foreign);
        let closed = Attrs { mode: Some(0o555), mtime: old.mtime, owner: None };
        OsFs.set_attrs(&root.join("lib/ext"), &closed).unwrap();
        fs::write(root.join("empty/.keep"), "k").unwrap();
        OsFs.set_attrs(&root.join("empty"), &closed).unwrap();
    }

    #[test]
    fn a_walk_records_what_is_there_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("home");
        awkward_tree(&root);
        let one = Manifest::walk(&OsFs, &root, Contents::Hash, 1, &no_tick).unwrap();
        let two = Manifest::walk(&OsFs, &root, Contents::Hash, 3, &no_tick).unwrap();
        assert_eq!(one, two);
        assert!(one.entries.is_sorted_by(|a, b| tree_order(&a.path, &b.path).is_lt()));
        assert_eq!(Manifest::decode(&one.encode()).unwrap(), one);
        let get = |path: &str| one.get(&path.into()).unwrap();
        assert_eq!(get("").kind, Kind::Dir);
        assert_eq!(get("a second name").hard_link, Some("a second name".into()));
        assert_eq!(get("lib/text.log").hard_link, Some("a second name".into()));
        assert_eq!(get("lib/text.log").content, get("a second name").content);
        assert_eq!(get("kylin.sh").hard_link, Some("kylin.sh".into()));
        assert_eq!(
            (get("kylin.sh").mode, get("socket").kind, get("fifo").kind),
            (0o4755, Kind::Socket, Kind::Fifo)
        );
        assert_eq!(get("dangling").target, Some("nowhere/at/all".into()));
        assert_eq!(get("empty-file").mtime, Timestamp { s: -5, ns: 123_456_789 });
        assert_eq!(get("empty-file").content, Some(Digest::of(b"")));
        let skipped = Manifest::walk(&OsFs, &root, Contents::Skip, 1, &no_tick).unwrap();
        assert!(skipped.entries.iter().all(|entry| entry.content.is_none()));
    }

    #[test]
    fn a_single_file_or_link_is_a_tree_too() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("x", dir.path().join("l")).unwrap();
        fs::write(dir.path().join("f"), "f").unwrap();
        for (name, kind) in [("l", Kind::Symlink), ("f", Kind::File)] {
            let walked = Manifest::walk(&OsFs, &dir.path().join(name), Contents::Hash, 2, &no_tick).unwrap();
            assert_eq!((walked.entries.len(), walked.entries[0].kind), (1, kind));
            assert!(walked.content_digest(&RawPath::default()).is_some());
        }
    }

    #[test]
    fn a_stop_request_ends_a_walk() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "f").unwrap();
        let stop = |bytes: u64| if bytes > 0 { Err(io::Error::other("stop")) } else { Ok(()) };
        let error = Manifest::walk(&OsFs, dir.path(), Contents::Hash, 2, &stop).unwrap_err();
        assert_eq!(error.to_string(), "stop");
    }
}
