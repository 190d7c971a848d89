//! Keys that a release has given another name.
//!
//! The product translates old names itself when it reads its configuration, by a table in one of its jars
//! (`kylin-backward-compatibility.properties`, and up to ten more with a number in the name): `old=new`, where a new
//! name that ends in a dot renames a whole family. A merge must know them: with the operator's value under the old name
//! and the shipped one under the new name in one file, which of the two counts would be chance.

use std::collections::BTreeMap;

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

    /// Puts values under their new names, where the new release's file has these: elsewhere an operator's spelling
    /// stays, as the product goes on reading it. Where old and new name are both there, both stay. The second map says
    /// what each moved key was called.
    pub fn translate(
        &self,
        values: BTreeMap<String, String>,
        shipped: &BTreeMap<String, String>,
    ) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let (mut translated, mut formerly) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in &values {
            let new = self.new_name(key).filter(|new| {
                // Two old names for one new one: the second stays, or a value would be lost.
                shipped.contains_key(new) && !values.contains_key(new) && !formerly.contains_key(new)
            });
            match new {
                Some(new) => {
                    formerly.insert(new.clone(), key.clone());
                    translated.insert(new, value.clone());
                }
                None => {
                    translated.insert(key.clone(), value.clone());
                }
            }
        }
        (translated, formerly)
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
        let renames = Renames::parse(b"a=new\nb=new\nc=other\n");
        let (values, formerly) =
            renames.translate(map(&[("a", "1"), ("b", "2"), ("c", "3")]), &map(&[("new", "0")]));
        assert_eq!(values, map(&[("new", "1"), ("b", "2"), ("c", "3")]));
        assert_eq!(formerly, map(&[("new", "a")]));
        let (values, formerly) = renames.translate(map(&[("a", "1"), ("new", "2")]), &map(&[("new", "0")]));
        assert_eq!((values, formerly), (map(&[("a", "1"), ("new", "2")]), map(&[])));
    }
}
