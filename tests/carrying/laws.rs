//! What every merge keeps, held against thousands of generated files: no operator's value is lost, no key comes from
//! nowhere, order and comments stay, and who merges twice gets what he has.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use kytx::kyligence::merge::{Side, merge_with};
use kytx::kyligence::merge_xml::{Texts, merge_xml, values};
use kytx::kyligence::properties::Properties;
use kytx::kyligence::renamed::Renames;

const KEYS: [&str; 8] = ["a", "b.c", "kap.x", "kap.y", "kylin.x", "kylin.y", "old.one", "new.one"];

/// A file as people write them: comments, blank lines, both separators, a key twice.
fn file() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        6 => (prop::sample::select(&KEYS[..]), "[a-c]{0,2}", prop::sample::select(vec!["=", " = ", ": ", " "]))
            .prop_map(|(key, value, sign)| format!("{key}{sign}{value}\n")),
        1 => "[ a-z]{0,6}".prop_map(|text| format!("# {text}\n")),
        1 => Just("\n".to_owned()),
        1 => prop::sample::select(&KEYS[..]).prop_map(|key| format!("{key}=two\\\n  lines\n")),
    ];
    prop::collection::vec(line, 0..10).prop_map(|lines| lines.concat())
}

fn renames() -> impl Strategy<Value = Renames> {
    prop::sample::select(vec!["", "old.one=new.one\n", "kap.=kylin.\n", "old.one=new.one\nkap.=kylin.\n"])
        .prop_map(|text| Renames::parse(text.as_bytes()))
}

/// The lines of a file that are neither pairs nor their continuations.
fn comments(text: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20_261_124),
        ..ProptestConfig::with_cases(4_000)
    })]

    #[test]
    fn a_merge_of_properties_keeps_what_it_must(
        base in file(), old in file(), new in file(), renames in renames(), known in any::<bool>(),
    ) {
        let [base, old, shipped] = [&base, &old, &new].map(|text| Properties::parse(text.as_bytes()));
        let base = known.then_some(base);
        let merged = merge_with(base.as_ref(), &old, &shipped, &renames, &mut |_| Side::Ours);
        let (result, was, comes) = (merged.file.to_map(), old.to_map(), shipped.to_map());
        for (key, value) in &was {
            // By whichever of its names.
            let name = |key: &String| renames.new_name(key).unwrap_or_else(|| key.clone());
            let untouched = base.as_ref().is_some_and(|base| {
                base.to_map().iter().any(|(other, was)| name(other) == name(key) && was == value)
            });
            let new_name = renames.new_name(key).unwrap_or_default();
            let there = [key, &new_name].into_iter().filter_map(|key| result.get(key)).any(|found| found == value);
            prop_assert!(untouched || there, "{key}={value} is lost in {result:?}");
        }
        for key in result.keys() {
            let renamed = was.keys().any(|old| renames.new_name(old).as_ref() == Some(key));
            prop_assert!(was.contains_key(key) || comes.contains_key(key) || renamed, "{key} is from nowhere");
        }
        // The new release's comments in their order, and its keys, those that are gone apart.
        let text = String::from_utf8(merged.file.render()).unwrap();
        let shown = comments(&text);
        prop_assert!(shown.starts_with(&comments(&new)), "{text}");
        let order = |text: &str| {
            let mut seen = BTreeSet::new();
            let keys = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with(' '));
            let keys = keys.filter_map(|line| line.split([' ', '=', ':']).next()).filter(|key| !key.is_empty());
            keys.filter(|key| seen.insert((*key).to_owned())).map(str::to_owned).collect::<Vec<_>>()
        };
        let kept: Vec<String> = order(&new).into_iter().filter(|key| result.contains_key(key)).collect();
        prop_assert!(order(&text).starts_with(&kept), "{kept:?} in {text}");
        let again = merge_with(base.as_ref(), &merged.file, &shipped, &renames, &mut |_| Side::Ours);
        prop_assert!(again.file.to_map() == result, "{:?} again", result);
    }

    #[test]
    fn the_releases_side_wins_conflicts_and_nothing_else(base in file(), old in file(), new in file()) {
        let [base, old, new] = [&base, &old, &new].map(|text| Properties::parse(text.as_bytes()));
        let mut asked = BTreeSet::new();
        let merged = merge_with(Some(&base), &old, &new, &Renames::default(), &mut |conflict| {
            asked.insert(conflict.key.clone());
            Side::Theirs
        });
        for key in KEYS {
            let (was, ours, theirs) = (base.get(key), old.get(key), new.get(key));
            let contested = ours != was && theirs != was && ours != theirs;
            prop_assert_eq!(asked.contains(key), contested, "{}", key);
            let expected = if contested || ours == was { theirs } else { ours };
            prop_assert_eq!(merged.file.get(key), expected, "{}", key);
        }
    }

    #[test]
    fn a_merge_of_a_configuration_follows_the_same_table(
        base in properties(), old in properties(), new in properties(),
    ) {
        let [base_text, old_text, new_text] = [&base, &old, &new].map(configuration);
        let texts = Texts { base: &base_text, old: &old_text, new: &new_text };
        let merged = merge_xml(texts, &mut |_| Side::Ours).unwrap();
        let result = values(&merged.text).unwrap_or_else(|| panic!("no configuration: {}", merged.text));
        for key in base.keys().chain(old.keys()).chain(new.keys()) {
            let expected = if base.get(key) == old.get(key) { new.get(key) } else { old.get(key) };
            prop_assert_eq!(result.get(key), expected, "{} in {}", key, &merged.text);
        }
        prop_assert!(result.keys().all(|key| old.contains_key(key) || new.contains_key(key)));
        prop_assert!(merged.text.contains("<!-- shipped -->"));
        let again = merge_xml(Texts { old: &merged.text, ..texts }, &mut |_| Side::Ours).unwrap();
        prop_assert_eq!(values(&again.text), Some(result));
    }
}

fn properties() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-e]", "[0-2]", 0..5)
}

fn configuration(properties: &BTreeMap<String, String>) -> String {
    let lines = properties.iter().map(|(name, value)| {
        format!("  <property>\n    <name>{name}</name>\n    <value>{value}</value>\n  </property>\n")
    });
    format!(
        "<?xml version=\"1.0\"?>\n<configuration>\n  <!-- shipped -->\n{}</configuration>\n",
        lines.collect::<String>()
    )
}
