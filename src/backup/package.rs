//! A package of the vendor: hostile until proven.
//!
//! A package is a `.tar.gz` or a directory unpacked from one. It is read in one pass, in bounded memory, before
//! anything is stopped, and whatever could be understood in two ways, could leave the tree, or could fill the disk
//! is refused by name. What is accepted is normalised: paths relative to the one top directory; permission bits
//! without setuid, setgid and sticky (no release ships them, and plain `tar` as an ordinary user drops them too);
//! no owner and no extended attributes, since the files will belong to the owner of the old home.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::manifest::{Entry, Manifest, ManifestError};
use super::pour::pour;
use super::tar_in::TarError;
use super::tree_writer::Sink;
use crate::digest::Digest;
use crate::effect::fs::{Fs, Kind};
use crate::effect::tree::Tick;
use crate::raw_path::RawPath;

/// What a package held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Covers the top directory's name and everything below it. A `.tar.gz` and the directory unpacked from it differ
    /// only if something in them does.
    pub content: Digest,
    /// The name of the one top directory.
    pub top: RawPath,
    /// Everything below it, with content, owned by nobody in particular (0:0).
    pub manifest: Manifest,
    /// The small files that were asked for, by their path below the top directory.
    pub texts: BTreeMap<RawPath, Vec<u8>>,
}

/// What a package may at most unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of content.
    pub unpacked_bytes: u64,
    /// Names.
    pub entries: u64,
    /// How many times longer it may become. Real packages stay below 3, logs below 30; gzip reaches 1,030.
    pub ratio: u64,
}

impl Limits {
    /// For a package that will be unpacked where so much is free.
    pub fn for_free_bytes(free_bytes: u64) -> Self {
        Self { unpacked_bytes: free_bytes, entries: 1_000_000, ratio: 200 }
    }
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The file system refused, or a stop was asked for.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The directory could not be listed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It is neither a file nor a directory.
    #[error("the package `{path}` is neither a file nor a directory")]
    NeitherFileNorDir {
        /// The package.
        path: RawPath,
    },
    /// The file is not compressed with gzip.
    #[error("the package is not a gzip file")]
    NotGzip,
    /// The compressed stream ends in the middle.
    #[error("the package is cut off: its gzip stream ends in the middle")]
    CutOff,
    /// Something that is not gzip follows the compressed stream.
    #[error("something follows the end of the package's gzip stream")]
    TrailingGarbage,
    /// The compressed stream does not match its check sum, or makes no sense.
    #[error("the package is damaged: {what}")]
    Damaged {
        /// What the decoder says.
        what: String,
    },
    /// The tar stream inside cannot be relied on.
    #[error("the package's archive is refused")]
    Tar(#[source] TarError),
    /// A second name at the top.
    #[error("the package has two top entries: `{first}` and `{second}`")]
    TwoTops {
        /// The first.
        first: RawPath,
        /// The second.
        second: RawPath,
    },
    /// Nothing, or a single file, at the top.
    #[error("the package has no top directory")]
    NoTop,
    /// A name that begins with a slash.
    #[error("the package's member `{name}` has an absolute name")]
    Absolute {
        /// The member.
        name: RawPath,
    },
    /// A name with `..` in it.
    #[error("the package's member `{name}` has `..` in its name")]
    ParentInName {
        /// The member.
        name: RawPath,
    },
    /// A link that points outside the tree.
    #[error("the package's link `{name}` leaves the tree: it points to `{target}`")]
    LinkLeaves {
        /// The member.
        name: RawPath,
        /// Where it points.
        target: RawPath,
    },
    /// A hard link to something that is no earlier file of the package.
    #[error("the package's hard link `{name}` points to `{target}`, which is no earlier file of it")]
    LinkToNoFile {
        /// The member.
        name: RawPath,
        /// Where it points.
        target: RawPath,
    },
    /// A name below something that is not a directory: a link used as one, most of all.
    #[error("the package's member `{name}` lies below `{parent}`, which is no directory")]
    ParentIsNoDir {
        /// The member.
        name: RawPath,
        /// What is in the way.
        parent: RawPath,
    },
    /// A device, a FIFO or a socket.
    #[error("the package's member `{name}` is a {kind}")]
    SpecialFile {
        /// The member.
        name: RawPath,
        /// What it is.
        kind: &'static str,
    },
    /// One name twice.
    #[error("the package's member `{name}` is there twice")]
    Duplicate {
        /// The member.
        name: RawPath,
    },
    /// It would not fit.
    #[error("the package unpacks to more than the {limit} bytes that are free, at `{name}`")]
    TooLarge {
        /// Where it was noticed.
        name: RawPath,
        /// What is free.
        limit: u64,
    },
    /// More names than any release has.
    #[error("the package has more than {limit} members, at `{name}`")]
    TooManyMembers {
        /// Where it was noticed.
        name: RawPath,
        /// The limit.
        limit: u64,
    },
    /// It inflates like nothing real.
    #[error("the package inflates to more than {limit} times its length, at `{name}`")]
    Bomb {
        /// Where it was noticed.
        name: RawPath,
        /// The limit.
        limit: u64,
    },
    /// A file of an unpacked package changed while it was read.
    #[error("the package's file `{name}` changed while it was read")]
    ChangedMeanwhile {
        /// The file.
        name: RawPath,
    },
    /// It is not what was planned with.
    #[error("the package has changed since the plan was made: its content is {found}, was {expected}")]
    Changed {
        /// Content when planned.
        expected: Digest,
        /// Content now.
        found: Digest,
    },
    /// The unpacked tree is not what was unpacked.
    #[error("`{into}` is not as it was unpacked: {first} ({count} differences)")]
    Unfaithful {
        /// The tree.
        into: RawPath,
        /// The first difference.
        first: String,
        /// How many there are.
        count: usize,
    },
}

impl From<TarError> for PackageError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Io(error) => Self::Io(error),
            other => Self::Tar(other),
        }
    }
}

/// No text that kytx wants to read (a version file, a configuration) is longer.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// No jar out of which kytx wants to read a text is longer. The product's own tools have about 40 MiB.
const JAR_BYTES_MAX: u64 = 96 << 20;

/// Reads a package once, from its first byte to its last, and keeps the texts whose path below the top directory is
/// `wanted`. The path must be real: a link is neither a file nor a directory.
pub fn scan(
    fs: &dyn Fs,
    path: &Path,
    limits: Limits,
    wanted: &dyn Fn(&RawPath) -> bool,
    tick: Tick<'_>,
) -> Result<Package, PackageError> {
    let mut look = Look { wanted, texts: BTreeMap::new(), current: None };
    let (top, manifest) = pour(fs, path, limits, &mut look, tick)?;
    let content = content_of(&top, &manifest);
    Ok(Package { content, top, manifest, texts: look.texts })
}

/// The digest that binds a package.
pub(super) fn content_of(top: &RawPath, manifest: &Manifest) -> Digest {
    Digest::of_value("kytx 2026 package content v1", &(top, manifest.root()))
}

struct Look<'a> {
    wanted: &'a dyn Fn(&RawPath) -> bool,
    texts: BTreeMap<RawPath, Vec<u8>>,
    current: Option<Vec<u8>>,
}

impl Sink for Look<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        let limit = if entry.path.as_bytes().ends_with(b".jar") { JAR_BYTES_MAX } else { TEXT_BYTES_MAX };
        let is_text = entry.kind == Kind::File && !entry.is_later_name() && entry.size <= limit;
        self.current = (is_text && (self.wanted)(&entry.path)).then(Vec::new);
        Ok(())
    }

    fn content(&mut self, chunk: &[u8]) -> io::Result<()> {
        if let Some(text) = &mut self.current {
            text.extend_from_slice(chunk);
        }
        Ok(())
    }

    fn end(&mut self, entry: &Entry) -> io::Result<()> {
        if let Some(text) = self.current.take() {
            self.texts.insert(entry.path.clone(), text);
        }
        Ok(())
    }

    fn lose(&mut self, _: &Entry) -> io::Result<()> {
        self.current = None;
        Ok(())
    }
}
