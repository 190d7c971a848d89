//! The laboratory: a journal and a world in memory that lose power where they are told to.
//!
//! A power cut is a panic without message that unwinds out of the engine: no line of kytx runs after it, as after the
//! real thing. What survives is the machine and the durable records; the next run starts from those alone.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use kytx::digest::Digest;
use kytx::engine::{Control, DriveError, MutationError, Rest, Sight, Task, World, drive, record};
use kytx::journal::{Journal, JournalError};
use kytx::txn::{
    AbortReason, Action, Direction, Lsn, Mutation, Observed, Phase, Record, StepId, Txn, plan_digest,
};

use crate::invariants::{Ledger, Violation, examine};
use crate::machine::{Machine, probe, stages};
use crate::plans::{Plan, begin};

/// What the operator types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    Begin,
    Resume,
    Abort,
    Commit,
    /// Commits and keeps the first cleanup step from running.
    CommitKeeping,
}

/// How a command ended.
#[derive(Debug)]
pub enum End {
    Crashed,
    Rested(Rest),
    Broke(DriveError),
    Refused,
    NothingOpen,
    Unreadable,
}

/// Everything that happens, in order.
#[derive(Clone, Debug)]
pub enum Event {
    Run,
    Asked,
    Durable(Arc<Record>),
    Looked { step: StepId, intended: bool, seen: Observed },
    Begun { step: StepId, direction: Direction },
    Changed { step: StepId, direction: Direction, before: Machine, after: Machine },
    Ended { step: StepId, direction: Direction },
    Failed,
    Crashed,
}

/// The first thing a run does to the outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    Append(Arc<Record>),
    Look(StepId),
    Act(StepId),
}

/// A step that fails at one of its stages.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub step: StepId,
    pub direction: Direction,
    pub stage: usize,
    /// Or once.
    pub for_good: bool,
}

/// What a command makes of journal and world. The real one is [`kytx`]; planted bugs stand in for it.
pub type Program = fn(&mut Bench<'_>, Command) -> End;

/// How an act goes through its stages. The real one is `machine::stages`.
pub type Stages = fn(Machine, &Mutation, Direction) -> Vec<Machine>;

/// One machine with its journal and its history.
#[derive(Clone)]
pub struct Lab {
    pub plan: Rc<Plan>,
    pub machine: Machine,
    pub records: Vec<Arc<Record>>,
    /// What happened in the present run.
    pub events: Vec<Event>,
    pub violations: Vec<Violation>,
    pub fault: Option<Fault>,
    pub program: Program,
    pub stages: Stages,
    /// A hash over the durable records.
    pub chain: u64,
    pub first_deed: Option<Deed>,
    ledger: Ledger,
    /// How many points are passed before the power goes.
    fuse: Option<usize>,
}

/// The payload of a power cut.
struct PowerCut;

impl Lab {
    pub fn new(plan: &Rc<Plan>) -> Self {
        Self {
            plan: Rc::clone(plan),
            machine: plan.initial,
            records: Vec::new(),
            events: Vec::new(),
            violations: Vec::new(),
            fault: None,
            program: kytx,
            stages,
            chain: 0,
            first_deed: None,
            ledger: Ledger::new(plan),
            fuse: None,
        }
    }

    /// Runs one command; the power goes at the point of that number, if there is one.
    pub fn run(&mut self, command: Command, fuse: Option<usize>) -> End {
        self.fuse = fuse;
        self.first_deed = None;
        self.events.clear();
        self.emit(Event::Run);
        let program = self.program;
        let blank = Self::new(&self.plan);
        let cell = RefCell::new(std::mem::replace(self, blank));
        let result = catch_unwind(AssertUnwindSafe(|| program(&mut Bench::new(&cell), command)));
        *self = cell.into_inner();
        self.fuse = None;
        match result {
            Ok(end) => end,
            Err(payload) if payload.is::<PowerCut>() => End::Crashed,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// The phase that the journal is in.
    pub fn phase(&self) -> Option<Phase> {
        self.replay().ok().flatten().map(|txn| txn.phase())
    }

    pub fn replay(&self) -> Result<Option<Txn>, kytx::txn::IllegalRecord> {
        Txn::replay(self.records.iter().map(Arc::as_ref))
    }

    fn emit(&mut self, event: Event) {
        examine(&self.ledger, &event, &self.machine, &mut self.violations);
        if let Err(what) = self.ledger.fold(&event) {
            self.violations.push(Violation { law: "grammar", what });
        }
        self.events.push(event);
    }

    fn deed(&mut self, deed: impl FnOnce() -> Deed) {
        if self.first_deed.is_none() {
            self.first_deed = Some(deed());
        }
    }

    /// A place where the power may go.
    fn point(&mut self) {
        match &mut self.fuse {
            Some(0) => {
                self.emit(Event::Crashed);
                resume_unwind(Box::new(PowerCut));
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }

    fn append(&mut self, record: &Record) -> Lsn {
        let record = Arc::new(record.clone());
        self.deed(|| Deed::Append(Arc::clone(&record)));
        self.point();
        let mut hasher = DefaultHasher::new();
        (self.chain, serde_json::to_string(&*record).unwrap()).hash(&mut hasher);
        self.chain = hasher.finish();
        self.records.push(Arc::clone(&record));
        self.emit(Event::Durable(record));
        self.point();
        Lsn(self.records.len() as u64)
    }

    fn look(&mut self, task: &Task<'_>) -> Sight {
        self.deed(|| Deed::Look(task.step));
        let sight = probe(&self.machine, task.mutation, task.inputs.is_some());
        self.emit(Event::Looked { step: task.step, intended: task.inputs.is_some(), seen: sight.seen });
        sight
    }

    fn act(&mut self, task: &Task<'_>, direction: Direction) -> Result<(), MutationError> {
        let step = task.step;
        self.deed(|| Deed::Act(step));
        self.emit(Event::Begun { step, direction });
        self.point();
        self.fail_at(step, direction, 0)?;
        for (index, after) in (self.stages)(self.machine, task.mutation, direction).into_iter().enumerate() {
            let before = std::mem::replace(&mut self.machine, after);
            self.emit(Event::Changed { step, direction, before, after });
            self.point();
            self.fail_at(step, direction, index + 1)?;
        }
        self.emit(Event::Ended { step, direction });
        self.point();
        Ok(())
    }

    fn fail_at(&mut self, step: StepId, direction: Direction, stage: usize) -> Result<(), MutationError> {
        match self.fault {
            Some(fault) if (fault.step, fault.direction, fault.stage) == (step, direction, stage) => {
                if !fault.for_good {
                    self.fault = None;
                }
                self.emit(Event::Failed);
                Err(MutationError::Failed(format!("step {step} fails at its stage {stage}").into()))
            }
            _ => Ok(()),
        }
    }
}

/// What a program gets: the journal, the world, and the operator to ask.
pub struct Bench<'a> {
    lab: &'a RefCell<Lab>,
    pub journal: MemoryJournal<'a>,
    pub world: MemoryWorld<'a>,
}

pub struct MemoryJournal<'a>(&'a RefCell<Lab>);

pub struct MemoryWorld<'a>(&'a RefCell<Lab>);

impl<'a> Bench<'a> {
    fn new(lab: &'a RefCell<Lab>) -> Self {
        Self { lab, journal: MemoryJournal(lab), world: MemoryWorld(lab) }
    }

    /// Asks the operator; the answer is the plan.
    pub fn ask(&mut self) -> Rc<Plan> {
        let mut lab = self.lab.borrow_mut();
        lab.emit(Event::Asked);
        Rc::clone(&lab.plan)
    }

    /// Opens the journal.
    pub fn replay(&self) -> Result<Option<Txn>, kytx::txn::IllegalRecord> {
        self.lab.borrow().replay()
    }

    /// Takes a peek at the machine, for planted bugs.
    pub fn machine(&self) -> Machine {
        self.lab.borrow().machine
    }

    /// Writes `Begin`, the plan and `Sealed`.
    pub fn write_plan(&mut self, plan: &Plan) -> Result<Txn, DriveError> {
        let first = begin();
        self.journal.append(&first)?;
        let mut txn = Txn::begin(&first)?;
        for step in &plan.steps {
            record(&mut txn, &mut self.journal, &Record::Planned(step.clone()))?;
        }
        let sealed = Record::Sealed { steps: plan.steps.len() as u16, plan: plan_digest(&plan.steps) };
        record(&mut txn, &mut self.journal, &sealed)?;
        Ok(txn)
    }
}

impl Journal for MemoryJournal<'_> {
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        Ok(self.0.borrow_mut().append(record))
    }
}

impl World for MemoryWorld<'_> {
    fn probe(&mut self, task: &Task<'_>) -> Result<Sight, MutationError> {
        Ok(self.0.borrow_mut().look(task))
    }

    fn inputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError> {
        let mut lab = self.0.borrow_mut();
        lab.point();
        let digest = Digest::from_bytes([task.step.0 as u8; 32]);
        lab.point();
        Ok(digest)
    }

    fn apply(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        self.0.borrow_mut().act(task, Direction::Forward)
    }

    fn outputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError> {
        Ok(Digest::from_bytes([task.step.0 as u8 | 0x80; 32]))
    }

    fn undo(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        self.0.borrow_mut().act(task, Direction::Backward)
    }
}

/// The commands as kytx has them: each writes its record first and then drives.
pub fn kytx(bench: &mut Bench<'_>, command: Command) -> End {
    command_with(bench, command, |txn, bench| {
        let mut control =
            Control { stop_before: None, stop_requested: &|| false, watch: &mut |_: &Txn, _: &_| {} };
        drive(txn, &mut bench.journal, &mut bench.world, &mut control)
    })
}

/// The commands around any driver.
pub fn command_with(
    bench: &mut Bench<'_>,
    command: Command,
    driver: fn(&mut Txn, &mut Bench<'_>) -> Result<Rest, DriveError>,
) -> End {
    let Ok(open) = bench.replay() else { return End::Unreadable };
    let result = match (command, open) {
        (Command::Begin, None) => {
            let plan = bench.ask();
            bench.write_plan(&plan)
        }
        (Command::Begin, Some(_)) => return End::Refused,
        (_, None) => return End::NothingOpen,
        (_, Some(txn)) => match first_record(&txn, command) {
            Some(first) => {
                let mut txn = txn;
                record(&mut txn, &mut bench.journal, &first).map(|()| txn)
            }
            None if refuses(&txn, command) => return End::Refused,
            None => Ok(txn),
        },
    };
    match result.and_then(|mut txn| driver(&mut txn, bench)) {
        Ok(rest) => End::Rested(rest),
        Err(error) => End::Broke(error),
    }
}

/// The record with which a command turns an open transaction.
fn first_record(txn: &Txn, command: Command) -> Option<Record> {
    let cleanup = || txn.ids().find(|id| txn.step(*id).is_some_and(|s| s.stage == kytx::txn::Stage::Cleanup));
    match (command, txn.phase()) {
        (Command::Abort, Phase::Applying | Phase::Applied) => {
            Some(Record::Abort { reason: AbortReason::Operator })
        }
        (Command::Commit, Phase::Applied) => Some(Record::Commit { keep: Vec::new() }),
        (Command::CommitKeeping, Phase::Applied) => {
            Some(Record::Commit { keep: cleanup().into_iter().collect() })
        }
        _ => None,
    }
}

fn refuses(txn: &Txn, command: Command) -> bool {
    match command {
        Command::Abort => matches!(txn.phase(), Phase::Committing | Phase::Ended(_)),
        Command::Commit | Command::CommitKeeping => !matches!(txn.phase(), Phase::Committing),
        Command::Begin | Command::Resume => matches!(txn.next(), Action::Finish(_)),
    }
}
