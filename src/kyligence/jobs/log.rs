//! The line of the service's log that counts jobs. It is written by the scheduler every half minute, and its wording
//! changes from release to release, so it is read as pairs of a number and words. Pure.

use std::collections::BTreeMap;

/// How the lines of all releases begin, after time and thread.
const MARKS: [&str; 3] = ["JobFetcher", "Job Fetcher:", "Job Status in project"];

/// Words for jobs that will do nothing any more; every other word is that of an unfinished one.
const FINAL_WORDS: [&str; 4] = ["succeed", "already succeed", "discarded", "suicidal"];

/// What the newest counting lines say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Counts of unfinished jobs above zero, such as `2 running`, each once.
    pub unfinished: Vec<String>,
}

/// Reads the newest counting line of each project, or of all where they are not told apart. `None` if there is none.
pub fn newest_counts(log: &str) -> Option<LogCounts> {
    let mut newest: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for line in log.lines() {
        if let Some((project, pairs)) = counting_line(line) {
            newest.insert(project, pairs);
        }
    }
    if newest.is_empty() {
        return None;
    }
    let mut unfinished: Vec<String> = Vec::new();
    for (project, pairs) in newest {
        for (number, words) in pairs {
            if number > 0 && !FINAL_WORDS.contains(&words) {
                let of = if project.is_empty() { String::new() } else { format!(" in project {project}") };
                unfinished.push(format!("{number} {words}{of}"));
            }
        }
    }
    Some(LogCounts { unfinished })
}

/// The project, if one is named, and the pairs of a line that counts jobs.
fn counting_line(line: &str) -> Option<(&str, Vec<(u64, &str)>)> {
    let (mark, at) = MARKS.iter().find_map(|mark| Some((*mark, line.find(mark)?)))?;
    let tail = &line[at + mark.len()..];
    let project = match mark {
        "Job Status in project" => tail.split_once(':')?.0.trim(),
        _ => "",
    };
    let pairs: Vec<(u64, &str)> = tail.split(',').filter_map(pair).collect();
    // A line that merely mentions the scheduler has no such list.
    let counts = pairs.iter().any(|(_, words)| words.ends_with("succeed"));
    (counts && pairs.len() >= 3).then_some((project, pairs))
}

/// The last number of a piece and the words after it.
fn pair(piece: &str) -> Option<(u64, &str)> {
    let piece = piece.trim().trim_end_matches('.');
    let (at, word) = piece
        .split_ascii_whitespace()
        .map(|word| (word.as_ptr() as usize - piece.as_ptr() as usize, word))
        .rfind(|(_, word)| word.bytes().all(|b| b.is_ascii_digit()))?;
    let words = piece[at + word.len()..].trim();
    let plain = !words.is_empty() && words.bytes().all(|b| b.is_ascii_alphabetic() || b == b' ');
    plain.then(|| Some((word.parse().ok()?, words)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const KE3: &str = "2026-03-14 01:02:03,004 INFO  [JobFetcher-7] threadpool : RUN running, 0 scheduled, \
                       0 actual running, 0 stopped, 0 ready, 0 waiting, 12 succeed, 0 error, 3 discarded";
    const KYLIN3: &str = "2026-03-14 01:02:03,004 INFO  [pool-7-thread-1] threadpool.DefaultFetcherRunner:117 : Job Fetcher: \
                          RUN should running, 0 actual running, 0 stopped, 0 ready, 5 already succeed, 0 error, 1 discarded, 0 others";
    const PRIORITY: &str = "INFO Priority Job Fetcher: RUN running, 0 actual running, 0 stopped, 0 ready, 0 waiting, 5 already succeed, \
                            0 error, 1 discarded, 0 others";
    const KYLIN5: &str = "INFO [Scheduler] Job Status in project 7: RUN should running, 0 actual running, 0 stopped, 0 ready, \
                          9 already succeed, 0 error, 1 discarded, 2 suicidal, 0 others";

    #[test]
    fn lines_of_every_generation_are_read() {
        for line in [KE3, KYLIN3, PRIORITY, KYLIN5] {
            let idle = line.replace("RUN", "0");
            assert_eq!(newest_counts(&idle), Some(LogCounts::default()), "{idle}");
            let busy = line.replace("RUN", "2");
            let counts = newest_counts(&busy).unwrap();
            assert_eq!(counts.unfinished.len(), 1, "{busy}");
            assert!(counts.unfinished[0].starts_with("2 "), "{counts:?}");
            let failed = idle.replace("0 error", "1 error");
            assert!(newest_counts(&failed).unwrap().unfinished[0].starts_with("1 error"), "{failed}");
        }
    }

    #[test]
    fn the_newest_line_counts_for_each_project_apart() {
        let log = [KE3.replace("RUN", "4"), KE3.replace("RUN", "0")].join("\n");
        assert_eq!(newest_counts(&log), Some(LogCounts::default()));
        let other = KYLIN5.replace("project 7", "project sales").replace("RUN", "0");
        let log = [KYLIN5.replace("RUN", "3"), other].join("\n");
        assert_eq!(newest_counts(&log).unwrap().unfinished, ["3 should running in project 7"]);
    }

    #[test]
    fn what_only_mentions_the_scheduler_counts_nothing() {
        for line in
            ["", "INFO [JobFetcher-7] started", "Job Fetcher: 1 succeed", "0 running, 0 error, 1 succeed"]
        {
            assert_eq!(newest_counts(line), None, "{line}");
        }
    }
}
