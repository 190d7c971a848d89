//! Looking whether the service that runs is the right one and in order: after the start, and with `kytx verify
//! --service` at any time.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::args::{OnUnhealthy, UpgradeArgs};
use super::error::CommandError;
use super::exit::Exit;
use super::facts;
use super::jobs::credentials;
use super::place::{Place, absolute};
use super::procedure;
use super::standing;
use crate::effect::fs::{Fs, exists, read_end, read_file};
use crate::effect::os::OsFs;
use crate::kyligence::checkup::{self, Check, Expected, Level, Seen, Verdict};
use crate::kyligence::home::{Home, Layout, Readiness};
use crate::kyligence::preflight::watchdogs::cleaners;
use crate::kyligence::rest::{Credentials, Rest};
use crate::kyligence::service;
use crate::kyligence::smoke::{self, Recorded};
use crate::raw_path::RawPath;
use crate::txn::{Header, Mutation, Phase, StepState, Txn};

/// The side file with the answers of before. Its name has it removed with the contents at the end.
pub const ANSWERS: &str = "content-answers.json";

/// The end of the log that is searched.
const LOG_END_BYTES: u64 = 16 << 20;

/// The longest file of statements, and of answers.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// How long a port may take to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How a service is looked at after the start, and what is done if it is not in order.
#[derive(Clone, Debug)]
pub struct Checkup {
    /// Who asks: nobody, or why not.
    pub credentials: Result<Option<Credentials>, String>,
    /// What to do about an unhealthy service.
    pub on_unhealthy: OnUnhealthy,
}

/// Answers the operator's queries before the stop. `None` if there are none.
pub fn record_answers(args: &UpgradeArgs, home: &Path) -> Result<Option<Vec<u8>>, CommandError> {
    let Some(file) = &args.smoke_query else { return Ok(None) };
    let refuse = |what: String| {
        CommandError::refused(what)
            .hint("put the statements right, or leave `--smoke-query` out: nothing is stopped yet")
    };
    let show = RawPath::from(file.as_path());
    let text = read_file(&OsFs, &absolute(file)?, FILE_LIMIT_BYTES)
        .map_err(|error| refuse(format!("cannot read `{show}`")).because(&error))?;
    let statements = smoke::parse(&String::from_utf8_lossy(&text))
        .map_err(|why| refuse(format!("`{show}` is no file of queries")).why(why))?;
    let home = Home::recognise(&OsFs, home)
        .map_err(|error| refuse("cannot read the home".to_owned()).because(&error))?;
    let who = credentials(&args.jobs)
        .and_then(|who| who.ok_or_else(|| "no user was given".to_owned()))
        .map_err(|why| refuse("cannot ask the service".to_owned()).why(why))?;
    let rest = Rest::of(&home, who);
    let mut answers = Vec::new();
    for statement in statements {
        let answer = smoke::answer(&rest, &statement).map_err(|why| {
            refuse(format!("the old release does not answer `{}`", statement.shown())).why(why)
        })?;
        answers.push(answer);
    }
    Ok(Some(serde_json::to_vec(&answers).expect("BUG: answers have a JSON form")))
}

/// Looks at the service of a home. `txn` is the open transaction, if there is one.
pub fn check(
    place: &Place,
    home: &Path,
    txn: Option<&Txn>,
    credentials: &Result<Option<Credentials>, String>,
) -> Result<Vec<Check>, CommandError> {
    let home = Home::recognise(&OsFs, home).map_err(|error| {
        CommandError::refused(format!("`{}` cannot be looked at", RawPath::from(home)))
            .because(&error)
            .hint("give the path of the installed home")
    })?;
    let processes = facts::processes(&home);
    let readiness = &home.readiness;
    let is_new = txn.is_some_and(|txn| txn.header().new_version == home.identity.version.text);
    let seen = Seen {
        home: &home,
        processes: processes.as_ref().map_err(ToString::to_string),
        log: log_of(&home.path),
        migrates: is_new && txn.is_some_and(|txn| migrates(txn.header())),
        port: connect(readiness.port),
        answer: service::ask(readiness),
        version: (home.layout == Layout::Tomcat && !readiness.tls).then(|| {
            let path = "/kylin/api/admin/version".to_owned();
            service::ask(&Readiness { path, health: false, ..readiness.clone() })
        }),
    };
    let mut checks = checkup::look(&seen);
    let is_up = checks.iter().all(|check| check.level != Level::Http || check.verdict == Verdict::Good);
    match credentials {
        Ok(None) => {}
        Err(why) => checks.push(not_known(Level::Login, why)),
        Ok(Some(_)) if !is_up => checks.push(not_known(Level::Login, "it does not answer")),
        Ok(Some(who)) => {
            let expected = txn.and_then(backup_of).map(|backup| expected(&backup, home.layout));
            let before = txn.and_then(|_| answers(place));
            checks.extend(checkup::ask(&Rest::of(&home, who.clone()), expected.as_ref(), before.as_deref()));
        }
    }
    Ok(checks)
}

fn not_known(level: Level, why: &str) -> Check {
    Check { level, verdict: Verdict::Unknown, what: why.to_owned() }
}

/// From release 2 to 3: the first start migrates the metadata.
pub fn migrates(header: &Header) -> bool {
    header.old_version.starts_with("2.") && header.new_version.starts_with("3.")
}

fn connect(port: u16) -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            tried => return tried.map(drop).map_err(|error| error.to_string()),
        }
    }
}

/// The new release's log begins with its first start, as the old one's logs lie apart.
fn log_of(home: &Path) -> Result<String, String> {
    let path = home.join("logs/kylin.log");
    read_end(&OsFs, &path, 0, LOG_END_BYTES)
        .map_err(|error| format!("cannot read `{}`: {error}", RawPath::from(path.as_path())))
}

/// The metadata backup that the open transaction has proven.
fn backup_of(txn: &Txn) -> Option<RawPath> {
    if matches!(txn.phase(), Phase::Ended(_) | Phase::Committing) { None } else { made_backup(txn) }
}

/// The metadata backup that a transaction has made, whatever has become of it.
pub fn made_backup(txn: &Txn) -> Option<RawPath> {
    txn.ids().find_map(|id| match (&txn.step(id)?.mutation, txn.state(id)) {
        (Mutation::BackUpMetadata { backup, .. }, StepState::Done { .. }) => Some(backup.clone()),
        _ => None,
    })
}

/// The names of projects and the number of cubes, by the files of the backup.
fn expected(backup: &RawPath, layout: Layout) -> Expected {
    let names = |folder: &str| -> Vec<String> {
        let names = OsFs.list(&backup.as_path().join(folder)).unwrap_or_default();
        let stem = |name: std::ffi::OsString| Some(name.to_str()?.strip_suffix(".json")?.to_owned());
        names.into_iter().filter_map(stem).collect()
    };
    match layout {
        Layout::Tomcat => {
            Expected { projects: names("project").into_iter().collect(), cubes: Some(names("cube").len()) }
        }
        Layout::Server => Expected { projects: names("_global/project").into_iter().collect(), cubes: None },
    }
}

fn answers(place: &Place) -> Option<Vec<Recorded>> {
    let path = place.state.plan().join(ANSWERS);
    if !exists(&OsFs, &path).unwrap_or(false) {
        return None;
    }
    serde_json::from_slice(&read_file(&OsFs, &path, FILE_LIMIT_BYTES).ok()?).ok()
}

/// Whether something is surely wrong.
pub fn is_bad(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.verdict == Verdict::Bad)
}

/// The levels, for people: the good ones in one line.
pub fn lines(checks: &[Check]) -> Vec<String> {
    let is_good = |check: &&Check| check.verdict == Verdict::Good;
    let good: Vec<String> = checks.iter().filter(is_good).map(|check| word(check.level)).collect();
    let mut lines = vec![format!(
        "Service in order: {}.",
        if good.is_empty() { "nothing".into() } else { good.join(", ") }
    )];
    let others = checks.iter().filter(|check| check.verdict != Verdict::Good);
    lines.extend(others.map(|check| format!("  {}", line(check))));
    lines
}

fn word(level: Level) -> String {
    let word = serde_json::to_value(level).expect("BUG: a level has a JSON form");
    word.as_str().unwrap_or_default().to_owned()
}

fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Good => "in order",
        Verdict::Bad => "NOT IN ORDER",
        Verdict::Doubtful => "look at it",
        Verdict::Unknown => "not known",
    };
    format!("{}: {verdict}: {}", word(check.level), check.what)
}

/// The upgrade is complete and its service is not in order. A machine that lost its power has no service any more, and
/// whether it may be started is the operator's to say: kytx starts it as a step, never on the side.
pub fn not_in_order(checks: &[Check], txn: &Txn, place: &Place) -> CommandError {
    let mut error = CommandError::new(Exit::Open, "the service is not in order");
    error.why = checks.iter().filter(|check| check.verdict != Verdict::Good).map(line).collect();
    error = error.state(standing::sentence(txn));
    if checks.iter().any(|check| check.level == Level::Process && check.verdict == Verdict::Bad) {
        error = error.hint(format!("{}/bin/kylin.sh start", txn.header().home));
    }
    error.hint(format!("{} --service", place.command("verify"))).hint(place.command("abort"))
}

/// What must not be done until the commit, and lines of crontabs that would do it.
pub fn reminder(home: &Path, named: Option<&Path>) -> Vec<String> {
    let mut lines = vec![
        "Until the commit run no garbage cleanup (`RoutineTool -c`, `metastore.sh clean`, storage cleanup): it \
         deletes what the way back needs."
            .to_owned(),
    ];
    let looked = Home::recognise(&OsFs, home).map_err(|error| error.to_string()).and_then(|home| {
        let processes = facts::processes(&home).map_err(|error| error.to_string())?;
        Ok((home, processes))
    });
    let (home, processes) = match looked {
        Ok(looked) => looked,
        Err(why) => {
            lines.push(format!("  whether something does so by itself could not be looked at: {why}"));
            return lines;
        }
    };
    if home.layout == Layout::Server {
        lines.push("  This generation cleans up by itself at midnight.".to_owned());
    }
    let seen = procedure::watchdogs(&home, named, &processes);
    for finding in cleaners(&seen) {
        lines.push(format!("  {}", finding.what));
        lines.push(format!("    do: {}", finding.fix));
    }
    lines
}
