//! Walks every accident of every command, and every accident of every recovery from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use kytx::digest::Digest;
use kytx::engine::{DriveError, Rest};
use kytx::txn::{Action, Outcome, Phase};

use crate::census::{Cell, Census};
use crate::world::accident::{Accident, KINDS};
use crate::world::invariants::Violation;
use crate::world::lab::{Command, Deed, End, Event, Lab, Program, Stages};
use crate::world::machine::{Machine, stages};
use crate::world::plans::{self, Plan};

/// What the operator may type after a crash.
pub const CHOICES: [Command; 2] = [Command::Resume, Command::Abort];

/// What came of it all.
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
    /// Accidents that happened, by kind.
    pub accidents: BTreeMap<&'static str, usize>,
    /// Distinct states that an accident left, and what became of them.
    pub census: Census,
    /// A state by plan, journal and machine, and by the kind of accident that left it.
    states: HashSet<(&'static str, Digest, Machine, String)>,
    /// Distinct states, whatever left them.
    pub distinct: HashSet<(&'static str, Digest, Machine)>,
    /// Violations, those not kept included.
    blamed: usize,
    /// What a command did first after a given journal.
    verdicts: HashMap<(&'static str, Digest, Command), (Option<Deed>, Machine)>,
    /// How often a journal was met again with another machine.
    pub verdicts_compared: usize,
}

/// Which accidents are walked.
#[derive(Clone, Copy)]
pub struct Walk {
    /// How many in a row.
    pub deep: usize,
    /// Of which kinds.
    pub kinds: &'static [fn(usize) -> Accident],
}

/// Power cuts, so many in a row.
pub fn crashes(deep: usize) -> Walk {
    Walk { deep, kinds: &KINDS[..1] }
}

/// Every kind of accident, so many in a row.
pub fn accidents(deep: usize) -> Walk {
    Walk { deep, kinds: &KINDS }
}

/// Violations of one law beyond this many teach nothing more.
const VIOLATIONS_KEPT: usize = 5;

impl Default for Tally {
    fn default() -> Self {
        Self {
            runs: 0,
            crashes: 0,
            committed: 0,
            aborted: 0,
            events: BTreeMap::new(),
            violations: Vec::new(),
            accidents: BTreeMap::new(),
            census: Census::new("model", 0),
            states: HashSet::new(),
            distinct: HashSet::new(),
            blamed: 0,
            verdicts: HashMap::new(),
            verdicts_compared: 0,
        }
    }
}

impl Tally {
    /// The violations of one law.
    pub fn of(&self, law: &str) -> Vec<&Violation> {
        self.violations.iter().filter(|violation| violation.law == law).collect()
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.crashes += other.crashes;
        self.committed += other.committed;
        self.aborted += other.aborted;
        self.verdicts_compared += other.verdicts_compared;
        for (mine, theirs) in [(&mut self.events, other.events), (&mut self.accidents, other.accidents)] {
            for (kind, count) in theirs {
                *mine.entry(kind).or_default() += count;
            }
        }
        self.census.add(&other.census);
        self.distinct.extend(other.distinct);
        for violation in other.violations {
            self.blame(violation.law, violation.what);
        }
    }

    pub fn blame(&mut self, law: &'static str, what: String) {
        self.blamed += 1;
        if self.of(law).len() < VIOLATIONS_KEPT {
            self.violations.push(Violation { law, what });
        }
    }

    /// Runs one command and takes its events into account.
    pub fn run(&mut self, lab: &mut Lab, command: Command, accident: Accident) -> End {
        let (chain, machine) = (lab.head.chain, lab.machine);
        let end = lab.run(command, accident);
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
        if lab.struck {
            *self.accidents.entry(accident.kind()).or_default() += 1;
        }
        // Who is told to stop may do nothing at all.
        if !matches!(accident, Accident::Stopped(_) | Accident::StopBefore(_)) {
            self.compare_verdict(lab, command, chain, machine);
        }
        end
    }

    /// The same journal leads to the same next act, whatever the machine has gone through.
    fn compare_verdict(&mut self, lab: &Lab, command: Command, chain: Digest, machine: Machine) {
        let key = (lab.plan.name, chain, command);
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

    /// Types commands until the transaction is over, and blames what does not get there. Says what it came to.
    pub fn settle(&mut self, lab: &mut Lab, mut end: End) -> &'static str {
        for _ in 0..4 {
            let next = match end {
                End::Rested(Rest::Ended(outcome)) => return word(outcome),
                End::NothingOpen => {
                    if lab.machine != lab.plan.initial {
                        self.blame("outcome", format!("nothing is open and {:?}", lab.machine));
                    }
                    return "nothing open";
                }
                // Both decisions are taken, in turn.
                End::Rested(Rest::Applied) if self.runs.is_multiple_of(2) => Command::Abort,
                End::Rested(Rest::Applied) if self.runs.is_multiple_of(3) => Command::CommitKeeping,
                End::Rested(Rest::Applied) => Command::Commit,
                End::Rested(Rest::Interrupted | Rest::StoppedBefore(_)) => Command::Resume,
                End::Refused => match lab.phase() {
                    Some(Phase::Ended(outcome)) => return word(outcome),
                    _ => Command::Resume,
                },
                // The operator mends what failed.
                End::Broke(DriveError::Failed { .. }) => {
                    lab.fault = None;
                    Command::Resume
                }
                _ => break,
            };
            end = self.run(lab, next, Accident::None);
        }
        self.blame("stuck", format!("plan {}: {end:?} after {:?}", lab.plan.name, lab.records.last()));
        "stuck"
    }

    /// Runs a command to its end, and once with each accident at each of its places; after each accident does the same
    /// with each recovery, so many accidents deep. Says what the command came to without one.
    pub fn explore(&mut self, at: &Lab, command: Command, walk: Walk) -> &'static str {
        if walk.deep > 0 {
            for kind in walk.kinds {
                for place in 0.. {
                    let mut lab = at.clone();
                    let end = self.run(&mut lab, command, kind(place));
                    if !lab.struck {
                        // The steps that are behind cannot be stopped before.
                        if matches!(kind(place), Accident::StopBefore(_)) && place < at.plan.steps.len() {
                            continue;
                        }
                        break;
                    }
                    if let End::Rested(Rest::Ended(_)) = end {
                        // It was too late to stop.
                        self.settle(&mut lab, end);
                    } else {
                        self.recover(&lab, kind(place), walk);
                    }
                }
            }
        }
        let mut lab = at.clone();
        let end = self.run(&mut lab, command, Accident::None);
        let applied = matches!(end, End::Rested(Rest::Applied));
        let came_to = self.settle(&mut lab, end);
        // Which of the two the operator then chose does not matter here.
        if applied && came_to != "stuck" { "new" } else { came_to }
    }

    /// Explores each recovery from an accident, and counts what it led to.
    fn recover(&mut self, lab: &Lab, accident: Accident, walk: Walk) {
        let next = Walk { deep: walk.deep - 1, ..walk };
        let cell = cell_of(lab, accident, next.deep == 0);
        self.distinct.insert((lab.plan.name, lab.head.chain, lab.machine));
        let is_new = self.states.insert((lab.plan.name, lab.head.chain, lab.machine, cell.accident.clone()));
        let blamed = self.blamed;
        let came_to = CHOICES.map(|choice| self.explore(lab, choice, next));
        let blamed = (self.blamed - blamed) as u64;
        let counts = self.census.at(&cell);
        counts.violations += blamed;
        counts.stuck += came_to.iter().filter(|word| **word == "stuck").count() as u64;
        if is_new {
            counts.states += 1;
            for (map, word) in [(&mut counts.after_resume, came_to[0]), (&mut counts.after_abort, came_to[1])]
            {
                *map.entry(word.to_owned()).or_default() += 1;
            }
            let seen = if let Accident::PowerCut(_) = accident { "killed" } else { "stopped" };
            *counts.seen.entry(seen.to_owned()).or_default() += 1;
        }
    }

    /// A transaction whose steps are all applied.
    pub fn applied(&mut self, plan: &Rc<Plan>) -> Option<Lab> {
        let mut lab = Lab::new(plan);
        let end = self.run(&mut lab, Command::Begin, Accident::None);
        matches!(end, End::Rested(Rest::Applied)).then_some(lab)
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "new",
        Outcome::Aborted => "old",
    }
}

/// Where an accident fell, by the journal that it left.
fn cell_of(lab: &Lab, accident: Accident, last: bool) -> Cell {
    let txn = lab.replay().ok().flatten();
    let phase = match txn.as_ref().map(kytx::txn::Txn::phase) {
        None | Some(Phase::Planning) => "planning",
        Some(Phase::Applying) => "applying",
        Some(Phase::Applied) => "applied",
        Some(Phase::Aborting) => "aborting",
        Some(Phase::Committing) => "committing",
        Some(Phase::Ended(_)) => "ended",
    };
    let (step, window) = match txn.as_ref().map(kytx::txn::Txn::next) {
        Some(Action::Intend { step, .. }) => (Some(step), "before intent"),
        Some(Action::Drive { step, .. }) => (Some(step), "before outcome"),
        _ => (None, ""),
    };
    Cell {
        phase: phase.to_owned(),
        step: step.map(|step| lab.plan.steps[step.index()].name.clone()).unwrap_or_default(),
        window: window.to_owned(),
        accident: if last { format!("second {}", accident.kind()) } else { accident.kind().to_owned() },
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Run { .. } => "runs",
        Event::Asked => "questions",
        Event::Consulted { stop: false } => "consultations",
        Event::Consulted { stop: true } => "stops",
        Event::Refused => "refused appends",
        Event::Synced { .. } => "syncs",
        Event::Durable(_) => "records",
        Event::Looked { .. } => "looks",
        Event::Begun { .. } => "acts",
        Event::Changed { .. } => "changes",
        Event::Ended { .. } => "acts ended",
        Event::Failed => "failures",
        Event::Crashed => "crashes",
    }
}

/// Every accident of begin, abort and commit, twice over, for every plan.
pub fn double_accidents(walk: Walk) -> Tally {
    let plan = |plan: Plan| {
        let mut tally = Tally::default();
        let plan = Rc::new(plan);
        tally.explore(&Lab::new(&plan), Command::Begin, walk);
        let applied = tally.applied(&plan).expect("BUG: every plan here can be applied");
        for command in [Command::Abort, Command::Commit, Command::CommitKeeping] {
            tally.explore(&applied, command, walk);
        }
        tally
    };
    // The two longest plans are as long as each other: one for each of the two cores.
    let (mine, theirs): (Vec<_>, Vec<_>) =
        plans::all().into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    let all = |plans: Vec<(usize, Plan)>| {
        let mut tally = Tally::default();
        for (_, one) in plans {
            tally.add(plan(one));
        }
        tally
    };
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| all(theirs));
        let mut tally = all(mine);
        tally.add(theirs.join().expect("the other half of the walk"));
        tally
    })
}

/// Every single accident of begin, abort and commit with something planted. For the tests of the tests.
pub fn single_accidents(plan: Plan, program: Program, how: Stages) -> Tally {
    let mut tally = Tally::default();
    let plan = Rc::new(plan);
    let mut lab = Lab::new(&plan);
    (lab.program, lab.stages) = (program, how);
    tally.explore(&lab, Command::Begin, accidents(1));
    let mut applied = lab;
    if let End::Rested(Rest::Applied) = tally.run(&mut applied, Command::Begin, Accident::None) {
        for command in [Command::Abort, Command::Commit] {
            tally.explore(&applied, command, accidents(1));
        }
    }
    tally
}

/// Random histories with three accidents.
pub fn triple_accidents(seed: u64, histories: usize) -> Tally {
    let mut tally = Tally::default();
    let mut random = Random(seed);
    let plans: Vec<_> = plans::all().into_iter().map(Rc::new).collect();
    for _ in 0..histories {
        let mut lab = Lab::new(&plans[random.below(3)]);
        let mut command = Command::Begin;
        let mut end = End::NothingOpen;
        for _ in 0..4 {
            end = tally.run(&mut lab, command, random.accident());
            command = match end {
                End::Crashed | End::NothingOpen | End::Broke(DriveError::Journal(_)) => {
                    CHOICES[random.below(2)]
                }
                End::Rested(Rest::Interrupted | Rest::StoppedBefore(_)) => CHOICES[random.below(2)],
                End::Rested(Rest::Applied) => [Command::Abort, Command::Commit][random.below(2)],
                _ => break,
            };
        }
        if let End::Crashed | End::Broke(DriveError::Journal(_)) = end {
            end = tally.run(&mut lab, command, Accident::None);
        }
        tally.settle(&mut lab, end);
    }
    tally
}

/// A small linear congruential generator: the same numbers on every machine.
struct Random(u64);

impl Random {
    /// Half of the time a power cut; each kind at one of the places that a major upgrade has.
    fn accident(&mut self) -> Accident {
        const PLACES: [usize; KINDS.len()] = [90, 40, 40, 80, 14];
        let kind = if self.below(2) == 0 { 0 } else { self.below(KINDS.len()) };
        KINDS[kind](self.below(PLACES[kind]))
    }

    fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX constants.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// The stages as they should be.
pub const RIGHT: Stages = stages;
