//! Trees as data: everything that an abort must bring back. It walks on its own and shares no code with kytx, so that
//! a blind spot of kytx's is none of the tests'.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kytx::raw_path::RawPath;

/// One name of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds; `None` for a directory that lost or gained an ignored name.
    mtime: Option<(i64, i64)>,
    size: u64,
    target: Option<PathBuf>,
    /// The first name of the same file in this tree.
    link_to: Option<PathBuf>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    content: Option<blake3::Hash>,
}

/// A whole tree, by path below its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Snapshot {
    /// Takes it. What matches one of the patterns is passed over with all below it: a path below the root, in which
    /// one `*` stands for anything.
    pub fn take(root: &Path, ignored: &[&str]) -> Self {
        let mut walk = Walk { ignored, first_names: HashMap::new(), entries: BTreeMap::new() };
        walk.visit(root, Path::new("")).unwrap_or_else(|error| panic!("`{}`: {error}", root.display()));
        Self { entries: walk.entries }
    }

    /// The same without the times of directories, which every change of a list of names sets.
    #[must_use]
    pub fn without_dir_times(mut self) -> Self {
        for entry in self.entries.values_mut().filter(|entry| entry.kind == "directory") {
            entry.mtime = None;
        }
        self
    }

    /// The same without the times of files.
    #[must_use]
    pub fn without_file_times(mut self) -> Self {
        for entry in self.entries.values_mut().filter(|entry| entry.kind == "file") {
            entry.mtime = None;
        }
        self
    }

    /// The same without any times, for what a program writes anew in each run.
    #[must_use]
    pub fn without_times(mut self) -> Self {
        for entry in self.entries.values_mut() {
            entry.mtime = None;
        }
        self
    }

    /// Every difference as a line; `-` is what only the first has, `+` what only the second has, `!` what differs.
    pub fn diff(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, entry) in &self.entries {
            match other.entries.get(path) {
                None => lines.push(format!("- `{}` ({})", shown(path), entry.kind)),
                Some(theirs) => {
                    lines.extend(entry.diff(theirs).map(|what| format!("! `{}`: {what}", shown(path))));
                }
            }
        }
        let added = other.entries.iter().filter(|(path, _)| !self.entries.contains_key(*path));
        lines.extend(added.map(|(path, entry)| format!("+ `{}` ({})", shown(path), entry.kind)));
        lines
    }

    /// The differences, but for when directories were last changed.
    pub fn diff_but_dir_times(&self, other: &Self) -> Vec<String> {
        let without = |snapshot: &Self| {
            let mut snapshot = snapshot.clone();
            for entry in snapshot.entries.values_mut().filter(|entry| entry.kind == "directory") {
                entry.mtime = None;
            }
            snapshot
        };
        without(self).diff(&without(other))
    }

    /// The paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// How many names there are, the root's own included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Fails with a list of what differs.
#[track_caller]
pub fn assert_same_tree(before: &Snapshot, after: &Snapshot) {
    let lines = before.diff(after);
    assert!(lines.is_empty(), "the trees differ in {} places:\n{}", lines.len(), lines.join("\n"));
}

impl Entry {
    fn diff<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = String> + 'a {
        let mtimes = self.mtime.is_none() || other.mtime.is_none() || self.mtime == other.mtime;
        let fields = [
            ("kind", self.kind == other.kind, format!("{} / {}", self.kind, other.kind)),
            ("mode", self.mode == other.mode, format!("{:o} / {:o}", self.mode, other.mode)),
            ("owner", self.owner == other.owner, format!("{:?} / {:?}", self.owner, other.owner)),
            ("mtime", mtimes, format!("{:?} / {:?}", self.mtime, other.mtime)),
            ("size", self.size == other.size, format!("{} / {}", self.size, other.size)),
            ("target", self.target == other.target, format!("{:?} / {:?}", self.target, other.target)),
            ("link to", self.link_to == other.link_to, format!("{:?} / {:?}", self.link_to, other.link_to)),
            ("xattrs", self.xattrs == other.xattrs, format!("{:?} / {:?}", self.xattrs, other.xattrs)),
            ("content", self.content == other.content, "other bytes".to_owned()),
        ];
        fields.into_iter().filter(|(_, same, _)| !same).map(|(name, _, values)| format!("{name} {values}"))
    }
}

fn shown(path: &Path) -> RawPath {
    RawPath::from(path)
}

struct Walk<'a> {
    ignored: &'a [&'a str],
    first_names: HashMap<(u64, u64), PathBuf>,
    entries: BTreeMap<PathBuf, Entry>,
}

impl Walk<'_> {
    fn visit(&mut self, path: &Path, below: &Path) -> io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        let mut entry = Entry {
            kind: "file",
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: Some((meta.mtime(), meta.mtime_nsec())),
            size: 0,
            target: None,
            link_to: None,
            xattrs: xattrs(path)?,
            content: None,
        };
        if kind.is_dir() {
            entry.kind = "directory";
            if self.ignored.iter().any(|pattern| Path::new(pattern).parent() == Some(below)) {
                entry.mtime = None;
            }
            let mut names: Vec<_> = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
            names.sort_by_key(fs::DirEntry::file_name);
            for name in names {
                let child = below.join(name.file_name());
                if !self.ignored.iter().any(|pattern| matches(pattern, &child)) {
                    self.visit(&name.path(), &child)?;
                }
            }
        } else if kind.is_symlink() {
            entry.kind = "symbolic link";
            entry.target = Some(fs::read_link(path)?);
        } else if kind.is_file() {
            entry.size = meta.len();
            let mut hasher = blake3::Hasher::new();
            io::copy(&mut fs::File::open(path)?, &mut hasher)?;
            entry.content = Some(hasher.finalize());
        } else if kind.is_fifo() {
            entry.kind = "fifo";
        } else if kind.is_socket() {
            entry.kind = "socket";
        } else {
            entry.kind = "device";
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            let first = self.first_names.entry((meta.dev(), meta.ino())).or_insert_with(|| below.to_owned());
            entry.link_to = Some(first.clone());
        }
        self.entries.insert(below.to_owned(), entry);
        Ok(())
    }
}

fn matches(pattern: &str, path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    match pattern.split_once('*') {
        None => path == pattern.as_bytes(),
        Some((head, tail)) => {
            path.len() >= head.len() + tail.len()
                && path.starts_with(head.as_bytes())
                && path.ends_with(tail.as_bytes())
        }
    }
}

fn xattrs(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(rustix::io::Errno::NOTSUP | rustix::io::Errno::NOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(length);
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}
