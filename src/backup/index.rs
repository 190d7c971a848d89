//! The index of an archive: which bytes of it hold which files.
//!
//! It lies beside the manifest, in a file of its own. With it a damaged byte names the files it costs, the rest stays
//! within reach, and several threads can check at once. Without it the archive is still a plain `.tar.gz`.

use std::path::Path;

use super::codec::{FormatError, Reader, Writer};
use super::gzip::{BLOCK_BYTES, MEMBER_BYTES_MAX};
use super::manifest::{ManifestError, tree_order};
use crate::digest::Digest;
use crate::effect::fs::{Fs, read_file};
use crate::effect::tree::{Context, atomic_write};
use crate::raw_path::RawPath;

/// One gzip member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it begins in the archive.
    pub offset: u64,
    /// How long it is, compressed.
    pub length_bytes: u32,
    /// How long it is, inflated.
    pub plain_bytes: u32,
    /// Plain blake3 of the compressed bytes.
    pub digest: Digest,
    /// Where in the inflated bytes the first entry begins that does not begin in an earlier block.
    pub first_header: Option<u32>,
    /// The first entry with a byte of header or content in it, padding not counted. As [`Block::last`] it is below
    /// the top directory, and both are `None` for a block that holds nothing but the end mark.
    pub first: Option<RawPath>,
    /// The last such entry. All that lie between in the order of the manifest have a byte in it too.
    pub last: Option<RawPath>,
}

/// What an archive consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The name of the one top directory.
    pub top: RawPath,
    /// The members, in order, without gaps.
    pub blocks: Vec<Block>,
}

const MAGIC: &str = "kytxindx";
const VERSION: u16 = 1;
const BLOCK_ENTRY_BYTES_MIN: usize = 49;
/// An index of a tebibyte; more is damage.
const FILE_BYTES_MAX: u64 = 1 << 30;

impl Index {
    /// The archive's length in bytes.
    pub fn archive_bytes(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.offset + u64::from(block.length_bytes))
    }

    /// The digest that names the archive: it covers the digest of every member, and so every byte.
    pub fn root(&self) -> Digest {
        Digest::of_domain("kytx 2026 archive index v1", &self.encode())
    }

    /// The bytes of the index file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::start(MAGIC, VERSION);
        writer.bytes(self.top.as_bytes());
        writer.u64(self.blocks.len() as u64);
        for block in &self.blocks {
            writer.u64(block.offset);
            writer.u32(block.length_bytes);
            writer.u32(block.plain_bytes);
            writer.raw(block.digest.as_bytes());
            let flag = |present: bool, flag: u8| if present { flag } else { 0 };
            writer.u8(flag(block.first_header.is_some(), 1) | flag(block.first.is_some(), 2));
            if let Some(offset) = block.first_header {
                writer.u32(offset);
            }
            for path in block.first.iter().chain(&block.last) {
                writer.bytes(path.as_bytes());
            }
        }
        writer.finish()
    }

    /// The index that these bytes are the encoding of.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::start(bytes, MAGIC, VERSION)?;
        let top = reader.path("the top directory")?;
        let count = reader.count("the number of members", BLOCK_ENTRY_BYTES_MIN)?;
        let mut index = Self { top, blocks: Vec::with_capacity(count) };
        for _ in 0..count {
            let block = decode_block(&mut reader)?;
            if block.offset != index.archive_bytes() {
                return Err(FormatError::BadValue { field: "an offset", value: block.offset });
            }
            index.blocks.push(block);
        }
        reader.end()?;
        Ok(index)
    }

    /// Writes the index file, atomically and durably, and returns the plain blake3 of its bytes.
    pub fn write(&self, fs: &dyn Fs, path: &Path) -> Result<Digest, ManifestError> {
        let bytes = self.encode();
        atomic_write(fs, path, &bytes, 0o600)?;
        Ok(Digest::of(&bytes))
    }

    /// Reads an index file that must have this digest.
    pub fn read(fs: &dyn Fs, path: &Path, expected: &Digest) -> Result<Self, ManifestError> {
        let bytes = read_file(fs, path, FILE_BYTES_MAX).context("read", path)?;
        let found = Digest::of(&bytes);
        if found != *expected {
            return Err(ManifestError::Mismatch { path: path.into(), expected: *expected, found });
        }
        Self::decode(&bytes).map_err(|source| ManifestError::Format { path: path.into(), source })
    }
}

fn decode_block(reader: &mut Reader<'_>) -> Result<Block, FormatError> {
    let offset = reader.u64("an offset")?;
    let length_bytes = at_most(reader.u32("a length")?, MEMBER_BYTES_MAX, "a length")?;
    let plain_bytes = at_most(reader.u32("a length")?, BLOCK_BYTES, "a length")?;
    let digest = reader.digest("a digest")?;
    let flags = reader.u8("flags")?;
    at_most(flags.into(), 3, "flags")?;
    let first_header = if flags & 1 == 0 {
        None
    } else {
        Some(at_most(reader.u32("an offset")?, plain_bytes as usize, "an offset")?)
    };
    let (first, last) = if flags & 2 == 0 {
        (None, None)
    } else {
        (Some(reader.path("a path")?), Some(reader.path("a path")?))
    };
    if let (Some(first), Some(last)) = (&first, &last)
        && tree_order(first, last).is_gt()
    {
        return Err(FormatError::OutOfOrder { path: first.clone() });
    }
    // The sum of the lengths is a length too.
    if offset.checked_add(length_bytes.into()).is_none() {
        return Err(FormatError::BadValue { field: "an offset", value: offset });
    }
    Ok(Block { offset, length_bytes, plain_bytes, digest, first_header, first, last })
}

fn at_most(value: u32, limit: usize, field: &'static str) -> Result<u32, FormatError> {
    if value as usize > limit {
        return Err(FormatError::BadValue { field, value: value.into() });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::os::OsFs;

    fn sample() -> Index {
        let block = |offset, first: Option<&str>| Block {
            offset,
            length_bytes: 10,
            plain_bytes: 1 << 20,
            digest: Digest::of(b"x"),
            first_header: first.map(|_| 7),
            first: first.map(RawPath::from),
            last: first.map(|_| RawPath::from("z")),
        };
        Index { top: "home".into(), blocks: vec![block(0, Some("")), block(10, Some("f")), block(20, None)] }
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_no_cut_of_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("i");
        let digest = sample().write(&OsFs, &path).unwrap();
        assert_eq!(Index::read(&OsFs, &path, &digest).unwrap(), sample());
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(Index::decode(&bytes[..length]).is_err());
        }
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                super::super::fuzz_decode(&damaged);
            }
        }
    }

    #[test]
    fn gaps_and_lengths_that_no_member_has_are_refused() {
        let mut gap = sample();
        gap.blocks[1].offset = 11;
        assert!(matches!(Index::decode(&gap.encode()), Err(FormatError::BadValue { .. })));
        let mut long = sample();
        long.blocks[0].length_bytes = u32::MAX;
        assert!(matches!(Index::decode(&long.encode()), Err(FormatError::BadValue { .. })));
    }
}
