//! A package as a stream of checked entries, out of a `.tar.gz` or an unpacked directory alike.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::intake::Intake;
use super::manifest::{Entry, Manifest};
use super::package::{Limits, PackageError};
use super::parallel::{Feeder, Ordered, ordered};
use super::tar_in::{Member, MemberKind, Members};
use super::tree_writer::Sink;
use super::walk::{Contents, root_join};
use crate::digest::Hasher;
use crate::effect::fs::{Fs, FsFile, Kind};
use crate::effect::tree::{Context, Tick};
use crate::raw_path::RawPath;

const CHUNK_BYTES: usize = 256 << 10;
/// The first byte of a gzip member.
const GZIP_MAGIC: u8 = 0x1f;

/// Reads a package into a sink, everything checked on its way.
pub fn pour(
    fs: &dyn Fs,
    path: &Path,
    limits: Limits,
    sink: &mut dyn Sink,
    tick: Tick<'_>,
) -> Result<(RawPath, Manifest), PackageError> {
    match fs.stat(path).context("look at", path)?.kind {
        Kind::File => pour_archive(fs, path, limits, sink, tick),
        Kind::Dir => pour_dir(fs, path, limits, sink, tick),
        _ => Err(PackageError::NeitherFileNorDir { path: path.into() }),
    }
}

/// Inflates in one thread; parses, hashes and feeds the sink in this one.
fn pour_archive(
    fs: &dyn Fs,
    path: &Path,
    limits: Limits,
    sink: &mut dyn Sink,
    tick: Tick<'_>,
) -> Result<(RawPath, Manifest), PackageError> {
    let pool = (0..4).map(|_| Piece::default()).collect();
    ordered(
        1,
        pool,
        |feeder| inflate(fs, path, feeder),
        |_| {},
        |results| {
            let mut members = Members::new(Pieces { results, current: None, position: 0, packed_bytes: 0 });
            let mut intake = Intake::new(limits);
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Some(member) = members.next_member()? {
                tick(0)?;
                let Some(entry) = intake.admit(&member)? else { continue };
                sink.begin(&entry)?;
                let mut hasher = Hasher::plain();
                loop {
                    let count = members.read_content(&mut buffer)?;
                    if count == 0 {
                        break;
                    }
                    hasher.update(&buffer[..count]);
                    sink.content(&buffer[..count])?;
                    tick(count as u64)?;
                    intake.weigh(count as u64, members.get_mut().packed_bytes, &member.name)?;
                }
                intake.complete(&entry, hasher.finish());
                sink.end(&entry)?;
            }
            intake.finish()
        },
    )
}

fn pour_dir(
    fs: &dyn Fs,
    path: &Path,
    limits: Limits,
    sink: &mut dyn Sink,
    tick: Tick<'_>,
) -> Result<(RawPath, Manifest), PackageError> {
    let listed = Manifest::walk(fs, path, Contents::Skip, 1, tick)?;
    let top = RawPath::new(RawPath::from(path).file_name());
    let mut intake = Intake::new(limits);
    let mut buffer = vec![0; CHUNK_BYTES];
    for known in &listed.entries {
        let member = member_of(&top, known)?;
        let Some(entry) = intake.admit(&member)? else { continue };
        sink.begin(&entry)?;
        let mut hasher = Hasher::plain();
        if member.kind == MemberKind::File {
            let full = root_join(path, &known.path);
            let mut file = fs.open(&full).context("open", &full)?;
            let read = read_exactly(file.as_mut(), &full, known.size, &mut buffer, |chunk| {
                hasher.update(chunk);
                sink.content(chunk)?;
                tick(chunk.len() as u64)
            })?;
            if !read {
                return Err(PackageError::ChangedMeanwhile { name: member.name });
            }
        }
        intake.complete(&entry, hasher.finish());
        sink.end(&entry)?;
    }
    intake.finish()
}

/// Reads a file that must have this length. `false` if it has another.
fn read_exactly(
    file: &mut dyn FsFile,
    path: &Path,
    size: u64,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<bool> {
    let mut left = size;
    loop {
        let count = file.read(buffer).context("read", path)?;
        if count == 0 || count as u64 > left {
            return Ok(count == 0 && left == 0);
        }
        take(&buffer[..count])?;
        left -= count as u64;
    }
}

fn member_of(top: &RawPath, entry: &Entry) -> Result<Member, PackageError> {
    let name = top.join(&entry.path);
    let kind = match entry.kind {
        Kind::File if entry.is_later_name() => MemberKind::HardLink,
        Kind::File => MemberKind::File,
        Kind::Dir => MemberKind::Dir,
        Kind::Symlink => MemberKind::Symlink,
        Kind::Fifo => MemberKind::Fifo,
        Kind::Device => MemberKind::Device,
        Kind::Socket => return Err(PackageError::SpecialFile { name, kind: "socket" }),
    };
    let link = match kind {
        MemberKind::HardLink => top.join(entry.hard_link.as_ref().unwrap_or(&entry.path)),
        _ => entry.target.clone().unwrap_or_default(),
    };
    let size = if kind == MemberKind::File { entry.size } else { 0 };
    Ok(Member {
        name,
        kind,
        mode: entry.mode,
        uid: 0,
        gid: 0,
        mtime: entry.mtime,
        size,
        link,
        xattrs: Vec::new(),
    })
}

/// A piece of the inflated stream, and how much of the file had been read for it.
#[derive(Default)]
struct Piece {
    plain: Vec<u8>,
    packed_bytes: u64,
}

fn inflate(fs: &dyn Fs, path: &Path, feeder: &mut Feeder<Piece>) -> Result<(), PackageError> {
    let file = Counted { inner: fs.open(path).context("open", path)?, bytes: 0 };
    let mut source = BufReader::with_capacity(CHUNK_BYTES, file);
    if source.fill_buf().context("read", path)?.first() != Some(&GZIP_MAGIC) {
        return Err(PackageError::NotGzip);
    }
    loop {
        let mut decoder = GzDecoder::new(source);
        loop {
            let Some(mut piece) = feeder.take() else { return Ok(()) };
            piece.plain.resize(CHUNK_BYTES, 0);
            let read = decoder.read(&mut piece.plain);
            let count = read.map_err(|error| gzip_error(error, decoder.header().is_some()))?;
            piece.plain.truncate(count);
            piece.packed_bytes = decoder.get_ref().get_ref().bytes;
            feeder.put(piece);
            if count == 0 {
                break;
            }
        }
        // Several members in a row are one stream; `gzip` and `pigz` both write such.
        source = decoder.into_inner();
        match source.fill_buf().context("read", path)?.first() {
            None => return Ok(()),
            Some(&GZIP_MAGIC) => {}
            Some(_) => return Err(PackageError::TrailingGarbage),
        }
    }
}

fn gzip_error(error: io::Error, has_header: bool) -> PackageError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => PackageError::CutOff,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if has_header => {
            PackageError::Damaged { what: error.to_string() }
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => PackageError::NotGzip,
        _ => PackageError::Io(error),
    }
}

struct Counted {
    inner: Box<dyn FsFile>,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The pieces as one stream.
struct Pieces<'a> {
    results: &'a mut Ordered<Piece>,
    current: Option<Piece>,
    position: usize,
    packed_bytes: u64,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.current
                && self.position < piece.plain.len()
            {
                let rest = &piece.plain[self.position..];
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                self.position += count;
                return Ok(count);
            }
            if let Some(piece) = self.current.take() {
                self.results.recycle(piece);
            }
            let Some(piece) = self.results.take_next() else { return Ok(0) };
            (self.position, self.packed_bytes) = (0, piece.packed_bytes);
            self.current = Some(piece);
        }
    }
}
