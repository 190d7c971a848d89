//! Other people's programs: the seam through which kytx runs the product's scripts, and its real form.
//!
//! Three things go wrong with a child process when its parent can be killed at any moment, and this file is the
//! answer to each:
//!
//! * *The child goes on.* Every child gets a locked file as its standard input (the orphan lock). The lock belongs to
//!   the open file, so it is held as long as any foreground descendant lives, even when the shell between is killed,
//!   and it is let go by a daemon that a script puts in the background, since a shell gives such a one `/dev/null`.
//! * *The child dies of a broken pipe* in the middle of its work. Output goes to unlinked files instead of pipes.
//! * *Ctrl-C reaches the child.* Every child leads a process group of its own.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::lock::try_lock;
use super::run_log::RunLog;
use super::signal::StopRequests;

/// How much of a program's output is kept for whoever judges it.
const KEPT_BYTES: usize = 1 << 20;
/// How often output is moved to the log while a program runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a program whose time is up may take to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait for what the program before this one left running in the foreground.
const ORPHAN_LIMIT: Duration = Duration::from_mins(10);

/// The names that output files have, beside the orphan lock, until they have none.
pub const OUTPUT_NAMES: [&str; 2] = [".output-out", ".output-err"];

/// The variable in which the operator gives kytx a password. No program that kytx runs gets it.
pub const PASSWORD_VARIABLE: &str = "KYTX_PASSWORD";

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is for, in a word or two, for the run's log and for messages: `kylin.sh start`.
    pub label: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Variables set on top of the inherited environment.
    pub set: BTreeMap<OsString, OsString>,
    /// Variables removed from the inherited environment.
    pub unset: Vec<OsString>,
    /// How long it may take; the whole process group is ended after that. `None` waits as long as it takes.
    pub time_limit: Option<Duration>,
}

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether kytx ended it because its time was up.
    pub timed_out: bool,
    /// What it wrote to standard output, secrets masked; the last megabyte if it was more.
    pub stdout: String,
    /// What it wrote to standard error, likewise.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// Whoever attends a program while it runs.
pub trait Attendant {
    /// A line of its standard output, without its end and before any masking. `true` keeps the line from log and memory:
    /// a listing is as long as a file system is large.
    fn takes(&mut self, _line: &[u8]) -> bool {
        false
    }
    /// A line of its standard error, masked.
    fn hears(&mut self, _line: &str) {}
    /// Asked many times a second: whether the program is to be ended now.
    fn ends(&mut self) -> bool {
        false
    }
    /// Whether standard output goes nowhere, as nobody needs what a program reads aloud.
    fn discards_output(&self) -> bool {
        false
    }
}

/// Nobody in particular.
struct Nobody;

impl Attendant for Nobody {}

/// Runs programs to their end.
pub trait Shell {
    /// Runs a program and waits for it, not for what it leaves in the background. An error means that it could not be
    /// run at all; what it did is for the caller to judge, and never by its exit code alone.
    fn run(&self, call: &Call) -> io::Result<Ran>;

    /// The same, attended by somebody.
    fn attend(&self, call: &Call, attendant: &mut dyn Attendant) -> io::Result<Ran> {
        let mut ran = self.run(call)?;
        let taken = |line: &&str| !attendant.takes(line.as_bytes());
        ran.stdout = ran.stdout.lines().filter(taken).flat_map(|line| [line, "\n"]).collect();
        ran.stderr.lines().for_each(|line| attendant.hears(line));
        Ok(ran)
    }
}

/// Masks secrets in a line of output.
pub type Mask = fn(&str) -> String;

/// Runs programs of the machine.
pub struct OsShell<'a> {
    orphan_lock: PathBuf,
    log: &'a RunLog,
    mask: Mask,
    stop: StopRequests,
}

impl<'a> OsShell<'a> {
    /// `orphan_lock` is the file that children hold; every line of output goes through `mask` into `log`.
    pub fn new(orphan_lock: PathBuf, log: &'a RunLog, mask: Mask, stop: StopRequests) -> Self {
        Self { orphan_lock, log, mask, stop }
    }

    fn locked_stdin(&self) -> io::Result<File> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.orphan_lock)?;
        // The caller has waited for orphans of earlier runs, and kytx runs one program at a time; what still holds
        // the lock is a foreground descendant of the program before this one.
        let begun = Instant::now();
        while !try_lock(&file)? {
            if self.stop.count() > 0 || begun.elapsed() > ORPHAN_LIMIT {
                let orphans: Vec<_> = orphans(&self.orphan_lock)
                    .into_iter()
                    .map(|(pid, command)| format!("{pid} ({command})"))
                    .collect();
                return Err(io::Error::other(format!(
                    "a program that was started earlier still runs: process {}",
                    orphans.join(", ")
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(file)
    }

    fn output_file(&self, name: &str) -> io::Result<File> {
        // One kytx runs one program at a time, so one name is enough, and what a kill before the removal below leaves
        // goes with the next, or with the transaction.
        let path = self.orphan_lock.with_file_name(name);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        // Without a name at once: it may hold secrets that only the masked copy in the log is free of.
        std::fs::remove_file(&path)?;
        Ok(file)
    }
}

impl Shell for OsShell<'_> {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        self.attend(call, &mut Nobody)
    }

    fn attend(&self, call: &Call, attendant: &mut dyn Attendant) -> io::Result<Ran> {
        let stdin = self.locked_stdin()?;
        let (out, err) = (self.output_file(OUTPUT_NAMES[0])?, self.output_file(OUTPUT_NAMES[1])?);
        let mut stdout = Tail::new(out.try_clone()?, &call.label, self.log, self.mask);
        let mut stderr = Tail::new(err.try_clone()?, &call.label, self.log, self.mask);
        let mut command = Command::new(&call.program);
        command.args(&call.args).current_dir(&call.cwd).envs(&call.set).process_group(0);
        command.stdin(stdin).stderr(err);
        command.stdout(if attendant.discards_output() { Stdio::null() } else { out.into() });
        command.env_remove(PASSWORD_VARIABLE);
        for name in &call.unset {
            command.env_remove(name);
        }
        self.log.line(&call.label, &(self.mask)(&format!("$ {}", describe(call))));
        // Before the child: where no thread can be had, no program must run that nobody waits for.
        let (give, given) = channel::<Child>();
        let (sender, receiver) = channel();
        std::thread::Builder::new().spawn(move || {
            if let Ok(mut child) = given.recv() {
                // Nobody listens any more if the work was given up.
                let _ = sender.send(child.wait());
            }
        })?;
        let begun = Instant::now();
        let child = command.spawn()?;
        // The parent's copies of the descriptors go with `command`: from here on only descendants hold the lock.
        drop(command);
        let group = Pid::from_child(&child);
        give.send(child).expect("BUG: the thread waits for its child");

        let mut watch =
            Watch { group, begun, limit: call.time_limit, timed_out: false, told: false, ended: None };
        let status = loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(status) => break status?,
                Err(RecvTimeoutError::Timeout) => {
                    stdout.take(&mut |line| attendant.takes(line))?;
                    stderr.take(&mut |line| heard(attendant, line, self.mask))?;
                    watch.look(self.stop.count(), attendant.ends());
                }
                Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("lost track of a child")),
            }
        };
        stdout.finish(&mut |line| attendant.takes(line))?;
        stderr.finish(&mut |line| heard(attendant, line, self.mask))?;
        let ran = ran(status, &watch, stdout.kept, stderr.kept);
        self.log.line(&call.label, &format!("= {} after {:.1} s", ending(&ran), ran.took.as_secs_f64()));
        Ok(ran)
    }
}

/// Tells an attendant a line, and keeps it for the log.
fn heard(attendant: &mut dyn Attendant, line: &[u8], mask: Mask) -> bool {
    attendant.hears(&mask(&String::from_utf8_lossy(line)));
    false
}

fn ran(status: ExitStatus, watch: &Watch, stdout: String, stderr: String) -> Ran {
    Ran {
        code: status.code(),
        signal: status.signal(),
        timed_out: watch.timed_out,
        stdout,
        stderr,
        took: watch.begun.elapsed(),
    }
}

/// How a program ended, in words.
pub fn ending(ran: &Ran) -> String {
    match (ran.timed_out, ran.code, ran.signal) {
        (true, ..) => "ended by kytx, as its time was up".to_owned(),
        (false, Some(code), _) => format!("exit code {code}"),
        (false, None, Some(signal)) => format!("ended by signal {signal}"),
        (false, None, None) => "ended".to_owned(),
    }
}

fn describe(call: &Call) -> String {
    let mut words = vec![call.program.to_string_lossy().into_owned()];
    words.extend(call.args.iter().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Watches over a running child.
struct Watch {
    group: Pid,
    begun: Instant,
    limit: Option<Duration>,
    timed_out: bool,
    told: bool,
    ended: Option<Instant>,
}

impl Watch {
    fn look(&mut self, stop_requests: usize, ends: bool) {
        if ends && self.ended.is_none() {
            self.ended = Some(Instant::now());
            let _ = kill_process_group(self.group, Signal::TERM);
        } else if self.ended.is_some_and(|since| since.elapsed() > GRACE) {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        // The first request lets the child finish; the second is passed on.
        if stop_requests >= 2 && !self.told {
            self.told = true;
            let _ = kill_process_group(self.group, Signal::TERM);
        }
        let Some(limit) = self.limit else { return };
        let taken = self.begun.elapsed();
        if taken > limit && !self.timed_out {
            self.timed_out = true;
            let _ = kill_process_group(self.group, Signal::TERM);
        } else if taken > limit + GRACE {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
    }
}

/// Follows an output file that a child appends to.
struct Tail<'a> {
    file: File,
    offset: u64,
    partial: Vec<u8>,
    kept: String,
    label: &'a str,
    log: &'a RunLog,
    mask: Mask,
}

impl<'a> Tail<'a> {
    fn new(file: File, label: &'a str, log: &'a RunLog, mask: Mask) -> Self {
        Self { file, offset: 0, partial: Vec::new(), kept: String::new(), label, log, mask }
    }

    fn take(&mut self, taken: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        loop {
            let count = match self.file.read_at(&mut buffer, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if count == 0 {
                return Ok(());
            }
            self.offset += count as u64;
            for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
                self.partial.extend_from_slice(piece);
                if piece.ends_with(b"\n") || self.partial.len() > KEPT_BYTES {
                    self.line(taken);
                }
            }
        }
    }

    fn finish(&mut self, taken: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        self.take(taken)?;
        if !self.partial.is_empty() {
            self.line(taken);
        }
        Ok(())
    }

    fn line(&mut self, taken: &mut dyn FnMut(&[u8]) -> bool) {
        if taken(self.partial.strip_suffix(b"\n").unwrap_or(&self.partial)) {
            self.partial.clear();
            return;
        }
        let text = String::from_utf8_lossy(&self.partial);
        let masked = (self.mask)(text.trim_end_matches(['\n', '\r']));
        self.partial.clear();
        self.log.line(self.label, &masked);
        if self.kept.len() + masked.len() > KEPT_BYTES {
            let cut = self.kept.len() / 2;
            let cut = (cut..=self.kept.len()).find(|at| self.kept.is_char_boundary(*at)).unwrap_or(0);
            self.kept.drain(..cut);
        }
        self.kept.push_str(&masked);
        self.kept.push('\n');
    }
}

/// Which processes still hold the orphan lock, as pid and command line. Looks at `/proc/<pid>/fd`, since the kernel's
/// lock table names only the process that took the lock; at every descriptor, since a shell keeps its standard input
/// under another number while a loop reads from a file.
pub fn orphans(orphan_lock: &Path) -> Vec<(i32, String)> {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::symlink_metadata(orphan_lock) else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Of another user's process nothing can be said.
        let mut open = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        if open.any(|fd| {
            let file = std::fs::metadata(fd.path());
            file.is_ok_and(|file| (file.dev(), file.ino()) == (meta.dev(), meta.ino()))
        }) {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned()));
        }
    }
    found.sort_unstable();
    found
}

/// Whether a foreground descendant of an earlier run still holds the orphan lock.
pub fn orphan_lock_held(orphan_lock: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).open(orphan_lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(!try_lock(&file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bash(script: &str, limit: Option<Duration>) -> Call {
        Call {
            label: "bash".into(),
            program: "/bin/bash".into(),
            args: vec!["-c".into(), script.into()],
            cwd: "/".into(),
            set: BTreeMap::new(),
            unset: vec!["KYLIN_CONF".into()],
            time_limit: limit,
        }
    }

    fn with_shell(test: impl FnOnce(&OsShell<'_>, &Path)) {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::create(dir.path(), "test").unwrap();
        let mask: Mask = |line| line.replace("hunter2", "***");
        let lock = dir.path().join("child");
        test(&OsShell::new(lock.clone(), &log, mask, StopRequests::none()), &lock);
    }

    #[test]
    fn output_is_kept_masked_and_told_apart() {
        with_shell(|shell, lock| {
            let ran = shell.run(&bash("echo out hunter2; echo err >&2; printf tail; exit 3", None)).unwrap();
            assert_eq!(
                (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
                (Some(3), "out ***\ntail\n", "err\n")
            );
            let log = std::fs::read_to_string(shell.log.path()).unwrap();
            assert!(
                log.contains("out ***") && log.contains("exit code 3") && !log.contains("hunter2"),
                "{log}"
            );
            let names: Vec<_> =
                std::fs::read_dir(lock.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(names.iter().all(|name| !name.to_string_lossy().contains("output")), "{names:?}");
        });
    }

    #[test]
    fn a_foreground_descendant_holds_the_orphan_lock_and_a_daemon_does_not() {
        with_shell(|shell, lock| {
            let begun = Instant::now();
            // Kept in the foreground sense: it holds on to its parent's standard input.
            let script = "{ sleep 1000 <&3 & echo $!; } 3<&0";
            let ran = shell.run(&bash(script, None)).unwrap();
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "waits for the program, not for what it leaves"
            );
            let pid: i32 = ran.stdout.trim().parse().unwrap();
            assert!(orphan_lock_held(lock).unwrap());
            while !orphans(lock).iter().any(|(orphan, _)| *orphan == pid) {
                std::thread::yield_now();
            }
            let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            while orphans(lock).iter().any(|(orphan, _)| *orphan == pid) {
                std::thread::yield_now();
            }
        });
        with_shell(|shell, lock| {
            let ran = shell.run(&bash("sleep 1000 & echo $!", None)).unwrap();
            // The shell's child takes `/dev/null` just after it was forked.
            while orphan_lock_held(lock).unwrap() {
                std::thread::yield_now();
            }
            let _ = rustix::process::kill_process(
                Pid::from_raw(ran.stdout.trim().parse().unwrap()).unwrap(),
                Signal::KILL,
            );
        });
    }

    #[test]
    fn a_program_whose_time_is_up_is_ended() {
        with_shell(|shell, _| {
            let ran = shell.run(&bash("sleep 1000", Some(Duration::from_millis(1)))).unwrap();
            assert!(ran.timed_out);
            assert_eq!(ran.code, None);
        });
    }

    #[test]
    fn a_missing_program_is_an_error() {
        with_shell(|shell, _| {
            let call = Call { program: "/nowhere/at/all".into(), ..bash("", None) };
            assert_eq!(shell.run(&call).unwrap_err().kind(), io::ErrorKind::NotFound);
        });
    }
}
