//! Frames: a record as bytes, bound to its place and to everything before it. The only file that knows bincode.
//!
//! The bytes are specified in `journal-format.md`; the crate that happens to write them is not the specification.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

use crate::digest::{Digest, Hasher};
use crate::txn::{Lsn, Record};

/// The format version that this kytx writes, and the highest that it reads.
pub const VERSION: u8 = 1;

/// The longest frame in bytes (I10). sled moves larger values to side files that it never syncs, and pages of many
/// mid-size ones too; with 4 KiB neither was ever seen (journal-format.md 14).
pub const FRAME_LIMIT_BYTES: usize = 4096;

/// LSN, version, record type and chain.
pub const FRAME_HEAD_BYTES: usize = 8 + 1 + 2 + 32;

const CHAIN_CONTEXT: &str = "kytx 2026 journal chain v1";

/// The one bincode configuration. The limit bounds what a forged length can claim.
const PAYLOAD: Configuration<LittleEndian, Fixint, Limit<FRAME_LIMIT_BYTES>> =
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit();

/// Where a journal ends: the place of its last frame, and that frame's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last LSN; 0 before the first frame.
    pub lsn: Lsn,
    /// The last chain; zero before the first frame.
    pub chain: Digest,
}

impl Head {
    /// Before the first frame.
    pub const START: Self = Self { lsn: Lsn(0), chain: Digest::ZERO };
}

/// One record in its place, with the bytes that hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The record's place.
    pub lsn: Lsn,
    /// The record.
    pub record: Record,
    /// blake3 over this frame and the chain of the one before: equal chains mean equal journals up to here.
    pub chain: Digest,
    bytes: Vec<u8>,
}

impl Frame {
    /// Makes the frame that follows `head`.
    ///
    /// # Errors
    /// [`TooLarge`] if it would be longer than [`FRAME_LIMIT_BYTES`].
    pub fn seal(head: Head, record: &Record) -> Result<Self, TooLarge> {
        let payload =
            bincode::serde::encode_to_vec(record, PAYLOAD).expect("BUG: a plain value has a binary form");
        let frame_bytes = FRAME_HEAD_BYTES + payload.len();
        if frame_bytes > FRAME_LIMIT_BYTES {
            return Err(TooLarge { kind: record.kind(), frame_bytes });
        }
        let lsn = Lsn(head.lsn.0 + 1);
        let number = type_number(record).to_be_bytes();
        let chain = chain(lsn, head.chain, VERSION, number, &payload);
        let mut bytes = Vec::with_capacity(frame_bytes);
        bytes.extend_from_slice(&lsn.0.to_be_bytes());
        bytes.push(VERSION);
        bytes.extend_from_slice(&number);
        bytes.extend_from_slice(chain.as_bytes());
        bytes.extend_from_slice(&payload);
        Ok(Self { lsn, record: record.clone(), chain, bytes })
    }

    /// Reads the frame that must follow `head` from exactly these bytes, whatever they are: never panics (I10).
    pub fn open(head: Head, bytes: &[u8]) -> Result<Self, FrameFault> {
        let expected = Lsn(head.lsn.0.wrapping_add(1));
        if bytes.len() > FRAME_LIMIT_BYTES {
            return Err(FrameFault::Length { bytes: bytes.len() });
        }
        let (Some((lsn, rest)), true) = (bytes.split_first_chunk::<8>(), bytes.len() >= FRAME_HEAD_BYTES)
        else {
            return Err(FrameFault::Length { bytes: bytes.len() });
        };
        let lsn = Lsn(u64::from_be_bytes(*lsn));
        if lsn != expected {
            return Err(FrameFault::Place { expected, found: lsn });
        }
        let version = rest[0];
        if version > VERSION {
            return Err(FrameFault::Newer { lsn, version });
        }
        let number = [rest[1], rest[2]];
        let payload = &rest[3 + 32..];
        // The chain is judged before a byte of the payload is decoded: whatever accident does ends here.
        let chain = chain(lsn, head.chain, version, number, payload);
        if version != VERSION || chain.as_bytes() != &rest[3..3 + 32] {
            return Err(FrameFault::Chain { lsn });
        }
        let number = u16::from_be_bytes(number);
        if !TYPE_NUMBERS.contains(&number) {
            return Err(FrameFault::UnknownType { lsn, number });
        }
        let record = decode_payload(payload).ok_or(FrameFault::Payload { lsn })?;
        if type_number(&record) != number {
            return Err(FrameFault::Payload { lsn });
        }
        Ok(Self { lsn, record, chain, bytes: bytes.to_vec() })
    }

    /// All of its bytes, the LSN first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The LSN's eight bytes: the key in the store.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..8]
    }

    /// What follows the LSN: the value in the store.
    pub fn value(&self) -> &[u8] {
        &self.bytes[8..]
    }

    /// The end of a journal whose last frame this is.
    pub fn head(&self) -> Head {
        Head { lsn: self.lsn, chain: self.chain }
    }
}

/// A record that does not fit into a frame. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a record `{kind}` of {frame_bytes} bytes is longer than the journal's limit of {FRAME_LIMIT_BYTES} bytes"
)]
pub struct TooLarge {
    /// The record's type.
    pub kind: &'static str,
    /// How long its frame would be.
    pub frame_bytes: usize,
}

/// Why bytes are not the frame that must stand in this place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// Shorter than a frame's head, or longer than a frame may be.
    #[error("a frame of {bytes} bytes is too short or too long")]
    Length {
        /// How long.
        bytes: usize,
    },
    /// Another LSN.
    #[error("expected record {expected}, found record {found}")]
    Place {
        /// What must stand here.
        expected: Lsn,
        /// What does.
        found: Lsn,
    },
    /// A format version that this kytx does not know.
    #[error("record {lsn} has format version {version}")]
    Newer {
        /// Where.
        lsn: Lsn,
        /// The version.
        version: u8,
    },
    /// The chain does not match: the bytes are not those that were written, or not after the same records.
    #[error("the checksum of record {lsn} does not match")]
    Chain {
        /// Where.
        lsn: Lsn,
    },
    /// The chain matches but the record type is unknown: written by a newer kytx.
    #[error("record {lsn} is of the unknown type {number}")]
    UnknownType {
        /// Where.
        lsn: Lsn,
        /// The record type.
        number: u16,
    },
    /// The chain matches but the payload is not that record: written by a newer kytx, or forged.
    #[error("the content of record {lsn} is not understood")]
    Payload {
        /// Where.
        lsn: Lsn,
    },
}

impl FrameFault {
    /// The version that a newer kytx wrote, if this is that. Content that is not understood under a matching chain
    /// is what some kytx wrote on purpose, so it counts as newer and not as damage.
    pub fn newer(&self) -> Option<u8> {
        match self {
            Self::Newer { version, .. } => Some(*version),
            Self::UnknownType { .. } | Self::Payload { .. } => Some(VERSION),
            Self::Length { .. } | Self::Place { .. } | Self::Chain { .. } => None,
        }
    }
}

/// Decodes a payload alone. `None` for whatever is not exactly one record.
pub fn decode_payload(bytes: &[u8]) -> Option<Record> {
    if bytes.len() > FRAME_LIMIT_BYTES - FRAME_HEAD_BYTES {
        return None;
    }
    let (record, consumed) = bincode::serde::decode_from_slice::<Record, _>(bytes, PAYLOAD).ok()?;
    (consumed == bytes.len()).then_some(record)
}

/// The numbers that [`type_number`] gives. Numbers are never reused.
pub const TYPE_NUMBERS: std::ops::RangeInclusive<u16> = 1..=9;

/// The record type's number on disk: spelled out, so that the order of an enum is never the format.
pub fn type_number(record: &Record) -> u16 {
    match record {
        Record::Begin(_) => 1,
        Record::Planned(_) => 2,
        Record::Sealed { .. } => 3,
        Record::Intent { .. } => 4,
        Record::Done { .. } => 5,
        Record::Found { .. } => 6,
        Record::Abort { .. } => 7,
        Record::Commit { .. } => 8,
        Record::End { .. } => 9,
    }
}

fn chain(lsn: Lsn, previous: Digest, version: u8, number: [u8; 2], payload: &[u8]) -> Digest {
    let mut hasher = Hasher::domain(CHAIN_CONTEXT);
    hasher.update(&lsn.0.to_be_bytes());
    hasher.update(previous.as_bytes());
    hasher.update(&[version]);
    hasher.update(&number);
    hasher.update(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::samples;

    #[test]
    fn every_record_type_survives_and_has_a_number_of_its_own() {
        let mut head = Head::START;
        let mut numbers = std::collections::BTreeSet::new();
        for record in samples::records() {
            let frame = Frame::seal(head, &record).unwrap();
            assert_eq!(Frame::open(head, frame.bytes()).unwrap(), frame);
            assert_eq!([frame.key(), frame.value()].concat(), frame.bytes());
            numbers.insert(type_number(&record));
            head = frame.head();
        }
        assert!(numbers.iter().copied().eq(TYPE_NUMBERS), "{numbers:?}");
    }

    #[test]
    fn i10_every_truncation_and_every_flipped_bit_is_detected() {
        let head = Head { lsn: Lsn(41), chain: Digest::of(b"the frame before") };
        let mut cases = 0;
        for record in samples::records() {
            let frame = Frame::seal(head, &record).unwrap();
            for length in 0..frame.bytes().len() {
                assert!(Frame::open(head, &frame.bytes()[..length]).is_err(), "{record:?} cut to {length}");
                cases += 1;
            }
            for bit in 0..frame.bytes().len() * 8 {
                let mut bytes = frame.bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let fault = Frame::open(head, &bytes).expect_err("a flipped bit passed");
                assert_eq!(fault.newer().is_some(), bit / 8 == 8 && bytes[8] > VERSION, "{fault}");
                cases += 1;
            }
            for extra in [&b"\0"[..], b"x", frame.bytes()] {
                assert!(Frame::open(head, &[frame.bytes(), extra].concat()).is_err(), "trailing bytes");
            }
        }
        assert!(cases > 10_000, "only {cases} cases");
    }

    #[test]
    fn a_frame_in_another_place_or_after_another_frame_is_refused() {
        let record = samples::records().remove(2);
        let frame = Frame::seal(Head::START, &record).unwrap();
        let later = Head { lsn: Lsn(1), ..Head::START };
        let place = FrameFault::Place { expected: Lsn(2), found: Lsn(1) };
        assert_eq!(Frame::open(later, frame.bytes()), Err(place));
        let other = Head { chain: Digest::of(b"x"), ..Head::START };
        assert_eq!(Frame::open(other, frame.bytes()), Err(FrameFault::Chain { lsn: Lsn(1) }));
    }

    #[test]
    fn i10_the_longest_record_fits_and_one_byte_more_does_not() {
        let text = |length| samples::begin_with_user(&"u".repeat(length));
        let empty = Frame::seal(Head::START, &text(0)).unwrap().bytes().len();
        let longest = Frame::seal(Head::START, &text(FRAME_LIMIT_BYTES - empty)).unwrap();
        assert_eq!(longest.bytes().len(), FRAME_LIMIT_BYTES);
        assert_eq!(Frame::open(Head::START, longest.bytes()).unwrap(), longest);
        let refused = Frame::seal(Head::START, &text(FRAME_LIMIT_BYTES - empty + 1)).unwrap_err();
        assert_eq!(refused, TooLarge { kind: "begin", frame_bytes: FRAME_LIMIT_BYTES + 1 });
    }

    #[test]
    fn a_newer_version_or_an_unknown_type_is_newer_and_not_damage() {
        let frame = Frame::seal(Head::START, &samples::records()[0]).unwrap();
        let mut bytes = frame.bytes().to_vec();
        bytes[8] = VERSION + 1;
        assert_eq!(Frame::open(Head::START, &bytes).unwrap_err().newer(), Some(VERSION + 1));

        let forge = |number: u16, payload: &[u8]| {
            let number = number.to_be_bytes();
            let chain = chain(Lsn(1), Digest::ZERO, VERSION, number, payload);
            [&1u64.to_be_bytes()[..], &[VERSION], &number, chain.as_bytes(), payload].concat()
        };
        let payload = &frame.bytes()[FRAME_HEAD_BYTES..];
        assert!(Frame::open(Head::START, &forge(1, payload)).is_ok());
        let fault = |number, payload| Frame::open(Head::START, &forge(number, payload)).unwrap_err();
        assert_eq!(fault(99, payload), FrameFault::UnknownType { lsn: Lsn(1), number: 99 });
        assert_eq!(fault(2, payload), FrameFault::Payload { lsn: Lsn(1) });
        assert_eq!(fault(1, &payload[1..]), FrameFault::Payload { lsn: Lsn(1) });
    }

    #[test]
    fn i10_a_forged_length_is_refused_without_being_believed() {
        // type index 7 (`commit`), then a list of 2^60 steps; type index 0 (`begin`), then a text of 2^60 bytes.
        let forged = |index: u32| [&index.to_le_bytes()[..], &(1u64 << 60).to_le_bytes(), &[0; 64]].concat();
        assert_eq!(decode_payload(&forged(7)), None);
        assert_eq!(decode_payload(&forged(0)), None);
        assert_eq!(decode_payload(&[]), None);
    }
}
