//! Tests of the tests: engines and worlds that are wrong on purpose, and the invariant that must notice each.

use kytx::digest::Digest;
use kytx::engine::{DriveError, Rest, Task, World, record};
use kytx::journal::Journal;
use kytx::txn::{
    AbortReason, Action, Direction, Mutation, Observed, Phase, Record, Stage, StepId, StepState, Txn,
    Verdict, judge,
};

use crate::explore::{RIGHT, Tally, single_accidents};
use crate::world::lab::{Bench, Command, End, Program, Stages, command_with, kytx, right_drive};
use crate::world::machine::{Cell, Machine, Thing, Value, stages};
use crate::world::plans::{self, Plan};

fn assert_caught(law: &str, plan: Plan, program: Program, how: Stages) {
    let tally: Tally = single_accidents(plan, program, how);
    assert!(!tally.of(law).is_empty(), "{law} did not notice; found instead: {:?}", tally.violations);
}

/// What a wrong loop gets wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    ActsBeforeTheIntent,
    RecordsBeforeTheAct,
    TrustsItsOwnIntent,
    TakesTornForDone,
    SkipsWithoutSync,
    NeverAsks,
    ForgetsToStop,
    StartsWhatItShouldStopBefore,
    PressesOn,
}

/// The loop of `engine`, with a bug in it.
fn wrong_drive(txn: &mut Txn, bench: &mut Bench<'_>, bug: Bug) -> Result<Rest, DriveError> {
    loop {
        if bug != Bug::NeverAsks
            && bench.stop_requested()
            && bug != Bug::ForgetsToStop
            && !matches!(txn.next(), Action::Await | Action::Finish(_))
        {
            return Ok(Rest::Interrupted);
        }
        match txn.next() {
            Action::Append(next) => record(txn, &mut bench.journal, &next)?,
            Action::Await => return Ok(Rest::Applied),
            Action::Finish(outcome) => return Ok(Rest::Ended(outcome)),
            Action::Intend { step, direction } => {
                let named = direction == Direction::Forward && bench.stop_before() == Some(step);
                if named && bug != Bug::StartsWhatItShouldStopBefore {
                    return Ok(Rest::StoppedBefore(step));
                }
                let mutation = txn.step(step).unwrap().mutation.clone();
                let task = Task {
                    step,
                    mutation: &mutation,
                    direction: Direction::Forward,
                    inputs: None,
                    furthest: None,
                };
                let seen = bench.world.probe(&task).unwrap().seen;
                if direction == Direction::Forward && seen == Observed::After {
                    record(txn, &mut bench.journal, &Record::Found { step })?;
                    continue;
                }
                if bug == Bug::ActsBeforeTheIntent {
                    act(bench, &task, direction);
                }
                let inputs = txn.inputs(step).unwrap_or(Digest::ZERO);
                let intent = Record::Intent { step, direction, inputs };
                match record(txn, &mut bench.journal, &intent) {
                    Err(_) if bug == Bug::PressesOn => txn.admit(&intent)?,
                    other => other?,
                }
            }
            Action::Drive { step, direction } => {
                let mutation = txn.step(step).unwrap().mutation.clone();
                let task =
                    Task { step, mutation: &mutation, direction, inputs: txn.inputs(step), furthest: None };
                let done = Record::Done { step, direction, outputs: Digest::ZERO };
                let seen = match bug {
                    Bug::TrustsItsOwnIntent => Observed::Torn,
                    _ => bench.world.probe(&task).unwrap().seen,
                };
                if bug == Bug::RecordsBeforeTheAct {
                    record(txn, &mut bench.journal, &done)?;
                }
                let torn = seen == Observed::Torn && bug == Bug::TakesTornForDone;
                if judge(direction, seen) == Verdict::Run && !torn && bug != Bug::ActsBeforeTheIntent {
                    act(bench, &task, direction);
                }
                if judge(direction, seen) == Verdict::Skip && bug != Bug::SkipsWithoutSync {
                    bench.world.make_durable(&task).unwrap();
                }
                if bug != Bug::RecordsBeforeTheAct {
                    record(txn, &mut bench.journal, &done)?;
                }
            }
        }
    }
}

fn act(bench: &mut Bench<'_>, task: &Task<'_>, direction: Direction) {
    match direction {
        Direction::Forward => drop(bench.world.apply(task)),
        Direction::Backward => drop(bench.world.undo(task)),
    }
}

/// Looks, writes an intent past the rules of `Txn`, acts, writes the outcome.
fn act_lawlessly(
    bench: &mut Bench<'_>,
    txn: &Txn,
    step: StepId,
    direction: Direction,
) -> Result<(), DriveError> {
    let mutation = txn.step(step).unwrap().mutation.clone();
    let inputs = Digest::ZERO;
    bench.journal.append(&Record::Intent { step, direction, inputs })?;
    let task = Task { step, mutation: &mutation, direction, inputs: Some(inputs), furthest: None };
    if judge(direction, bench.world.probe(&task).unwrap().seen) == Verdict::Run {
        act(bench, &task, direction);
    }
    bench.journal.append(&Record::Done { step, direction, outputs: inputs })?;
    Ok(())
}

#[test]
fn planted_bug_nothing_is_blamed_without_one() {
    for plan in [plans::major(), plans::major_stopped()] {
        assert_eq!(single_accidents(plan, kytx, RIGHT).violations, []);
    }
}

#[test]
fn planted_bug_i1_unpacks_while_planning() {
    fn program(bench: &mut Bench<'_>, command: Command) -> End {
        if command == Command::Begin {
            let mutation = plans::single().steps[0].mutation.clone();
            let task = Task {
                step: StepId(0),
                mutation: &mutation,
                direction: Direction::Forward,
                inputs: None,
                furthest: None,
            };
            act(bench, &task, Direction::Forward);
        }
        kytx(bench, command)
    }
    assert_caught("I1", plans::single(), program, RIGHT);
}

#[test]
fn planted_bug_i2_acts_before_the_intent() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::ActsBeforeTheIntent))
    };
    assert_caught("I2", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_i2_records_before_the_act() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::RecordsBeforeTheAct))
    };
    assert_caught("I2", plans::major(), program, RIGHT);
    // And not only by the books: the machine itself ends in between.
    assert_caught("outcome", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_i2_records_what_a_look_shows_and_does_not_sync_it() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::SkipsWithoutSync))
    };
    assert_caught("I2", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_nobody_asks_whether_to_stop() {
    let program: Program =
        |bench, command| command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::NeverAsks));
    assert_caught("stop", plans::restart(), program, RIGHT);
}

#[test]
fn planted_bug_a_signal_is_forgotten() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::ForgetsToStop))
    };
    assert_caught("stop", plans::restart(), program, RIGHT);
}

#[test]
fn planted_bug_a_step_starts_that_was_to_be_stopped_before() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::StartsWhatItShouldStopBefore))
    };
    assert_caught("stop", plans::restart(), program, RIGHT);
}

#[test]
fn planted_bug_presses_on_when_an_append_fails() {
    let program: Program =
        |bench, command| command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::PressesOn));
    assert_caught("poisoned", plans::major(), program, RIGHT);
    // And not only by the books: where the record was lost, an act has no intent.
    assert_caught("I2", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_i3_trusts_its_own_intent() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::TrustsItsOwnIntent))
    };
    assert_caught("I3", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_i4_undoes_in_plan_order() {
    fn driver(txn: &mut Txn, bench: &mut Bench<'_>) -> Result<Rest, DriveError> {
        if txn.phase() == Phase::Aborting {
            let done = |id: &StepId| matches!(txn.state(*id), StepState::Done { .. });
            for step in txn.ids().filter(done).collect::<Vec<_>>() {
                act_lawlessly(bench, txn, step, Direction::Backward)?;
            }
        }
        right_drive(txn, bench)
    }
    assert_caught("I4", plans::restart(), |bench, command| command_with(bench, command, driver), RIGHT);
}

#[test]
fn planted_bug_i4_applies_the_last_step_first() {
    fn driver(txn: &mut Txn, bench: &mut Bench<'_>) -> Result<Rest, DriveError> {
        if let Action::Intend { step: StepId(0), direction: Direction::Forward } = txn.next() {
            act_lawlessly(bench, txn, StepId(1), Direction::Forward)?;
        }
        right_drive(txn, bench)
    }
    assert_caught("I4", plans::major(), |bench, command| command_with(bench, command, driver), RIGHT);
}

#[test]
fn planted_bug_i5_aborts_after_the_commit() {
    fn program(bench: &mut Bench<'_>, command: Command) -> End {
        if command == Command::Abort
            && let Ok(Some(txn)) = bench.replay()
            && txn.phase() == Phase::Committing
        {
            return match bench.journal.append(&Record::Abort { reason: AbortReason::Operator }) {
                Ok(_) => End::Refused,
                Err(error) => End::Broke(error.into()),
            };
        }
        kytx(bench, command)
    }
    assert_caught("I5", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_i5_goes_on_applying_after_the_abort() {
    fn driver(txn: &mut Txn, bench: &mut Bench<'_>) -> Result<Rest, DriveError> {
        if txn.phase() == Phase::Aborting
            && let Some(step) = txn.ids().find(|id| txn.state(*id) == StepState::Pending)
        {
            act_lawlessly(bench, txn, step, Direction::Forward)?;
        }
        right_drive(txn, bench)
    }
    assert_caught("I5", plans::major(), |bench, command| command_with(bench, command, driver), RIGHT);
}

#[test]
fn planted_bug_i6_undoes_what_it_found() {
    fn driver(txn: &mut Txn, bench: &mut Bench<'_>) -> Result<Rest, DriveError> {
        if txn.phase() == Phase::Aborting
            && let Some(step) = txn.ids().find(|id| txn.state(*id) == StepState::Found)
        {
            act_lawlessly(bench, txn, step, Direction::Backward)?;
        }
        right_drive(txn, bench)
    }
    assert_caught("I6", plans::major_stopped(), |bench, command| command_with(bench, command, driver), RIGHT);
}

#[test]
fn planted_bug_i6_tidies_up_the_neighbour() {
    fn untidy(machine: Machine, mutation: &Mutation, direction: Direction) -> Vec<Machine> {
        let mut path = stages(machine, mutation, direction);
        if let Mutation::DiscardTree { .. } = mutation {
            let last = path.last().copied().unwrap_or(machine);
            path.push(last.with(Thing::Neighbour, Cell::Absent));
        }
        path
    }
    assert_caught("I6", plans::major(), kytx, untidy);
}

#[test]
fn planted_bug_i7_deletes_the_old_tree_and_then_moves_the_new_one() {
    fn hasty(machine: Machine, mutation: &Mutation, direction: Direction) -> Vec<Machine> {
        match (mutation, direction) {
            (Mutation::ExchangeTrees { .. }, Direction::Forward) => {
                let gone = machine.with(Thing::Live, Cell::Absent);
                vec![gone, gone.with(Thing::Live, machine[Thing::Spare]).with(Thing::Spare, Cell::Absent)]
            }
            _ => stages(machine, mutation, direction),
        }
    }
    assert_caught("I7", plans::major(), kytx, hasty);
}

#[test]
fn planted_bug_i7_cleans_up_before_the_commit() {
    fn driver(txn: &mut Txn, bench: &mut Bench<'_>) -> Result<Rest, DriveError> {
        let rest = right_drive(txn, bench)?;
        let cleanup = |id: &StepId| txn.step(*id).is_some_and(|step| step.stage == Stage::Cleanup);
        if rest == Rest::Applied
            && let Some(step) = txn.ids().find(cleanup)
        {
            act_lawlessly(bench, txn, step, Direction::Forward)?;
        }
        Ok(rest)
    }
    assert_caught("I7", plans::major(), |bench, command| command_with(bench, command, driver), RIGHT);
}

#[test]
fn planted_bug_i11_takes_torn_for_done() {
    let program: Program = |bench, command| {
        command_with(bench, command, |txn, bench| wrong_drive(txn, bench, Bug::TakesTornForDone))
    };
    assert_caught("outcome", plans::major(), program, RIGHT);
    assert_caught("I2", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_i11_does_not_start_again_from_a_torn_state() {
    fn brittle(machine: Machine, mutation: &Mutation, direction: Direction) -> Vec<Machine> {
        let torn = machine[Thing::Spare] == Cell::Part(Value::NewTree);
        if torn { Vec::new() } else { stages(machine, mutation, direction) }
    }
    assert_caught("I11", plans::major(), kytx, brittle);
}

#[test]
fn planted_bug_i12_asks_again_on_resume() {
    fn program(bench: &mut Bench<'_>, command: Command) -> End {
        if command == Command::Resume {
            bench.ask();
        }
        kytx(bench, command)
    }
    assert_caught("I12", plans::major(), program, RIGHT);
}

#[test]
fn planted_bug_the_machine_decides_whether_to_go_on() {
    fn program(bench: &mut Bench<'_>, command: Command) -> End {
        match command {
            Command::Resume if bench.machine()[Thing::Spare] == Cell::Part(Value::NewTree) => {
                kytx(bench, Command::Abort)
            }
            _ => kytx(bench, command),
        }
    }
    assert_caught("verdict", plans::major(), program, RIGHT);
}
