//! Any interleaving of what operators, machines and strangers do, over the model world of `tests/model/`.

use std::rc::Rc;

use arbitrary::{Result, Unstructured};
use kytx::engine::{DriveError, Rest};
use kytx::txn::{Direction, Phase, StepId};

use super::world::accident::{Accident, Fault, KINDS, Place};
use super::world::lab::{Command, End, Lab};
use super::world::machine::STRANGE;
use super::world::plans;

/// What happens next.
#[derive(Debug)]
enum Turn {
    Type(Command, Accident),
    /// From now on a step fails.
    Break(Fault),
    Mend,
    /// Somebody else puts something in the place of the thing of this number in `STRANGE`.
    Intrude(usize),
    SendAway,
}

/// More is not needed to reach any state: a transaction turns once.
const TURNS_MAX: usize = 48;

/// Whatever happens, in whatever order: no invariant is broken, kytx breaks off for no other reason than the one it
/// was given, and once strangers and faults are gone the operator gets to an end that is all of the old or all of the
/// new.
pub fn schedule(data: &[u8]) {
    let mut source = Unstructured::new(data);
    let mut plans = plans::all();
    let plan = plans.swap_remove(pick(&mut source, plans.len()).unwrap_or(0));
    let mut lab = Lab::new(&Rc::new(plan));
    let mut strange = false;
    for _ in 0..TURNS_MAX {
        if source.is_empty() {
            break;
        }
        let Ok(turn) = turn(&mut source, lab.plan.steps.len()) else { break };
        match turn {
            Turn::Type(command, accident) => run(&mut lab, command, accident, strange),
            Turn::Break(fault) => lab.fault = Some(fault),
            Turn::Mend => lab.fault = None,
            Turn::Intrude(thing) => {
                lab.intrude(STRANGE[thing]);
                strange = true;
            }
            Turn::SendAway => {
                lab.send_strangers_away();
                strange = false;
            }
        }
    }
    lab.fault = None;
    lab.send_strangers_away();
    finish(&mut lab);
}

fn run(lab: &mut Lab, command: Command, accident: Accident, strange: bool) {
    let broken = lab.fault;
    let end = lab.run(command, accident);
    assert!(lab.violations.is_empty(), "{command:?} with {accident:?}: {:?}", lab.violations);
    let expected = match &end {
        End::Crashed => matches!(accident, Accident::PowerCut(_)),
        End::Broke(DriveError::Failed { step, .. }) => broken.is_some_and(|fault| fault.step == *step),
        End::Broke(DriveError::Foreign { what, .. }) => strange && !what.is_empty(),
        End::Broke(DriveError::Journal(_)) => matches!(accident, Accident::Refused { .. }),
        End::Unreadable | End::Broke(DriveError::Illegal(_) | DriveError::Interrupted) => false,
        End::Rested(Rest::Interrupted) => matches!(accident, Accident::Stopped(_)),
        End::Rested(Rest::StoppedBefore(step)) => accident == Accident::StopBefore(*step),
        End::Rested(Rest::Applied) => lab.phase() == Some(Phase::Applied),
        End::Rested(Rest::Ended(outcome)) => lab.phase() == Some(Phase::Ended(*outcome)),
        End::NothingOpen => lab.records.is_empty(),
        End::Refused => true,
    };
    assert!(expected, "{command:?} with {accident:?} came to {end:?}");
}

/// Resumes until the end; where the operator must decide, the journal's length does.
fn finish(lab: &mut Lab) {
    for _ in 0..3 {
        let command = match lab.phase() {
            None => {
                return assert_eq!(
                    lab.machine, lab.plan.initial,
                    "nothing is open and something has changed"
                );
            }
            Some(Phase::Ended(_)) => return,
            Some(Phase::Applied) if lab.records.len().is_multiple_of(2) => Command::Abort,
            Some(Phase::Applied) => Command::Commit,
            Some(_) => Command::Resume,
        };
        run(lab, command, Accident::None, false);
    }
    assert!(matches!(lab.phase(), Some(Phase::Ended(_))), "no end: {:?}", lab.records.last());
}

fn pick(source: &mut Unstructured<'_>, count: usize) -> Result<usize> {
    source.int_in_range(0..=count.saturating_sub(1) as u8).map(usize::from)
}

fn turn(source: &mut Unstructured<'_>, steps: usize) -> Result<Turn> {
    Ok(match source.int_in_range(0..=15u8)? {
        0..=9 => Turn::Type(command(source)?, accident(source, steps)?),
        10 | 11 => Turn::Break(fault(source, steps)?),
        12 => Turn::Mend,
        13 | 14 => Turn::Intrude(pick(source, STRANGE.len())?),
        _ => Turn::SendAway,
    })
}

/// Mostly what leads on.
fn command(source: &mut Unstructured<'_>) -> Result<Command> {
    const COMMANDS: [Command; 8] = [
        Command::Begin,
        Command::Resume,
        Command::Resume,
        Command::Begin,
        Command::Resume,
        Command::Abort,
        Command::Commit,
        Command::CommitKeeping,
    ];
    Ok(COMMANDS[pick(source, COMMANDS.len())?])
}

fn accident(source: &mut Unstructured<'_>, steps: usize) -> Result<Accident> {
    let kind = pick(source, KINDS.len() + 2)?;
    let Some(kind) = KINDS.get(kind) else { return Ok(Accident::None) };
    let place = usize::from(source.arbitrary::<u8>()?);
    Ok(match kind(place) {
        Accident::StopBefore(_) => Accident::StopBefore(StepId((place % steps.max(1)) as u16)),
        other => other,
    })
}

fn fault(source: &mut Unstructured<'_>, steps: usize) -> Result<Fault> {
    let step = StepId(pick(source, steps)? as u16);
    let direction = if source.arbitrary()? { Direction::Forward } else { Direction::Backward };
    let place = match pick(source, 10)? {
        0 => Place::Look,
        1 => Place::Inputs,
        2 => Place::Durable,
        3 => Place::Outputs,
        stage => Place::Stage(stage - 4),
    };
    Ok(Fault { step, direction, place, for_good: source.arbitrary()? })
}
