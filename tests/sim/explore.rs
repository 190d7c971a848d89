//! Crash points, choices, recoveries: the exploration of one history, and of histories that begin in its crashes.

use std::collections::HashSet;
use std::sync::Mutex;

use kytx::txn::{AbortReason, Phase, Record};

use crate::crash::{Draw, Model, Walk};
use crate::disk::Image;
use crate::promise::Promise;
use crate::run::{Boot, End, Fault, Session, cell};
use crate::scene;
use crate::sim_fs::{Lacking, Logged, Place, SimFs};
use crate::support::census::Cell;

/// What is done on the machine, boot by boot, when no power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Begin,
    Drive,
    /// The new release is started by the operator, and changes data.
    Migrate,
    Abort,
    Commit,
    Retire,
}

/// A history, by name.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    lacking: Lacking,
    acts: &'static [Act],
}

const OLD_KERNEL: Lacking = Lacking { exchange: true, sync_fs: true };
const NEW_KERNEL: Lacking = Lacking { exchange: false, sync_fs: false };

/// All histories.
pub const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "upgrade", lacking: NEW_KERNEL, acts: &[Act::Begin, Act::Drive, Act::Commit, Act::Retire] },
    Scenario { name: "abort", lacking: NEW_KERNEL, acts: &[Act::Begin, Act::Drive, Act::Migrate, Act::Abort, Act::Retire] },
    Scenario { name: "upgrade-by-renames", lacking: OLD_KERNEL, acts: &[Act::Begin, Act::Drive, Act::Commit] },
    Scenario { name: "abort-by-renames", lacking: OLD_KERNEL, acts: &[Act::Begin, Act::Drive, Act::Migrate, Act::Abort] },
];

/// A history that was run to its end, and everything that its crashes are judged by.
pub struct History {
    pub scenario: Scenario,
    promise: Promise,
    /// Requests from here are swallowed.
    deaf_to: Option<Place>,
    pub line: Line,
    /// Every place that asked for durability.
    pub asked: Vec<Place>,
    /// From this place in the log on the new release has been started.
    migrated_at: usize,
}

/// The log of some boots, and what it began with.
pub struct Line {
    pub base: Image,
    pub log: Vec<Logged>,
    /// Every record that was acknowledged.
    records: Vec<Record>,
    /// How many of them were when the log began.
    acknowledged: usize,
    migrated: bool,
}

/// A crash state: what the disk holds, and what kytx had been told was sure.
pub struct State {
    pub image: Image,
    acknowledged: usize,
    migrated: bool,
}

impl State {
    /// What tells it from another.
    pub fn fingerprint(&self) -> u64 {
        self.image.fingerprint() ^ (self.acknowledged as u64) << 1 ^ u64::from(self.migrated)
    }
}

/// What became of a state.
pub struct Verdict {
    pub cell: Cell,
    pub aborts: bool,
    /// What it led to, or what is wrong.
    pub end: Result<End, Fault>,
    /// Nothing went on from there, neither this way nor the other.
    pub stuck: bool,
    /// The recovery's own log, for a crash in it.
    pub line: Option<Line>,
}

impl History {
    /// Runs a history without a crash.
    pub fn run(scenario: Scenario, deaf_to: Option<Place>) -> Self {
        let base = scene::build();
        let mut promise = Promise::of(&base);
        let fs = SimFs::mount(base.clone(), scenario.lacking, deaf_to.clone(), 1);
        let (mut migrated_at, mut records) = (usize::MAX, Vec::new());
        for act in scenario.acts {
            if *act == Act::Migrate {
                migrated_at = fs.core().log.len();
                scene::migrate(&fs);
                continue;
            }
            let boot = Boot::new(fs.clone());
            let first = match act {
                Act::Begin => {
                    boot.begin().unwrap();
                    continue;
                }
                Act::Abort => Some(abort()),
                Act::Commit => Some(commit()),
                Act::Drive | Act::Migrate | Act::Retire => None,
            };
            let mut session = boot.open().unwrap().expect("BUG: a transaction is open");
            if *act == Act::Retire {
                session.retire().unwrap();
                continue;
            }
            let end = session.drive(first.as_ref());
            let end = end.unwrap_or_else(|fault| panic!("{}: {act:?}: {fault}", scenario.name));
            if end == End::Applied {
                promise.new_home = scene::tree(&fs.core().image, scene::HOME);
            }
            records = session.records().to_vec();
        }
        let core = fs.core();
        let line = Line { base, log: core.log.clone(), records, acknowledged: 0, migrated: false };
        let asked = core.asked.iter().cloned().collect();
        drop(core);
        Self { scenario, promise, deaf_to, line, asked, migrated_at }
    }

    /// The crash states of a place in a log.
    pub fn state(&self, line: &Line, walk: &Walk<'_>, choice: usize) -> State {
        let image = walk.build(&walk.fates(choice));
        let own = std::ptr::eq(line, &raw const self.line);
        let migrated = line.migrated || (own && walk.at > self.migrated_at);
        State { image, acknowledged: walk.acknowledged, migrated }
    }

    /// Boots from a crash state, lets kytx recover, and looks at what came of it.
    pub fn recover(&self, line: &Line, state: &State) -> Verdict {
        let draw = Draw(state.fingerprint()).next();
        let records = &line.records[..state.acknowledged];
        let mut verdict = Verdict { cell: cell(None), aborts: false, end: Ok(End::Nothing), stuck: false, line: None };
        if let Err(fault) = self.promise.check_always(&state.image, records) {
            verdict.end = Err(fault);
            return verdict;
        }
        let fs = self.mount(&state.image, draw);
        let boot = Boot::new(fs.clone());
        let mut session = match boot.open() {
            Ok(session) => session,
            Err(fault) => {
                verdict.end = Err(fault);
                verdict.stuck = true;
                return verdict;
            }
        };
        verdict.cell = cell(session.as_ref().map(|session| &session.txn));
        if let Err(fault) = check_journal(session.as_ref().map(Session::records), line, state.acknowledged) {
            verdict.end = Err(fault);
            return verdict;
        }
        let end = match &mut session {
            Some(session) => go_on(session, draw, state.migrated, &mut verdict),
            // Nothing was acknowledged, or a transaction that has ended was put away.
            None => Ok(match records.last() {
                Some(Record::End { outcome }) => End::Ended(*outcome),
                _ => End::Nothing,
            }),
        };
        let line = Line {
            base: state.image.clone(),
            log: fs.core().log.clone(),
            records: session.map_or_else(|| records.to_vec(), |session| session.records().to_vec()),
            acknowledged: 0,
            migrated: state.migrated,
        };
        verdict.end = end.and_then(|end| self.check_end(&fs, &line, end, draw).map(|()| end));
        verdict.line = Some(line);
        verdict
    }

    /// Looks at what kytx says is the end, as it is and as it is if the power goes right now.
    fn check_end(&self, fs: &SimFs, line: &Line, end: End, draw: u64) -> Result<(), Fault> {
        if draw & 24 == 24 {
            self.promise.check_end(&fs.core().image, end, line.migrated)?;
        }
        let mut walk = Walk::new(Model::Strict, &line.base, &line.log, 0);
        while walk.at < line.log.len() {
            walk.step();
        }
        let image = walk.build(&walk.fates(0));
        let checked = self.promise.check_end(&image, end, line.migrated);
        checked.map_err(|fault| format!("after another cut: {fault}"))
    }

    fn mount(&self, image: &Image, draw: u64) -> SimFs {
        // Each boot at a time of its own.
        let boot = 2 + (draw % 1000) as i64;
        SimFs::mount(image.clone(), self.scenario.lacking, self.deaf_to.clone(), boot)
    }

    /// Explores one history: every place, and there the choices that `wants` picks. Each distinct state is judged once.
    pub fn explore(
        &self,
        line: &Line,
        model: Model,
        share: (usize, usize),
        seen: &Mutex<HashSet<u64>>,
        choices: &dyn Fn(&Walk<'_>) -> Vec<usize>,
        tell: &mut dyn FnMut(usize, usize, &State, Verdict),
    ) {
        let mut walk = Walk::new(model, &line.base, &line.log, line.acknowledged);
        while walk.at < line.log.len() {
            if !walk.step() || walk.at % share.1 != share.0 {
                continue;
            }
            for choice in choices(&walk) {
                let state = self.state(line, &walk, choice);
                if !seen.lock().unwrap().insert(state.fingerprint()) {
                    continue;
                }
                let verdict = self.recover(line, &state);
                tell(walk.at, choice, &state, verdict);
            }
        }
    }
}

fn abort() -> Record {
    Record::Abort { reason: AbortReason::Operator }
}

fn commit() -> Record {
    Record::Commit { keep: Vec::new() }
}

/// Resumes or aborts, as is drawn, and now and then commits what was applied.
fn go_on(session: &mut Session<'_>, draw: u64, migrated: bool, verdict: &mut Verdict) -> Result<End, Fault> {
    let phase = session.txn.phase();
    let may_abort = matches!(phase, Phase::Applying | Phase::Applied);
    verdict.aborts = phase == Phase::Aborting || (may_abort && draw & 1 == 1);
    let first = (verdict.aborts && may_abort).then(abort);
    let end = session.drive(first.as_ref());
    match end {
        Ok(End::Applied) if draw & 6 == 6 && !migrated => session.drive(Some(&commit())),
        Err(_) => {
            // The other way, if there is one.
            let other = (may_abort && !verdict.aborts).then(abort);
            verdict.stuck = session.drive(other.as_ref()).is_err();
            end
        }
        end => end,
    }
}

/// I9: what was acknowledged is there, and at most the record that was being written besides.
fn check_journal(found: Option<&[Record]>, line: &Line, acknowledged: usize) -> Result<(), Fault> {
    let Some(found) = found else {
        let over = matches!(line.records[..acknowledged].last(), None | Some(Record::End { .. }));
        return if over { Ok(()) } else { Err(format!("I9: {acknowledged} records are gone")) };
    };
    if found.len() < acknowledged {
        return Err(format!("I9: {} of {acknowledged} acknowledged records are there", found.len()));
    }
    if found.len() > acknowledged + 1 || found[..] != line.records[..found.len().min(line.records.len())] {
        return Err("I9: the records are not those that were written".to_owned());
    }
    Ok(())
}
