//! What is on a disk: inodes, names, bytes with holes; and the operations that change it, as data.
//!
//! An image is cheap to copy, since inodes and blocks are shared until they change. Operations are applied in the
//! order in which they were made, whichever of them are: that is how a crash state is built.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kytx::effect::fs::{Attrs, Kind, Timestamp};

/// The number of an inode.
pub type Ino = u64;

/// The inode of `/`.
pub const ROOT: Ino = 2;

/// What a file system writes at once, at best.
pub const BLOCK: u64 = 4096;

/// What the product's database holds: it has a durability of its own.
pub type Database = BTreeMap<String, Vec<u8>>;

/// What was written to a block; zeros follow where it is short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Block {
    bytes: Vec<u8>,
    /// Stands for the bytes where states are told apart, as hashing them in each would take longer than all the rest.
    sum: u64,
}

impl Block {
    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.bytes);
        let sum = blake3::hash(&self.bytes);
        self.sum = u64::from_le_bytes(*sum.as_bytes().first_chunk().expect("BUG: it is longer"));
    }
}

impl Hash for Block {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.sum.hash(hasher);
    }
}

/// Bytes with holes: a block that was never written is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    /// The length in bytes.
    pub size: u64,
    /// By number.
    blocks: BTreeMap<u64, Arc<Block>>,
}

impl Content {
    /// Overwrites, and grows as far as is needed.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let (mut at, mut bytes) = (at, bytes);
        while !bytes.is_empty() {
            let offset = (at % BLOCK) as usize;
            let count = bytes.len().min(BLOCK as usize - offset);
            Arc::make_mut(self.blocks.entry(at / BLOCK).or_default()).change(|block| {
                if block.len() < offset + count {
                    block.resize(offset + count, 0);
                }
                block[offset..offset + count].copy_from_slice(&bytes[..count]);
            });
            at += count as u64;
            bytes = &bytes[count..];
            self.size = self.size.max(at);
        }
    }

    /// Cuts, or grows by a hole.
    pub fn set_len(&mut self, size: u64) {
        if size < self.size {
            self.blocks.retain(|number, _| number * BLOCK < size);
            if let Some(last) = self.blocks.get_mut(&(size / BLOCK)) {
                Arc::make_mut(last).change(|block| block.truncate((size % BLOCK) as usize));
            }
        }
        self.size = size;
    }

    /// Reads what is there, up to the end.
    pub fn read(&self, at: u64, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.size.saturating_sub(at) as usize);
        let mut done = 0;
        while done < count {
            let (at, offset) = (at + done as u64, ((at + done as u64) % BLOCK) as usize);
            let part = &mut buffer[done..count.min(done + BLOCK as usize - offset)];
            part.fill(0);
            if let Some(block) = self.blocks.get(&(at / BLOCK)).map(|block| &block.bytes)
                && offset < block.len()
            {
                let there = part.len().min(block.len() - offset);
                part[..there].copy_from_slice(&block[offset..offset + there]);
            }
            done += part.len();
        }
        count
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.size as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// The next range at or after `offset` that is no hole.
    pub fn next_data(&self, offset: u64) -> Option<(u64, u64)> {
        let (&first, _) = self.blocks.range(offset / BLOCK..).next()?;
        let end = (first..=self.size / BLOCK).find(|number| !self.blocks.contains_key(number));
        let end = end.unwrap_or(self.size / BLOCK + 1);
        let start = offset.max(first * BLOCK);
        (start < self.size).then(|| (start, (end * BLOCK).min(self.size)))
    }

    /// Bytes on the medium.
    pub fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK
    }
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// When the content changed.
    pub mtime: Timestamp,
    /// When anything changed.
    pub ctime: Timestamp,
    /// When it was made.
    pub born: Timestamp,
    /// How many names it has.
    pub nlink: u64,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a file: its bytes.
    pub content: Content,
    /// Of a directory: its names.
    pub names: BTreeMap<OsString, Ino>,
    /// Of a symbolic link: where it points.
    pub target: OsString,
}

impl Node {
    /// A new one, empty.
    pub fn new(kind: Kind, mode: u32, time: Timestamp) -> Self {
        Self {
            kind,
            mode,
            owner: (0, 0),
            mtime: time,
            ctime: time,
            born: time,
            nlink: 0,
            xattrs: BTreeMap::new(),
            content: Content::default(),
            names: BTreeMap::new(),
            target: OsString::new(),
        }
    }
}

/// What becomes of one name.
#[derive(Clone, Debug)]
pub struct Put {
    /// The directory.
    pub dir: Ino,
    /// The name.
    pub name: OsString,
    /// What it names from now on.
    pub now: Option<Ino>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Op {
    /// An inode without a name. It costs nothing that it is there: without a name nobody finds it.
    Make(Ino, Arc<Node>),
    /// Names given and taken, as one act; and the inodes that it moves.
    Names(Vec<Put>, Vec<Ino>),
    /// Bytes written.
    Write(Ino, u64, Arc<Vec<u8>>),
    /// A length set.
    Len(Ino, u64),
    /// Attributes set.
    Attrs(Ino, Attrs),
    /// An extended attribute set.
    Xattr(Ino, Vec<u8>, Vec<u8>),
    /// A file forced to the medium.
    SyncFile(Ino),
    /// A directory forced to the medium.
    SyncDir(Ino),
    /// Everything forced to the medium.
    SyncAll,
    /// The product's database has committed.
    Commit(Arc<Database>),
    /// So many records of the journal are acknowledged.
    Acknowledged(usize),
}

/// Everything on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The inodes.
    pub nodes: BTreeMap<Ino, Arc<Node>>,
    /// The product's database.
    pub database: Arc<Database>,
}

impl Image {
    /// A root directory and nothing else.
    pub fn empty() -> Self {
        let mut root = Node::new(Kind::Dir, 0o755, Timestamp::default());
        root.nlink = 1;
        Self { nodes: BTreeMap::from([(ROOT, Arc::new(root))]), database: Arc::default() }
    }

    /// The inode of that number.
    pub fn node(&self, ino: Ino) -> &Node {
        &self.nodes[&ino]
    }

    fn change(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(&ino).map(Arc::make_mut)
    }

    /// Applies an operation that was made at `time`. Applied late, it does not undo what came after it.
    pub fn apply(&mut self, op: &Op, time: Timestamp) {
        match op {
            Op::Make(ino, node) => {
                self.nodes.entry(*ino).or_insert_with(|| Arc::clone(node));
            }
            Op::Names(puts, moved) => {
                for put in puts {
                    self.put(put, time);
                }
                for ino in moved {
                    if let Some(node) = self.change(*ino) {
                        node.ctime = node.ctime.max(time);
                    }
                }
            }
            Op::Write(ino, at, bytes) => {
                self.touch(*ino, time).content.write(*at, bytes);
            }
            Op::Len(ino, size) => self.touch(*ino, time).content.set_len(*size),
            Op::Attrs(ino, attrs) => {
                let node = self.change(*ino).expect("BUG: an inode before its attributes");
                node.mode = attrs.mode.unwrap_or(node.mode);
                node.owner = attrs.owner.unwrap_or(node.owner);
                if node.ctime <= time {
                    node.mtime = attrs.mtime.unwrap_or(node.mtime);
                }
                node.ctime = node.ctime.max(time);
            }
            Op::Xattr(ino, name, value) => {
                let node = self.change(*ino).expect("BUG: an inode before its attributes");
                node.xattrs.insert(name.clone(), value.clone());
                node.ctime = node.ctime.max(time);
            }
            Op::Commit(database) => self.database = Arc::clone(database),
            Op::SyncFile(_) | Op::SyncDir(_) | Op::SyncAll | Op::Acknowledged(_) => {}
        }
    }

    /// The inode, with the times of a change of content.
    fn touch(&mut self, ino: Ino, time: Timestamp) -> &mut Node {
        let node = self.change(ino).expect("BUG: an inode before its content");
        if node.ctime <= time {
            (node.mtime, node.ctime) = (time, time);
        }
        node
    }

    fn put(&mut self, put: &Put, time: Timestamp) {
        let dir = self.touch(put.dir, time);
        let before = match put.now {
            Some(ino) => dir.names.insert(put.name.clone(), ino),
            None => dir.names.remove(&put.name),
        };
        for (ino, more) in [(put.now, true), (before, false)] {
            if let Some(node) = ino.and_then(|ino| self.change(ino)) {
                node.nlink = if more { node.nlink + 1 } else { node.nlink - 1 };
            }
        }
    }

    /// Forgets inodes that nothing names, as the check of a file system does.
    pub fn sweep(&mut self) {
        let mut there = vec![ROOT];
        let mut seen = std::collections::BTreeSet::from([ROOT]);
        while let Some(ino) = there.pop() {
            there.extend(self.node(ino).names.values().copied().filter(|ino| seen.insert(*ino)));
        }
        self.nodes.retain(|ino, _| seen.contains(ino));
    }

    /// What tells one crash state from another.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Fold(0);
        (&self.nodes, &self.database).hash(&mut hasher);
        hasher.finish()
    }
}

/// A quick hash over words: most of the time goes into telling states apart.
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 = (self.0.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }
}
