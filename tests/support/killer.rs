//! SIGKILL at the n-th system call that changes something: by counting, never by sleeping.
//!
//! The program runs under the tracer, which gives the calls of all threads one order. When the n-th one is about to
//! happen, n - 1 have happened or are under way, and it itself never does.

use std::fs;
use std::process::Command;

use libc::{c_int, c_long, pid_t};

use super::tracer::{Call, Then, Watcher, trace};
pub use super::tracer::{Counted, Victims};

/// Which calls that force data to disk are answered with success and not made: a program with its syncs left out,
/// without another build of it. On `x86_64` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Swallowed {
    /// None: the program runs as it is.
    None,
    /// Each sync of a directory.
    OfDirectories,
    /// Each sync.
    All,
}

/// At which counted call a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At none.
    Never,
    /// At the entry of the `n`-th call after this many writes to a twin.
    Call {
        /// How many writes to a twin come first.
        records: usize,
        /// Which call after them; from 1.
        n: u64,
    },
    /// At the entry of this write to a twin: the store has the record, and the twin has not. From 1.
    TwinWrite(usize),
}

/// What is done to a run.
pub struct Interference {
    /// When it is stopped and killed.
    pub moment: Moment,
    /// Whose calls count.
    pub counted: Counted,
    /// Who is killed.
    pub victims: Victims,
    /// What is not synced.
    pub swallowed: Swallowed,
    /// What is done between stop and kill, while the stopped call has not happened.
    pub accident: Box<dyn FnOnce() + Send>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was killed at the call asked for.
    Killed,
    /// It ended before that call, after so many of them.
    Finished {
        /// How many calls were counted.
        count: u64,
        /// Its exit code; minus the signal's number if a signal ended it.
        code: i32,
    },
}

/// A run under the tracer.
#[derive(Debug)]
pub struct Traced {
    /// How it ended.
    pub outcome: Outcome,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// The number of each counted call that wrote to a twin, `journal.log`: what the journal's records cut a run
    /// into.
    pub twin_writes: Vec<u64>,
}

/// Runs a command with no input and kills it at the entry of the `n`-th counted call; 0 never kills, and counts.
pub fn run_killed_at(command: Command, n: u64, counted: Counted, victims: Victims) -> Traced {
    run_killed_after(command, 0, n, counted, victims)
}

/// The same, counted from the `records`-th write to a twin on: runs differ by a few calls, and this is within the same
/// step in each.
pub fn run_killed_after(
    command: Command,
    records: usize,
    n: u64,
    counted: Counted,
    victims: Victims,
) -> Traced {
    let moment = if n == 0 { Moment::Never } else { Moment::Call { records, n } };
    let accident = Box::new(|| ());
    run_interfered(command, Interference { moment, counted, victims, swallowed: Swallowed::None, accident })
}

/// Runs a command with no input, and at the moment asked for stops it, lets the accident happen, and kills it.
pub fn run_interfered(command: Command, interference: Interference) -> Traced {
    let Interference { moment, counted, victims, swallowed, accident } = interference;
    let accident = Some(accident);
    let killer = Killer { moment, since: 0, victims, swallowed, accident, count: 0, twin_writes: Vec::new() };
    let (ended, killer) = trace(command, counted, None, killer);
    let outcome = if ended.killed {
        assert_eq!(ended.code, -libc::SIGKILL, "a killed program ends by the kill");
        Outcome::Killed
    } else {
        Outcome::Finished { count: killer.count, code: ended.code }
    };
    Traced { outcome, stdout: ended.stdout, stderr: ended.stderr, twin_writes: killer.twin_writes }
}

struct Killer {
    moment: Moment,
    /// How many calls there were since the moment's record.
    since: u64,
    victims: Victims,
    swallowed: Swallowed,
    accident: Option<Box<dyn FnOnce() + Send>>,
    count: u64,
    twin_writes: Vec<u64>,
}

impl Watcher for Killer {
    fn entry(&mut self, call: &Call) -> Then {
        if let Some(change) = change(call.pid, call.number, &call.args) {
            self.count += 1;
            if let Moment::Call { records, .. } = self.moment {
                self.since += u64::from(self.twin_writes.len() >= records);
            }
            if change == Change::Twin {
                self.twin_writes.push(self.count);
            }
            let is_it = match self.moment {
                Moment::Never => false,
                Moment::Call { n, .. } => self.since == n,
                Moment::TwinWrite(number) => change == Change::Twin && self.twin_writes.len() == number,
            };
            if is_it {
                if let Some(accident) = self.accident.take() {
                    accident();
                }
                return Then::Kill(self.victims);
            }
        }
        // No error is success.
        if self.swallows(call) { Then::Fail(0) } else { Then::Happen }
    }
}

impl Killer {
    fn swallows(&self, call: &Call) -> bool {
        let is_dir = || {
            fs::metadata(format!("/proc/{}/fd/{}", call.pid, call.args[0])).is_ok_and(|meta| meta.is_dir())
        };
        match self.swallowed {
            Swallowed::None => false,
            Swallowed::OfDirectories => call.number == libc::SYS_fsync && is_dir(),
            Swallowed::All => [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs].contains(&call.number),
        }
    }
}

/// Whether a call counts.
pub fn is_change(call: &Call) -> bool {
    change(call.pid, call.number, &call.args).is_some()
}

/// What a counted call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It writes to a twin.
    Twin,
    /// Anything else.
    Other,
}

/// Whether a system call changes what is on disk, or forces it there.
pub fn change(pid: pid_t, number: c_long, args: &[u64]) -> Option<Change> {
    let creates = |flags: u64| flags as c_int & CREATES != 0;
    match number {
        number if WRITES.contains(&number) => {
            let fd = match number {
                libc::SYS_copy_file_range => args[2],
                _ => args[0],
            };
            written(pid, fd)
        }
        libc::SYS_openat => creates(args[2]).then_some(Change::Other),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => creates(args[1]).then_some(Change::Other),
        _ => ALWAYS.contains(&number).then_some(Change::Other),
    }
}

/// The flags with which an open makes or empties a file.
pub const CREATES: c_int = libc::O_CREAT | libc::O_TRUNC;

/// Calls that write to a descriptor.
pub const WRITES: &[c_long] = &[
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
];

/// Calls that change something whatever their arguments are.
pub const ALWAYS: &[c_long] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_syncfs,
    libc::SYS_ftruncate,
    libc::SYS_truncate,
    libc::SYS_fallocate,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
];

/// Whether a descriptor is a file with a name: not a pipe, not a terminal, and not the unnamed files that take the
/// traced program's output.
fn written(pid: pid_t, fd: u64) -> Option<Change> {
    let path = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let path = path.to_string_lossy();
    let is_device = path.starts_with("/dev/") && !path.starts_with("/dev/shm/");
    let on_disk = path.starts_with('/') && !is_device && !path.ends_with(" (deleted)");
    on_disk.then_some(if name.starts_with("journal.log") { Change::Twin } else { Change::Other })
}
