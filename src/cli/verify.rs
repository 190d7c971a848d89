//! `kytx verify`: proves that the backups of an open upgrade are whole. Never stops at the first damage.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::args::{LevelArgs, WhichArgs};
use super::claim;
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::progress::Meter;
use super::session::{self, journal_error, listen};
use super::standing;
use super::terminal::result;
use super::verify_cluster::Depth;
use crate::backup::compare::Ignoring;
use crate::backup::manifest::Manifest;
use crate::backup::verify::{self as levels, ArchiveSet, Finding, Recorded, Severity};
use crate::backup::walk::Contents;
use crate::digest::Digest;
use crate::effect::fs::{exists, read_file};
use crate::effect::os::OsFs;
use crate::effect::tree::{no_tick, remove_tree};
use crate::hadoop::local::local_path;
use crate::hadoop::scheme;
use crate::journal::read;
use crate::mutate::{
    ArchiveRecord, Progress, archive_record_path, cluster_copy_manifest_path, cluster_copy_path,
    cluster_snapshot_manifest_path, cluster_snapshot_path, cube_copy_path, cube_manifest_path,
    metadata_manifest_path, read_cube_manifest,
};
use crate::raw_path::RawPath;
use crate::txn::{CopyPass, Mutation, Phase, StepId, StepState, Txn};

/// How deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Quick,
    Standard,
    Deep,
    Drill,
}

/// Runs the command.
pub fn run(which: &WhichArgs, level: LevelArgs, json: bool) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    let level = match level {
        LevelArgs { quick: true, .. } => Level::Quick,
        LevelArgs { deep: true, .. } => Level::Deep,
        LevelArgs { drill: true, .. } => Level::Drill,
        _ => Level::Standard,
    };
    let stop = listen();
    let meter = Meter::new();
    let tick = |bytes: u64| {
        meter.bytes(bytes);
        if stop.count() > 0 { Err(io::Error::from(io::ErrorKind::Interrupted)) } else { Ok(()) }
    };
    meter.start("verify");
    loop {
        let (txn, records) = standing_of(&place)?;
        let verifier = Verifier { place: &place, txn: &txn, level, tick: &tick };
        let checked = verifier.all();
        let is_good = checked.as_ref().is_ok_and(|checked| !is_damaged(checked));
        // Beside a working kytx: a way back, or a commit, may have used up what was looked for.
        if !is_good && stop.count() == 0 && standing_of(&place)?.1 != records {
            continue;
        }
        let checked = checked.map_err(|error| {
            let exit = if stop.count() > 0 { Exit::Interrupted } else { Exit::Refused };
            CommandError::new(exit, "cannot verify")
                .because(&error)
                .state(standing::sentence(&txn))
                .hint(place.command("verify"))
        })?;
        meter.clear();
        return Ok(report(&checked, level, json));
    }
}

/// The transaction whose backups are there to be verified, and how many records tell so.
fn standing_of(place: &Place) -> Result<(Txn, usize), CommandError> {
    let view = read(&OsFs, place.state.root()).map_err(|error| journal_error(&error, place))?;
    let txn = session::replay(view.records(), place)?;
    if matches!(txn.phase(), Phase::Committing | Phase::Ended(_)) {
        return Err(CommandError::new(Exit::NotOpen, "there is nothing to verify")
            .why("the backups of an upgrade go with its commit, and are not needed after an abort")
            .state(standing::sentence(&txn))
            .hint(place.command("status")));
    }
    Ok((txn, view.frames.len()))
}

/// One backup that was verified.
struct Checked {
    what: String,
    findings: Vec<Finding>,
}

fn is_damaged(checked: &[Checked]) -> bool {
    checked.iter().flat_map(|one| &one.findings).any(|finding| finding.severity == Severity::Damage)
}

fn report(checked: &[Checked], level: Level, as_json: bool) -> Exit {
    let damaged = is_damaged(checked);
    if as_json {
        let backups: Vec<_> =
            checked.iter().map(|one| json!({ "backup": one.what, "findings": one.findings })).collect();
        let report = json!({
            "schema": "kytx.verify.v1",
            "level": format!("{level:?}").to_lowercase(),
            "damaged": damaged,
            "backups": backups,
        });
        result(&serde_json::to_string_pretty(&report).expect("BUG: plain data has a JSON form"));
    } else {
        for one in checked {
            let damage = one.findings.iter().filter(|finding| finding.severity == Severity::Damage).count();
            let verdict =
                if damage == 0 { "whole".to_owned() } else { format!("DAMAGED in {damage} places") };
            result(&format!("{}: {verdict}", one.what));
            for finding in &one.findings {
                result(&format!("  {finding}"));
                if !finding.advice.is_empty() {
                    result(&format!("    do: {}", finding.advice));
                }
            }
        }
        if checked.is_empty() {
            result("No backup has been made yet.");
        }
    }
    if damaged { Exit::Damaged } else { Exit::Done }
}

struct Verifier<'a> {
    place: &'a Place,
    txn: &'a Txn,
    level: Level,
    tick: &'a (dyn Fn(u64) -> io::Result<()> + Sync),
}

impl Verifier<'_> {
    fn all(&self) -> io::Result<Vec<Checked>> {
        let mut checked = Vec::new();
        for id in self.txn.ids() {
            let StepState::Done { outputs, .. } = self.txn.state(id) else { continue };
            match &self.txn.steps()[id.index()].mutation {
                Mutation::ArchiveTree { tree, archive, .. } => {
                    checked.push(self.archive(tree, archive, outputs)?);
                }
                Mutation::BackUpMetadata { backup, .. } => {
                    let manifest = metadata_manifest_path(backup);
                    checked.push(self.tree("metadata backup", backup.as_path(), &manifest, outputs)?);
                }
                // The way back has put it in the place of the cube data, or is about to.
                Mutation::CopyCubeData { pass: CopyPass::Final, .. } if self.data_are_going_back() => {}
                Mutation::CopyCubeData { cube, pass: CopyPass::Final }
                    if scheme(&cube.source) != Some("file") =>
                {
                    let manifest = cluster_copy_manifest_path(&self.place.state, cube);
                    checked.push(self.cluster(&cluster_copy_path(cube), &manifest, outputs)?);
                }
                Mutation::SnapshotCubeData { cube } => {
                    let manifest = cluster_snapshot_manifest_path(&self.place.state, cube);
                    checked.push(self.cluster(&cluster_snapshot_path(cube), &manifest, outputs)?);
                }
                Mutation::CopyCubeData { cube, pass: CopyPass::Final } => {
                    let copy = cube_copy_path(cube);
                    let path = local_path(&copy).map_err(io::Error::other)?;
                    let manifest = cube_manifest_path(&self.place.state, cube);
                    checked.push(self.tree("copy of the cube data", &path, &manifest, outputs)?);
                }
                _ => {}
            }
        }
        Ok(checked)
    }

    fn data_are_going_back(&self) -> bool {
        let hand_over =
            |id: &StepId| matches!(self.txn.steps()[id.index()].mutation, Mutation::HandOverData { .. });
        self.txn
            .ids()
            .find(hand_over)
            .is_some_and(|id| matches!(self.txn.state(id), StepState::Undoing { .. } | StepState::Undone))
    }

    /// Whether the old tree is in the spare place, untouched: from the swap on.
    fn old_tree_is_spare(&self) -> bool {
        let exchange =
            |id: &StepId| matches!(self.txn.steps()[id.index()].mutation, Mutation::ExchangeTrees { .. });
        self.txn.ids().find(exchange).is_some_and(|id| matches!(self.txn.state(id), StepState::Done { .. }))
    }

    fn archive(&self, tree: &RawPath, archive: &RawPath, outputs: Digest) -> io::Result<Checked> {
        let what = format!("archive `{archive}`");
        let record_path = archive_record_path(&self.place.state, archive);
        let record = match read_recorded(&record_path, outputs) {
            Ok(text) => serde_json::from_slice::<ArchiveRecord>(&text).map_err(io::Error::other)?,
            Err(finding) => return Ok(Checked { what, findings: vec![*finding] }),
        };
        let (manifest, index) = (record_path.with_extension("manifest"), record_path.with_extension("index"));
        let spare = self.place.state.spare();
        let tree = if self.old_tree_is_spare() { spare.as_path() } else { tree.as_path() };
        let set = ArchiveSet {
            archive: archive.as_path(),
            index: Recorded { path: &index, digest: record.index },
            manifest: Recorded { path: &manifest, digest: record.manifest },
            tree: exists(&OsFs, tree)?.then_some(tree),
        };
        let findings = match self.level {
            Level::Quick => levels::quick(&OsFs, &set, 2, self.tick),
            Level::Standard => levels::standard(&OsFs, &set, 2, self.tick),
            Level::Deep => levels::deep(&OsFs, &set, 2, self.tick),
            Level::Drill => levels::drill(&OsFs, &set, &self.scratch()?, 2, self.tick),
        }?;
        Ok(Checked { what, findings })
    }

    fn tree(&self, what: &str, tree: &Path, manifest: &Path, outputs: Digest) -> io::Result<Checked> {
        let what = format!("{what} `{}`", RawPath::from(tree));
        let manifest = match Manifest::read(&OsFs, manifest, &outputs) {
            Ok(manifest) => manifest,
            Err(error) => return Ok(Checked { what, findings: vec![damage(manifest, &error.to_string())] }),
        };
        let ignoring = Ignoring { owner: false, dir_mtime: true, xattrs: false };
        let findings = match self.level {
            Level::Quick | Level::Standard => {
                levels::verify_tree(&OsFs, tree, &manifest, Contents::Skip, ignoring, 2, self.tick)
            }
            Level::Deep => {
                levels::verify_tree(&OsFs, tree, &manifest, Contents::Hash, ignoring, 2, self.tick)
            }
            Level::Drill => levels::drill_tree(&OsFs, tree, &manifest, &self.scratch()?, 2, self.tick),
        }?;
        Ok(Checked { what, findings })
    }

    fn cluster(&self, tree: &RawPath, manifest: &Path, outputs: Digest) -> io::Result<Checked> {
        let depth = match self.level {
            Level::Quick => Depth::Names,
            Level::Standard => Depth::Checksums,
            Level::Deep | Level::Drill => Depth::Bytes,
        };
        let what = format!("cube data `{tree}`");
        let findings = match read_cube_manifest(&OsFs, manifest, outputs) {
            Ok(manifest) => super::verify_cluster::verify(tree, &manifest, depth)?,
            Err(error) => vec![damage(manifest, &error.to_string())],
        };
        Ok(Checked { what, findings })
    }

    /// A place for the drill, on the file system where an abort would work too. A drill that was killed left one.
    fn scratch(&self) -> io::Result<PathBuf> {
        let scratch = self.place.state.root().join("drill");
        remove_tree(&OsFs, &scratch, &no_tick)?;
        Ok(scratch)
    }
}

fn read_recorded(path: &Path, digest: Digest) -> Result<Vec<u8>, Box<Finding>> {
    let text = read_file(&OsFs, path, 1 << 20).map_err(|error| Box::new(damage(path, &error.to_string())))?;
    if Digest::of(&text) != digest {
        return Err(Box::new(damage(path, "it is not what the journal names: it has been changed")));
    }
    Ok(text)
}

fn damage(path: &Path, what: &str) -> Finding {
    Finding {
        severity: Severity::Damage,
        subject: path.into(),
        what: what.to_owned(),
        advice: "while the old tree is there, `kytx abort` still works without it; do not commit".to_owned(),
    }
}
