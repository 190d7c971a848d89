//! `kytx check`: only the preconditions.

use super::args::UpgradeArgs;
use super::draft::draft;
use super::error::CommandError;
use super::exit::Exit;
use super::merging::Decider;
use super::place::Place;
use super::progress::Meter;
use super::terminal::result;
use crate::kyligence::preflight::{Certainty, CheckId, Finding, Severity, blocks};

/// Runs the command.
pub fn run(args: &UpgradeArgs, json: bool) -> Result<Exit, CommandError> {
    let place = Place::of(&args.which)?;
    let meter = Meter::new();
    let draft = draft(args, &place, None, &meter, &mut Decider::preview(args.merge))?;
    meter.clear();
    let blocked = blocks(&draft.findings, &draft.overridden);
    if json {
        let report = serde_json::json!({
            "schema": "kytx.check.v1",
            "home": draft.header.home,
            "old_version": draft.header.old_version,
            "new_version": draft.header.new_version,
            "blocked": blocked,
            "findings": draft.findings,
        });
        result(&serde_json::to_string_pretty(&report).expect("BUG: plain data has a JSON form"));
    } else {
        for line in finding_lines(&draft.findings, &draft.overridden) {
            result(&line);
        }
        result(if blocked {
            "The upgrade cannot begin."
        } else {
            "Nothing keeps the upgrade from beginning."
        });
    }
    Ok(if blocked { Exit::Refused } else { Exit::Done })
}

/// The findings, for people.
pub fn finding_lines(findings: &[Finding], overridden: &[CheckId]) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in findings {
        let id = format!("{:?}", finding.id);
        let overridden = finding.overridable && overridden.contains(&finding.id);
        let severity = match finding.severity {
            Severity::Block if overridden => "overridden",
            Severity::Block => "BLOCK",
            Severity::Warn => "warning",
            Severity::Note => "note",
        };
        let certain = match finding.certain {
            Certainty::Proved => "",
            Certainty::Word => " (the operator's word)",
            Certainty::Unknown => " (cannot be known from here)",
        };
        lines.push(format!("{severity} {id}: {}{certain}", finding.what));
        lines.push(format!("  fix: {}", finding.fix));
        if finding.severity == Severity::Block && finding.overridable && !overridden {
            lines.push(format!("  or:  --override {id}=REASON"));
        }
    }
    lines
}
