//! The parts of a survey that read files: the merge, the versions of Spark and Tomcat, the search for paths.

use super::super::components::{CATALINA_JAR, Marks};
use super::super::merge::merge_with;
use super::super::scan::Places;
use super::super::secrets::mask_value;
use super::{
    Component, Entry, Generation, How, Kind, Listing, NoteKind, Properties, RawPath, SCAN_LIMIT_BYTES,
    SurveyError, Surveyor, Tree, scan, unreadable,
};

/// A key that must be removed on the way from release 2 to 3.
const NOT_IN_3: &str = "kylin.server.init-tasks";

impl Surveyor<'_, '_> {
    /// Merges the file that counts into the one that will count in the new release: both may be behind the profile.
    pub(super) fn carry_properties(&mut self) -> Result<(), SurveyError> {
        let path = RawPath::from("conf/kylin.properties");
        let Some(from) = self.merged_from() else {
            self.note(NoteKind::Redo, &path, "the old home has none that can be read within the home");
            return Ok(());
        };
        let to = self.resolve_chosen(&self.new, &path).unwrap_or_else(|| path.clone());
        if self.new.get(&to).is_some_and(|entry| entry.kind != Kind::File)
            || self.new.obstacle_above(&to).is_some()
        {
            self.note(NoteKind::Redo, &path, "the new release's leads nowhere within the package");
            return Ok(());
        }
        let mut old = Properties::parse(&read(&self.input.old_tree, "old home", &from)?.unwrap_or_default());
        let new = read(&self.input.new_tree, "new package", &to)?.unwrap_or_default();
        let shipped = match (&self.input.base_tree, &self.base) {
            (Some(tree), Some(base)) => match self.resolve_chosen(base, &path) {
                Some(path) => read(tree, "old package", &path)?,
                None => None,
            },
            _ => None,
        };
        let mut base = shipped.map(|bytes| Properties::parse(&bytes));
        let is_2_to_3 = (self.input.old.generation(), self.input.new.generation())
            == (Some(Generation::Kap2), Some(Generation::Ke3));
        if is_2_to_3 && old.remove(NOT_IN_3) {
            if let Some(base) = &mut base {
                base.remove(NOT_IN_3);
            }
            self.note(
                NoteKind::Left,
                &from,
                &format!("`{NOT_IN_3}` is taken out: release 3 must not have it"),
            );
        }
        let decide = &mut self.input.decide;
        let merged =
            merge_with(base.as_ref(), &old, &Properties::parse(&new), self.input.renames, &mut |conflict| {
                decide(&from, conflict)
            });
        self.found.changes = merged.changes;
        let content = merged.file.render();
        if content == new {
            return Ok(());
        }
        self.push_edited(from, to, content, "configuration, merged key by key")
    }

    /// The versions of a component in the old home and in the new package, as far as they can be told.
    pub(super) fn component_versions(
        &self,
        component: Component,
    ) -> Result<(Option<String>, Option<String>), SurveyError> {
        let version = |listing: &Listing<'_>, tree: &Tree<'_>, name| -> Result<Option<String>, SurveyError> {
            let text = |path: &str| match listing.get(&RawPath::from(path)) {
                Some(_) => read(tree, name, &RawPath::from(path)),
                None => Ok(None),
            };
            let marks = match component {
                Component::Spark => Marks {
                    spark_release: text("spark/RELEASE")?,
                    spark_jars: listing.below(&RawPath::from("spark/jars")).collect(),
                    ..Marks::default()
                },
                Component::Tomcat => Marks {
                    catalina: text(CATALINA_JAR)?,
                    tomcat_notes: text("tomcat/RELEASE-NOTES")?,
                    ..Marks::default()
                },
            };
            Ok(marks.version(component))
        };
        Ok((
            version(&self.old, &self.input.old_tree, "old home")?,
            version(&self.new, &self.input.new_tree, "new package")?,
        ))
    }

    /// Notes absolute paths, and what means something on this host only, in what is carried.
    pub(super) fn scan_carried(&mut self) -> Result<(), SurveyError> {
        let home = self.input.home.to_string();
        let unpacked = self.input.unpacked.map(ToString::to_string);
        // A home may have the name of its package.
        let top = (self.input.top.as_bytes() != self.input.home.file_name())
            .then(|| self.input.top.to_string())
            .filter(|top| !top.is_empty());
        for item in self.found.list.items.clone() {
            let files: Vec<&Entry> = match item.how {
                How::Copy | How::Edited { .. } => {
                    self.old.get(&item.from).into_iter().chain(self.old.below(&item.from)).collect()
                }
                How::Link | How::Symlink { .. } => continue,
            };
            for file in files.into_iter().filter(|file| is_configuration(file)) {
                let edited = match &item.how {
                    How::Edited { content } => self.found.contents.get(content).cloned(),
                    _ => read(&self.input.old_tree, "old home", &file.path)?,
                };
                let places = Places { home: &home, unpacked: unpacked.as_deref(), top: top.as_deref() };
                self.scan_file(&file.path, &edited.unwrap_or_default(), places);
            }
        }
        Ok(())
    }

    fn scan_file(&mut self, path: &RawPath, content: &[u8], places: Places<'_>) {
        let mentions = scan(content, places);
        if !mentions.unpacked.is_empty() {
            let lines: Vec<String> = mentions.unpacked.iter().map(ToString::to_string).collect();
            let text = format!(
                "names the path to which the package was unpacked, in line {}; nothing will be there",
                lines.join(", ")
            );
            self.note(NoteKind::Redo, path, &text);
            self.found.unpacked.push((path.clone(), mentions.unpacked.clone()));
        }
        if !mentions.foreign.is_empty() {
            let names: Vec<String> =
                mentions.foreign.iter().take(super::NAMES_LIMIT).map(|path| format!("`{path}`")).collect();
            let text = format!("names paths outside the home: {}", names.join(", "));
            self.note(NoteKind::Mention, path, &text);
        }
        if !is_properties(path) {
            return;
        }
        let file = Properties::parse(content);
        let of_host: Vec<String> = file
            .to_map()
            .into_iter()
            .filter(|(key, value)| is_of_this_host(key, value))
            .map(|(key, value)| format!("`{key}={}`", mask_value(&key, &value)))
            .collect();
        if !of_host.is_empty() {
            let text = format!("means something on this host only: {}", of_host.join(", "));
            self.note(NoteKind::Mention, path, &text);
        }
        if path.as_bytes().ends_with(b".override") {
            for (old, new) in self.input.renames.in_file(&file) {
                let text =
                    format!("`{old}` is called `{new}` in the new release, which goes on reading both");
                self.note(NoteKind::Carried, path, &text);
            }
        }
    }
}

/// Files in the form of Java's properties.
pub(super) fn is_properties(path: &RawPath) -> bool {
    [&b".properties"[..], b".override"].iter().any(|ending| path.as_bytes().ends_with(ending))
}

/// Settings that must not be taken to another node: they name hosts, or say what this one is for.
fn is_of_this_host(key: &str, value: &str) -> bool {
    let value = value.trim();
    match key {
        "kylin.server.host-address" => !value.is_empty(),
        "kylin.server.mode" => !value.is_empty() && value != "all",
        _ => key.starts_with("kylin.server.cluster-servers") && !value.is_empty(),
    }
}

pub(super) fn read(
    tree: &Tree<'_>,
    name: &'static str,
    path: &RawPath,
) -> Result<Option<Vec<u8>>, SurveyError> {
    (tree.read)(path).map_err(|source| unreadable(name, path, source))
}

/// Text files of settings; jars and key stores hold no paths worth a search.
fn is_configuration(file: &Entry) -> bool {
    let endings: [&[u8]; 8] =
        [b".properties", b".override", b".xml", b".sh", b".conf", b".cnf", b".yaml", b".yml"];
    file.kind == Kind::File
        && file.size <= SCAN_LIMIT_BYTES
        && endings.iter().any(|ending| file.path.as_bytes().ends_with(ending))
}
