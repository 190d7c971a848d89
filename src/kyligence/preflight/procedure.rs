//! The preconditions of the manual's procedure that are not about trees, space and processes: jobs, what brings a
//! stopped service back, the query transformers, programs, the ticket, the licence, the metadata store. Pure.

use super::watchdogs::{self, Watchdogs};
use super::{Certainty, CheckId, Finding, Severity};
use crate::kyligence::jobs::{Asked, LogCounts, count, named};
use crate::kyligence::version::{Generation, Identity, Product};

/// What the caller has gathered.
#[derive(Clone, Debug)]
pub struct Procedure {
    /// The installed release.
    pub old: Identity,
    /// The new release.
    pub new: Identity,
    /// What is known about jobs.
    pub jobs: Jobs,
    /// What may bring a stopped service back.
    pub watchdogs: Watchdogs,
    /// Living processes of the home that its `grafana/pid` names.
    pub grafana: Vec<u32>,
    /// `kylin.query.transformers`, where it is set.
    pub transformers: Option<String>,
    /// Programs that the product's scripts need and that were tried. Empty where the home needs no cluster.
    pub programs: Vec<Tried>,
    /// The Kerberos ticket, where the home needs one.
    pub ticket: Option<Ticket>,
    /// The licence.
    pub licence: Licence,
    /// The metadata store.
    pub store: StoreSeen,
}

/// What is known about jobs.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    /// Whether the service runs, so that there is somebody to ask.
    pub service_runs: bool,
    /// What the service said, if it was asked; or why it could not be asked.
    pub asked: Option<Result<Asked, String>>,
    /// What its log counted last.
    pub log: Option<LogCounts>,
    /// Whether the operator says that every job is finished.
    pub word: bool,
}

/// A program that was tried.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Its name.
    pub name: &'static str,
    /// How it was tried: the words of the command.
    pub how: String,
    /// Whether the metadata tool makes empty backups without it.
    pub needed: bool,
    /// What is wrong with it.
    pub result: Result<(), String>,
}

/// A Kerberos ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Whether `klist -s` finds one that is valid; or why it could not be asked.
    pub valid: Result<bool, String>,
    /// The command that gets one.
    pub kinit: String,
    /// Whether kytx can type it: principal and keytab are configured and there, and so is the program.
    pub from_keytab: bool,
}

/// The licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Licence {
    /// Whether the operator gives one for the new release.
    pub given: bool,
    /// Whether the old home has one that is not empty.
    pub installed: bool,
}

/// What can be seen of the metadata store without a command of the product's: those delete live entries when the
/// working directory cannot be reached.
#[derive(Clone, Debug)]
pub enum StoreSeen {
    /// It takes connections, or its directory is there.
    There,
    /// It does not.
    Away {
        /// What was tried, and how it failed.
        why: String,
    },
    /// It cannot be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Judges them.
pub fn judge(facts: &Procedure) -> Vec<Finding> {
    let mut findings = judge_jobs(&facts.jobs);
    findings.extend(watchdogs::judge(&facts.watchdogs));
    findings.extend(facts.grafana.iter().map(|pid| {
        let what = format!("Grafana runs: process {pid}, named by `grafana/pid`");
        let fix =
            format!("stop Grafana (process {pid}); `kylin.sh stop` does not, and it would hold the old tree");
        Finding::new(CheckId::P7, Severity::Block, what, fix)
    }));
    findings.extend(judge_transformers(facts));
    findings.extend(facts.programs.iter().filter_map(judge_program));
    findings.extend(facts.ticket.as_ref().and_then(judge_ticket));
    findings.extend(judge_licence(facts));
    findings.extend(judge_store(&facts.store));
    findings.extend(health(&facts.old));
    findings
}

/// Unfinished jobs can be overridden: what they have done is lost, and nothing else. What is only unknown does not
/// block: the metadata backup tells after the stop, and an unfinished job found there takes everything back.
fn judge_jobs(jobs: &Jobs) -> Vec<Finding> {
    use Severity::{Block, Note, Warn};
    let finding = |severity, what: String, fix: &str| Finding::new(CheckId::P3, severity, what, fix);
    let settle = "let them end (`--wait-for-jobs`), or resume or discard them (`--discard-jobs`)";
    let verdict = match (&jobs.asked, &jobs.log) {
        (Some(Ok(asked)), _) if asked.total > 0 => {
            let are = if asked.total == 1 { "is" } else { "are" };
            let list = named(&asked.jobs, asked.total);
            let what = format!("{} {are} not finished, as the service says: {list}", count(asked.total));
            finding(Block, what, settle).overridable()
        }
        (Some(Ok(asked)), _) if asked.all_time => return Vec::new(),
        (Some(Ok(_)), _) => {
            let what = "the service names no unfinished job, but refused to be asked about all time: an old one that \
                        failed may be hidden";
            let fix = "nothing: the metadata backup after the stop holds every job, and is searched";
            finding(Note, what.to_owned(), fix).unknown()
        }
        (Some(Err(why)), _) if !jobs.word => {
            let what = format!("the service could not be asked for unfinished jobs: {why}");
            finding(Block, what, "put that right, or look yourself and say `--jobs-finished`")
                .unknown()
                .overridable()
        }
        (_, Some(log)) if jobs.service_runs && !log.unfinished.is_empty() => {
            let what = format!("the newest count in `logs/kylin.log` says {}", log.unfinished.join(", "));
            finding(Block, what, settle).overridable()
        }
        _ if jobs.word => {
            let what = "every job is finished, as the operator says".to_owned();
            let fix = "nothing: the metadata backup after the stop is searched all the same";
            Finding { certain: Certainty::Word, ..finding(Note, what, fix) }
        }
        (_, log) => {
            let seen = match log {
                Some(_) if jobs.service_runs => ", though the newest count in `logs/kylin.log` names none",
                _ => "",
            };
            let what = format!(
                "whether every job is finished is not known before the stop{seen}; the metadata backup after it tells"
            );
            let fix = "let kytx ask the service (`--user NAME`), or look yourself and say `--jobs-finished`";
            finding(Warn, what, fix).unknown()
        }
    };
    vec![verdict]
}

/// From 4.5 on a release takes its row filter from this property: an old value without it switches row level security
/// off (reference 9.2, step 1).
fn judge_transformers(facts: &Procedure) -> Option<Finding> {
    let wants_filter = match facts.new.generation() {
        Some(Generation::Ke4) => facts.new.version.line() >= (4, 5),
        Some(Generation::Kylin5) => true,
        _ => false,
    };
    let value = facts.transformers.as_deref()?;
    if !wants_filter || value.contains("query.security.RowFilter") {
        return None;
    }
    let what = "`kylin.query.transformers` is set and does not name the row filter: users would see rows that are not \
                theirs";
    let fix = "add `io.kyligence.kap.query.security.RowFilter` to it, or take the property out";
    Some(Finding::new(CheckId::P13, Severity::Block, what, fix).overridable())
}

fn judge_program(tried: &Tried) -> Option<Finding> {
    let why = tried.result.as_ref().err()?;
    let what = format!("`{}` does not work: {why}", tried.how);
    let fix = format!("put `{}` on the PATH, in the environment in which `kylin.sh` works", tried.name);
    let severity = if tried.needed { Severity::Block } else { Severity::Warn };
    Some(Finding::new(CheckId::P14, severity, what, fix))
}

fn judge_ticket(ticket: &Ticket) -> Option<Finding> {
    let fix = ticket.kinit.clone();
    match &ticket.valid {
        Ok(true) => None,
        // A command that acts gets it before it looks here; one that only looks changes nobody's cache.
        Ok(false) if ticket.from_keytab => {
            let what = "there is no valid Kerberos ticket yet: `begin` gets one by the home's own keytab, or is refused";
            let fix = format!("nothing, or try it: {fix}");
            Some(Finding::new(CheckId::P15, Severity::Note, what, fix))
        }
        Ok(false) => {
            let what = "Kerberos is enabled, and `klist -s` finds no valid ticket";
            Some(Finding::new(CheckId::P15, Severity::Block, what, fix))
        }
        Err(why) => {
            let what = format!("Kerberos is enabled, and whether there is a ticket is not known: {why}");
            Some(Finding::new(CheckId::P15, Severity::Block, what, fix).unknown().overridable())
        }
    }
}

fn judge_licence(facts: &Procedure) -> Option<Finding> {
    use CheckId::P16;
    if facts.new.product == Product::Kylin {
        return None;
    }
    let from_kap =
        facts.old.generation() == Some(Generation::Kap2) && facts.new.generation() == Some(Generation::Ke3);
    Some(match facts.licence {
        Licence { given: true, .. } => {
            let what = "whether the given licence is valid for the new release cannot be judged from outside";
            Finding::new(P16, Severity::Note, what, "make sure that it is for this release and host")
                .unknown()
        }
        Licence { .. } if from_kap => {
            let what = "a licence of KAP 2 does not open Kyligence Enterprise 3, and none was given";
            Finding::new(P16, Severity::Block, what, "get a new licence, and give it with `--licence FILE`")
                .overridable()
        }
        Licence { installed: false, .. } => {
            let what = "the home has no `LICENSE`, or an empty one";
            Finding::new(P16, Severity::Warn, what, "give one with `--licence FILE`")
        }
        Licence { installed: true, .. } => return None,
    })
}

fn judge_store(store: &StoreSeen) -> Option<Finding> {
    use CheckId::P17;
    match store {
        StoreSeen::There => None,
        StoreSeen::Away { why } => {
            let what = format!("the metadata store cannot be reached: {why}");
            let fix = "bring it up: without it there is no metadata backup, and the service would be stopped for nothing";
            Some(Finding::new(P17, Severity::Block, what, fix).overridable())
        }
        StoreSeen::Unknown { why } => {
            let what =
                format!("whether the metadata store can be reached is not known before the stop: {why}");
            let fix = "nothing: the metadata backup proves it, and an upgrade without one goes back";
            Some(Finding::new(P17, Severity::Note, what, fix).unknown())
        }
    }
}

/// The product's own checks read the metadata, and some change them, so kytx runs none.
fn health(old: &Identity) -> Option<Finding> {
    let tool = match old.generation()? {
        Generation::Kap2 => "kylin.sh io.kyligence.kap.tool.metadata.MetadataChecker check",
        Generation::Ke3 => "kylin.sh io.kyligence.kap.tool.routine.RoutineTool",
        _ => return None,
    };
    let what = "whether the metadata are healthy is not checked";
    let mut fix =
        format!("look with `{tool}` while the service runs, and clean up before the upgrade or not at all");
    if old.generation() == Some(Generation::Kap2) {
        fix.push_str(": `begin --clean-outdated` does, before its backups and with the service down");
    }
    Some(Finding::new(CheckId::P18, Severity::Note, what, fix).unknown())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kyligence::jobs::Job;

    fn identity(line: &str) -> Identity {
        Identity::parse(line.as_bytes()).unwrap()
    }

    #[allow(clippy::unnecessary_wraps, reason = "as the facts have it")]
    fn asked(total: usize, all_time: bool) -> Option<Result<Asked, String>> {
        let job = Job { id: "a".into(), name: "build".into(), status: "ERROR".into(), project: None };
        Some(Ok(Asked { jobs: vec![job; total], total, all_time }))
    }

    fn good() -> Procedure {
        Procedure {
            old: identity("Kyligence Enterprise 4.5.6"),
            new: identity("Kyligence Enterprise 4.5.7"),
            jobs: Jobs { service_runs: true, asked: asked(0, true), ..Jobs::default() },
            watchdogs: Watchdogs::default(),
            grafana: Vec::new(),
            transformers: None,
            programs: Vec::new(),
            ticket: None,
            licence: Licence { given: false, installed: true },
            store: StoreSeen::There,
        }
    }

    #[test]
    fn a_sound_procedure_leaves_nothing_to_say() {
        assert_eq!(judge(&good()), []);
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn each_broken_precondition_is_found_alone() {
        use Certainty::{Proved, Unknown, Word};
        use CheckId::{P3, P7, P13, P14, P15, P16, P17, P18};
        use Severity::{Block, Note, Warn};
        type Spoil = fn(&mut Procedure);
        let cases: [(Spoil, CheckId, Severity, Certainty, bool); 23] = [
            (
                |f| f.ticket = Some(Ticket { valid: Ok(false), kinit: "kinit".into(), from_keytab: true }),
                P15,
                Note,
                Proved,
                false,
            ),
            (|f| f.jobs.asked = asked(2, true), P3, Block, Proved, true),
            (|f| f.jobs.asked = asked(0, false), P3, Note, Unknown, false),
            (|f| f.jobs.asked = Some(Err("503".into())), P3, Block, Unknown, true),
            (|f| f.jobs.asked = None, P3, Warn, Unknown, false),
            (
                |f| f.jobs = Jobs { word: true, asked: Some(Err("503".into())), ..Jobs::default() },
                P3,
                Note,
                Word,
                false,
            ),
            (|f| f.jobs = Jobs { word: true, ..Jobs::default() }, P3, Note, Word, false),
            (
                |f| {
                    let log = Some(LogCounts { unfinished: vec!["2 running".into()] });
                    f.jobs = Jobs { service_runs: true, word: true, asked: None, log };
                },
                P3,
                Block,
                Proved,
                true,
            ),
            (
                |f| {
                    let log = Some(LogCounts { unfinished: vec!["2 running".into()] });
                    f.jobs = Jobs { service_runs: false, word: false, asked: None, log };
                },
                P3,
                Warn,
                Unknown,
                false,
            ),
            (|f| f.grafana = vec![7], P7, Block, Proved, false),
            (|f| f.transformers = Some("io.kyligence.kap.query.util.Other".into()), P13, Block, Proved, true),
            (
                |f| {
                    let result = Err("not on the PATH".into());
                    f.programs =
                        vec![Tried { name: "hadoop", how: "hadoop version".into(), needed: true, result }];
                },
                P14,
                Block,
                Proved,
                false,
            ),
            (
                |f| {
                    let result = Err("not on the PATH".into());
                    f.programs = vec![Tried { name: "hive", how: "hive".into(), needed: false, result }];
                },
                P14,
                Warn,
                Proved,
                false,
            ),
            (
                |f| f.ticket = Some(Ticket { valid: Ok(false), kinit: "kinit".into(), from_keytab: false }),
                P15,
                Block,
                Proved,
                false,
            ),
            (
                |f| {
                    f.ticket = Some(Ticket {
                        valid: Err("no klist".into()),
                        kinit: "kinit".into(),
                        from_keytab: false,
                    });
                },
                P15,
                Block,
                Unknown,
                true,
            ),
            (|f| f.licence.installed = false, P16, Warn, Proved, false),
            (|f| f.licence.given = true, P16, Note, Unknown, false),
            (|f| f.store = StoreSeen::Away { why: "refused".into() }, P17, Block, Proved, true),
            (|f| f.store = StoreSeen::Unknown { why: "HBase".into() }, P17, Note, Unknown, false),
            (|f| f.old = identity("Kyligence Enterprise 3.4.5"), P18, Note, Unknown, false),
            (|f| f.old = identity("KAP Enterprise Plus 2.5.3"), P18, Note, Unknown, false),
            (
                |f| {
                    f.transformers = Some("x".into());
                    f.new = identity("Apache Kylin 5.0.0");
                },
                P13,
                Block,
                Proved,
                true,
            ),
            (
                |f| {
                    f.watchdogs.cron.push(watchdogs::CronText {
                        place: "crontab".into(),
                        text: "*/2 * * * * sh /opt/ke/bin/ke-instance-guard.sh /opt/ke".into(),
                    });
                    f.watchdogs.homes = vec!["/opt/ke".into()];
                },
                CheckId::P6,
                Block,
                Proved,
                false,
            ),
        ];
        for (number, (spoil, id, severity, certain, overridable)) in cases.into_iter().enumerate() {
            let mut facts = good();
            spoil(&mut facts);
            let findings = judge(&facts);
            assert_eq!(findings.len(), 1, "case {number}: {findings:?}");
            let found = &findings[0];
            let seen = (found.id, found.severity, found.certain, found.overridable);
            assert_eq!(seen, (id, severity, certain, overridable), "case {number}");
        }
    }

    #[test]
    fn what_is_right_is_not_found() {
        let quiet: [fn(&mut Procedure); 4] = [
            |f| f.transformers = Some("io.kyligence.kap.query.security.RowFilter,x".into()),
            |f| f.transformers = Some("org.apache.kylin.query.security.RowFilter".into()),
            |f| f.ticket = Some(Ticket { valid: Ok(true), kinit: String::new(), from_keytab: false }),
            |f| {
                f.transformers = Some("x".into());
                f.new = identity("Kyligence Enterprise 4.3.0");
            },
        ];
        for (number, alter) in quiet.into_iter().enumerate() {
            let mut facts = good();
            alter(&mut facts);
            assert_eq!(judge(&facts), [], "case {number}");
        }
    }

    #[test]
    fn two_to_three_needs_a_new_licence() {
        let mut facts = good();
        facts.old = identity("KAP Enterprise Plus 2.5.3");
        facts.new = identity("Kyligence Enterprise 3.4.5");
        let licence = |facts: &Procedure| judge(facts).into_iter().find(|f| f.id == CheckId::P16).unwrap();
        assert_eq!(licence(&facts).severity, Severity::Block);
        facts.licence.given = true;
        assert_eq!(licence(&facts).severity, Severity::Note);
    }
}
