//! Whether a service that runs is the right one and in order, level by level in growing strength.
//!
//! Only what was surely seen to be wrong is bad. What could not be asked is not known, and what may have another cause
//! (an error in the log, a project more than before) is doubtful: an upgrade is not undone for either.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::home::Home;
use super::process::Processes;
use super::rest::{Dialect, Rest, RestError};
use super::secrets::mask_text;
use super::service::{Answer, judge_answer};
use super::smoke::{Recorded, answer, difference};

/// Elements of a list that are read.
const LIST_MAX: usize = 20_000;

/// Names that a message lists.
const NAMED_MAX: usize = 10;

/// How much of a line of a log is repeated.
const QUOTED_CHARS: usize = 160;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A process of this home is the server.
    Process,
    /// What it writes.
    Log,
    /// It takes connections.
    Port,
    /// It answers as a ready one.
    Http,
    /// It is of the release that is in the home.
    Version,
    /// A user can log in.
    Login,
    /// The projects of the metadata backup are there.
    Projects,
    /// As many cubes as in the metadata backup.
    Cubes,
    /// The operator's queries have the same answers as before.
    Queries,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Look at it.
    Doubtful,
    /// Surely wrong.
    Bad,
    /// It could not be asked.
    Unknown,
}

/// One level, looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which.
    pub level: Level,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen, without secrets.
    pub what: String,
}

/// What the metadata backup holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The projects' names.
    pub projects: BTreeSet<String>,
    /// How many cubes; `None` where the generation has none.
    pub cubes: Option<usize>,
}

/// What is known without a user.
pub struct Seen<'a> {
    /// The home.
    pub home: &'a Home,
    /// Its processes, or why they are not known.
    pub processes: Result<&'a Processes, String>,
    /// What its log holds since the start, or why that is not known.
    pub log: Result<String, String>,
    /// Whether the first start of this release migrates the metadata.
    pub migrates: bool,
    /// Whether its port takes a connection.
    pub port: Result<(), String>,
    /// What it answers at the place by which it is known to be ready.
    pub answer: Answer,
    /// What it answers when it is asked for its version; `None` where this release has no such place.
    pub version: Option<Answer>,
}

/// Looks at the levels that need no user.
pub fn look(seen: &Seen<'_>) -> Vec<Check> {
    let mut checks = vec![process(seen), log(seen)];
    checks.push(match &seen.port {
        Ok(()) => good(Level::Port, format!("port {} takes connections", seen.home.readiness.port)),
        Err(why) => bad(Level::Port, format!("port {}: {why}", seen.home.readiness.port)),
    });
    checks.push(match (judge_answer(&seen.home.readiness, &seen.answer), &seen.answer) {
        (Ok(()), Answer::Listens) => unknown(Level::Http, "it speaks TLS, which kytx does not"),
        (Ok(()), _) => good(Level::Http, format!("`{}` answers", seen.home.readiness.path)),
        (Err(why), _) => bad(Level::Http, format!("`{}`: {why}", seen.home.readiness.path)),
    });
    checks.push(version(seen));
    checks
}

fn process(seen: &Seen<'_>) -> Check {
    match seen.processes.as_ref().map(|processes| processes.services().next()) {
        Err(why) => unknown(Level::Process, why.clone()),
        Ok(Some(service)) => good(Level::Process, format!("process {} is the server", service.pid)),
        Ok(None) => bad(Level::Process, "no server of this home runs"),
    }
}

/// The lines by which the first start of release 3 on metadata of release 2 says how its migration ended, of two
/// generations of the migration.
const MIGRATED: [&str; 2] =
    ["Segments have been upgraded successfully.", "Migrate project dictionary successfully"];
const NOT_MIGRATED: [&str; 2] =
    ["Upgrade failed. Please try to run bin/kylin.sh", "Run Project Dictionary Migration failed"];

/// How a metadata migration ended, by the last line that says it: `Ok` if well, `Err` with the line if not.
pub fn migration(log: &str) -> Option<Result<(), &str>> {
    log.lines().rev().find_map(|line| {
        if NOT_MIGRATED.iter().any(|words| line.contains(words)) {
            return Some(Err(line));
        }
        MIGRATED.iter().any(|words| line.contains(words)).then_some(Ok(()))
    })
}

fn log(seen: &Seen<'_>) -> Check {
    let text = match &seen.log {
        Ok(text) => text,
        Err(why) => return unknown(Level::Log, why.clone()),
    };
    match migration(text) {
        Some(Err(line)) => {
            let fix = "run `bin/kylin.sh io.kyligence.kap.tool.migration.ProjectDictionaryMigrationCLI FIX`, then \
                       start again, or abort";
            return bad(Level::Log, format!("the metadata were not migrated: {}; {fix}", quoted(line)));
        }
        None if seen.migrates => {
            return doubtful(Level::Log, "no line says yet that the metadata were migrated");
        }
        _ => {}
    }
    let errors: Vec<&str> = text.lines().filter(|line| is_error(line)).collect();
    match errors.first() {
        None => good(Level::Log, "no error in it since the start"),
        Some(first) => doubtful(
            Level::Log,
            format!("{} errors since the start, the first: {}", errors.len(), quoted(first)),
        ),
    }
}

/// The level is a word of its own near the front: `2026-03-14 01:02:03,004 ERROR [main] ...`.
fn is_error(line: &str) -> bool {
    line.split_whitespace().take(4).any(|word| word == "ERROR" || word == "FATAL" || word == "SEVERE:")
}

fn quoted(line: &str) -> String {
    let line: String = line.trim().chars().filter(|c| !c.is_control()).take(QUOTED_CHARS).collect();
    format!("`{}`", mask_text(&line))
}

fn version(seen: &Seen<'_>) -> Check {
    let Some(answer) = &seen.version else {
        return unknown(Level::Version, "this release cannot be asked for its version");
    };
    let said = match answer {
        Answer::Http { status: 200, body } => serde_json::from_str::<Value>(body).ok().and_then(|value| {
            let inner = value.get("data").unwrap_or(&value);
            inner.get("kylin.version").and_then(Value::as_str).map(str::to_owned)
        }),
        _ => None,
    };
    // Not every release of Kyligence Enterprise is known to have it.
    let Some(said) = said else { return unknown(Level::Version, "it does not say its version") };
    let own = &seen.home.identity.version.text;
    if said.split_whitespace().last() == Some(own.as_str()) {
        return good(Level::Version, format!("it is {own}"));
    }
    let said: String = said.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS).collect();
    bad(Level::Version, format!("it says `{said}`, and {own} is in the home: it runs since before the swap"))
}

/// Looks at the levels that need a user.
pub fn ask(rest: &Rest, expected: Option<&Expected>, before: Option<&[Recorded]>) -> Vec<Check> {
    let login = login(rest);
    let is_in = login.verdict == Verdict::Good;
    let mut checks = vec![login];
    if is_in {
        checks.push(match expected {
            Some(expected) => projects(rest, expected),
            None => unknown(Level::Projects, "there is no metadata backup to compare with"),
        });
        checks.push(match expected.and_then(|expected| expected.cubes) {
            Some(count) => cubes(rest, count),
            None => unknown(Level::Cubes, "there is no number of cubes to compare with"),
        });
        checks.extend(before.map(|before| queries(rest, before)));
    }
    checks
}

fn login(rest: &Rest) -> Check {
    match rest.post("/user/authentication", &json!({})) {
        Ok(_) => good(Level::Login, "the user is let in"),
        Err(RestError::NotAccepted { status }) => {
            bad(Level::Login, format!("the user is not let in (HTTP status {status})"))
        }
        Err(error @ RestError::Tls { .. }) => unknown(Level::Login, error.to_string()),
        Err(error) => bad(Level::Login, error.to_string()),
    }
}

fn projects(rest: &Rest, expected: &Expected) -> Check {
    let found = match rest.all("/projects", "projects", LIST_MAX) {
        Ok(found) => found,
        Err(error) => return bad(Level::Projects, error.to_string()),
    };
    let names: BTreeSet<String> =
        found.iter().filter_map(|project| Some(project.get("name")?.as_str()?.to_owned())).collect();
    let missing: Vec<_> = expected.projects.difference(&names).cloned().collect();
    let added: Vec<_> = names.difference(&expected.projects).cloned().collect();
    if !missing.is_empty() {
        let what = "of the metadata backup are not there, or not for this user to see";
        return bad(Level::Projects, format!("{} {what}: {}", missing.len(), listed(&missing)));
    }
    if !added.is_empty() {
        return doubtful(
            Level::Projects,
            format!("{} were made since the upgrade: {}", added.len(), listed(&added)),
        );
    }
    good(Level::Projects, format!("all {} of the metadata backup", names.len()))
}

fn listed(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(", ...");
    }
    text
}

fn cubes(rest: &Rest, expected: usize) -> Check {
    if rest.dialect == Dialect::V4 {
        return unknown(Level::Cubes, "this generation has models instead");
    }
    match rest.all("/cubes", "cubes", LIST_MAX).map(|cubes| cubes.len()) {
        Ok(count) if count == expected => good(Level::Cubes, format!("{count}, as in the metadata backup")),
        Ok(count) if count > expected => doubtful(Level::Cubes, format!("{count}, and {expected} before")),
        Ok(count) => bad(Level::Cubes, format!("{count}, and {expected} in the metadata backup")),
        Err(error) => bad(Level::Cubes, error.to_string()),
    }
}

fn queries(rest: &Rest, before: &[Recorded]) -> Check {
    let mut wrong = Vec::new();
    for recorded in before {
        let differs = match answer(rest, &recorded.statement) {
            Ok(now) => difference(recorded, &now),
            Err(why) => Some(why),
        };
        wrong.extend(differs.map(|what| format!("`{}`: {what}", recorded.statement.shown())));
    }
    match wrong.first() {
        None => good(Level::Queries, format!("{} with the same answers as before", before.len())),
        Some(first) => bad(Level::Queries, format!("{} of {} differ: {first}", wrong.len(), before.len())),
    }
}

fn good(level: Level, what: impl Into<String>) -> Check {
    Check { level, verdict: Verdict::Good, what: what.into() }
}

fn doubtful(level: Level, what: impl Into<String>) -> Check {
    Check { level, verdict: Verdict::Doubtful, what: what.into() }
}

fn bad(level: Level, what: impl Into<String>) -> Check {
    Check { level, verdict: Verdict::Bad, what: what.into() }
}

fn unknown(level: Level, what: impl Into<String>) -> Check {
    Check { level, verdict: Verdict::Unknown, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_ends_as_its_last_line_says() {
        assert_eq!(migration("x\ny\n"), None);
        let done = "INFO : Segments have been upgraded successfully.\nmore\n";
        assert_eq!(migration(done), Some(Ok(())));
        let failed = format!(
            "{done}ERROR : Upgrade failed. Please try to run bin/kylin.sh \
             io.kyligence.kap.tool.migration.ProjectDictionaryMigrationCLI FIX to fix.\n"
        );
        assert!(matches!(migration(&failed), Some(Err(_))));
        assert_eq!(migration(&format!("{failed}Migrate project dictionary successfully")), Some(Ok(())));
    }

    #[test]
    fn a_line_is_an_error_by_its_level() {
        assert!(is_error("2026-03-14 01:02:03,004 ERROR [main] x"));
        assert!(!is_error("2026-03-14 01:02:03,004 INFO  [main] a word like ERROR"));
        assert!(!is_error(""));
    }
}
