//! kytx on the simulated machine: the commands as they are, and what every end must look like.

use kytx::effect::fs::Timestamp;
use kytx::engine::{Control, DriveError, Rest, drive, record};
use kytx::hadoop::local::LocalHdfs;
use kytx::journal::{Journal, JournalError, OpenError, Store};
use kytx::mutate::{Machine, Progress};
use kytx::txn::{Action, Header, Lsn, Outcome, Phase, Record, Step, Txn, TxnId, plan_digest};

use crate::disk::Op;
use crate::product::SimShell;
use crate::scene::{self, HOME, TXN};
use crate::sim_fs::SimFs;
use crate::support::census::Cell;
use crate::table::SimTables;

/// Nobody looks on.
struct Silent;

impl Progress for Silent {
    fn bytes(&self, _: u64) {}
    fn total(&self, _: u64) {}
    fn say(&self, _: &str) {}
}

/// A journal that tells the log of the disk which records are acknowledged.
struct Noting<'a> {
    store: Store<'a>,
    fs: &'a SimFs,
    records: Vec<Record>,
}

impl Journal for Noting<'_> {
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        let lsn = self.store.append(record)?;
        self.records.push(record.clone());
        acknowledge(self.fs, self.records.len());
        Ok(lsn)
    }
}

fn acknowledge(fs: &SimFs, count: usize) {
    fs.core().log.push((Op::Acknowledged(count), Timestamp::default()));
}

/// Why a run came to no good end.
pub type Fault = String;

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> Fault {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// How a transaction rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// There is no journal.
    Nothing,
    /// The operator must decide.
    Applied,
    /// It is over.
    Ended(Outcome),
}

impl End {
    /// In a word, as the census counts it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing open",
            Self::Applied | Self::Ended(Outcome::Committed) => "new",
            Self::Ended(Outcome::Aborted) => "old",
        }
    }
}

/// One boot of the machine.
pub struct Boot {
    /// The file system.
    pub fs: SimFs,
    tables: SimTables,
}

impl Boot {
    /// A machine that has just come up.
    pub fn new(fs: SimFs) -> Self {
        Self { tables: SimTables(fs.clone()), fs }
    }

    /// Opens the journal; nothing if there is none.
    pub fn open(&self) -> Result<Option<Session<'_>>, Fault> {
        let opened = match Store::open_over(&self.fs, &self.tables, scene::state().root()) {
            Ok(opened) => opened,
            Err(OpenError::NoJournal { .. }) => return Ok(None),
            Err(error) => return Err(format!("the journal does not open: {}", chain(&error))),
        };
        let records: Vec<Record> = opened.records.into_iter().map(|(_, record)| record).collect();
        acknowledge(&self.fs, records.len());
        let txn = Txn::replay(&records).map_err(|error| chain(&error))?.expect("BUG: never empty");
        Ok(Some(Session { journal: Noting { store: opened.store, fs: &self.fs, records }, txn }))
    }

    /// `kytx begin`, up to the sealed plan.
    pub fn begin(&self, plan: impl FnOnce(&SimFs) -> Vec<Step>) -> Result<Session<'_>, Fault> {
        let state = scene::state();
        state.prepare(&self.fs).map_err(|error| chain(&error))?;
        let steps = plan(&self.fs);
        let first = Record::Begin(header());
        let store = Store::create_over(&self.fs, &self.tables, state.root(), &first)
            .map_err(|error| chain(&error))?;
        acknowledge(&self.fs, 1);
        let mut txn = Txn::begin(&first).expect("BUG: a header begins a transaction");
        let sealed = Record::Sealed { steps: steps.len() as u16, plan: plan_digest(&steps) };
        let mut journal = Noting { store, fs: &self.fs, records: vec![first] };
        for next in steps.into_iter().map(Record::Planned).chain([sealed]) {
            record(&mut txn, &mut journal, &next).map_err(|error| chain(&error))?;
        }
        Ok(Session { journal, txn })
    }
}

/// A transaction in the hands of a kytx.
pub struct Session<'a> {
    journal: Noting<'a>,
    /// The transaction.
    pub txn: Txn,
}

impl Session<'_> {
    /// Every record that is acknowledged.
    pub fn records(&self) -> &[Record] {
        &self.journal.records
    }

    /// Appends a record if one is given, and drives until the transaction rests.
    pub fn drive(&mut self, first: Option<&Record>) -> Result<End, Fault> {
        match self.drive_on(first).map_err(|error| chain(&error))? {
            Rest::Applied => Ok(End::Applied),
            Rest::Ended(outcome) => Ok(End::Ended(outcome)),
            other => Err(format!("it came to rest as {other:?}")),
        }
    }

    fn drive_on(&mut self, first: Option<&Record>) -> Result<Rest, DriveError> {
        if let Some(first) = first {
            record(&mut self.txn, &mut self.journal, first)?;
        }
        let fs = self.journal.fs;
        let (shell, hdfs, state) = (SimShell(fs.clone()), LocalHdfs::new(fs), scene::state());
        let never = || false;
        let mut machine = Machine::new(fs, &shell, &hdfs, &state, &Silent, &never);
        // One thread: the order of calls is then the same in every run.
        machine.threads = 1;
        let mut control =
            Control { stop_before: None, stop_requested: &never, watch: &mut |_: &Txn, _: &_| {} };
        drive(&mut self.txn, &mut self.journal, &mut machine, &mut control)
    }

    /// What the next `begin` does with the journal of a transaction that has ended.
    pub fn retire(self) -> Result<(), Fault> {
        self.journal.store.retire(&scene::state().history().join(TXN)).map_err(|error| chain(&error))
    }
}

fn header() -> Header {
    Header {
        txn: TxnId(TXN.to_owned()),
        kytx: "0.1.0".to_owned(),
        began_unix_s: 0,
        home: HOME.into(),
        old_version: "3.4.5".to_owned(),
        new_version: "3.4.6".to_owned(),
        package: "package".into(),
        user: "kylin".to_owned(),
        host: "node1".to_owned(),
        overrides: Vec::new(),
    }
}

/// Where a crash fell, as the journal tells after it.
pub fn cell(txn: Option<&Txn>) -> Cell {
    let phase = match txn.map(Txn::phase) {
        None => "no journal",
        Some(Phase::Planning) => "planning",
        Some(Phase::Applying) => "applying",
        Some(Phase::Applied) => "applied",
        Some(Phase::Aborting) => "aborting",
        Some(Phase::Committing) => "committing",
        Some(Phase::Ended(_)) => "ended",
    };
    let (step, window) = match txn.map(|txn| (txn, txn.next())) {
        Some((txn, Action::Intend { step, .. })) => (txn.step(step), "before intent"),
        Some((txn, Action::Drive { step, .. })) => (txn.step(step), "before outcome"),
        _ => (None, ""),
    };
    Cell {
        phase: phase.to_owned(),
        step: step.map(|step| step.name.clone()).unwrap_or_default(),
        window: window.to_owned(),
        accident: "simulated power cut".to_owned(),
    }
}
