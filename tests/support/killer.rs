//! SIGKILL at the n-th system call that changes something: by counting, never by sleeping.
//!
//! The program runs under ptrace. Every thread stops at the entry of every system call, and the tracer, one thread,
//! sees the stops one after the other; so the calls of all threads together have one order, and when the n-th one is
//! about to happen, n - 1 have happened or are under way, and it itself never does.

#![allow(
    unsafe_code,
    reason = "ptrace and waitpid have no safe form; nothing but these two calls is in an unsafe block"
)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use libc::{c_int, c_long, c_void, pid_t};

/// Whose calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those of the program's own threads. What it starts runs untraced, at full speed.
    Own,
    /// Those of everything that it starts as well.
    Descendants,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// The program alone: what it started goes on.
    Program,
    /// The program and all of its descendants. A daemon that has lost its parent is none.
    Descendants,
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
    // A thread of its own: ptrace is bound to the thread that spawned the tracee, waiting for "any child" must not
    // take away another test's, and its end lets go of whatever is still traced.
    let tracer = std::thread::spawn(move || trace(command, (records, n), counted, victims).unwrap());
    tracer.join().expect("the tracer works")
}

fn trace(
    mut command: Command,
    (records, n): (usize, u64),
    counted: Counted,
    victims: Victims,
) -> io::Result<Traced> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0, 0).map(drop));
    }
    let program = command.spawn()?.id() as pid_t;
    let mut tracer = Tracer {
        program,
        records,
        n,
        since: 0,
        counted,
        victims,
        count: 0,
        twin_writes: Vec::new(),
        known: HashSet::from([program]),
        killed: false,
    };
    let code = tracer.run()?;
    let outcome = match code {
        code if tracer.killed => {
            assert_eq!(code, -libc::SIGKILL, "a killed program ends by the kill");
            Outcome::Killed
        }
        code => Outcome::Finished { count: tracer.count, code },
    };
    let (stdout, stderr) = (read_all(&mut out)?, read_all(&mut err)?);
    Ok(Traced { outcome, stdout, stderr, twin_writes: tracer.twin_writes })
}

struct Tracer {
    program: pid_t,
    records: usize,
    n: u64,
    /// How many calls there were since that record.
    since: u64,
    counted: Counted,
    victims: Victims,
    count: u64,
    twin_writes: Vec<u64>,
    /// Threads and processes that have made their first stop.
    known: HashSet<pid_t>,
    killed: bool,
}

impl Tracer {
    /// Returns how the program ended.
    fn run(&mut self) -> io::Result<i32> {
        let (pid, status) = wait(self.program)?;
        assert!(pid == self.program && libc::WIFSTOPPED(status), "the program stops at its exec");
        let mut options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_TRACEEXEC;
        if self.counted == Counted::Descendants {
            options |= libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACEVFORK;
        }
        ptrace(libc::PTRACE_SETOPTIONS, self.program, 0, options as usize)?;
        go_on(self.program, 0);
        loop {
            let (pid, status) = wait(-1)?;
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, status)?;
            } else if pid == self.program {
                return Ok(if libc::WIFEXITED(status) {
                    libc::WEXITSTATUS(status)
                } else {
                    -libc::WTERMSIG(status)
                });
            }
        }
    }

    fn stopped(&mut self, pid: pid_t, status: c_int) -> io::Result<()> {
        let signal = libc::WSTOPSIG(status);
        let is_new = self.known.insert(pid);
        if signal == libc::SIGTRAP | 0x80 {
            if let Some(change) = self.counted_change(pid) {
                self.count += 1;
                self.since += u64::from(self.twin_writes.len() >= self.records);
                if change == Change::Twin {
                    self.twin_writes.push(self.count);
                }
                if self.n != 0 && self.since == self.n {
                    return self.kill();
                }
            }
            go_on(pid, 0);
        } else if status >> 16 != 0 || (is_new && signal == libc::SIGSTOP) {
            // An event of the tracing itself, or the stop with which a new thread begins.
            go_on(pid, 0);
        } else {
            go_on(pid, signal);
        }
        Ok(())
    }

    fn counted_change(&self, pid: pid_t) -> Option<Change> {
        if self.killed {
            return None;
        }
        // struct ptrace_syscall_info: the kind of stop in the first byte, then number and arguments from byte 24 on.
        let mut info = [0_u64; 11];
        let address = info.as_mut_ptr() as usize;
        let read = ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), address);
        if read.is_err() || info[0].to_ne_bytes()[0] != PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        change(pid, info[3] as c_long, &info[4..10])
    }

    fn kill(&mut self) -> io::Result<()> {
        self.killed = true;
        let mut doomed = vec![self.program];
        if self.victims == Victims::Descendants {
            doomed.extend(descendants(self.program)?);
        }
        for pid in doomed {
            let pid = rustix::process::Pid::from_raw(pid).expect("BUG: a process has a number");
            // One that has just ended needs no killing.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        Ok(())
    }
}

fn go_on(pid: pid_t, signal: c_int) {
    // It may have been killed while it was stopped; the wait then tells.
    let _ = ptrace(libc::PTRACE_SYSCALL, pid, 0, signal as usize);
}

/// The kind of stop before a system call, in `linux/ptrace.h`.
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;

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

fn descendants(program: pid_t) -> io::Result<Vec<pid_t>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<pid_t>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name, which is in brackets and may hold anything: the state, then the parent.
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<pid_t>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut found = vec![program];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

fn wait(pid: pid_t) -> io::Result<(pid_t, c_int)> {
    loop {
        let mut status = 0;
        // SAFETY: the status is a live integer. __WNOTHREAD: children of other threads are not ours.
        let found = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if found >= 0 {
            return Ok((found, status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn ptrace(request: libc::c_uint, pid: pid_t, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: for each request made here, `address` and `data` are what it documents; the one that writes memory is
    // given a live buffer and its size.
    let answer = unsafe { libc::ptrace(request, pid, address as *mut c_void, data as *mut c_void) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn read_all(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
