//! A program under ptrace: every thread stops at the entry and at the exit of every system call, and a watcher is asked
//! what is to become of the call.
//!
//! The tracer is one thread, so it sees the stops one after the other: the calls of all threads together have one
//! order.

#![allow(
    unsafe_code,
    reason = "ptrace and waitpid have no safe form; nothing but these two calls is in an unsafe block"
)]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use libc::{c_int, c_long, c_void, pid_t};

/// Whose calls are seen.
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

/// A system call that is about to happen.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The thread.
    pub pid: pid_t,
    /// The call's number.
    pub number: c_long,
    /// Its arguments.
    pub args: [u64; 6],
}

/// What is to become of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It happens.
    Happen,
    /// It does not happen, and the program is told this error number.
    Fail(c_int),
    /// It happens with another value of this argument. The program's register is put back afterwards, as the kernel
    /// leaves it alone.
    With(usize, u64),
    /// It does not happen, as these are killed.
    Kill(Victims),
}

/// Whether calls can be made to fail on this machine. Which registers hold what is known for one architecture.
pub const CAN_INJECT: bool = cfg!(target_arch = "x86_64");

/// Decides about calls.
pub trait Watcher {
    /// Before the call.
    fn entry(&mut self, call: &Call) -> Then;
    /// After it: what the program is told, a negative error number or the call's value.
    fn exit(&mut self, _: &Call, _: i64) {}
}

/// How a traced program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; minus the signal's number if a signal ended it.
    pub code: i32,
    /// Whether the watcher had it killed.
    pub killed: bool,
    /// Whether it was killed because its time was up.
    pub hung: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a command with no input under a watcher, for at most `limit`, and gives the watcher back.
pub fn trace<W: Watcher + Send + 'static>(
    command: Command,
    counted: Counted,
    limit: Option<Duration>,
    watcher: W,
) -> (Ended, W) {
    // A thread of its own: ptrace is bound to the thread that spawned the tracee, waiting for "any child" must not
    // take away another test's, and its end lets go of whatever is still traced.
    let tracer = std::thread::spawn(move || trace_here(command, counted, limit, watcher).unwrap());
    tracer.join().expect("the tracer works")
}

fn trace_here<W: Watcher>(
    mut command: Command,
    counted: Counted,
    limit: Option<Duration>,
    watcher: W,
) -> io::Result<(Ended, W)> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0, 0).map(drop));
    }
    let program = command.spawn()?.id() as pid_t;
    let mut tracer = Tracer {
        program,
        counted,
        watcher,
        known: HashSet::from([program]),
        pending: HashMap::new(),
        killed: false,
    };
    let (done, watchdog) = watchdog(program, limit);
    let code = tracer.run()?;
    drop(done);
    let hung = watchdog.join().expect("the watchdog works");
    let (stdout, stderr) = (read_all(&mut out)?, read_all(&mut err)?);
    Ok((Ended { code, killed: tracer.killed, hung, stdout, stderr }, tracer.watcher))
}

/// Kills the program when its time is up, and says whether it had to. The program is over when the sender is dropped.
fn watchdog(program: pid_t, limit: Option<Duration>) -> (Sender<()>, std::thread::JoinHandle<bool>) {
    let (done, over) = channel();
    let thread = std::thread::spawn(move || {
        let late = limit.is_some_and(|limit| over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout));
        if late {
            kill(program);
        }
        late
    });
    (done, thread)
}

struct Tracer<W> {
    program: pid_t,
    counted: Counted,
    watcher: W,
    /// Threads and processes that have made their first stop.
    known: HashSet<pid_t>,
    /// The calls that threads are in.
    pending: HashMap<pid_t, (Call, Then)>,
    killed: bool,
}

impl<W: Watcher> Tracer<W> {
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
            } else {
                // The kernel gives its number again.
                self.known.remove(&pid);
                self.pending.remove(&pid);
            }
        }
    }

    fn stopped(&mut self, pid: pid_t, status: c_int) -> io::Result<()> {
        let signal = libc::WSTOPSIG(status);
        let is_new = self.known.insert(pid);
        if signal == libc::SIGTRAP | 0x80 {
            if !self.killed && self.at_a_call(pid)? {
                return Ok(());
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

    /// Whether the program was killed.
    fn at_a_call(&mut self, pid: pid_t) -> io::Result<bool> {
        // struct ptrace_syscall_info: the kind of stop in the first byte; from byte 24 on the number and the
        // arguments at an entry, the value at an exit.
        let mut info = [0_u64; 11];
        let address = info.as_mut_ptr() as usize;
        if ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), address).is_err() {
            return Ok(false);
        }
        match info[0].to_ne_bytes()[0] {
            PTRACE_SYSCALL_INFO_ENTRY => {
                let args = info[4..10].try_into().expect("BUG: six arguments");
                let call = Call { pid, number: info[3] as c_long, args };
                let then = self.watcher.entry(&call);
                if let Then::Kill(victims) = then {
                    self.kill(victims)?;
                    return Ok(true);
                }
                at_entry(pid, then)?;
                self.pending.insert(pid, (call, then));
            }
            PTRACE_SYSCALL_INFO_EXIT => {
                if let Some((call, then)) = self.pending.remove(&pid) {
                    at_exit(&call, then)?;
                    let value = if let Then::Fail(errno) = then { -i64::from(errno) } else { info[3] as i64 };
                    self.watcher.exit(&call, value);
                }
            }
            _ => {}
        }
        Ok(false)
    }

    fn kill(&mut self, victims: Victims) -> io::Result<()> {
        self.killed = true;
        let mut doomed = vec![self.program];
        if victims == Victims::Descendants {
            doomed.extend(descendants(self.program)?);
        }
        doomed.into_iter().for_each(kill);
        Ok(())
    }
}

/// The kinds of stop at a system call, in `linux/ptrace.h`.
const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
const PTRACE_SYSCALL_INFO_EXIT: u8 = 2;

#[cfg(target_arch = "x86_64")]
fn at_entry(pid: pid_t, then: Then) -> io::Result<()> {
    match then {
        Then::Happen | Then::Kill(_) => Ok(()),
        // No call has this number: the kernel does nothing.
        Then::Fail(_) => change_registers(pid, |registers| registers.orig_rax = u64::MAX),
        Then::With(argument, value) => change_registers(pid, |registers| *slot(registers, argument) = value),
    }
}

#[cfg(target_arch = "x86_64")]
fn at_exit(call: &Call, then: Then) -> io::Result<()> {
    match then {
        Then::Happen | Then::Kill(_) => Ok(()),
        Then::Fail(errno) => {
            change_registers(call.pid, |registers| registers.rax = (-i64::from(errno)).cast_unsigned())
        }
        Then::With(argument, _) => {
            change_registers(call.pid, |registers| *slot(registers, argument) = call.args[argument])
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn slot(registers: &mut libc::user_regs_struct, argument: usize) -> &mut u64 {
    match argument {
        0 => &mut registers.rdi,
        1 => &mut registers.rsi,
        2 => &mut registers.rdx,
        3 => &mut registers.r10,
        4 => &mut registers.r8,
        _ => &mut registers.r9,
    }
}

#[cfg(target_arch = "x86_64")]
fn change_registers(pid: pid_t, change: impl FnOnce(&mut libc::user_regs_struct)) -> io::Result<()> {
    // SAFETY: a structure of integers, for which all zeros is a value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let changed = ptrace(libc::PTRACE_GETREGS, pid, 0, (&raw mut registers) as usize).and_then(|_| {
        change(&mut registers);
        ptrace(libc::PTRACE_SETREGS, pid, 0, (&raw mut registers) as usize)
    });
    match changed {
        // Killed while it was stopped; the wait then tells.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn at_entry(_: pid_t, then: Then) -> io::Result<()> {
    assert_eq!(then, Then::Happen, "BUG: asked to inject where `CAN_INJECT` says that nothing can be");
    Ok(())
}

#[cfg(not(target_arch = "x86_64"))]
fn at_exit(_: &Call, _: Then) -> io::Result<()> {
    Ok(())
}

fn go_on(pid: pid_t, signal: c_int) {
    // It may have been killed while it was stopped; the wait then tells.
    let _ = ptrace(libc::PTRACE_SYSCALL, pid, 0, signal as usize);
}

fn kill(pid: pid_t) {
    let pid = rustix::process::Pid::from_raw(pid).expect("BUG: a process has a number");
    // One that has just ended needs no killing.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
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
    // SAFETY: for each request made here, `address` and `data` are what it documents; those that write memory are
    // given a live buffer of the size they need.
    let answer = unsafe { libc::ptrace(request, pid, address as *mut c_void, data as *mut c_void) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn read_all(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
