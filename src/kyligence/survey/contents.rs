//! The parts of a survey that read files: the merge, the versions of Spark and Tomcat, the search for paths.

use super::{
    CarryItem, Component, Digest, Entry, Generation, How, Kind, Listing, NoteKind, Properties, RawPath,
    SCAN_LIMIT_BYTES, SurveyError, Surveyor, Tree, merge, scan, unreadable,
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
        let merged = merge(base.as_ref(), &old, &Properties::parse(&new));
        self.found.changes = merged.changes;
        let content = merged.file.render();
        if content == new {
            return Ok(());
        }
        let digest = Digest::of(&content);
        let expected = (self.input.expect)(&from).map_err(|source| unreadable("old home", &from, source))?;
        let why = "configuration, merged key by key".to_owned();
        // A profile of another treatment may have decided for the same name; the merge is the better.
        self.found.list.items.retain(|item| item.to != to);
        let how = How::Edited { content: digest };
        self.found.list.items.push(CarryItem { from, to, how, expected: Some(expected), why });
        self.found.contents.insert(digest, content);
        Ok(())
    }

    /// The versions of a component in the old home and in the new package, as far as they can be told.
    pub(super) fn component_versions(
        &self,
        component: Component,
    ) -> Result<(Option<String>, Option<String>), SurveyError> {
        match component {
            Component::Spark => Ok((spark_version(&self.old), spark_version(&self.new))),
            Component::Tomcat => {
                let notes = RawPath::from("tomcat/RELEASE-NOTES");
                let old = read(&self.input.old_tree, "old home", &notes)?;
                let new = read(&self.input.new_tree, "new package", &notes)?;
                Ok((old.and_then(|text| tomcat_major(&text)), new.and_then(|text| tomcat_major(&text))))
            }
        }
    }

    /// Notes absolute paths in what is carried.
    pub(super) fn scan_carried(&mut self) -> Result<(), SurveyError> {
        let home = self.input.home.to_string();
        let unpacked = self.input.unpacked.map(ToString::to_string);
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
                self.scan_file(&file.path, &edited.unwrap_or_default(), &home, unpacked.as_deref());
            }
        }
        Ok(())
    }

    fn scan_file(&mut self, path: &RawPath, content: &[u8], home: &str, unpacked: Option<&str>) {
        let mentions = scan(content, home, unpacked);
        if !mentions.unpacked.is_empty() {
            let lines: Vec<String> = mentions.unpacked.iter().map(ToString::to_string).collect();
            let text = format!(
                "names the path to which the package was unpacked, in line {}; nothing will be there",
                lines.join(", ")
            );
            self.note(NoteKind::Redo, path, &text);
        }
        if !mentions.foreign.is_empty() {
            let names: Vec<String> =
                mentions.foreign.iter().take(super::NAMES_LIMIT).map(|path| format!("`{path}`")).collect();
            let text = format!("names paths outside the home: {}", names.join(", "));
            self.note(NoteKind::Mention, path, &text);
        }
    }
}

fn read(tree: &Tree<'_>, name: &'static str, path: &RawPath) -> Result<Option<Vec<u8>>, SurveyError> {
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

/// The version in the name of Spark's core library: `spark/jars/spark-core_2.11-2.4.7.jar`.
fn spark_version(listing: &Listing<'_>) -> Option<String> {
    listing.below(&RawPath::from("spark/jars")).find_map(|entry| {
        let name = std::str::from_utf8(entry.path.file_name()).ok()?;
        let version = name.strip_prefix("spark-core_")?.strip_suffix(".jar")?.split_once('-')?.1;
        Some(version.to_owned())
    })
}

/// The major version in Tomcat's release notes: `Apache Tomcat Version 8.5.51`.
fn tomcat_major(notes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(notes);
    let (_, version) = text.split_once("Apache Tomcat Version ")?;
    let major: String = version.chars().take_while(char::is_ascii_digit).collect();
    (!major.is_empty()).then_some(major)
}
