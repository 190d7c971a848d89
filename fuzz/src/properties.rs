//! Properties files, and the merge of two releases' files.

use std::collections::BTreeSet;

use kytx::kyligence::merge::{Merged, merge};
use kytx::kyligence::properties::{Properties, fuzz_properties};

/// What parts an input into the file as the old package shipped it, the operator's, and the new release's. No text
/// holds it.
const SEPARATOR: u8 = 0x1e;

/// Any bytes are a properties file: parsing never panics, an unchanged file is written back byte for byte, and setting
/// a key changes that key and no other. Any three are merged by the table of `kyligence::merge`, key by key.
pub fn properties(data: &[u8]) {
    fuzz_properties(data);
    let mut parts = data.splitn(3, |byte| *byte == SEPARATOR).map(Properties::parse);
    let (Some(first), Some(second)) = (parts.next(), parts.next()) else { return };
    match parts.next() {
        Some(third) => merge_laws(Some(&first), &second, &third),
        None => merge_laws(None, &first, &second),
    }
}

fn merge_laws(base: Option<&Properties>, old: &Properties, new: &Properties) {
    let merged = merge(base, old, new);
    values_follow_the_table(base, old, new, &merged);
    let written = Properties::parse(&merged.file.render());
    assert_eq!(written.to_map(), merged.file.to_map(), "what was written reads otherwise");
    // Who merges what he has merged gets what he has.
    let again = merge(base, &merged.file, new);
    assert_eq!(again.file.to_map(), merged.file.to_map(), "a second merge changes values");
    // An operator who changed nothing has the new release's file, to the byte.
    assert_eq!(merge(Some(old), old, new).file.render(), new.render(), "an untouched file was not replaced");
    let same = merge(base, new, new);
    assert_eq!(
        (same.file.render(), same.changes),
        (new.render(), vec![]),
        "equal files do not merge to themselves"
    );
}

fn values_follow_the_table(base: Option<&Properties>, old: &Properties, new: &Properties, merged: &Merged) {
    let base_map = base.map(Properties::to_map);
    let (old, new, result) = (old.to_map(), new.to_map(), merged.file.to_map());
    let keys: BTreeSet<_> =
        old.keys().chain(new.keys()).chain(base_map.iter().flat_map(|map| map.keys())).collect();
    assert!(result.keys().all(|key| keys.contains(key)), "a key from nowhere");
    let mut changed = Vec::new();
    for key in keys {
        let (was, comes) = (old.get(key), new.get(key));
        let expected = match &base_map {
            Some(base) if base.get(key) == was => comes,
            Some(_) => was,
            None => was.or(comes),
        };
        assert_eq!(result.get(key), expected, "{key:?}");
        if was != comes || expected != comes {
            changed.push(key);
        }
    }
    assert!(merged.changes.iter().map(|change| &change.key).eq(changed), "the preview: {:?}", merged.changes);
}
