//! Keys that a release has given another name.
//!
//! The product translates old names itself when it reads its configuration, by a table in one of its jars
//! (`kylin-backward-compatibility.properties`, and up to ten more with a number in the name): `old=new`, where a new
//! name that ends in a dot renames a whole family. A merge must know them: with the operator's value under the old name
//! and the shipped one under the new name in one file, which of the two counts would be chance.

use std::collections::{BTreeMap, BTreeSet};

use super::properties::Properties;

/// The table's member names in a jar, without the number.
pub const TABLE_NAME: &str = "kylin-backward-compatibility";

/// A table of renamed keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renames {
    keys: BTreeMap<String, String>,
    families: BTreeMap<String, String>,
}

impl Renames {
    /// Reads a table. An entry without effect, or whose new name holds the old one (which the product refuses), is
    /// passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut renames = Self::default();
        renames.extend(bytes);
        renames
    }

    /// Adds another table's entries.
    pub fn extend(&mut self, bytes: &[u8]) {
        for (old, new) in Properties::parse(bytes).to_map() {
            if old.is_empty() || new.contains(old.as_str()) {
                continue;
            }
            let map = if new.ends_with('.') { &mut self.families } else { &mut self.keys };
            map.insert(old, new);
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.families.is_empty()
    }

    /// The name that the new release has for a key, if it is another one. A key's own entry goes before its family's;
    /// of two families the longer name counts.
    pub fn new_name(&self, key: &str) -> Option<String> {
        if let Some(new) = self.keys.get(key) {
            return Some(new.clone());
        }
        let (old, new) = self
            .families
            .iter()
            .filter(|(old, _)| key.starts_with(old.as_str()))
            .max_by_key(|(old, _)| old.len())?;
        Some(format!("{new}{}", &key[old.len()..]))
    }

    /// Which keys of some files are called otherwise in the file that the new release ships: old name to new. Left out
    /// are those whose new name the shipped file does not have, as the product goes on reading an operator's spelling,
    /// and those where a value could be lost: both names in one file, the old name shipped as well, or two old names
    /// for one new one.
    pub fn moves(
        &self,
        files: &[&BTreeMap<String, String>],
        shipped: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut by_new: BTreeMap<String, BTreeSet<&String>> = BTreeMap::new();
        for key in files.iter().flat_map(|file| file.keys()) {
            if let Some(new) = self.new_name(key) {
                by_new.entry(new).or_default().insert(key);
            }
        }
        let is_plain = |new: &String, old: &String| {
            let both = |file: &&BTreeMap<String, String>| file.contains_key(old) && file.contains_key(new);
            shipped.contains_key(new) && !shipped.contains_key(old) && !files.iter().any(both)
        };
        let single = by_new.into_iter().filter(|(_, olds)| olds.len() == 1);
        single
            .filter_map(|(new, olds)| Some((olds.into_iter().next()?.clone(), new)))
            .filter(|(old, new)| is_plain(new, old))
            .collect()
    }

    /// The keys of a file that have another name in the new release, with it.
    pub fn in_file(&self, file: &Properties) -> Vec<(String, String)> {
        file.to_map().into_keys().filter_map(|key| self.new_name(&key).map(|new| (key, new))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_and_families_are_renamed() {
        let renames = Renames::parse(b"# c\na=b\nsame=same\nkap.=kylin.\nkap.x.=kylin.y.\nloop=a.loop\n");
        assert_eq!(renames.new_name("a").as_deref(), Some("b"));
        assert_eq!(renames.new_name("kap.q").as_deref(), Some("kylin.q"));
        assert_eq!(renames.new_name("kap.x.q").as_deref(), Some("kylin.y.q"));
        for untouched in ["same", "loop", "other", "xkap.q"] {
            assert_eq!(renames.new_name(untouched), None, "{untouched}");
        }
    }

    #[test]
    fn no_value_is_lost_in_translation() {
        let renames = Renames::parse(b"a=new\nb=new\nc=other\nd=fresh\n");
        let moves = |files: &[&BTreeMap<String, String>], shipped: &[(&str, &str)]| {
            renames.moves(files, &map(shipped)).into_iter().collect::<Vec<_>>()
        };
        let pair = |old: &str, new: &str| vec![(old.to_owned(), new.to_owned())];
        assert_eq!(moves(&[&map(&[("a", "1"), ("c", "3")])], &[("new", "0")]), pair("a", "new"));
        assert_eq!(moves(&[&map(&[("a", "1")]), &map(&[("b", "2")])], &[("new", "0")]), [], "two for one");
        assert_eq!(moves(&[&map(&[("a", "1"), ("new", "2")])], &[("new", "0")]), [], "both in one file");
        assert_eq!(moves(&[&map(&[("d", "1")])], &[("fresh", "0"), ("d", "0")]), [], "both shipped");
        assert_eq!(
            moves(&[&map(&[("d", "1")]), &map(&[("fresh", "1")])], &[("fresh", "0")]),
            pair("d", "fresh")
        );
    }
}
