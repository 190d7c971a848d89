//! A package of the vendor: hostile until proven.
//!
//! A package is a `.tar.gz` or a directory unpacked from one. It is read in one pass, in bounded memory, before
//! anything is stopped, and whatever could be understood in two ways, could leave the tree, or could fill the disk
//! is refused by name. What is accepted is normalised: paths relative to the one top directory; permission bits
//! without setuid, setgid and sticky (no release ships them, and plain `tar` as an ordinary user drops them too);
//! no owner and no extended attributes, since the files will belong to the owner of the old home.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::intake::Intake;
use super::manifest::{Entry, Manifest, ManifestError};
use super::parallel::{Feeder, Ordered, ordered};
use super::tar_in::{Member, MemberKind, Members, TarError};
use super::tree_writer::Sink;
use super::walk::{Contents, root_join};
use crate::digest::{Digest, Hasher};
use crate::effect::fs::{Fs, FsFile, Kind};
use crate::effect::tree::{Context, Tick};
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
const CHUNK_BYTES: usize = 256 << 10;

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

/// Reads a package into a sink, everything checked on its way.
pub(super) fn pour(
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

struct Look<'a> {
    wanted: &'a dyn Fn(&RawPath) -> bool,
    texts: BTreeMap<RawPath, Vec<u8>>,
    current: Option<Vec<u8>>,
}

impl Sink for Look<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        let is_text = entry.kind == Kind::File && !entry.is_later_name() && entry.size <= TEXT_BYTES_MAX;
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

const GZIP_MAGIC: u8 = 0x1f;

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
