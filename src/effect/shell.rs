//! Other people's programs: the seam through which kytx runs the product's scripts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

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

/// Runs programs to their end.
pub trait Shell {
    /// Runs a program and waits for it, not for what it leaves in the background. An error means that it could not be
    /// run at all; what it did is for the caller to judge, and never by its exit code alone.
    fn run(&self, call: &Call) -> io::Result<Ran>;
}
