//! Crash points, choices, recoveries: the exploration of one history, and of histories that begin in its crashes.

use kytx::txn::{AbortReason, Phase, Record};

use crate::crash::{Draw, Model, Walk};
use crate::disk::{Image, Op};
use crate::promise::Promise;
use crate::run::{Boot, End, Fault, Session, cell};
use crate::scene;
use crate::sim_fs::{Lacking, Logged, Place, SimFs};
use crate::support::census::Cell;

/// What is done on the machine, boot by boot, when no power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Begin,
    /// The journal is opened, and no more.
    Open,
    Drive,
    /// The new release is started by the operator, and changes data.
    Migrate,
    Abort,
    Commit,
    Retire,
    /// A place of the journal loses its last bytes, or altogether, for good.
    Damage(&'static str),
    Lose(&'static str),
}

/// A history, by name.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Whether it is about the journal alone.
    pub is_bare: bool,
    lacking: Lacking,
    acts: &'static [Act],
}

const OLD_KERNEL: Lacking = Lacking { exchange: true, sync_fs: true };
const NEW_KERNEL: Lacking = Lacking { exchange: false, sync_fs: false };

use Act::{Abort, Begin, Commit, Damage, Drive, Lose, Migrate, Open, Retire};

const fn full(name: &'static str, lacking: Lacking, acts: &'static [Act]) -> Scenario {
    Scenario { name, is_bare: false, lacking, acts }
}

const fn bare(name: &'static str, acts: &'static [Act]) -> Scenario {
    Scenario { name, is_bare: true, lacking: OLD_KERNEL, acts }
}

/// All histories.
pub const SCENARIOS: [Scenario; 6] = [
    full("upgrade", NEW_KERNEL, &[Begin, Drive, Commit, Retire]),
    full("abort", NEW_KERNEL, &[Begin, Drive, Migrate, Abort, Retire]),
    full("upgrade-by-renames", OLD_KERNEL, &[Begin, Drive, Commit]),
    full("abort-by-renames", OLD_KERNEL, &[Begin, Drive, Migrate, Abort]),
    bare("journal", &[Begin, Open, Drive, Commit, Retire]),
    bare(
        "journal-repairs",
        &[
            Begin,
            Damage("journal.log"),
            Open,
            Damage("journal/db"),
            Open,
            Lose("journal.log"),
            Drive,
            Lose("journal"),
            Commit,
            Damage("journal/conf"),
            Retire,
        ],
    ),
];

impl Scenario {
    /// Whether kernel and file system can do everything.
    pub fn is_new_kernel(&self) -> bool {
        self.lacking == NEW_KERNEL
    }
}

/// A history that was run to its end, and everything that its crashes are judged by.
pub struct History {
    pub scenario: Scenario,
    promise: Promise,
    /// Requests from these places are swallowed.
    deaf_to: Vec<Place>,
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
    pub acknowledged: usize,
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

impl Verdict {
    fn new() -> Self {
        Self { cell: cell(None), aborts: false, end: Ok(End::Nothing), stuck: false, line: None }
    }
}

impl History {
    /// Runs a history without a crash.
    pub fn run(scenario: Scenario, deaf_to: Vec<Place>) -> Self {
        let base =
            if scenario.is_bare { scene::build_bare() } else { scene::build(scenario.is_new_kernel()) };
        let mut promise = Promise::of(&base);
        let fs = SimFs::mount(base.clone(), scenario.lacking, deaf_to.clone(), 1);
        let (mut migrated_at, mut records) = (usize::MAX, Vec::new());
        for act in scenario.acts {
            let boot = Boot::new(fs.clone());
            let open = || boot.open().unwrap().expect("BUG: a transaction is open");
            let first = match act {
                Begin => {
                    boot.begin(if scenario.is_bare { |_: &SimFs| scene::bare_plan() } else { scene::plan })
                        .unwrap();
                    continue;
                }
                Migrate => {
                    migrated_at = fs.core().log.len();
                    scene::migrate(&fs);
                    continue;
                }
                Damage(name) | Lose(name) => {
                    scene::spoil(&fs, name, matches!(act, Damage(_)));
                    continue;
                }
                Open => {
                    open();
                    continue;
                }
                Retire => {
                    open().retire().unwrap();
                    continue;
                }
                Abort => Some(abort()),
                Commit => Some(commit()),
                Drive => None,
            };
            let mut session = open();
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

    /// The names of the plan's steps.
    pub fn steps(&self) -> Vec<String> {
        let name = |record: &Record| match record {
            Record::Planned(step) => Some(step.name.clone()),
            _ => None,
        };
        self.line.records.iter().filter_map(name).collect()
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
        let records = &line.records[..state.acknowledged];
        if let Err(fault) = self.promise.check_always(&state.image, records) {
            return Verdict { end: Err(fault), ..Verdict::new() };
        }
        let draw = Draw(state.fingerprint()).next();
        let fs =
            SimFs::mount(state.image.clone(), self.scenario.lacking, self.deaf_to.clone(), boot_of(draw));
        self.go_on(&fs, &state.image, line, state.acknowledged, state.migrated, draw)
    }

    /// kytx is killed at a place in the log, the power stays, and another kytx goes on: with what the first one left on
    /// its way to the medium. `aborts` says which way, where there are two.
    pub fn kill(&self, line: &Line, at: usize, aborts: bool) -> Verdict {
        let before = |entry: &&Logged| matches!(entry.0, Op::Acknowledged(_));
        let acknowledged = match line.log[..at].iter().rev().find(before) {
            Some((Op::Acknowledged(count), _)) => *count,
            _ => line.acknowledged,
        };
        let draw = Draw(at as u64).next() & !1 | u64::from(aborts);
        let (lacking, deaf_to) = (self.scenario.lacking, self.deaf_to.clone());
        let fs = SimFs::revive(&line.base, &line.log[..at], lacking, deaf_to, boot_of(draw));
        self.go_on(&fs, &line.base, line, acknowledged, line.migrated || at > self.migrated_at, draw)
    }

    fn go_on(
        &self,
        fs: &SimFs,
        base: &Image,
        line: &Line,
        acknowledged: usize,
        migrated: bool,
        draw: u64,
    ) -> Verdict {
        let records = &line.records[..acknowledged];
        let mut verdict = Verdict::new();
        let boot = Boot::new(fs.clone());
        let mut session = match boot.open() {
            Ok(session) => session,
            Err(fault) => return Verdict { end: Err(fault), stuck: true, ..verdict },
        };
        verdict.cell = cell(session.as_ref().map(|session| &session.txn));
        if let Err(fault) = check_journal(session.as_ref().map(Session::records), line, acknowledged) {
            return Verdict { end: Err(fault), ..verdict };
        }
        let end = match &mut session {
            Some(session) => finish(session, draw, migrated, &mut verdict),
            // Nothing was acknowledged, or a transaction that has ended was put away.
            None => Ok(match records.last() {
                Some(Record::End { outcome }) => End::Ended(*outcome),
                _ => End::Nothing,
            }),
        };
        let line = Line {
            base: base.clone(),
            log: fs.core().log.clone(),
            records: session.map_or_else(|| records.to_vec(), |session| session.records().to_vec()),
            acknowledged: if std::ptr::eq(base, &raw const line.base) {
                line.acknowledged
            } else {
                acknowledged
            },
            migrated,
        };
        verdict.end = end.and_then(|end| self.check_end(fs, &line, end, draw).map(|()| end));
        verdict.line = Some(line);
        verdict
    }

    /// Looks at what kytx says is the end, as it is and as it is if the power goes right now.
    fn check_end(&self, fs: &SimFs, line: &Line, end: End, draw: u64) -> Result<(), Fault> {
        if (draw >> 3).is_multiple_of(4) {
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
}

/// Each boot is at a time of its own.
fn boot_of(draw: u64) -> i64 {
    2 + (draw % 1000) as i64
}

fn abort() -> Record {
    Record::Abort { reason: AbortReason::Operator }
}

fn commit() -> Record {
    Record::Commit { keep: Vec::new() }
}

/// Resumes or aborts, as is drawn, and now and then commits what was applied.
fn finish(session: &mut Session<'_>, draw: u64, migrated: bool, verdict: &mut Verdict) -> Result<End, Fault> {
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
