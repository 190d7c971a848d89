//! Driving a transaction until it rests, and saying how it came to rest.

use std::time::Instant;

use anyhow::Context as _;

use super::args::{OnFailure, OnUnfinishedJobs};
use super::cluster_lock;
use super::doomed::{Doomed, DoomedJournal};
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::progress::Meter;
use super::session::{self, Session, with_machine};
use super::standing;
use super::terminal::{result, tell};
use crate::engine::{Control, DriveError, Event, How, MutationError, Rest, drive, record};
use crate::journal::JournalError;
use crate::kyligence::jobs::UnfinishedJobs;
use crate::mutate::{Downtime, Machine};
use crate::txn::{AbortReason, Direction, Mutation, Outcome, Phase, Record, StepId, Txn};

/// How to drive.
pub struct Driving<'a> {
    /// The command, for the log's name.
    pub command: &'a str,
    /// Do not start this step.
    pub stop_before: Option<&'a str>,
    /// When to turn round by itself.
    pub turn: Turn,
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
    let stop_before = how.stop_before.map(|name| step_named(&session.txn, name)).transpose()?;
    let meter = Meter::new();
    let stop = session.stop.clone();
    let driven = with_machine(place, how.command, &stop, &meter, |machine| {
        if let Err(refused) = cluster_lock::take(place, &session.txn, machine) {
            return Err(if how.command == "begin" {
                not_begun(session, machine, &meter, refused, place)
            } else {
                refused
            });
        }
        machine.overridden.extend(session.txn.header().overrides.iter().map(|given| given.check.clone()));
        let doomed = place.doomed.as_deref();
        let mut rest = drive_once(session, machine, &meter, stop_before, doomed);
        if let (Err(DriveError::Failed { step, source, .. }), Phase::Applying) = (&rest, session.txn.phase())
            && let Some(option) = how.turn.wanted_by(source)
        {
            let failed = *step;
            tell(&failure(rest.as_ref().unwrap_err(), &session.txn, place).to_string());
            tell(&format!("kytx: undoing everything, as `{option}` says"));
            let abort = Record::Abort { reason: AbortReason::Failure { step: failed } };
            rest = record(&mut session.txn, &mut session.store, &abort)
                .and_then(|()| drive_once(session, machine, &meter, None, doomed));
        }
        if matches!(rest, Ok(Rest::Ended(_))) {
            cluster_lock::release(place, &session.txn, machine);
        }
        Ok((rest, machine.downtime()))
    });
    let (rest, downtime) = driven.map_err(|error| {
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
            Ok(rested(rest, &session.txn, place, downtime))
        }
        Err(error) => Err(failure(&error, &session.txn, place)),
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

fn rested(rest: Rest, txn: &Txn, place: &Place, downtime: Option<Downtime>) -> Exit {
    match rest {
        Rest::Applied => {
            applied(txn, place, downtime);
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
        // A full journal has set its ballast free: opened afresh it has room, and the transaction is as it was.
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
