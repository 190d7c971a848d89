//! What brings a stopped service back, or works in the home on its own: the guardian, and lines of crontabs. Pure.

use super::{CheckId, Finding, Severity};
use crate::kyligence::process::mentions;
use crate::kyligence::secrets::mask_text;
use crate::raw_path::RawPath;

/// How much of a crontab's line is repeated.
const QUOTED_CHARS: usize = 160;

/// Words of programs that delete what an old release may still need on the way back.
const CLEANERS: [&str; 4] = ["RoutineTool", "metastore.sh clean", "StorageCleanup", "KapStorageCleanupCLI"];

/// What was looked at.
#[derive(Clone, Debug, Default)]
pub struct Watchdogs {
    /// The paths under which the home is known.
    pub homes: Vec<RawPath>,
    /// The living guardian of the home, by its `kgid`.
    pub guardian: Option<u32>,
    /// Whether the stop script of this release ends the guardian first.
    pub stop_ends_guardian: bool,
    /// The crontabs that could be read.
    pub cron: Vec<CronText>,
    /// Crontabs that could not be read: which, and why.
    pub unread: Vec<String>,
}

/// A crontab.
#[derive(Clone, Debug)]
pub struct CronText {
    /// Where it is from, as it may be shown.
    pub place: String,
    /// Its lines.
    pub text: String,
}

/// Judges them.
pub fn judge(seen: &Watchdogs) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        seen.guardian.and_then(|pid| judge_guardian(seen, pid)).into_iter().collect();
    for cron in &seen.cron {
        for line in cron.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            findings.extend(judge_line(seen, &cron.place, line));
        }
    }
    if !seen.unread.is_empty() {
        let what = format!("crontabs could not be read: {}", seen.unread.join("; "));
        let fix = "make sure that no line of them runs `ke-instance-guard.sh` or anything else in the home";
        findings.push(Finding::new(CheckId::P6, Severity::Note, what, fix).unknown());
    }
    findings
}

/// The lines that clean up behind an open upgrade, as findings.
pub fn cleaners(seen: &Watchdogs) -> Vec<Finding> {
    let armed: Vec<CronText> = seen
        .cron
        .iter()
        .map(|cron| {
            let cleans = |line: &&str| {
                let line = line.trim();
                !line.starts_with('#') && CLEANERS.iter().any(|word| line.contains(word))
            };
            let text = cron.text.lines().filter(cleans).collect::<Vec<_>>().join("\n");
            CronText { place: cron.place.clone(), text }
        })
        .collect();
    judge(&Watchdogs { homes: seen.homes.clone(), cron: armed, ..Watchdogs::default() })
}

/// `kylin.sh stop` of every release that has a guardian ends it first. One beside a release that has none was put
/// there by somebody.
fn judge_guardian(seen: &Watchdogs, pid: u32) -> Option<Finding> {
    if seen.stop_ends_guardian {
        return None;
    }
    let what = format!(
        "process {pid}, named by `kgid`, would start the service again, and `kylin.sh stop` of this release does not \
         end it"
    );
    Some(Finding::new(CheckId::P6, Severity::Block, what, format!("end process {pid} first")))
}

fn judge_line(seen: &Watchdogs, place: &str, line: &str) -> Option<Finding> {
    let here = seen.homes.iter().any(|home| mentions(line.as_bytes(), home.as_path()));
    // A path in a variable is set elsewhere, and may be this one.
    let maybe_here = here || line.contains("KYLIN_HOME");
    let shown: String = mask_text(line).chars().filter(|c| !c.is_control()).take(QUOTED_CHARS).collect();
    let found = |severity, what: &str, fix: &str| {
        let what = format!("{place} {what}: `{shown}`");
        Some(Finding::new(CheckId::P6, severity, what, fix))
    };
    if line.contains("ke-instance-guard.sh") && maybe_here {
        let fix = "comment the line out (`crontab -e`) until the upgrade is committed or undone";
        return found(Severity::Block, "starts the service again when it is down", fix);
    }
    if CLEANERS.iter().any(|word| line.contains(word)) && maybe_here {
        let fix = "comment the line out until the upgrade is committed: it deletes what the way back needs";
        return found(Severity::Warn, "cleans up behind the upgrade", fix);
    }
    if !here {
        return None;
    }
    if line.contains("logrotate") {
        let fix = "nothing: `kylin.sh stop` takes the line out, and `kylin.sh start` puts it in";
        return found(Severity::Note, "rotates logs in the home", fix);
    }
    found(Severity::Warn, "runs something in the home", "make sure that it does no harm during the swap")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severities(text: &str) -> Vec<Severity> {
        let cron = vec![CronText { place: "crontab".into(), text: text.into() }];
        let seen = Watchdogs { homes: vec!["/opt/ke".into()], cron, ..Watchdogs::default() };
        judge(&seen).into_iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn lines_of_a_crontab_are_told_apart() {
        use Severity::{Block, Note, Warn};
        for (line, severity) in [
            ("*/2 * * * * sh /opt/ke/bin/ke-instance-guard.sh /opt/ke", Some(Block)),
            ("*/2 * * * * sh $KYLIN_HOME/bin/ke-instance-guard.sh $KYLIN_HOME", Some(Block)),
            ("*/2 * * * * kylin sh /opt/ke/../ke/bin/ke-instance-guard.sh /opt/ke", Some(Block)),
            ("#*/2 * * * * sh /opt/ke/bin/ke-instance-guard.sh /opt/ke", None),
            ("*/2 * * * * sh /opt/ke2/bin/ke-instance-guard.sh /opt/ke2", None),
            ("* * * * * /usr/sbin/logrotate /opt/ke/logrotate/kylin", Some(Note)),
            ("* * * * * /usr/sbin/logrotate /opt/other/logrotate/kylin", None),
            ("0 1 * * * /opt/ke/bin/kylin.sh io.kyligence.kap.tool.routine.RoutineTool -c", Some(Warn)),
            ("0 1 * * * $KYLIN_HOME/bin/metastore.sh clean --delete true", Some(Warn)),
            ("0 1 * * * tar cf /backup/ke.tar /opt/ke", Some(Warn)),
            ("MAILTO=root", None),
            ("", None),
        ] {
            assert_eq!(severities(line), severity.into_iter().collect::<Vec<_>>(), "{line}");
        }
    }

    #[test]
    fn secrets_in_a_line_are_masked() {
        let cron =
            vec![CronText { place: "crontab".into(), text: "* * * * * /opt/ke/x --password geheim".into() }];
        let seen = Watchdogs { homes: vec!["/opt/ke".into()], cron, ..Watchdogs::default() };
        assert!(!judge(&seen)[0].what.contains("geheim"));
    }

    #[test]
    fn a_guardian_blocks_only_where_stop_leaves_it() {
        let mut seen = Watchdogs { guardian: Some(7), stop_ends_guardian: true, ..Watchdogs::default() };
        assert_eq!(judge(&seen), []);
        seen.stop_ends_guardian = false;
        assert_eq!(judge(&seen)[0].severity, Severity::Block);
        seen = Watchdogs { unread: vec!["crontab of 5".into()], ..Watchdogs::default() };
        assert_eq!(judge(&seen)[0].severity, Severity::Note);
    }
}
