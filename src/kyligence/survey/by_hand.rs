//! What the operator must do again by hand, value by value: what the old file says that the new one does not.
//!
//! With the old package the operator's own changes are listed; without it every difference between the two releases'
//! files is, as nobody can tell which is whose.

use std::collections::BTreeMap;

use super::super::merge::differences;
use super::super::merge_xml::values;
use super::contents::{is_properties, read};
use super::xml::is_xml;
use super::{ByHand, NoteKind, Properties, RawPath, SurveyError, Surveyor, Tree};

/// More than this is no list that somebody works through.
const VALUES_MAX: usize = 200;

impl Surveyor<'_, '_> {
    /// Adds the values to the notes of files that must be redone.
    pub(super) fn say_what_is_to_do(&mut self) -> Result<(), SurveyError> {
        let mut notes = std::mem::take(&mut self.found.list.notes);
        for note in notes.iter_mut().filter(|note| note.kind == NoteKind::Redo) {
            note.by_hand = self.by_hand(&note.path)?;
        }
        self.found.list.notes = notes;
        Ok(())
    }

    fn by_hand(&self, path: &RawPath) -> Result<Vec<ByHand>, SurveyError> {
        // What is carried after all is complained of for another reason than its values.
        let is_carried = self.found.list.items.iter().any(|item| item.from == *path);
        if is_carried || self.new.get(path).is_none() || !(is_properties(path) || is_xml(path)) {
            return Ok(Vec::new());
        }
        let of = |tree: &Tree<'_>, name| read(tree, name, path).map(|bytes| values_of(path, bytes?));
        let old = of(&self.input.old_tree, "old home")?;
        let new = of(&self.input.new_tree, "new package")?;
        let base = match &self.input.base_tree {
            Some(tree) => of(tree, "old package")?,
            None => None,
        };
        let (Some(old), Some(new)) = (old, new) else { return Ok(Vec::new()) };
        let is_operators = |key: &str| base.as_ref().is_none_or(|base| base.get(key) != old.get(key));
        let found = differences(&old, &new).into_iter().filter(|(key, old, _)| {
            // What only the new release has is no work, unless the operator had taken it out.
            is_operators(key) && (old.is_some() || base.is_some())
        });
        Ok(found.map(|(key, old, new)| ByHand { key, old, new }).take(VALUES_MAX).collect())
    }
}

/// The values of a file that is properties or XML.
fn values_of(path: &RawPath, bytes: Vec<u8>) -> Option<BTreeMap<String, String>> {
    if is_xml(path) {
        values(&String::from_utf8(bytes).ok()?)
    } else {
        Some(Properties::parse(&bytes).to_map())
    }
}
