//! What the tests have in common: a machine that is gone when the test is, kytx run without the test's environment,
//! trees compared byte for byte, and kytx killed at a counted system call.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "each test uses a part of it; it touches test machines only"
)]

pub mod killer;
pub mod snapshot;

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use kytx::testbed::{Options, Scenario};

/// The longest that anything in a test may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The built kytx.
pub const KYTX: &str = env!("CARGO_BIN_EXE_kytx");

/// Options for a scenario whose service is in the built kytx.
pub fn options() -> Options {
    Options::new(KYTX)
}

/// A scenario in a directory of its own. Both, and every process of it, are gone after the test.
pub struct Machine {
    scenario: Scenario,
    dir: tempfile::TempDir,
}

impl Machine {
    /// Builds it.
    pub fn new(options: &Options) -> Self {
        let dir = tempfile::Builder::new().prefix("kytx-").tempdir().unwrap();
        let scenario = Scenario::build(dir.path(), options).unwrap();
        Self { scenario, dir }
    }

    /// kytx with these arguments, not yet run.
    pub fn kytx(&self, args: &[&str]) -> Command {
        let mut command = Command::new(KYTX);
        command.args(args).current_dir(&self.root);
        self.isolate(&mut command);
        command
    }

    /// Runs kytx with no input.
    #[must_use = "assert on the code, or on the output"]
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.kytx(args))
    }

    /// Runs one of the home's scripts with a shell of the caller's choice.
    #[must_use = "assert on the code, or on the output"]
    pub fn script_in(&self, shell: &str, script: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(shell);
        command.arg(self.script_home().join("bin").join(script)).args(args).current_dir(&self.root);
        self.isolate(&mut command);
        command.env("KYLIN_HOME", self.script_home());
        Ran::of(&mut command)
    }

    /// Runs one of the home's scripts.
    #[must_use = "assert on the code, or on the output"]
    pub fn script(&self, script: &str, args: &[&str]) -> Ran {
        self.script_in("sh", script, args)
    }

    fn isolate(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.root)
            .env("JAVA_HOME", &self.java_home)
            .env("TZ", "UTC")
            .env("LANG", "C")
            .env("LC_ALL", "C");
    }
}

impl Deref for Machine {
    type Target = Scenario;

    fn deref(&self) -> &Scenario {
        &self.scenario
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A panic in here would abort the whole test run and hide the failure that led to it.
        let _ = self.scenario.end_services();
        open_up(self.dir.path());
    }
}

/// What a program did.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; minus the signal's number if a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// Runs a command with no input to its end.
    pub fn of(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).output().unwrap().into()
    }

    /// The same, after a check of its exit code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let code = output.status.code().or(output.status.signal().map(|signal| -signal));
        Self {
            code: code.expect("BUG: a program ends by its code or by a signal"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits for something that another process does, and fails when it does not come about. What the test then asserts
/// never depends on how long it took.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether the process is there and not a zombie.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Makes every directory writable, as a scratch directory with read-only ones cannot be removed by its owner.
fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
