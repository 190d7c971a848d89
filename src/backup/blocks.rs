//! The blocks of an archive, read in order and inflated by several threads.

use std::io::{self, Read, SeekFrom};
use std::path::Path;

use flate2::Decompress;

use super::gzip::inflate_member;
use super::index::Index;
use super::parallel::{Feeder, Ordered};
use crate::digest::Digest;
use crate::effect::fs::{Fs, FsFile};
use crate::effect::tree::{Context, Tick};

/// A block that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// Its place in the index.
    pub block: usize,
    /// What is wrong with it.
    pub what: String,
}

/// One block on its way, with the buffers that it keeps for the next.
pub struct Job {
    /// Its place in the index.
    pub block: usize,
    member: Vec<u8>,
    plain: Vec<u8>,
    inflate: Decompress,
    /// What is wrong with it.
    pub fault: Option<String>,
}

impl Job {
    /// As many as several threads can have in hand and waiting.
    pub fn pool(threads: usize) -> Vec<Self> {
        let job = |_| Self {
            block: 0,
            member: Vec::new(),
            plain: Vec::new(),
            inflate: Decompress::new(false),
            fault: None,
        };
        (0..2 * threads.max(1) + 2).map(job).collect()
    }

    /// Compares the compressed bytes with their digest.
    pub fn check(&mut self, index: &Index) {
        if self.fault.is_none() && Digest::of(&self.member) != index.blocks[self.block].digest {
            self.fault = Some("its bytes have changed".to_owned());
        }
    }

    /// Inflates a block that is not known to be damaged.
    pub fn inflate(&mut self, index: &Index) {
        let plain_bytes = index.blocks[self.block].plain_bytes as usize;
        if self.fault.is_none()
            && let Err(error) = inflate_member(&self.member, plain_bytes, &mut self.inflate, &mut self.plain)
        {
            self.fault = Some(error.to_string());
        }
    }
}

/// Reads every block. One that the medium does not give up costs that block and not the rest.
pub fn read_blocks(
    fs: &dyn Fs,
    archive: &Path,
    index: &Index,
    tick: Tick<'_>,
    feeder: &mut Feeder<Job>,
) -> io::Result<()> {
    let mut file = fs.open(archive).context("open", archive)?;
    for (block, place) in index.blocks.iter().enumerate() {
        let Some(mut job) = feeder.take() else { return Ok(()) };
        job.block = block;
        job.member.resize(place.length_bytes as usize, 0);
        job.fault = read_at(file.as_mut(), place.offset, &mut job.member).err().map(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                "the archive is cut off".to_owned()
            } else {
                format!("it cannot be read: {error}")
            }
        });
        feeder.put(job);
        tick(place.length_bytes.into())?;
    }
    Ok(())
}

fn read_at(file: &mut dyn FsFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

/// The inflated blocks as one stream, which fails at a damaged block and can be taken up behind it.
pub struct Blocks<'a> {
    results: &'a mut Ordered<Job>,
    /// The index of the archive.
    pub index: &'a Index,
    current: Option<Job>,
    position: usize,
    /// The damaged blocks met so far.
    pub damaged: Vec<DamagedBlock>,
}

impl<'a> Blocks<'a> {
    /// Starts at the beginning.
    pub fn new(results: &'a mut Ordered<Job>, index: &'a Index) -> Self {
        Self { results, index, current: None, position: 0, damaged: Vec::new() }
    }

    /// Goes to the next block. `None` at the end, `Some(false)` if it is damaged.
    fn advance(&mut self) -> Option<bool> {
        if let Some(job) = self.current.take() {
            self.results.recycle(job);
        }
        let job = self.results.take_next()?;
        self.position = 0;
        if let Some(what) = &job.fault {
            self.damaged.push(DamagedBlock { block: job.block, what: what.clone() });
            self.results.recycle(job);
            return Some(false);
        }
        self.current = Some(job);
        Some(true)
    }

    /// Goes on to the next header behind this place. `false` if there is none.
    pub fn resume(&mut self) -> bool {
        while let Some(sound) = self.advance() {
            if sound
                && let Some(job) = &self.current
                && let Some(offset) = self.index.blocks[job.block].first_header
            {
                self.position = offset as usize;
                return true;
            }
        }
        false
    }
}

impl Read for Blocks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(job) = &self.current
                && self.position < job.plain.len()
            {
                let rest = &job.plain[self.position..];
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                self.position += count;
                return Ok(count);
            }
            match self.advance() {
                None => return Ok(0),
                Some(true) => {}
                Some(false) => return Err(io::Error::other("it lies in a damaged block")),
            }
        }
    }
}
