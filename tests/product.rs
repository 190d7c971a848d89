//! kytx and a product that is real where it can be: the metadata tool of Kylin 3.1.3 over a directory and over a `MariaDB`,
//! Tomcat 7, and Kylin's own server. The parts come from `testbed/product/real`; `tests/run` brings them up.

#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks into test machines")]

mod product {
    pub mod bed;
    pub mod procedure;
    pub mod site;
    pub mod store;
}
mod support;

use std::fs;

use product::bed::Bed;
use product::procedure::{Before, Killed, assert_same_entries};
use product::site::{Plan, Product, Site};
use product::store::{Kind, LARGE, files};

#[test]
fn the_tool_says_and_returns_what_the_original_does() {
    let Some(bed) = Bed::find("the_tool_says_and_returns_what_the_original_does") else { return };
    for store in [Kind::Directory, Kind::Database] {
        let site = Site::new(&bed, Plan::new(Product::Ke, store));
        site.fill();
        let entries = site.entries();
        assert_eq!(entries.len(), 3 + 40 + 6, "{store:?} {:?}", entries.keys());
        let ran = site.script("metastore.sh", &["backup"]).expect_code(0);
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix("Metadata backed up to "));
        let dir = std::path::PathBuf::from(line.unwrap_or_else(|| panic!("{ran:?}")));
        let mut backup = files(&dir);
        assert!(backup.remove("/UUID").is_some(), "it has a name of its own");
        assert_eq!(backup, entries, "content and times");

        // What is not in a backup stays: a restore lays over.
        site.script("metastore.sh", &["remove", "/project/web.json"]).expect_code(0);
        let dir = dir.to_str().unwrap();
        let ran = site.script("metastore.sh", &["restore", dir]).expect_code(0);
        assert!(ran.stdout.contains(&format!("Metadata restored from {dir}")), "{}", ran.stdout);
        assert_eq!(site.entries(), entries);
        site.script("metastore.sh", &["reset"]).expect_code(0);
        assert!(site.entries().is_empty(), "{:?}", site.entries());
        site.script("metastore.sh", &["restore", dir]).expect_code(0);
        assert_eq!(site.entries(), entries);

        // Codes that say nothing.
        let ran = site.script("metastore.sh", &["restore"]).expect_code(0);
        assert!(!ran.stdout.contains("Metadata restored from"), "{}", ran.stdout);
        let empty = site.root.join("empty");
        fs::create_dir(&empty).unwrap();
        site.script("metastore.sh", &["restore", empty.to_str().unwrap()]).expect_code(0);
        assert_eq!(files(&empty).into_keys().collect::<Vec<_>>(), ["/UUID"]);
        site.script("metastore.sh", &["restore", "/no/such/directory"]).expect_code(1);
        site.knobs("JAVA=/no/such/java\n");
        let ran = site.script("metastore.sh", &["backup"]).expect_code(0);
        assert!(ran.stdout.contains("metadata store backed up to"), "{}", ran.stdout);
        assert!(!ran.stdout.contains("Metadata backed up to"), "{}", ran.stdout);
        assert_eq!(site.entries(), entries);
    }
}

/// A whole upgrade, a project made in the new release, and the whole way back, killed all along.
fn upgrade_and_abort(bed: &Bed, plan: Plan, layer: &str) {
    let site = Site::new(bed, plan);
    site.fill();
    site.start();
    let before = Before::of(&site);
    let mut killed = Killed::new(&site, layer);
    killed.upgrade(&[]);
    assert_same_entries(&before.entries, &site.entries());
    assert!(site.version().contains("3.1.3"), "{}", site.version());
    assert_eq!(site.projects(), before.projects);
    site.make_project("made_in_the_new_release");
    site.script("metastore.sh", &["remove", &format!("/{LARGE}")]).expect_code(0);
    assert!(site.projects().contains(&"made_in_the_new_release".to_owned()));
    killed.abort();
    before.assert_back(&site);
    killed.publish();
}

#[test]
fn i3_an_upgrade_of_ke_with_its_metadata_in_a_database_survives_kills_both_ways() {
    let test = "i3_an_upgrade_of_ke_with_its_metadata_in_a_database_survives_kills_both_ways";
    let Some(bed) = Bed::find(test) else { return };
    upgrade_and_abort(&bed, Plan::new(Product::Ke, Kind::Database), "real metadata tool, MariaDB");
}

#[test]
fn i3_an_upgrade_of_kylin_with_its_metadata_in_a_directory_survives_kills_both_ways() {
    let test = "i3_an_upgrade_of_kylin_with_its_metadata_in_a_directory_survives_kills_both_ways";
    let Some(bed) = Bed::find(test) else { return };
    upgrade_and_abort(&bed, Plan::new(Product::Kylin, Kind::Directory), "real metadata tool, directory");
}
