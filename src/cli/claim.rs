//! One upgrade a home, wherever its state is kept.
//!
//! `--state-dir` moves the state, and with it the lock that is in it; so a second upgrade of the same home, with another
//! state directory, would meet neither lock nor journal. What keeps them apart belongs to the home: its default place,
//! `<parent>/.kytx/<name>`, which is found by the home's path alone. A run that writes holds the lock there as well as
//! that of its state directory (state directory first, so that contenders for both meet at one), and an upgrade whose
//! state is elsewhere has its claim there from before its first record until after its last:
//!
//! * killed between claim and first record: the state directory has no such journal, and the claim counts for nothing;
//! * killed between last record and removal: the journal has ended, and the claim counts for nothing.
//!
//! So a claim is only ever an address. Whether an upgrade is open, its journal says.

use std::io;
use std::path::Path;

use super::args::WhichArgs;
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::session::{journal_error, lock_error, replay};
use super::standing;
use crate::effect::fs::{Fs, exists};
use crate::effect::lock::RunLock;
use crate::effect::os::{OsFs, real_path};
use crate::effect::tree::make_dirs;
use crate::journal::{OpenError, read};
use crate::raw_path::RawPath;
use crate::state_dir::{Claim, StateDir};
use crate::txn::{Phase, Txn, TxnId};

/// Takes the home's own lock (I8). `None` where it is that of the state directory, which the caller holds.
pub fn lock_home(place: &Place, home: &Path, command: &str) -> Result<Option<RunLock>, CommandError> {
    let own = StateDir::default_for(home);
    make_dirs(&OsFs, own.root(), 0o700).map_err(|error| {
        CommandError::refused("nothing can be created in the directory that holds the home")
            .because(&error)
            .hint("run kytx as a user who may, or change its permissions")
    })?;
    if are_same(&own, &place.state)? {
        return Ok(None);
    }
    let lock = RunLock::take(&OsFs, &own.lock(), &own.holder(), &place.command(command));
    lock.map(Some).map_err(|error| lock_error(&error, place))
}

/// Refuses if an upgrade of this home is open with its state in another place. The caller holds the home's lock.
pub fn check_free(place: &Place, home: &Path) -> Result<(), CommandError> {
    let own = StateDir::default_for(home);
    if let Some(claim) = claim_of(home)? {
        let claimed = StateDir::at(claim.state_dir.as_path().to_owned());
        if !are_same(&claimed, &place.state)? {
            check_ended(place, home, claimed, Some(&claim.transaction))?;
        }
    }
    if are_same(&own, &place.state)? { Ok(()) } else { check_ended(place, home, own, None) }
}

/// Says in the home's default place where the state of this upgrade is; takes the last one's word back where it is in
/// the default place itself. Durable when it returns, and called before the first record is.
pub fn stake(place: &Place, home: &Path, transaction: &TxnId) -> io::Result<()> {
    let own = StateDir::default_for(home);
    if is_same(&own, &place.state)? {
        return own.remove_claim(&OsFs);
    }
    let state_dir = RawPath::from(real_path(place.state.root())?.as_path());
    own.write_claim(&OsFs, &Claim { state_dir, transaction: transaction.clone() })
}

/// Takes the claim of an upgrade that has ended back. A failure is passed over: it counts for nothing any more.
pub fn release(txn: &Txn) {
    let own = StateDir::default_for(txn.header().home.as_path());
    let is_ours = |claim: Claim| claim.transaction == txn.header().txn;
    if own.read_claim(&OsFs).is_ok_and(|claim| claim.is_some_and(is_ours)) {
        let _ = own.remove_claim(&OsFs);
    }
}

/// The place that the arguments mean, for a command on an upgrade that is open: the state is where the claim says, if
/// the operator does not.
pub fn follow(which: &WhichArgs) -> Result<Place, CommandError> {
    let place = Place::of(which)?;
    let (None, Some(home)) = (&which.state_dir, &place.home) else { return Ok(place) };
    let Some(claim) = claim_of(home)? else { return Ok(place) };
    let claimed = StateDir::at(claim.state_dir.as_path().to_owned());
    if exists(&OsFs, claimed.root()).unwrap_or(true) {
        return Ok(place.with_state(claimed));
    }
    Err(gone(home, &claimed))
}

fn claim_of(home: &Path) -> Result<Option<Claim>, CommandError> {
    let own = StateDir::default_for(home);
    own.read_claim(&OsFs).map_err(|error| {
        use io::ErrorKind::{FileTooLarge, InvalidData, UnexpectedEof};
        if !matches!(error.kind(), InvalidData | UnexpectedEof | FileTooLarge) {
            return CommandError::refused("the claim of this home cannot be read")
                .because(&error)
                .state("Nothing was changed.")
                .hint("the same command, once it can be");
        }
        let path = RawPath::from(own.claim().as_path());
        CommandError::new(Exit::Foreign, "nobody can say where the state of this home's upgrade is")
            .because(&error)
            .state("Nothing was changed.")
            .hint("the same with --state-dir DIR, if you know where it is")
            .hint(format!("rm {path}, if no upgrade of this home is open"))
    })
}

/// `transaction` is what the claim names; in the default place, whatever is open there.
fn check_ended(
    place: &Place,
    home: &Path,
    state: StateDir,
    transaction: Option<&TxnId>,
) -> Result<(), CommandError> {
    let there = place.with_state(state);
    let root = RawPath::from(there.state.root());
    if !exists(&OsFs, there.state.root()).unwrap_or(true) {
        return Err(gone(home, &there.state));
    }
    let view = match read(&OsFs, there.state.root()) {
        Err(OpenError::NoJournal { .. }) if !exists(&OsFs, &there.state.spare()).unwrap_or(true) => {
            return Ok(());
        }
        Err(OpenError::NoJournal { .. }) => return Err(unexplained_spare(&there.state)),
        other => other.map_err(|error| {
            journal_error(&error, &there).why(format!("it is that of an upgrade of this home, in `{root}`"))
        })?,
    };
    let txn = replay(view.records(), &there)?;
    let another = transaction.is_some_and(|transaction| txn.header().txn != *transaction);
    if another || matches!(txn.phase(), Phase::Ended(_)) {
        return Ok(());
    }
    let mut error = CommandError::new(Exit::Open, "an upgrade of this home is open already")
        .why(format!("its state is in `{root}`; new work is not started on top of an unfinished one"))
        .state(standing::sentence(&txn));
    error.hints = standing::next_commands(&txn, &there);
    Err(error)
}

/// A spare tree without a journal may be the only copy of a home.
pub fn unexplained_spare(state: &StateDir) -> CommandError {
    CommandError::new(Exit::Foreign, "there is a spare tree, but no journal that explains it")
        .why(format!("`{}` may be the only copy of a home", RawPath::from(state.spare().as_path())))
        .state("Nothing was changed.")
        .hint("find out whose it is, and move it away")
}

fn gone(home: &Path, claimed: &StateDir) -> CommandError {
    let claim = StateDir::default_for(home).claim();
    let root = RawPath::from(claimed.root());
    CommandError::new(Exit::Foreign, "the state directory of this home's upgrade is gone")
        .why(format!("`{}` says that it is `{root}`, and nothing is there", RawPath::from(claim.as_path())))
        .state("Nothing was changed.")
        .hint(format!("put `{root}` back, or mount what holds it"))
        .hint(format!("rm {}, if you took it away to end the upgrade", RawPath::from(claim.as_path())))
}

/// Whether two names mean one directory. One that is not there is none; of one that cannot be looked at nobody can say,
/// and taken for another it would have its lock taken twice.
fn is_same(a: &StateDir, b: &StateDir) -> io::Result<bool> {
    let place = |state: &StateDir| match real_path(state.root()).and_then(|path| OsFs.stat(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    Ok(place(a)?.zip(place(b)?).is_some_and(|(a, b)| (a.dev, a.ino) == (b.dev, b.ino)))
}

/// The same for a command.
fn are_same(a: &StateDir, b: &StateDir) -> Result<bool, CommandError> {
    is_same(a, b).map_err(|error| {
        CommandError::refused(format!(
            "the state directory `{}` cannot be looked at",
            RawPath::from(b.root())
        ))
        .because(&error)
        .state("Nothing was changed.")
        .hint("the same command, once it can be")
    })
}
