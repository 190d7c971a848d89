//! kytx under a sieve: of all system calls of its threads and of everything that it starts, only those stop that change
//! something, and at one of them somebody is killed.
//!
//! The sieve is a seccomp filter: calls that change nothing run at full speed, so a traced upgrade takes as long as
//! any other, where stopping at every call makes it ten times slower. What passes the filter is looked at by the
//! tracer, one thread, which sees the stops one after the other: the calls of all threads and processes have one order.
//! A call at whose entry its process is killed never happens.
//!
//! The filter is inherited and cannot be taken off, so the tracer stays for as long as anything lives that has it, the
//! service included; and if the tests die, the kernel kills all of it.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    unsafe_code,
    reason = "ptrace, waitpid and prctl have no safe form; nothing but these calls is in an unsafe block"
)]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use libc::{c_int, c_long, c_void, pid_t, sock_filter};

use crate::support::killer::{ALWAYS, CREATES, Change, WRITES, change};

/// Whose calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Everybody's.
    All,
    /// Those of what the program started.
    Scripts,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victims {
    /// The program alone: what it started goes on.
    Program,
    /// The program's process group.
    Group,
    /// The program and all of its descendants. A daemon that has lost its parent is none.
    Tree,
    /// Whoever makes the call, while the program lives.
    Caller,
}

/// Who is killed when.
#[derive(Clone, Copy, Debug)]
pub struct Blow {
    pub counted: Counted,
    /// At the entry of this call, from 1.
    pub at: u64,
    pub victims: Victims,
}

/// A call that changes something.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// Whether the program itself makes it, and not what it started.
    pub by_program: bool,
    /// Whether it writes a record of the journal to the twin.
    pub is_record: bool,
}

/// A run that is over.
#[derive(Debug)]
pub struct Run {
    /// The exit code; minus the signal's number if a signal ended it.
    pub code: i32,
    /// Whether anybody was killed: the run may have been over before.
    pub struck: bool,
    pub calls: Vec<Called>,
    pub stdout: String,
    pub stderr: String,
    /// Whether it was the service that was killed.
    pub is_service_dead: bool,
    /// The script at whose call the program was killed. It stands at that call until this is dropped.
    pub held: Option<Held>,
}

/// Lets go of what stands still when it is dropped.
#[derive(Debug)]
pub struct Held {
    pid: pid_t,
    _go: Sender<()>,
}

impl Held {
    /// Whether somebody has killed it: nothing else ends what stands still.
    pub fn is_killed(&self) -> bool {
        state_and_parent(self.pid).is_none_or(|(state, _)| ["Z", "X"].contains(&state.as_str()))
    }
}

/// Runs a command with no input to its end, or to that of those who are killed.
pub fn run(mut command: Command, blow: Option<Blow>) -> Run {
    let (sender, over) = channel();
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    // ptrace is bound to the thread that spawned the tracee, and this one outlives the call.
    std::thread::spawn(move || {
        let program = spawn(&mut command).unwrap();
        drop(command);
        let tracer = Tracer {
            program,
            blow,
            at: 0,
            calls: Vec::new(),
            known: HashMap::from([(program, true)]),
            struck: false,
            is_service_dead: false,
            doomed: HashSet::new(),
            code: None,
            over: Some(sender),
            held: None,
            go: None,
        };
        tracer.run().unwrap();
    });
    let mut run = over.recv().expect("the tracer works");
    (run.stdout, run.stderr) = (read_all(&mut out), read_all(&mut err));
    run
}

fn spawn(command: &mut Command) -> io::Result<pid_t> {
    let filter = filter();
    command.process_group(0);
    // SAFETY: between fork and exec it makes three system calls and allocates nothing; the filter lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            let none: usize = 0;
            // Without it only root may install a filter.
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_usize, none, none, none) != 0 {
                return Err(io::Error::last_os_error());
            }
            ptrace(libc::PTRACE_TRACEME, 0, 0, 0)?;
            let mode = libc::SECCOMP_MODE_FILTER as usize;
            if libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(command.spawn()?.id() as pid_t)
}

/// Tracing for calls that may change something, and nothing for the others.
fn filter() -> Vec<sock_filter> {
    // struct seccomp_data: the number, the architecture, the instruction pointer, six arguments of 64 bits.
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let give = |what: u32| step(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let is = |number: c_long, otherwise: u8| {
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, otherwise, number as u32)
    };
    let mut filter = vec![load(0)];
    let opens: &[(c_long, u32)] = &[
        (libc::SYS_openat, 2),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, 1),
    ];
    for (number, flags) in opens {
        // The lower half of the flags, on a little-endian machine.
        let argument = 16 + 8 * flags + if cfg!(target_endian = "big") { 4 } else { 0 };
        let any = step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, CREATES as u32);
        filter.extend([is(*number, 4), load(argument), any]);
        filter.extend([give(libc::SECCOMP_RET_TRACE), give(libc::SECCOMP_RET_ALLOW)]);
    }
    for number in WRITES.iter().chain(ALWAYS).chain(&[libc::SYS_kill]) {
        filter.extend([is(*number, 1), give(libc::SECCOMP_RET_TRACE)]);
    }
    filter.push(give(libc::SECCOMP_RET_ALLOW));
    filter
}

fn step(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

struct Tracer {
    program: pid_t,
    blow: Option<Blow>,
    /// How many of the counted calls there were.
    at: u64,
    calls: Vec<Called>,
    /// Threads and processes, and whether they are the program's own.
    known: HashMap<pid_t, bool>,
    struck: bool,
    is_service_dead: bool,
    /// Who was killed and is not gone yet.
    doomed: HashSet<pid_t>,
    /// How the program ended.
    code: Option<i32>,
    /// Where the run is told of, once.
    over: Option<Sender<Run>>,
    /// Who stands still, until its other end is dropped.
    held: Option<(pid_t, Receiver<()>)>,
    go: Option<Held>,
}

impl Tracer {
    /// Ends when nothing is left that has the filter.
    fn run(mut self) -> io::Result<()> {
        let first = wait(self.program, 0)?;
        assert!(first.is_some_and(|(_, status)| libc::WIFSTOPPED(status)), "it stops at its exec");
        let options = libc::PTRACE_O_TRACESECCOMP
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, self.program, 0, options as usize)?;
        go_on(self.program, 0);
        while let Some((pid, status)) = self.next()? {
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, status)?;
                continue;
            }
            self.known.remove(&pid);
            self.doomed.remove(&pid);
            if pid == self.program {
                let exited = libc::WIFEXITED(status);
                self.code = Some(if exited { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) });
            }
            self.tell();
        }
        Ok(())
    }

    /// The next thing that happens; nothing if nobody is left.
    fn next(&mut self) -> io::Result<Option<(pid_t, c_int)>> {
        while let Some((pid, go)) = &self.held {
            if let Some(found) = wait(-1, libc::WNOHANG)? {
                return Ok(Some(found));
            }
            if go.recv_timeout(Duration::from_millis(1)) != Err(RecvTimeoutError::Timeout) {
                go_on(*pid, 0);
                self.held = None;
            }
        }
        wait(-1, 0)
    }

    fn tell(&mut self) {
        let (Some(code), true) = (self.code, self.doomed.is_empty()) else { return };
        let Some(over) = self.over.take() else { return };
        let run = Run {
            code,
            struck: self.struck,
            is_service_dead: self.is_service_dead,
            calls: std::mem::take(&mut self.calls),
            stdout: String::new(),
            stderr: String::new(),
            held: self.go.take(),
        };
        // Nobody listens any more if the test has failed.
        let _ = over.send(run);
    }

    fn stopped(&mut self, pid: pid_t, status: c_int) -> io::Result<()> {
        let signal = libc::WSTOPSIG(status);
        let program = self.program;
        let is_new = !self.known.contains_key(&pid);
        let is_own = || std::path::Path::new(&format!("/proc/{program}/task/{pid}")).exists();
        let by_program = *self.known.entry(pid).or_insert_with(is_own);
        if status >> 16 == libc::PTRACE_EVENT_SECCOMP {
            if let Some(is_record) = changes(pid)
                && self.is_struck_at(Called { by_program, is_record })
            {
                return self.strike(pid, by_program);
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

    fn is_struck_at(&mut self, called: Called) -> bool {
        if self.over.is_none() || self.code.is_some() || !self.doomed.is_empty() {
            return false;
        }
        self.calls.push(called);
        let Some(blow) = self.blow.filter(|_| !self.struck) else { return false };
        self.at += u64::from(blow.counted == Counted::All || !called.by_program);
        self.at == blow.at && (blow.counted == Counted::All || !called.by_program)
    }

    fn strike(&mut self, caller: pid_t, by_program: bool) -> io::Result<()> {
        self.struck = true;
        let program = self.program;
        match self.blow.expect("BUG: somebody strikes").victims {
            Victims::Program => self.doomed.extend([program]),
            Victims::Group => {
                self.doomed.extend([program]);
                kill(-program);
            }
            Victims::Tree => {
                self.doomed.extend([program]);
                self.doomed.extend(descendants(program)?);
            }
            Victims::Caller => {
                self.is_service_dead = is_service(caller);
                kill(caller);
                return Ok(());
            }
        }
        self.doomed.iter().copied().for_each(kill);
        if by_program || self.doomed.contains(&caller) {
            return Ok(());
        }
        if self.blow.is_some_and(|blow| blow.victims == Victims::Tree) || is_service(caller) {
            // Nobody waits for a daemon, and who waited for its answer would wait for ever.
            go_on(caller, 0);
        } else {
            let (go, until) = channel();
            self.held = Some((caller, until));
            self.go = Some(Held { pid: caller, _go: go });
        }
        Ok(())
    }
}

/// Whether a call changes anything; and then, whether it writes a record.
fn changes(pid: pid_t) -> Option<bool> {
    // struct ptrace_syscall_info: the kind of stop in the first byte, then number and arguments from byte 24 on.
    let mut info = [0_u64; 11];
    let address = info.as_mut_ptr() as usize;
    ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), address).ok()?;
    let (number, args) = (info[3] as c_long, &info[4..10]);
    if number == libc::SYS_kill {
        // Signal 0 only asks.
        return (args[1] != 0).then_some(false);
    }
    change(pid, number, args).map(|change| change == Change::Twin)
}

/// Whether it is the stand-in's service, which is in the program itself; or what is about to become it, and is known by the
/// same words.
fn is_service(pid: pid_t) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let has = |word: &[u8]| command.split(|byte| *byte == 0).any(|other| other == word);
    has(b"standin-service") && !has(b"--check-port")
}

/// `None` for a process that is gone.
fn state_and_parent(pid: pid_t) -> Option<(String, pid_t)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which is in brackets and may hold anything: the state, then the parent.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn descendants(program: pid_t) -> io::Result<HashSet<pid_t>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<pid_t>().ok()) else {
            continue;
        };
        let Some((state, parent)) = state_and_parent(pid) else { continue };
        parents.extend((state != "Z").then_some((pid, parent)));
    }
    let mut found = HashSet::from([program]);
    loop {
        let more: Vec<pid_t> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&program);
            return Ok(found);
        }
        found.extend(more);
    }
}

fn go_on(pid: pid_t, signal: c_int) {
    // It may have been killed while it was stopped; the wait then tells.
    let _ = ptrace(libc::PTRACE_CONT, pid, 0, signal as usize);
}

/// Kills a process, or a process group if it is negative. One that has just ended needs no killing.
fn kill(pid: pid_t) {
    // SAFETY: it takes two integers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Waits for a child of this thread; nothing if there is none, or none has anything to tell.
fn wait(pid: pid_t, more: c_int) -> io::Result<Option<(pid_t, c_int)>> {
    loop {
        let mut status = 0;
        // SAFETY: the status is a live integer. __WNOTHREAD: children of other threads are not ours.
        let found = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD | more) };
        if found >= 0 {
            return Ok((found > 0).then_some((found, status)));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}

fn ptrace(request: libc::c_uint, pid: pid_t, address: usize, data: usize) -> io::Result<c_long> {
    // SAFETY: for each request made here, `address` and `data` are what it documents; the one that writes memory is
    // given a live buffer and its size.
    let answer = unsafe { libc::ptrace(request, pid, address as *mut c_void, data as *mut c_void) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn read_all(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
