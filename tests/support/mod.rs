//! What the tests have in common: a machine that is gone when the test is, kytx run without the test's environment,
//! trees compared byte for byte, and kytx killed at a counted system call.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "each test uses a part of it; it touches test machines only, and a grid prints what it explored"
)]

pub mod calls;
pub mod census;
pub mod commands;
pub mod injector;
pub mod killer;
pub mod product;
pub mod random;
pub mod snapshot;
pub mod tracer;
pub mod verdict;
pub mod volume;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use kytx::testbed::{Layout, Options, Scenario};

/// The longest that anything in a test may take before the test fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The built kytx: the one that `KYTX_BINARY` names, as the grids are run on the release build, or else the one built
/// for the tests.
pub fn kytx_binary() -> &'static str {
    static BINARY: LazyLock<String> = LazyLock::new(|| {
        std::env::var("KYTX_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_kytx").to_owned())
    });
    &BINARY
}

/// Options for a scenario whose service is in the built kytx.
pub fn options() -> Options {
    Options::new(kytx_binary())
}

/// A scenario in a directory of its own. Both, and every process of it, are gone after the test.
pub struct Machine {
    scenario: Scenario,
    dir: tempfile::TempDir,
}

impl Machine {
    /// Builds it.
    pub fn new(options: &Options) -> Self {
        Self::within(&std::env::temp_dir(), options)
    }

    /// Builds it in a directory of its own below this one.
    pub fn within(parent: &Path, options: &Options) -> Self {
        Self::of(tempfile::Builder::new().prefix("kytx-").tempdir_in(parent).unwrap(), options)
    }

    /// Builds it in this directory.
    pub fn of(dir: tempfile::TempDir, options: &Options) -> Self {
        let scenario = Scenario::build(dir.path(), options).unwrap();
        Self { scenario, dir }
    }

    /// kytx with these arguments, not yet run.
    pub fn kytx(&self, args: &[&str]) -> Command {
        let mut command = Command::new(kytx_binary());
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
    pub fn script_in(&self, shell: impl AsRef<OsStr>, script: &str, args: &[&str]) -> Ran {
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

    /// Starts the service with the home's own script and waits until it answers; returns its process id.
    #[track_caller]
    pub fn start(&self) -> i32 {
        self.script("kylin.sh", &["start"]).expect_code(0);
        wait_until("the service is ready", || self.is_ready());
        self.pid()
    }

    /// What the pid file names; the last line, as KE 4 appends.
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.home.join("pid")).unwrap().lines().last().unwrap().parse().unwrap()
    }

    /// Whether the service answers as one that is ready.
    pub fn is_ready(&self) -> bool {
        let path = if self.options.layout == Layout::Ke4 { "/kylin/api/health" } else { "/kylin/" };
        self.ask(path, "").is_some_and(|answer| answer.status == 200)
    }

    /// Asks the service; `None` if it gives no answer. Each header ends in a line end of its own.
    pub fn ask(&self, path: &str, headers: &str) -> Option<Answer> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
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

/// The header with the default account's credentials.
pub const ADMIN: &str = "Authorization: Basic QURNSU46S1lMSU4=\r\n";

/// What the service answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Everything before the body.
    pub head: String,
    /// The body.
    pub body: String,
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
