//! `kytx log`: the journal as text or JSON Lines. Reads the twin only, as `status` does.

use serde_json::{Value, json};

use super::args::WhichArgs;
use super::claim;
use super::error::CommandError;
use super::exit::Exit;
use super::session::journal_error;
use super::terminal::result;
use crate::effect::os::OsFs;
use crate::journal::{Frame, read};
use crate::txn::{Direction, Record, Step, StepId};

/// Runs the command.
pub fn run(which: &WhichArgs, json: bool) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    let view = read(&OsFs, place.state.root()).map_err(|error| journal_error(&error, &place))?;
    let mut steps: Vec<Step> = Vec::new();
    for frame in &view.frames {
        if let Record::Planned(step) = &frame.record {
            steps.push(step.clone());
        }
        result(&if json { as_json(frame) } else { as_text(frame, &steps) });
    }
    Ok(Exit::Done)
}

/// `{"lsn":7,"record":"intent",<its fields>,"chain":"<hex>"}`
fn as_json(frame: &Frame) -> String {
    let value = serde_json::to_value(&frame.record).expect("BUG: a record has a JSON form");
    let mut object = json!({ "lsn": frame.lsn, "record": frame.record.kind() });
    let fields = value.as_object().and_then(|tagged| tagged.values().next()).and_then(Value::as_object);
    for (name, field) in fields.into_iter().flatten() {
        object[name] = field.clone();
    }
    object["chain"] = json!(frame.chain);
    object.to_string()
}

fn as_text(frame: &Frame, steps: &[Step]) -> String {
    let name = |step: &StepId| steps.get(step.index()).map_or("?", |step| step.name.as_str());
    let way = |direction: &Direction| match direction {
        Direction::Forward => "",
        Direction::Backward => "undo ",
    };
    let what = match &frame.record {
        Record::Begin(header) => {
            format!(
                "`{}` from {} to {}, by {} on {}",
                header.home, header.old_version, header.new_version, header.user, header.host
            )
        }
        Record::Planned(step) => format!("{}: {}", step.name, step.mutation.sentence()),
        Record::Sealed { steps, plan } => format!("{steps} steps, {}", plan.short()),
        Record::Intent { step, direction, inputs } => {
            format!("{}{} from {}", way(direction), name(step), inputs.short())
        }
        Record::Done { step, direction, outputs } => {
            format!("{}{} made {}", way(direction), name(step), outputs.short())
        }
        Record::Found { step } => name(step).to_owned(),
        Record::Abort { reason } => serde_json::to_string(reason).unwrap_or_default(),
        Record::Commit { keep } => keep.iter().map(name).collect::<Vec<_>>().join(" "),
        Record::End { outcome } => serde_json::to_string(outcome).unwrap_or_default(),
    };
    let line = format!("{:>4} {:<8} {what}", frame.lsn, frame.record.kind());
    // A commit that keeps nothing has nothing to add.
    line.trim_end().to_owned()
}
