//! XML files of the operator's that the new release brings in another form: merged where that can be told.

use super::super::merge_xml::{MergedXml, Texts, merge_xml};
use super::contents::read;
use super::{Change, Entry, FileChanges, Kind, NoteKind, RawPath, SurveyError, Surveyor};

impl Surveyor<'_, '_> {
    /// Merges a file by its values and carries it so, if the old package tells what the operator changed, and if both
    /// changed it. Returns whether that was done.
    pub(super) fn carry_merged(&mut self, entry: &Entry, why: &str) -> Result<bool, SurveyError> {
        let Some((merged, new)) = self.merge_entry(entry)? else { return Ok(false) };
        if merged.text != new {
            self.push_edited(entry.path.clone(), entry.path.clone(), merged.text.into_bytes(), why)?;
        }
        self.note(
            NoteKind::Carried,
            &entry.path,
            "changed here and by the new release: merged value by value",
        );
        self.found.merged.push(FileChanges { file: entry.path.clone(), changes: merged.changes });
        Ok(true)
    }

    /// A merge of the file, and the new release's text. `None` if it is not XML that can be merged, if the old package
    /// is not known, or if one side did not change it.
    fn merge_entry(&mut self, entry: &Entry) -> Result<Option<(MergedXml, String)>, SurveyError> {
        if !is_xml(&entry.path) || entry.kind != Kind::File || self.change(entry)? != Change::Changed {
            return Ok(None);
        }
        let is_file = |found: Option<&Entry>| found.is_some_and(|found| found.kind == Kind::File);
        let base_has = self.base.as_ref().is_some_and(|base| is_file(base.get(&entry.path)));
        let Some(base_tree) = self.input.base_tree.as_ref().filter(|_| base_has) else { return Ok(None) };
        if !is_file(self.new.get(&entry.path)) {
            return Ok(None);
        }
        let base = read(base_tree, "old package", &entry.path)?;
        let old = read(&self.input.old_tree, "old home", &entry.path)?;
        let new = read(&self.input.new_tree, "new package", &entry.path)?;
        let (Some(base), Some(old), Some(new)) = (text(base), text(old), text(new)) else { return Ok(None) };
        if base == new {
            return Ok(None);
        }
        let decide = &mut self.input.decide;
        let texts = Texts { base: &base, old: &old, new: &new };
        let merged = merge_xml(texts, &mut |conflict| decide(&entry.path, conflict));
        Ok(merged.map(|merged| (merged, new)))
    }
}

pub(super) fn is_xml(path: &RawPath) -> bool {
    path.as_bytes().ends_with(b".xml")
}

/// A file that is no UTF-8 is not edited.
fn text(bytes: Option<Vec<u8>>) -> Option<String> {
    String::from_utf8(bytes?).ok()
}
