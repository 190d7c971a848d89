//! One loop: ask the transaction, write the journal, look, act.
//!
//! There is no other way to change a machine with kytx: `begin`, `resume`, `abort` and `commit` differ in the record
//! they write first and in nothing else. The engine looks on the first attempt too, so there is no recovery path
//! that only crashes exercise, and a machine changed by hand since planning is noticed before it is touched. Nothing
//! here can ask: what the operator answered is in the plan (I12).

use crate::digest::Digest;
use crate::journal::{Journal, JournalError};
use crate::txn::{
    Action, Direction, IllegalRecord, Mutation, Observed, Outcome, Record, StepId, Txn, Verdict, judge,
};

/// One step as the world sees it.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The step.
    pub step: StepId,
    /// What it does.
    pub mutation: &'a Mutation,
    /// Which way it goes.
    pub direction: Direction,
    /// What it works from, once its intent is durable; `None` for a look before the intent.
    pub inputs: Option<Digest>,
    /// The last step that was ever begun, this one included.
    pub furthest: Option<StepId>,
}

/// Why a mutation failed. The machine is then somewhere between before and after; `resume` and `abort` cope.
#[derive(Debug, thiserror::Error)]
pub enum MutationError {
    /// It could not be done.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The machine is not as it was when the plan was made: what differs, as a sentence without its full stop.
    #[error("{0}")]
    Foreign(String),
    /// A stop was asked for in the middle of a long piece of work.
    #[error("stopped on request")]
    Interrupted,
}

/// What a probe saw, and in words what differs if it saw something foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What it saw.
    pub seen: Observed,
    /// For `Foreign`: what differs, as a sentence without its full stop.
    pub what: String,
}

impl Sight {
    /// A sight that needs no words.
    pub fn of(seen: Observed) -> Self {
        Self { seen, what: String::new() }
    }

    /// Something foreign.
    pub fn foreign(what: impl Into<String>) -> Self {
        Self { seen: Observed::Foreign, what: what.into() }
    }
}

/// The machine, as the engine needs it.
///
/// The contract, which every mutation keeps: `probe` changes nothing; `apply` from `Before` *or* `Torn` ends in
/// `After`, and `undo` from `After` *or* `Torn` ends in `Before` (I11); what cannot be observed probes as `Torn` once
/// its intent is there; `undo` touches only what this transaction made (I6). Whatever they changed is durable when
/// they return.
pub trait World {
    /// Looks.
    fn probe(&mut self, task: &Task<'_>) -> Result<Sight, MutationError>;
    /// Gathers what the step will work from, puts it durably into the state directory, and names it.
    fn inputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError>;
    /// Applies the step.
    fn apply(&mut self, task: &Task<'_>) -> Result<(), MutationError>;
    /// Makes durable what the probe sees done: the crash may have come between an effect and its sync, and an outcome
    /// must not outlive what it tells (I2).
    fn make_durable(&mut self, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(())
    }
    /// Names what an applied step made. Asked of the machine, not remembered, as a crash may have come between.
    fn outputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError>;
    /// Undoes the step.
    fn undo(&mut self, task: &Task<'_>) -> Result<(), MutationError>;
}

/// What the loop tells whoever drives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step starts, or is taken up again.
    Started {
        /// The step.
        step: StepId,
        /// Which way.
        direction: Direction,
    },
    /// A step is through.
    Finished {
        /// The step.
        step: StepId,
        /// Which way.
        direction: Direction,
        /// How.
        how: How,
    },
}

/// How a step got through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It was performed.
    Performed,
    /// An earlier run had performed it already.
    AlreadyDone,
    /// It was so before the transaction came.
    Found,
}

/// What the driver may ask for.
pub struct Control<'a> {
    /// Do not start this step.
    pub stop_before: Option<StepId>,
    /// Whether to stop at the next safe point.
    pub stop_requested: &'a dyn Fn() -> bool,
    /// Told of every step.
    pub watch: &'a mut dyn FnMut(&Txn, &Event),
}

/// Why the loop came to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Every step is applied; the operator must decide.
    Applied,
    /// The transaction is over.
    Ended(Outcome),
    /// The named step was not started, as asked.
    StoppedBefore(StepId),
    /// A stop was asked for, and this is a safe point.
    Interrupted,
}

/// Why the loop broke off.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A step failed.
    #[error("step `{name}` failed")]
    Failed {
        /// The step.
        step: StepId,
        /// Its name.
        name: String,
        /// The cause.
        #[source]
        source: MutationError,
    },
    /// The machine is not as the journal says.
    #[error("step `{name}`: the machine is not as the journal says: {what}")]
    Foreign {
        /// The step.
        step: StepId,
        /// Its name.
        name: String,
        /// What differs.
        what: String,
    },
    /// A stop was asked for, and the step in hand gave up at a point from which it can be taken up again.
    #[error("stopped on request")]
    Interrupted,
    /// The journal refused a record.
    #[error("cannot write the journal")]
    Journal(#[from] JournalError),
    /// kytx wanted to write a record that may not follow.
    #[error("BUG: kytx was about to write a wrong record")]
    Illegal(#[from] IllegalRecord),
}

/// Makes one record durable and folds it in. Refused records reach neither the journal nor the transaction.
pub fn record(txn: &mut Txn, journal: &mut dyn Journal, record: &Record) -> Result<(), DriveError> {
    let mut next = txn.clone();
    next.admit(record)?;
    journal.append(record)?;
    *txn = next;
    Ok(())
}

/// Drives a transaction until it rests.
pub fn drive(
    txn: &mut Txn,
    journal: &mut dyn Journal,
    world: &mut dyn World,
    control: &mut Control<'_>,
) -> Result<Rest, DriveError> {
    match drive_on(txn, journal, world, control) {
        Err(DriveError::Interrupted) => Ok(Rest::Interrupted),
        rest => rest,
    }
}

fn drive_on(
    txn: &mut Txn,
    journal: &mut dyn Journal,
    world: &mut dyn World,
    control: &mut Control<'_>,
) -> Result<Rest, DriveError> {
    loop {
        if (control.stop_requested)() && !matches!(txn.next(), Action::Await | Action::Finish(_)) {
            return Ok(Rest::Interrupted);
        }
        match txn.next() {
            Action::Append(next) => record(txn, journal, &next)?,
            Action::Await => return Ok(Rest::Applied),
            Action::Finish(outcome) => return Ok(Rest::Ended(outcome)),
            Action::Intend { step, direction } => {
                if direction == Direction::Forward && control.stop_before == Some(step) {
                    return Ok(Rest::StoppedBefore(step));
                }
                intend(txn, journal, world, control, step, direction)?;
            }
            Action::Drive { step, direction } => perform(txn, journal, world, control, step, direction)?,
        }
    }
}

/// Looks before the intent: after a crash between intent and outcome nobody can say any more whose work it was.
fn intend(
    txn: &mut Txn,
    journal: &mut dyn Journal,
    world: &mut dyn World,
    control: &mut Control<'_>,
    step: StepId,
    direction: Direction,
) -> Result<(), DriveError> {
    if direction == Direction::Backward {
        let inputs = txn.inputs(step).expect("BUG: a step that is undone was intended");
        return record(txn, journal, &Record::Intent { step, direction, inputs });
    }
    let mutation = mutation_of(txn, step);
    let task = Task { step, mutation: &mutation, direction, inputs: None, furthest: txn.furthest() };
    let sight = world.probe(&task).map_err(|source| failed(txn, step, source))?;
    match sight.seen {
        Observed::Before => {
            let inputs = world.inputs(&task).map_err(|source| failed(txn, step, source))?;
            record(txn, journal, &Record::Intent { step, direction, inputs })
        }
        Observed::After => {
            record(txn, journal, &Record::Found { step })?;
            (control.watch)(txn, &Event::Finished { step, direction, how: How::Found });
            Ok(())
        }
        // Before the intent nothing of ours can be half done: what looks torn is somebody else's.
        Observed::Torn if sight.what.is_empty() => {
            Err(foreign(txn, step, "part of what the step makes is there before it has begun".to_owned()))
        }
        Observed::Torn | Observed::Foreign => Err(foreign(txn, step, sight.what)),
    }
}

/// I2: the intent is durable. I3: look, in this run, before acting.
fn perform(
    txn: &mut Txn,
    journal: &mut dyn Journal,
    world: &mut dyn World,
    control: &mut Control<'_>,
    step: StepId,
    direction: Direction,
) -> Result<(), DriveError> {
    (control.watch)(txn, &Event::Started { step, direction });
    let mutation = mutation_of(txn, step);
    let task =
        Task { step, mutation: &mutation, direction, inputs: txn.inputs(step), furthest: txn.furthest() };
    let sight = world.probe(&task).map_err(|source| failed(txn, step, source))?;
    let how = match (judge(direction, sight.seen), direction) {
        (Verdict::Halt, _) => return Err(foreign(txn, step, sight.what)),
        (Verdict::Skip, _) => {
            world.make_durable(&task).map_err(|source| failed(txn, step, source))?;
            How::AlreadyDone
        }
        (Verdict::Run, Direction::Forward) => {
            world.apply(&task).map_err(|source| failed(txn, step, source))?;
            How::Performed
        }
        (Verdict::Run, Direction::Backward) => {
            world.undo(&task).map_err(|source| failed(txn, step, source))?;
            How::Performed
        }
    };
    let outputs = match direction {
        Direction::Forward => world.outputs(&task).map_err(|source| failed(txn, step, source))?,
        Direction::Backward => Digest::ZERO,
    };
    record(txn, journal, &Record::Done { step, direction, outputs })?;
    (control.watch)(txn, &Event::Finished { step, direction, how });
    Ok(())
}

fn mutation_of(txn: &Txn, step: StepId) -> Mutation {
    txn.step(step).expect("BUG: the next step is in the plan").mutation.clone()
}

fn name_of(txn: &Txn, step: StepId) -> String {
    txn.step(step).map(|step| step.name.clone()).unwrap_or_default()
}

fn failed(txn: &Txn, step: StepId, source: MutationError) -> DriveError {
    match source {
        MutationError::Foreign(what) => foreign(txn, step, what),
        MutationError::Interrupted => DriveError::Interrupted,
        source @ MutationError::Failed(_) => DriveError::Failed { step, name: name_of(txn, step), source },
    }
}

fn foreign(txn: &Txn, step: StepId, what: String) -> DriveError {
    DriveError::Foreign { step, name: name_of(txn, step), what }
}
