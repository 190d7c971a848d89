//! What the metadata store holds, by the names that the product's tool lists, and what of it a backup lacks.
//!
//! `metastore.sh list FOLDER` of `ResourceTool` prints one line, `[/project/a.json, /project/b.json]`: a sorted set of
//! the names one level below a folder, or `null` where no entry lies below it, and 1 as its code when the store is away
//! (seen with Kylin 3.1.3 over a directory and over `MariaDB`). So the store's top and each of its folders are asked; what
//! lies deeper is left to the traces that a deletion leaves in the output.

use std::collections::{BTreeMap, BTreeSet};

use super::secrets::mask_text;
use crate::effect::shell::Attendant;

/// Names that a message repeats.
const NAMED_MAX: usize = 10;

/// The folders in which an instance that is up on another host writes first.
const WRITTEN_FIRST: [&str; 2] = ["/", "/execute_output"];

/// The store's own name, which a backup has another of.
const OWN_NAME: &str = "/UUID";

/// The names that a folder has.
pub type Names = BTreeSet<String>;

/// The names of the top of a store and of each of its folders: by folder, as they are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    folders: BTreeMap<String, Names>,
}

impl Listing {
    /// Asks for the top and for each name there, of which some are entries and no folders.
    pub fn take<E>(list: &mut dyn FnMut(&str) -> Result<Names, E>) -> Result<Self, E> {
        let top = list("/")?;
        let mut folders = BTreeMap::new();
        for folder in top.iter().filter(|name| *name != OWN_NAME) {
            let below = list(folder)?;
            if !below.is_empty() {
                folders.insert(folder.clone(), below);
            }
        }
        folders.insert("/".to_owned(), top);
        Ok(Self { folders })
    }

    /// Asks again for the folders in which somebody else's work would be seen.
    pub fn take_again<E>(list: &mut dyn FnMut(&str) -> Result<Names, E>) -> Result<Self, E> {
        let mut folders = BTreeMap::new();
        for folder in WRITTEN_FIRST {
            folders.insert(folder.to_owned(), list(folder)?);
        }
        Ok(Self { folders })
    }

    /// Which of these names a backup lacks; `held` are the names in one of its folders, without the folder. Both sides are
    /// compared as they can be printed: where the tool's locale is `C`, it prints, and writes, a question mark for whatever
    /// is not ASCII.
    pub fn missing_from<E>(&self, held: &dyn Fn(&str) -> Result<Vec<String>, E>) -> Result<Vec<String>, E> {
        let mut missing = Vec::new();
        for (folder, listed) in &self.folders {
            let mut kept = BTreeMap::<String, usize>::new();
            for name in held(folder)? {
                *kept.entry(printable(&name)).or_default() += 1;
            }
            let prefix = prefix_of(folder);
            for name in listed.iter().filter(|name| *name != OWN_NAME) {
                let short = printable(name.strip_prefix(&prefix).unwrap_or(name));
                match kept.get_mut(&short) {
                    // Each counts once, so that the numbers must agree where names cannot.
                    Some(left) if *left > 0 => *left -= 1,
                    _ => missing.push(name.clone()),
                }
            }
        }
        Ok(missing)
    }

    /// The names that were there and are in a later listing no more; folders that were not asked for again say nothing.
    pub fn gone_in(&self, later: &Self) -> Vec<String> {
        let nothing = Names::new();
        let asked =
            later.folders.iter().map(|(folder, now)| (self.folders.get(folder).unwrap_or(&nothing), now));
        asked.flat_map(|(before, now)| before.difference(now).cloned()).collect()
    }
}

/// Names in a message, as many as a reader takes in.
pub fn listed(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(NAMED_MAX)
        .map(|name| format!("`{}`", mask_text(name)))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(", ...");
    }
    text
}

/// Keeps the line with the names from log and memory limits: a folder may have a hundred thousand entries, and the line
/// comes in pieces then.
#[derive(Debug, Default)]
pub struct Line {
    bytes: Vec<u8>,
}

impl Line {
    /// The names of a folder, if the line was about it.
    pub fn names(&self, folder: &str) -> Option<Names> {
        parse(folder, &String::from_utf8_lossy(&self.bytes))
    }
}

impl Attendant for Line {
    fn takes(&mut self, line: &[u8]) -> bool {
        let is_open = self.bytes.starts_with(b"[") && !self.bytes.ends_with(b"]");
        if is_open {
            self.bytes.extend_from_slice(line);
            return true;
        }
        let line = line.trim_ascii();
        if self.bytes.is_empty() && (line.starts_with(b"[/") || line == b"[]" || line == b"null") {
            self.bytes = line.to_vec();
            return true;
        }
        false
    }
}

/// The names of the line `[/a/b, /a/c]` about the folder `/a`; `None` if it is no such line. A name may hold a comma and
/// a blank, but no slash, so where one ends can always be told.
fn parse(folder: &str, line: &str) -> Option<Names> {
    if line == "null" || line == "[]" {
        return Some(BTreeSet::new());
    }
    let inner = line.strip_prefix('[')?.strip_suffix(']')?;
    let prefix = prefix_of(folder);
    let between = format!(", {prefix}");
    let names: Names =
        inner.strip_prefix(&prefix)?.split(&between).map(|name| format!("{prefix}{name}")).collect();
    names.iter().all(|name| !name[prefix.len()..].contains('/')).then_some(names)
}

fn prefix_of(folder: &str) -> String {
    if folder == "/" { "/".to_owned() } else { format!("{folder}/") }
}

fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if c.is_ascii() { c } else { '?' };
        // One character may have become one mark or several.
        if c != '?' || !text.ends_with('?') {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Names {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_line_is_read_as_the_tool_prints_it() {
        let top = parse("/", "[/UUID, /dict, /project]");
        assert_eq!(top, Some(set(&["/UUID", "/dict", "/project"])));
        let commas = parse("/project", "[/project/a.json, /project/b, c.json, /project/x ] y]");
        assert_eq!(commas, Some(set(&["/project/a.json", "/project/b, c.json", "/project/x ] y"])));
        assert_eq!(parse("/nosuch", "null"), Some(set(&[])));
        for none in ["", "[/other/a]", "[/project/a/b]", "/project/a", "[project/a]", "[/project/a"] {
            assert_eq!(parse("/project", none), None, "{none}");
        }
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_put_together_and_others_are_left() {
        let mut line = Line::default();
        assert!(!line.takes(b"Starting list /cube"));
        assert!(line.takes(b"[/cube/a, /cu"));
        assert!(line.takes(b"be/b]"));
        assert!(!line.takes(b"[/cube/c]"), "a second one is somebody else's");
        assert_eq!(line.names("/cube"), Some(set(&["/cube/a", "/cube/b"])));
    }

    #[test]
    fn a_locale_that_cannot_print_a_name_makes_no_difference() {
        assert_eq!(printable("caf\u{e9}"), printable("caf??"));
        assert_ne!(printable("caf\u{e9}"), printable("caf"));
    }

    #[test]
    fn what_went_is_told_of_the_folders_that_were_asked_again() {
        let of = |folders: &[(&str, &[&str])]| Listing {
            folders: folders.iter().map(|(folder, names)| ((*folder).to_owned(), set(names))).collect(),
        };
        let before = of(&[("/", &["/a", "/b"]), ("/a", &["/a/1"]), ("/b", &["/b/1"])]);
        assert_eq!(before.gone_in(&of(&[("/", &["/a", "/b", "/c"])])), Vec::<String>::new());
        assert_eq!(before.gone_in(&of(&[("/", &["/a"]), ("/a", &[])])), ["/b", "/a/1"]);
    }
}
