//! Driving a transaction until it rests, and saying how it came to rest.

use std::time::Instant;

use anyhow::Context as _;

use super::args::{OnFailure, OnUnfinishedJobs, OnUnhealthy};
use super::by_hand;
use super::cluster;
use super::cluster_lock;
use super::doomed::{Doomed, DoomedJournal};
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::progress::Meter;
use super::service_check::{self, Checkup};
use super::session::{self, Session, with_machine};
use super::sources;
use super::standing;
use super::terminal::{result, tell};
use super::ticket;
use crate::engine::{Control, DriveError, Event, How, MutationError, Rest, drive, record};
use crate::journal::JournalError;
use crate::kyligence::checkup::Check;
use crate::kyligence::jobs::UnfinishedJobs;
use crate::mutate::{Downtime, Machine, RestoreHow};
use crate::txn::{AbortReason, Direction, Mutation, Outcome, Phase, Record, StepId, Txn};

/// How to drive.
pub struct Driving<'a> {
    /// The command, for the log's name.
    pub command: &'a str,
    /// Do not start this step.
    pub stop_before: Option<&'a str>,
    /// When to turn round by itself.
    pub turn: Turn,
    /// How the service is looked at once everything is applied. `None`: not at all.
    pub checkup: Option<&'a Checkup>,
    /// How the metadata are restored on the way back.
    pub restore: RestoreHow,
}

/// When a run that upgrades turns round by itself.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// When any step fails.
    pub on_failure: OnFailure,
    /// When the metadata backup holds an unfinished job.
    pub on_unfinished_jobs: OnUnfinishedJobs,
}

impl Turn {
    /// Never.
    pub const NEVER: Self = Self { on_failure: OnFailure::Stop, on_unfinished_jobs: OnUnfinishedJobs::Stop };

    /// The option that wants everything undone after this failure.
    fn wanted_by(self, source: &MutationError) -> Option<&'static str> {
        let unfinished = matches!(source, MutationError::Failed(cause) if cause.is::<UnfinishedJobs>());
        match self {
            Self { on_failure: OnFailure::Abort, .. } => Some("--on-failure abort"),
            // There is no way forward from here: the service is down, and only it can finish a job.
            Self { on_unfinished_jobs: OnUnfinishedJobs::Restart, .. } if unfinished => {
                Some("--on-unfinished-jobs restart")
            }
            _ => None,
        }
    }
}

/// Drives, reports, and says what to type.
pub fn run(session: &mut Session, place: &Place, how: &Driving<'_>) -> Result<Exit, CommandError> {
    if place.doomed.is_none() && how.command != "begin" {
        ticket::renew(session.txn.header().home.as_path());
    }
    cluster::publish(place, &session.txn);
    let done = drive_and_report(session, place, how);
    cluster::publish(place, &session.txn);
    done
}

fn drive_and_report(session: &mut Session, place: &Place, how: &Driving<'_>) -> Result<Exit, CommandError> {
    let mut stop_before = how.stop_before.map(|name| step_named(&session.txn, name)).transpose()?;
    if let (Phase::Applying, Some(start)) = (session.txn.phase(), start_of(&session.txn))
        && let Some(why) = cluster::waits_for_the_primary(place)
    {
        tell(&format!(
            "kytx: the new release is not started here: {why}; then `{}`",
            place.command("resume")
        ));
        stop_before = Some(stop_before.map_or(start, |step| step.min(start)));
    }
    let meter = Meter::new();
    let stop = session.stop.clone();
    if session.txn.phase().is_past_turning() {
        session.store.make_room();
    }
    let driven = with_machine(place, how.command, &stop, &meter, |machine| {
        if let Err(refused) = cluster_lock::take(place, &session.txn, machine) {
            return Err(if how.command == "begin" {
                not_begun(session, machine, &meter, refused, place)
            } else {
                refused
            });
        }
        let (rest, found) = drive_to_rest(session, machine, &meter, place, how, stop_before);
        if matches!(rest, Ok(Rest::Ended(_))) {
            cluster_lock::release(place, &session.txn, machine);
        }
        Ok((rest, found, machine.downtime()))
    });
    let (rest, found, downtime) = driven.map_err(|error| {
        let mut made = CommandError::new(Exit::Open, "cannot use the state directory")
            .because(&error)
            .state(standing::sentence(&session.txn));
        made.hints = standing::next_commands(&session.txn, place);
        made
    })??;
    if let Some(doomed) = &place.doomed {
        doomed.leave_marks().context("cannot leave the marks of a rehearsal")?;
    }
    match rest {
        Ok(rest) => {
            if matches!(rest, Rest::Ended(_)) {
                session::finish(place, &session.txn);
            }
            Ok(rested(rest, &session.txn, place, downtime, &found))
        }
        Err(error) => Err(failure(&error, &session.txn, place)),
    }
}

/// Drives until nothing more is to be done, and undoes everything where an option of the run says so. Returns what the
/// service was found to be as well.
fn drive_to_rest(
    session: &mut Session,
    machine: &mut Machine<'_>,
    meter: &Meter,
    place: &Place,
    how: &Driving<'_>,
    stop_before: Option<StepId>,
) -> (Result<Rest, DriveError>, Vec<Check>) {
    machine.overridden.extend(session.txn.header().overrides.iter().map(|given| given.check.clone()));
    machine.restore = how.restore;
    let doomed = place.doomed.as_deref();
    let rest = drive_once(session, machine, meter, stop_before, doomed);
    if let (Err(error @ DriveError::Failed { step, source, .. }), Phase::Applying) =
        (&rest, session.txn.phase())
        && let Some(option) = how.turn.wanted_by(source)
    {
        tell(&failure(error, &session.txn, place).to_string());
        return (undo_everything(session, machine, meter, doomed, option, *step), Vec::new());
    }
    if !matches!(rest, Ok(Rest::Applied)) || doomed.is_some() {
        return (rest, Vec::new());
    }
    match how.checkup.and_then(|checkup| look_at_service(place, &session.txn, checkup)) {
        Some((found, Some(start))) => {
            for line in service_check::lines(&found) {
                tell(&line);
            }
            (undo_everything(session, machine, meter, doomed, "--on-unhealthy abort", start), found)
        }
        found => (rest, found.map(|(found, _)| found).unwrap_or_default()),
    }
}

/// Goes back from where the upgrade is, for what a step has shown.
fn undo_everything(
    session: &mut Session,
    machine: &mut Machine<'_>,
    meter: &Meter,
    doomed: Option<&Doomed>,
    option: &str,
    step: StepId,
) -> Result<Rest, DriveError> {
    tell(&format!("kytx: undoing everything, as `{option}` says"));
    session.store.make_room();
    let abort = Record::Abort { reason: AbortReason::Failure { step } };
    record(&mut session.txn, &mut session.store, &abort)?;
    drive_once(session, machine, meter, None, doomed)
}

/// The step that starts the new release.
fn start_of(txn: &Txn) -> Option<StepId> {
    txn.ids()
        .find(|id| txn.step(*id).is_some_and(|step| matches!(step.mutation, Mutation::StartService { .. })))
}

/// What is found, and the step for which everything is to be undone, if it is. `None` where kytx has not started the
/// service.
fn look_at_service(place: &Place, txn: &Txn, checkup: &Checkup) -> Option<(Vec<Check>, Option<StepId>)> {
    let start = start_of(txn)?;
    match service_check::check(place, txn.header().home.as_path(), Some(txn), &checkup.credentials) {
        Ok(found) => {
            let turns = service_check::is_bad(&found) && checkup.on_unhealthy == OnUnhealthy::Abort;
            Some((found, turns.then_some(start)))
        }
        Err(error) => {
            let why = [&[error.what], &error.why[..]].concat().join(": ");
            tell(&format!("kytx: the service was not looked at: {why}"));
            None
        }
    }
}

/// Takes back a transaction that did not get the lock: nothing was touched, so it ends here.
fn not_begun(
    session: &mut Session,
    machine: &mut Machine<'_>,
    meter: &Meter,
    refused: CommandError,
    place: &Place,
) -> CommandError {
    let abort = Record::Abort { reason: AbortReason::Operator };
    let ended = record(&mut session.txn, &mut session.store, &abort)
        .and_then(|()| drive_once(session, machine, meter, None, place.doomed.as_deref()));
    if ended.is_err() {
        return refused;
    }
    session::finish(place, &session.txn);
    cluster_lock::release(place, &session.txn, machine);
    let exit = if refused.exit == Exit::Locked { Exit::Locked } else { Exit::Refused };
    CommandError { exit, ..refused }.state("Nothing was changed: the upgrade was not begun.")
}

fn drive_once(
    session: &mut Session,
    machine: &mut Machine<'_>,
    meter: &Meter,
    stop_before: Option<StepId>,
    doomed: Option<&Doomed>,
) -> Result<Rest, DriveError> {
    let stop = session.stop.clone();
    let mut begun = Instant::now();
    let mut watch = |txn: &Txn, event: &Event| match event {
        Event::Started { step, direction } => {
            begun = Instant::now();
            meter.start(&step_line(txn, *step, *direction));
        }
        Event::Finished { step, direction, how } => {
            let line = step_line(txn, *step, *direction);
            let ending = match how {
                How::Performed => format!("done, {:.1} s", begun.elapsed().as_secs_f64()),
                How::AlreadyDone if *direction == Direction::Backward => "nothing to do".to_owned(),
                How::AlreadyDone => "done already".to_owned(),
                How::Found => "found so".to_owned(),
            };
            meter.finish(&format!("{line}: {ending}"));
            if let (Some(doomed), Some(step)) = (doomed, txn.step(*step)) {
                doomed.mark(&step.name);
            }
        }
    };
    let mut control = Control { stop_before, stop_requested: &|| stop.count() > 0, watch: &mut watch };
    let Session { txn, store, .. } = session;
    match doomed {
        Some(doomed) => {
            let mut journal = DoomedJournal { journal: store, doom: &doomed.doom };
            drive(txn, &mut journal, machine, &mut control)
        }
        None => drive(txn, store, machine, &mut control),
    }
}

fn step_line(txn: &Txn, id: StepId, direction: Direction) -> String {
    let Some(step) = txn.step(id) else { return String::new() };
    let undo = match direction {
        Direction::Forward => "",
        Direction::Backward => "undo ",
    };
    format!("[{}] {undo}{}", standing::place_in_stage(txn, id), step.name)
}

/// The step of this name.
pub fn step_named(txn: &Txn, name: &str) -> Result<StepId, CommandError> {
    txn.ids().find(|id| txn.step(*id).is_some_and(|step| step.name == name)).ok_or_else(|| {
        let names: Vec<&str> = txn.steps().iter().map(|step| step.name.as_str()).collect();
        CommandError::usage(format!("the plan has no step `{name}`"))
            .why(format!("it has {}", names.join(", ")))
            .hint("kytx status, which lists the steps with what they do")
    })
}

fn rested(rest: Rest, txn: &Txn, place: &Place, downtime: Option<Downtime>, checks: &[Check]) -> Exit {
    match rest {
        Rest::Applied => {
            if !checks.is_empty() {
                for line in service_check::lines(checks) {
                    result(&line);
                }
                for line in service_check::reminder(txn.header().home.as_path(), place.home.as_deref()) {
                    result(&line);
                }
            }
            applied(txn, place, downtime);
            if service_check::is_bad(checks) {
                service_check::not_in_order(checks, txn, place).print();
                return Exit::Open;
            }
            Exit::Done
        }
        Rest::Ended(_) => {
            tell_downtime(downtime);
            ended(txn)
        }
        Rest::StoppedBefore(step) => {
            let name = txn.step(step).map(|step| step.name.as_str()).unwrap_or_default();
            result(&format!("Stopped before `{name}`, as asked. {}", standing::sentence(txn)));
            type_next(txn, place);
            Exit::Open
        }
        Rest::Interrupted => {
            tell(&format!("kytx: interrupted at a safe point\n  state: {}", standing::sentence(txn)));
            for command in standing::next_commands(txn, place) {
                tell(&format!("  type:  {command}"));
            }
            Exit::Interrupted
        }
    }
}

/// The last line of a transaction, and what its end is to whoever typed the command.
pub fn ended(txn: &Txn) -> Exit {
    result(&standing::sentence(txn));
    // A run that was to upgrade and undid everything did not do what it was asked.
    match (txn.phase(), txn.abort_reason()) {
        (Phase::Ended(Outcome::Aborted), Some(AbortReason::Failure { .. })) => Exit::Refused,
        _ => Exit::Done,
    }
}

fn type_next(txn: &Txn, place: &Place) {
    for command in standing::next_commands(txn, place) {
        result(&format!("  {command}"));
    }
}

/// The last lines of a successful upgrade.
pub fn applied(txn: &Txn, place: &Place, downtime: Option<Downtime>) {
    for line in by_hand::lines(txn, place).into_iter().chain(sources::lines(txn, place)) {
        result(&line);
    }
    let archive = txn.steps().iter().find_map(|step| match &step.mutation {
        Mutation::ArchiveTree { archive, .. } => Some(archive),
        _ => None,
    });
    if let Some(archive) = archive {
        // The line that Kyligence Manager looks for (reference 9.5), in its very shape.
        result(&format!("Backup location:{archive}"));
    }
    tell_downtime(downtime);
    let verb = [place.command("commit"), place.command("abort")];
    result(&format!("{} Then: `{}` or `{}`.", standing::sentence(txn), verb[0], verb[1]));
}

fn tell_downtime(downtime: Option<Downtime>) {
    if let Some(downtime) = downtime {
        result(&format!(
            "Downtime: {:.1} s, of which kytx {:.3} s and the product's own scripts {:.1} s.",
            downtime.total.as_secs_f64(),
            downtime.own().as_secs_f64(),
            downtime.product.as_secs_f64()
        ));
    }
}

/// What failed, why, in what state the machine is, what to type.
pub fn failure(error: &DriveError, txn: &Txn, place: &Place) -> CommandError {
    let exit = match error {
        DriveError::Foreign { .. } => Exit::Foreign,
        DriveError::Interrupted => Exit::Interrupted,
        // Opened afresh a full journal is sound, and the transaction is as it was.
        DriveError::Failed { .. } | DriveError::Journal(JournalError::Full { .. }) => Exit::Open,
        DriveError::Journal(_) => Exit::Journal,
        DriveError::Illegal(_) => Exit::Fault,
    };
    let mut made = match error {
        DriveError::Foreign { name, what, .. } => {
            CommandError::new(exit, format!("step `{name}`: the machine is not as the journal says"))
                .why(what)
        }
        other => CommandError::new(exit, other.to_string()),
    }
    .state(standing::sentence(txn));
    if let Some(source) = std::error::Error::source(error) {
        made = made.because(source);
    }
    // ENOSPC, EDQUOT, and a package that would not fit; errors lose their kind on the way here, and keep their words.
    let is_full = |why: &String| {
        ["os error 28", "os error 122", "bytes that are free"].iter().any(|words| why.contains(words))
    };
    if exit == Exit::Open && made.why.iter().any(is_full) {
        made = made.hint(format!("free space on the file system of `{}`", place.state.root().display()));
    }
    if exit == Exit::Foreign {
        made = made.hint("put the named thing back as it was, or find out who changed it");
    }
    made.hints.extend(standing::next_commands(txn, place));
    made
}
