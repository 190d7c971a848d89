//! A run on an open transaction: the lock, the orphans, the journal, the machine.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claim;
use super::cluster_lock;
use super::error::CommandError;
use super::exit::Exit;
use super::place::{Place, quoted};
use super::progress::Meter;
use super::standing;
use super::terminal::tell;
use crate::effect::doom::{DoomedFs, DoomedShell};
use crate::effect::lock::{LockError, RunLock};
use crate::effect::os::OsFs;
use crate::effect::run_log::RunLog;
use crate::effect::shell::{OsShell, orphan_lock_held, orphans};
use crate::effect::signal::StopRequests;
use crate::hadoop::local::LocalHdfs;
use crate::journal::{OpenError, Opened, Repair, Store};
use crate::kyligence::secrets::mask_text;
use crate::mutate::Machine;
use crate::raw_path::RawPath;
use crate::txn::{Phase, Record, Txn};

/// How long to wait for programs that an earlier kytx left running. A metadata restore takes minutes.
const ORPHAN_LIMIT: Duration = Duration::from_hours(1);

/// So much of a command line is shown.
const SHOWN_CHARS: usize = 200;

/// An open transaction, held alone.
pub struct Session {
    /// Held until the end of the run (I8).
    _locks: Locks,
    /// The journal.
    pub store: Store<'static>,
    /// The transaction.
    pub txn: Txn,
    /// Whether kytx was asked to stop.
    pub stop: StopRequests,
    /// Whether the opening completed the last record, which `status` could not see yet.
    completed: bool,
}

/// What a run that writes holds.
pub struct Locks {
    _state: RunLock,
    /// `None` where the state directory is the home's default place.
    _home: Option<RunLock>,
}

/// Takes the state directory's lock, then the home's own. I8: before the journal is opened, and until the process ends.
pub fn lock(place: &Place, home: &Path, command: &str) -> Result<Locks, CommandError> {
    let state = lock_state(place, command)?;
    Ok(Locks { _state: state, _home: claim::lock_home(place, home, command)? })
}

fn lock_state(place: &Place, command: &str) -> Result<RunLock, CommandError> {
    let state = &place.state;
    RunLock::take(&OsFs, &state.lock(), &state.holder(), &place.command(command))
        .map_err(|error| lock_error(&error, place))
}

/// What a lock that cannot be had means to the operator.
pub fn lock_error(error: &LockError, place: &Place) -> CommandError {
    match error {
        LockError::Held(holder) => CommandError::new(Exit::Locked, "another kytx is at work")
            .why(holder.as_ref().map_or_else(|| "it has not said yet who it is".to_owned(), ToString::to_string))
            .state("This command did nothing. Removing the lock file is always wrong: it is let go when that process ends.")
            .hint(place.command("status")),
        LockError::Io { source, .. } => {
            CommandError::refused(error.to_string()).because(source)
                .hint("run kytx as the user that began the upgrade")
        }
    }
}

/// Waits until no program that an earlier kytx started in the foreground is left.
pub fn wait_for_orphans(place: &Place, stop: &StopRequests) -> Result<(), CommandError> {
    let child = place.state.child();
    let fault = |error: io::Error| {
        CommandError::refused("cannot look for programs of an earlier run")
            .because(&error)
            .hint(place.command("status"))
    };
    let begun = Instant::now();
    let mut told = false;
    while orphan_lock_held(&child).map_err(fault)? {
        let who: Vec<String> = orphans(&child).into_iter().map(orphan_line).collect();
        if !told {
            told = true;
            tell(&format!("waiting for a program that an earlier kytx started: {}", who.join("; ")));
        }
        if stop.count() > 0 || begun.elapsed() > ORPHAN_LIMIT {
            let mut error =
                CommandError::new(Exit::Locked, "a program that an earlier kytx started is still at work");
            error.why = who;
            return Err(error
                .state("This command did nothing.")
                .hint(format!("{}, once that program has ended", place.command("resume"))));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A process, with the beginning of its command line: that of a Java program has kilobytes of class path.
fn orphan_line((pid, what): (i32, String)) -> String {
    let shown: String = what.chars().take(SHOWN_CHARS).collect();
    let rest = if shown.len() < what.len() { " ..." } else { "" };
    format!("process {pid}: {shown}{rest}")
}

/// Listens to signals, and says what the first one means.
pub fn listen() -> StopRequests {
    let told = |count| match count {
        1 => tell(
            "kytx: stopping at the next safe point; once more passes the signal on to the running program",
        ),
        _ => tell("kytx: passing the signal on"),
    };
    StopRequests::listen(told).unwrap_or_else(|_| StopRequests::none())
}

fn begin_words(place: &Place) -> String {
    place.command("begin").replacen(" begin", " begin --package FILE", 1)
}

/// What an unreadable journal means to the operator.
pub fn journal_error(error: &OpenError, place: &Place) -> CommandError {
    if matches!(error, OpenError::NoJournal { .. }) {
        return CommandError::new(Exit::NotOpen, "no upgrade is open here")
            .because(error)
            .state("Nothing was changed.")
            .hint(begin_words(place));
    }
    if error.is_full() {
        return CommandError::new(Exit::Open, "the disk is full")
            .because(error)
            .state(
                "Nothing was changed. The old release, the new release and all backups are where they were.",
            )
            .hint(format!("free space on the file system of `{}`", place.state.root().display()))
            .hint(place.command("status"));
    }
    let exit = if error.is_unreadable() {
        Exit::Journal
    } else if matches!(error, OpenError::Busy { .. }) {
        Exit::Locked
    } else {
        Exit::Fault
    };
    CommandError::new(exit, "the journal cannot be used")
        .because(error)
        .state("Nothing was changed. The old release, the new release and all backups are where they were.")
        .hint(format!("keep `{}` as it is, and see journal-format.md", place.state.root().display()))
}

impl Session {
    /// Opens the transaction of a place.
    pub fn open(place: &Place, command: &str) -> Result<Self, CommandError> {
        let state = &place.state;
        if !crate::effect::fs::exists(&OsFs, state.root()).unwrap_or(false) {
            return Err(CommandError::new(Exit::NotOpen, "no upgrade is open here")
                .why(format!("there is no state directory `{}`", state.root().display()))
                .state("Nothing was changed.")
                .hint(begin_words(place)));
        }
        let state = lock_state(place, command)?;
        let stop = listen();
        wait_for_orphans(place, &stop)?;
        let open =
            if command == "abort" || is_past_turning(place) { Store::open_for_return } else { Store::open };
        let opened = open(&OsFs, place.state.root()).map_err(|error| unopened(&error, place))?;
        let (store, txn, completed) = told(opened, place)?;
        let home = the_home(place, &txn)?;
        let locks = Locks { _state: state, _home: claim::lock_home(place, home, command)? };
        if matches!(txn.phase(), Phase::Ended(_)) {
            // The run that ended it may have been killed before it did this.
            finish(place, &txn);
            cluster_lock::release_leftover(place, &txn, &stop);
        }
        Ok(Self { _locks: locks, store, txn, stop, completed })
    }

    /// Wraps a transaction that was just made.
    pub fn new(locks: Locks, store: Store<'static>, txn: Txn, stop: StopRequests) -> Self {
        Self { _locks: locks, store, txn, stop, completed: false }
    }

    /// Whether the transaction ended in this very opening: a kill had cut its last record short, so whoever typed the
    /// command was told that it was open, and has now been served.
    pub fn ended_now(&self) -> bool {
        self.completed && matches!(self.txn.phase(), Phase::Ended(_))
    }

    /// Tells where the transaction stands, in one sentence.
    pub fn tell(&self) {
        tell(&standing::sentence(&self.txn));
    }
}

/// The home of the transaction, which must be the one that was named: a state directory knows its own.
fn the_home<'a>(place: &Place, txn: &'a Txn) -> Result<&'a Path, CommandError> {
    let home = &txn.header().home;
    match &place.home {
        Some(named) if named.as_path() != home.as_path() => Err(CommandError::usage(format!(
            "the state directory `{}` is that of another home",
            RawPath::from(place.state.root())
        ))
        .why(format!("its upgrade is one of `{home}`, and `{}` was named", RawPath::from(named.as_path())))
        .hint(format!("kytx status {home} --state-dir {}", quoted(place.state.root().as_os_str())))),
        _ => Ok(home.as_path()),
    }
}

/// Whether there is but one way left, which must work on a full disk. Only looked at: the opening decides what is true.
fn is_past_turning(place: &Place) -> bool {
    let view = crate::journal::read(&OsFs, place.state.root());
    let txn = view.ok().and_then(|view| Txn::replay(view.records()).ok().flatten());
    txn.is_some_and(|txn| txn.phase().is_past_turning())
}

/// Opens the journal, tells what had to be repaired, and folds its records. The last value says whether the last
/// record had to be completed.
pub fn open_journal(place: &Place) -> Result<(Store<'static>, Txn, bool), CommandError> {
    told(Store::open(&OsFs, place.state.root()).map_err(|error| journal_error(&error, place))?, place)
}

/// What to type where there is a transaction whose journal does not open.
fn unopened(error: &OpenError, place: &Place) -> CommandError {
    let made = journal_error(error, place);
    if !error.is_full() {
        return made;
    }
    made.hint(place.command("resume")).hint(format!("{}, which needs no room", place.command("abort")))
}

fn told(opened: Opened<'static>, place: &Place) -> Result<(Store<'static>, Txn, bool), CommandError> {
    for repair in &opened.repairs {
        tell(&format!("kytx: {repair}"));
    }
    let txn = replay(opened.records.iter().map(|(_, record)| record), place)?;
    let completed = |repair: &Repair| matches!(repair, Repair::TwinCompleted { .. });
    let completed = opened.repairs.iter().any(completed);
    Ok((opened.store, txn, completed))
}

/// Folds the records of a journal.
pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>, place: &Place) -> Result<Txn, CommandError> {
    let senseless = || {
        CommandError::new(Exit::Journal, "the journal makes no sense")
            .state("Nothing was changed.")
            .hint(format!("keep `{}` as it is, and see journal-format.md", place.state.root().display()))
    };
    Txn::replay(records)
        .map_err(|illegal| senseless().because(&illegal))?
        .ok_or_else(|| senseless().why("it is empty"))
}

/// Removes what a transaction that has ended leaves: contents that may hold secrets, and its claim on the home. A
/// failure is passed over: the next `begin` tries again.
pub fn finish(place: &Place, txn: &Txn) {
    forget_contents(place);
    claim::release(txn);
}

/// Removes what may hold secrets once no transaction can need it. A failure is told and ends nothing: the next `begin`
/// tries again.
pub fn forget_contents(place: &Place) {
    if let Err(error) = place.state.remove_contents(&OsFs) {
        let dir = RawPath::from(place.state.plan());
        tell(&format!("kytx: edited files, which may hold passwords, are still in `{dir}`: {error}"));
    }
}

/// Makes the machine that mutations act on, for the length of a piece of work.
///
/// # Errors
/// The state directory cannot be used, and no work was done.
pub fn with_machine<T>(
    place: &Place,
    command: &str,
    stop: &StopRequests,
    meter: &Meter,
    work: impl FnOnce(&mut Machine<'_>) -> T,
) -> io::Result<T> {
    let state = &place.state;
    state.prepare(&OsFs)?;
    let log = RunLog::create(&state.log(), command).unwrap_or_else(|error| {
        tell(&format!("kytx: this run keeps no log: {error}"));
        RunLog::none()
    });
    let shell = OsShell::new(state.child(), &log, mask_text, stop.clone());
    let stop_requested = || stop.count() > 0;
    if let Some(doomed) = &place.doomed {
        let (fs, shell) =
            (DoomedFs(Arc::clone(&doomed.doom)), DoomedShell { shell: &shell, doom: &doomed.doom });
        let hdfs = LocalHdfs::new(&fs);
        return Ok(work(&mut Machine::new(&fs, &shell, &hdfs, state, meter, &stop_requested)));
    }
    let hdfs = LocalHdfs::new(&OsFs);
    Ok(work(&mut Machine::new(&OsFs, &shell, &hdfs, state, meter, &stop_requested)))
}
