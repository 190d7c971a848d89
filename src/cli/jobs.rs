//! Unfinished jobs before the upgrade: waiting for them, and discarding them. Both come before there is a transaction,
//! and what was discarded does not come back with an abort.

use std::path::Path;
use std::time::{Duration, Instant};

use super::args::JobsArgs;
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::terminal::{ONLY_YES, ask, tell};
use crate::effect::fs::read_file;
use crate::effect::os::OsFs;
use crate::effect::shell::PASSWORD_VARIABLE;
use crate::effect::signal::StopRequests;
use crate::kyligence::home::Home;
use crate::kyligence::jobs::{Asked, count, discard, named, unfinished};
use crate::kyligence::rest::{Credentials, Rest, RestError};
use crate::raw_path::RawPath;

/// The longest password.
const PASSWORD_LIMIT_BYTES: u64 = 4 << 10;

/// Time between two questions to the service.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How often a person who waits is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What is to be done about unfinished jobs before the upgrade.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settle {
    /// Discard them.
    pub discard: bool,
    /// Wait for them, so many seconds at most.
    pub wait_s: Option<u64>,
    /// Ask nothing.
    pub silent: bool,
}

/// Who asks the service: `None` if no user was given. The error says why the password is not known.
pub fn credentials(args: &JobsArgs) -> Result<Option<Credentials>, String> {
    let Some(user) = &args.user else { return Ok(None) };
    let password = match &args.password_file {
        Some(path) => from_file(path)?,
        None => std::env::var(PASSWORD_VARIABLE).map_err(|_| {
            format!("no password for `{user}`: give `--password-file` or set `{PASSWORD_VARIABLE}`")
        })?,
    };
    Ok(Some(Credentials::new(user, password)))
}

/// The first line, without its end.
fn from_file(path: &Path) -> Result<String, String> {
    let show = RawPath::from(path);
    let path = std::path::absolute(path).map_err(|error| format!("`{show}`: {error}"))?;
    let bytes = read_file(&OsFs, &path, PASSWORD_LIMIT_BYTES)
        .map_err(|error| format!("cannot read the password file `{show}`: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("the password file `{show}` is not UTF-8"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Waits for unfinished jobs, or discards them, as asked.
pub fn settle(
    settle: Settle,
    args: &JobsArgs,
    place: &Place,
    stop: &StopRequests,
) -> Result<(), CommandError> {
    if !settle.discard && settle.wait_s.is_none() {
        return Ok(());
    }
    let cannot = || {
        CommandError::refused("cannot ask the service for its jobs")
            .hint("start the service, and give `--user NAME` with `--password-file FILE`")
    };
    let path = place.home.as_deref().ok_or_else(cannot)?;
    let home = Home::recognise(&OsFs, path).map_err(|error| cannot().because(&error))?;
    let credentials = credentials(args)
        .map_err(|why| cannot().why(why))?
        .ok_or_else(|| cannot().why("no user was given"))?;
    let rest = Rest::of(&home, credentials);
    let failed = |error: RestError| cannot().because(&error);
    let asked = unfinished(&rest).map_err(failed)?;
    if settle.discard && asked.total > 0 {
        discard_all(&rest, &asked, settle.silent)?;
    }
    match settle.wait_s {
        Some(limit_s) => wait(&rest, limit_s, stop),
        None => Ok(()),
    }
}

fn discard_all(rest: &Rest, asked: &Asked, silent: bool) -> Result<(), CommandError> {
    tell(&format!("{} not finished: {}", count(asked.total), named(&asked.jobs, asked.total)));
    let question =
        format!("Discard {}? What they have done is lost, and no abort brings it back.", count(asked.total));
    if !silent && !ask(&question) {
        return Err(CommandError::refused("not begun: the jobs were not to be discarded")
            .why(ONLY_YES)
            .hint("leave `--discard-jobs` out, and let the jobs end"));
    }
    for job in &asked.jobs {
        discard(rest, job).map_err(|error| {
            CommandError::refused(format!("job {job} could not be discarded"))
                .because(&error)
                .state("The upgrade was not begun. Jobs named as discarded before are.")
                .hint("look at the job in the product's Monitor page")
        })?;
        tell(&format!("discarded {job}"));
    }
    Ok(())
}

fn wait(rest: &Rest, limit_s: u64, stop: &StopRequests) -> Result<(), CommandError> {
    let (begun, limit) = (Instant::now(), Duration::from_secs(limit_s));
    let mut told: Option<(Instant, usize)> = None;
    loop {
        let asked = unfinished(rest).map_err(|error| {
            CommandError::refused("the service stopped answering while kytx waited for its jobs")
                .because(&error)
                .hint("look at the service, and begin again")
        })?;
        if asked.total == 0 {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            return Err(CommandError::refused(format!(
                "{} not finished after {limit_s} s",
                count(asked.total)
            ))
            .why(named(&asked.jobs, asked.total))
            .hint("wait longer (`--wait-for-jobs=SECONDS`), or resume or discard them"));
        }
        if told.is_none_or(|(at, total)| total != asked.total || at.elapsed() >= TELL_EVERY) {
            told = Some((Instant::now(), asked.total));
            let list = named(&asked.jobs, asked.total);
            tell(&format!("waiting for {} ({} s): {list}", count(asked.total), begun.elapsed().as_secs()));
        }
        let until = Instant::now() + ASK_EVERY.min(limit.saturating_sub(begun.elapsed()));
        while Instant::now() < until {
            if stop.count() > 0 {
                return Err(CommandError::new(Exit::Interrupted, "interrupted while waiting for jobs")
                    .why("a signal came")
                    .state("Nothing was changed.")
                    .hint("begin again"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
