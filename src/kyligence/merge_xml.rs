//! Merging XML configuration of two releases, with the old package's own file as the base.
//!
//! Two forms are understood. A Hadoop configuration is a list of named properties; it is merged by property. Tomcat's
//! `server.xml` and `context.xml` are trees whose meaning is in their attributes; they are merged by attribute where the
//! operator changed attributes only. Everything else is not merged at all: half a merge would be worse than none.

use std::collections::BTreeMap;

use super::merge::{Decide, KeyChange, KeyReason, merge_value};
use super::secrets::mask_value;
use super::xml::{Element, parse, replace};

/// Three texts of one file.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// As the old package shipped it.
    pub base: &'a str,
    /// As the old home has it.
    pub old: &'a str,
    /// As the new release ships it.
    pub new: &'a str,
}

/// A merged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedXml {
    /// The new release's file with the values that are kept.
    pub text: String,
    /// One entry a value whose old, new and merged forms are not all equal, in order.
    pub changes: Vec<KeyChange>,
}

/// Merges by property, or by attribute; `None` if the file is not of either form in all three texts.
pub fn merge_xml(texts: Texts<'_>, decide: &mut Decide<'_>) -> Option<MergedXml> {
    let roots = [parse(texts.base)?, parse(texts.old)?, parse(texts.new)?];
    if roots.iter().all(|root| root.name == "configuration") {
        return merge_properties(texts, &roots, decide);
    }
    merge_attributes(texts, &roots, decide)
}

/// The values of a file by name, for somebody who must carry them over by hand; `None` if it is not plain.
pub fn values(text: &str) -> Option<BTreeMap<String, String>> {
    let root = parse(text)?;
    if root.name == "configuration" {
        let properties = properties(text, &root)?;
        return Some(properties.into_iter().map(|(name, property)| (name, property.shown())).collect());
    }
    let mut found = BTreeMap::new();
    collect_attributes(text, &root, "", &mut found);
    Some(found)
}

/// A property of a Hadoop configuration.
struct Property<'a> {
    /// Its element.
    element: &'a Element,
    /// Its value as it stands in the text, with the mark `final` that belongs to it.
    meaning: String,
    value: &'a str,
}

impl Property<'_> {
    fn shown(&self) -> String {
        self.value.trim().to_owned()
    }
}

/// The properties by name; `None` if something else is in the file, or a name is there twice.
fn properties<'a>(text: &'a str, root: &'a Element) -> Option<BTreeMap<String, Property<'a>>> {
    let mut found = BTreeMap::new();
    for element in &root.children {
        if element.name != "property" {
            return None;
        }
        let part = |name: &str| {
            let mut parts = element.children.iter().filter(|child| child.name == name);
            let first = parts.next();
            parts.next().is_none().then_some(first)
        };
        let name = text[part("name")??.content.clone()].trim();
        let value = part("value")?.map_or("", |value| &text[value.content.clone()]);
        let is_final = part("final")?.map_or("", |value| text[value.content.clone()].trim());
        let meaning = format!("{}\0{is_final}", value.trim());
        if found.insert(name.to_owned(), Property { element, meaning, value }).is_some() {
            return None;
        }
    }
    Some(found)
}

fn merge_properties(texts: Texts<'_>, roots: &[Element; 3], decide: &mut Decide<'_>) -> Option<MergedXml> {
    let base = properties(texts.base, &roots[0])?;
    let old = properties(texts.old, &roots[1])?;
    let new = properties(texts.new, &roots[2])?;
    let mut names: Vec<&String> = base.keys().chain(old.keys()).chain(new.keys()).collect();
    // In the order of the old file, so that what is appended keeps its order.
    names.sort_by_key(|name| (old.get(*name).map_or(usize::MAX, |p| p.element.whole.start), *name));
    names.dedup();
    let (mut edits, mut changes, mut appended) = (Vec::new(), Vec::new(), String::new());
    for name in names {
        let meaning = |of: &BTreeMap<String, Property<'_>>| of.get(name).map(|p| p.meaning.clone());
        let meanings = [meaning(&base), meaning(&old), meaning(&new)];
        let [base_meaning, old_meaning, new_meaning] = &meanings;
        // A conflict is shown without the mark.
        let mut shown = |conflict: &super::merge::Conflict| {
            let plain = |value: &Option<String>| {
                value.as_ref().map(|value| value.split('\0').next().unwrap_or_default().to_owned())
            };
            let mut conflict = conflict.clone();
            conflict.base = plain(&conflict.base);
            conflict.ours = plain(&conflict.ours);
            conflict.theirs = plain(&conflict.theirs);
            decide(&conflict)
        };
        let (value, why) = merge_value(
            name,
            Some(base_meaning.as_ref()),
            old_meaning.as_ref(),
            new_meaning.as_ref(),
            &mut shown,
        );
        match (value, new.get(name)) {
            (Some(value), Some(there)) if *value != there.meaning => {
                edits.push((
                    there.element.whole.clone(),
                    texts.old[old[name].element.whole.clone()].to_owned(),
                ));
            }
            (Some(_), None) => {
                appended.push_str("\n    ");
                appended.push_str(&texts.old[old[name].element.whole.clone()]);
            }
            (None, Some(there)) => {
                let begin = texts.new[..there.element.whole.start].trim_end_matches([' ', '\t']).len();
                edits.push((begin..there.element.whole.end, String::new()));
            }
            _ => {}
        }
        if old_meaning != new_meaning || value != new_meaning.as_ref() {
            let merged = value.map(|value| value.split('\0').next().unwrap_or_default().to_owned());
            let shown = |of: &BTreeMap<String, Property<'_>>| of.get(name).map(Property::shown);
            changes.push(change(name, shown(&old), shown(&new), merged, why));
        }
    }
    if !appended.is_empty() {
        let root = &roots[2];
        if root.content.start == root.content.end && texts.new[root.whole.clone()].ends_with("/>") {
            return None;
        }
        let content = &texts.new[root.content.clone()];
        let at = root.content.start + content.trim_end().len();
        // Behind the last thing in the file and on lines of its own.
        let ended = if content.trim_end().len() == content.len() { "\n" } else { "" };
        edits.push((at..at, appended + ended));
    }
    Some(MergedXml { text: replace(texts.new, edits), changes })
}

/// The attributes of a tree by a path to each, `Server/Service/Connector[2]@port`.
fn collect_attributes(text: &str, element: &Element, above: &str, found: &mut BTreeMap<String, String>) {
    walk(element, above, &mut |path, element| {
        for attribute in &element.attributes {
            found.insert(format!("{path}@{}", attribute.name), text[attribute.value.clone()].to_owned());
        }
    });
}

fn walk<'a>(element: &'a Element, above: &str, visit: &mut dyn FnMut(&str, &'a Element)) {
    let path = if above.is_empty() { element.name.clone() } else { above.to_owned() };
    visit(&path, element);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for child in &element.children {
        let number = seen.entry(&child.name).or_default();
        *number += 1;
        let mark = if *number == 1 { String::new() } else { format!("[{number}]") };
        walk(child, &format!("{path}/{}{mark}", child.name), visit);
    }
}

fn by_path(root: &Element) -> BTreeMap<String, &Element> {
    let mut found = BTreeMap::new();
    walk(root, "", &mut |path, element| {
        found.insert(path.to_owned(), element);
    });
    found
}

/// What says which element it is, if it has any of them.
const NAMING: [&str; 4] = ["className", "name", "path", "resourceName"];

fn merge_attributes(texts: Texts<'_>, roots: &[Element; 3], decide: &mut Decide<'_>) -> Option<MergedXml> {
    let [base, old, new] = [by_path(&roots[0]), by_path(&roots[1]), by_path(&roots[2])];
    // The operator added or removed elements, or moved one: no merge by attribute says what was meant.
    let same_form = base.keys().eq(old.keys())
        && base.iter().all(|(path, element)| {
            named_alike((texts.base, element), (texts.old, old[path]))
                && text_of(texts.base, element) == text_of(texts.old, old[path])
        });
    if !same_form {
        return None;
    }
    let (mut edits, mut changes) = (Vec::new(), Vec::new());
    for (path, element) in &base {
        let operators = old[path];
        let mut names: Vec<&str> =
            element.attributes.iter().chain(&operators.attributes).map(|a| a.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let value = |text: &str, of: &Element| of.attribute(text, name).map(str::to_owned);
            let (base_value, old_value) = (value(texts.base, element), value(texts.old, operators));
            if base_value == old_value {
                continue;
            }
            let there =
                new.get(path).filter(|there| named_alike((texts.base, element), (texts.new, there)))?;
            let new_value = value(texts.new, there);
            let key = format!("{path}@{name}");
            let (value, why) =
                merge_value(&key, Some(base_value.as_ref()), old_value.as_ref(), new_value.as_ref(), decide);
            if value != new_value.as_ref() {
                edits.push(edit_of(texts.new, there, name, value)?);
            }
            if old_value != new_value || value != new_value.as_ref() {
                changes.push(change(&key, old_value.clone(), new_value.clone(), value.cloned(), why));
            }
        }
    }
    Some(MergedXml { text: replace(texts.new, edits), changes })
}

/// Whether two elements are the same one: what names it is equal.
fn named_alike(a: (&str, &Element), b: (&str, &Element)) -> bool {
    NAMING.iter().all(|name| a.1.attribute(a.0, name) == b.1.attribute(b.0, name))
}

/// What an element without children says.
fn text_of<'a>(text: &'a str, element: &Element) -> &'a str {
    if element.children.is_empty() { text[element.content.clone()].trim() } else { "" }
}

/// Sets, adds or removes an attribute.
fn edit_of(
    text: &str,
    element: &Element,
    name: &str,
    value: Option<&String>,
) -> Option<(std::ops::Range<usize>, String)> {
    let there = element.attributes.iter().find(|attribute| attribute.name == name);
    match (there, value) {
        (Some(there), Some(value)) => {
            let quote = text[..there.value.start].chars().next_back()?;
            (!value.contains(quote)).then(|| (there.value.clone(), value.clone()))
        }
        (None, Some(value)) => {
            let quote = if value.contains('"') { '\'' } else { '"' };
            let at = element.attributes_end;
            Some((at..at, format!(" {name}={quote}{value}{quote}")))
        }
        (Some(there), None) => {
            let begin = text[..there.value.start].rfind(name)?;
            Some((text[..begin].trim_end().len()..there.value.end + 1, String::new()))
        }
        (None, None) => None,
    }
}

fn change(
    key: &str,
    old: Option<String>,
    new: Option<String>,
    merged: Option<String>,
    why: KeyReason,
) -> KeyChange {
    let mask = |value: Option<String>| value.map(|value| mask_value(key, &value));
    KeyChange {
        key: key.to_owned(),
        formerly: None,
        old: mask(old),
        new: mask(new),
        merged: mask(merged),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::super::merge::Side;
    use super::*;

    fn merged(base: &str, old: &str, new: &str) -> Option<MergedXml> {
        merge_xml(Texts { base, old, new }, &mut |_| Side::Ours)
    }

    const BASE: &str = "<configuration>\n    <property>\n        <name>a</name>\n        <value>1</value>\n                            </property>\n    <property><name>b</name><value>1</value></property>\n</configuration>\n";

    #[test]
    fn a_configuration_is_merged_by_property() {
        let old = BASE.replace("<value>1</value>\n", "<value>mine</value>\n").replace(
            "</configuration>",
            "    <property><name>own</name><value>x</value></property>\n</configuration>",
        );
        let new = BASE
            .replace("<name>b</name><value>1</value>", "<name>b</name><value>2</value>")
            .replace("<configuration>", "<configuration>\n    <!-- fresh -->");
        let done = merged(BASE, &old, &new).unwrap();
        let expected = new.replace("<value>1</value>\n", "<value>mine</value>\n").replace(
            "\n</configuration>",
            "\n    <property><name>own</name><value>x</value></property>\n</configuration>",
        );
        assert_eq!(done.text, expected);
        let keys: Vec<_> = done.changes.iter().map(|c| (c.key.as_str(), c.why)).collect();
        assert_eq!(
            keys,
            [("a", KeyReason::OperatorKept), ("b", KeyReason::NewDefault), ("own", KeyReason::RemovedKept)]
        );
        // Merged once more it stays as it is.
        assert_eq!(merged(BASE, &done.text, &new).unwrap().text, done.text);
    }

    #[test]
    fn what_the_operator_removed_stays_away_and_what_is_no_property_list_is_not_merged() {
        let old = BASE.replace("    <property><name>b</name><value>1</value></property>\n", "");
        let new = BASE.replace("<value>1</value>\n", "<value>2</value>\n");
        let done = merged(BASE, &old, &new).unwrap();
        assert!(
            !done.text.contains("<name>b</name>") && done.text.contains("<value>2</value>"),
            "{}",
            done.text
        );
        for odd in [
            "<configuration><include/></configuration>",
            "<configuration><property><value>x</value></property></configuration>",
            "<configuration><property><name>a</name></property><property><name>a</name></property></configuration>",
            "<other/>",
            "no xml",
        ] {
            assert_eq!(merged(BASE, odd, &new), None, "{odd}");
        }
    }

    const SERVER: &str = "<Server port=\"9005\">\n  <Service name=\"Catalina\">\n    <Connector port=\"7070\"                           protocol=\"HTTP/1.1\"/>\n    <Connector port=\"9009\" protocol=\"AJP/1.3\"/>\n                            </Service>\n</Server>\n";

    #[test]
    fn a_tree_is_merged_by_attribute() {
        let old = SERVER
            .replace("7070", "8080")
            .replace("protocol=\"AJP/1.3\"/>", "protocol=\"AJP/1.3\" secret=\"s3cret\"/>");
        let new = SERVER
            .replace("<Server", "<!-- new -->\n<Server")
            .replace("protocol=\"HTTP/1.1\"", "protocol=\"HTTP/1.1\" compression=\"on\"");
        let done = merged(SERVER, &old, &new).unwrap();
        let expected = new
            .replace("7070", "8080")
            .replace("protocol=\"AJP/1.3\"/>", "protocol=\"AJP/1.3\" secret=\"s3cret\"/>");
        assert_eq!(done.text, expected);
        let shown = format!("{:?}", done.changes);
        assert!(shown.contains("Server/Service/Connector@port") && !shown.contains("s3cret"), "{shown}");
        assert_eq!(merged(SERVER, &done.text, &new).unwrap().text, done.text);
    }

    #[test]
    fn a_tree_with_other_elements_is_not_merged() {
        let valve = "<Valve className=\"tomcat.request.session.redis.SessionHandlerValve\"/></Service>";
        let old = SERVER.replace("</Service>", valve);
        assert_eq!(merged(SERVER, &old, &SERVER.replace("9005", "9006")), None);
        // The element that the operator changed is not in the new release.
        let gone = SERVER.replace("    <Connector port=\"9009\" protocol=\"AJP/1.3\"/>\n", "");
        assert_eq!(merged(SERVER, &SERVER.replace("9009", "9010"), &gone), None);
    }
}
