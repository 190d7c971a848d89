//! Walks every crash point of every command, and every crash point of every recovery from it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use kytx::engine::{DriveError, Rest};
use kytx::txn::{Direction, Outcome, Phase, StepId};

use crate::invariants::Violation;
use crate::lab::{Command, Deed, End, Event, Fault, Lab, Program, Stages};
use crate::machine::{Cell, Machine, Thing, Value, stages};
use crate::plans::{self, Plan};

/// What the operator may type after a crash.
pub const CHOICES: [Command; 2] = [Command::Resume, Command::Abort];

/// What came of it all.
#[derive(Default)]
pub struct Tally {
    /// Commands that were run.
    pub runs: usize,
    /// Runs by how they ended.
    pub crashes: usize,
    pub committed: usize,
    pub aborted: usize,
    /// Events that the invariants looked at, by kind.
    pub events: BTreeMap<&'static str, usize>,
    /// The first violations.
    pub violations: Vec<Violation>,
    /// What a command did first after a given journal.
    verdicts: HashMap<(u64, Command), (Option<Deed>, Machine)>,
    /// How often a journal was met again with another machine.
    pub verdicts_compared: usize,
}

/// Violations of one law beyond this many teach nothing more.
const VIOLATIONS_KEPT: usize = 5;

impl Tally {
    /// The violations of one law.
    pub fn of(&self, law: &str) -> Vec<&Violation> {
        self.violations.iter().filter(|violation| violation.law == law).collect()
    }

    fn blame(&mut self, law: &'static str, what: String) {
        if self.of(law).len() < VIOLATIONS_KEPT {
            self.violations.push(Violation { law, what });
        }
    }

    /// Runs one command and takes its events into account.
    fn run(&mut self, lab: &mut Lab, command: Command, fuse: Option<usize>) -> End {
        let (chain, machine) = (lab.chain, lab.machine);
        let end = lab.run(command, fuse);
        self.runs += 1;
        for event in &lab.events {
            *self.events.entry(kind(event)).or_default() += 1;
        }
        for violation in std::mem::take(&mut lab.violations) {
            self.blame(violation.law, violation.what);
        }
        match end {
            End::Crashed => self.crashes += 1,
            End::Rested(Rest::Ended(Outcome::Committed)) => self.committed += 1,
            End::Rested(Rest::Ended(Outcome::Aborted)) => self.aborted += 1,
            _ => {}
        }
        self.compare_verdict(lab, command, chain, machine);
        end
    }

    /// The same journal leads to the same next act, whatever the machine has gone through.
    fn compare_verdict(&mut self, lab: &Lab, command: Command, chain: u64, machine: Machine) {
        let key = (chain, command);
        match self.verdicts.get(&key) {
            None => {
                self.verdicts.insert(key, (lab.first_deed.clone(), machine));
            }
            Some((deed, other)) => {
                self.verdicts_compared += usize::from(*other != machine);
                if *deed != lab.first_deed {
                    let what = format!("{command:?} does {deed:?} or {:?}, by the machine", lab.first_deed);
                    self.blame("verdict", what);
                }
            }
        }
    }

    /// Types commands until the transaction is over, and blames what does not get there.
    fn settle(&mut self, lab: &mut Lab, mut end: End) {
        for _ in 0..4 {
            let next = match end {
                End::Rested(Rest::Ended(_)) => return,
                End::NothingOpen => {
                    if lab.machine != lab.plan.initial {
                        self.blame("outcome", format!("nothing is open and {:?}", lab.machine));
                    }
                    return;
                }
                // Both decisions are taken, in turn.
                End::Rested(Rest::Applied) if self.runs.is_multiple_of(2) => Command::Abort,
                End::Rested(Rest::Applied) if self.runs.is_multiple_of(3) => Command::CommitKeeping,
                End::Rested(Rest::Applied) => Command::Commit,
                End::Refused if matches!(lab.phase(), Some(Phase::Ended(_))) => return,
                End::Refused => Command::Resume,
                // The operator mends what kept failing.
                End::Broke(DriveError::Failed { .. }) if lab.fault.take().is_some() => Command::Resume,
                _ => break,
            };
            end = self.run(lab, next, None);
        }
        self.blame("stuck", format!("plan {}: {end:?} after {:?}", lab.plan.name, lab.records.last()));
    }

    /// Runs a command once with the power going at each of its points, and once to its end; after each crash does
    /// the same with each recovery, `crashes` deep.
    pub fn explore(&mut self, at: &Lab, command: Command, crashes: usize) {
        for point in 0.. {
            let mut lab = at.clone();
            let end = self.run(&mut lab, command, (crashes > 0).then_some(point));
            if !matches!(end, End::Crashed) {
                return self.settle(&mut lab, end);
            }
            for choice in CHOICES {
                self.explore(&lab, choice, crashes - 1);
            }
        }
    }

    /// A transaction whose steps are all applied.
    fn applied(&mut self, plan: &Rc<Plan>) -> Option<Lab> {
        let mut lab = Lab::new(plan);
        let end = self.run(&mut lab, Command::Begin, None);
        matches!(end, End::Rested(Rest::Applied)).then_some(lab)
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Run => "runs",
        Event::Asked => "questions",
        Event::Durable(_) => "records",
        Event::Looked { .. } => "looks",
        Event::Begun { .. } => "acts",
        Event::Changed { .. } => "changes",
        Event::Ended { .. } => "acts ended",
        Event::Failed => "failures",
        Event::Crashed => "crashes",
    }
}

/// Every crash point of begin, abort and commit, twice over, for every plan.
pub fn double_crashes() -> Tally {
    let mut tally = Tally::default();
    for plan in plans::all() {
        let plan = Rc::new(plan);
        tally.explore(&Lab::new(&plan), Command::Begin, 2);
        let applied = tally.applied(&plan).expect("BUG: every plan here can be applied");
        for command in [Command::Abort, Command::Commit, Command::CommitKeeping] {
            tally.explore(&applied, command, 2);
        }
    }
    tally
}

/// Every single crash point of begin, abort and commit with something planted. For the tests of the tests.
pub fn single_crashes(plan: Plan, program: Program, how: Stages) -> Tally {
    let mut tally = Tally::default();
    let plan = Rc::new(plan);
    let mut lab = Lab::new(&plan);
    (lab.program, lab.stages) = (program, how);
    tally.explore(&lab, Command::Begin, 1);
    let mut applied = lab;
    if let End::Rested(Rest::Applied) = tally.run(&mut applied, Command::Begin, None) {
        for command in [Command::Abort, Command::Commit] {
            tally.explore(&applied, command, 1);
        }
    }
    tally
}

/// Random histories with three crashes.
pub fn triple_crashes(seed: u64, histories: usize) -> Tally {
    let mut tally = Tally::default();
    let mut random = Random(seed);
    let plans: Vec<_> = plans::all().into_iter().map(Rc::new).collect();
    for _ in 0..histories {
        let mut lab = Lab::new(&plans[random.below(3)]);
        let mut command = Command::Begin;
        let mut end = End::NothingOpen;
        for _ in 0..4 {
            end = tally.run(&mut lab, command, Some(random.below(90)));
            command = match end {
                End::Crashed | End::NothingOpen => CHOICES[random.below(2)],
                End::Rested(Rest::Applied) => [Command::Abort, Command::Commit][random.below(2)],
                _ => break,
            };
        }
        if let End::Crashed = end {
            end = tally.run(&mut lab, command, None);
        }
        tally.settle(&mut lab, end);
    }
    tally
}

/// Each step failing at each of its stages, once and for good, forward and backward, followed by each recovery with a
/// crash at each of its points.
pub fn failures() -> Tally {
    let mut tally = Tally::default();
    for plan in [plans::major(), plans::minor(), plans::restart()] {
        let plan = Rc::new(plan);
        let applied = tally.applied(&plan).expect("BUG: every plan here can be applied");
        for fault in faults(&plan) {
            let (at, command) = match fault.direction {
                Direction::Forward if is_cleanup(&plan, fault.step) => (applied.clone(), Command::Commit),
                Direction::Forward => (Lab::new(&plan), Command::Begin),
                Direction::Backward => (applied.clone(), Command::Abort),
            };
            let mut lab = at;
            lab.fault = Some(fault);
            let end = tally.run(&mut lab, command, None);
            if !matches!(end, End::Broke(DriveError::Failed { step, .. }) if step == fault.step) {
                // The undo of this step passes through no such stage.
                tally.settle(&mut lab, end);
                continue;
            }
            let again = tally.run(&mut lab, Command::Resume, None);
            if fault.for_good {
                // Past its first stage a look may find the step nearer its end, or at it.
                let fails_again = fault.stage > 0
                    || matches!(again, End::Broke(DriveError::Failed { step, .. }) if step == fault.step);
                if !fails_again {
                    tally.blame("stuck", format!("{fault:?} fails for good and then {again:?}"));
                }
                // A step that cannot be applied can still be undone; one that cannot be undone must be mended.
                if fault.direction == Direction::Backward || is_cleanup(&plan, fault.step) {
                    lab.fault = None;
                }
                tally.explore(&lab, Command::Abort, 1);
                lab.fault = None;
                tally.explore(&lab, Command::Resume, 1);
            } else {
                tally.settle(&mut lab, again);
            }
        }
    }
    tally
}

fn is_cleanup(plan: &Plan, step: StepId) -> bool {
    plan.steps[step.index()].stage == kytx::txn::Stage::Cleanup
}

fn faults(plan: &Plan) -> Vec<Fault> {
    const STAGES_MAX: usize = 6;
    let mut faults = Vec::new();
    for index in 0..plan.steps.len() as u16 {
        for direction in [Direction::Forward, Direction::Backward] {
            for stage in 0..=STAGES_MAX {
                for for_good in [false, true] {
                    let step = StepId(index);
                    if direction == Direction::Forward || !is_cleanup(plan, step) {
                        faults.push(Fault { step, direction, stage, for_good });
                    }
                }
            }
        }
    }
    faults
}

/// Somebody else puts something in the place of each thing after each crash of begin: kytx must not touch it, and must
/// go on once it is gone. Returns what happened while it was there, what happened after, and how often a run halted.
pub fn strangers() -> (Tally, Tally, usize) {
    let (mut met, mut healed) = (Tally::default(), Tally::default());
    let mut halts = 0;
    let plan = Rc::new(plans::major());
    // Metadata and cube data are left out: a look cannot tell by whom they were written last.
    let things = [Thing::Live, Thing::Spare, Thing::Service, Thing::CubeCopy, Thing::Archive];
    for point in 0.. {
        let mut crashed = Lab::new(&plan);
        if !matches!(met.run(&mut crashed, Command::Begin, Some(point)), End::Crashed) {
            return (met, healed, halts);
        }
        for thing in things {
            for choice in CHOICES {
                let mut lab = crashed.clone();
                let own = lab.machine[thing];
                lab.machine = lab.machine.with(thing, Cell::Whole(Value::Stranger));
                let end = met.run(&mut lab, choice, None);
                if let End::Broke(DriveError::Foreign { what, .. }) = end {
                    halts += 1;
                    assert!(!what.is_empty(), "a halt says what differs");
                    // It goes away again, and nothing was lost by waiting.
                    if lab.machine[thing] == Cell::Whole(Value::Stranger) {
                        lab.machine = lab.machine.with(thing, own);
                    }
                    let end = healed.run(&mut lab, Command::Resume, None);
                    healed.settle(&mut lab, end);
                }
            }
        }
    }
    unreachable!("every command has an end")
}

/// A small linear congruential generator: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// The stages as they should be.
pub const RIGHT: Stages = stages;
