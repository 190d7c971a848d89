//! Which customisations of a home are carried: the table of `carry` applied to three listings.
//!
//! The old home is listed without hashing; a file is read only where the decision depends on its content. The old
//! package, if the operator has it still, is the base that tells an operator's change from an old default.

mod by_hand;
mod contents;
mod decide;
mod xml;

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::Serialize;

use super::carry::{ByHand, CarryItem, CarryList, Component, How, Note, NoteKind, Treatment, treatment};
use super::home::Layout;
use super::listing::Listing;
use super::merge::{Conflict, KeyChange, Side};
use super::properties::Properties;
use super::renamed::Renames;
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
    /// The name of the new package's top directory, by which a path into an unpacked package is known.
    pub top: &'a RawPath,
    /// Whether the operator gives a licence for the new release.
    pub licence_given: bool,
    /// Keys that the new release calls otherwise.
    pub renames: &'a Renames,
    /// Whose value wins where both sides changed one, in this file of the old home.
    pub decide: &'a mut dyn FnMut(&RawPath, &Conflict) -> Side,
    /// Plain blake3 of a file's content in the old home.
    pub hash: &'a mut dyn FnMut(&RawPath) -> io::Result<Digest>,
    /// The digest that an item of the old home, a file or a whole tree, is later compared with.
    pub expect: &'a mut dyn FnMut(&RawPath) -> io::Result<Digest>,
}

/// What a survey found. `Debug` leaves the contents out, as they hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What to carry and what to say.
    pub list: CarryList,
    /// The contents of `Edited` items by their digest. They may hold secrets.
    pub contents: BTreeMap<Digest, Vec<u8>>,
    /// The merge of `kylin.properties` key by key, secrets masked.
    pub changes: Vec<KeyChange>,
    /// The merges of XML files value by value, secrets masked.
    pub merged: Vec<FileChanges>,
    /// Carried files that name the path to which the package was unpacked, with the lines.
    pub unpacked: Vec<(RawPath, Vec<usize>)>,
}

/// What a merge did to one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileChanges {
    /// The file, relative to the home.
    pub file: RawPath,
    /// Value by value.
    pub changes: Vec<KeyChange>,
}

impl fmt::Debug for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey")
            .field("list", &self.list)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
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
    surveyor.say_what_is_to_do()?;
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

impl Surveyor<'_, '_> {
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
                let bytes: u64 = self.old.below(&entry.path).map(|entry| entry.size).sum();
                let text = format!("only the old home has this directory: {bytes} bytes");
                self.note(NoteKind::Carried, &entry.path, &text);
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

    /// Carries a file with another content than it has.
    fn push_edited(
        &mut self,
        from: RawPath,
        to: RawPath,
        content: Vec<u8>,
        why: &str,
    ) -> Result<(), SurveyError> {
        let digest = Digest::of(&content);
        let expected = (self.input.expect)(&from).map_err(|source| unreadable("old home", &from, source))?;
        // Another treatment may have decided for the same name; the merge is the better.
        self.found.list.items.retain(|item| item.to != to);
        let (how, why) = (How::Edited { content: digest }, why.to_owned());
        self.found.list.items.push(CarryItem { from, to, how, expected: Some(expected), why });
        self.found.contents.insert(digest, content);
        Ok(())
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
        self.found.list.notes.push(Note {
            kind,
            path: path.clone(),
            text: text.to_owned(),
            by_hand: Vec::new(),
        });
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

#[cfg(test)]
mod tests;
