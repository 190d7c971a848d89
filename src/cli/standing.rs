//! Where a transaction stands, in words and as commands to type.

use super::place::Place;
use crate::raw_path::RawPath;
use crate::txn::{Action, Direction, Mutation, Outcome, Phase, Stage, StepId, StepState, Txn};

/// The phase in one word, as `status --json` has it.
pub fn phase_word(txn: &Txn) -> &'static str {
    match txn.phase() {
        Phase::Planning => "planning",
        Phase::Applying => "applying",
        Phase::Applied => "applied",
        Phase::Aborting => "aborting",
        Phase::Committing => "committing",
        Phase::Ended(_) => "ended",
    }
}

/// The outcome in one word, once there is one.
pub fn outcome_word(txn: &Txn) -> Option<&'static str> {
    match txn.phase() {
        Phase::Ended(Outcome::Committed) => Some("committed"),
        Phase::Ended(Outcome::Aborted) => Some("aborted"),
        _ => None,
    }
}

/// The state of a step in one word.
pub fn step_word(txn: &Txn, id: StepId) -> &'static str {
    match txn.state(id) {
        StepState::Pending if txn.kept().contains(&id) => "kept",
        StepState::Pending => "pending",
        StepState::Intended { .. } => "intended",
        StepState::Done { .. } => "done",
        StepState::Found => "found",
        StepState::Undoing { .. } => "undoing",
        StepState::Undone => "undone",
    }
}

/// Step n of m of the stage that is under way.
pub fn place_in_stage(txn: &Txn, id: StepId) -> String {
    let stage = txn.step(id).map(|step| step.stage);
    let of_stage = |other: &StepId| txn.step(*other).map(|step| step.stage) == stage;
    let total = txn.ids().filter(of_stage).count();
    let number = txn.ids().filter(of_stage).take_while(|other| *other <= id).count();
    format!("{number}/{total}")
}

/// Which release is at the home's path, as far as the journal knows.
fn which_release(txn: &Txn) -> &'static str {
    let exchanged = txn
        .ids()
        .find(|id| txn.step(*id).is_some_and(|step| matches!(step.mutation, Mutation::ExchangeTrees { .. })));
    match exchanged.map(|id| txn.state(id)) {
        Some(StepState::Done { .. }) => "The new release is in place",
        Some(StepState::Intended { .. } | StepState::Undoing { .. }) => "The trees may or may not be swapped",
        _ => "The old release is in place",
    }
}

/// In what state the machine is, in one or two sentences.
pub fn sentence(txn: &Txn) -> String {
    let header = txn.header();
    let home = &header.home;
    match txn.phase() {
        Phase::Planning => "The plan was not finished; nothing was touched.".to_owned(),
        Phase::Applied => format!(
            "`{home}` is upgraded from {} to {} and not yet committed.",
            header.old_version, header.new_version
        ),
        Phase::Ended(Outcome::Committed) => {
            format!("The upgrade of `{home}` to {} is committed.", header.new_version)
        }
        Phase::Ended(Outcome::Aborted) => format!("`{home}` is as it was, with {}.", header.old_version),
        Phase::Applying | Phase::Aborting | Phase::Committing => {
            let doing = match txn.phase() {
                Phase::Applying => "The upgrade",
                Phase::Aborting => "The way back",
                _ => "The clean-up after the commit",
            };
            format!("{doing} is unfinished{}. {} at `{home}`.", next_step(txn), which_release(txn))
        }
    }
}

fn next_step(txn: &Txn) -> String {
    match txn.next() {
        Action::Intend { step, direction } | Action::Drive { step, direction } => {
            let Some(planned) = txn.step(step) else { return String::new() };
            let what = match direction {
                Direction::Forward => planned.mutation.sentence(),
                Direction::Backward => format!("undo: {}", planned.mutation.undo_sentence()),
            };
            format!("; next is step {} `{}` ({what})", place_in_stage(txn, step), planned.name)
        }
        _ => String::new(),
    }
}

/// What may be typed next.
pub fn next_commands(txn: &Txn, place: &Place) -> Vec<String> {
    match txn.phase() {
        Phase::Planning | Phase::Aborting | Phase::Committing => vec![place.command("resume")],
        Phase::Applying => vec![place.command("resume"), place.command("abort")],
        Phase::Applied => vec![place.command("commit"), place.command("abort")],
        Phase::Ended(_) => Vec::new(),
    }
}

/// The manual's equivalent of the commands, for an operator who does not trust the tool that just failed.
pub fn manual_way(txn: &Txn) -> Vec<String> {
    let steps = txn.steps();
    let archive = steps.iter().find_map(|step| match &step.mutation {
        Mutation::ArchiveTree { archive, .. } => Some(archive),
        _ => None,
    });
    let archived = txn.ids().any(|id| {
        steps[id.index()].name == "archive-tree" && matches!(txn.state(id), StepState::Done { .. })
    });
    let (Some(archive), true, Phase::Applying | Phase::Applied) = (archive, archived, txn.phase()) else {
        return Vec::new();
    };
    let home = &txn.header().home;
    let parent = RawPath::from(crate::effect::tree::parent_of(home.as_path()));
    let mut way = vec![
        format!("{home}/bin/kylin.sh stop"),
        format!("rm -rf {home}"),
        format!("tar -zxf {archive} -C {parent}"),
    ];
    if let Some(backup) = steps.iter().find_map(|step| match &step.mutation {
        Mutation::BackUpMetadata { backup, .. } => Some(backup),
        _ => None,
    }) {
        way.push(format!("{home}/bin/metastore.sh restore {backup}"));
    }
    way.push(format!("{home}/bin/kylin.sh start"));
    way
}

/// The steps of a stage.
pub fn ids_of(txn: &Txn, stage: Stage) -> impl Iterator<Item = StepId> + '_ {
    txn.ids().filter(move |id| txn.step(*id).is_some_and(|step| step.stage == stage))
}
