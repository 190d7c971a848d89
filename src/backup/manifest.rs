//! What a tree held: one entry a name, with everything that is compared.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::effect::fs::{Kind, Timestamp, Xattr};
use crate::raw_path::RawPath;

/// One name of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Path below the root, without leading `./`; empty for the root itself.
    pub path: RawPath,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Length of a regular file's content in bytes; 0 for anything else.
    pub size: u64,
    /// For a file with several names in this tree: the first of them in order, its own path if it is the first.
    pub hard_link: Option<RawPath>,
    /// Where a symbolic link points.
    pub target: Option<RawPath>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// Plain blake3 of a regular file's content. `None` if nobody has read it, as in a plain listing.
    pub content: Option<Digest>,
}

/// What a tree held, sorted by path bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The entries.
    pub entries: Vec<Entry>,
}
