//! Cube data: what kytx needs of a Hadoop file system, and its form for `file:` working directories.
//!
//! The trait is at the grain of the operations that mean something on HDFS, not of system calls: `mirror` is DistCp's
//! `-update -delete` there and kytx's own copier here.

pub mod cluster;
pub mod job;
pub mod local;
pub mod lock;
pub mod manifest;
pub mod parse;
pub mod survey;

use std::io;

use serde::{Deserialize, Serialize};

use crate::backup::manifest::Entry;
use crate::effect::fs::Timestamp;
use crate::effect::tree::Tick;
use crate::raw_path::RawPath;

/// One entry of a mirrored directory, with what tells later whether the source has changed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirrored {
    /// What the copy holds.
    pub entry: Entry,
    /// When the source's content or attributes last changed.
    pub source_ctime: Timestamp,
    /// The source's inode.
    pub source_ino: u64,
}

/// Why an operation on cube data failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HdfsError {
    /// The path's scheme is one that this engine cannot serve.
    #[error("kytx cannot work on `{0}`: only `file:` working directories are supported")]
    Scheme(RawPath),
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something that must not exist does.
    #[error("`{0}` exists already")]
    Exists(RawPath),
}

/// A Hadoop file system, as kytx needs it.
pub trait Hdfs {
    /// Proves that a directory can be reached: it is there, and it can be listed.
    fn reach(&self, dir: &RawPath) -> Result<(), HdfsError>;
    /// Whether anything has this name.
    fn exists(&self, path: &RawPath) -> Result<bool, HdfsError>;
    /// The names in a directory.
    fn list(&self, dir: &RawPath) -> Result<Vec<RawPath>, HdfsError>;
    /// Content bytes below a path, and how many entries.
    fn measure(&self, path: &RawPath) -> Result<(u64, u64), HdfsError>;
    /// Makes a directory, closed to others, and those above it.
    fn make_dirs(&self, dir: &RawPath) -> Result<(), HdfsError>;
    /// Makes `target` an exact copy of `source`, durably: adds, replaces, removes. What `known` says of an unchanged
    /// source file is believed; everything else is read and hashed. Returns every entry, sorted by path.
    fn mirror(
        &self,
        source: &RawPath,
        target: &RawPath,
        known: &[Mirrored],
        tick: Tick<'_>,
    ) -> Result<Vec<Mirrored>, HdfsError>;
    /// Every entry below a path, each file read and hashed, sorted by path.
    fn manifest(&self, path: &RawPath, tick: Tick<'_>) -> Result<Vec<Entry>, HdfsError>;
    /// Renames in one act, durably, onto a name that must not exist.
    fn rename(&self, from: &RawPath, to: &RawPath) -> Result<(), HdfsError>;
    /// Removes a directory that is empty, durably. One that is not, or not there, is fine and stays as it is.
    fn remove_if_empty(&self, dir: &RawPath) -> Result<(), HdfsError>;
    /// Makes durable that a name is there, or is not there any more.
    fn make_durable(&self, path: &RawPath) -> Result<(), HdfsError>;
    /// Removes a tree, durably. One that is not there is fine.
    fn remove(&self, path: &RawPath, tick: Tick<'_>) -> Result<(), HdfsError>;
}

/// The scheme of a path, `None` if it has none.
pub fn scheme(path: &RawPath) -> Option<&str> {
    let end = path.as_bytes().iter().position(|byte| *byte == b':')?;
    let scheme = std::str::from_utf8(&path.as_bytes()[..end]).ok()?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    (!scheme.is_empty() && scheme.chars().all(legal)).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_told_from_plain_paths() {
        let scheme_of = |text: &str| scheme(&text.into()).map(str::to_owned);
        assert_eq!(scheme_of("file:///kylin").as_deref(), Some("file"));
        assert_eq!(scheme_of("hdfs://ns/kylin").as_deref(), Some("hdfs"));
        assert_eq!(scheme_of("s3a://b/k").as_deref(), Some("s3a"));
        assert_eq!(scheme_of("/kylin"), None);
        assert_eq!(scheme_of("/odd:name"), None);
        assert_eq!(scheme_of(":x"), None);
    }
}
