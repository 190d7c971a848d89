//! What a directory of cube data held on HDFS, and the two digests that stand for it.
//!
//! The digest of the content is blake3 over path, length and HDFS's own checksum of every file: equal digests mean that
//! two trees were *written* equal. HDFS takes its checksums from what it noted at writing and does not read the data, so
//! that a block which has decayed since keeps its checksum; `fsck` and reading every byte are for that.

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Hasher};
use crate::raw_path::RawPath;

/// One name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CubeEntry {
    /// Path below the root; empty for the root itself.
    pub path: RawPath,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub length: u64,
    /// Block size in bytes; 0 for a directory.
    pub block_bytes: u64,
    /// The algorithm of the checksum; empty for a directory, and where none was asked for.
    pub algorithm: String,
    /// The checksum, likewise.
    pub checksum: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: String,
    /// Group.
    pub group: String,
    /// Modification time in milliseconds since 1970-01-01 UTC.
    pub mtime_ms: u64,
    /// Replication; 0 for a directory.
    pub replication: u16,
    /// The access list beyond the permission bits, as `getfacl` shows it; empty if there is none.
    pub acl: String,
}

/// What a tree held, sorted by the bytes of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CubeManifest {
    /// The entries.
    pub entries: Vec<CubeEntry>,
}

/// Which attributes a comparison passes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// Owner and group, where kytx may not set them.
    pub owner: bool,
    /// Times of directories, which some releases of DistCp do not keep.
    pub dir_times: bool,
}

/// A difference between two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, below the root.
    pub path: RawPath,
    /// Whether content differs, or attributes alone.
    pub is_content: bool,
    /// What differs, in words.
    pub what: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_bytes() {
            [] => write!(f, "the directory itself: {}", self.what),
            _ => write!(f, "`{}`: {}", self.path, self.what),
        }
    }
}

impl CubeManifest {
    /// Sorts entries into a manifest.
    pub fn new(mut entries: Vec<CubeEntry>) -> Self {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// How many files.
    pub fn files(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.is_dir).count()
    }

    /// Bytes of content.
    pub fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.length).sum()
    }

    /// The digest of names, lengths and checksums. A checksum that does not depend on the layout stands without the
    /// block size.
    pub fn content_root(&self) -> Digest {
        let mut hasher = Hasher::domain("kytx 2026 cube data content v1");
        for entry in &self.entries {
            put_key(&mut hasher, entry);
            if !entry.is_dir {
                let layout = if entry.algorithm.starts_with("COMPOSITE") { 0 } else { entry.block_bytes };
                hasher.update(&entry.length.to_be_bytes());
                hasher.update(&layout.to_be_bytes());
                put(&mut hasher, entry.algorithm.as_bytes());
                put(&mut hasher, entry.checksum.as_bytes());
            }
        }
        hasher.finish()
    }

    /// The digest of names and attributes. The root's own time is left out: no program of Hadoop before 3.4 can set it.
    pub fn attribute_root(&self) -> Digest {
        let mut hasher = Hasher::domain("kytx 2026 cube data attributes v1");
        for entry in &self.entries {
            put_key(&mut hasher, entry);
            hasher.update(&entry.mode.to_be_bytes());
            put(&mut hasher, entry.owner.as_bytes());
            put(&mut hasher, entry.group.as_bytes());
            let mtime_ms = if entry.path.as_bytes().is_empty() { 0 } else { entry.mtime_ms };
            hasher.update(&mtime_ms.to_be_bytes());
            hasher.update(&entry.replication.to_be_bytes());
            put(&mut hasher, entry.acl.as_bytes());
        }
        hasher.finish()
    }

    /// Every difference of another tree from this one.
    pub fn differences(&self, other: &Self, apart: Apart) -> Vec<Difference> {
        let mut found = Vec::new();
        let (mut left, mut right) = (self.entries.iter().peekable(), other.entries.iter().peekable());
        let content = |entry: &CubeEntry, what: &str| Difference {
            path: entry.path.clone(),
            is_content: true,
            what: what.to_owned(),
        };
        loop {
            match (left.peek(), right.peek()) {
                (None, None) => return found,
                (Some(a), Some(b)) if a.path == b.path => {
                    found.extend(differing(a, b, apart));
                    left.next();
                    right.next();
                }
                (Some(a), Some(b)) if b.path < a.path => {
                    found.push(content(b, "there is more than there should be"));
                    right.next();
                }
                (Some(a), _) => {
                    found.push(content(a, "it is missing"));
                    left.next();
                }
                (None, Some(b)) => {
                    found.push(content(b, "there is more than there should be"));
                    right.next();
                }
            }
        }
    }
}

fn differing(a: &CubeEntry, b: &CubeEntry, apart: Apart) -> Option<Difference> {
    let found = |is_content, what: String| Some(Difference { path: a.path.clone(), is_content, what });
    if a.is_dir != b.is_dir {
        return found(true, "a directory where a file should be, or the other way round".to_owned());
    }
    if a.length != b.length {
        return found(true, format!("{} bytes long, and should be {}", b.length, a.length));
    }
    if (&a.algorithm, &a.checksum) != (&b.algorithm, &b.checksum) {
        return found(true, format!("its checksum is {}, and should be {}", b.checksum, a.checksum));
    }
    let mut attributes = Vec::new();
    let mut note = |differs: bool, what: String| {
        if differs {
            attributes.push(what);
        }
    };
    let octal = |mode: u32| format!("{mode:o}");
    note(a.mode != b.mode, format!("mode {} instead of {}", octal(b.mode), octal(a.mode)));
    note(
        a.replication != b.replication,
        format!("replication {} instead of {}", b.replication, a.replication),
    );
    note(
        a.block_bytes != b.block_bytes,
        format!("block size {} instead of {}", b.block_bytes, a.block_bytes),
    );
    note(a.acl != b.acl, format!("access list `{}` instead of `{}`", b.acl, a.acl));
    let owner = (&a.owner, &a.group) != (&b.owner, &b.group);
    note(owner && !apart.owner, format!("owner {}:{} instead of {}:{}", b.owner, b.group, a.owner, a.group));
    let times = !(a.path.as_bytes().is_empty() || a.is_dir && apart.dir_times);
    note(times && a.mtime_ms != b.mtime_ms, format!("time {} instead of {}", b.mtime_ms, a.mtime_ms));
    if attributes.is_empty() { None } else { found(false, attributes.join(", ")) }
}

fn put(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

fn put_key(hasher: &mut Hasher, entry: &CubeEntry) {
    hasher.update(if entry.is_dir { b"D" } else { b"F" });
    put(hasher, entry.path.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, is_dir: bool) -> CubeEntry {
        CubeEntry {
            path: path.into(),
            is_dir,
            length: if is_dir { 0 } else { 7 },
            block_bytes: if is_dir { 0 } else { 1 << 20 },
            algorithm: if is_dir { String::new() } else { "MD5-of-0MD5-of-512CRC32C".into() },
            checksum: if is_dir { String::new() } else { "00aa".into() },
            mode: 0o755,
            owner: "ke".into(),
            group: "kegrp".into(),
            mtime_ms: 5,
            replication: u16::from(!is_dir),
            acl: String::new(),
        }
    }

    fn tree() -> CubeManifest {
        CubeManifest::new(vec![entry("b", false), entry("", true), entry("a", true), entry("a/x", false)])
    }

    #[test]
    fn each_part_is_in_one_of_the_two_digests_and_in_the_differences() {
        type Spoil = fn(&mut CubeEntry);
        let content: [Spoil; 4] =
            [|e| e.length += 1, |e| e.checksum.push('0'), |e| e.algorithm.push('0'), |e| e.path = "c".into()];
        let attributes: [Spoil; 6] = [
            |e| e.mode = 0o700,
            |e| e.owner.push('2'),
            |e| e.group.push('2'),
            |e| e.mtime_ms += 1,
            |e| e.replication += 1,
            |e| e.acl.push('u'),
        ];
        for (spoils, is_content) in [(&content[..], true), (&attributes[..], false)] {
            for (at, spoil) in spoils.iter().enumerate() {
                let mut other = tree();
                spoil(&mut other.entries[3]);
                assert_eq!(tree().content_root() != other.content_root(), is_content, "{at}");
                assert!(tree().attribute_root() != other.attribute_root() || is_content, "{at}");
                let found = tree().differences(&other, Apart::default());
                assert!(
                    !found.is_empty() && found.iter().all(|one| one.is_content == is_content),
                    "{found:?}"
                );
            }
        }
        assert!(tree().differences(&tree(), Apart::default()).is_empty());
    }

    #[test]
    fn what_is_missing_and_what_is_more_is_named() {
        let mut other = tree();
        other.entries.remove(2);
        other.entries.push(entry("c", false));
        let found: Vec<String> =
            tree().differences(&other, Apart::default()).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["`a/x`: it is missing", "`c`: there is more than there should be"]);
    }

    #[test]
    fn what_cannot_be_set_can_be_passed_over() {
        let mut other = tree();
        other.entries[0].mtime_ms = 9;
        assert_eq!(tree().attribute_root(), other.attribute_root(), "the root's own time");
        other.entries[1].mtime_ms = 9;
        other.entries[3].owner = "root".into();
        let apart = Apart { owner: true, dir_times: true };
        assert!(tree().differences(&other, apart).is_empty());
        assert_eq!(tree().differences(&other, Apart::default()).len(), 2);
    }
}
