//! Writes a tree as a plain `.tar.gz` that GNU tar restores by hand, in blocks that kytx can check one by one.
//!
//! The tar stream is cut into blocks of a mebibyte, each compressed as a gzip member of its own by one of several
//! threads. Every byte is read once and hashed on its way; memory is a fixed set of buffers that go round.

use std::io::{self, Write};
use std::path::Path;

use flate2::Compress;

use super::gzip::{BLOCK_BYTES, compressor, deflate_member};
use super::index::{Block, Index};
use super::manifest::{Entry, Manifest, find};
use super::parallel::{Feeder, ordered};
use super::tar_out::{TAR_END, content_bytes, headers_of, padding_bytes};
use super::walk::root_join;
use crate::digest::{Digest, Hasher};
use crate::effect::fs::{Fs, exists};
use crate::effect::tree::{Context, Tick};
use crate::raw_path::RawPath;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The given manifest, now with the content of every file.
    pub manifest: Manifest,
    /// What lies where in the archive.
    pub index: Index,
    /// What the archive does not hold: sockets and devices.
    pub skipped: Vec<RawPath>,
}

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused, or a stop was asked for.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The tree is not as its manifest says.
    #[error("`{path}` has changed since the tree was listed: {what}")]
    Changed {
        /// Which file, below the tree.
        path: RawPath,
        /// What differs.
        what: String,
    },
}

/// How much is written before the medium is told to start.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// Archives `tree`, whose manifest is given (sorted, with or without content), under one top directory `top`, into
/// `part`. A file left there by an earlier attempt is replaced. What is written is synced; the name is not, as the
/// caller renames it once it has been read back.
///
/// A file that is not as the manifest says, before or while it is read, is an error that names it.
pub fn write(
    fs: &dyn Fs,
    tree: &Path,
    manifest: &Manifest,
    top: &RawPath,
    part: &Path,
    threads: usize,
    tick: Tick<'_>,
) -> Result<Archived, ArchiveError> {
    if exists(fs, part).context("look at", part)? {
        fs.unlink(part).context("remove", part)?;
    }
    let mut archived = Archived {
        manifest: manifest.clone(),
        index: Index { top: top.clone(), blocks: Vec::new() },
        skipped: Vec::new(),
    };
    let (entries, skipped) = (&mut archived.manifest.entries, &mut archived.skipped);
    let produce = |feeder: &mut Feeder<Job>| {
        let mut stream = Stream { feeder, job: None };
        let mut source = Source { fs, tree, top, tick, stream: &mut stream };
        match source.pour(entries, skipped) {
            Ok(()) | Err(Stop::GaveUp) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    };
    // Each thread has one block in hand and one waiting, the producer and the writer have one each.
    let pool = (0..2 * threads.max(1) + 2).map(|_| Job::new()).collect();
    let blocks = ordered(threads, pool, produce, Job::compress, |results| {
        let mut file = fs.create(part, 0o600).context("create", part)?;
        let mut blocks = Vec::new();
        let (mut offset, mut waiting) = (0, 0);
        while let Some(job) = results.take_next() {
            file.write_all(&job.output).context("write", part)?;
            let length = job.output.len() as u64;
            blocks.push(job.block_at(offset));
            offset += length;
            waiting += length;
            if waiting >= WRITEBACK_BYTES {
                file.start_writeback();
                waiting = 0;
            }
            results.recycle(job);
        }
        file.sync().context("sync", part)?;
        Ok::<_, ArchiveError>(blocks)
    })?;
    archived.index.blocks = blocks;
    Ok(archived)
}

/// One block on its way, with the buffers that it keeps for the next.
struct Job {
    plain: Vec<u8>,
    filled: usize,
    output: Vec<u8>,
    deflate: Compress,
    digest: Digest,
    first_header: Option<u32>,
    first: Option<RawPath>,
    last: Option<RawPath>,
}

impl Job {
    fn new() -> Self {
        Self {
            plain: vec![0; BLOCK_BYTES],
            filled: 0,
            output: Vec::new(),
            deflate: compressor(),
            digest: Digest::ZERO,
            first_header: None,
            first: None,
            last: None,
        }
    }

    fn compress(&mut self) {
        deflate_member(&self.plain[..self.filled], &mut self.deflate, &mut self.output);
        self.digest = Digest::of(&self.output);
    }

    fn block_at(&self, offset: u64) -> Block {
        Block {
            offset,
            length_bytes: self.output.len() as u32,
            plain_bytes: self.filled as u32,
            digest: self.digest,
            first_header: self.first_header,
            first: self.first.clone(),
            last: self.last.clone(),
        }
    }
}

/// Why the stream ends early.
enum Stop {
    /// The writer has failed and says why itself.
    GaveUp,
    Failed(ArchiveError),
}

impl<E: Into<ArchiveError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The tar stream as a row of blocks.
struct Stream<'a> {
    feeder: &'a mut Feeder<Job>,
    job: Option<Job>,
}

impl Stream<'_> {
    /// A block with room in it.
    fn job(&mut self) -> Result<&mut Job, Stop> {
        if self.job.as_ref().is_some_and(|job| job.filled == BLOCK_BYTES) {
            self.flush();
        }
        if self.job.is_none() {
            let mut job = self.feeder.take().ok_or(Stop::GaveUp)?;
            (job.filled, job.first_header, job.first, job.last) = (0, None, None, None);
            self.job = Some(job);
        }
        self.job.as_mut().ok_or(Stop::GaveUp)
    }

    fn flush(&mut self) {
        if let Some(job) = self.job.take() {
            self.feeder.put(job);
        }
    }

    /// Appends bytes; those of an entry say whose they are.
    fn append(&mut self, mut bytes: &[u8], owner: Option<&RawPath>) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let job = self.job()?;
            job.mark(owner);
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK_BYTES - job.filled));
            job.plain[job.filled..job.filled + head.len()].copy_from_slice(head);
            job.filled += head.len();
            bytes = tail;
        }
        Ok(())
    }
}

impl Job {
    fn mark(&mut self, owner: Option<&RawPath>) {
        let Some(owner) = owner else { return };
        if self.first.is_none() {
            self.first = Some(owner.clone());
        }
        if self.last.as_ref() != Some(owner) {
            self.last = Some(owner.clone());
        }
    }
}

/// The tree as a tar stream.
struct Source<'a, 'f> {
    fs: &'a dyn Fs,
    tree: &'a Path,
    top: &'a RawPath,
    tick: Tick<'a>,
    stream: &'a mut Stream<'f>,
}

impl Source<'_, '_> {
    fn pour(&mut self, entries: &mut [Entry], skipped: &mut Vec<RawPath>) -> Result<(), Stop> {
        for place in 0..entries.len() {
            let entry = &entries[place];
            if !entry.is_archivable() {
                skipped.push(entry.path.clone());
                continue;
            }
            let job = self.stream.job()?;
            if job.first_header.is_none() {
                job.first_header = Some(job.filled as u32);
            }
            self.stream.append(&headers_of(self.top, entry), Some(&entry.path))?;
            (self.tick)(0)?;
            if entry.kind != crate::effect::fs::Kind::File {
                continue;
            }
            let content = if entry.is_later_name() {
                let first = entry.hard_link.as_ref();
                let at = first.and_then(|first| find(&entries[..place], first));
                at.and_then(|at| entries[at].content)
            } else {
                Some(self.pour_file(entry)?)
            };
            entries[place].content = content;
        }
        self.stream.append(&TAR_END, None)?;
        self.stream.flush();
        Ok(())
    }

    fn pour_file(&mut self, entry: &Entry) -> Result<Digest, Stop> {
        let full = root_join(self.tree, &entry.path);
        let changed = |what: String| ArchiveError::Changed { path: entry.path.clone(), what };
        let meta = match self.fs.stat(&full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(changed("it is gone".to_owned()).into());
            }
            other => other.context("look at", &full)?,
        };
        if (meta.kind, meta.size, meta.mtime) != (entry.kind, entry.size, entry.mtime) {
            let what = "its kind, length or modification time is another".to_owned();
            return Err(changed(what).into());
        }
        let mut file = self.fs.open(&full).context("open", &full)?;
        let mut hasher = Hasher::plain();
        let mut left = content_bytes(entry);
        while left > 0 {
            let job = self.stream.job()?;
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES - job.filled);
            let room = &mut job.plain[job.filled..job.filled + want];
            let count = file.read(room).context("read", &full)?;
            if count == 0 {
                return Err(changed(format!("it is {left} bytes shorter")).into());
            }
            hasher.update(&room[..count]);
            job.mark(Some(&entry.path));
            job.filled += count;
            left -= count as u64;
            (self.tick)(count as u64)?;
        }
        if file.read(&mut [0]).context("read", &full)? != 0 {
            return Err(changed("it has grown".to_owned()).into());
        }
        let padding = padding_bytes(content_bytes(entry)) as usize;
        self.stream.append(&TAR_END[..padding], None)?;
        let found = hasher.finish();
        match entry.content {
            Some(expected) if expected != found => {
                let what = format!("its content is blake3 {}, was {}", found.short(), expected.short());
                Err(changed(what).into())
            }
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::super::compare::{Ignoring, compare};
    use super::super::walk::Contents;
    use super::super::walk::tests::awkward_tree;
    use super::*;
    use crate::effect::os::OsFs;
    use crate::effect::tree::no_tick;
    use std::process::Command;

    /// The awkward tree, archived.
    pub(crate) fn archived(dir: &Path) -> (Manifest, Archived) {
        let tree = dir.join("home");
        awkward_tree(&tree);
        let listed = Manifest::walk(&OsFs, &tree, Contents::Skip, 1, &no_tick).unwrap();
        let written = write(&OsFs, &tree, &listed, &"-top".into(), &dir.join("a"), 2, &no_tick).unwrap();
        (Manifest::walk(&OsFs, &tree, Contents::Hash, 2, &no_tick).unwrap(), written)
    }

    #[test]
    fn gnu_tar_restores_every_attribute_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let (walked, written) = archived(dir.path());
        assert_eq!(compare(&walked, &written.manifest, Ignoring::default()), []);
        assert_eq!(written.skipped, ["socket".into()]);
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let ran = Command::new("tar")
            .args(["--xattrs", "-zxpf", "../a"])
            .env("LC_ALL", "C")
            .current_dir(&out)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let restored = Manifest::walk(&OsFs, &out.join("-top"), Contents::Hash, 2, &no_tick).unwrap();
        let mut expected = walked;
        expected.entries.retain(Entry::is_archivable);
        // Only root can give files away.
        let owner = !rustix::process::geteuid().is_root();
        let differences = compare(&expected, &restored, Ignoring { owner, ..Ignoring::default() });
        assert_eq!(differences, [], "{}", differences.first().map_or_else(String::new, ToString::to_string));
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_whatever_the_number_of_threads() {
        let dir = tempfile::tempdir().unwrap();
        let (walked, first) = archived(dir.path());
        for threads in [1, 4] {
            let again = dir.path().join("again");
            let tree = dir.path().join("home");
            let second = write(&OsFs, &tree, &walked, &"-top".into(), &again, threads, &no_tick).unwrap();
            assert_eq!(first.index, second.index);
            assert!(std::fs::read(&again).unwrap() == std::fs::read(dir.path().join("a")).unwrap());
        }
        let length = std::fs::metadata(dir.path().join("a")).unwrap().len();
        assert_eq!(first.index.archive_bytes(), length);
        assert!(first.index.blocks.iter().any(|block| block.length_bytes < block.plain_bytes / 4));
        assert_eq!(Index::decode(&first.index.encode()).unwrap(), first.index);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("home");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("before"), "b").unwrap();
        std::fs::write(tree.join("f"), "content").unwrap();
        let listed = Manifest::walk(&OsFs, &tree, Contents::Hash, 1, &no_tick).unwrap();
        let run = |manifest: &Manifest| {
            let part = dir.path().join("part");
            let error = write(&OsFs, &tree, manifest, &"t".into(), &part, 2, &no_tick).unwrap_err();
            assert!(matches!(&error, ArchiveError::Changed { path, .. } if *path == "f".into()), "{error}");
            error.to_string()
        };
        let mut other = listed.clone();
        other.entries[2].content = Some(Digest::ZERO);
        assert!(run(&other).contains("content"));
        std::fs::write(tree.join("f"), "longer content").unwrap();
        assert!(run(&listed).contains("length"));
        std::fs::remove_file(tree.join("f")).unwrap();
        assert!(run(&listed).contains("gone"));
    }

    #[test]
    fn a_stop_request_ends_it_and_a_second_attempt_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("home");
        awkward_tree(&tree);
        let listed = Manifest::walk(&OsFs, &tree, Contents::Skip, 1, &no_tick).unwrap();
        let part = dir.path().join("part");
        let stop = |bytes: u64| if bytes > 0 { Err(io::Error::other("stop")) } else { Ok(()) };
        let error = write(&OsFs, &tree, &listed, &"t".into(), &part, 2, &stop).unwrap_err();
        assert_eq!(error.to_string(), "stop");
        write(&OsFs, &tree, &listed, &"t".into(), &part, 2, &no_tick).unwrap();
    }
}
