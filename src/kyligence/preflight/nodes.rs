//! The nodes of a cluster: upgraded in their order, and to the same release. Pure.
//!
//! Nodes share metadata and cube data, and each has a home of its own. So both are backed up once, by the primary node,
//! while every instance is down; no node takes the new release before these backups are proven; and no two releases
//! ever run on one metadata store.

use serde::{Deserialize, Serialize};

use super::{CheckId, Finding, Severity};
use crate::digest::Digest;
use crate::raw_path::RawPath;

/// What a node does in the upgrade of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It backs up metadata and cube data, and its start migrates them.
    Primary,
    /// It changes its own home only.
    Secondary,
}

/// How far a node is, as its own journal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodePhase {
    /// Its plan is not finished or its steps are not all done.
    Applying,
    /// All its steps are done.
    Applied,
    /// It is on the way back.
    Aborting,
    /// It is making the upgrade final, or has.
    Committed,
    /// It has the old release again.
    Aborted,
}

/// What a node leaves for the others to see: a copy of what its journal says, made when it begins to work and when it
/// comes to rest. It never says more than the journal; after a kill it may say less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `kytx.cluster.v1`.
    pub schema: String,
    /// What it does.
    pub role: Role,
    /// Its host.
    pub host: String,
    /// Its home there.
    pub home: RawPath,
    /// The port of its service.
    pub port: u16,
    /// The transaction.
    pub transaction: String,
    /// The release that it comes from.
    pub old_version: String,
    /// The release that it goes to.
    pub new_version: String,
    /// What the package held.
    pub content: Digest,
    /// How far it is.
    pub phase: NodePhase,
    /// Whether its backups of metadata and cube data are made and proven.
    pub backups_proven: bool,
    /// Why it was made final while another node was open, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_early: Option<String>,
}

impl Node {
    /// The node in words.
    pub fn shown(&self) -> String {
        format!("`{}` on `{}`", self.home, self.host)
    }

    /// Whether the node may have the new release, or be about to.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, NodePhase::Applying | NodePhase::Applied | NodePhase::Aborting)
    }
}

/// What was looked at.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// What this node is to do.
    pub role: Role,
    /// The release that it comes from.
    pub old_version: String,
    /// The release that it goes to.
    pub new_version: String,
    /// What its package holds.
    pub content: Digest,
    /// Whether its service runs.
    pub service_runs: bool,
    /// What the other nodes have left, or why that is not known.
    pub others: Result<Vec<Node>, String>,
    /// The instances of the cluster that the configuration names, this one apart; `None` if it names none.
    pub named: Option<Vec<String>>,
    /// Those of them that take connections.
    pub answering: Vec<String>,
}

/// Judges them.
pub fn judge(seen: &Nodes) -> Vec<Finding> {
    let others = match &seen.others {
        Ok(others) => others,
        Err(why) => {
            let fix = "upgrade without `--role`, every other instance stopped, one node after the other";
            return vec![block(format!("the state of the cluster cannot be kept: {why}"), fix)];
        }
    };
    match seen.role {
        Role::Primary => primary(seen, others),
        Role::Secondary => secondary(seen, others),
    }
}

fn block(what: String, fix: impl Into<String>) -> Finding {
    Finding::new(CheckId::C2, Severity::Block, what, fix)
}

fn primary(seen: &Nodes, others: &[Node]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(other) = others.iter().find(|node| node.role == Role::Primary && node.is_open()) {
        let what = format!("{} is the primary node of an open upgrade already", other.shown());
        findings.push(block(what, "begin here with `--role secondary`, or abort there"));
    }
    if !seen.answering.is_empty() {
        let what = format!(
            "other instances of the cluster take connections: {}; what they write after the backup would be lost",
            seen.answering.join(", ")
        );
        findings.push(block(what, "`kylin.sh stop` on each of them, and then begin here"));
    }
    if seen.named.is_none() {
        let what =
            "`kylin.server.cluster-servers` names no other instance, so none could be looked for".to_owned();
        let fix = "make sure that every other instance is stopped";
        findings.push(Finding::new(CheckId::C2, Severity::Note, what, fix).unknown());
    }
    findings
}

fn secondary(seen: &Nodes, others: &[Node]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let good = |node: &&Node| match node.phase {
        NodePhase::Applying | NodePhase::Applied => node.backups_proven,
        // The new release is final there, and needs no backups any more.
        NodePhase::Committed => true,
        NodePhase::Aborting | NodePhase::Aborted => false,
    };
    let primaries = || others.iter().filter(|node| node.role == Role::Primary);
    match primaries().find(good) {
        None => {
            let why = match primaries().next() {
                None => "no node has begun as the primary".to_owned(),
                Some(node) => format!("{} is the primary, and its backups are not proven", node.shown()),
            };
            let fix =
                "`kytx begin --role primary` there first, up to its end or to `--stop-before exchange-trees`";
            findings.push(block(format!("the metadata of the cluster are not backed up: {why}"), fix));
        }
        Some(node) if node.new_version != seen.new_version || node.content != seen.content => {
            let what = format!(
                "{} goes to {}, and this package is {} with another content or version: two releases must not run on one \
                 metadata store",
                node.shown(),
                node.new_version,
                seen.new_version
            );
            findings.push(block(what, "give the very package that the primary node was given"));
        }
        Some(node) if node.old_version != seen.old_version => {
            let what = format!(
                "{} came from {}, and this node has {}: they did not run together",
                node.shown(),
                node.old_version,
                seen.old_version
            );
            findings.push(block(what, "find out which cluster this home belongs to"));
        }
        Some(_) => {}
    }
    if seen.service_runs {
        let what = "the service of this node runs, though every instance must have been down while the primary node \
                    made its backups"
            .to_owned();
        findings
            .push(block(what, "stop it; what it wrote since the backups is lost if the upgrade is undone"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role, phase: NodePhase, proven: bool) -> Node {
        Node {
            schema: "kytx.cluster.v1".into(),
            role,
            host: "n1".into(),
            home: "/opt/ke".into(),
            port: 7070,
            transaction: "0".into(),
            old_version: "3.4.2".into(),
            new_version: "3.4.5".into(),
            content: Digest::ZERO,
            phase,
            backups_proven: proven,
            committed_early: None,
        }
    }

    fn seen(role: Role, others: Vec<Node>) -> Nodes {
        Nodes {
            role,
            old_version: "3.4.2".into(),
            new_version: "3.4.5".into(),
            content: Digest::ZERO,
            service_runs: false,
            others: Ok(others),
            named: Some(Vec::new()),
            answering: Vec::new(),
        }
    }

    #[test]
    fn a_secondary_waits_for_proven_backups_of_the_same_upgrade() {
        use NodePhase::{Aborted, Aborting, Applied, Applying, Committed};
        for (phase, proven, blocked) in [
            (Applying, false, true),
            (Applying, true, false),
            (Applied, true, false),
            (Committed, true, false),
            (Aborting, true, true),
            (Aborted, true, true),
        ] {
            let found = judge(&seen(Role::Secondary, vec![node(Role::Primary, phase, proven)]));
            assert_eq!(!found.is_empty(), blocked, "{phase:?} {proven} {found:?}");
        }
        assert_eq!(judge(&seen(Role::Secondary, vec![])).len(), 1);
        let mut other = seen(Role::Secondary, vec![node(Role::Primary, Applied, true)]);
        other.new_version = "3.4.6".into();
        assert!(judge(&other)[0].what.contains("two releases"));
        other.new_version = "3.4.5".into();
        other.old_version = "3.4.1".into();
        assert!(judge(&other)[0].what.contains("did not run together"));
        other.old_version = "3.4.2".into();
        other.service_runs = true;
        assert_eq!(judge(&other).len(), 1);
    }

    #[test]
    fn a_primary_is_the_only_one_and_alone() {
        assert_eq!(judge(&seen(Role::Primary, vec![node(Role::Primary, NodePhase::Aborted, true)])), []);
        assert_eq!(judge(&seen(Role::Primary, vec![node(Role::Primary, NodePhase::Applied, true)])).len(), 1);
        let mut answered = seen(Role::Primary, vec![]);
        answered.answering = vec!["n2:7070".into()];
        assert_eq!(judge(&answered)[0].severity, Severity::Block);
        answered.answering.clear();
        answered.named = None;
        assert_eq!(judge(&answered)[0].severity, Severity::Note);
        answered.others = Err("it is on HDFS".into());
        assert_eq!(judge(&answered)[0].severity, Severity::Block);
    }
}
