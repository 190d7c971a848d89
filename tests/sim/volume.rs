//! What is behind the simulated file system: the image that a running system sees, paths, and every change as an entry
//! of the log.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use kytx::effect::fs::{Kind, Site, Timestamp};

use crate::disk::{Image, Ino, Node, Op, Put, ROOT};

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

/// What is behind it.
pub struct Core {
    /// What a running system sees.
    pub image: Image,
    /// Every change since it was mounted.
    pub log: Vec<Logged>,
    /// The places that have asked for durability.
    pub asked: BTreeSet<Place>,
    pub lacking: Lacking,
    /// The places whose requests are swallowed.
    deaf_to: Vec<Place>,
    clock: i64,
    /// The number of the inode made last. Those free at the boot are given again first, as real file systems do.
    last: Ino,
}

/// How many links may lead on to one another.
const LINKS_MAX: usize = 40;

/// What opening a symbolic link gives where none is followed.
pub const ELOOP: i32 = 40;

pub fn error(kind: ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl Core {
    /// Boots with what a disk holds. Every boot has times of its own.
    pub fn new(image: Image, lacking: Lacking, deaf_to: Vec<Place>, boot: i64) -> Self {
        let clock = 1_500_000_000 + boot * 1_000_000;
        Self { image, log: Vec::new(), asked: BTreeSet::new(), lacking, deaf_to, clock, last: ROOT }
    }

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

    pub fn force(&mut self, op: Op, site: Site) {
        let place = (site.file().to_owned(), site.line());
        let heard = !self.deaf_to.contains(&place);
        self.asked.insert(place);
        if heard {
            self.log.push((op, Timestamp::default()));
        }
    }

    /// The inode behind a path, whose last component is not followed.
    pub fn find(&self, path: &Path) -> io::Result<Ino> {
        self.find_through(path, false, LINKS_MAX)
    }

    fn find_through(&self, path: &Path, follow: bool, links: usize) -> io::Result<Ino> {
        let mut above = Vec::new();
        let mut at = ROOT;
        let mut walked = PathBuf::from("/");
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir => {
                    at = above.pop().unwrap_or(ROOT);
                    walked.pop();
                }
                Component::Normal(name) => {
                    let node = self.image.node(at);
                    if node.kind != Kind::Dir {
                        return Err(error(ErrorKind::NotADirectory));
                    }
                    above.push(at);
                    at = *node.names.get(name).ok_or_else(|| error(ErrorKind::NotFound))?;
                    let (node, rest) = (self.image.node(at), parts.as_path());
                    if node.kind == Kind::Symlink && (follow || !rest.as_os_str().is_empty()) {
                        let left = links.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(ELOOP))?;
                        return self.find_through(&walked.join(&node.target).join(rest), follow, left);
                    }
                    walked.push(name);
                }
                Component::Prefix(_) => unreachable!("BUG: no such paths here"),
            }
        }
        Ok(at)
    }

    pub fn node(&self, path: &Path) -> io::Result<(Ino, &Node)> {
        let ino = self.find(path)?;
        Ok((ino, self.image.node(ino)))
    }

    /// The directory that holds a name, and the name.
    fn place<'p>(&self, path: &'p Path) -> io::Result<(Ino, &'p OsStr)> {
        let dir = self.find_through(path.parent().unwrap_or(Path::new("/")), true, LINKS_MAX)?;
        if self.image.node(dir).kind != Kind::Dir {
            return Err(error(ErrorKind::NotADirectory));
        }
        Ok((dir, path.file_name().ok_or_else(|| error(ErrorKind::InvalidInput))?))
    }

    pub fn free_place<'p>(&self, path: &'p Path) -> io::Result<(Ino, &'p OsStr)> {
        let (dir, name) = self.place(path)?;
        if self.image.node(dir).names.contains_key(name) {
            return Err(error(ErrorKind::AlreadyExists));
        }
        Ok((dir, name))
    }

    pub fn give(&mut self, dir: Ino, name: &OsStr, ino: Ino) {
        self.change(Op::Names(vec![Put { dir, name: name.to_owned(), now: Some(ino) }], vec![ino]));
    }

    pub fn make(&mut self, path: &Path, kind: Kind, mode: u32, target: &Path) -> io::Result<Ino> {
        let (dir, name) = self.free_place(path)?;
        while self.image.nodes.contains_key(&self.last) {
            self.last += 1;
        }
        let ino = self.last;
        let mut node = Node::new(kind, mode & 0o7777, self.tick());
        target.as_os_str().clone_into(&mut node.target);
        self.change(Op::Make(ino, Arc::new(node)));
        self.give(dir, name, ino);
        Ok(ino)
    }

    pub fn remove(&mut self, path: &Path, dir_wanted: bool) -> io::Result<()> {
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

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ((from_dir, from_name), (to_dir, to_name)) = (self.place(from)?, self.place(to)?);
        let ino = self.find(from)?;
        if from != to && to.starts_with(from) {
            return Err(error(ErrorKind::InvalidInput));
        }
        if from != to && from.starts_with(to) {
            return Err(error(ErrorKind::DirectoryNotEmpty));
        }
        if self.find(to).is_ok_and(|there| there == ino) {
            return Ok(());
        }
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

    pub fn exchange(&mut self, a: &Path, b: &Path) -> io::Result<()> {
        if self.lacking.exchange {
            return Err(error(ErrorKind::Unsupported));
        }
        let ((dir_a, name_a), (dir_b, name_b)) = (self.place(a)?, self.place(b)?);
        let (ino_a, ino_b) = (self.find(a)?, self.find(b)?);
        if a != b && (a.starts_with(b) || b.starts_with(a)) {
            // What the real one makes of EINVAL.
            return Err(error(ErrorKind::Unsupported));
        }
        if ino_a == ino_b {
            return Ok(());
        }
        let puts = vec![
            Put { dir: dir_a, name: name_a.to_owned(), now: Some(ino_b) },
            Put { dir: dir_b, name: name_b.to_owned(), now: Some(ino_a) },
        ];
        self.change(Op::Names(puts, vec![ino_a, ino_b]));
        Ok(())
    }
}
