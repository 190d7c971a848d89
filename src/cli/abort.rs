//! `kytx abort`: undoes an upgrade that is not committed.

use super::args::WhichArgs;
use super::claim;
use super::cluster;
use super::driving::{self, Driving, Turn};
use super::error::CommandError;
use super::exit::Exit;
use super::losses;
use super::place::Place;
use super::session::{self, Session};
use super::standing;
use super::terminal::{ONLY_YES, ask, result, tell};
use crate::effect::os::OsFs;
use crate::engine::record;
use crate::journal::read;
use crate::mutate::RestoreHow;
use crate::txn::{AbortReason, Mutation, Outcome, Phase, Record, StepState, Txn};

/// Runs the command.
pub fn run(which: &WhichArgs, yes: bool, dry_run: bool, restore: RestoreHow) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    if dry_run {
        return dry(&place);
    }
    let mut session = Session::open(&place, "abort")?;
    match session.txn.phase() {
        Phase::Committing => {
            return Err(too_late(&session.txn).hint(place.command("resume")));
        }
        Phase::Ended(Outcome::Aborted) if session.ended_now() => return Ok(driving::ended(&session.txn)),
        Phase::Ended(_) => return Err(too_late(&session.txn).hint(place.command("status"))),
        Phase::Planning | Phase::Aborting => session.tell(),
        Phase::Applying | Phase::Applied => {
            cluster::check_mirror_order(&place)?;
            session.tell();
            for line in would_undo(&session.txn).into_iter().chain(losses::lines(&session.txn)) {
                tell(&line);
            }
            if !yes && !ask("Undo it?") {
                return Err(CommandError::refused("not aborted: no confirmation was given")
                    .why(ONLY_YES)
                    .state(standing::sentence(&session.txn))
                    .hint(place.command("abort --yes")));
            }
            let abort = Record::Abort { reason: AbortReason::Operator };
            record(&mut session.txn, &mut session.store, &abort)
                .map_err(|error| driving::failure(&error, &session.txn, &place))?;
        }
    }
    let how = Driving { command: "abort", stop_before: None, turn: Turn::NEVER, checkup: None, restore };
    let exit = driving::run(&mut session, &place, &how)?;
    for left in left_behind(&session.txn) {
        result(&left);
    }
    Ok(exit)
}

fn too_late(txn: &Txn) -> CommandError {
    let why = match txn.phase() {
        Phase::Committing => "it is committed: from the commit on there is no way back",
        _ => "it has ended: nothing is open",
    };
    CommandError::new(Exit::NotOpen, "cannot abort").why(why).state(standing::sentence(txn))
}

fn dry(place: &Place) -> Result<Exit, CommandError> {
    let view = read(&OsFs, place.state.root()).map_err(|error| session::journal_error(&error, place))?;
    let txn = session::replay(view.records(), place)?;
    if matches!(txn.phase(), Phase::Committing | Phase::Ended(_)) {
        return Err(too_late(&txn).hint(place.command("status")));
    }
    for line in would_undo(&txn).into_iter().chain(losses::lines(&txn)) {
        result(&line);
    }
    Ok(Exit::Done)
}

/// What an abort would do, one line a step, in its order.
fn would_undo(txn: &Txn) -> Vec<String> {
    let mut lines = vec!["An abort would, in this order:".to_owned()];
    let undoable = |state| {
        matches!(state, StepState::Intended { .. } | StepState::Done { .. } | StepState::Undoing { .. })
    };
    let undone = txn.ids().rev().filter(|id| undoable(txn.state(*id)));
    lines.extend(undone.map(|id| {
        let step = &txn.steps()[id.index()];
        format!("  {}: {}", step.name, step.mutation.undo_sentence())
    }));
    if lines.len() == 1 {
        lines.push("  do nothing: no step was begun".to_owned());
    }
    lines
}

/// What an abort leaves, since a backup harms nobody.
fn left_behind(txn: &Txn) -> Vec<String> {
    let made = |id| matches!(txn.state(id), StepState::Undone);
    txn.ids()
        .filter(|id| made(*id))
        .filter_map(|id| match &txn.steps()[id.index()].mutation {
            Mutation::ArchiveTree { archive, .. } => Some(archive),
            Mutation::BackUpMetadata { backup, .. } => Some(backup),
            _ => None,
        })
        // What cannot be looked at is there.
        .filter(|path| crate::effect::fs::exists(&OsFs, path.as_path()).unwrap_or(true))
        .map(|path| format!("Left for you to keep or delete: {path}"))
        .collect()
}
