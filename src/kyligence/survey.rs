//! Which customisations of a home are carried: the table of `carry` applied to three listings.
//!
//! The old home is listed without hashing; a file is read only where the decision depends on its content. The old
//! package, if the operator has it still, is the base that tells an operator's change from an old default.

use std::collections::BTreeMap;
use std::io;

use super::carry::{CarryItem, CarryList, Component, How, Note, NoteKind, Treatment, treatment};
use super::home::Layout;
use super::listing::Listing;
use super::merge::{KeyChange, merge};
use super::properties::Properties;
use super::scan::scan;
use super::version::{Generation, Identity, Product};
use crate::backup::manifest::{Entry, Manifest};
use crate::digest::Digest;
use crate::effect::fs::Kind;
use crate::raw_path::RawPath;

/// Files up to this size are searched for absolute paths.
const SCAN_LIMIT_BYTES: u64 = 1 << 20;

/// How many names one note lists.
const NAMES_LIMIT: usize = 8;

/// A tree: what it holds, and how its small files are read. `read` answers `None` for a file that is not there.
pub struct Tree<'a> {
    /// Its entries, paths relative to its top.
    pub manifest: &'a Manifest,
    /// Reads a small file.
    pub read: &'a dyn Fn(&RawPath) -> io::Result<Option<Vec<u8>>>,
}

/// What a survey looks at.
pub struct SurveyInput<'a> {
    /// The layout of both releases.
    pub layout: Layout,
    /// Where the old home is.
    pub home: &'a RawPath,
    /// Where the package was unpacked to by the operator, if it was.
    pub unpacked: Option<&'a RawPath>,
    /// The old release.
    pub old: &'a Identity,
    /// The new release.
    pub new: &'a Identity,
    /// The old home, listed without content digests.
    pub old_tree: Tree<'a>,
    /// The new package, with content digests.
    pub new_tree: Tree<'a>,
    /// The old package, with content digests, if it is known.
    pub base_tree: Option<Tree<'a>>,
    /// Whether the operator gives a licence for the new release.
    pub licence_given: bool,
    /// Plain blake3 of a file's content in the old home.
    pub hash: &'a mut dyn FnMut(&RawPath) -> io::Result<Digest>,
    /// The digest that an item of the old home, a file or a whole tree, is later compared with.
    pub expect: &'a mut dyn FnMut(&RawPath) -> io::Result<Digest>,
}

/// What a survey found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What to carry and what to say.
    pub list: CarryList,
    /// The contents of `Edited` items by their digest. They may hold secrets.
    pub contents: BTreeMap<Digest, Vec<u8>>,
    /// The merge of `kylin.properties` key by key, secrets masked.
    pub changes: Vec<KeyChange>,
}

/// A file of a tree that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{path}` of the {tree}")]
pub struct SurveyError {
    /// `old home`, `new package` or `old package`.
    pub tree: &'static str,
    /// The file, relative to the tree.
    pub path: RawPath,
    /// Why.
    pub source: io::Error,
}

/// Decides what is carried.
pub fn survey(input: &mut SurveyInput<'_>) -> Result<Survey, SurveyError> {
    let (old_manifest, new_manifest) = (input.old_tree.manifest, input.new_tree.manifest);
    let base_manifest = input.base_tree.as_ref().map(|tree| tree.manifest);
    let mut surveyor = Surveyor {
        old: Listing::new(old_manifest),
        new: Listing::new(new_manifest),
        base: base_manifest.map(Listing::new),
        input,
        found: Survey::default(),
        added: BTreeMap::new(),
    };
    surveyor.walk()?;
    surveyor.carry_properties()?;
    surveyor.link_what_grows();
    surveyor.report_added();
    surveyor.scan_carried()?;
    let mut found = surveyor.found;
    found.list.items.sort_by(|a, b| a.to.cmp(&b.to));
    found.list.notes.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    Ok(found)
}

/// What became of an entry between the old package and the old home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The old package has the same.
    Untouched,
    /// The old package has another, or none.
    Changed,
    /// The old package is not known.
    Unknown,
}

struct Surveyor<'s, 'a> {
    input: &'s mut SurveyInput<'a>,
    old: Listing<'a>,
    new: Listing<'a>,
    base: Option<Listing<'a>>,
    found: Survey,
    /// Entries under the new release's own directories that only the old home has, by top directory.
    added: BTreeMap<RawPath, Vec<RawPath>>,
}

impl<'a> Surveyor<'_, 'a> {
    fn walk(&mut self) -> Result<(), SurveyError> {
        let mut whole: Option<RawPath> = None;
        let entries: Vec<&Entry> =
            self.old.entries().filter(|entry| !entry.path.as_bytes().is_empty()).collect();
        for entry in entries {
            if whole.as_ref().is_some_and(|dir| is_below(&entry.path, dir)) {
                continue;
            }
            let (treatment, why) = treatment(self.input.layout, &entry.path);
            if entry.kind == Kind::Dir && self.is_whole(entry, treatment) {
                self.carry(entry, why)?;
                self.note(NoteKind::Carried, &entry.path, "only the old home has this directory");
                whole = Some(entry.path.clone());
            } else if entry.kind != Kind::Dir {
                self.decide(entry, treatment, why)?;
            } else if treatment == Treatment::LeaveMeasured && !entry.path.as_bytes().contains(&b'/') {
                let bytes: u64 = self.old.below(&entry.path).map(|entry| entry.size).sum();
                self.note(NoteKind::Left, &entry.path, &format!("left in the old tree: {bytes} bytes"));
            }
        }
        Ok(())
    }

    /// Whether a directory is carried as one tree: nobody else's is there, and it has no part that is not carried.
    fn is_whole(&self, dir: &Entry, treatment: Treatment) -> bool {
        let carried = match treatment {
            Treatment::Carry | Treatment::CarryReported | Treatment::CarryAdded | Treatment::Operator => true,
            Treatment::CarryAddedIfKnown => self.base.is_some(),
            _ => false,
        };
        carried
            && self.new.get(&dir.path).is_none()
            && self.base.as_ref().is_none_or(|base| base.get(&dir.path).is_none())
            && self.new.obstacle_above(&dir.path).is_none()
            && self.old.below(&dir.path).all(|entry| {
                self::treatment(self.input.layout, &entry.path).0 == treatment
                    && !matches!(entry.kind, Kind::Socket | Kind::Device)
            })
    }

    fn decide(&mut self, entry: &'a Entry, treatment: Treatment, why: &str) -> Result<(), SurveyError> {
        if matches!(entry.kind, Kind::Socket | Kind::Device) && treatment != Treatment::Leave {
            self.note(NoteKind::Left, &entry.path, "a socket or device means nothing in another place");
            return Ok(());
        }
        match treatment {
            Treatment::Leave | Treatment::Properties => Ok(()),
            Treatment::LeaveMeasured => {
                if !entry.path.as_bytes().contains(&b'/') {
                    self.note(
                        NoteKind::Left,
                        &entry.path,
                        &format!("left in the old tree: {} bytes", entry.size),
                    );
                }
                Ok(())
            }
            Treatment::Bundled => {
                if self.new.get(&entry.path).is_none() {
                    self.count_added(&entry.path);
                }
                Ok(())
            }
            Treatment::Link | Treatment::LinkAside => self.decide_linked(entry, why),
            Treatment::New => {
                if self.new.get(&entry.path).is_none() && self.change(entry)? != Change::Untouched {
                    self.count_added(&entry.path);
                }
                Ok(())
            }
            Treatment::Carry | Treatment::CarryReported => {
                self.decide_carried(entry, why, treatment == Treatment::CarryReported)
            }
            Treatment::CarryIfChanged => self.decide_if_changed(entry, why),
            Treatment::CarryAdded | Treatment::CarryAddedIfKnown => {
                self.decide_added(entry, why, treatment == Treatment::CarryAddedIfKnown)
            }
            Treatment::CarryIfSame(component) => self.decide_component(entry, component, why),
            Treatment::Licence => self.decide_licence(entry, why),
            Treatment::Profile => self.decide_profile(entry, why),
            Treatment::JobConfig => self.decide_job_config(entry, why),
            Treatment::RedoIfChanged => {
                if self.differs_from_new(entry)? && self.change(entry)? != Change::Untouched {
                    self.note(NoteKind::Redo, &entry.path, why);
                }
                Ok(())
            }
            Treatment::Operator => self.decide_operators(entry, why),
        }
    }

    /// A link in place of a directory of logs or backups leads to the operator's own disk.
    fn decide_linked(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        if entry.kind == Kind::Symlink && !entry.path.as_bytes().contains(&b'/') {
            self.carry(entry, why)?;
        }
        Ok(())
    }

    fn decide_carried(&mut self, entry: &'a Entry, why: &str, report: bool) -> Result<(), SurveyError> {
        if !self.differs_from_new(entry)? || self.change(entry)? == Change::Untouched {
            return Ok(());
        }
        if report {
            let text = match self.new.get(&entry.path) {
                Some(_) => "the new release brings another one, which is replaced",
                None => "the new release has no such file",
            };
            self.note(NoteKind::Carried, &entry.path, text);
        }
        self.carry(entry, why)
    }

    fn decide_if_changed(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        if !self.differs_from_new(entry)? {
            return Ok(());
        }
        match self.change(entry)? {
            Change::Untouched => Ok(()),
            // A merged file comes in its place.
            _ if self.merged_from().as_ref() == Some(&entry.path) => Ok(()),
            Change::Unknown if self.new.get(&entry.path).is_some() => {
                let text = "differs from the new release's; without the old package nobody can tell whether it was \
                            changed here, so the new release's stays";
                self.note(NoteKind::Redo, &entry.path, text);
                Ok(())
            }
            _ => {
                self.note(NoteKind::Carried, &entry.path, "changed here");
                self.carry(entry, why)
            }
        }
    }

    fn decide_added(&mut self, entry: &'a Entry, why: &str, only_if_known: bool) -> Result<(), SurveyError> {
        if self.new.get(&entry.path).is_some() {
            if self.differs_from_new(entry)? && self.change(entry)? != Change::Untouched {
                let text = "the new release brings a file of this name, which stays";
                self.note(NoteKind::Left, &entry.path, text);
            }
            return Ok(());
        }
        let in_base = self.base.as_ref().map(|base| base.get(&entry.path).is_some());
        match in_base {
            Some(true) => Ok(()),
            None if only_if_known => {
                self.count_added(&entry.path);
                Ok(())
            }
            _ => {
                self.note(NoteKind::Carried, &entry.path, "only the old home has it");
                self.carry(entry, why)
            }
        }
    }

    fn decide_component(
        &mut self,
        entry: &'a Entry,
        component: Component,
        why: &str,
    ) -> Result<(), SurveyError> {
        if !self.differs_from_new(entry)? || self.change(entry)? == Change::Untouched {
            return Ok(());
        }
        let name = match component {
            Component::Spark => "Spark",
            Component::Tomcat => "Tomcat",
        };
        let versions = self.component_versions(component)?;
        if let (Some(old), Some(new)) = &versions
            && old == new
        {
            self.note(NoteKind::Carried, &entry.path, &format!("{name} is {old} in both releases"));
            return self.carry(entry, why);
        }
        let show =
            |version: &Option<String>| version.clone().unwrap_or_else(|| "of unknown version".to_owned());
        let text = format!(
            "{why}: {name} is {} in the old release and {} in the new one, so it must be done again by hand",
            show(&versions.0),
            show(&versions.1)
        );
        self.note(NoteKind::Redo, &entry.path, &text);
        Ok(())
    }

    fn decide_licence(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let is_2_to_3 = self.input.old.generation() == Some(Generation::Kap2)
            && self.input.new.generation() == Some(Generation::Ke3);
        if self.input.old.product == Product::Kylin || entry.kind != Kind::File || self.input.licence_given {
            return Ok(());
        }
        if is_2_to_3 {
            self.note(
                NoteKind::Redo,
                &entry.path,
                "release 3 needs a new licence; the old one is not carried",
            );
            return Ok(());
        }
        self.decide_carried(entry, why, false)
    }

    /// The manual has users make the link absolute; a relative one survives the exchange whatever the home is called.
    fn decide_profile(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let Some(choice) = self.profile_choice() else {
            self.note(
                NoteKind::Redo,
                &entry.path,
                "it does not point to a profile in `conf`; choose one again",
            );
            return Ok(());
        };
        if self.new.get(&entry.path).is_some_and(|new| new.target.as_ref() == Some(&choice)) {
            return Ok(());
        }
        let in_new = RawPath::from("conf").join(&choice);
        if self.new.get(&in_new).is_none_or(|new| new.kind != Kind::Dir) {
            let text = format!("the new release has no profile `{choice}`; its own choice stays");
            self.note(NoteKind::Redo, &entry.path, &text);
            return Ok(());
        }
        self.push(entry, entry.path.clone(), How::Symlink { target: choice }, why)
    }

    fn decide_job_config(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let Some(target) = entry.target.as_ref().filter(|_| entry.kind == Kind::Symlink) else {
            return self.decide_carried(entry, why, true);
        };
        let Some(inside) = self.inside_conf(target).filter(|path| path.as_bytes().starts_with(b"profile"))
        else {
            // A link out of the profiles, to a file of the operator's.
            return self.decide_carried(entry, why, true);
        };
        if self.new.get(&entry.path).is_some_and(|new| new.target.as_ref() == Some(&inside)) {
            return Ok(());
        }
        self.push(entry, entry.path.clone(), How::Symlink { target: inside }, why)
    }

    fn decide_operators(&mut self, entry: &'a Entry, why: &str) -> Result<(), SurveyError> {
        let change = self.change(entry)?;
        if self.new.get(&entry.path).is_some() {
            if self.differs_from_new(entry)? && change == Change::Changed {
                let text = "changed here; the new release brings its own, which stays";
                self.note(NoteKind::Left, &entry.path, text);
            }
            return Ok(());
        }
        if change == Change::Untouched {
            return Ok(());
        }
        self.note(NoteKind::Carried, &entry.path, "only the old home has it");
        self.carry(entry, why)
    }

    fn change(&mut self, entry: &Entry) -> Result<Change, SurveyError> {
        let Some(base) = &self.base else { return Ok(Change::Unknown) };
        let Some(shipped) = base.get(&entry.path) else { return Ok(Change::Changed) };
        let content = base.content(shipped);
        let same = self.is_same(entry, shipped, content)?;
        Ok(if same { Change::Untouched } else { Change::Changed })
    }

    fn differs_from_new(&mut self, entry: &Entry) -> Result<bool, SurveyError> {
        let Some(new) = self.new.get(&entry.path) else { return Ok(true) };
        let content = self.new.content(new);
        Ok(!self.is_same(entry, new, content)?)
    }

    fn is_same(&mut self, old: &Entry, other: &Entry, content: Option<Digest>) -> Result<bool, SurveyError> {
        if old.kind != other.kind || old.target != other.target || old.size != other.size {
            return Ok(false);
        }
        if old.kind != Kind::File {
            return Ok(true);
        }
        let hash =
            (self.input.hash)(&old.path).map_err(|source| unreadable("old home", &old.path, source))?;
        Ok(content == Some(hash))
    }

    fn carry(&mut self, entry: &Entry, why: &str) -> Result<(), SurveyError> {
        self.push(entry, entry.path.clone(), How::Copy, why)
    }

    fn push(&mut self, entry: &Entry, to: RawPath, how: How, why: &str) -> Result<(), SurveyError> {
        if let Some(obstacle) = self.new.obstacle_above(&to) {
            let text = format!("cannot be carried: `{}` is no directory in the new release", obstacle.path);
            self.note(NoteKind::Redo, &entry.path, &text);
            return Ok(());
        }
        let becomes_dir = entry.kind == Kind::Dir;
        if !becomes_dir && self.new.get(&to).is_some_and(|new| new.kind == Kind::Dir) {
            self.note(NoteKind::Redo, &entry.path, "cannot be carried: it is a directory in the new release");
            return Ok(());
        }
        let expected =
            (self.input.expect)(&entry.path).map_err(|source| unreadable("old home", &entry.path, source))?;
        let (from, why) = (entry.path.clone(), why.to_owned());
        self.found.list.items.push(CarryItem { from, to, how, expected: Some(expected), why });
        Ok(())
    }

    fn note(&mut self, kind: NoteKind, path: &RawPath, text: &str) {
        self.found.list.notes.push(Note { kind, path: path.clone(), text: text.to_owned() });
    }

    fn count_added(&mut self, path: &RawPath) {
        let bytes = path.as_bytes();
        let top = bytes.split(|b| *b == b'/').next().unwrap_or_default();
        // Spark's own jars are many; they get a note apart from the rest of Spark.
        let top = if bytes.starts_with(b"spark/jars/") { &b"spark/jars"[..] } else { top };
        self.added.entry(RawPath::new(top)).or_default().push(path.clone());
    }

    fn report_added(&mut self) {
        for (dir, paths) in std::mem::take(&mut self.added) {
            let names: Vec<String> = paths.iter().take(NAMES_LIMIT).map(|path| format!("`{path}`")).collect();
            let more = match paths.len() - names.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let bundled = treatment(self.input.layout, &dir).0 == Treatment::Bundled;
            let (kind, whose) = match (&self.base, bundled) {
                (_, true) => (NoteKind::Redo, "a bundled service's; stop it and move its data by hand"),
                (Some(_), _) => (NoteKind::Left, "added here"),
                (None, _) => (NoteKind::Left, "added here or the old release's own"),
            };
            let text =
                format!("not in the new release and not carried ({whose}): {}{more}", names.join(", "));
            self.note(kind, &dir, &text);
        }
    }

    /// Logs and metadata backups grow until the service stops, and after it: they are linked then, whatever is there.
    fn link_what_grows(&mut self) {
        let before = format!("logs/before-{}", file_name_of(&self.input.old.version.text));
        let links = [("meta_backups", "meta_backups".to_owned()), ("logs", before)];
        for (from, to) in links {
            let (from, to) = (RawPath::from(from), RawPath::from(to.as_str()));
            if self.old.get(&from).is_some_and(|entry| entry.kind != Kind::Dir) {
                continue;
            }
            if let Some(obstacle) = self.new.obstacle_above(&to) {
                let text =
                    format!("cannot be linked: `{}` is no directory in the new release", obstacle.path);
                self.note(NoteKind::Left, &from, &text);
                continue;
            }
            let why = treatment(self.input.layout, &from).1.to_owned();
            self.found.list.items.push(CarryItem { from, to, how: How::Link, expected: None, why });
        }
    }

    /// The old file that `conf/kylin.properties` leads to.
    fn merged_from(&self) -> Option<RawPath> {
        self.resolve_chosen(&self.old, &RawPath::from("conf/kylin.properties"))
    }

    fn resolve_chosen(&self, listing: &Listing<'_>, path: &RawPath) -> Option<RawPath> {
        let profile = RawPath::from("conf/profile");
        let choice = self.profile_choice();
        listing
            .resolve(path, choice.as_ref().map(|choice| (&profile, choice)))
            .or_else(|| listing.resolve(path, None))
    }

    /// The profile that the old home chose, as a name in `conf`.
    fn profile_choice(&self) -> Option<RawPath> {
        let link = self.old.get(&RawPath::from("conf/profile"))?;
        let inside = self.inside_conf(link.target.as_ref()?)?;
        let is_name = !inside.as_bytes().contains(&b'/') && inside.as_bytes().starts_with(b"profile");
        (is_name && inside.as_bytes() != b"profile").then_some(inside)
    }

    /// A link's target as a path relative to `conf`, if that is where it leads. An absolute one counts if it leads into
    /// `conf` of a directory with the home's name, since the home may have been reached through another path.
    fn inside_conf(&self, target: &RawPath) -> Option<RawPath> {
        let mut bytes = target.as_bytes();
        if bytes.starts_with(b"/") {
            let mark = [b"/", self.input.home.file_name(), b"/conf/"].concat();
            let by_home = [self.input.home.as_bytes(), b"/conf/"].concat();
            bytes = bytes.strip_prefix(by_home.as_slice()).or_else(|| {
                let at = bytes.windows(mark.len()).rposition(|window| window == mark)?;
                Some(&bytes[at + mark.len()..])
            })?;
        }
        let names: Vec<&[u8]> =
            bytes.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
        (!names.is_empty() && !names.contains(&&b".."[..])).then(|| RawPath::new(names.join(&b'/')))
    }
}

fn unreadable(tree: &'static str, path: &RawPath, source: io::Error) -> SurveyError {
    SurveyError { tree, path: path.clone(), source }
}

fn is_below(path: &RawPath, dir: &RawPath) -> bool {
    path.as_bytes().strip_prefix(dir.as_bytes()).is_some_and(|tail| tail.starts_with(b"/"))
}

/// A version as part of a file name.
fn file_name_of(version: &str) -> String {
    version.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}

mod contents;
#[cfg(test)]
mod tests;
