//! Whether the cube data on a cluster can be kept and put back: a pure judgement, like that of the machine.

use super::{CheckId, Finding, Severity};
use crate::raw_path::RawPath;

/// What was asked of a cluster. An `Err` is an answer that could not be had, in words.
#[derive(Debug)]
pub struct ClusterFacts {
    /// The cube data of this instance.
    pub source: RawPath,
    /// kytx's directory for all transactions.
    pub root: RawPath,
    /// Whether the cube data can be listed.
    pub reached: Result<(), String>,
    /// Whether the NameNode is in safe mode.
    pub safe_mode: Result<bool, String>,
    /// Bytes that are free in the file system.
    pub free_bytes: Result<u64, String>,
    /// What a copy will need, replicas counted; 0 if none is to be made.
    pub needed_bytes: u64,
    /// Names that a copy will need.
    pub needed_names: u64,
    /// What quotas of a directory above kytx's own still allow: directory, bytes, names.
    pub quotas: Vec<(RawPath, Option<i64>, Option<i64>)>,
    /// Files below the source that are open for writing.
    pub open_files: Result<Vec<String>, String>,
    /// Whether this user may make snapshots of the source.
    pub snapshottable: bool,
    /// Whether a snapshot is to be made, and a copy.
    pub wanted: (bool, bool),
    /// The directory in which kytx's own must be made, and whether it can; `None` where that cannot be asked.
    pub writable: (RawPath, Option<bool>),
    /// Whether YARN answers, which runs the copy.
    pub yarn: Result<(), String>,
    /// The scheme, if a directory is not renamed in one act there.
    pub no_atomic_rename: Option<String>,
}

/// Judges what was found.
pub fn judge(facts: &ClusterFacts, findings: &mut Vec<Finding>) {
    judge_reach(facts, findings);
    judge_keeping(facts, findings);
    if facts.wanted.1 {
        judge_space(facts, findings);
        judge_copying(facts, findings);
    }
}

fn judge_reach(facts: &ClusterFacts, findings: &mut Vec<Finding>) {
    use CheckId::P14;
    use Severity::{Block, Note};
    let source = &facts.source;
    if let Err(why) = &facts.reached {
        let what = format!("the cube data `{source}` cannot be reached: {why}");
        let fix = "see what `hadoop fs -ls` says of it; get a ticket (`kinit`) if the cluster wants one";
        findings.push(Finding::new(P14, Block, what, fix));
    }
    match &facts.safe_mode {
        Ok(false) => {}
        Ok(true) => {
            let what = "the NameNode is in safe mode: nothing on the cluster can be changed";
            let fix = "wait until `hdfs dfsadmin -safemode get` says OFF, or find out why it is ON";
            findings.push(Finding::new(P14, Block, what, fix));
        }
        Err(why) => {
            let what = format!("whether the NameNode is in safe mode is not known: {why}");
            findings.push(Finding::new(P14, Note, what, "hdfs dfsadmin -safemode get").unknown());
        }
    }
    match &facts.open_files {
        Ok(open) if !open.is_empty() => {
            let what =
                format!("{} files below `{source}` are open for writing, such as `{}`", open.len(), open[0]);
            let fix = "let running jobs end before the upgrade: a file that is open after the stop fails the backup";
            findings.push(Finding::new(P14, Note, what, fix));
        }
        _ => {}
    }
}

fn judge_keeping(facts: &ClusterFacts, findings: &mut Vec<Finding>) {
    use CheckId::P9;
    use Severity::{Block, Note};
    let source = &facts.source;
    match (facts.snapshottable, facts.wanted) {
        (false, (true, _)) => {
            let what = format!("this user cannot make snapshots of `{source}`");
            let fix = format!(
                "let an administrator type `hdfs dfsadmin -allowSnapshot {source}`, or say `--cube-backup distcp`"
            );
            findings.push(Finding::new(P9, Block, what, fix));
        }
        (false, (false, true)) => {
            let what =
                format!("`{source}` is not snapshottable, so its data are copied: that takes time and space");
            let fix = format!(
                "nothing; or `hdfs dfsadmin -allowSnapshot {source}` by an administrator, for a backup in a moment"
            );
            findings.push(Finding::new(P9, Note, what, fix));
        }
        _ => {}
    }
    if let Some(scheme) = &facts.no_atomic_rename {
        let what = format!(
            "`{scheme}` does not rename a directory in one act, so that a copy there could be taken for whole when it is not"
        );
        let fix = "copy the cube data by hand (`hadoop distcp`), then add `--cube-backup none`";
        findings.push(Finding::new(P9, Block, what, fix));
    }
}

fn judge_space(facts: &ClusterFacts, findings: &mut Vec<Finding>) {
    use CheckId::P9;
    use Severity::{Block, Note, Warn};
    // New segments until the stop, and other users: a tenth is little enough.
    let comfortable = facts.needed_bytes.saturating_add(facts.needed_bytes / 10);
    let judge = |at: &str, free: u64| {
        let severity = match free {
            free if free < facts.needed_bytes => Block,
            free if free < comfortable => Warn,
            _ => return None,
        };
        let what = format!(
            "{at} has {} MiB free, and a copy of the cube data needs {} MiB, replicas counted",
            free >> 20,
            facts.needed_bytes.div_ceil(1 << 20)
        );
        let fix = "free space there, choose another place with `--hdfs-root`, or use a snapshot";
        Some(Finding::new(P9, severity, what, fix))
    };
    match &facts.free_bytes {
        Ok(free) => findings.extend(judge("the cluster", *free)),
        Err(why) => {
            let what = format!("how much space the cluster has is not known: {why}");
            findings.push(Finding::new(P9, Note, what, "hadoop fs -df").unknown());
        }
    }
    for (dir, bytes, _) in &facts.quotas {
        if let Some(bytes) = bytes {
            findings
                .extend(judge(&format!("the space quota of `{dir}`"), u64::try_from(*bytes).unwrap_or(0)));
        }
    }
    for (dir, _, names) in &facts.quotas {
        if names.is_some_and(|names| u64::try_from(names).unwrap_or(0) < facts.needed_names) {
            let what = format!(
                "the name quota of `{dir}` leaves less than the {} names of a copy",
                facts.needed_names
            );
            let fix = "let an administrator raise it (`hdfs dfsadmin -setQuota`), or use a snapshot";
            findings.push(Finding::new(P9, Block, what, fix));
        }
    }
}

fn judge_copying(facts: &ClusterFacts, findings: &mut Vec<Finding>) {
    use CheckId::{P11, P14};
    use Severity::{Block, Note};
    let (dir, writable) = &facts.writable;
    match writable {
        Some(true) => {}
        Some(false) => {
            let what = format!("this user cannot write to `{dir}`, where `{}` is to be made", facts.root);
            let fix = "choose a directory of this user's with `--hdfs-root`, or have it made";
            findings.push(Finding::new(P11, Block, what, fix));
        }
        None => {
            let what = format!("whether this user may write to `{dir}` cannot be asked");
            findings.push(
                Finding::new(P11, Note, what, "hadoop fs -touchz a file there, and remove it").unknown(),
            );
        }
    }
    if let Err(why) = &facts.yarn {
        let what = format!("YARN, which runs the copy, does not answer: {why}");
        findings.push(Finding::new(P14, Block, what, "see what `yarn application -list` says"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ClusterFacts {
        ClusterFacts {
            source: "hdfs://ns/kylin/m".into(),
            root: "hdfs://ns/kylin/_kytx".into(),
            reached: Ok(()),
            safe_mode: Ok(false),
            free_bytes: Ok(100 << 20),
            needed_bytes: 50 << 20,
            needed_names: 10,
            quotas: vec![("/kylin".into(), Some(60 << 20), Some(11)), ("/".into(), None, None)],
            open_files: Ok(Vec::new()),
            snapshottable: true,
            wanted: (false, true),
            writable: ("/kylin".into(), Some(true)),
            yarn: Ok(()),
            no_atomic_rename: None,
        }
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_and_nothing_else() {
        use CheckId::{P9, P11, P14};
        use Severity::{Block, Note, Warn};
        type Spoil = fn(&mut ClusterFacts);
        let cases: [(Spoil, CheckId, Severity); 14] = [
            (|f| f.reached = Err("no route".into()), P14, Block),
            (|f| f.safe_mode = Ok(true), P14, Block),
            (|f| f.safe_mode = Err("denied".into()), P14, Note),
            (|f| f.open_files = Ok(vec!["/x".into()]), P14, Note),
            (|f| f.free_bytes = Ok(49 << 20), P9, Block),
            (|f| f.free_bytes = Ok(51 << 20), P9, Warn),
            (|f| f.free_bytes = Err("denied".into()), P9, Note),
            (|f| f.quotas[0].1 = Some(-5), P9, Block),
            (|f| f.quotas[0].2 = Some(9), P9, Block),
            (|f| f.snapshottable = false, P9, Note),
            (|f| (f.snapshottable, f.wanted) = (false, (true, false)), P9, Block),
            (|f| f.writable.1 = Some(false), P11, Block),
            (|f| f.yarn = Err("refused".into()), P14, Block),
            (|f| f.no_atomic_rename = Some("s3a".into()), P9, Block),
        ];
        let mut none = Vec::new();
        judge(&good(), &mut none);
        assert_eq!(none, []);
        for (at, (spoil, id, severity)) in cases.into_iter().enumerate() {
            let (mut facts, mut found) = (good(), Vec::new());
            spoil(&mut facts);
            judge(&facts, &mut found);
            assert_eq!(found.len(), 1, "case {at}: {found:?}");
            assert_eq!((found[0].id, found[0].severity), (id, severity), "case {at}");
            assert!(!found[0].fix.is_empty());
        }
    }

    #[test]
    fn a_snapshot_needs_neither_space_nor_jobs() {
        let mut facts = good();
        facts.wanted = (true, false);
        facts.free_bytes = Ok(0);
        facts.quotas[0].1 = Some(0);
        facts.yarn = Err("refused".into());
        let mut found = Vec::new();
        judge(&facts, &mut found);
        assert_eq!(found, []);
    }
}
