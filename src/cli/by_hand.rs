//! The end report: what the operator must still do by hand, with file, key, old value and new value.
//!
//! It is in the plan's side file, so that `resume` after a crash reports the same as `begin` would have.

use super::place::Place;
use super::plan::by_hand_lines;
use crate::effect::os::OsFs;
use crate::kyligence::carry::{CarryList, NoteKind};
use crate::raw_path::RawPath;
use crate::txn::{Mutation, Txn};

/// The report; empty if there is nothing to be done.
pub fn lines(txn: &Txn, place: &Place) -> Vec<String> {
    let side = txn.steps().iter().find_map(|step| match &step.mutation {
        Mutation::CarryCustomisations { list, .. } => Some(list),
        _ => None,
    });
    let Some(side) = side else { return Vec::new() };
    let list = place.state.read_side(&OsFs, side).map_err(|error| error.to_string());
    let list: CarryList =
        match list.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string())) {
            Ok(list) => list,
            Err(why) => return vec![format!("What is to be done by hand cannot be said: {why}")],
        };
    let notes: Vec<_> = list.notes.iter().filter(|note| note.kind == NoteKind::Redo).collect();
    if notes.is_empty() {
        return Vec::new();
    }
    let spare = RawPath::from(place.state.spare());
    let mut lines = vec![format!(
        "To be done by hand in `{}` (the old files are in `{spare}` until the commit):",
        txn.header().home
    )];
    for note in notes {
        lines.push(format!("  {}: {}", note.path, note.text));
        lines.extend(by_hand_lines(note));
    }
    lines
}
