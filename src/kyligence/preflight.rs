//! Whether an upgrade may begin: a pure judgement of facts that the caller has gathered.
//!
//! Numbers such as P4 are those of the product's list of preconditions. What cannot be known from this machine is said
//! to be unknown, never passed over: "no instance runs on another node" is the operator's word.

mod cluster;
pub mod nodes;
pub mod procedure;
pub mod watchdogs;

use serde::{Deserialize, Serialize};

pub use cluster::ClusterFacts;

use super::home::{Layout, Package};
use super::java::Java;
use super::process::{HomeProcess, Processes, Role};
use super::version::{Identity, UpgradeKind, VersionRefusal};
use crate::raw_path::RawPath;

/// A precondition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CheckId {
    /// The old home is a home.
    P1,
    /// The package is a complete, newer package of the same kind.
    P2,
    /// Every job is finished.
    P3,
    /// Java 8 or newer, 64 bit.
    P4,
    /// No process of the product but the one that kytx stops.
    P5,
    /// Nothing brings the service back.
    P6,
    /// Grafana of the home is stopped.
    P7,
    /// Space on local disks.
    P8,
    /// Space on the cluster, and how the cube data can be kept there.
    P9,
    /// Old and new tree on one file system.
    P10,
    /// Permission, and the service's user.
    P11,
    /// Nobody else uses the old home.
    P12,
    /// The row filter is among the query transformers.
    P13,
    /// `hadoop` and `hdfs` can be run; the cluster answers and can be changed.
    P14,
    /// A Kerberos ticket.
    P15,
    /// A licence for the new release.
    P16,
    /// The metadata store can be reached.
    P17,
    /// The metadata are healthy.
    P18,
    /// No carried configuration names the path to which the package was unpacked.
    C1,
    /// The nodes of a cluster are upgraded in their order, and to the same release.
    C2,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The upgrade does not begin.
    Block,
    /// It may, and the operator should look first.
    Warn,
    /// Worth knowing.
    Note,
}

/// Whether a finding is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// It has been seen.
    Proved,
    /// The operator says so.
    Word,
    /// It cannot be known from here.
    Unknown,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which precondition.
    pub id: CheckId,
    /// How bad it is.
    pub severity: Severity,
    /// Whether it is certain.
    pub certain: Certainty,
    /// Whether the operator may go on in spite of it: only where that cannot lose data.
    pub overridable: bool,
    /// What is so.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// Space on one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// A directory on it.
    pub at: RawPath,
    /// What the upgrade will need there at most, in bytes.
    pub needed_bytes: u64,
    /// What is free there, in bytes, or why that is not known.
    pub free_bytes: Result<u64, String>,
}

/// What the caller has gathered.
#[derive(Debug)]
pub struct Facts {
    /// The old home's layout and release, or why it is none.
    pub home: Result<(Layout, Identity), String>,
    /// The package, or why it is none.
    pub package: Result<Package, String>,
    /// What `version::rule` says of the two. `None` if one of them is missing.
    pub upgrade: Option<Result<UpgradeKind, VersionRefusal>>,
    /// The Java that the service will use, or why it is not known.
    pub java: Result<Java, String>,
    /// What `java::fatal_above_java_8` finds in the scripts of the new release, the carried `conf/setenv.sh` in place of
    /// its own.
    pub fatal_java_options: Vec<&'static str>,
    /// The processes of the old home.
    pub processes: Processes,
    /// One entry a file system.
    pub space: Vec<Space>,
    /// Whether the home's parent and the spare tree's place are one file system.
    pub same_file_system: bool,
    /// Why entries cannot be made and renamed in the home's parent; `None` if they can.
    pub parent_closed: Option<String>,
    /// The user that kytx runs as.
    pub own_uid: u32,
    /// The user that owns the home.
    pub home_uid: u32,
    /// The user that the service runs as, if it runs and can be seen.
    pub service_uid: Option<u32>,
    /// What was asked of the cluster that holds the cube data, if they are to be kept.
    pub cluster: Option<ClusterFacts>,
}

/// Judges the facts. Sorted, the worst first.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    judge_trees(facts, &mut findings);
    judge_java(facts, &mut findings);
    judge_processes(&facts.processes, &mut findings);
    judge_space(&facts.space, &mut findings);
    judge_places(facts, &mut findings);
    if let Some(asked) = &facts.cluster {
        cluster::judge(asked, &mut findings);
    }
    sorted(findings)
}

/// What is wrong with carried configuration: files that name the path to which the package was unpacked, where nothing
/// will be after the swap.
pub fn judge_carried(unpacked: &[(RawPath, Vec<usize>)]) -> Vec<Finding> {
    let places: Vec<String> = unpacked
        .iter()
        .map(|(path, lines)| {
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            format!("`{path}`, line {}", lines.join(", "))
        })
        .collect();
    if places.is_empty() {
        return Vec::new();
    }
    vec![Finding {
        id: CheckId::C1,
        severity: Severity::Block,
        certain: Certainty::Proved,
        overridable: true,
        what: format!(
            "carried configuration names the path to which the package was unpacked, where nothing will be: {}",
            places.join("; ")
        ),
        fix: "name the home's own path there: the new release takes it".to_owned(),
    }]
}

/// The worst first, and then by their numbers.
pub fn sorted(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| (finding.severity, finding.id));
    findings
}

/// Whether one of the findings keeps the upgrade from beginning. `overridden` are those that the operator overrides;
/// one that may not be overridden counts all the same.
pub fn blocks(findings: &[Finding], overridden: &[CheckId]) -> bool {
    findings.iter().any(|finding| {
        finding.severity == Severity::Block && !(finding.overridable && overridden.contains(&finding.id))
    })
}

impl Finding {
    fn new(id: CheckId, severity: Severity, what: impl Into<String>, fix: impl Into<String>) -> Self {
        let (what, fix) = (what.into(), fix.into());
        Self { id, severity, certain: Certainty::Proved, overridable: false, what, fix }
    }

    fn unknown(self) -> Self {
        Self { certain: Certainty::Unknown, ..self }
    }

    fn overridable(self) -> Self {
        Self { overridable: true, ..self }
    }
}

fn judge_trees(facts: &Facts, findings: &mut Vec<Finding>) {
    use CheckId::{P1, P2};
    use Severity::{Block, Warn};
    if let Err(why) = &facts.home {
        findings.push(Finding::new(P1, Block, why, "give the path of the installed home"));
    }
    let package = match &facts.package {
        Ok(package) => package,
        Err(why) => {
            findings.push(Finding::new(P2, Block, why, "give the package as it was downloaded"));
            return;
        }
    };
    if package.lacks_upgrade_script {
        let what = "the package has no `bin/upgrade.sh`, which packages of its release have";
        findings.push(Finding::new(P2, Warn, what, "compare it with the vendor's checksum"));
    }
    let Ok((layout, old)) = &facts.home else { return };
    match &facts.upgrade {
        Some(Err(refusal)) => {
            let fix = match refusal {
                VersionRefusal::Same { .. } => "allow it with `--reinstall`, or give a newer package",
                VersionRefusal::OtherFlavour { .. } => "get the package for the installed Hadoop",
                _ => "get the package that follows the installed release",
            };
            findings.push(Finding::new(P2, Block, refusal.to_string(), fix));
        }
        Some(Ok(_)) if *layout != package.layout => {
            let what =
                "home and package have different servers, though their versions would follow each other";
            findings.push(Finding::new(P2, Block, what, "compare `VERSION` in both with what they hold"));
        }
        Some(Ok(_)) | None => {}
    }
    if old.flavour.is_none() != package.identity.flavour.is_none() {
        let what = "only one of home and package names its Hadoop flavour, so they cannot be compared";
        let fix = "make sure that the package is for this Hadoop";
        findings.push(Finding::new(P2, Warn, what, fix).unknown());
    }
}

fn judge_java(facts: &Facts, findings: &mut Vec<Finding>) {
    use CheckId::P4;
    use Severity::{Block, Note, Warn};
    let nodes = "whether the Hadoop nodes have Java 8 or newer cannot be seen from here";
    findings.push(Finding::new(P4, Note, nodes, "check them, at the same path on every node").unknown());
    let java = match &facts.java {
        Ok(java) => java,
        Err(why) => {
            let fix = "install Java 8, 64 bit, and set `JAVA_HOME`";
            findings.push(Finding::new(P4, Block, why, fix).unknown().overridable());
            return;
        }
    };
    if java.major < 8 {
        let what = format!("Java is {}, and the product needs 8 or newer", java.major);
        findings.push(Finding::new(P4, Block, what, "set `JAVA_HOME` to Java 8, 64 bit"));
    } else if !java.is_64_bit {
        let what = "Java is not a 64-bit one";
        findings.push(Finding::new(P4, Block, what, "set `JAVA_HOME` to Java 8, 64 bit"));
    }
    let on_tomcat = facts.home.as_ref().is_ok_and(|(layout, _)| *layout == Layout::Tomcat);
    if on_tomcat && java.major > 8 {
        if facts.fatal_java_options.is_empty() {
            let what = format!("Java is {}; releases on Tomcat are only known with 8", java.major);
            findings.push(Finding::new(P4, Warn, what, "set `JAVA_HOME` to Java 8"));
        } else {
            let options = facts.fatal_java_options.join("`, `");
            let what = format!("Java {} does not start with `{options}`, which the scripts use", java.major);
            let fix = "set `JAVA_HOME` to Java 8, or take the options out of `conf/setenv.sh`";
            findings.push(Finding::new(P4, Block, what, fix).overridable());
        }
    }
}

fn judge_processes(processes: &Processes, findings: &mut Vec<Finding>) {
    use CheckId::{P5, P12};
    use Severity::{Block, Note, Warn};
    let nodes = "whether an instance on another node uses the same metadata cannot be seen from here";
    findings.push(Finding::new(P5, Note, nodes, "stop every other instance before the upgrade").unknown());
    let others: Vec<&HomeProcess> =
        processes.found.iter().filter(|p| matches!(p.role, Role::Tool | Role::Other)).collect();
    for process in others {
        let what = format!(
            "process {} uses the old home, known by {}: `{}`",
            process.pid, process.known_by, process.command
        );
        findings.push(Finding::new(P12, Block, what, format!("end process {} or let it leave", process.pid)));
    }
    if processes.hidden > 0 {
        let what = format!("{} processes of other users could not be looked at", processes.hidden);
        let fix = "run kytx as the service's user or as root if one of them may use the home";
        findings.push(Finding::new(P12, Note, what, fix).unknown());
    }
    for stale in &processes.stale {
        let (severity, whom) = match stale.strangers.as_slice() {
            [] => (Note, "nobody who lives".to_owned()),
            [first, ..] => (Warn, format!("process {first}, which is not of this home")),
        };
        let what = format!("the process file `{}` names {whom}", stale.file);
        let fix =
            "nothing: kytx puts it right before it stops or starts the service, so that no stranger is ended";
        findings.push(Finding::new(P5, severity, what, fix));
    }
}

fn judge_space(spaces: &[Space], findings: &mut Vec<Finding>) {
    for space in spaces {
        let Space { at, needed_bytes, free_bytes } = space;
        // Other programs write too, and what is needed is an estimate: a tenth is little enough to ask for.
        let comfortable_bytes = needed_bytes.saturating_add(needed_bytes / 10);
        let free_bytes = match free_bytes {
            Ok(free_bytes) => *free_bytes,
            Err(why) => {
                let what = format!(
                    "how much of the {} MiB that are needed `{at}` has free is not known: {why}",
                    needed_bytes.div_ceil(1 << 20)
                );
                let fix = "look yourself (`df`); a disk that fills up stops the upgrade, which then goes on or back";
                findings.push(Finding::new(CheckId::P8, Severity::Warn, what, fix).unknown());
                continue;
            }
        };
        let severity = match free_bytes {
            free if free < *needed_bytes => Severity::Block,
            free if free < comfortable_bytes => Severity::Warn,
            _ => continue,
        };
        let what = format!(
            "`{at}` has {} MiB free, and {} MiB are needed",
            free_bytes >> 20,
            needed_bytes.div_ceil(1 << 20)
        );
        let fix = "free space there, or choose another place for the state directory";
        findings.push(Finding::new(CheckId::P8, severity, what, fix));
    }
}

fn judge_places(facts: &Facts, findings: &mut Vec<Finding>) {
    use CheckId::{P10, P11};
    use Severity::{Block, Warn};
    if !facts.same_file_system {
        let what = "the home and the place of the spare tree are on different file systems: one rename cannot swap them";
        let fix = "leave the state directory beside the home, or give one on its file system";
        findings.push(Finding::new(P10, Block, what, fix));
    }
    if let Some(why) = &facts.parent_closed {
        let what = format!("nothing can be created in the directory that holds the home: {why}");
        findings.push(Finding::new(
            P11,
            Block,
            what,
            "run kytx as a user who may, or change its permissions",
        ));
    }
    let Facts { own_uid, home_uid, service_uid, .. } = facts;
    if *own_uid != 0 && own_uid != home_uid {
        let what = format!("kytx runs as user {own_uid}, and the home belongs to user {home_uid}");
        let fix = "run kytx as the home's owner or as root; otherwise files change their owner";
        findings.push(Finding::new(P11, Block, what, fix));
    }
    if let Some(service_uid) = service_uid
        && service_uid != own_uid
    {
        // Even as root: a service started by root leaves files that its own user cannot write later.
        let what =
            format!("the service runs as user {service_uid}, and kytx would start it as user {own_uid}");
        let fix = format!("run kytx as user {service_uid}, or start the service yourself (`--no-start`)");
        findings.push(Finding::new(P11, Warn, what, fix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kyligence::process::StalePidFile;
    use crate::kyligence::version::rule;

    fn facts(old: &str, new: &str) -> Facts {
        let identity = |line: &str| Identity::parse(line.as_bytes()).unwrap();
        let (old, new) = (identity(old), identity(new));
        Facts {
            upgrade: Some(rule(&old, &new, false)),
            home: Ok((Layout::Tomcat, old)),
            package: Ok(Package { layout: Layout::Tomcat, identity: new, lacks_upgrade_script: false }),
            java: Ok(Java { major: 8, is_64_bit: true }),
            fatal_java_options: vec!["MaxPermSize"],
            processes: Processes::default(),
            space: vec![Space { at: "/opt".into(), needed_bytes: 10 << 20, free_bytes: Ok(20 << 20) }],
            same_file_system: true,
            parent_closed: None,
            own_uid: 1000,
            home_uid: 1000,
            service_uid: Some(1000),
            cluster: None,
        }
    }

    fn good() -> Facts {
        facts("Kyligence Enterprise 3.4.4", "Kyligence Enterprise 3.4.5")
    }

    fn worst(facts: &Facts) -> (CheckId, Severity) {
        let findings = judge(facts);
        (findings[0].id, findings[0].severity)
    }

    #[test]
    fn a_sound_machine_leaves_only_what_nobody_can_know() {
        let findings = judge(&good());
        assert!(findings.iter().all(|f| f.severity == Severity::Note && f.certain == Certainty::Unknown));
        assert!(!blocks(&findings, &[]));
    }

    #[test]
    fn each_broken_precondition_is_found() {
        use CheckId::{P1, P2, P4, P5, P8, P10, P11, P12};
        use Severity::{Block, Warn};
        type Spoil = fn(&mut Facts);
        let process = |role| HomeProcess {
            pid: 7,
            start_ticks: 1,
            role,
            known_by: "its working directory".into(),
            command: "tail".into(),
        };
        let cases: [(Spoil, CheckId, Severity); 16] = [
            (|f| f.home = Err("no home".into()), P1, Block),
            (|f| f.package = Err("no package".into()), P2, Block),
            (|f| f.package.as_mut().unwrap().layout = Layout::Server, P2, Block),
            (|f| f.package.as_mut().unwrap().lacks_upgrade_script = true, P2, Warn),
            (|f| f.package.as_mut().unwrap().identity.flavour = Some("fi".into()), P2, Warn),
            (|f| f.java = Err("cannot run `java`".into()), P4, Block),
            (|f| f.java = Ok(Java { major: 7, is_64_bit: true }), P4, Block),
            (|f| f.java = Ok(Java { major: 8, is_64_bit: false }), P4, Block),
            (|f| f.java = Ok(Java { major: 17, is_64_bit: true }), P4, Block),
            (|f| f.space[0].free_bytes = Ok(1 << 20), P8, Block),
            (|f| f.space[0].free_bytes = Ok((10 << 20) + 1), P8, Warn),
            (|f| f.space[0].free_bytes = Err("denied".into()), P8, Warn),
            (|f| f.same_file_system = false, P10, Block),
            (|f| f.parent_closed = Some(String::new()), P11, Block),
            (|f| f.home_uid = 1, P11, Block),
            (|f| f.service_uid = Some(1), P11, Warn),
        ];
        for (index, (spoil, id, severity)) in cases.into_iter().enumerate() {
            let mut facts = good();
            spoil(&mut facts);
            assert_eq!(worst(&facts), (id, severity), "case {index}");
        }
        let mut facts = good();
        facts.processes.found = vec![process(Role::Service), process(Role::Child)];
        assert!(!blocks(&judge(&facts), &[]), "the service itself is stopped by kytx");
        for role in [Role::Other, Role::Tool] {
            facts.processes.found.push(process(role));
            assert_eq!(worst(&facts), (P12, Block));
            facts.processes.found.pop();
        }
        facts.processes.found.clear();
        facts.processes.stale.push(StalePidFile { file: "pid".into(), strangers: vec![9], ours: vec![] });
        assert_eq!(worst(&facts), (P5, Warn));
    }

    #[test]
    fn a_version_refusal_blocks_with_its_explanation_and_cannot_be_overridden() {
        let findings = judge(&facts("Kyligence Enterprise 3.4.5", "Kyligence Enterprise 4.5.6"));
        assert!(findings[0].what.contains("migration"), "{}", findings[0].what);
        assert!(blocks(&findings, &[CheckId::P2]));
    }

    #[test]
    fn only_what_cannot_lose_data_is_overridable() {
        let mut facts = good();
        facts.java = Ok(Java { major: 17, is_64_bit: true });
        assert!(blocks(&judge(&facts), &[]) && !blocks(&judge(&facts), &[CheckId::P4]));
        facts.fatal_java_options.clear();
        assert!(!blocks(&judge(&facts), &[]), "the scripts have been made fit for it");
        facts.same_file_system = false;
        assert!(blocks(&judge(&facts), &[CheckId::P10]));
    }
}
