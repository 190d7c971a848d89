//! One writer at a time (I8): kytx's own lock, and who holds it.
//!
//! The lock is the kernel's (`flock`), so it dies with the process, whatever ends it: there is no stale lock and
//! nothing to remove by hand. `holder.json` beside it is information for people, written after the lock is held and
//! believed only while that very process lives.

#![allow(clippy::disallowed_methods)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::fs::{Fs, read_file};
use super::os::host_name;
use super::tree::atomic_write;

/// How often a contender looks for the name of a holder that has none yet, and how long it waits between two looks:
/// two seconds in all, which a name takes only on a disk that is very busy.
const NAME_LOOKS: usize = 100;
const NAME_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// When the process started, in clock ticks since boot; with the pid it names a process for good.
    pub start_ticks: u64,
    /// Host.
    pub host: String,
    /// User.
    pub user: String,
    /// What was typed.
    pub command: String,
    /// Since when, in seconds since 1970-01-01 UTC.
    pub since_unix_s: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, host, user, command, .. } = self;
        write!(f, "`{command}` of {user} on {host}, process {pid}")
    }
}

/// The lock, held until dropped.
#[derive(Debug)]
#[must_use = "the lock is let go when this is dropped"]
pub struct RunLock {
    _file: File,
}

/// Why the lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another kytx holds it.
    #[error("another kytx is at work{}", .0.as_ref().map(|holder| format!(": {holder}")).unwrap_or_default())]
    Held(Option<Box<Holder>>),
    /// The file system refused.
    #[error("cannot lock `{path}`")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RunLock {
    /// Takes the lock, or says at once who has it.
    pub fn take(fs: &dyn Fs, lock: &Path, holder: &Path, command: &str) -> Result<Self, LockError> {
        let error = |source| LockError::Io { path: lock.to_owned(), source };
        // Never truncated and never unlinked: another process may have it open.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(lock)
            .map_err(error)?;
        let mut looks = 0;
        while !try_lock(&file).map_err(error)? {
            let named = live_holder(fs, holder);
            if named.is_some() || looks == NAME_LOOKS {
                return Err(LockError::Held(named.map(Box::new)));
            }
            // It has the lock and has not written its name yet, or has just ended.
            looks += 1;
            std::thread::sleep(NAME_LOOK_EVERY);
        }
        let me = Holder {
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()).unwrap_or_default(),
            host: host_name(),
            user: user_name(),
            command: command.to_owned(),
            since_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        let text = serde_json::to_vec_pretty(&me).expect("BUG: a holder has a JSON form");
        // Information only: a full disk must not keep abort from running.
        let _ = atomic_write(fs, holder, &text, 0o644);
        Ok(Self { _file: file })
    }
}

/// Takes the kernel's lock of an open file; `false` if somebody else has it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        match fs2::FileExt::try_lock_exclusive(file) {
            Ok(()) => return Ok(true),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Who is named as the holder, if that very process still lives on this host.
pub fn live_holder(fs: &dyn Fs, holder: &Path) -> Option<Holder> {
    let text = read_file(fs, holder, 64 << 10).ok()?;
    let holder: Holder = serde_json::from_slice(&text).ok()?;
    let here = holder.host == host_name();
    (here && start_ticks(holder.pid) == Some(holder.start_ticks)).then_some(holder)
}

/// Which boot of this host this is, as its kernel names it: process ids mean nothing beyond it.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When a process started, in clock ticks since boot (`/proc/<pid>/stat`, field 22).
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may itself hold blanks and brackets.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The name of the user who runs kytx: by the user database, else by number. The environment is not asked, as `su` and
/// cron leave somebody else's name there.
pub fn user_name() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::os::OsFs;

    #[test]
    fn i8_a_second_taker_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, holder) = (dir.path().join("lock"), dir.path().join("holder.json"));
        let held = RunLock::take(&OsFs, &lock, &holder, "kytx begin").unwrap();
        match RunLock::take(&OsFs, &lock, &holder, "kytx abort") {
            Err(LockError::Held(Some(who))) => {
                assert_eq!((who.pid, who.command.as_str()), (std::process::id(), "kytx begin"));
            }
            other => panic!("{other:?}"),
        }
        drop(held);
        let _again = RunLock::take(&OsFs, &lock, &holder, "kytx abort").unwrap();
        assert_eq!(live_holder(&OsFs, &holder).unwrap().command, "kytx abort");
    }

    #[test]
    fn what_cannot_be_locked_is_told_and_a_broken_holder_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, path) = (dir.path().join("lock"), dir.path().join("holder.json"));
        let error = RunLock::take(&OsFs, &dir.path().join("none/lock"), &path, "kytx begin").unwrap_err();
        assert!(matches!(error, LockError::Io { .. }), "{error}");
        let _held = RunLock::take(&OsFs, &lock, &path, "kytx begin").unwrap();
        atomic_write(&OsFs, &path, b"{", 0o644).unwrap();
        // The kernel's lock decides; the file is for people.
        assert!(matches!(RunLock::take(&OsFs, &lock, &path, "kytx abort"), Err(LockError::Held(None))));
        assert_eq!(start_ticks(0), None);
    }

    #[test]
    fn a_holder_that_is_gone_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, path) = (dir.path().join("lock"), dir.path().join("holder.json"));
        let _held = RunLock::take(&OsFs, &lock, &path, "kytx begin").unwrap();
        let mut holder = live_holder(&OsFs, &path).unwrap();
        holder.start_ticks += 1;
        atomic_write(&OsFs, &path, &serde_json::to_vec(&holder).unwrap(), 0o644).unwrap();
        assert_eq!(live_holder(&OsFs, &path), None);
    }
}
