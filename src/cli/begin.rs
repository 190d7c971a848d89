//! `kytx begin`: lock, survey, preflight, plan, confirm, seal, drive.

use std::path::PathBuf;

use super::args::{OnUnhealthy, UpgradeArgs};
use super::check::finding_lines;
use super::claim;
use super::cleaning;
use super::cluster;
use super::cluster_lock::{self, Asked};
use super::draft::{CARRY_LIST, Draft, draft};
use super::driving::{self, Driving, Turn};
use super::error::CommandError;
use super::exit::Exit;
use super::jobs::{self, Settle};
use super::merging::Decider;
use super::place::Place;
use super::plan;
use super::progress::Meter;
use super::service_check::{self, Checkup};
use super::session::{self, Locks, Session};
use super::sources;
use super::standing;
use super::terminal::{ONLY_YES, ask, tell};
use super::ticket;
use crate::effect::fs::exists;
use crate::effect::os::OsFs;
use crate::effect::signal::StopRequests;
use crate::engine::record;
use crate::journal::Store;
use crate::kyligence::home::Home;
use crate::kyligence::preflight::{Severity, blocks};
use crate::mutate::{RestoreHow, content_name};
use crate::raw_path::RawPath;
use crate::txn::{Phase, Record, Txn};

/// How to begin.
pub struct Options {
    /// Ask nothing.
    pub silent: bool,
    /// A saved plan.
    pub plan: Option<PathBuf>,
    /// Stop before this step.
    pub stop_before: Option<String>,
    /// When to turn round by itself.
    pub turn: Turn,
    /// What to do about unfinished jobs before.
    pub settle: Settle,
    /// What to do when the new release runs and is not in order.
    pub on_unhealthy: OnUnhealthy,
    /// Whether the default data sources are set over REST at the end.
    pub set_default_source: bool,
    /// Whether outdated data are deleted before anything else.
    pub clean_outdated: bool,
}

/// Runs the command.
pub fn run(args: &UpgradeArgs, options: &Options) -> Result<Exit, CommandError> {
    let place = Place::of(&args.which)?;
    let mut decider = Decider::act(args.merge, options.silent)?;
    let saved = options.plan.as_deref().map(plan::load).transpose()?;
    // Before the first directory is made: what is no home gets no state directory.
    let path = place.home.as_deref().ok_or_else(|| {
        CommandError::usage("no home was given")
            .why("a state directory does not say which home is to be upgraded")
            .hint("kytx begin /path/to/kylin-home --package FILE")
    })?;
    let home = Home::recognise(&OsFs, path).map_err(|error| not_a_home(&place, path, &error))?;
    place.check_state_dir(path)?;
    place.state.prepare(&OsFs).map_err(|error| {
        CommandError::refused("cannot make the state directory")
            .because(&error)
            .hint("run kytx as the user that owns the home, or give --state-dir")
    })?;
    let locks = session::lock(&place, path, "begin")?;
    let stop = session::listen();
    session::wait_for_orphans(&place, &stop)?;
    claim::check_free(&place, path)?;
    make_way(&place, &stop)?;
    prepare(args, options, &place, &home, &stop)?;

    let meter = Meter::new();
    let planned = saved.as_ref().map(plan::SavedPlan::planned);
    let draft = draft(args, &place, planned, &meter, &mut decider)?;
    meter.clear();
    if let Some(saved) = &saved {
        plan::check_unmoved(saved, &draft)?;
    }
    if let Some(name) = &options.stop_before
        && !draft.steps.iter().any(|step| step.name == *name)
    {
        let names: Vec<&str> = draft.steps.iter().map(|step| step.name.as_str()).collect();
        return Err(CommandError::usage(format!("the plan has no step `{name}`"))
            .why(format!("it has {}", names.join(", ")))
            .hint("kytx plan ..., which lists the steps with what they do"));
    }
    let choices = sources::parse(&args.default_source)?;
    if options.set_default_source {
        sources::warn(&draft.header, &choices)?;
    }
    confirm(&draft, options.silent)?;
    // The old release answers for the last time before anything is done to it.
    let answers = service_check::record_answers(args, path)?;
    let choices = serde_json::to_vec(&choices).ok().filter(|_| !choices.is_empty());
    let sides = [(service_check::ANSWERS, answers), (sources::CHOICES, choices)];
    let asked = Asked { hdfs_root: args.hdfs_root.as_deref(), whole_working_dir: args.whole_working_dir };
    let mut session = seal(&place, &draft, asked, &sides, locks, stop)?;
    let credentials = jobs::credentials(&args.jobs);
    let checkup = Checkup { credentials, on_unhealthy: options.on_unhealthy };
    let how = Driving {
        command: "begin",
        stop_before: options.stop_before.as_deref(),
        turn: options.turn,
        checkup: Some(&checkup),
        restore: RestoreHow::Auto,
    };
    let exit = driving::run(&mut session, &place, &how)?;
    if exit == Exit::Done && options.set_default_source && session.txn.phase() == Phase::Applied {
        sources::set(&session.txn, &place, &checkup.credentials)?;
    }
    Ok(exit)
}

/// What is done before there is a transaction: a ticket, the cleaning, the jobs.
fn prepare(
    args: &UpgradeArgs,
    options: &Options,
    place: &Place,
    home: &Home,
    stop: &StopRequests,
) -> Result<(), CommandError> {
    if place.doomed.is_none() {
        ticket::obtain(home)?;
    }
    if options.clean_outdated {
        cleaning::clean(home, place, stop, options.silent)?;
    }
    jobs::settle(options.settle, &args.jobs, place, stop)
}

/// An open transaction whose home is between two renames is no home just now: say so instead.
fn not_a_home(
    place: &Place,
    path: &std::path::Path,
    error: &(dyn std::error::Error + 'static),
) -> CommandError {
    let refused =
        CommandError::refused(format!("`{}` cannot be upgraded", RawPath::from(path))).because(error);
    match crate::journal::read(&OsFs, place.state.root()) {
        Ok(_) => refused.hint(place.command("status")),
        Err(_) => refused.hint("give the path of the installed home"),
    }
}

/// New work never starts on top of an unfinished transaction; the journal of a finished one goes to the history.
fn make_way(place: &Place, stop: &StopRequests) -> Result<(), CommandError> {
    let state = &place.state;
    match session::open_journal(place) {
        Err(error) if error.exit == Exit::NotOpen => {}
        Err(error) => return Err(error),
        Ok((store, txn, _)) => {
            if !matches!(txn.phase(), Phase::Ended(_)) {
                let mut error = CommandError::new(Exit::Open, "an upgrade of this home is open already")
                    .why("new work is not started on top of an unfinished one")
                    .state(standing::sentence(&txn));
                error.hints = standing::next_commands(&txn, place);
                return Err(error);
            }
            cluster_lock::release_leftover(place, &txn, stop);
            let into = state.history().join(&txn.header().txn.0);
            store.retire(&into).map_err(|error| session::journal_error(&error, place))?;
        }
    }
    session::forget_contents(place);
    if exists(&OsFs, &state.spare()).unwrap_or(true) {
        return Err(claim::unexplained_spare(state));
    }
    Ok(())
}

fn confirm(draft: &Draft, silent: bool) -> Result<(), CommandError> {
    if blocks(&draft.findings, &draft.overridden) {
        let blocking: Vec<_> =
            draft.findings.iter().filter(|finding| finding.severity == Severity::Block).cloned().collect();
        let mut error = CommandError::refused("the preconditions do not hold");
        error.why = finding_lines(&blocking, &draft.overridden);
        return Err(error.hint("kytx check ..., with the same words, until nothing blocks"));
    }
    for line in plan::lines(draft) {
        tell(&line);
    }
    // I12: the answer is the plan itself; resume asks nothing.
    if silent || ask("Upgrade?") {
        return Ok(());
    }
    Err(CommandError::refused("not begun: no confirmation was given")
        .why(ONLY_YES)
        .hint("add `--silent` to be asked nothing"))
}

/// Writes the plan. I1: nothing outside the state directory is touched before `Sealed` is durable, but the claim, which
/// is an address and no state.
fn seal(
    place: &Place,
    draft: &Draft,
    asked: Asked<'_>,
    sides: &[(&str, Option<Vec<u8>>)],
    locks: Locks,
    stop: StopRequests,
) -> Result<Session, CommandError> {
    let state = &place.state;
    let fault = |error: std::io::Error| {
        CommandError::refused("cannot write the plan")
            .because(&error)
            .hint("free some space, and begin again")
    };
    for (digest, content) in &draft.contents {
        state.write_side(&OsFs, &content_name(digest), content).map_err(fault)?;
    }
    state.write_side(&OsFs, CARRY_LIST, &draft.carry_text).map_err(fault)?;
    for (name, content) in sides.iter().filter_map(|(name, content)| Some((name, content.as_ref()?))) {
        state.write_side(&OsFs, name, content).map_err(fault)?;
    }
    cluster::join(place, draft.membership.as_ref()).map_err(fault)?;
    cluster_lock::prepare(place, &draft.header.txn, draft.header.home.as_path(), asked).map_err(fault)?;
    claim::stake(place, draft.header.home.as_path(), &draft.header.txn).map_err(fault)?;

    let first = Record::Begin(draft.header.clone());
    let mut store = Store::create(&OsFs, state.root(), &first).map_err(|error| {
        let made = session::journal_error(&error, place);
        // Nothing is open yet.
        if error.is_full() { CommandError { exit: Exit::Refused, ..made } } else { made }
    })?;
    let mut txn = Txn::begin(&first).expect("BUG: a header begins a transaction");
    let planned = draft.steps.iter().cloned().map(Record::Planned);
    let sealed = Record::Sealed { steps: draft.steps.len() as u16, plan: draft.plan };
    for next in planned.chain([sealed]) {
        record(&mut txn, &mut store, &next).map_err(|error| driving::failure(&error, &txn, place))?;
    }
    Ok(Session::new(locks, store, txn, stop))
}
