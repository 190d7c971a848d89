//! `kytx commit`: makes an upgrade final, and deletes what the way back needed.

use super::args::WhichArgs;
use super::claim;
use super::cluster;
use super::driving::{self, Driving, Turn, step_named};
use super::error::CommandError;
use super::exit::Exit;
use super::session::Session;
use super::standing;
use super::terminal::{ONLY_YES, ask, bytes, result, tell};
use crate::effect::os::OsFs;
use crate::effect::tree::measure_tree;
use crate::engine::record;
use crate::hadoop::Hdfs;
use crate::hadoop::local::LocalHdfs;
use crate::mutate::RestoreHow;
use crate::txn::{Mutation, Outcome, Phase, Record, Stage, StepId, Txn};

/// Runs the command.
pub fn run(
    which: &WhichArgs,
    yes: bool,
    keep: &[String],
    overrides: &[String],
) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    let reason = reason(overrides)?;
    let mut session = Session::open(&place, "commit")?;
    let mut freed = None;
    match session.txn.phase() {
        Phase::Committing => session.tell(),
        Phase::Applied => {
            let keep: Vec<StepId> =
                keep.iter().map(|name| step_named(&session.txn, name)).collect::<Result<_, _>>()?;
            if let Some(id) = keep.iter().find(|id| session.txn.steps()[id.index()].stage != Stage::Cleanup) {
                let name = &session.txn.steps()[id.index()].name;
                return Err(CommandError::usage(format!("`{name}` cannot be left out"))
                    .why("it deletes nothing; only what a commit deletes can be kept")
                    .hint(place.command("status")));
            }
            cluster::check_commit_order(&place, reason)
                .map_err(|error| error.state(standing::sentence(&session.txn)))?;
            freed = Some(list(&session.txn, &keep));
            if !yes && !ask("Delete this? After it there is no way back.") {
                return Err(CommandError::refused("not committed: no confirmation was given")
                    .why(ONLY_YES)
                    .state(standing::sentence(&session.txn))
                    .hint(place.command("commit --yes")));
            }
            record(&mut session.txn, &mut session.store, &Record::Commit { keep })
                .map_err(|error| driving::failure(&error, &session.txn, &place))?;
        }
        Phase::Ended(Outcome::Committed) if session.ended_now() => return Ok(driving::ended(&session.txn)),
        Phase::Planning | Phase::Applying | Phase::Aborting | Phase::Ended(_) => {
            let mut error = CommandError::new(Exit::NotOpen, "cannot commit")
                .why("only an upgrade whose every step is applied can be committed")
                .state(standing::sentence(&session.txn));
            error.hints = standing::next_commands(&session.txn, &place);
            error.hints.extend(error.hints.is_empty().then(|| place.command("status")));
            return Err(error);
        }
    }
    let how = Driving {
        command: "commit",
        stop_before: None,
        turn: Turn::NEVER,
        checkup: None,
        restore: RestoreHow::Auto,
    };
    let exit = driving::run(&mut session, &place, &how)?;
    if let (Some(freed), Exit::Done) = (freed, exit) {
        result(&format!("Freed {}.", bytes(freed)));
    }
    Ok(exit)
}

/// The reason for which a commit goes on although another node is open: the only thing that can be overridden here.
fn reason(overrides: &[String]) -> Result<Option<&str>, CommandError> {
    let mut reason = None;
    for text in overrides {
        match text.split_once('=') {
            Some(("C2", why)) if !why.trim().is_empty() => reason = Some(why.trim()),
            _ => {
                return Err(CommandError::usage(format!("`--override {text}` is none that a commit knows"))
                    .why("a commit is kept by C2 alone: another node of the cluster is open")
                    .hint("--override C2=REASON"));
            }
        }
    }
    Ok(reason)
}

/// Lists what will be deleted, and returns how much that frees.
fn list(txn: &Txn, keep: &[StepId]) -> u64 {
    let mut freed = 0;
    tell("A commit deletes:");
    for id in standing::ids_of(txn, Stage::Cleanup).filter(|id| !keep.contains(id)) {
        let step = &txn.steps()[id.index()];
        let size = match &step.mutation {
            Mutation::DiscardTree { tree: path } | Mutation::DiscardFile { file: path } => {
                measure_tree(&OsFs, path.as_path()).ok()
            }
            // What a cluster frees is not worth the start of a Java here: the run says it.
            Mutation::DiscardCubeData { root } => LocalHdfs::new(&OsFs).measure(root).ok(),
            _ => None,
        };
        let (size, entries) = size.unwrap_or_default();
        freed += size;
        tell(&format!("  {}: {} ({}, {entries} entries)", step.name, step.mutation.sentence(), bytes(size)));
    }
    freed
}
