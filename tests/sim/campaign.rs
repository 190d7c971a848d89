//! The exploration as a whole: every history, both models, a share of the choices by seed; counted, and each state
//! that went wrong with the words that bring it back.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::crash::{Draw, Model, Walk};
use crate::disk::Op;
use crate::explore::{History, SCENARIOS, Scenario, State, Verdict};
use crate::run::Fault;
use crate::sim_fs::Place;
use crate::support::census::{Census, exhaustive};

/// How many cores work.
const THREADS: usize = 2;

/// How much of what there is.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub seed: u64,
    /// Of a thousand regular choices, how many.
    pub per_mille: u64,
    /// How many drawn choices a crash point.
    pub drawn: usize,
    /// One state in so many is the beginning of further crashes, in its recovery.
    pub again_every: u64,
    /// How many.
    pub again: usize,
    /// One place in so many is also where kytx is killed without a power cut; none if 0.
    pub kill_every: u64,
    /// Whether one violation is enough.
    pub only_one: bool,
}

/// Stand for the choice of a place where kytx is killed and the power stays, and another resumes, or aborts.
const KILLS: [(usize, &str); 2] = [(usize::MAX, "kill-resume"), (usize::MAX - 1, "kill-abort")];

/// Whether the choice is such a one, and whether the other kytx aborts.
fn kill_of(choice: usize) -> Option<bool> {
    KILLS.iter().position(|(number, _)| *number == choice).map(|place| place == 1)
}

/// A crash state by name: model, scenario, and one or two crash points with their choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub model: Model,
    pub scenario: &'static str,
    pub points: Vec<(usize, usize)>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.model.name(), self.scenario)?;
        self.points.iter().try_for_each(|(point, choice)| match kill_of(*choice) {
            Some(aborts) => write!(f, ":{point}:{}", KILLS[usize::from(aborts)].1),
            None => write!(f, ":{point}:{choice}"),
        })
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [model, scenario, points @ ..] = &parts[..] else {
            return Err(format!("`{text}` names no state"));
        };
        let model = Model::ALL.into_iter().find(|known| known.name() == *model).ok_or("no such model")?;
        let scenario = scenario_named(scenario)?.name;
        let numbers: Result<Vec<usize>, _> = points
            .iter()
            .map(|text| match KILLS.iter().find(|(_, word)| word == text) {
                Some((number, _)) => Ok(*number),
                None => text.parse(),
            })
            .collect();
        let numbers = numbers.map_err(|error| error.to_string())?;
        let points = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok(Self { model, scenario, points })
    }
}

/// The scenario of that name.
pub fn scenario_named(name: &str) -> Result<Scenario, String> {
    SCENARIOS
        .into_iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| format!("no scenario `{name}`"))
}

/// What an exploration found.
#[derive(Default)]
pub struct Found {
    pub violations: Vec<(Name, Fault)>,
    pub second_crashes: u64,
}

/// Explores one model of everything.
pub fn explore(model: Model, share: &Share, histories: &[History], census: &mut Census) -> Found {
    let mut found = Found::default();
    for kernel in [true, false] {
        let seen = Mutex::new(HashSet::new());
        let enough = AtomicBool::new(false);
        for history in histories.iter().filter(|history| history.scenario.is_new_kernel() == kernel) {
            let parts: Vec<_> = thread::scope(|scope| {
                let (seen, enough) = (&seen, &enough);
                let work = move |part| {
                    let (found, census) = (Found::default(), Census::new("part", share.seed));
                    Explorer { model, share, history, seen, enough, found, census }.run(part)
                };
                let threads: Vec<_> = (0..THREADS).map(|part| scope.spawn(move || work(part))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for (part, counted) in parts {
                found.violations.extend(part.violations);
                found.second_crashes += part.second_crashes;
                census.add(&counted);
            }
            if share.only_one && !found.violations.is_empty() {
                return found;
            }
        }
    }
    found
}

struct Explorer<'a> {
    model: Model,
    share: &'a Share,
    history: &'a History,
    seen: &'a Mutex<HashSet<u64>>,
    /// Whether there was a violation.
    enough: &'a AtomicBool,
    found: Found,
    census: Census,
}

impl Explorer<'_> {
    fn run(mut self, part: usize) -> (Found, Census) {
        let line = &self.history.line;
        let mut walk = Walk::new(self.model, &line.base, &line.log, 0);
        let cuts = self.share.per_mille > 0;
        while cuts && walk.at < line.log.len() {
            if walk.step() && walk.at % THREADS == part {
                for choice in self.choices(&walk) {
                    let state = self.history.state(line, &walk, choice);
                    self.judge(&state, line, vec![(walk.at, choice)]);
                    if self.share.only_one && self.enough.load(Ordering::Relaxed) {
                        return (self.found, self.census);
                    }
                }
            }
        }
        if self.share.kill_every > 0 {
            self.kill(part);
        }
        (self.found, self.census)
    }

    /// kytx is killed, another goes on, and the power goes soon after that one has acknowledged something.
    fn kill(&mut self, part: usize) {
        let line = &self.history.line;
        for at in (1 + part..line.log.len()).step_by(THREADS) {
            let mut draw = Draw(self.share.seed ^ (at as u64) << 8);
            let wanted = match line.log[at - 1].0 {
                Op::Names(..) => true,
                Op::Make(..) | Op::Acknowledged(_) => false,
                // What is no name is redone by whoever finds it, but for the journal's own bytes.
                _ => !self.share.only_one || self.history.scenario.is_bare,
            };
            if !wanted || !draw.next().is_multiple_of(self.share.kill_every) {
                continue;
            }
            for (choice, _) in KILLS {
                self.kill_at(at, choice, &mut draw);
            }
            if self.share.only_one && self.enough.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn kill_at(&mut self, at: usize, choice: usize, draw: &mut Draw) {
        let aborts = kill_of(choice).expect("BUG: a kill");
        let verdict = self.history.kill(&self.history.line, at, aborts);
        self.count(&verdict);
        let points = [(at, choice)];
        let line = match (verdict.end, verdict.line) {
            (Ok(_), Some(line)) => line,
            (Err(fault), _) => return self.blame(points.to_vec(), fault),
            (Ok(_), None) => return,
        };
        let told = |point: &usize| matches!(line.log[point - 1].0, Op::Acknowledged(_));
        let mut walk = Walk::new(self.model, &line.base, &line.log, line.acknowledged);
        for point in (at + 1..=line.log.len()).filter(told).skip(1).take(3) {
            while walk.at < point {
                walk.step();
            }
            let more = (!self.share.only_one).then(|| draw.next() as usize % walk.regular());
            for choice in std::iter::once(0).chain(more) {
                let state = self.history.state(&line, &walk, choice);
                self.judge(&state, &line, vec![points[0], (point, choice)]);
            }
        }
    }

    fn blame(&mut self, points: Vec<(usize, usize)>, fault: Fault) {
        self.enough.store(true, Ordering::Relaxed);
        let name = Name { model: self.model, scenario: self.history.scenario.name, points };
        self.found.violations.push((name, fault));
    }

    fn choices(&self, walk: &Walk<'_>) -> Vec<usize> {
        let regular = walk.regular();
        // Nothing pending kept, and everything; the latter shows nothing about a sync that is missing.
        let always = if self.share.only_one { 1 } else { 2 };
        let mut draw = Draw(self.share.seed ^ (walk.at as u64) << 20);
        let mut choices: Vec<usize> = (0..regular)
            .filter(|choice| *choice < always || draw.next() % 1000 < self.share.per_mille)
            .collect();
        choices.extend((0..self.share.drawn).map(|_| regular + draw.next() as usize % 1_000_000));
        choices
    }

    fn judge(&mut self, state: &State, line: &crate::explore::Line, points: Vec<(usize, usize)>) {
        let fingerprint = state.fingerprint();
        if !self.seen.lock().unwrap().insert(fingerprint) {
            return;
        }
        let verdict = self.history.recover(line, state);
        self.count(&verdict);
        let mut draw = Draw(fingerprint ^ self.share.seed);
        if let Err(fault) = verdict.end {
            self.blame(points, fault);
        } else if let Some(line) = verdict.line
            && points.len() == 1
            && draw.next().is_multiple_of(self.share.again_every)
        {
            self.crash_again(&line, &points, &mut draw);
        }
    }

    /// The power goes again while kytx recovers.
    fn crash_again(&mut self, line: &crate::explore::Line, points: &[(usize, usize)], draw: &mut Draw) {
        for _ in 0..self.share.again.min(line.log.len()) {
            let point = 1 + draw.next() as usize % line.log.len();
            let mut walk = Walk::new(self.model, &line.base, &line.log, line.acknowledged);
            while walk.at < point {
                walk.step();
            }
            let choice = draw.next() as usize % (walk.regular() + 2 + self.share.drawn);
            let state = self.history.state(line, &walk, choice);
            self.found.second_crashes += 1;
            self.judge(&state, line, [points, &[(point, choice)]].concat());
        }
    }

    fn count(&mut self, verdict: &Verdict) {
        let counts = self.census.at(&verdict.cell);
        counts.states += 1;
        counts.violations += u64::from(verdict.end.is_err());
        counts.stuck += u64::from(verdict.stuck);
        let after = if verdict.aborts { &mut counts.after_abort } else { &mut counts.after_resume };
        let end = verdict.end.as_ref().map_or_else(|_| "violation", |end| end.word());
        *after.entry(end.to_owned()).or_default() += 1;
    }
}

/// Runs every history without a crash.
pub fn histories(deaf_to: &[Place]) -> Vec<History> {
    SCENARIOS.into_iter().map(|scenario| History::run(scenario, deaf_to.to_vec())).collect()
}

/// The share of a run: what `tests/run` affords, or all.
pub fn share(seed: u64, model: Model) -> Share {
    let (per_mille, drawn) = match (exhaustive(), model) {
        (true, _) => (1000, 200),
        (false, Model::Strict) => (800, 170),
        (false, Model::Ordered) => (1000, 60),
    };
    Share { seed, per_mille, drawn, again_every: 12, again: 3, kill_every: 0, only_one: false }
}

/// Kills alone.
pub fn kills(seed: u64) -> Share {
    let kill_every = if exhaustive() { 1 } else { 2 };
    Share { seed, per_mille: 0, drawn: 0, again_every: 1_000, again: 1, kill_every, only_one: false }
}

/// Judges one state by its name.
pub fn one(name: &Name) -> Verdict {
    let history = History::run(scenario_named(name.scenario).unwrap(), Vec::new());
    let mut verdict: Option<Verdict> = None;
    for (point, choice) in &name.points {
        let line = verdict.as_mut().map(|verdict| verdict.line.take().expect("BUG: it came to its recovery"));
        let line = line.as_ref().unwrap_or(&history.line);
        assert!(*point <= line.log.len(), "there are {} points", line.log.len());
        if let Some(aborts) = kill_of(*choice) {
            verdict = Some(history.kill(line, *point, aborts));
            continue;
        }
        let mut walk = Walk::new(name.model, &line.base, &line.log, line.acknowledged);
        while walk.at < *point {
            walk.step();
        }
        let state = history.state(line, &walk, *choice);
        verdict = Some(history.recover(line, &state));
    }
    verdict.expect("a state has a point")
}
