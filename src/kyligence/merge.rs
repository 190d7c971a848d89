//! Merging `kylin.properties` of two releases, key by key.
//!
//! Nothing in the product does it: its script overwrites the new file with the old one, so new defaults and new keys
//! are lost. With the old package's own file as the base, keys that the operator changed keep their value and all
//! others take the new release's. Without it nobody can tell an operator's value from an old default, so every old
//! value that differs wins; that keeps behaviour as it was, and the preview says what it cost. Where both sides changed
//! a key, the caller says whose value wins.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::properties::Properties;
use super::renamed::Renames;
use super::secrets::mask_value;

/// What happened to one key, for the preview. Values are masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key.
    pub key: String,
    /// Its name in the old file, if the new release has given it another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formerly: Option<String>,
    /// Its value in the old file.
    pub old: Option<String>,
    /// Its value in the new release's file.
    pub new: Option<String>,
    /// Its value in the merged file.
    pub merged: Option<String>,
    /// Why.
    pub why: KeyReason,
}

/// Why a key got its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyReason {
    /// The operator had changed it; the new release has another value.
    OperatorKept,
    /// The old package is not known, so the old value wins over the new release's.
    OldKept,
    /// The new release's file has no such key any more, but the operator had changed it.
    RemovedKept,
    /// The old package is not known and the new release's file has no such key: it is kept.
    OnlyInOldKept,
    /// The operator had taken it out of the old file.
    OperatorRemoved,
    /// The operator had not changed it: the new release's value.
    NewDefault,
    /// The new release brought it.
    NewKey,
    /// The operator had not changed it and the new release's file has it no more.
    RemovedByRelease,
    /// Operator and release had both changed it, and the release's value was chosen.
    ReleaseChosen,
}

/// Whose value wins where operator and release both changed a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The operator's.
    #[default]
    Ours,
    /// The new release's.
    Theirs,
}

/// A key that both sides changed. Values are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The key, by its name in the new release.
    pub key: String,
    /// What the old package had; `None` too where that is not known.
    pub base: Option<String>,
    /// What the operator has.
    pub ours: Option<String>,
    /// What the new release has.
    pub theirs: Option<String>,
    /// Whether the old package is known. If not, the operator's value may be an old default.
    pub base_known: bool,
}

/// Decides conflicts.
pub type Decide<'a> = dyn FnMut(&Conflict) -> Side + 'a;

/// A merged file and what the merge did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The new release's file with the values that are kept.
    pub file: Properties,
    /// One entry a key whose old, new and merged values are not all equal, sorted by key.
    pub changes: Vec<KeyChange>,
}

/// Keys that say where this instance's data are. The new release's defaults point to another instance's, so they are
/// never in question.
const OF_THE_SITE: [&str; 3] =
    ["kylin.metadata.url", "kylin.env.hdfs-working-dir", "kylin.env.zookeeper-connect-string"];

/// Written above the keys that the new release's file does not have.
const KEPT_HEADING: &str = "Kept from the previous release";

/// Merges the old file into the new release's, the operator's value winning every conflict. `base` is the file as the
/// old package shipped it, if that is known.
pub fn merge(base: Option<&Properties>, old: &Properties, new: &Properties) -> Merged {
    merge_with(base, old, new, &Renames::default(), &mut |_| Side::Ours)
}

/// The same, keys that were given another name in the new release taken together, and conflicts decided by the caller.
pub fn merge_with(
    base: Option<&Properties>,
    old: &Properties,
    new: &Properties,
    renames: &Renames,
    decide: &mut Decide<'_>,
) -> Merged {
    let new_values = new.to_map();
    let (old_values, base_values) = (old.to_map(), base.map(Properties::to_map));
    let files: Vec<_> = base_values.iter().chain([&old_values]).collect();
    let moves = renames.moves(&files, &new_values);
    let formerly: BTreeMap<&String, &String> =
        moves.iter().filter(|(old, _)| old_values.contains_key(*old)).map(|(old, new)| (new, old)).collect();
    let under_new_names = |values: BTreeMap<String, String>| -> BTreeMap<String, String> {
        values.into_iter().map(|(key, value)| (moves.get(&key).cloned().unwrap_or(key), value)).collect()
    };
    let twofold = twofold(base_values.as_ref(), &old_values, &new_values, renames);
    let (old_values, base_values) = (
        under_new_names(old_values.clone()),
        base_values
            .clone()
            .map(|base| under_new_names(base).into_iter().chain(twofold).collect::<BTreeMap<_, _>>()),
    );
    let keys: BTreeSet<&String> =
        old_values.keys().chain(new_values.keys()).chain(base_values.iter().flat_map(|b| b.keys())).collect();
    let mut merged = Merged { file: new.clone(), changes: Vec::new() };
    let mut headed = false;
    for key in keys {
        let base = base_values.as_ref().map(|base| base.get(key));
        let (old, new) = (old_values.get(key), new_values.get(key));
        let (value, why) = merge_value(key, base, old, new, decide);
        match value {
            Some(value) if new.is_some() => merged.file.set(key, value),
            Some(value) => {
                if !headed {
                    merged.file.append_comment(KEPT_HEADING);
                    headed = true;
                }
                merged.file.append(key, value);
            }
            None => {
                merged.file.remove(key);
            }
        }
        if old != new || value != new || formerly.contains_key(key) {
            let mask = |value: Option<&String>| value.map(|value| mask_value(key, value));
            merged.changes.push(KeyChange {
                key: key.clone(),
                formerly: formerly.get(key).map(|old| (*old).clone()),
                old: mask(old),
                new: mask(new),
                merged: mask(value),
                why,
            });
        }
    }
    merged
}

/// What the old package had for keys of which the operator's file has both names: by the new name, the value that it had
/// under the old one. Without it the next merge, whose old file has one name left, would come to another end.
fn twofold(
    base: Option<&BTreeMap<String, String>>,
    old: &BTreeMap<String, String>,
    shipped: &BTreeMap<String, String>,
    renames: &Renames,
) -> BTreeMap<String, String> {
    let Some(base) = base else { return BTreeMap::new() };
    let both = old.keys().filter_map(|key| Some((key, renames.new_name(key)?)));
    both.filter(|(key, new)| {
        old.contains_key(new) && shipped.contains_key(new) && !shipped.contains_key(*key)
    })
    .filter(|(_, new)| !base.contains_key(new))
    .filter_map(|(key, new)| Some((new, base.get(key)?.clone())))
    .collect()
}

/// What differs between two sets of values, for somebody who must carry it over by hand. Values are masked.
pub fn differences(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<(String, Option<String>, Option<String>)> {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mask = |key: &String, value: Option<&String>| value.map(|value| mask_value(key, value));
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| (key.clone(), mask(key, old.get(key)), mask(key, new.get(key))))
        .collect()
}

type Value<'a> = Option<&'a String>;

/// Merges one value. `base` is `None` if the old package is not known.
pub(super) fn merge_value<'a>(
    key: &str,
    base: Option<Value<'_>>,
    old: Value<'a>,
    new: Value<'a>,
    decide: &mut Decide<'_>,
) -> (Value<'a>, KeyReason) {
    let (value, why) = match base {
        Some(base) => three_way(base, old, new),
        None => two_way(old, new),
    };
    let is_conflict = match base {
        Some(base) => old != base && new != base && old != new,
        None => old.is_some() && new.is_some() && old != new,
    };
    if !is_conflict || OF_THE_SITE.contains(&key) {
        return (value, why);
    }
    let mask = |value: Option<&String>| value.map(|value| mask_value(key, value));
    let conflict = Conflict {
        key: key.to_owned(),
        base: mask(base.flatten()),
        ours: mask(old),
        theirs: mask(new),
        base_known: base.is_some(),
    };
    match decide(&conflict) {
        Side::Ours => (value, why),
        Side::Theirs => (new, KeyReason::ReleaseChosen),
    }
}

fn three_way<'a>(base: Value<'_>, old: Value<'a>, new: Value<'a>) -> (Value<'a>, KeyReason) {
    let untouched = old == base;
    match (old, new) {
        (Some(_), Some(_)) if untouched => (new, KeyReason::NewDefault),
        (Some(_), None) if untouched => (None, KeyReason::RemovedByRelease),
        (None, _) if untouched => (new, KeyReason::NewKey),
        (Some(_), Some(_)) => (old, KeyReason::OperatorKept),
        (Some(_), None) => (old, KeyReason::RemovedKept),
        (None, _) => (None, KeyReason::OperatorRemoved),
    }
}

fn two_way<'a>(old: Value<'a>, new: Value<'a>) -> (Value<'a>, KeyReason) {
    match (old, new) {
        (Some(_), Some(_)) => (old, KeyReason::OldKept),
        (Some(_), None) => (old, KeyReason::OnlyInOldKept),
        (None, _) => (new, KeyReason::NewKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Properties {
        Properties::parse(text.as_bytes())
    }

    fn change<'a>(merged: &'a Merged, key: &str) -> Option<&'a KeyChange> {
        merged.changes.iter().find(|change| change.key == key)
    }

    #[test]
    fn three_way_keeps_what_the_operator_changed_and_takes_the_rest() {
        let base = file("same=1\nchanged=1\ndefault=1\ngone=1\ngone-changed=1\ndeleted=1\nboth=1\n");
        let old = file("same=1\nchanged=mine\ndefault=1\ngone=1\ngone-changed=mine\nown=mine\nboth=2\n");
        let new = file("# new\nsame=1\nchanged=1\ndefault=2\ndeleted=1\nfresh=1\nboth=2\n");
        let merged = merge(Some(&base), &old, &new);
        let text = String::from_utf8(merged.file.render()).unwrap();
        assert_eq!(
            text,
            "# new\nsame=1\nchanged=mine\ndefault=2\nfresh=1\nboth=2\n\
             # Kept from the previous release\ngone-changed=mine\nown=mine\n"
        );
        let reasons: Vec<_> = merged.changes.iter().map(|c| (c.key.as_str(), c.why)).collect();
        assert_eq!(
            reasons,
            [
                ("changed", KeyReason::OperatorKept),
                ("default", KeyReason::NewDefault),
                ("deleted", KeyReason::OperatorRemoved),
                ("fresh", KeyReason::NewKey),
                ("gone", KeyReason::RemovedByRelease),
                ("gone-changed", KeyReason::RemovedKept),
                ("own", KeyReason::RemovedKept),
            ]
        );
    }

    #[test]
    fn two_way_keeps_every_old_value_and_the_new_keys() {
        let merged = merge(None, &file("a=old\nb=1\nonly-old=x\n"), &file("a=new\nb=1\nfresh=2"));
        let text = String::from_utf8(merged.file.render()).unwrap();
        assert_eq!(text, "a=old\nb=1\nfresh=2\n# Kept from the previous release\nonly-old=x\n");
        assert_eq!(change(&merged, "a").unwrap().why, KeyReason::OldKept);
        assert_eq!(change(&merged, "only-old").unwrap().why, KeyReason::OnlyInOldKept);
        assert_eq!(change(&merged, "fresh").unwrap().merged.as_deref(), Some("2"));
        assert_eq!(change(&merged, "b"), None);
    }

    #[test]
    fn secrets_are_kept_in_the_file_and_masked_in_the_preview() {
        let url = "kylin.metadata.url=m@jdbc,url=jdbc:mysql://h/db,password=geheim\n";
        let merged = merge(None, &file(&format!("{url}x.password=geheim\n")), &file("x.password=other\n"));
        assert!(String::from_utf8(merged.file.render()).unwrap().contains("password=geheim"));
        let preview = serde_json::to_string(&merged.changes).unwrap();
        assert!(!preview.contains("geheim") && !preview.contains("other"), "{preview}");
    }

    #[test]
    fn equal_files_merge_to_the_new_bytes() {
        let new = file("a : 1\r\n\r\n# c\r\n");
        let merged = merge(None, &file("a=1\n"), &new);
        assert_eq!((merged.file, merged.changes), (new, vec![]));
    }

    #[test]
    fn a_conflict_is_decided_by_the_caller_and_a_key_of_the_site_is_none() {
        let base = file("a=1\nkylin.metadata.url=x@hbase\nuntouched=1\ngone=1\n");
        let old = file("a=mine\nkylin.metadata.url=my@jdbc\nuntouched=1\ngone=mine\n");
        let new = file("a=2\nkylin.metadata.url=y@hbase\nuntouched=2\n");
        let mut asked = Vec::new();
        let merged = merge_with(Some(&base), &old, &new, &Renames::default(), &mut |conflict| {
            asked.push(conflict.key.clone());
            Side::Theirs
        });
        assert_eq!(asked, ["a", "gone"]);
        let text = String::from_utf8(merged.file.render()).unwrap();
        assert_eq!(text, "a=2\nkylin.metadata.url=my@jdbc\nuntouched=2\n");
        assert_eq!(change(&merged, "a").unwrap().why, KeyReason::ReleaseChosen);
    }

    #[test]
    fn a_renamed_key_takes_the_operators_value_to_its_new_name() {
        let renames = Renames::parse(b"kap.old=kylin.new\nkap.family.=kylin.family.\n");
        let base = file("kap.old=1\nkap.family.x=1\n");
        let old = file("kap.old=mine\nkap.family.x=1\n");
        let new = file("# c\nkylin.new=1\nkylin.family.x=2\n");
        let merged = merge_with(Some(&base), &old, &new, &renames, &mut |_| Side::Ours);
        let text = String::from_utf8(merged.file.render()).unwrap();
        assert_eq!(text, "# c\nkylin.new=mine\nkylin.family.x=2\n");
        assert_eq!(change(&merged, "kylin.new").unwrap().formerly.as_deref(), Some("kap.old"));
        // Without the table both would stand in the file, and which one counts would be the product's secret.
        let without = merge(Some(&base), &old, &new);
        assert!(String::from_utf8(without.file.render()).unwrap().contains("kap.old=mine"));
    }
}
