//! `kytx plan`: everything `begin` does up to the confirmation.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::args::UpgradeArgs;
use super::check::finding_lines;
use super::diff;
use super::draft::{Draft, Planned, draft};
use super::error::CommandError;
use super::exit::Exit;
use super::merging::Decider;
use super::place::{Place, absolute};
use super::progress::Meter;
use super::terminal::{is_coloured, result};
use crate::digest::Digest;
use crate::effect::fs::read_file;
use crate::effect::os::OsFs;
use crate::effect::tree::atomic_write;
use crate::kyligence::carry::{Note, NoteKind};
use crate::kyligence::merge::{KeyChange, KeyReason};
use crate::kyligence::preflight::blocks;
use crate::raw_path::RawPath;
use crate::txn::{Stage, Step, TxnId};

/// The longest plan file that is read.
const PLAN_LIMIT_BYTES: u64 = 64 << 20;

/// What a saved plan is held to.
#[derive(Serialize, Deserialize)]
pub struct SavedPlan {
    schema: String,
    /// The transaction's name, which is part of paths in the plan.
    pub transaction: TxnId,
    /// The digest of the steps.
    pub plan: Digest,
    /// The steps, to say what differs.
    pub steps: Vec<Step>,
    /// When it was made, in seconds since 1970: what `--audit` writes is in the plan, and has this time.
    #[serde(default)]
    pub made_unix_s: u64,
}

impl SavedPlan {
    /// What a draft that is to be the same must have from it.
    pub fn planned(&self) -> Planned {
        Planned { txn: self.transaction.clone(), made_unix_s: self.made_unix_s }
    }
}

/// The schema's name of a saved plan.
const SAVED_SCHEMA: &str = "kytx.saved-plan.v1";

/// What to print, and where to keep it.
pub struct Options {
    /// Save the plan there.
    pub out: Option<PathBuf>,
    /// Show merged files line by line.
    pub diff: bool,
    /// Print JSON.
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &UpgradeArgs, options: &Options) -> Result<Exit, CommandError> {
    let place = Place::of(&args.which)?;
    let meter = Meter::new();
    let draft = draft(args, &place, None, &meter, &mut Decider::preview(args.merge))?;
    meter.clear();
    if let Some(out) = &options.out {
        save(&draft, out)?;
    }
    if options.json {
        result(&serde_json::to_string_pretty(&draft).expect("BUG: a draft has a JSON form"));
    } else {
        for line in lines(&draft) {
            result(&line);
        }
        if options.diff {
            for line in diff::lines(&draft, is_coloured())? {
                result(&line);
            }
        }
    }
    Ok(if blocks(&draft.findings, &draft.overridden) { Exit::Refused } else { Exit::Done })
}

fn save(draft: &Draft, out: &Path) -> Result<(), CommandError> {
    let saved = SavedPlan {
        schema: SAVED_SCHEMA.to_owned(),
        transaction: draft.header.txn.clone(),
        plan: draft.plan,
        steps: draft.steps.clone(),
        made_unix_s: draft.header.began_unix_s,
    };
    let text = serde_json::to_vec_pretty(&saved).expect("BUG: a plan has a JSON form");
    atomic_write(&OsFs, &absolute(out)?, &text, 0o600).map_err(|error| {
        CommandError::refused("cannot save the plan")
            .because(&error)
            .hint("kytx plan ... --out FILE, with another FILE")
    })
}

/// Reads a saved plan.
pub fn load(path: &Path) -> Result<SavedPlan, CommandError> {
    let refuse = || {
        CommandError::refused(format!("`{}` is no saved plan", RawPath::from(path)))
            .hint("kytx plan ... --out FILE, and read it")
    };
    let text =
        read_file(&OsFs, &absolute(path)?, PLAN_LIMIT_BYTES).map_err(|error| refuse().because(&error))?;
    let saved: SavedPlan = serde_json::from_slice(&text).map_err(|error| refuse().because(&error))?;
    if saved.schema != SAVED_SCHEMA {
        return Err(refuse().why(format!("its schema is `{}`, not `{SAVED_SCHEMA}`", saved.schema)));
    }
    Ok(saved)
}

/// Refuses a saved plan when the world has moved since: what would be done now is not what was agreed to.
pub fn check_unmoved(saved: &SavedPlan, draft: &Draft) -> Result<(), CommandError> {
    if saved.plan == draft.plan {
        return Ok(());
    }
    let names = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    let mut error =
        CommandError::refused("the saved plan is out of date: the world has moved since it was made");
    if names(&saved.steps) == names(&draft.steps) {
        for (then, now) in saved.steps.iter().zip(&draft.steps).filter(|(then, now)| then != now) {
            let what = match then.name.as_str() {
                "stage-tree" => "the package is not what it was",
                "carry-customisations" => "the customisations of the home are not what they were",
                _ => "it would be done differently",
            };
            error = error.why(format!("step `{}`: {what}", now.name));
        }
    } else {
        error = error.why(format!("it had the steps {}", names(&saved.steps).join(", ")));
        error = error.why(format!("now they are {}", names(&draft.steps).join(", ")));
    }
    Err(error.hint("kytx plan ... --out FILE, and read it again"))
}

/// The preview, for people.
pub fn lines(draft: &Draft) -> Vec<String> {
    let header = &draft.header;
    let mut lines = vec![
        format!("Upgrade of `{}` from {} to {}", header.home, header.old_version, header.new_version),
        format!(
            "  kind:        {}",
            serde_json::to_value(draft.kind).unwrap_or_default().as_str().unwrap_or("")
        ),
        format!("  package:     {}", header.package),
        format!("  transaction: {}", header.txn),
        format!("  plan:        {}", draft.plan),
    ];
    lines.push("Steps, each of which an abort undoes:".to_owned());
    let stage_lines = |stage| {
        let of_stage = draft.steps.iter().filter(move |step: &&Step| step.stage == stage);
        of_stage.map(|step| format!("  {:<24} {}", step.name, step.mutation.sentence())).collect::<Vec<_>>()
    };
    lines.extend(stage_lines(Stage::Apply));
    lines.push("After `kytx commit`, with no way back:".to_owned());
    lines.extend(stage_lines(Stage::Cleanup));
    lines.extend(carried_lines(draft));
    lines.extend(property_lines(draft));
    lines.extend(draft.remarks.iter().cloned());
    lines.extend(finding_lines(&draft.findings, &draft.overridden));
    lines
}

fn carried_lines(draft: &Draft) -> Vec<String> {
    let mut lines = vec![format!("Carried from the old home ({}):", draft.carry.items.len())];
    lines.extend(draft.carry.items.iter().map(|item| {
        let to = if item.from == item.to { String::new() } else { format!(" -> {}", item.to) };
        format!("  {}{to}: {}", item.from, item.why)
    }));
    let headings = [
        (NoteKind::Redo, "To be done again by hand:"),
        (NoteKind::Carried, "Carried, worth a look:"),
        (NoteKind::Left, "Left behind (kept in the old tree and its archive until the commit):"),
        (NoteKind::Mention, "Absolute paths in what is carried:"),
    ];
    for (kind, heading) in headings {
        let notes: Vec<_> = draft.carry.notes.iter().filter(|note| note.kind == kind).collect();
        if !notes.is_empty() {
            lines.push(heading.to_owned());
            for note in notes {
                lines.push(format!("  {}: {}", note.path, note.text));
                lines.extend(by_hand_lines(note));
            }
        }
    }
    lines
}

/// The values of a note that must be carried over by hand: key, old, new.
pub fn by_hand_lines(note: &Note) -> impl Iterator<Item = String> + '_ {
    let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
    note.by_hand
        .iter()
        .map(move |value| format!("    {}: old {} | new {}", value.key, show(&value.old), show(&value.new)))
}

fn property_lines(draft: &Draft) -> Vec<String> {
    let mut lines = Vec::new();
    if !draft.properties.is_empty() {
        lines.push("`kylin.properties`, key by key:".to_owned());
        lines.extend(change_lines(&draft.properties));
    }
    for merged in &draft.merged {
        lines.push(format!("`{}`, value by value:", merged.file));
        lines.extend(change_lines(&merged.changes));
    }
    lines.extend(Decider::lines(&draft.conflicts));
    lines
}

fn change_lines(changes: &[KeyChange]) -> Vec<String> {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
    let line = |change: &KeyChange| {
        let why = match change.why {
            KeyReason::OperatorKept => "your value is kept",
            KeyReason::OldKept => "the old value is kept",
            KeyReason::RemovedKept => "your value is kept, though the new release has no such key",
            KeyReason::OnlyInOldKept => "kept, though the new release has no such key",
            KeyReason::OperatorRemoved => "you had removed it",
            KeyReason::NewDefault => "the new release's value",
            KeyReason::NewKey => "new",
            KeyReason::RemovedByRelease => "the new release has it no more",
            KeyReason::ReleaseChosen => "the new release's value, as chosen",
        };
        let formerly = change.formerly.as_ref().map(|key| format!(" (formerly {key})")).unwrap_or_default();
        format!(
            "  {}{formerly}: {} | {} -> {} ({why})",
            change.key,
            value(&change.old),
            value(&change.new),
            value(&change.merged)
        )
    };
    changes.iter().map(line).collect()
}
