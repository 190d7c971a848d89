//! Is a backup still what it was, and could it be restored? Four levels, each dearer and surer than the last.
//!
//! | level | proves | costs |
//! | --- | --- | --- |
//! | quick | the archive's bytes have not changed | reading it |
//! | standard | and index and manifest are the recorded ones and complete, and the tree, if it is there, looks as listed | and a look a file |
//! | deep | and every member inflates, every header and every file is as listed | and inflating it |
//! | drill | and kytx restores it, with every attribute | and writing it |
//!
//! No level stops at the first problem. What they return is data; errors are for a stop request and for a machine
//! that cannot do the work.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use serde::Serialize;

use super::compare::{Aspect, Difference, Ignoring, compare};
use super::index::{Block, Index};
use super::manifest::{Entry, Manifest, ManifestError, find};
use super::read_back::{Reading, check_blocks, read};
use super::tar_out::{TAR_END, content_bytes, headers_of, padding_bytes};
use super::tree_writer::{Nowhere, TreeWriter, forget};
use super::walk::Contents;
use crate::digest::Digest;
use crate::effect::fs::{Fs, stat_opt};
use crate::effect::tree::{Tick, copy_tree, parent_of, remove_tree};
use crate::raw_path::RawPath;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// A restored tree would work, but not be the same.
    Warning,
    /// Something cannot be restored.
    Damage,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a file of the backup, or a name that it holds.
    pub subject: RawPath,
    /// What is wrong, as a sentence without its full stop.
    pub what: String,
    /// What to do, likewise; empty where there is nothing to do.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Damage => "damage",
        };
        write!(f, "{severity}: `{}`: {}", self.subject, self.what)
    }
}

/// A file with the digest that the journal has for it: plain blake3.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Its digest.
    pub digest: Digest,
}

/// An archive with all that belongs to it.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveSet<'a> {
    /// The archive.
    pub archive: &'a Path,
    /// Its index.
    pub index: Recorded<'a>,
    /// The manifest of the tree it was made from.
    pub manifest: Recorded<'a>,
    /// That tree, if it should still be there.
    pub tree: Option<&'a Path>,
}

const DO_ARCHIVE_AGAIN: &str =
    "do not commit, and keep the old tree; archive it again, or copy the backup from other storage";
const DO_KEEP_ARCHIVE: &str =
    "do not delete the archive: it is intact, and `tar -zxf` restores it without this file";
const DO_FIND_OUT: &str = "find out who changed it before you abort or commit";

/// Compares the archive's bytes with the digests in its index.
pub fn quick(fs: &dyn Fs, set: &ArchiveSet<'_>, threads: usize, tick: Tick<'_>) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let (index, manifest) = read_side_files(fs, set, &mut Vec::new());
    match index {
        Ok(index) if is_there(fs, set.archive, &mut findings)? => {
            let reading = check_blocks(fs, set.archive, &index, threads, tick)?;
            report_reading(set, &reading, &index, manifest.as_ref().ok(), &mut findings);
        }
        Ok(_) => {}
        Err(finding) => findings.push(finding),
    }
    Ok(findings)
}

/// As [`quick`], and checks that index and manifest are the recorded ones and that each covers all of the other, and
/// that the tree, if it should be there, looks as listed.
pub fn standard(
    fs: &dyn Fs,
    set: &ArchiveSet<'_>,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Vec<Finding>> {
    let mut findings = quick(fs, set, threads, tick)?;
    let mut side = Vec::new();
    let (index, manifest) = read_side_files(fs, set, &mut side);
    findings.extend(side.into_iter().filter(|finding| finding.subject != set.index.path.into()));
    if let (Ok(index), Ok(manifest)) = (&index, &manifest) {
        check_complete(set, index, manifest, &mut findings);
    }
    if let (Some(tree), Ok(manifest)) = (set.tree, &manifest) {
        findings.extend(verify_tree(fs, tree, manifest, Contents::Skip, Ignoring::default(), threads, tick)?);
    }
    Ok(findings)
}

/// As [`standard`], but inflates every member and hashes every file of the archive, and of the tree if it is there.
pub fn deep(fs: &dyn Fs, set: &ArchiveSet<'_>, threads: usize, tick: Tick<'_>) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let (index, manifest) = read_side_files(fs, set, &mut findings);
    let there = is_there(fs, set.archive, &mut findings)?;
    if let (Ok(index), Ok(manifest)) = (&index, &manifest) {
        check_complete(set, index, manifest, &mut findings);
        if there {
            let reading = read(fs, set.archive, index, manifest, &mut Nowhere, threads, tick)?;
            report_reading(set, &reading, index, Some(manifest), &mut findings);
        }
    }
    if let (Some(tree), Ok(manifest)) = (set.tree, &manifest) {
        findings.extend(verify_tree(fs, tree, manifest, Contents::Hash, Ignoring::default(), threads, tick)?);
    }
    Ok(findings)
}

/// Restores the archive into `scratch`, which must not exist, walks what came of it, compares every attribute, and
/// removes it again. What can be restored of a damaged archive is restored.
pub fn drill(
    fs: &dyn Fs,
    set: &ArchiveSet<'_>,
    scratch: &Path,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let (index, manifest) = read_side_files(fs, set, &mut findings);
    let there = is_there(fs, set.archive, &mut findings)?;
    let (Ok(index), Ok(manifest)) = (index, manifest) else { return Ok(findings) };
    check_complete(set, &index, &manifest, &mut findings);
    if !there {
        return Ok(findings);
    }
    let (reading, owner_lost) = extract(fs, set.archive, &index, &manifest, scratch, threads, tick)?;
    report_reading(set, &reading, &index, Some(&manifest), &mut findings);
    let lost: HashSet<&RawPath> = reading.lost.iter().map(|lost| &lost.path).collect();
    let differences = differences_of_copy(fs, scratch, &manifest, &owner_lost, threads, tick)?;
    let new = differences.into_iter().filter(|difference| !lost.contains(&difference.path));
    findings.extend(new.map(|difference| restored_otherwise(&difference)));
    report_owner_lost(&owner_lost, &mut findings);
    remove_tree(fs, scratch, tick)?;
    Ok(findings)
}

/// Restores an archive with every attribute into a directory, which must not exist; nothing is synced. Returns what
/// could not be read, and whose owner could not be set.
pub fn extract(
    fs: &dyn Fs,
    archive: &Path,
    index: &Index,
    manifest: &Manifest,
    into: &Path,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<(Reading, Vec<RawPath>)> {
    expect_room(fs, into, manifest)?;
    let mut writer = TreeWriter::create(fs, into, &forget)?;
    let reading = read(fs, archive, index, manifest, &mut writer, threads, tick)?;
    let owner_lost = writer.finish(&manifest.entries)?;
    Ok((reading, owner_lost))
}

/// Compares a plain directory (a metadata backup, the old tree) with its manifest: by what `lstat` says, or by content
/// too.
pub fn verify_tree(
    fs: &dyn Fs,
    tree: &Path,
    manifest: &Manifest,
    contents: Contents,
    ignoring: Ignoring,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if !is_there(fs, tree, &mut findings)? {
        return Ok(findings);
    }
    let found = Manifest::walk(fs, tree, contents, threads, tick).map_err(into_io)?;
    for difference in compare(manifest, &found, ignoring) {
        findings.push(Finding {
            severity: severity_of(difference.aspect),
            subject: RawPath::from(tree).join(&difference.path),
            what: difference.to_string(),
            advice: DO_FIND_OUT.to_owned(),
        });
    }
    Ok(findings)
}

/// Copies a plain directory into `scratch`, which must not exist, as a restore would, compares every attribute with
/// the manifest, and removes the copy again.
pub fn drill_tree(
    fs: &dyn Fs,
    tree: &Path,
    manifest: &Manifest,
    scratch: &Path,
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if !is_there(fs, tree, &mut findings)? {
        return Ok(findings);
    }
    expect_room(fs, scratch, manifest)?;
    let report = copy_tree(fs, tree, scratch, tick)?;
    let below = |path: &std::path::PathBuf| path.strip_prefix(scratch).map(RawPath::from).unwrap_or_default();
    let owner_lost: Vec<RawPath> = report.owner_lost.iter().map(below).collect();
    let differences = differences_of_copy(fs, scratch, manifest, &owner_lost, threads, tick)?;
    findings.extend(differences.iter().map(restored_otherwise));
    report_owner_lost(&owner_lost, &mut findings);
    remove_tree(fs, scratch, tick)?;
    Ok(findings)
}

type Read<T> = Result<T, Finding>;

/// Reads index and manifest; each that cannot be is a finding, in `findings` and in its place.
fn read_side_files(
    fs: &dyn Fs,
    set: &ArchiveSet<'_>,
    findings: &mut Vec<Finding>,
) -> (Read<Index>, Read<Manifest>) {
    let finding = |file: &Recorded<'_>, error: ManifestError| Finding {
        severity: Severity::Damage,
        subject: file.path.into(),
        what: in_full(&error),
        advice: DO_KEEP_ARCHIVE.to_owned(),
    };
    let index = Index::read(fs, set.index.path, &set.index.digest).map_err(|e| finding(&set.index, e));
    let manifest =
        Manifest::read(fs, set.manifest.path, &set.manifest.digest).map_err(|e| finding(&set.manifest, e));
    findings.extend(index.as_ref().err().cloned());
    findings.extend(manifest.as_ref().err().cloned());
    (index, manifest)
}

fn is_there(fs: &dyn Fs, path: &Path, findings: &mut Vec<Finding>) -> io::Result<bool> {
    let there = stat_opt(fs, path)?.is_some();
    if !there {
        findings.push(Finding {
            severity: Severity::Damage,
            subject: path.into(),
            what: "it is missing".to_owned(),
            advice: DO_ARCHIVE_AGAIN.to_owned(),
        });
    }
    Ok(there)
}

fn report_reading(
    set: &ArchiveSet<'_>,
    reading: &Reading,
    index: &Index,
    manifest: Option<&Manifest>,
    findings: &mut Vec<Finding>,
) {
    let mut damage = |subject: RawPath, what: String| {
        let advice = DO_ARCHIVE_AGAIN.to_owned();
        findings.push(Finding { severity: Severity::Damage, subject, what, advice });
    };
    for what in &reading.other {
        damage(set.archive.into(), what.clone());
    }
    for damaged in &reading.damaged {
        let block = &index.blocks[damaged.block];
        let (from, to) = (block.offset, block.offset + u64::from(block.length_bytes));
        let what = format!("bytes {from} to {to} (block {}): {}", damaged.block, damaged.what);
        damage(set.archive.into(), what);
        // A full reading names what is lost itself, and more exactly: whatever is damaged twice, once.
        if reading.good == 0 && reading.lost.is_empty() {
            for path in hit_by(block, manifest) {
                damage(path, format!("it lies in the damaged block {}", damaged.block));
            }
        }
    }
    for lost in &reading.lost {
        damage(lost.path.clone(), lost.what.clone());
    }
}

/// The names that a block's loss costs; without the manifest the first and the last of them.
fn hit_by(block: &Block, manifest: Option<&Manifest>) -> Vec<RawPath> {
    let (Some(first), Some(last)) = (&block.first, &block.last) else { return Vec::new() };
    let range = manifest.and_then(|manifest| {
        let (from, to) = (find(&manifest.entries, first)?, find(&manifest.entries, last)?);
        Some((manifest, from..=to))
    });
    let Some((manifest, range)) = range else {
        return if first == last { vec![first.clone()] } else { vec![first.clone(), last.clone()] };
    };
    let hit: HashSet<&RawPath> = manifest.entries[range].iter().map(|entry| &entry.path).collect();
    let is_hit = |entry: &&Entry| {
        entry.is_archivable()
            && (hit.contains(&entry.path)
                || entry.hard_link.as_ref().is_some_and(|first| hit.contains(first)))
    };
    manifest.entries.iter().filter(is_hit).map(|entry| entry.path.clone()).collect()
}

/// Checks that the blocks hold every entry in order, without a gap, and are as long as the tar stream of the manifest.
fn check_complete(set: &ArchiveSet<'_>, index: &Index, manifest: &Manifest, findings: &mut Vec<Finding>) {
    let entries: Vec<&Entry> = manifest.entries.iter().filter(|entry| entry.is_archivable()).collect();
    let mut incomplete = |what: String| {
        findings.push(Finding {
            severity: Severity::Damage,
            subject: set.index.path.into(),
            what,
            advice: DO_ARCHIVE_AGAIN.to_owned(),
        });
    };
    let mut reached: Option<usize> = None;
    for (block, place) in index.blocks.iter().enumerate() {
        let (Some(first), Some(last)) = (&place.first, &place.last) else { continue };
        // Blocks are in order: looking only from where the last one ended keeps this linear.
        let from = reached.unwrap_or(0);
        let ahead = |path: &RawPath| {
            entries[from..].iter().position(|entry| entry.path == *path).map(|found| found + from)
        };
        let follows = match (ahead(first), reached) {
            (Some(first), None) => first == 0,
            (Some(first), Some(reached)) => first == reached || first == reached + 1,
            (None, _) => false,
        };
        if !follows {
            incomplete(format!("block {block} begins with `{first}`, which is not what comes next"));
        }
        reached = ahead(last).or(reached);
    }
    if reached.map_or(0, |last| last + 1) != entries.len() {
        incomplete(format!("the blocks end before `{}`", entries[reached.map_or(0, |last| last + 1)].path));
    }
    let expected: u64 = entries.iter().map(|entry| tar_bytes(&index.top, entry)).sum();
    let found: u64 = index.blocks.iter().map(|block| u64::from(block.plain_bytes)).sum();
    if found != expected + TAR_END.len() as u64 {
        incomplete(format!("the blocks hold {found} bytes, and the manifest needs another number"));
    }
    let unread = entries.iter().filter(|entry| entry.kind == crate::effect::fs::Kind::File);
    for entry in unread.filter(|entry| entry.content.is_none()) {
        findings.push(Finding {
            severity: Severity::Warning,
            subject: entry.path.clone(),
            what: "the manifest has no digest of its content".to_owned(),
            advice: DO_ARCHIVE_AGAIN.to_owned(),
        });
    }
}

fn tar_bytes(top: &RawPath, entry: &Entry) -> u64 {
    let content = content_bytes(entry);
    headers_of(top, entry).len() as u64 + content + padding_bytes(content)
}

/// What a copy lacks; sockets and devices are not expected in one.
fn differences_of_copy(
    fs: &dyn Fs,
    copy: &Path,
    manifest: &Manifest,
    owner_lost: &[RawPath],
    threads: usize,
    tick: Tick<'_>,
) -> io::Result<Vec<Difference>> {
    let mut expected = manifest.clone();
    expected.entries.retain(Entry::is_archivable);
    let found = Manifest::walk(fs, copy, Contents::Hash, threads, tick).map_err(into_io)?;
    let lost: HashSet<&RawPath> = owner_lost.iter().collect();
    let mut differences = compare(&expected, &found, Ignoring::default());
    // Told once for all of them; a setuid bit goes with the owner.
    differences.retain(|difference| {
        !(matches!(difference.aspect, Aspect::Owner | Aspect::Mode) && lost.contains(&difference.path))
    });
    Ok(differences)
}

fn restored_otherwise(difference: &Difference) -> Finding {
    Finding {
        severity: severity_of(difference.aspect),
        subject: difference.path.clone(),
        what: format!("restored, it differs: {difference}"),
        advice:
            "restore it elsewhere by hand and compare; the scratch directory's file system may be the cause"
                .to_owned(),
    }
}

fn report_owner_lost(owner_lost: &[RawPath], findings: &mut Vec<Finding>) {
    if let Some(first) = owner_lost.first() {
        findings.push(Finding {
            severity: Severity::Note,
            subject: first.clone(),
            what: format!("the owner of {} names cannot be set by this user", owner_lost.len()),
            advice: "run the drill as root to prove owners too".to_owned(),
        });
    }
}

fn severity_of(aspect: Aspect) -> Severity {
    match aspect {
        Aspect::Missing | Aspect::Kind | Aspect::Size | Aspect::Target | Aspect::Content => Severity::Damage,
        Aspect::Unexpected
        | Aspect::Mode
        | Aspect::Owner
        | Aspect::Mtime
        | Aspect::HardLink
        | Aspect::Xattrs => Severity::Warning,
    }
}

fn expect_room(fs: &dyn Fs, into: &Path, manifest: &Manifest) -> io::Result<()> {
    let (free, needed) = (fs.free_bytes(parent_of(into))?, manifest.content_bytes());
    if free < needed {
        let what =
            format!("a drill needs {needed} bytes in `{}`, {free} are free", parent_of(into).display());
        return Err(io::Error::new(ErrorKind::StorageFull, what));
    }
    Ok(())
}

fn into_io(error: ManifestError) -> io::Error {
    match error {
        ManifestError::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// An error with its causes, in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::super::archive::tests::archived;
    use super::*;
    use crate::effect::os::OsFs;
    use crate::effect::tree::no_tick;
    use std::path::PathBuf;

    struct Bed {
        _dir: tempfile::TempDir,
        archive: PathBuf,
        index: PathBuf,
        manifest: PathBuf,
        tree: PathBuf,
        scratch: PathBuf,
        digests: [Digest; 2],
        held: Manifest,
    }

    fn bed() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let (_, written) = archived(dir.path());
        let at = |name: &str| dir.path().join(name);
        let digests = [
            written.index.write(&OsFs, &at("index")).unwrap(),
            written.manifest.write(&OsFs, &at("manifest")).unwrap(),
        ];
        let (archive, index, manifest, tree, scratch) =
            (at("a"), at("index"), at("manifest"), at("home"), at("scratch"));
        Bed { _dir: dir, archive, index, manifest, tree, scratch, digests, held: written.manifest }
    }

    impl Bed {
        fn set(&self) -> ArchiveSet<'_> {
            ArchiveSet {
                archive: &self.archive,
                index: Recorded { path: &self.index, digest: self.digests[0] },
                manifest: Recorded { path: &self.manifest, digest: self.digests[1] },
                tree: Some(&self.tree),
            }
        }

        fn all_levels(&self) -> [Vec<Finding>; 4] {
            [
                quick(&OsFs, &self.set(), 2, &no_tick).unwrap(),
                standard(&OsFs, &self.set(), 2, &no_tick).unwrap(),
                deep(&OsFs, &self.set(), 2, &no_tick).unwrap(),
                drill(&OsFs, &self.set(), &self.scratch, 2, &no_tick).unwrap(),
            ]
        }
    }

    fn worst(findings: &[Finding]) -> Option<Severity> {
        findings.iter().map(|finding| finding.severity).max()
    }

    #[test]
    fn a_sound_backup_passes_every_level_and_leaves_no_scratch() {
        let bed = bed();
        for (level, findings) in bed.all_levels().iter().enumerate() {
            assert!(worst(findings) <= Some(Severity::Note), "level {level}: {findings:#?}");
        }
        assert!(!bed.scratch.exists());
        let drilled = drill_tree(&OsFs, &bed.tree, &bed.held, &bed.scratch, 2, &no_tick).unwrap();
        assert!(worst(&drilled) <= Some(Severity::Note), "{drilled:#?}");
        assert!(!bed.scratch.exists());
    }

    #[test]
    fn damage_is_found_at_every_level_and_the_drill_restores_the_rest() {
        let bed = bed();
        let mut bytes = std::fs::read(&bed.archive).unwrap();
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        std::fs::write(&bed.archive, &bytes).unwrap();
        let levels = bed.all_levels();
        let names = |findings: &[Finding]| {
            let mut names: Vec<String> = findings.iter().map(|finding| finding.subject.to_string()).collect();
            names.sort();
            names
        };
        assert!(levels[0].len() > 1, "{:?}", levels[0]);
        for findings in &levels {
            assert_eq!(names(findings), names(&levels[0]));
            assert_eq!(worst(findings), Some(Severity::Damage));
        }
        let index = Index::read(&OsFs, &bed.index, &bed.digests[0]).unwrap();
        let (reading, _) =
            extract(&OsFs, &bed.archive, &index, &bed.held, &bed.scratch, 2, &no_tick).unwrap();
        let lost: Vec<&RawPath> = reading.lost.iter().map(|lost| &lost.path).collect();
        let mut rest = bed.held.clone();
        rest.entries.retain(|entry| entry.is_archivable() && !lost.contains(&&entry.path));
        let found = Manifest::walk(&OsFs, &bed.scratch, Contents::Hash, 2, &no_tick).unwrap();
        let ignoring = Ignoring { owner: !rustix::process::geteuid().is_root(), ..Ignoring::default() };
        let mut differences = compare(&rest, &found, ignoring);
        // A directory that was lost itself is made again for what is in it.
        differences.retain(|difference| !lost.contains(&&difference.path));
        assert_eq!(differences, []);
    }

    #[test]
    fn each_missing_or_changed_part_is_named_with_advice() {
        let bed = bed();
        std::fs::write(&bed.manifest, "kytxmanf").unwrap();
        std::fs::write(bed.tree.join("kylin.sh"), "#!/bin/sh\nexit\n").unwrap();
        let findings = standard(&OsFs, &bed.set(), 2, &no_tick).unwrap();
        assert_eq!(
            findings.iter().map(|f| f.subject.clone()).collect::<Vec<_>>(),
            [bed.manifest.clone().into()]
        );
        bed.held.write(&OsFs, &bed.manifest).unwrap();
        let findings = standard(&OsFs, &bed.set(), 2, &no_tick).unwrap();
        assert!(findings.iter().all(|finding| !finding.advice.is_empty()));
        let changed = RawPath::from(bed.tree.join("kylin.sh"));
        assert!(
            findings.iter().any(|f| f.subject == changed && f.severity == Severity::Damage),
            "{findings:#?}"
        );
        std::fs::remove_file(&bed.index).unwrap();
        for findings in bed.all_levels() {
            let index = RawPath::from(bed.index.clone());
            assert_eq!(
                findings.iter().filter(|finding| finding.subject == index).count(),
                1,
                "{findings:#?}"
            );
        }
        std::fs::remove_file(&bed.archive).unwrap();
        let findings = deep(&OsFs, &bed.set(), 2, &no_tick).unwrap();
        assert!(findings.iter().any(|finding| finding.subject == bed.archive.clone().into()));
    }

    #[test]
    fn an_index_that_leaves_something_out_is_found() {
        let mut bed = bed();
        let sound = Index::read(&OsFs, &bed.index, &bed.digests[0]).unwrap();
        let mut shorter = sound.clone();
        shorter.blocks.truncate(2);
        let mut shifted = sound.clone();
        shifted.blocks[2].first = shifted.blocks[2].last.clone();
        for index in [shorter, shifted] {
            bed.digests[0] = index.write(&OsFs, &bed.index).unwrap();
            let findings = standard(&OsFs, &bed.set(), 2, &no_tick).unwrap();
            let about = RawPath::from(bed.index.clone());
            assert!(findings.iter().any(|finding| finding.subject == about), "{findings:#?}");
        }
    }
}
