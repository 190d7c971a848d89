//! Reads an archive of kytx again, block by block, and goes on behind damage.

use std::io;
use std::path::Path;

pub use super::blocks::DamagedBlock;
use super::blocks::{Blocks, Job, read_blocks};
use super::compare::{Difference, Ignoring, compare};
use super::index::Index;
use super::manifest::{Entry, Manifest, find};
use super::parallel::ordered;
use super::tar_in::{Member, MemberKind, Members, TarError};
use super::tree_writer::{Nowhere, Sink};
use crate::digest::{Digest, Hasher};
use crate::effect::fs::{Fs, Kind};
use crate::effect::tree::{Context, Tick};
use crate::raw_path::RawPath;

/// A name that the archive does not give back as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The name, below the top directory.
    pub path: RawPath,
    /// Why.
    pub what: String,
}

/// What reading an archive found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Blocks that are damaged.
    pub damaged: Vec<DamagedBlock>,
    /// Names that are lost, sorted. Hard links to a lost file are lost with it.
    pub lost: Vec<Lost>,
    /// What is wrong with the archive as a whole: its length, its end, names that the manifest does not have.
    pub other: Vec<String>,
    /// Names that were read and are as the manifest says.
    pub good: u64,
}

impl Reading {
    /// Whether nothing at all is wrong.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.lost.is_empty() && self.other.is_empty()
    }
}

/// Why a fresh archive is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ReadBackError {
    /// The file system refused, or a stop was asked for.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not hold what was put into it.
    #[error(
        "the archive `{archive}` does not read back: {damaged} damaged blocks, {lost} names lost; {first}"
    )]
    Damaged {
        /// The archive.
        archive: RawPath,
        /// How many blocks are damaged.
        damaged: usize,
        /// How many names are lost.
        lost: usize,
        /// The first thing that is wrong.
        first: String,
    },
}

/// Proves a fresh archive: every member's digest and check sum, every header and every file against the manifest.
pub fn read_back(
    fs: &dyn Fs,
    archive: &Path,
    index: &Index,
    manifest: &Manifest,
    threads: usize,
    tick: Tick<'_>,
) -> Result<(), ReadBackError> {
    let reading = read(fs, archive, index, manifest, &mut Nowhere, threads, tick)?;
    if reading.is_clean() {
        return Ok(());
    }
    let first = match (reading.damaged.first(), reading.lost.first()) {
        (Some(damaged), _) => format!("block {}: {}", damaged.block, damaged.what),
        (None, Some(lost)) => format!("`{}`: {}", lost.path, lost.what),
        (None, None) => reading.other.first().cloned().unwrap_or_default(),
    };
    Err(ReadBackError::Damaged {
        archive: archive.into(),
        damaged: reading.damaged.len(),
        lost: reading.lost.len(),
        first,
    })
}

/// Compares every block with its digest; nothing is inflated.
pub fn check_blocks(
    fs: &dyn Fs,
    archive: &Path,
    index: &Index,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Reading> {
    let mut reading = Reading::default();
    check_length(fs, archive, index, &mut reading)?;
    let pool = Job::pool(threads);
    let damaged = ordered(
        threads,
        pool,
        |feeder| read_blocks(fs, archive, index, tick, feeder),
        |job| job.check(index),
        |results| {
            let mut damaged = Vec::new();
            while let Some(job) = results.take_next() {
                damaged.extend(job.fault.clone().map(|what| DamagedBlock { block: job.block, what }));
                results.recycle(job);
            }
            Ok::<_, io::Error>(damaged)
        },
    )?;
    reading.damaged = damaged;
    Ok(reading)
}

/// Reads the whole archive into a sink and compares everything with the manifest. Damage costs the names that it
/// hits; reading goes on at the next header that the index knows. Errors are those of the sink, of the tick, and of an
/// archive that cannot be opened at all.
pub fn read(
    fs: &dyn Fs,
    archive: &Path,
    index: &Index,
    manifest: &Manifest,
    sink: &mut dyn Sink,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Reading> {
    let mut reading = Reading::default();
    check_length(fs, archive, index, &mut reading)?;
    ordered(
        threads,
        Job::pool(threads),
        |feeder| read_blocks(fs, archive, index, tick, feeder),
        |job| {
            job.check(index);
            job.inflate(index);
        },
        |results| {
            let blocks = Blocks::new(results, index);
            let mut reader = Reader {
                members: Members::new(blocks),
                manifest,
                sink,
                good: vec![false; manifest.entries.len()],
                reasons: std::collections::HashMap::new(),
                reading,
                buffer: vec![0; 256 << 10],
            };
            reader.read_all()?;
            Ok(reader.finish())
        },
    )
}

fn check_length(fs: &dyn Fs, archive: &Path, index: &Index, reading: &mut Reading) -> io::Result<()> {
    let meta = fs.stat(archive).context("look at", archive)?;
    if meta.size != index.archive_bytes() {
        let (found, expected) = (meta.size, index.archive_bytes());
        reading.other.push(format!("the archive has {found} bytes, expected {expected}"));
    }
    Ok(())
}

struct Reader<'a, 'r> {
    members: Members<Blocks<'r>>,
    manifest: &'a Manifest,
    sink: &'a mut dyn Sink,
    /// Which entries of the manifest were read and are right.
    good: Vec<bool>,
    reasons: std::collections::HashMap<usize, String>,
    reading: Reading,
    buffer: Vec<u8>,
}

impl Reader<'_, '_> {
    fn read_all(&mut self) -> io::Result<()> {
        loop {
            let before = self.members.get_mut().damaged.len();
            match self.members.next_member() {
                Ok(None) => return Ok(()),
                Ok(Some(member)) => {
                    if self.read_member(&member)? {
                        continue;
                    }
                }
                Err(error) => {
                    let in_damage = self.members.get_mut().damaged.len() > before;
                    if !in_damage {
                        self.note(&error);
                    }
                }
            }
            if !self.members.get_mut().resume() {
                return Ok(());
            }
            self.members.resynchronise();
        }
    }

    /// A cut at the end of the last block is damage that the blocks have told already.
    fn note(&mut self, error: &TarError) {
        let told = matches!(error, TarError::Truncated { .. }) && !self.members.get_mut().damaged.is_empty();
        if !told {
            self.reading.other.push(error.to_string());
        }
    }

    /// Returns whether the stream stands where the next member begins.
    fn read_member(&mut self, member: &Member) -> io::Result<bool> {
        let top = self.members.get_mut().index.top.clone();
        let known = below_top(&top, &member.name).and_then(|path| find(&self.manifest.entries, &path));
        let Some(place) = known else {
            self.reading.other.push(format!("`{}` is not in the manifest", member.name));
            return Ok(true);
        };
        let manifest = self.manifest;
        let entry = &manifest.entries[place];
        let mut found = entry_of(member, entry, &top);
        if entry.is_later_name() && !self.first_name_is_good(entry) {
            self.reasons.insert(place, "the file that it is another name of is lost".to_owned());
            return Ok(true);
        }
        self.sink.begin(&found)?;
        if found.kind == Kind::File && !found.is_later_name() {
            match self.read_content()? {
                Ok(content) => found.content = Some(content),
                Err(error) => {
                    self.sink.lose(&found)?;
                    self.reasons.insert(place, error.to_string());
                    return Ok(false);
                }
            }
        }
        self.sink.end(&found)?;
        let differences = differences(entry, &found);
        match differences.first() {
            None => self.good[place] = true,
            Some(difference) => {
                self.reasons.insert(place, difference.to_string());
            }
        }
        Ok(true)
    }

    /// The outer error is the sink's and ends everything, the inner one is the archive's.
    fn read_content(&mut self) -> io::Result<Result<Digest, TarError>> {
        let mut hasher = Hasher::plain();
        loop {
            match self.members.read_content(&mut self.buffer) {
                Ok(0) => return Ok(Ok(hasher.finish())),
                Ok(count) => {
                    hasher.update(&self.buffer[..count]);
                    self.sink.content(&self.buffer[..count])?;
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn first_name_is_good(&self, entry: &Entry) -> bool {
        let place = entry.hard_link.as_ref().and_then(|first| find(&self.manifest.entries, first));
        place.is_some_and(|place| self.good[place])
    }

    fn finish(mut self) -> Reading {
        self.reading.damaged.append(&mut self.members.get_mut().damaged);
        for (place, entry) in self.manifest.entries.iter().enumerate() {
            if self.good[place] {
                self.reading.good += 1;
            } else if entry.is_archivable() {
                let what = self.reasons.remove(&place);
                let what = what.unwrap_or_else(|| "it lies in a damaged block".to_owned());
                self.reading.lost.push(Lost { path: entry.path.clone(), what });
            }
        }
        self.reading
    }
}

fn below_top(top: &RawPath, name: &RawPath) -> Option<RawPath> {
    let name = name.as_bytes();
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let tail = name.strip_prefix(top.as_bytes())?;
    if tail.is_empty() { Some(RawPath::default()) } else { tail.strip_prefix(b"/").map(RawPath::new) }
}

/// A member as an entry. That a file is the first of several names only the manifest knows.
fn entry_of(member: &Member, entry: &Entry, top: &RawPath) -> Entry {
    let (kind, hard_link) = match member.kind {
        MemberKind::File if entry.is_later_name() => (Kind::File, None),
        MemberKind::File => (Kind::File, entry.hard_link.clone()),
        MemberKind::HardLink => (Kind::File, below_top(top, &member.link)),
        MemberKind::Dir => (Kind::Dir, None),
        MemberKind::Symlink => (Kind::Symlink, None),
        MemberKind::Fifo => (Kind::Fifo, None),
        MemberKind::Device => (Kind::Device, None),
    };
    let mut found = Entry {
        path: entry.path.clone(),
        kind,
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        size: member.size,
        hard_link,
        target: (kind == Kind::Symlink).then(|| member.link.clone()),
        xattrs: member.xattrs.clone(),
        content: None,
    };
    if member.kind == MemberKind::HardLink {
        // Its attributes are those of the first name, which the archive holds once.
        (found.mtime, found.size, found.content) = (entry.mtime, entry.size, entry.content);
        found.xattrs.clone_from(&entry.xattrs);
    }
    found
}

fn differences(expected: &Entry, found: &Entry) -> Vec<Difference> {
    let alone = |entry: &Entry| Manifest { entries: vec![entry.clone()] };
    compare(&alone(expected), &alone(found), Ignoring::default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::super::archive::tests::archived;
    use super::super::manifest::tree_order;
    use super::*;
    use crate::effect::os::OsFs;
    use crate::effect::tree::no_tick;
    use std::collections::BTreeSet;

    #[test]
    fn a_fresh_archive_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let (_, written) = archived(dir.path());
        let archive = dir.path().join("a");
        read_back(&OsFs, &archive, &written.index, &written.manifest, 2, &no_tick).unwrap();
        assert!(check_blocks(&OsFs, &archive, &written.index, 2, &no_tick).unwrap().is_clean());
        let mut other = written.manifest.clone();
        other.entries.last_mut().unwrap().mode ^= 1;
        let error = read_back(&OsFs, &archive, &written.index, &other, 2, &no_tick).unwrap_err();
        assert!(matches!(error, ReadBackError::Damaged { damaged: 0, lost: 1, .. }), "{error}");
    }

    #[test]
    fn a_flipped_byte_names_every_file_it_costs_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (_, written) = archived(dir.path());
        let archive = dir.path().join("a");
        let sound = std::fs::read(&archive).unwrap();
        for step in 0..25 {
            let place = sound.len() * step / 25 + 3;
            let mut bytes = sound.clone();
            bytes[place] ^= 0x10;
            std::fs::write(&archive, &bytes).unwrap();
            let reading =
                read(&OsFs, &archive, &written.index, &written.manifest, &mut Nowhere, 2, &no_tick).unwrap();
            let hit = written.index.blocks.iter().rposition(|block| block.offset <= place as u64).unwrap();
            let block = &written.index.blocks[hit];
            let in_block = |path: &RawPath| {
                let (first, last) = (block.first.as_ref(), block.last.as_ref());
                first.is_some_and(|first| tree_order(first, path).is_le())
                    && last.is_some_and(|last| tree_order(path, last).is_le())
            };
            let expected: BTreeSet<&RawPath> = written
                .manifest
                .entries
                .iter()
                .filter(|entry| entry.is_archivable())
                .filter(|entry| in_block(&entry.path) || entry.hard_link.as_ref().is_some_and(in_block))
                .map(|entry| &entry.path)
                .collect();
            let lost: BTreeSet<&RawPath> = reading.lost.iter().map(|lost| &lost.path).collect();
            assert_eq!(lost, expected, "byte {place}, block {hit}");
            assert_eq!(reading.damaged.iter().map(|damaged| damaged.block).collect::<Vec<_>>(), [hit]);
            assert_eq!(reading.other, Vec::<String>::new());
            assert!(reading.good > 0);
            let quick = check_blocks(&OsFs, &archive, &written.index, 2, &no_tick).unwrap();
            assert_eq!(quick.damaged[0].block, hit);
        }
    }

    #[test]
    fn a_cut_archive_gives_back_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let (_, written) = archived(dir.path());
        let archive = dir.path().join("a");
        let sound = std::fs::read(&archive).unwrap();
        std::fs::write(&archive, &sound[..sound.len() / 2]).unwrap();
        let reading =
            read(&OsFs, &archive, &written.index, &written.manifest, &mut Nowhere, 2, &no_tick).unwrap();
        assert!(reading.good > 0 && !reading.lost.is_empty() && reading.other.len() == 1);
    }
}
