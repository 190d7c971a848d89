//! What a tree held: one entry a name, with everything that is compared.

use std::cmp::Ordering;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::codec::{FormatError, Reader, Writer};
use crate::digest::{Digest, Hasher};
use crate::effect::fs::{Fs, Kind, Timestamp, Xattr, read_file};
use crate::effect::tree::{Context, atomic_write};
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

impl Entry {
    /// Whether this is a later name of a file that an earlier entry holds.
    pub fn is_later_name(&self) -> bool {
        self.hard_link.as_ref().is_some_and(|first| *first != self.path)
    }

    /// Whether an archive can hold it. Sockets and devices mean nothing in another place.
    pub fn is_archivable(&self) -> bool {
        !matches!(self.kind, Kind::Socket | Kind::Device)
    }
}

/// What a tree held, sorted in [`tree_order`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The entries.
    pub entries: Vec<Entry>,
}

/// Sorts paths as a depth-first walk meets them: by their bytes, but a slash before every other byte, so that all of
/// a directory comes right behind it. Plain byte order would put `a-b` between `a` and `a/b`; GNU tar then takes `a`
/// for complete, sets its times, and spoils them again with `a/b`.
pub fn tree_order(a: &RawPath, b: &RawPath) -> Ordering {
    // No path holds a NUL, so that it is free to stand for the slash.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.as_bytes().iter().map(key).cmp(b.as_bytes().iter().map(key))
}

/// Where in a sorted list of entries a path is.
pub fn find(entries: &[Entry], path: &RawPath) -> Option<usize> {
    entries.binary_search_by(|entry| tree_order(&entry.path, path)).ok()
}

/// Why a manifest cannot be made, written or read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system refused, or a stop was asked for.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is not the one that was recorded.
    #[error("`{path}` is not as it was recorded: its digest is {found}, recorded is {expected}")]
    Mismatch {
        /// The file.
        path: RawPath,
        /// The digest that was recorded.
        expected: Digest,
        /// The digest that it has.
        found: Digest,
    },
    /// The file is not a manifest.
    #[error("`{path}` cannot be read as a manifest")]
    Format {
        /// The file.
        path: RawPath,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
}

const MAGIC: &str = "kytxmanf";
const VERSION: u16 = 1;
/// What an entry with an empty path fills: the bound on what a count may claim.
const ENTRY_BYTES_MIN: usize = 40;
/// Some four million entries; more is damage, not an installation.
const FILE_BYTES_MAX: u64 = 1 << 30;

const HAS_HARD_LINK: u8 = 1;
const HAS_TARGET: u8 = 2;
const HAS_CONTENT: u8 = 4;

impl Manifest {
    /// The digest of everything in it, under a context of its own.
    pub fn root(&self) -> Digest {
        Digest::of_domain("kytx 2026 manifest v1", &self.encode())
    }

    /// The entry of this path.
    pub fn get(&self, path: &RawPath) -> Option<&Entry> {
        find(&self.entries, path).map(|place| &self.entries[place])
    }

    /// Sum of the lengths of the regular files, each counted once whatever the number of its names.
    pub fn content_bytes(&self) -> u64 {
        self.entries.iter().filter(|entry| !entry.is_later_name()).map(|entry| entry.size).sum()
    }

    /// A digest of a subtree (or of a single file or link) that is the same wherever an equal one lies, whoever owns
    /// it: relative path, kind, mode, length, content, link target, and the modification time of what is not a
    /// directory (that of a directory says when its list of names changed, and the list itself is covered).
    ///
    /// `None` if nothing has this path, or if a file below it was not read.
    pub fn content_digest(&self, under: &RawPath) -> Option<Digest> {
        let mut hasher = Hasher::domain("kytx 2026 subtree content v1");
        let mut found = false;
        for entry in &self.entries {
            let Some(tail) = below(under, &entry.path) else { continue };
            found = true;
            let mut record = Writer::default();
            record.bytes(tail);
            record.u8(code_of(entry.kind));
            record.u32(entry.mode);
            if entry.kind != Kind::Dir {
                put_time(&mut record, entry.mtime);
            }
            record.u64(entry.size);
            record.bytes(entry.target.as_ref().map_or(&[][..], RawPath::as_bytes));
            match (entry.kind, entry.content) {
                (Kind::File, None) => return None,
                (_, content) => record.raw(content.unwrap_or(Digest::ZERO).as_bytes()),
            }
            hasher.update(&record.finish());
        }
        found.then(|| hasher.finish())
    }

    /// The bytes of the manifest file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::start(MAGIC, VERSION);
        writer.u64(self.entries.len() as u64);
        for entry in &self.entries {
            encode_entry(&mut writer, entry);
        }
        writer.finish()
    }

    /// The manifest that these bytes are the encoding of.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::start(bytes, MAGIC, VERSION)?;
        let count = reader.count("the number of entries", ENTRY_BYTES_MIN)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = decode_entry(&mut reader)?;
            if entries.last().is_some_and(|last| tree_order(&last.path, &entry.path).is_ge()) {
                return Err(FormatError::OutOfOrder { path: entry.path });
            }
            entries.push(entry);
        }
        reader.end()?;
        Ok(Self { entries })
    }

    /// Writes the manifest file, atomically and durably, and returns the plain blake3 of its bytes, as `b3sum` shows
    /// it.
    pub fn write(&self, fs: &dyn Fs, path: &Path) -> Result<Digest, ManifestError> {
        let bytes = self.encode();
        atomic_write(fs, path, &bytes, 0o600)?;
        Ok(Digest::of(&bytes))
    }

    /// Reads a manifest file that must have this digest.
    pub fn read(fs: &dyn Fs, path: &Path, expected: &Digest) -> Result<Self, ManifestError> {
        let bytes = read_file(fs, path, FILE_BYTES_MAX).context("read", path)?;
        let found = Digest::of(&bytes);
        if found != *expected {
            return Err(ManifestError::Mismatch { path: path.into(), expected: *expected, found });
        }
        Self::decode(&bytes).map_err(|source| ManifestError::Format { path: path.into(), source })
    }
}

/// What of `path` follows `under`; `None` if it is not below it.
fn below<'a>(under: &RawPath, path: &'a RawPath) -> Option<&'a [u8]> {
    let tail = path.as_bytes().strip_prefix(under.as_bytes())?;
    if under.as_bytes().is_empty() || tail.is_empty() {
        return Some(tail);
    }
    tail.strip_prefix(b"/")
}

fn code_of(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Dir => 1,
        Kind::Symlink => 2,
        Kind::Fifo => 3,
        Kind::Socket => 4,
        Kind::Device => 5,
    }
}

fn kind_of(code: u8) -> Option<Kind> {
    [Kind::File, Kind::Dir, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::Device]
        .into_iter()
        .find(|kind| code_of(*kind) == code)
}

fn put_time(writer: &mut Writer, time: Timestamp) {
    writer.raw(&time.s.to_le_bytes());
    writer.u32(time.ns);
}

fn encode_entry(writer: &mut Writer, entry: &Entry) {
    writer.bytes(entry.path.as_bytes());
    writer.u8(code_of(entry.kind));
    writer.u32(entry.mode);
    writer.u32(entry.uid);
    writer.u32(entry.gid);
    put_time(writer, entry.mtime);
    writer.u64(entry.size);
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    writer.u8(flag(entry.hard_link.is_some(), HAS_HARD_LINK)
        | flag(entry.target.is_some(), HAS_TARGET)
        | flag(entry.content.is_some(), HAS_CONTENT));
    for path in entry.hard_link.iter().chain(&entry.target) {
        writer.bytes(path.as_bytes());
    }
    if let Some(content) = &entry.content {
        writer.raw(content.as_bytes());
    }
    writer.u32(entry.xattrs.len() as u32);
    for (name, value) in &entry.xattrs {
        writer.bytes(name);
        writer.bytes(value);
    }
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, FormatError> {
    let path = reader.path("a path")?;
    let code = reader.u8("a kind")?;
    let kind = kind_of(code).ok_or(FormatError::BadValue { field: "a kind", value: code.into() })?;
    let mode = at_most(reader.u32("a mode")?, 0o7777, "a mode")?;
    let (uid, gid) = (reader.u32("an owner")?, reader.u32("a group")?);
    let s = i64::from_le_bytes(reader.array("a time")?);
    let ns = at_most(reader.u32("a time")?, 999_999_999, "nanoseconds")?;
    let size = reader.u64("a length")?;
    let flags = reader.u8("flags")?;
    at_most(flags.into(), (HAS_HARD_LINK | HAS_TARGET | HAS_CONTENT).into(), "flags")?;
    let has = |flag| flags & flag != 0;
    let hard_link = has(HAS_HARD_LINK).then(|| reader.path("a hard link")).transpose()?;
    if hard_link.as_ref().is_some_and(|first| tree_order(first, &path).is_gt()) {
        return Err(FormatError::OutOfOrder { path });
    }
    let target = has(HAS_TARGET).then(|| reader.path("a link target")).transpose()?;
    let content = has(HAS_CONTENT).then(|| reader.digest("a digest")).transpose()?;
    let count = reader.u32("the number of attributes")?;
    let mut xattrs = Vec::new();
    for _ in 0..count {
        xattrs.push((reader.bytes("an attribute")?.to_vec(), reader.bytes("an attribute")?.to_vec()));
    }
    let mtime = Timestamp { s, ns };
    Ok(Entry { path, kind, mode, uid, gid, mtime, size, hard_link, target, xattrs, content })
}

fn at_most(value: u32, limit: u32, field: &'static str) -> Result<u32, FormatError> {
    if value > limit { Err(FormatError::BadValue { field, value: value.into() }) } else { Ok(value) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::effect::os::OsFs;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    /// An entry to start from.
    pub(crate) fn entry(path: &str, kind: Kind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: Timestamp { s: 1_700_000_000, ns: 5 },
            size: 0,
            hard_link: None,
            target: None,
            xattrs: Vec::new(),
            content: None,
        }
    }

    fn sample() -> Manifest {
        let mut file = entry("a/f", Kind::File);
        (file.size, file.content, file.hard_link) = (3, Some(Digest::of(b"abc")), Some("a/f".into()));
        file.xattrs = vec![(b"user.x".to_vec(), b"\0value".to_vec())];
        let mut link = entry("a/l", Kind::Symlink);
        link.target = Some(RawPath::new(&b"\xff"[..]));
        Manifest { entries: vec![entry("", Kind::Dir), entry("a", Kind::Dir), file, link] }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_only_with_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let digest = sample().write(&OsFs, &path).unwrap();
        assert_eq!(Manifest::read(&OsFs, &path, &digest).unwrap(), sample());
        let error = Manifest::read(&OsFs, &path, &Digest::ZERO).unwrap_err();
        assert!(matches!(error, ManifestError::Mismatch { .. }), "{error}");
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(Manifest::decode(&longer), Err(FormatError::Trailing { bytes: 1 }));
    }

    #[test]
    fn a_count_that_the_file_cannot_hold_allocates_nothing() {
        let mut bytes = sample().encode();
        bytes[10..18].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(Manifest::decode(&bytes), Err(FormatError::Short { .. })));
    }

    #[test]
    fn the_content_of_a_subtree_is_the_same_wherever_it_lies() {
        let here = sample();
        let mut there = here.clone();
        for entry in &mut there.entries {
            let moved = entry.path.to_string().replacen('a', "b/c", 1);
            entry.path = moved.as_str().into();
            (entry.uid, entry.xattrs) = (7, Vec::new());
        }
        there.entries[1].mtime.s += 1;
        let digest = here.content_digest(&"a".into()).unwrap();
        assert_eq!(there.content_digest(&"b/c".into()), Some(digest));
        assert_eq!(here.content_digest(&"a/".into()), None);
        assert_eq!(here.content_digest(&"nowhere".into()), None);
        let changes: [fn(&mut Entry); 3] =
            [|e| e.mode = 0o600, |e| e.mtime.ns = 6, |e| e.content = Some(Digest::ZERO)];
        for change in changes {
            let mut altered = here.clone();
            change(&mut altered.entries[2]);
            assert_ne!(altered.content_digest(&"a".into()), Some(digest));
            assert_ne!(altered.content_digest(&"a/f".into()), here.content_digest(&"a/f".into()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(20_261_124), ..ProptestConfig::default() })]

        #[test]
        fn damaged_bytes_never_panic(place in 0..sample().encode().len(), byte: u8, tail: Vec<u8>) {
            let mut bytes = sample().encode();
            bytes[place] = byte;
            super::super::fuzz_decode(&bytes);
            bytes.truncate(place);
            bytes.extend(tail);
            super::super::fuzz_decode(&bytes);
        }
    }
}
