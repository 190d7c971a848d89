//! `kytx rehearse`: the operator's own upgrade on a copy of the operator's own home, killed at many moments, resumed and
//! aborted, with a report of what came of it.
//!
//! Nothing outside the directory of the rehearsal is touched. The copy has the stand-in's scripts in the place of the
//! product's, and a metadata store, cube data and a port of its own; so it shows what kytx does with this home and this
//! package, and says nothing of what the new release does with the real metadata.

mod copy;
mod kills;
mod look;
mod report;
mod rounds;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::args::{ArchiveArg, CubeBackup, MergeArg, UpgradeArgs};
use super::check::finding_lines;
use super::draft::{Draft, draft};
use super::error::CommandError;
use super::exit::Exit;
use super::merging::Decider;
use super::place::{Place, absolute};
use super::plan;
use super::progress::Meter;
use super::session;
use super::terminal::{bytes, result, tell};
use crate::backup::archive;
use crate::backup::manifest::Manifest;
use crate::backup::unpack::unpack;
use crate::backup::walk::Contents;
use crate::digest::Digest;
use crate::effect::fs::{Fs, Kind, exists};
use crate::effect::os::{OsFs, real_path};
use crate::effect::signal::StopRequests;
use crate::effect::tree::{copy_live_tree, make_dirs, no_tick, parent_of, remove_tree};
use crate::kyligence::home::{Home, Layout};
use crate::kyligence::preflight::{Severity, blocks};
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;
use crate::testbed::{self, StandIn, end_processes_below};
use crate::txn::{Mutation, Step};
use report::{Report, Space};

/// Why the place of a rehearsal must be free.
const FULL: &str = "a rehearsal makes and deletes whole trees there, and none of them may be somebody's";

/// What is needed beside the trees: logs, journals, the stand-in's data.
const SPARE_BYTES: u64 = 128 << 20;

/// How to rehearse.
pub struct Options {
    /// Where.
    pub dir: PathBuf,
    /// A saved plan.
    pub plan: Option<PathBuf>,
    /// How many kills.
    pub kills: Option<u32>,
    /// What they are chosen by.
    pub seed: u64,
    /// Leave everything there.
    pub keep: bool,
    /// Print JSON.
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &UpgradeArgs, options: &Options) -> Result<Exit, CommandError> {
    let place = Place::of(&args.which)?;
    let dir = check_dir(&place, &options.dir)?;
    let saved = options.plan.as_deref().map(plan::load).transpose()?;
    let meter = Meter::new();
    let planned = saved.as_ref().map(plan::SavedPlan::planned);
    let draft = draft(args, &place, planned, &meter, &mut Decider::preview(args.merge))?;
    if let Some(saved) = &saved {
        plan::check_unmoved(saved, &draft)?;
    }
    meter.start("measure the home");
    let space = measure(&draft, args, &dir).context("cannot see how much there is to copy")?;
    meter.clear();
    let line = format!(
        "The rehearsal needs {} in `{}`, where {} are free.",
        bytes(space.needed_bytes),
        RawPath::from(dir.as_path()),
        bytes(space.free_bytes)
    );
    if options.json {
        tell(&line);
    } else {
        result(&line);
    }
    if space.free_bytes < space.needed_bytes {
        return Err(CommandError::refused("there is too little room for a rehearsal")
            .why("home and package are copied, and each upgrade of the copy needs the room that one of the home does")
            .hint("kytx rehearse ... --in DIR, with DIR on a larger file system, or --archive none"));
    }
    let is_new = !exists(&OsFs, &dir).unwrap_or(true);
    make_dirs(&OsFs, &dir, 0o700).context("cannot make the directory of the rehearsal")?;
    let stop = session::listen();
    let rehearsed = rehearse(args, options, &draft, &dir, space, &stop);
    let ended = end_processes_below(&dir).context("the stand-in's service does not end");
    let failed = rehearsed.as_ref().is_ok_and(|report| !report.violations.is_empty());
    let keep = options.keep || failed;
    if !keep {
        clear(&dir, is_new).context("cannot clear the directory of the rehearsal")?;
    }
    let report = rehearsed?;
    ended?;
    Ok(report.print(options.json, keep.then_some(dir.as_path())))
}

/// Where the rehearsal will be: a directory that is empty, or not there yet, apart from everything that is in use.
fn check_dir(place: &Place, named: &Path) -> Result<PathBuf, CommandError> {
    let show = RawPath::from(named);
    let refuse = |what: String, why: &str| {
        CommandError::refused(what)
            .why(why)
            .hint("kytx rehearse ... --in DIR, with DIR empty or not there yet, and nowhere in use")
    };
    let path = super::place::real_as_far_as_there(&absolute(named)?);
    super::place::check_for_the_metadata_tool(&path)?;
    let home = place.home.as_deref().unwrap_or(Path::new("/"));
    let own = StateDir::default_for(home);
    for (what, used) in
        [("home", home), ("state directory", place.state.root()), ("home's place", own.root())]
    {
        if path.starts_with(used) || used.starts_with(&path) {
            let used = RawPath::from(used);
            return Err(refuse(format!("`{show}` and the {what} `{used}` lie inside one another"), FULL));
        }
    }
    match OsFs.stat(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path),
        Err(error) => Err(refuse(format!("cannot look at `{show}`"), &error.to_string())),
        Ok(meta) if meta.kind != Kind::Dir => Err(refuse(format!("`{show}` is no directory"), FULL)),
        Ok(_) => match OsFs.list(&path) {
            Ok(entries) if entries.is_empty() => Ok(path),
            Ok(_) => Err(refuse(format!("`{show}` is not empty"), FULL)),
            Err(error) => Err(refuse(format!("cannot look into `{show}`"), &error.to_string())),
        },
    }
}

fn measure(draft: &Draft, args: &UpgradeArgs, dir: &Path) -> io::Result<Space> {
    let home_bytes = copy::measure(draft.header.home.as_path(), dir)?;
    let package_bytes = draft.package_bytes;
    let archive = if args.archive == ArchiveArg::None { 0 } else { home_bytes };
    // The copy, what may be carried of it, its archive; the package unpacked, packed again, and as the new tree.
    let needed_bytes = home_bytes + home_bytes / 4 + archive + 3 * package_bytes + SPARE_BYTES;
    let there = dir.ancestors().find(|dir| exists(&OsFs, dir).unwrap_or(false)).unwrap_or(Path::new("/"));
    Ok(Space { home_bytes, package_bytes, needed_bytes, free_bytes: OsFs.free_bytes(there)? })
}

fn clear(dir: &Path, is_new: bool) -> io::Result<()> {
    if is_new {
        return remove_tree(&OsFs, dir, &no_tick);
    }
    OsFs.list(dir)?.into_iter().try_for_each(|name| remove_tree(&OsFs, &dir.join(name), &no_tick))
}

fn rehearse(
    args: &UpgradeArgs,
    options: &Options,
    real: &Draft,
    dir: &Path,
    space: Space,
    stop: &StopRequests,
) -> Result<Report, CommandError> {
    let meter = Meter::new();
    let home = Home::recognise(&OsFs, real.header.home.as_path())
        .map_err(|error| CommandError::refused("the home cannot be read any more").because(&error))?;
    let layout = match home.layout {
        Layout::Tomcat => testbed::Layout::Ke3,
        Layout::Server => testbed::Layout::Ke4,
    };
    let program = std::env::current_exe().context("cannot find kytx itself")?;
    let stand_in = StandIn::create(dir, layout, &home.identity.version.to_string(), program)
        .context("cannot make the stand-in's store")?;
    meter.start("copy the home");
    let name = home.path.file_name().unwrap_or_default();
    let copied = dir.join("opt").join(name);
    let made = make_copies(&home, real, &copied, dir, &stand_in, &meter).context("cannot copy")?;
    meter.clear();
    let words = begin_words(args, &copied, &made.package);
    let mut remarks = made.remarks;
    let which =
        super::args::WhichArgs { home: Some(copied.clone()), state_dir: None, env_script: None, doom: None };
    let copy_args = UpgradeArgs { which, package: made.package, ..args.clone() };
    let place = Place::of(&copy_args.which)?;
    let planned = draft(&copy_args, &place, None, &meter, &mut Decider::preview(args.merge))?;
    remarks.extend(check_plan(real, &planned)?);
    meter.clear();
    let report = Report::new(real, dir, options.seed, space, remarks);
    let rehearsal =
        rounds::Rehearsal { place: &place, home: &copied, dir, stand_in: &stand_in, begin: words, stop };
    rehearsal.run(options, report)
}

struct Copies {
    package: PathBuf,
    remarks: Vec<String>,
}

fn make_copies(
    home: &Home,
    real: &Draft,
    copied: &Path,
    dir: &Path,
    stand_in: &StandIn,
    meter: &Meter,
) -> anyhow::Result<Copies> {
    make_dirs(&OsFs, parent_of(copied), 0o700)?;
    let remarks = copy::copy_home(&home.path, copied, &dir.join("outside"), dir)?;
    stand_in.replace_scripts(copied)?;
    stand_in.redirect(copied)?;
    let again = Home::recognise(&OsFs, copied)?;
    // Whoever is asked whether the service is ready must not be the real one.
    anyhow::ensure!(
        again.readiness.port == stand_in.port() && !again.readiness.tls,
        "the copy does not have a port of its own"
    );
    meter.start("copy the package");
    let downloads = dir.join("downloads");
    make_dirs(&OsFs, &downloads, 0o700)?;
    let top = real.package_top.as_path();
    let unpacked = downloads.join(if top.as_os_str().is_empty() { Path::new("package") } else { top });
    let package = real.header.package.as_path();
    let is_dir = OsFs.stat(package)?.kind == Kind::Dir;
    if is_dir {
        copy_live_tree(&OsFs, package, &unpacked, &no_tick)?;
        stand_in.replace_scripts(&unpacked)?;
        return Ok(Copies { package: unpacked, remarks });
    }
    let meta = OsFs.stat(&home.path)?;
    unpack(&OsFs, package, &content_of(real), &unpacked, (meta.uid, meta.gid), 2, &no_tick)?;
    stand_in.replace_scripts(&unpacked)?;
    // Packed again: unpacking is a part of the upgrade.
    let manifest = Manifest::walk(&OsFs, &unpacked, Contents::Skip, 2, &no_tick)?;
    let file = downloads.join("package.tar.gz");
    archive::write(&OsFs, &unpacked, &manifest, &real.package_top, &file, 2, &no_tick)?;
    remove_tree(&OsFs, &unpacked, &no_tick)?;
    Ok(Copies { package: real_path(&file)?, remarks })
}

fn content_of(draft: &Draft) -> Digest {
    let content = draft.steps.iter().find_map(|step| match &step.mutation {
        Mutation::StageTree { content, .. } => Some(*content),
        _ => None,
    });
    content.expect("BUG: every plan stages a tree")
}

/// The words of `begin` on the copy: the operator's own options.
fn begin_words(args: &UpgradeArgs, home: &Path, package: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["begin".into(), home.into(), "--silent".into()];
    words.extend(["--package".into(), package.into()]);
    if let Some(old) = &args.old_package {
        words.extend(["--old-package".into(), absolute(old).unwrap_or_else(|_| old.clone()).into()]);
    }
    if let Some(licence) = &args.licence {
        words.extend(["--licence".into(), absolute(licence).unwrap_or_else(|_| licence.clone()).into()]);
    }
    // A rehearsal asks nothing; a question's answer would change values, and no step.
    if args.merge == MergeArg::Theirs {
        words.extend(["--merge", "theirs"].map(OsString::from));
    }
    words.extend(args.reinstall.then(|| "--reinstall".into()));
    words.extend(args.no_start.then(|| "--no-start".into()));
    let archive = match args.archive {
        ArchiveArg::After => "after",
        ArchiveArg::Before => "before",
        ArchiveArg::None => "none",
    };
    let cube = match args.cube_backup {
        CubeBackup::Auto => "auto",
        // The copy's cube data are on a local disk, where a copy is the only way.
        CubeBackup::Distcp | CubeBackup::Snapshot | CubeBackup::Both => "distcp",
        CubeBackup::None => "none",
    };
    words.extend(["--archive", archive, "--cube-backup", cube].map(OsString::from));
    if let Some(limit_s) = args.start_timeout {
        words.extend(["--start-timeout".into(), limit_s.to_string().into()]);
    }
    for given in &args.overrides {
        words.extend(["--override".into(), given.into()]);
    }
    words
}

/// The plan of the copy must be that of the home: the same steps. What is carried otherwise is told.
fn check_plan(real: &Draft, copy: &Draft) -> Result<Vec<String>, CommandError> {
    if blocks(&copy.findings, &copy.overridden) {
        let blocking: Vec<_> =
            copy.findings.iter().filter(|finding| finding.severity == Severity::Block).cloned().collect();
        let mut error = CommandError::refused("the upgrade of the copy could not begin");
        error.why = finding_lines(&blocking, &copy.overridden);
        return Err(error.hint("kytx check ..., with the same words, until nothing blocks"));
    }
    let is_snapshot = |step: &Step| matches!(step.mutation, Mutation::SnapshotCubeData { .. });
    let has_snapshot = real.steps.iter().any(is_snapshot);
    // The one thing in which they may differ: the copy's cube data are on a local disk, which has no snapshots.
    let keeps_cube = |step: &Step| {
        is_snapshot(step)
            || matches!(
                step.mutation,
                Mutation::CopyCubeData { .. }
                    | Mutation::DiscardCubeData { .. }
                    | Mutation::DiscardSnapshot { .. }
            )
    };
    let names = |draft: &Draft| {
        let steps = draft.steps.iter().filter(|step| !(has_snapshot && keeps_cube(step)));
        steps.map(|step| step.name.clone()).collect::<Vec<_>>().join(", ")
    };
    if names(real) != names(copy) {
        return Err(CommandError::refused("the plan of the copy is not that of the home")
            .why(format!("the home's steps are {}", names(real)))
            .why(format!("the copy's steps are {}", names(copy)))
            .hint("kytx plan ..., with the same words, to see what the home's depends on"));
    }
    let mut remarks = Vec::new();
    if has_snapshot {
        remarks.push("the home's cube data are kept by a snapshot, the copy's by a copy".to_owned());
    }
    if blocks(&real.findings, &real.overridden) {
        remarks.push("`begin` on the home itself would be refused now: see `kytx check`".to_owned());
    }
    let carried = |draft: &Draft| {
        let items = draft.carry.items.iter().map(|item| format!("`{}` -> `{}`", item.from, item.to));
        // The copy's store, port and scripts are told there.
        items
            .filter(|item| !item.contains("kylin.properties.override"))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (of_home, of_copy) = (carried(real), carried(copy));
    remarks
        .extend(of_home.difference(&of_copy).map(|item| format!("carried in the home's plan only: {item}")));
    remarks
        .extend(of_copy.difference(&of_home).map(|item| format!("carried in the copy's plan only: {item}")));
    Ok(remarks)
}
