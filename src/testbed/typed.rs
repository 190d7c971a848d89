//! kytx as somebody types it on a test machine: run to its end, or started and killed.

#![allow(clippy::disallowed_methods, reason = "it runs kytx on test machines, not programs on customers'")]

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Scenario;

/// How long a started kytx may take to get where it is waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// Types commands of one kytx on one machine.
pub struct Typist<'a> {
    program: PathBuf,
    machine: &'a Scenario,
}

impl<'a> Typist<'a> {
    /// `program` is the kytx to run.
    pub fn new(program: PathBuf, machine: &'a Scenario) -> Self {
        Self { program, machine }
    }

    /// Runs a command to its end, its output where kytx' own goes, and returns the exit code.
    pub fn run(&self, args: &[&str]) -> io::Result<Option<i32>> {
        Ok(self.command(args).status()?.code())
    }

    /// Starts a command, waits until a file appears, and kills the command with SIGKILL. Returns its process id.
    pub fn kill_when(&self, args: &[&str], reached: &Path) -> io::Result<u32> {
        let mut child = self.command(args).spawn()?;
        let waited = wait_for(&mut child, reached);
        let pid = child.id();
        child.kill()?;
        child.wait()?;
        waited.map(|()| pid)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null()).env("JAVA_HOME", &self.machine.java_home);
        // The machine's home is named on every command line.
        command.env_remove("KYLIN_HOME").env_remove("KYLIN_CONF");
        command
    }
}

fn wait_for(child: &mut Child, reached: &Path) -> io::Result<()> {
    let begun = Instant::now();
    while !reached.exists() {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("kytx ended before it could be killed: {status}")));
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
