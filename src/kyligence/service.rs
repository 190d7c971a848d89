//! Stopping, starting and asking the service of a home.
//!
//! `kylin.sh` tells little: `stop` exits 1 when nothing ran, and kills whatever process has the number in the pid file;
//! `start` exits 0 once a process was spawned, and even when it was ended before that. So nothing here trusts a code:
//! who runs is looked up in the process table, and readiness is an answer over HTTP.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::checkup::migration;
use super::home::Readiness;
use super::loopback::agent;
use super::process::{HomeProcess, Processes, Role, StalePidFile};
use super::secrets::mask_text;
use crate::effect::fs::{Fs, exists, read_end};
use crate::effect::shell::{Call, Ran, Shell};
use crate::effect::tree::{Context as _, atomic_write, parent_of};
use crate::raw_path::RawPath;

/// How long `kylin.sh stop` may take. Ten rounds of three seconds, the guardian before them.
const STOP_SCRIPT_LIMIT: Duration = Duration::from_mins(3);

/// How long `kylin.sh start` may take before it lets go of the server. A new home's environment check runs jobs.
const START_SCRIPT_LIMIT: Duration = Duration::from_mins(30);

/// How long a process may take to go after a stop script that failed: it may have been told to, or not at all.
const FAILED_STOP_LIMIT: Duration = Duration::from_secs(25);

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// So many looks in a row that find no server mean that it is gone.
const LOOKS_WITHOUT_A_SERVICE: u32 = 3;

/// Variables that the product's scripts would take from the caller and that must not reach them: some point to another
/// home, some switch parts of the scripts off. `JAVA_HOME` and `PATH` stay: without them a backup is empty and exits 0.
const FOREIGN_VARIABLES: [&str; 6] =
    ["KYLIN_CONF", "SPARK_HOME", "dir", "verbose", "kylin_hadoop_conf_dir", "reload_dependency"];

/// A wait was ended by a request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// What a home's service is handled with.
pub struct ServiceTools<'a> {
    /// Runs scripts.
    pub shell: &'a dyn Shell,
    /// Removes stale files.
    pub fs: &'a dyn Fs,
    /// Looks for the processes of the home.
    pub look: &'a dyn Fn() -> io::Result<Processes>,
    /// Waits, unless a stop is asked for.
    pub wait: &'a mut dyn FnMut(Duration) -> Result<(), Stopped>,
    /// Asks the service over HTTP.
    pub http: &'a dyn Fn(&Readiness) -> Answer,
    /// Told in a few words what is waited for and for how long already.
    pub progress: &'a mut dyn FnMut(&str, Duration),
}

/// Why the service is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The processes of the home could not be looked up.
    #[error("cannot look for the processes of `{home}`")]
    Look {
        /// The home.
        home: RawPath,
        /// Why.
        source: io::Error,
    },
    /// A script could not be run at all.
    #[error("cannot run `{program}`")]
    Script {
        /// The script.
        program: RawPath,
        /// Why.
        source: io::Error,
    },
    /// A stale file could not be removed or put right.
    #[error("cannot set the home's process files right")]
    Stale(#[source] io::Error),
    /// Processes stay.
    #[error(
        "the service of `{home}` still runs {waited_s} s after `kylin.sh stop` ({script}): process {}",
        numbers(left)
    )]
    StillRuns {
        /// The home.
        home: RawPath,
        /// How long was waited, in seconds.
        waited_s: u64,
        /// What the script did, in a word or two.
        script: String,
        /// Who is left.
        left: Vec<HomeProcess>,
    },
    /// A start of somebody else is under way.
    #[error("`{home}` is being started or used by another process: {}", numbers(who))]
    Busy {
        /// The home.
        home: RawPath,
        /// By whom.
        who: Vec<HomeProcess>,
    },
    /// The start left nobody running.
    #[error("`kylin.sh start` left no service running for `{home}` ({script}): {said}")]
    NotStarted {
        /// The home.
        home: RawPath,
        /// What the script did, in a word or two.
        script: String,
        /// The last line it wrote.
        said: String,
    },
    /// It ran and is gone.
    #[error("the service of `{home}` ended {after_s} s after its start; see `{home}/logs`")]
    Died {
        /// The home.
        home: RawPath,
        /// How long after, in seconds.
        after_s: u64,
    },
    /// The first start of release 3 could not migrate the metadata of release 2.
    #[error(
        "the new release could not migrate the metadata: {line}; it is left as it is; run `{home}/bin/kylin.sh \
         io.kyligence.kap.tool.migration.ProjectDictionaryMigrationCLI FIX` and resume, or abort"
    )]
    NotMigrated {
        /// The home.
        home: RawPath,
        /// The line of the log that says so.
        line: String,
    },
    /// It runs and does not answer.
    #[error(
        "the service of `{home}` runs but did not answer on port {port} within {waited_s} s (last: {last}); \
         it is left running"
    )]
    NotReady {
        /// The home.
        home: RawPath,
        /// The port that was asked.
        port: u16,
        /// How long was waited, in seconds.
        waited_s: u64,
        /// What it said last.
        last: String,
    },
    /// A stop was asked for while waiting.
    #[error("stopped on request while waiting for the service of `{home}`")]
    Interrupted {
        /// The home.
        home: RawPath,
    },
}

fn numbers(processes: &[HomeProcess]) -> String {
    processes.iter().map(|process| process.pid.to_string()).collect::<Vec<_>>().join(", ")
}

/// A call of one of a home's scripts, in the environment that they need: `KYLIN_HOME` in the script's own spelling, and
/// none of the variables that would lead it astray.
pub fn script_call(home: &Path, script: &str, args: &[&str], time_limit: Option<Duration>) -> Call {
    Call {
        label: [&[script], args].concat().join(" "),
        program: home.join("bin").join(script),
        args: args.iter().map(OsString::from).collect(),
        // Not the home: the server keeps this directory, and a tree with a process in it is no tree to swap.
        cwd: parent_of(home).to_owned(),
        set: [("KYLIN_HOME".into(), home.as_os_str().to_owned())].into(),
        unset: FOREIGN_VARIABLES.iter().map(OsString::from).collect(),
        time_limit,
    }
}

/// Stops the service of a home, and returns once no process of it is left, within `limit` after the script, or within
/// seconds after one that failed. Tools of
/// the product at work are waited for too; bystanders are not, or an editor could hold up an abort.
///
/// A pid file that names a stranger or nobody is removed first, and one that names the server is put in its place if it
/// runs: the script would kill the stranger and leave the server. Restartable: a service that is down already is fine.
pub fn stop(tools: &mut ServiceTools<'_>, home: &Path, limit: Duration) -> Result<(), ServiceError> {
    let before = look(tools, home)?;
    clear_stale(tools, home, &before)?;
    if at_work(&before).is_empty() {
        return Ok(());
    }
    name_services(tools, home, &before)?;
    let ran = run(tools, &script_call(home, "kylin.sh", &["stop"], Some(STOP_SCRIPT_LIMIT)))?;
    let limit = if ran.code == Some(0) { limit } else { limit.min(FAILED_STOP_LIMIT) };
    let mut waited = Duration::ZERO;
    loop {
        let now = look(tools, home)?;
        let left = at_work(&now);
        if left.is_empty() {
            // The scripts leave a pid file that has become stale.
            return clear_stale(tools, home, &now);
        }
        if waited >= limit {
            return Err(ServiceError::StillRuns {
                home: home.into(),
                waited_s: waited.as_secs(),
                script: how_it_ended(&ran),
                left,
            });
        }
        pause(tools, home, "the service to stop", &mut waited)?;
    }
}

/// Starts the service of a home unless it runs, and waits until it is ready.
pub fn start(
    tools: &mut ServiceTools<'_>,
    home: &Path,
    readiness: &Readiness,
    limit: Duration,
) -> Result<(), ServiceError> {
    let before = look(tools, home)?;
    // Lines of former starts say nothing of this one.
    let log = Log { path: home.join("logs/kylin.log"), from: log_bytes(tools.fs, home) };
    let mut since = None;
    if !before.service_runs() {
        since = Some(&log);
        let who = at_work(&before);
        if !who.is_empty() {
            // A start that is still checking the environment, a metadata tool: two at once spoil each other's work.
            return Err(ServiceError::Busy { home: home.into(), who });
        }
        clear_stale(tools, home, &before)?;
        // No script of this home is alive, so a lock is that of a start that was killed.
        remove_if_there(tools.fs, &home.join("LOCK"))?;
        let ran = run(tools, &script_call(home, "kylin.sh", &["start"], Some(START_SCRIPT_LIMIT)))?;
        await_process(tools, home, &ran)?;
    }
    ready(tools, home, readiness, limit, since)?;
    unlock(tools, home)
}

/// Removes the lock of a start that was killed once the server ran: left there, it would block the operator's next start
/// (reference F-8). That of a start at work stays, and that in a home whose service does not run.
///
/// # Errors
/// The processes or the lock cannot be looked at, or the lock cannot be removed.
pub fn unlock(tools: &ServiceTools<'_>, home: &Path) -> Result<(), ServiceError> {
    let lock = home.join("LOCK");
    if !exists(tools.fs, &lock).map_err(ServiceError::Stale)? {
        return Ok(());
    }
    let now = look(tools, home)?;
    let is_idle = now.found.iter().all(|process| process.role != Role::Tool);
    if is_idle && now.service_runs() { remove_if_there(tools.fs, &lock) } else { Ok(()) }
}

/// The service's log, from where it ended before the start.
struct Log {
    path: std::path::PathBuf,
    from: u64,
}

/// The longest part of a log that is searched at once.
const LOG_PART_BYTES: u64 = 4 << 20;

fn log_bytes(fs: &dyn Fs, home: &Path) -> u64 {
    fs.stat(&home.join("logs/kylin.log")).map_or(0, |meta| meta.size)
}

impl Log {
    /// What was written since. What cannot be read says nothing.
    fn read(&self, fs: &dyn Fs) -> String {
        read_end(fs, &self.path, self.from, LOG_PART_BYTES).unwrap_or_default()
    }
}

/// Waits until the service answers as a ready one does, at most `limit`. A migration of the metadata that the log says
/// has failed ends the wait: the service stays up and never answers.
fn ready(
    tools: &mut ServiceTools<'_>,
    home: &Path,
    readiness: &Readiness,
    limit: Duration,
    since: Option<&Log>,
) -> Result<(), ServiceError> {
    let mut waited = Duration::ZERO;
    let mut missed = 0;
    loop {
        // Asked first, looked for after: an answer counts only if the home's own process outlived it, as the port may
        // be another program's.
        let answer = (tools.http)(readiness);
        if !look(tools, home)?.service_runs() {
            // In the middle of its exec a process has neither command line nor environment, so one look proves nothing.
            missed += 1;
            if missed >= LOOKS_WITHOUT_A_SERVICE {
                return Err(ServiceError::Died { home: home.into(), after_s: waited.as_secs() });
            }
            pause(tools, home, "the service to answer", &mut waited)?;
            continue;
        }
        missed = 0;
        let last = match judge_answer(readiness, &answer) {
            Ok(()) => return Ok(()),
            Err(last) => last,
        };
        if let Some(log) = since.filter(|_| waited.as_secs() != (waited + LOOK_INTERVAL).as_secs())
            && let Some(Err(line)) = migration(&log.read(tools.fs))
        {
            let line = mask_text(line.trim());
            return Err(ServiceError::NotMigrated { home: home.into(), line });
        }
        if waited >= limit {
            return Err(ServiceError::NotReady {
                home: home.into(),
                port: readiness.port,
                waited_s: waited.as_secs(),
                last,
            });
        }
        pause(tools, home, "the service to answer", &mut waited)?;
    }
}

/// The script may return before the server is a process of its own: the product forks it in the background.
fn await_process(tools: &mut ServiceTools<'_>, home: &Path, ran: &Ran) -> Result<(), ServiceError> {
    let mut waited = Duration::ZERO;
    while !look(tools, home)?.service_runs() {
        if waited >= Duration::from_secs(10) || ran.code != Some(0) {
            let text = [ran.stdout.as_str(), ran.stderr.as_str()].concat();
            let said =
                text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it wrote nothing");
            return Err(ServiceError::NotStarted {
                home: home.into(),
                script: how_it_ended(ran),
                said: said.to_owned(),
            });
        }
        pause(tools, home, "the service's process", &mut waited)?;
    }
    Ok(())
}

/// Everybody but bystanders.
fn at_work(seen: &Processes) -> Vec<HomeProcess> {
    seen.found.iter().filter(|process| process.role != Role::Other).cloned().collect()
}

fn look(tools: &ServiceTools<'_>, home: &Path) -> Result<Processes, ServiceError> {
    (tools.look)().map_err(|source| ServiceError::Look { home: home.into(), source })
}

fn run(tools: &ServiceTools<'_>, call: &Call) -> Result<Ran, ServiceError> {
    let program = RawPath::from(call.program.as_path());
    tools.shell.run(call).map_err(|source| ServiceError::Script { program, source })
}

fn pause(
    tools: &mut ServiceTools<'_>,
    home: &Path,
    what: &str,
    waited: &mut Duration,
) -> Result<(), ServiceError> {
    (tools.progress)(what, *waited);
    (tools.wait)(LOOK_INTERVAL).map_err(|Stopped| ServiceError::Interrupted { home: home.into() })?;
    *waited += LOOK_INTERVAL;
    Ok(())
}

fn clear_stale(tools: &ServiceTools<'_>, home: &Path, seen: &Processes) -> Result<(), ServiceError> {
    for StalePidFile { file, .. } in &seen.stale {
        remove_if_there(tools.fs, &home.join(file))?;
    }
    Ok(())
}

/// The script stops whom the pid file names: the server and nobody else.
fn name_services(tools: &ServiceTools<'_>, home: &Path, seen: &Processes) -> Result<(), ServiceError> {
    let path = home.join("pid");
    if !seen.service_runs() || exists(tools.fs, &path).map_err(ServiceError::Stale)? {
        return Ok(());
    }
    let lines: Vec<String> = seen.services().map(|process| process.pid.to_string()).collect();
    atomic_write(tools.fs, &path, (lines.join("\n") + "\n").as_bytes(), 0o644).map_err(ServiceError::Stale)
}

fn remove_if_there(fs: &dyn Fs, path: &Path) -> Result<(), ServiceError> {
    let remove = || {
        if exists(fs, path).context("look at", path)? {
            fs.unlink(path).context("remove", path)?;
            fs.sync_dir(parent_of(path)).context("sync", parent_of(path))?;
        }
        Ok(())
    };
    remove().map_err(ServiceError::Stale)
}

/// How a script ended, in a word or two.
pub(super) fn how_it_ended(ran: &Ran) -> String {
    match (ran.timed_out, ran.code, ran.signal) {
        (true, _, _) => format!("ended by kytx after {} s", ran.took.as_secs()),
        (_, Some(code), _) => format!("exit code {code}"),
        (_, None, Some(signal)) => format!("ended by signal {signal}"),
        (_, None, None) => "ended without a code".to_owned(),
    }
}

/// What came back over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: refused, reset, too slow.
    Nothing(String),
    /// Somebody listens on a port where TLS is spoken.
    Listens,
    /// A status and the beginning of the body.
    Http {
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
}

/// Whether an answer is a ready service's; if not, what it was, in a few words.
pub fn judge_answer(readiness: &Readiness, answer: &Answer) -> Result<(), String> {
    match answer {
        Answer::Nothing(why) => Err(why.clone()),
        Answer::Http { status: 200, body } if readiness.health => {
            // A proxy or a half-started server answers 200 with a login page.
            let value: serde_json::Value =
                serde_json::from_str(body).map_err(|_| "a page instead of a health report".to_owned())?;
            match value.get("status").and_then(|status| status.as_str()) {
                Some("UP") => Ok(()),
                other => Err(format!("health is {}", other.unwrap_or("not reported"))),
            }
        }
        // kytx has no TLS stack: that somebody listens is the most that can be told there.
        Answer::Http { status: 200, .. } | Answer::Listens => Ok(()),
        Answer::Http { status, .. } => Err(format!("HTTP status {status}")),
    }
}

/// Asks the service of this host. Redirects are not followed: a ready service answers itself.
pub fn ask(readiness: &Readiness) -> Answer {
    if readiness.tls {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, readiness.port));
        return match TcpStream::connect_timeout(&address, Duration::from_secs(10)) {
            Ok(_) => Answer::Listens,
            Err(error) => Answer::Nothing(error.to_string()),
        };
    }
    let url = format!("http://127.0.0.1:{}{}", readiness.port, readiness.path);
    match agent(Duration::from_secs(10))
        .get(&url)
        .header("Accept", "application/json, text/html;q=0.5")
        .call()
    {
        Ok(mut response) => {
            let status = response.status().as_u16();
            match response.body_mut().with_config().limit(1 << 20).read_to_string() {
                Ok(body) => Answer::Http { status, body },
                Err(error) => Answer::Nothing(format!("the answer broke off: {error}")),
            }
        }
        Err(error) => Answer::Nothing(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
