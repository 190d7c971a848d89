//! One upgrade an instance, from whatever host: who has the lock that lies beside the cube data.
//!
//! It is taken at the beginning of every run that drives a transaction, and let go when the transaction has ended. Where it
//! is was written into the state directory before the first record, so every later run finds it whatever has become of
//! the home meanwhile, and whether it is held is known without a cluster.
//!
//! *Crash windows.* Killed between plan and lock: the transaction is open and has begun no step; the next run takes the
//! lock, or aborts without one. Killed between the last record and the release: the next command on this home finds an
//! ended transaction that holds it still, and lets it go.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::cube::{ATOMIC, OWN_DIR};
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::progress::Meter;
use super::session::with_machine;
use super::standing;
use super::terminal::tell;
use crate::effect::fs::{Fs, exists, read_file};
use crate::effect::lock::{RunLock, boot_id, start_ticks, user_name};
use crate::effect::os::{OsFs, host_name};
use crate::effect::signal::StopRequests;
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of};
use crate::hadoop::cluster::Cluster;
use crate::hadoop::lock::{
    ClusterLock, Holder, LocalLock, LockPlace, LockRefusal, release as let_go, take as take_lock,
};
use crate::hadoop::scheme;
use crate::journal::read;
use crate::kyligence::home::Home;
use crate::mutate::Machine;
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;
use crate::txn::{Mutation, Phase, StepState, Txn, TxnId};

/// Where the lock may be, and where it is held, as the state directory has it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The directories in which it may be, the first that can be used being right.
    places: Vec<RawPath>,
    /// The one in which this transaction has asked for it: something of its own may be there.
    asked: Option<RawPath>,
    /// Whether it has taken it there.
    held: bool,
}

/// The longest that is read back.
const KEPT_LIMIT_BYTES: u64 = 64 << 10;

impl Kept {
    fn path(state: &StateDir, txn: &TxnId) -> PathBuf {
        state.backup().join(&txn.0).join("lock.json")
    }

    fn read(state: &StateDir, txn: &TxnId) -> io::Result<Option<Self>> {
        let path = Self::path(state, txn);
        if !exists(&OsFs, &path).context("look at", &path)? {
            return Ok(None);
        }
        let text = read_file(&OsFs, &path, KEPT_LIMIT_BYTES).context("read", &path)?;
        serde_json::from_slice(&text).map(Some).map_err(io::Error::from).context("understand", &path)
    }

    fn write(&self, state: &StateDir, txn: &TxnId) -> io::Result<()> {
        let path = Self::path(state, txn);
        make_dirs(&OsFs, parent_of(&path), 0o700)?;
        let text = serde_json::to_vec(self).expect("BUG: plain data has a JSON form");
        atomic_write(&OsFs, &path, &text, 0o600)
    }

    fn remove(state: &StateDir, txn: &TxnId) -> io::Result<()> {
        let path = Self::path(state, txn);
        OsFs.unlink(&path).context("remove", &path)?;
        let fs: &dyn Fs = &OsFs;
        fs.sync_dir(parent_of(&path)).context("sync", parent_of(&path))
    }
}

/// Where the lock of a home's instance may be: beside its folder if this user may write there, else in the directory that
/// was given for kytx; there alone if the copy is to hold everything beside that folder. None for an instance whose folder
/// is not known, or whose file system has no rename that tells contenders apart.
fn places(home: &Home, asked: Asked<'_>) -> Vec<RawPath> {
    let Ok(working_dir) = home.working_dir() else { return Vec::new() };
    let Some(instance) = working_dir.instance.map(|instance| RawPath::from(instance.as_str())) else {
        return Vec::new();
    };
    let shared = RawPath::from(working_dir.shared.as_str()).join(&OWN_DIR.into());
    let given = asked.hdfs_root.map(RawPath::from);
    let roots = [(!asked.whole_working_dir).then_some(shared), given];
    let fits =
        |root: &RawPath| scheme(root).is_none_or(|scheme| scheme == "file" || ATOMIC.contains(&scheme));
    let below = |root: RawPath| root.join(&"lock".into()).join(&RawPath::new(instance.file_name()));
    let mut places: Vec<RawPath> = roots.into_iter().flatten().filter(fits).map(below).collect();
    places.dedup();
    places
}

/// What was asked for that bears on where the lock is.
#[derive(Clone, Copy, Default)]
pub struct Asked<'a> {
    /// `--hdfs-root`.
    pub hdfs_root: Option<&'a Path>,
    /// `--whole-working-dir`.
    pub whole_working_dir: bool,
}

/// Writes down where the lock will be, before the first record.
pub fn prepare(place: &Place, txn: &TxnId, home: &Path, asked: Asked<'_>) -> io::Result<()> {
    let Ok(home) = Home::recognise(&OsFs, home) else { return Ok(()) };
    let places = places(&home, asked);
    if places.is_empty() { Ok(()) } else { Kept { places, ..Kept::default() }.write(&place.state, txn) }
}

/// Whether an upgrade touches what the instance's homes share. That of a cluster's secondary node does not, and must not
/// wait for the primary's, which has the lock until it is committed.
fn shares(txn: &Txn) -> bool {
    txn.steps().iter().any(|step| matches!(step.mutation, Mutation::HandOverData { .. }))
}

fn is_untouched(txn: &Txn) -> bool {
    txn.ids().all(|id| txn.state(id) == StepState::Pending)
}

/// Takes the lock for a run. Nothing to do where there is none, or where nothing was touched and nothing will be.
pub fn take(place: &Place, txn: &Txn, machine: &Machine<'_>) -> Result<(), CommandError> {
    let state = &place.state;
    let id = &txn.header().txn;
    let fault = |error: io::Error| refusal(place, txn, "the state directory cannot be used").because(&error);
    if !shares(txn)
        || is_untouched(txn) && matches!(txn.phase(), Phase::Planning | Phase::Aborting | Phase::Ended(_))
    {
        return Ok(());
    }
    let mut kept = if let Some(kept) = Kept::read(state, id).map_err(fault)? {
        kept
    } else {
        prepare(place, id, txn.header().home.as_path(), Asked::default()).map_err(fault)?;
        Kept::read(state, id).map_err(fault)?.unwrap_or_default()
    };
    let me = myself(place, txn);
    let places = match &kept.asked {
        Some(dir) if kept.held => vec![dir.clone()],
        _ => kept.places.clone(),
    };
    let cluster = Cluster::new(machine.shell, state.root());
    for (at, dir) in places.iter().enumerate() {
        let asked_before = kept.asked.as_ref() == Some(dir);
        if !asked_before {
            kept.asked = Some(dir.clone());
            kept.write(state, id).map_err(fault)?;
        }
        let lock = lock_at(&cluster, dir, state, id);
        let mut taken = take_lock(lock.as_ref(), &me, &is_gone);
        if let Err(LockRefusal::Held(holder)) = &taken
            && let Some(_alone) = is_over(holder)
        {
            let_go(lock.as_ref(), &holder.transaction).map_err(|refused| {
                refusal(
                    place,
                    txn,
                    &format!("the lock `{dir}` of an upgrade that has ended cannot be let go"),
                )
                .because(&refused)
            })?;
            taken = take_lock(lock.as_ref(), &me, &is_gone);
        }
        match taken {
            Ok(_) if kept.held => return Ok(()),
            Ok(_) => {
                kept.held = true;
                return kept.write(state, id).map_err(fault);
            }
            Err(LockRefusal::Held(holder)) => {
                if !asked_before {
                    // Nothing of its own is there: an earlier run that was killed has left nothing either.
                    Kept { asked: None, held: false, ..kept }.write(state, id).map_err(fault)?;
                }
                return Err(held(txn, dir, &holder));
            }
            Err(refused) if refused.is_denied() && at + 1 < places.len() => {}
            // It is this transaction's, whoever cannot be asked just now: nobody else can take it either.
            Err(refused) if kept.held => {
                tell(&format!("kytx: the lock `{dir}` cannot be looked at: {refused}"));
            }
            Err(refused) => {
                return Err(
                    refusal(place, txn, &format!("the lock `{dir}` cannot be taken")).because(&refused)
                );
            }
        }
    }
    Ok(())
}

/// Lets the lock go, once the transaction has ended. A failure is told: the next command on this home tries again.
pub fn release(place: &Place, txn: &Txn, machine: &Machine<'_>) {
    let state = &place.state;
    let id = &txn.header().txn;
    let kept = match Kept::read(state, id) {
        Ok(Some(kept)) => kept,
        Ok(None) => return,
        Err(error) => {
            return tell(&format!(
                "kytx: the lock of this upgrade could not be looked for: {error}\n  type:  {}, which tries again",
                place.command("resume")
            ));
        }
    };
    let cluster = Cluster::new(machine.shell, state.root());
    let let_go = |dir: &RawPath| {
        let lock = lock_at(&cluster, dir, state, id);
        // Once more, as what fails once may be over, and letting go can be done again.
        let_go(lock.as_ref(), &id.0).or_else(|_| let_go(lock.as_ref(), &id.0))
    };
    if let Some(dir) = &kept.asked
        && let Err(refused) = let_go(dir)
    {
        tell(&format!(
            "kytx: the lock `{dir}` could not be let go: {refused}\n  type:  {}, which tries again",
            place.command("resume")
        ));
        return;
    }
    if let Err(error) = Kept::remove(state, id) {
        tell(&format!("kytx: {error}"));
    }
}

/// Lets go what a transaction that has ended was killed before it could let go.
pub fn release_leftover(place: &Place, txn: &Txn, stop: &StopRequests) {
    if matches!(Kept::read(&place.state, &txn.header().txn), Ok(Some(_))) {
        let released =
            with_machine(place, "unlock", stop, &Meter::new(), |machine| release(place, txn, machine));
        if let Err(error) = released {
            tell(&format!("kytx: the lock of the last upgrade could not be let go: {error}"));
        }
    }
}

fn lock_at<'a>(
    cluster: &'a Cluster<'a>,
    dir: &RawPath,
    state: &StateDir,
    txn: &TxnId,
) -> Box<dyn LockPlace + 'a> {
    let dir = dir.clone();
    if scheme(&dir) == Some("file") {
        return Box::new(LocalLock { fs: &OsFs, dir });
    }
    let scratch = Kept::path(state, txn).with_file_name("lock.claim");
    Box::new(ClusterLock { cluster, dir, scratch, fs: &OsFs })
}

fn myself(place: &Place, txn: &Txn) -> Holder {
    let pid = std::process::id();
    let next = txn.ids().find(|id| {
        matches!(txn.state(*id), StepState::Pending | StepState::Intended { .. } | StepState::Undoing { .. })
    });
    let step = next.and_then(|id| txn.step(id)).map_or("the end", |step| step.name.as_str());
    Holder {
        transaction: txn.header().txn.0.clone(),
        epoch: 1,
        home: txn.header().home.clone(),
        state_dir: RawPath::from(place.state.root()),
        host: host_name(),
        boot: boot_id(),
        pid,
        start_ticks: start_ticks(pid).unwrap_or_default(),
        user: user_name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        step: step.to_owned(),
        since_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    }
}

/// Whether a run has surely ended. Of another host nobody here can say.
fn is_gone(run: &Holder) -> bool {
    run.host == host_name() && (run.boot != boot_id() || start_ticks(run.pid) != Some(run.start_ticks))
}

/// Whether the holder is an upgrade of this host that has ended and was killed before it let go: its own journal says so.
/// As long as the result is kept no command of that upgrade can run, so nobody else lets go of the same lock.
fn is_over(holder: &Holder) -> Option<RunLock> {
    if !is_gone(holder) {
        return None;
    }
    let there = StateDir::at(holder.state_dir.to_path_buf());
    let alone = RunLock::take(&OsFs, &there.lock(), &there.holder(), "kytx begin").ok()?;
    let view = read(&OsFs, there.root()).ok()?;
    let txn = Txn::replay(view.records()).ok()??;
    let ended = txn.header().txn.0 == holder.transaction && matches!(txn.phase(), Phase::Ended(_));
    ended.then_some(alone)
}

fn refusal(place: &Place, txn: &Txn, what: &str) -> CommandError {
    let mut error = CommandError::new(Exit::Open, what).state(standing::sentence(txn));
    error.hints = standing::next_commands(txn, place);
    error
}

fn held(txn: &Txn, dir: &RawPath, holder: &Holder) -> CommandError {
    let ours = holder.transaction == txn.header().txn.0;
    let mut error =
        CommandError::new(Exit::Locked, "an upgrade of this instance's cube data is open elsewhere")
            .why(holder.to_string());
    if holder.host == host_name() {
        // The journal says how far it has come since; the lock only where it began.
        let view = read(&OsFs, holder.state_dir.as_path());
        let replayed = view.ok().and_then(|view| Txn::replay(view.records()).ok());
        if let Some(other) = replayed.flatten().filter(|other| other.header().txn.0 == holder.transaction) {
            error = error.why(standing::sentence(&other));
        }
        if is_gone(holder) {
            error = error.why("its process is gone, and the lock stays until that upgrade has ended");
        }
    }
    error = error.state(standing::sentence(txn));
    error = if ours {
        error.hint(format!("go on with it on {}", holder.host))
    } else {
        error.hint(format!("kytx status {}, on {}", holder.home, holder.host))
    };
    error.hint(format!(
        "hadoop fs -rm '{dir}/LOCK*', only if that host or its state directory `{}` is lost for good",
        holder.state_dir
    ))
}
