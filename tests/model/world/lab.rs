//! The laboratory: a journal and a world in memory in which an accident happens where it is told to.
//!
//! A power cut is a panic without message that unwinds out of the engine: no line of kytx runs after it, as after the
//! real thing. What survives is the machine and the durable records; the next run starts from those alone.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use kytx::digest::Digest;
use kytx::engine::{Control, DriveError, MutationError, Rest, Sight, Task, World, drive, record};
use kytx::journal::{Frame, Head, Journal, JournalError};
use kytx::txn::{
    AbortReason, Action, Direction, Lsn, Mutation, Observed, Phase, Record, StepId, Txn, plan_digest,
};

use super::accident::{Accident, Fault, Place, refusal};
use super::invariants::{Ledger, Violation, examine};
use super::machine::{Cell, Machine, Thing, Value, probe, stages};
use super::plans::{Plan, begin};

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
    /// A run begins, that must stop before this step.
    Run {
        stop_before: Option<StepId>,
    },
    Asked,
    /// It was asked whether to stop.
    Consulted {
        stop: bool,
    },
    Durable(Arc<Record>),
    /// An append has failed.
    Refused,
    Looked {
        step: StepId,
        intended: bool,
        seen: Observed,
    },
    /// What a look has found done has been made durable.
    Synced {
        step: StepId,
    },
    Begun {
        step: StepId,
        direction: Direction,
    },
    Changed {
        step: StepId,
        direction: Direction,
        before: Machine,
        after: Machine,
    },
    Ended {
        step: StepId,
        direction: Direction,
    },
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
    /// Where the journal ends: its chain tells journals apart.
    pub head: Head,
    pub first_deed: Option<Deed>,
    /// Whether the accident of the present run has happened.
    pub struck: bool,
    /// What somebody else has put somewhere, and what it is in the place of.
    strangers: Vec<(Thing, Cell)>,
    ledger: Ledger,
    accident: Accident,
    passed: Passed,
    poisoned: bool,
}

/// How many places for an accident the present run has passed.
#[derive(Clone, Copy, Default)]
struct Passed {
    points: usize,
    appends: usize,
    questions: usize,
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
            head: Head::START,
            first_deed: None,
            struck: false,
            strangers: Vec::new(),
            ledger: Ledger::new(plan),
            accident: Accident::None,
            passed: Passed::default(),
            poisoned: false,
        }
    }

    /// Runs one command, in which an accident happens if the run gets there.
    pub fn run(&mut self, command: Command, accident: Accident) -> End {
        (self.accident, self.passed) = (accident, Passed::default());
        (self.struck, self.poisoned) = (false, false);
        self.first_deed = None;
        self.events.clear();
        self.emit(Event::Run { stop_before: self.stop_before() });
        let program = self.program;
        let blank = Self::new(&self.plan);
        let cell = RefCell::new(std::mem::replace(self, blank));
        let result = catch_unwind(AssertUnwindSafe(|| program(&mut Bench::new(&cell), command)));
        *self = cell.into_inner();
        if let Ok(End::Rested(Rest::StoppedBefore(_))) = result {
            self.struck = true;
        }
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

    /// Somebody else puts something in the place of a thing.
    pub fn intrude(&mut self, thing: Thing) {
        let own = self.machine[thing];
        if own != Cell::Whole(Value::Stranger) {
            self.strangers.push((thing, own));
            self.machine = self.machine.with(thing, Cell::Whole(Value::Stranger));
        }
    }

    /// Everything that somebody else has put there goes away again, and what was in its place comes back.
    pub fn send_strangers_away(&mut self) {
        self.machine = self.without_strangers(self.machine);
        self.strangers.clear();
    }

    fn without_strangers(&self, machine: Machine) -> Machine {
        self.strangers.iter().fold(machine, |machine, (thing, own)| machine.with(*thing, *own))
    }

    fn stop_before(&self) -> Option<StepId> {
        match self.accident {
            Accident::StopBefore(step) => Some(step),
            _ => None,
        }
    }

    fn emit(&mut self, event: Event) {
        let own = self.without_strangers(self.machine);
        examine(&self.ledger, &event, &self.machine, &own, &mut self.violations);
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
        if self.accident == Accident::PowerCut(self.passed.points) {
            self.struck = true;
            self.emit(Event::Crashed);
            resume_unwind(Box::new(PowerCut));
        }
        self.passed.points += 1;
    }

    /// Whether a stop is requested.
    fn stop_requested(&mut self) -> bool {
        let stop = matches!(self.accident, Accident::Stopped(from) if self.passed.questions >= from);
        self.passed.questions += 1;
        self.struck |= stop;
        self.emit(Event::Consulted { stop });
        stop
    }

    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        let record = Arc::new(record.clone());
        self.deed(|| Deed::Append(Arc::clone(&record)));
        if self.poisoned {
            self.emit(Event::Refused);
            return Err(JournalError::Poisoned);
        }
        self.point();
        let number = self.passed.appends;
        self.passed.appends += 1;
        let refused = match self.accident {
            Accident::Refused { append, kept } if append == number => Some(kept),
            _ => None,
        };
        if refused != Some(false) {
            self.head = Frame::seal(self.head, &record)?.head();
            self.records.push(Arc::clone(&record));
            self.emit(Event::Durable(record));
        }
        if let Some(kept) = refused {
            (self.struck, self.poisoned) = (true, true);
            self.emit(Event::Refused);
            return Err(refusal(kept));
        }
        self.point();
        Ok(Lsn(self.records.len() as u64))
    }

    fn look(&mut self, task: &Task<'_>) -> Result<Sight, MutationError> {
        self.deed(|| Deed::Look(task.step));
        self.fail_at(task, Place::Look)?;
        let sight = probe(&self.machine, task.mutation, task.inputs.is_some());
        self.emit(Event::Looked { step: task.step, intended: task.inputs.is_some(), seen: sight.seen });
        Ok(sight)
    }

    fn act(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        let (step, direction) = (task.step, task.direction);
        self.deed(|| Deed::Act(step));
        self.emit(Event::Begun { step, direction });
        self.point();
        self.fail_at(task, Place::Stage(0))?;
        for (index, after) in (self.stages)(self.machine, task.mutation, direction).into_iter().enumerate() {
            // Long work asks as well, and gives up where it can be taken up again.
            if self.stop_requested() {
                return Err(MutationError::Interrupted);
            }
            let before = std::mem::replace(&mut self.machine, after);
            self.emit(Event::Changed { step, direction, before, after });
            self.point();
            self.fail_at(task, Place::Stage(index + 1))?;
        }
        self.emit(Event::Ended { step, direction });
        self.point();
        Ok(())
    }

    fn fail_at(&mut self, task: &Task<'_>, place: Place) -> Result<(), MutationError> {
        match self.fault {
            Some(fault)
                if (fault.step, fault.direction, fault.place) == (task.step, task.direction, place) =>
            {
                if !fault.for_good {
                    self.fault = None;
                }
                self.emit(Event::Failed);
                Err(fault.error())
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

    /// The step that the operator wants to stop before.
    pub fn stop_before(&self) -> Option<StepId> {
        self.lab.borrow().stop_before()
    }

    /// Whether a signal has come.
    pub fn stop_requested(&self) -> bool {
        self.lab.borrow_mut().stop_requested()
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
        self.0.borrow_mut().append(record)
    }
}

impl World for MemoryWorld<'_> {
    fn probe(&mut self, task: &Task<'_>) -> Result<Sight, MutationError> {
        self.0.borrow_mut().look(task)
    }

    fn inputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError> {
        let mut lab = self.0.borrow_mut();
        lab.fail_at(task, Place::Inputs)?;
        lab.point();
        let digest = Digest::from_bytes([task.step.0 as u8; 32]);
        lab.point();
        Ok(digest)
    }

    fn apply(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        self.0.borrow_mut().act(task)
    }

    fn make_durable(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        let mut lab = self.0.borrow_mut();
        lab.fail_at(task, Place::Durable)?;
        lab.emit(Event::Synced { step: task.step });
        Ok(())
    }

    fn outputs(&mut self, task: &Task<'_>) -> Result<Digest, MutationError> {
        self.0.borrow_mut().fail_at(task, Place::Outputs)?;
        Ok(Digest::from_bytes([task.step.0 as u8 | 0x80; 32]))
    }

    fn undo(&mut self, task: &Task<'_>) -> Result<(), MutationError> {
        self.0.borrow_mut().act(task)
    }
}

/// The commands as kytx has them: each writes its record first and then drives.
pub fn kytx(bench: &mut Bench<'_>, command: Command) -> End {
    command_with(bench, command, right_drive)
}

/// The engine.
pub fn right_drive(txn: &mut Txn, bench: &mut Bench<'_>) -> Result<Rest, DriveError> {
    let lab = bench.lab;
    let mut control = Control {
        stop_before: bench.stop_before(),
        stop_requested: &|| lab.borrow_mut().stop_requested(),
        watch: &mut |_: &Txn, _: &_| {},
    };
    drive(txn, &mut bench.journal, &mut bench.world, &mut control)
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
