//! The twin: the same frames as the store, appended to a plain file that any program can read.

use std::io;
use std::path::{Path, PathBuf};

use super::OpenError;
use super::codec::{FRAME_LIMIT_BYTES, Frame, FrameFault, Head};
use super::decide::{Fault, Reading};
use crate::effect::fs::{Fs, FsFile, exists, read_file};
use crate::txn::Record;

/// The first bytes of every twin. The line ends betray a copy in text mode, as in PNG.
pub const MAGIC: [u8; 16] = *b"kytx journal\r\n\x1a\n";

/// The twin's name in the state directory.
pub const FILE_NAME: &str = "journal.log";

const FILE_LIMIT_BYTES: u64 = 1 << 30;

/// What a look at the twin alone shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwinView {
    /// Every whole frame.
    pub frames: Vec<Frame>,
    /// Whether a part of another frame follows: a running kytx is writing it, or a crash cut it short.
    pub torn_tail: bool,
}

impl TwinView {
    /// What the frames record.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.frames.iter().map(|frame| &frame.record)
    }
}

/// Reads the twin of the journal in `dir` for `status` and `log`, without a lock and without touching anything,
/// while another kytx may be appending.
///
/// # Errors
/// [`OpenError::NoJournal`], [`OpenError::Damaged`] for anything but whole frames and a part of one more,
/// [`OpenError::TooNew`].
pub fn read(fs: &dyn Fs, dir: &Path) -> Result<TwinView, OpenError> {
    let store = super::store_path(dir);
    let has_store = || exists(fs, &store).map_err(|source| OpenError::io("look at", &store, source));
    let mut reading = scan(fs, dir)?;
    if reading.is_none() && has_store()? {
        // A journal that was made between the two looks: its twin had its name before its store.
        reading = scan(fs, dir)?;
    }
    let Some(reading) = reading else {
        return if has_store()? {
            Err(OpenError::damaged(format!("`{FILE_NAME}` is missing; opening the journal will rebuild it")))
        } else {
            Err(OpenError::NoJournal { dir: dir.to_owned() })
        };
    };
    let torn_tail = match &reading.fault {
        None => false,
        Some(Fault::Broken(_)) if is_part_of_an_entry(&reading.tail) && !reading.frames.is_empty() => true,
        Some(Fault::Broken(what)) => {
            return Err(OpenError::damaged(format!("`{FILE_NAME}`: {what}")));
        }
        Some(Fault::Newer(version)) => return Err(OpenError::TooNew { version: *version }),
    };
    Ok(TwinView { frames: reading.frames, torn_tail })
}

/// Reads a twin's bytes as far as they are whole.
pub fn parse(bytes: &[u8]) -> Reading {
    let mut reading = Reading { length_bytes: bytes.len(), ..Reading::default() };
    let Some(mut rest) = bytes.strip_prefix(&MAGIC) else {
        reading.tail = bytes.to_vec();
        reading.fault = Some(Fault::Broken("it does not begin as a journal does".to_owned()));
        return reading;
    };
    let mut head = Head::START;
    while !rest.is_empty() {
        match parse_entry(head, rest) {
            Ok((frame, after)) => {
                head = frame.head();
                reading.frames.push(frame);
                rest = after;
            }
            Err(fault) => {
                reading.tail = rest.to_vec();
                reading.fault = Some(fault);
                return reading;
            }
        }
    }
    if reading.frames.is_empty() {
        reading.fault = Some(Fault::Broken("it holds no record".to_owned()));
    }
    reading
}

/// A twin's bytes with exactly these frames.
pub fn bytes_of<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for frame in frames {
        bytes.extend_from_slice(&entry(frame));
    }
    bytes
}

/// A frame as it stands in the twin: its length in four bytes, most significant first, then its bytes.
pub fn entry(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + frame.bytes().len());
    bytes.extend_from_slice(&(frame.bytes().len() as u32).to_be_bytes());
    bytes.extend_from_slice(frame.bytes());
    bytes
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// `None` if there is no twin.
pub(super) fn scan(fs: &dyn Fs, dir: &Path) -> Result<Option<Reading>, OpenError> {
    let path = path(dir);
    match read_file(fs, &path, FILE_LIMIT_BYTES) {
        Ok(bytes) => Ok(Some(parse(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::io("read", &path, source)),
    }
}

/// Appends one frame and returns once it is durable. One write a frame: a reader sees it whole, in part, or not.
pub(super) fn append(file: &mut dyn FsFile, frame: &Frame) -> io::Result<()> {
    file.write_all(&entry(frame))?;
    file.sync()
}

fn parse_entry(head: Head, rest: &[u8]) -> Result<(Frame, &[u8]), Fault> {
    let lsn = head.lsn.0 + 1;
    let short = || Fault::Broken(format!("record {lsn} is cut short"));
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_LIMIT_BYTES {
        return Err(Fault::Broken(FrameFault::Length { bytes: length }.to_string()));
    }
    let (frame, rest) = rest.split_at_checked(length).ok_or_else(short)?;
    Ok((Frame::open(head, frame)?, rest))
}

/// Whether bytes that are no whole entry can be the beginning of one that is being written, or a length that
/// became durable before the content did.
fn is_part_of_an_entry(tail: &[u8]) -> bool {
    if tail.len() <= 4 + FRAME_LIMIT_BYTES && tail.iter().all(|byte| *byte == 0) {
        return true;
    }
    match tail.split_first_chunk::<4>() {
        None => true,
        Some((length, rest)) => {
            let length = u32::from_be_bytes(*length) as usize;
            length <= FRAME_LIMIT_BYTES && rest.len() < length
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::samples;

    fn frames() -> Vec<Frame> {
        let mut head = Head::START;
        let mut frames = Vec::new();
        for record in samples::example() {
            let frame = Frame::seal(head, &record).unwrap();
            head = frame.head();
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn i9_every_cut_of_a_twin_is_whole_frames_and_a_part_of_one() {
        let frames = frames();
        let bytes = bytes_of(&frames);
        for length in MAGIC.len() + entry(&frames[0]).len()..=bytes.len() {
            let reading = parse(&bytes[..length]);
            let whole = bytes_of(&reading.frames).len();
            assert_eq!(reading.frames, frames[..reading.frames.len()], "cut to {length}");
            assert_eq!(reading.fault.is_some(), whole < length, "cut to {length}");
            assert_eq!(reading.tail, bytes[whole..length]);
            assert!(reading.fault.is_none() || is_part_of_an_entry(&reading.tail), "cut to {length}");
        }
    }

    #[test]
    fn i9_every_flipped_bit_of_a_twin_is_noticed() {
        let bytes = bytes_of(&frames());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&flipped).fault.is_some(), "bit {bit} passed");
        }
    }

    #[test]
    fn an_empty_file_and_a_bare_header_are_damage_and_not_an_empty_journal() {
        for bytes in [&b""[..], &MAGIC[..7], &MAGIC] {
            assert!(matches!(parse(bytes).fault, Some(Fault::Broken(_))));
        }
    }
}
