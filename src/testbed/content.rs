//! Deterministic content, fast: what compresses as text does, and what does not compress, as jars do not.

use std::io::{self, Write};

/// The start of a sequence of numbers; the same seed gives the same content on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// A seed for a part of something, apart from the seeds of its other parts.
    #[must_use]
    pub fn of(self, part: &str) -> Self {
        Self(part.bytes().fold(self.0, |mix, byte| Stream(mix ^ u64::from(byte)).next()))
    }
}

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// Bytes that do not compress.
    Noise {
        /// What to start from.
        seed: Seed,
        /// How many.
        bytes: u64,
    },
    /// Lines as of a log or a script, which compress about eight to one.
    Prose {
        /// What to start from.
        seed: Seed,
        /// How many bytes.
        bytes: u64,
    },
}

impl Content {
    /// Text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bytes(text.into().into_bytes())
    }

    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Noise { bytes, .. } | Self::Prose { bytes, .. } => *bytes,
        }
    }

    /// Writes it all.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::Noise { seed, bytes } => {
                let mut stream = Stream(seed.0);
                write_pieces(out, *bytes, |piece| {
                    while piece.len() < PIECE_BYTES {
                        piece.extend_from_slice(&stream.next().to_le_bytes());
                    }
                })
            }
            Self::Prose { seed, bytes } => {
                let mut stream = Stream(seed.0);
                write_pieces(out, *bytes, |piece| {
                    while piece.len() < PIECE_BYTES {
                        push_line(piece, stream.next());
                    }
                })
            }
        }
    }

    /// It all, in memory.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len_bytes() as usize);
        self.write_to(&mut bytes).expect("BUG: a vector takes every byte");
        bytes
    }
}

const PIECE_BYTES: usize = 64 << 10;

fn write_pieces(out: &mut dyn Write, bytes: u64, mut fill: impl FnMut(&mut Vec<u8>)) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE_BYTES + 256);
    let mut left = bytes;
    while left > 0 {
        piece.clear();
        fill(&mut piece);
        let count = left.min(piece.len() as u64);
        out.write_all(&piece[..count as usize])?;
        left -= count;
    }
    Ok(())
}

fn push_line(piece: &mut Vec<u8>, random: u64) {
    const LEVELS: [&str; 4] = ["INFO ", "INFO ", "DEBUG", "WARN "];
    const CLASSES: [&str; 8] = [
        "service.CacheService:106",
        "threadpool.DefaultScheduler:179",
        "cachesync.Broadcaster:122",
        "common.KylinConfig:319",
        "job.JobFetcher:86",
        "metadata.TableMetadataManager:512",
        "cube.CubeManager:388",
        "query.QueryService:431",
    ];
    const WORDS: [&str; 8] =
        ["segment", "cube", "reload", "resource", "done in", "waiting for", "0 error", "project"];
    let pick = |bits: u64| (random >> bits) as usize;
    let second = random >> 48;
    piece.extend_from_slice(b"2026-03-14 01:");
    piece.extend_from_slice(
        format!("{:02}:{:02},{:03} ", second / 60 % 60, second % 60, pick(8) % 1000).as_bytes(),
    );
    piece.extend_from_slice(LEVELS[pick(0) % 4].as_bytes());
    piece.extend_from_slice(b" [FetcherRunner-42] ");
    piece.extend_from_slice(CLASSES[pick(2) % 8].as_bytes());
    piece.extend_from_slice(b" : ");
    for bits in [5, 20, 23] {
        piece.extend_from_slice(WORDS[pick(bits) % 8].as_bytes());
        piece.push(b' ');
    }
    piece.push(b'\n');
}

/// `SplitMix64`.
pub(super) struct Stream(pub(super) u64);

impl Stream {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};

    fn packed_bytes(content: &Content) -> usize {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
        content.write_to(&mut encoder).unwrap();
        encoder.finish().unwrap().len()
    }

    #[test]
    fn content_is_as_long_as_it_says_and_compresses_as_it_should() {
        let seed = Seed(7);
        let noise = Content::Noise { seed, bytes: 200_001 };
        let prose = Content::Prose { seed, bytes: 200_001 };
        for content in [&noise, &prose] {
            assert_eq!(content.to_vec().len(), 200_001);
            assert_eq!(content.to_vec(), content.to_vec());
        }
        assert!(packed_bytes(&noise) > 199_000);
        assert!((15_000..50_000).contains(&packed_bytes(&prose)), "{}", packed_bytes(&prose));
        assert_ne!(seed.of("a"), seed.of("b"));
    }
}
