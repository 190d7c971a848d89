//! Which jobs are not finished.
//!
//! A job that runs while the product is replaced is lost or half done, so none may be unfinished: not waiting, not
//! running, not paused, not failed. There are four ways to know. The service can be asked; its log says so every half
//! minute; the metadata backup that is made after the stop holds every job; the operator can say so. Only the third
//! cannot be overtaken by a job that somebody starts a moment later, so the upgrade always looks there; the others spare
//! a stop for nothing.

mod backup;
mod log;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rest::{Dialect, Rest, RestError};

pub use backup::unfinished_in_backup;
pub use log::{LogCounts, newest_counts};

/// Jobs in one page.
const PAGE: usize = 100;

/// Pages that are read at most: who has more unfinished jobs than this need not see the rest by name.
const PAGES_MAX: usize = 20;

/// Unfinished jobs that a message names.
const NAMED_MAX: usize = 10;

/// A job that is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its identifier.
    pub id: String,
    /// Its name; empty if it has none.
    pub name: String,
    /// Its status, in the product's word.
    pub status: String,
    /// Its project, where the product says.
    pub project: Option<String>,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, status, .. } = self;
        if name.is_empty() { write!(f, "{id} ({status})") } else { write!(f, "{id} `{name}` ({status})") }
    }
}

/// Some jobs in a sentence: the first few by name, and how many more.
pub fn named(jobs: &[Job], total: usize) -> String {
    let mut words: Vec<String> = jobs.iter().take(NAMED_MAX).map(Job::to_string).collect();
    let more = total.saturating_sub(words.len());
    if more > 0 {
        words.push(format!("{more} more"));
    }
    words.join(", ")
}

/// What the service says about unfinished jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// They, as far as they were read.
    pub jobs: Vec<Job>,
    /// How many there are.
    pub total: usize,
    /// Whether the question surely reached back to the first job ever.
    pub all_time: bool,
}

/// Jobs were found that are not finished, at a point where none may be.
#[derive(Debug, thiserror::Error)]
#[error("{} in the metadata backup {}: {}", count(.jobs.len()), if .jobs.len() == 1 { "is not finished" } else { "are not finished" }, named(.jobs, .jobs.len()))]
pub struct UnfinishedJobs {
    /// They.
    pub jobs: Vec<Job>,
}

/// So many jobs, in words.
pub fn count(jobs: usize) -> String {
    if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") }
}

/// Whether a job with this status will do nothing any more. An unknown word is that of an unfinished one.
pub fn is_final(status: &str) -> bool {
    ["SUCCEED", "FINISHED", "DISCARDED", "SUICIDAL"].iter().any(|word| status.eq_ignore_ascii_case(word))
}

/// Asks the service for the unfinished jobs of all projects, all types, all time.
///
/// "All time" is a trap: it is filter 5 in Kylin 3.0 to 4.0 and filter 4 elsewhere, where 4 means "last year" in Kylin 3
/// and 5 is an error in the others. Nobody knows which of them Kyligence Enterprise 3 has, so 5 is asked for first, and 4
/// if that is refused.
pub fn unfinished(rest: &Rest) -> Result<Asked, RestError> {
    match pages(rest, 5) {
        Err(error) if error.is_about_the_question() => {
            let mut asked = pages(rest, 4)?;
            // In the newest form 4 is surely all time; in the others an old failed job may be hidden from it.
            asked.all_time = rest.dialect == Dialect::V4;
            Ok(asked)
        }
        asked => asked,
    }
}

/// Discards an unfinished job. What it has done so far is lost.
pub fn discard(rest: &Rest, job: &Job) -> Result<(), RestError> {
    if rest.dialect == Dialect::V4 {
        let project = job.project.as_deref().ok_or(RestError::Shape { missing: "project of the job" })?;
        let body = json!({"action": "DISCARD", "project": project, "job_ids": [job.id], "statuses": []});
        return rest.put("/jobs/status", &body).map(drop);
    }
    rest.put(&format!("/jobs/{}/cancel", escaped(&job.id)), &json!({})).map(drop)
}

/// An identifier comes from the service, and must not become another path.
fn escaped(id: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    id.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn pages(rest: &Rest, time_filter: u8) -> Result<Asked, RestError> {
    let mut jobs = Vec::new();
    let mut seen = BTreeSet::new();
    let mut said = None;
    for page in 0..PAGES_MAX {
        let answer = rest.get(&question(rest.dialect, time_filter, page))?;
        let (listed, total) = page_of(rest.dialect, &answer)?;
        said = total;
        let length = listed.len();
        // A service that gives the same page for ever must not be asked for ever.
        let fresh: Vec<&Value> = listed.iter().filter(|job| seen.insert(text(job, "uuid", "id"))).collect();
        let is_last = fresh.is_empty() || length < PAGE || total.is_some_and(|total| seen.len() >= total);
        jobs.extend(fresh.into_iter().filter_map(unfinished_job));
        if is_last {
            break;
        }
    }
    // The status is asked for, so what the service counts is unfinished, unless everything it has listed is not.
    let listed_all = said.is_none_or(|total| seen.len() >= total);
    let total = if listed_all { jobs.len() } else { said.unwrap_or(0) - (seen.len() - jobs.len()) };
    Ok(Asked { jobs, total, all_time: true })
}

fn question(dialect: Dialect, time_filter: u8, page: usize) -> String {
    match dialect {
        // Statuses: new, pending, running, error, stopped.
        Dialect::V2 => format!(
            "/jobs?timeFilter={time_filter}&status=0,1,2,8,32&jobSearchMode=ALL&pageOffset={page}&pageSize={PAGE}"
        ),
        Dialect::Bare => format!(
            "/jobs?timeFilter={time_filter}&status=0&status=1&status=2&status=8&status=32&jobSearchMode=ALL&limit={PAGE}&offset={}",
            page * PAGE
        ),
        Dialect::V4 => format!(
            "/jobs?time_filter={time_filter}&statuses=PENDING,RUNNING,ERROR,STOPPED&page_offset={page}&page_size={PAGE}"
        ),
    }
}

/// The jobs of a page, and how many there are in all, where the service says.
fn page_of(dialect: Dialect, answer: &Value) -> Result<(&[Value], Option<usize>), RestError> {
    let (list, size) = match dialect {
        Dialect::Bare => {
            let jobs = answer.as_array().ok_or(RestError::Shape { missing: "list of jobs" })?;
            return Ok((jobs, None));
        }
        Dialect::V2 => ("jobs", "size"),
        Dialect::V4 => ("value", "total_size"),
    };
    let jobs =
        answer.get(list).and_then(Value::as_array).ok_or(RestError::Shape { missing: "list of jobs" })?;
    let size =
        answer.get(size).and_then(Value::as_u64).ok_or(RestError::Shape { missing: "number of jobs" })?;
    Ok((jobs, Some(usize::try_from(size).unwrap_or(usize::MAX))))
}

fn unfinished_job(value: &Value) -> Option<Job> {
    let status = text(value, "job_status", "status");
    if is_final(&status) {
        return None;
    }
    let project = value.get("project").and_then(Value::as_str).map(str::to_owned);
    Some(Job { id: text(value, "uuid", "id"), name: text(value, "name", "job_name"), status, project })
}

/// A field of a job that is text under one of two names. Control characters would garble the terminal.
fn text(value: &Value, name: &str, other: &str) -> String {
    let field = value.get(name).or_else(|| value.get(other)).and_then(Value::as_str).unwrap_or_default();
    field.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_its_list_and_its_number() {
        let v2 = json!({"size": 3, "jobs": [{"uuid": "a", "job_status": "ERROR", "name": "build"}]});
        let (jobs, total) = page_of(Dialect::V2, &v2).unwrap();
        assert_eq!((jobs.len(), total), (1, Some(3)));
        assert_eq!(unfinished_job(&jobs[0]).unwrap().to_string(), "a `build` (ERROR)");
        let (jobs, total) = page_of(Dialect::Bare, &Value::Array(vec![])).map(|(j, t)| (j.len(), t)).unwrap();
        assert_eq!((jobs, total), (0, None));
        for (dialect, answer) in [
            (Dialect::V2, json!({"size": 3})),
            (Dialect::V2, json!({"jobs": []})),
            (Dialect::V4, json!({"value": [], "total_size": "many"})),
            (Dialect::Bare, json!({"jobs": []})),
        ] {
            assert!(page_of(dialect, &answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_unknown_status_is_unfinished_and_a_final_one_is_not() {
        for word in ["ERROR", "STOPPED", "PENDING", "NEW", "READY", "", "SOMETHING_NEW"] {
            assert!(!is_final(word), "{word}");
        }
        for word in ["FINISHED", "SUCCEED", "DISCARDED", "SUICIDAL"] {
            assert!(is_final(word), "{word}");
            assert_eq!(unfinished_job(&json!({"uuid": "a", "job_status": word})), None);
        }
    }

    #[test]
    fn an_identifier_cannot_become_another_path() {
        assert_eq!(escaped("6f1e-3c_2a"), "6f1e-3c_2a");
        assert_eq!(escaped("../cubes?x=1"), "..%2Fcubes%3Fx%3D1");
    }

    #[test]
    fn many_jobs_are_named_in_part() {
        let job = |id: usize| Job {
            id: id.to_string(),
            name: String::new(),
            status: "ERROR".into(),
            project: None,
        };
        let jobs: Vec<Job> = (0..12).map(job).collect();
        assert!(named(&jobs, 30).ends_with("9 (ERROR), 20 more"));
        assert_eq!(named(&jobs[..1], 1), "0 (ERROR)");
        let error = UnfinishedJobs { jobs: jobs[..1].to_vec() };
        assert_eq!(error.to_string(), "1 job in the metadata backup is not finished: 0 (ERROR)");
    }
}
