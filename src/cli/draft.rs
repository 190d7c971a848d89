//! The draft of an upgrade: everything that is looked at and decided before anything is touched.
//!
//! `plan`, `check` and `begin` make the same draft by the same function, so that a preview cannot differ from the act.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::args::{RoleArg, UpgradeArgs};
use super::audit;
use super::beside::beside;
use super::cluster::{self, Membership};
use super::cube;
use super::error::CommandError;
use super::facts::{self, Known};
use super::merging::{Decider, Decision};
use super::packages::{Seen, check_base, name_of, read_package};
use super::place::{Place, absolute};
use super::procedure;
use super::progress::Meter;
use super::sources;
use crate::backup::manifest::Manifest;
use crate::backup::walk::{Contents, hash_file};
use crate::digest::Digest;
use crate::effect::fs::{Fs, exists};
use crate::effect::lock::user_name;
use crate::effect::os::{OsFs, host_name};
use crate::effect::tree::{no_tick, sibling};
use crate::kyligence::carry::{CarryItem, CarryList, How};
use crate::kyligence::home::{Home, Package, read_through_links};
use crate::kyligence::merge::KeyChange;
use crate::kyligence::planner::{ArchiveWhen, CubeKept, PlanInputs, steps};
use crate::kyligence::preflight::nodes::judge as judge_nodes;
use crate::kyligence::preflight::procedure::{Procedure, judge as judge_procedure};
use crate::kyligence::preflight::{CheckId, Facts, Finding, judge, judge_carried, sorted};
use crate::kyligence::survey::{FileChanges, Survey, SurveyInput, Tree, survey};
use crate::kyligence::version::{Generation, UpgradeKind, rule};
use crate::mutate::item_digest;
use crate::raw_path::RawPath;
use crate::txn::{CubeCopy, Header, Override, Owner, SideFile, Step, TxnId, plan_digest};

/// The longest reason for an override: the record that holds it has a limit of its own.
const REASON_LIMIT_BYTES: usize = 200;

/// The name of the carry list in the state directory.
pub const CARRY_LIST: &str = "carry.json";

/// A draft. It is what `plan --json` prints; no secret is in it.
#[derive(Serialize)]
pub struct Draft {
    /// `kytx.plan.v1`.
    pub schema: &'static str,
    /// What the transaction will be about.
    pub header: Header,
    /// Minor, major or reinstall.
    pub kind: UpgradeKind,
    /// The steps.
    pub steps: Vec<Step>,
    /// The digest that binds them, and through them all that was seen.
    pub plan: Digest,
    /// What is carried, and what to know about it.
    pub carry: CarryList,
    /// The merge of `kylin.properties`.
    pub properties: Vec<KeyChange>,
    /// The merges of XML files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<FileChanges>,
    /// Where operator and new release both changed a value, and whose wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Decision>,
    /// What speaks against it or should be known.
    pub findings: Vec<Finding>,
    /// Sentences about the cube data.
    pub remarks: Vec<String>,
    /// The carry list as it is written, whose digest is in the steps.
    #[serde(skip)]
    pub carry_text: Vec<u8>,
    /// Contents of edited files by digest. They may hold secrets.
    #[serde(skip)]
    pub contents: BTreeMap<Digest, Vec<u8>>,
    /// The checks that are overridden.
    #[serde(skip)]
    pub overridden: Vec<CheckId>,
    /// Which node of a cluster the home is, if it is upgraded as one.
    #[serde(skip)]
    pub membership: Option<Membership>,
    /// The package's top directory.
    #[serde(skip)]
    pub package_top: RawPath,
    /// What the package holds, unpacked.
    #[serde(skip)]
    pub package_bytes: u64,
}

/// What a draft takes from a plan that was made before.
pub struct Planned {
    /// The transaction's name.
    pub txn: TxnId,
    /// When it was made, in seconds since 1970.
    pub made_unix_s: u64,
}

/// Makes the draft. `planned` is the plan that it must be again.
pub fn draft(
    args: &UpgradeArgs,
    place: &Place,
    planned: Option<Planned>,
    meter: &Meter,
    decider: &mut Decider,
) -> Result<Draft, CommandError> {
    let home = recognise(place)?;
    sources::parse(&args.default_source)?;
    place.check_state_dir(&home.path)?;
    let (overrides, overridden) = overrides(&args.overrides)?;
    let new = read_package(&args.package, "package", &home, meter)?;
    let base = read_base(args, &home, meter)?;
    let package = package_of(&new)?;
    let upgrade = rule(&home.identity, &package.identity, args.reinstall);

    meter.start("survey");
    let old = Manifest::walk(&OsFs, &home.path, Contents::Skip, 2, &no_tick)
        .map_err(|error| cannot_read(&error))?;
    let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let made_unix_s = planned.as_ref().map_or(now_unix_s, |planned| planned.made_unix_s);
    let txn = planned.map_or_else(|| new_txn_id(&home.path), |planned| planned.txn);
    let kind = upgrade.as_ref().copied().unwrap_or(UpgradeKind::Minor);
    let decision = decide_cube(args, kind, &home, &txn)?;
    let known = Known {
        home: &home,
        package: &package,
        upgrade,
        old: &old,
        new: &new.scanned.manifest,
        texts: &new.scanned.texts,
        archive: ArchiveWhen::from(args.archive) != ArchiveWhen::None,
        cube: decision.local,
    };
    let (mut facts, procedure) = side_by_side(&known, place, args)?;
    let nodes = cluster::gather(args, &home, &package, new.scanned.content, &facts.processes);
    facts.cluster = decision.cluster;
    let licence = args.licence.as_deref().map(read_licence).transpose()?;
    let surveyor = Surveying {
        home: &home,
        package: &package,
        old: &old,
        new: &new,
        base: base.as_ref(),
        licence_given: licence.is_some(),
    };
    let mut surveyed = surveyor.survey(decider)?;
    decider.finish()?;
    let of_nodes = nodes.as_ref().map(|(seen, _)| judge_nodes(seen)).unwrap_or_default();
    let carried = judge_carried(&surveyed.unpacked);
    let findings = sorted([judge(&facts), judge_procedure(&procedure), carried, of_nodes].concat());
    if let Some(licence) = licence {
        put_licence(&mut surveyed, &home, licence)?;
    }
    if args.audit {
        put_audit(&mut surveyed, args, &home, &package, &new, &txn, made_unix_s)?;
    }
    let carry_text = serde_json::to_vec(&surveyed.list).expect("BUG: a carry list has a JSON form");
    let inputs = plan_inputs(args, place, (&home, &package), &new, decision.cube, &txn, &carry_text)?;
    let steps = steps(&inputs);
    Ok(Draft {
        schema: "kytx.plan.v1",
        header: header(txn, now_unix_s, &home, &package, &inputs, overrides),
        kind,
        plan: plan_digest(&steps),
        steps,
        carry: surveyed.list,
        properties: surveyed.changes,
        merged: surveyed.merged,
        conflicts: decider.decisions.clone(),
        findings,
        remarks: decision.remarks,
        carry_text,
        contents: surveyed.contents,
        overridden,
        membership: nodes.and_then(|(_, membership)| membership),
        package_top: name_of(&new),
        package_bytes: new.scanned.manifest.content_bytes(),
    })
}

fn read_base(args: &UpgradeArgs, home: &Home, meter: &Meter) -> Result<Option<Seen>, CommandError> {
    let Some(path) = args.old_package.as_deref() else { return Ok(None) };
    let base = read_package(path, "old package", home, meter)?;
    check_base(&base, home)?;
    Ok(Some(base))
}

fn package_of(new: &Seen) -> Result<Package, CommandError> {
    Package::recognise(&name_of(new), &new.scanned.texts, &new.scanned.manifest).map_err(|error| {
        CommandError::refused(format!("`{}` is no package of the product", RawPath::from(new.path.as_path())))
            .because(&error)
            .hint("give the new release as the vendor ships it")
    })
}

/// What is shared by the nodes of a cluster is the primary one's.
fn decide_cube(
    args: &UpgradeArgs,
    kind: UpgradeKind,
    home: &Home,
    txn: &TxnId,
) -> Result<cube::CubeDecision, CommandError> {
    if args.role != Some(RoleArg::Secondary) {
        return cube::decide(args, kind, home, txn);
    }
    let why = "Metadata and cube data are the primary node's: this node changes its home alone.";
    Ok(cube::CubeDecision { remarks: vec![why.to_owned()], ..cube::CubeDecision::default() })
}

fn recognise(place: &Place) -> Result<Home, CommandError> {
    let path = place.home.as_deref().ok_or_else(|| {
        CommandError::usage("no home was given")
            .why("a state directory does not say which home is to be upgraded")
            .hint("kytx begin /path/to/kylin-home --package FILE")
    })?;
    Home::recognise(&OsFs, path).map_err(|error| {
        CommandError::refused(format!("`{}` cannot be upgraded", RawPath::from(path)))
            .because(&error)
            .hint("give the path of the installed home")
    })
}

fn cannot_read(error: &(dyn std::error::Error + 'static)) -> CommandError {
    CommandError::refused("the home cannot be read")
        .because(error)
        .hint("run kytx as the user that owns the home, or as root")
}

fn overrides(given: &[String]) -> Result<(Vec<Override>, Vec<CheckId>), CommandError> {
    let mut reasons = Vec::new();
    let mut ids = Vec::new();
    for text in given {
        let (id, reason) =
            text.split_once('=').filter(|(_, reason)| !reason.trim().is_empty()).ok_or_else(|| {
                CommandError::usage(format!("`--override {text}` gives no reason"))
                    .why("an override is recorded with the reason for it")
                    .hint("--override CHECK=REASON")
            })?;
        let known: CheckId = serde_json::from_value(id.into()).map_err(|_| {
            CommandError::usage(format!("there is no check `{id}`"))
                .why("an override names the check of the finding that it answers")
                .hint("--override CHECK=REASON, with a CHECK that `kytx check` shows")
        })?;
        if reason.len() > REASON_LIMIT_BYTES {
            return Err(CommandError::usage(format!("the reason for overriding `{id}` is too long")).why(
                format!("it is recorded in the journal, and {REASON_LIMIT_BYTES} bytes of it at most"),
            ));
        }
        reasons.push(Override { check: id.to_owned(), reason: reason.to_owned() });
        ids.push(known);
    }
    Ok((reasons, ids))
}

/// Two lists of facts at once: some wait for programs and for the network.
fn side_by_side(
    known: &Known<'_>,
    place: &Place,
    args: &UpgradeArgs,
) -> Result<(Facts, Procedure), CommandError> {
    let processes = facts::processes(known.home).map_err(|error| {
        CommandError::refused("whether the service runs cannot be seen")
            .because(&error)
            .hint("see to it that `/proc` can be read")
    })?;
    let gather = || procedure::gather(args, known.home, known.package, &processes);
    std::thread::scope(|scope| {
        let procedure = beside(scope, &gather);
        let facts = facts::gather(known, place, processes.clone());
        Ok((facts, procedure.result()))
    })
}

fn read_licence(path: &Path) -> Result<Vec<u8>, CommandError> {
    let refuse = || {
        CommandError::refused(format!("the licence `{}` cannot be used", RawPath::from(path)))
            .hint("--licence FILE, with the file that the vendor sent")
    };
    let text = read_through_links(&OsFs, &absolute(path)?).map_err(|error| refuse().because(&error))?;
    match text {
        None => Err(refuse().why("there is no such file")),
        Some(text) if text.trim_ascii().is_empty() => Err(refuse().why("it is empty")),
        Some(text) => Ok(text),
    }
}

/// The licence goes the way of every edited file: its content is in a side file of mode 0600, its digest in the plan.
fn put_licence(surveyed: &mut Survey, home: &Home, licence: Vec<u8>) -> Result<(), CommandError> {
    let has = exists(&OsFs, &home.path.join("LICENSE")).map_err(|error| cannot_read(&error))?;
    // The attributes are those of a file of the old home.
    let from = RawPath::from(if has { "LICENSE" } else { "VERSION" });
    let expected =
        item_digest(&OsFs, &home.path.join(from.as_path()), 2).map_err(|error| cannot_read(&error))?;
    let content = Digest::of(&licence);
    surveyed.contents.insert(content, licence);
    let items = &mut surveyed.list.items;
    items.push(CarryItem {
        from,
        to: "LICENSE".into(),
        how: How::Edited { content },
        expected: Some(expected),
        why: "the licence given with `--licence`".to_owned(),
    });
    items.sort_by(|a, b| a.to.cmp(&b.to));
    Ok(())
}

/// The lines of the product's own script, as files of the new tree.
fn put_audit(
    surveyed: &mut Survey,
    args: &UpgradeArgs,
    home: &Home,
    package: &Package,
    new: &Seen,
    txn: &TxnId,
    made_unix_s: u64,
) -> Result<(), CommandError> {
    let archive = match args.archive {
        super::args::ArchiveArg::None => None,
        _ => Some(RawPath::from(archive_name(home, txn)?)),
    };
    let lines = audit::log_lines(&audit::Header {
        home: &home.path.as_path().into(),
        old: &home.identity.version.text,
        new: &package.identity.version.text,
        package: &new.path.as_path().into(),
        txn: &txn.0,
        archive: archive.as_ref(),
    });
    let expected = item_digest(&OsFs, &home.path.join("VERSION"), 2).map_err(|error| cannot_read(&error))?;
    for (name, content) in audit::files(made_unix_s, &lines) {
        surveyed.list.items.push(audit::item(&name, &content, expected));
        surveyed.contents.insert(Digest::of(&content), content);
    }
    surveyed.list.items.sort_by(|a, b| a.to.cmp(&b.to));
    Ok(())
}

/// What a survey is made of.
struct Surveying<'a> {
    home: &'a Home,
    package: &'a Package,
    old: &'a Manifest,
    new: &'a Seen,
    base: Option<&'a Seen>,
    licence_given: bool,
}

impl Surveying<'_> {
    fn survey(&self, decider: &mut Decider) -> Result<Survey, CommandError> {
        let Self { home, new, base, .. } = self;
        let raw_home = RawPath::from(home.path.as_path());
        let unpacked = OsFs.stat(&new.path).is_ok_and(|meta| meta.kind == crate::effect::fs::Kind::Dir);
        let unpacked = unpacked.then(|| RawPath::from(new.path.as_path()));
        let read_new = |path: &RawPath| Ok(new.scanned.texts.get(path).cloned());
        let read_base = |path: &RawPath| Ok(base.and_then(|base| base.scanned.texts.get(path).cloned()));
        let read_old = |path: &RawPath| read_through_links(&OsFs, &home.path.join(path.as_path()));
        let mut input = SurveyInput {
            layout: home.layout,
            home: &raw_home,
            unpacked: unpacked.as_ref(),
            old: &home.identity,
            new: &self.package.identity,
            old_tree: Tree { manifest: self.old, read: &read_old },
            new_tree: Tree { manifest: &new.scanned.manifest, read: &read_new },
            base_tree: base.map(|base| Tree { manifest: &base.scanned.manifest, read: &read_base }),
            top: &new.scanned.top,
            licence_given: self.licence_given,
            renames: &new.renames,
            decide: &mut |file, conflict| decider.decide(file, conflict),
            hash: &mut |path| Ok(hash_file(&OsFs, &home.path.join(path.as_path()), &no_tick)?.1),
            expect: &mut |path| item_digest(&OsFs, &home.path.join(path.as_path()), 2),
        };
        survey(&mut input).map_err(|error| cannot_read(&error))
    }
}

fn plan_inputs(
    args: &UpgradeArgs,
    place: &Place,
    (home, package): (&Home, &Package),
    new: &Seen,
    cube: Option<(CubeCopy, CubeKept)>,
    txn: &TxnId,
    carry_text: &[u8],
) -> Result<PlanInputs, CommandError> {
    let state = &place.state;
    Ok(PlanInputs {
        home: home.path.as_path().into(),
        package: new.path.as_path().into(),
        content: new.scanned.content,
        spare: state.spare().into(),
        owner: owner_of(home)?,
        carry: SideFile {
            path: RawPath::from("plan").join(&CARRY_LIST.into()),
            digest: Digest::of(carry_text),
        },
        metadata_backup: state.backup().join(&txn.0).join("metadata").into(),
        cube,
        archive_when: args.archive.into(),
        archive: archive_name(home, txn)?.into(),
        start: !args.no_start,
        start_timeout_s: args.start_timeout.unwrap_or(start_timeout(home, package)),
        home_only: args.role == Some(RoleArg::Secondary),
    })
}

/// How long a start may take, in seconds: the first one of release 3 on metadata of release 2 migrates them, which may
/// take hours and must not be interrupted.
fn start_timeout(home: &Home, package: &Package) -> u32 {
    let pair = (home.identity.generation(), package.identity.generation());
    if pair == (Some(Generation::Kap2), Some(Generation::Ke3)) { u32::MAX } else { 600 }
}

/// The name that the manual's way back expects, unless something has it already: that is not ours to replace.
fn archive_name(home: &Home, txn: &TxnId) -> Result<PathBuf, CommandError> {
    let usual = sibling(&home.path, ".backup.tar.gz");
    let taken = exists(&OsFs, &usual).map_err(|error| cannot_read(&error))?;
    Ok(if taken { sibling(&home.path, &format!(".{}.backup.tar.gz", &txn.0)) } else { usual })
}

fn owner_of(home: &Home) -> Result<Owner, CommandError> {
    let meta = OsFs.stat(&home.path).map_err(|error| cannot_read(&error))?;
    Ok(Owner { uid: meta.uid, gid: meta.gid })
}

fn header(
    txn: TxnId,
    began_unix_s: u64,
    home: &Home,
    package: &Package,
    inputs: &PlanInputs,
    overrides: Vec<Override>,
) -> Header {
    Header {
        txn,
        kytx: env!("CARGO_PKG_VERSION").to_owned(),
        began_unix_s,
        home: inputs.home.clone(),
        old_version: home.identity.version.to_string(),
        new_version: package.identity.version.to_string(),
        package: inputs.package.clone(),
        user: user_name(),
        host: host_name(),
        overrides,
    }
}

fn new_txn_id(home: &Path) -> TxnId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let text = format!("{now} {} {} {}", std::process::id(), host_name(), home.display());
    TxnId(Digest::of_domain("kytx 2026 transaction name v1", text.as_bytes()).to_string()[..16].to_owned())
}
