//! A process whose mounts, processes and addresses are its own, and go with it however it ends.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, wait};

use crate::support::is_alive;

/// The variable that tells the test binary to be a worker, and what to do.
const JOB: &str = "KYTX_POWER_JOB";

/// What a worker's line of result begins with.
const RESULT: &str = "power result: ";

/// Why no worker can be had here; `None` if one can.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("power cuts need root".to_owned());
    }
    for device in ["/dev/loop-control", "/dev/fuse"] {
        if let Err(error) = std::fs::File::options().read(true).write(true).open(device) {
            return Some(format!("`{device}` cannot be opened: {error}"));
        }
    }
    for (program, package) in
        [("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")]
    {
        if program_of_root(program).arg("-V").output().is_err() {
            return Some(format!("`{program}` is missing: install `{package}`"));
        }
    }
    let output = in_namespaces("true").output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no namespaces: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("`unshare` is missing: {error}: install `util-linux`")),
    }
}

/// A program that may be where only root looks.
pub fn program_of_root(program: &str) -> Command {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    let mut command = Command::new(program);
    command.env("PATH", path);
    command
}

/// Starts a worker.
#[allow(unsafe_code, reason = "what runs between fork and exec is one system call")]
pub fn spawn(job: &str) -> io::Result<Child> {
    let mut command = in_namespaces(std::env::current_exe()?);
    command
        .args(["--exact", "a_job_is_done", "--nocapture"])
        .env(JOB, job)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn()
}

/// Waits for a worker's result, and passes on what else it says.
pub fn result(mut worker: Child) -> Option<String> {
    let mut result = None;
    for line in BufReader::new(worker.stdout.take()?).lines().map_while(Result::ok) {
        match line.strip_prefix(RESULT) {
            Some(text) => result = Some(text.to_owned()),
            None if line.is_empty() || line.starts_with("running ") || line.starts_with("test ") => {}
            None => println!("{line}"),
        }
    }
    worker.wait().is_ok_and(|status| status.success()).then_some(result).flatten()
}

/// The job, in a worker.
pub fn job() -> Option<String> {
    std::env::var(JOB).ok()
}

/// Tells the result.
pub fn tell(result: &str) {
    println!("\n{RESULT}{result}");
}

/// Ends every process of the worker's namespace but itself and this one.
pub fn end_all(but: Option<i32>) {
    crate::support::wait_until("everything is dead", || {
        let mut is_quiet = true;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            if pid != std::process::id().cast_signed() && Some(pid) != but && is_alive(pid) {
                is_quiet = false;
                let _ = kill_process(Pid::from_raw(pid).expect("BUG: a process has a number"), Signal::KILL);
            }
        }
        is_quiet
    });
    // The first process of a namespace inherits the orphans.
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// The processes with this variable in their environment, and all that share a namespace with one that has it and is
/// not ours: each with when it started.
pub fn marked(variable: &str, value: &str) -> Vec<(i32, u64)> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let expected = format!("{variable}={value}");
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_marked = environment.split(|byte| *byte == 0).any(|found| found == expected.as_bytes());
        all.push((pid, is_marked, namespace(&pid.to_string())));
    }
    let ours = namespace("self");
    let theirs: Vec<_> = all
        .iter()
        .filter(|(_, is_marked, space)| *is_marked && *space != ours)
        .map(|(_, _, space)| space)
        .collect();
    let found =
        all.iter().filter(|(_, is_marked, space)| *is_marked || (space.is_some() && theirs.contains(&space)));
    found.filter_map(|(pid, ..)| Some((*pid, started(*pid)?))).collect()
}

/// When a process started, in ticks since the boot; `None` if it is gone. Numbers are given again within minutes.
pub fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which is in brackets and may hold anything: the state first, the start as the twentieth.
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

/// A command in namespaces of its own for mounts, processes and addresses. Each process of the chain dies with the one
/// before it, and what the namespaces hold with the last.
fn in_namespaces(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(program);
    command
}
