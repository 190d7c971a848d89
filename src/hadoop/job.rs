//! DistCp jobs: started, followed, found again, awaited.
//!
//! The death of the client does not stop a copy: the job lives in YARN and is found by its tag, which it has before it is
//! started. And "not listed" does not prove that a job is over: a ResourceManager may have forgotten it. So each
//! attempt copies into a directory with a number of its own, to which the one before is renamed: a job that is still
//! alive somewhere loses its target and can publish nothing into it any more.

use std::time::Duration;

use super::cluster::{Cluster, ClusterError, failed};
use super::parse::{self, Application};
use crate::effect::shell::{Attendant, Ran, ending};
use crate::raw_path::RawPath;

/// How long a question to YARN may take: with nobody there its client tries for a quarter of an hour.
const ASK_LIMIT: Duration = Duration::from_secs(90);

/// A copy, `-update -delete`: afterwards the target holds what the source holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The transaction's name, lower-case hexadecimal: YARN stores tags in lower case.
    pub txn: String,
    /// What the copy is for, in a word: `copy`, `restore`.
    pub what: &'static str,
    /// The number of the attempt.
    pub generation: u32,
    /// What is kept beside the content.
    pub keep: Keep,
}

/// What a copy keeps beside content, replication, block size, permissions, checksum type and times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Owner and group: only where every one of them may be given.
    pub owner: bool,
    /// Access lists: only where there are any, as a file system without them refuses.
    pub acl: bool,
}

/// How the client of a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With the job, which succeeded.
    Well,
    /// It was left, as a stop was asked for. The job runs on if YARN has it already.
    Left {
        /// Whether it has.
        submitted: bool,
    },
    /// Otherwise. What has become of the job is for YARN to say.
    Otherwise(String),
}

impl Job {
    /// The tag of every job of a transaction.
    pub fn tag(txn: &str) -> String {
        format!("kytx-{txn}")
    }

    /// The job's name, as `yarn application -list` shows it behind `distcp: `.
    pub fn name(&self) -> String {
        format!("kytx-{}-{}-e{}", self.txn, self.what, self.generation)
    }

    fn flags(&self) -> String {
        let mut flags = "-prbpct".to_owned();
        if self.keep.owner {
            flags.push_str("ug");
        }
        if self.keep.acl {
            flags.push('a');
        }
        flags
    }
}

/// Follows the client of a job.
pub struct Following<'a> {
    /// Whether a stop was asked for.
    pub stop_requested: &'a dyn Fn() -> bool,
    /// Told how much is done, in percent, when that changes.
    pub told: &'a dyn Fn(u32),
    percent: u32,
    submitted: bool,
    left: bool,
    over: bool,
}

impl<'a> Following<'a> {
    /// Follows from the beginning.
    pub fn new(stop_requested: &'a dyn Fn() -> bool, told: &'a dyn Fn(u32)) -> Self {
        Self { stop_requested, told, percent: 0, submitted: false, left: false, over: false }
    }
}

impl Attendant for Following<'_> {
    fn hears(&mut self, line: &str) {
        self.submitted |= line.contains("Submitted application");
        self.over |= line.contains("completed successfully");
        if let Some(percent) = parse::map_percent(line)
            && percent != self.percent
        {
            self.percent = percent;
            (self.told)(percent);
        }
    }

    fn ends(&mut self) -> bool {
        // Once the job is over the client has a second to go.
        self.left |= !self.over && (self.stop_requested)();
        self.left
    }
}

impl Cluster<'_> {
    /// Starts a job and follows it.
    pub fn distcp(
        &self,
        job: &Job,
        source: &RawPath,
        target: &RawPath,
        following: &mut Following<'_>,
    ) -> Result<Ended, ClusterError> {
        let tag = Job::tag(&job.txn);
        let tags = format!("-Dmapreduce.job.tags={tag},{tag}-e{}", job.generation);
        let name = format!("-Dmapreduce.job.name={}", job.name());
        let words =
            ["distcp", &tags, &name, "-Dmapreduce.map.maxattempts=4", "-update", "-delete", &job.flags()];
        let call = self.call("hadoop", &words, &[source.clone(), target.clone()], None);
        let ran = self.attend(&call, following)?;
        Ok(match ran.code {
            Some(0) => Ended::Well,
            _ if following.left => Ended::Left { submitted: following.submitted },
            _ => Ended::Otherwise(format!("{}: {}", ending(&ran), reason(&ran))),
        })
    }

    /// Every job of a transaction that YARN knows, whatever its state.
    pub fn jobs(&self, txn: &str) -> Result<Vec<Application>, ClusterError> {
        let tag = Job::tag(txn);
        let words = ["application", "-list", "-appTags", &tag, "-appStates", "ALL"];
        let ran = self.attend(&self.call("yarn", &words, &[], Some(ASK_LIMIT)), &mut Nobody)?;
        parse::applications(&ran.stdout).ok_or_else(|| failed("yarn", &words, &ran))
    }

    /// Asks YARN to end a job. Whether it has ended is for [`Cluster::jobs`] to say.
    pub fn kill_job(&self, id: &str) -> Result<(), ClusterError> {
        let words = ["application", "-kill", id];
        self.attend(&self.call("yarn", &words, &[], Some(ASK_LIMIT)), &mut Nobody)?;
        Ok(())
    }
}

struct Nobody;

impl Attendant for Nobody {}

/// Why a job failed: the client's log buries it below traces, and ends with a sentence that says nothing. What one of its
/// tasks said of a file comes first, with the innermost cause.
fn reason(ran: &Ran) -> String {
    let lines: Vec<&str> = ran.stderr.lines().map(str::trim).collect();
    if let Some(at) = lines.iter().rposition(|line| line.contains("File copy failed: ")) {
        let file = lines[at].split("File copy failed: ").nth(1).unwrap_or_default();
        let trace = |line: &&&str| line.starts_with("Caused by: ") || line.starts_with("at ");
        let causes = lines[at + 1..].iter().take_while(|line| trace(line) || line.starts_with("... "));
        let cause = causes.filter(|line| line.starts_with("Caused by: ")).last();
        return format!(
            "{file}: {}",
            cause.map_or(lines[at], |cause| cause.trim_start_matches("Caused by: "))
        );
    }
    let tells = |line: &&&str| {
        ["Caused by: ", "Exception: ", "ERROR tools.DistCp", "under construction"]
            .iter()
            .any(|mark| line.contains(mark))
            && !line.starts_with("at ")
    };
    let said = lines.iter().rfind(tells);
    said.map_or_else(|| parse::complaint(&ran.stderr), |line| (*line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_flags_say_what_a_job_is() {
        let job =
            |owner, acl| Job { txn: "00ff".into(), what: "copy", generation: 3, keep: Keep { owner, acl } };
        assert_eq!(
            (Job::tag("00ff"), job(false, false).name()),
            ("kytx-00ff".into(), "kytx-00ff-copy-e3".into())
        );
        assert_eq!([job(false, false).flags(), job(true, true).flags()], ["-prbpct", "-prbpctuga"]);
    }

    #[test]
    fn a_client_is_left_when_a_stop_is_asked_for_but_not_at_its_end() {
        let told = std::cell::Cell::new(0);
        let tell = |percent| told.set(percent);
        let mut following = Following::new(&|| true, &tell);
        following.hears("2026-11-24 12:09:03,193 INFO mapreduce.Job:  map 67% reduce 0%");
        assert!(following.ends() && told.get() == 67);
        let mut following = Following::new(&|| true, &tell);
        following.hears("INFO mapreduce.Job: Job job_1_1 completed successfully");
        assert!(!following.ends());
    }

    /// What the client of 3.3.6 printed for a file that somebody was writing, traces shortened.
    #[test]
    fn a_failure_names_the_file_and_the_innermost_cause() {
        let stderr = include_str!("../../tests/fixtures/distcp-open-file.txt").to_owned();
        let ran = Ran {
            code: Some(25),
            signal: None,
            timed_out: false,
            stdout: String::new(),
            stderr,
            took: Duration::ZERO,
        };
        assert_eq!(
            reason(&ran),
            "hdfs://127.0.0.1:11240/cap/src/open.parquet --> hdfs://127.0.0.1:11240/cap/t/open.parquet: \
             java.io.IOException: Fail to get checksum, since file /cap/src/open.parquet is under construction."
        );
    }
}
