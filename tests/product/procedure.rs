//! A whole upgrade and a whole abort in which kytx is killed again and again.

use std::collections::BTreeSet;

use super::site::Site;
use super::store::Entries;
use crate::support::census::{Cell, Census, exhaustive, seed};
use crate::support::random::Random;
use crate::support::snapshot::{Snapshot, assert_same_tree};

/// Where the product's scripts are when kytx is killed, in the order in which an upgrade comes by. A script outlives
/// kytx: what stops or starts the service is called once, and can be met once.
const FORTH: [&[&str]; 5] = [
    &["before stop", "after stop"],
    &["before backup"],
    &["during backup"],
    &["after backup"],
    &["before start", "after start"],
];

/// The same for an abort of an upgrade that was started.
const BACK: [&[&str]; 8] = [
    &["before stop", "after stop"],
    &["before reset"],
    &["during reset"],
    &["after reset"],
    &["before restore"],
    &["during restore"],
    &["after restore"],
    &["before start", "after start"],
];

/// What running it changes in a home, and what the product leaves in it.
const OF_THE_PRODUCT: [&str; 8] = [
    "logs",
    "pid",
    "meta_backups",
    "ext",
    "tomcat/logs",
    "tomcat/temp",
    "tomcat/work",
    "tomcat/webapps/kylin",
];

/// How a site was before its upgrade.
pub struct Before {
    pub entries: Entries,
    pub projects: Vec<String>,
    pub version: String,
    home: Snapshot,
}

impl Before {
    /// Looks, while the service runs.
    pub fn of(site: &Site<'_>) -> Self {
        Self { entries: site.entries(), projects: site.projects(), version: site.version(), home: home(site) }
    }

    /// After an abort: the old tree, the old metadata, the old service.
    #[track_caller]
    pub fn assert_back(&self, site: &Site<'_>) {
        assert_same_tree(&self.home, &home(site));
        assert_same_entries(&self.entries, &site.entries());
        assert_eq!(site.version(), self.version);
        assert_eq!(site.projects(), self.projects);
    }
}

fn home(site: &Site<'_>) -> Snapshot {
    Snapshot::take(&site.home, &OF_THE_PRODUCT).without_dir_times()
}

/// Compares stores, and says what differs: a whole store says nothing to a reader.
#[track_caller]
pub fn assert_same_entries(before: &Entries, after: &Entries) {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing: Vec<_> = names.into_iter().filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(
        differing.is_empty(),
        "{} entries differ: {:?}",
        differing.len(),
        &differing[..differing.len().min(20)]
    );
}

/// One run of `begin` or `abort` to its end, killed on its way.
pub struct Killed<'a> {
    site: &'a Site<'a>,
    random: Random,
    census: Census,
}

impl<'a> Killed<'a> {
    pub fn new(site: &'a Site<'a>, layer: &str) -> Self {
        println!("KYTX_SEED={}", seed());
        Self { site, random: Random::new(seed() ^ layer.len() as u64), census: Census::new(layer, seed()) }
    }

    /// Upgrades; killed at three moments that the seed chooses, or at all.
    pub fn upgrade(&mut self, more: &[&str]) {
        let words = [self.site.begin_words().as_slice(), more].concat();
        self.drive(words.iter().map(|word| (*word).to_owned()).collect(), &FORTH);
    }

    /// Goes back.
    pub fn abort(&mut self) {
        let words = ["abort", self.site.home.to_str().unwrap(), "--yes"].map(str::to_owned);
        self.drive(words.to_vec(), &BACK);
    }

    /// Publishes what was killed.
    pub fn publish(&self) {
        self.census.publish();
    }

    fn drive(&mut self, mut words: Vec<String>, all: &[&[&str]]) {
        let site = self.site;
        let run = |words: &[String]| site.kytx(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let count = if exhaustive() { all.len() } else { 3 };
        for windows in self.random.choose(all, count) {
            let moment = self.random.choose(windows, 1)[0];
            site.knobs(&format!("KILL='{moment}'\n"));
            let ran = run(&words);
            assert_eq!(site.struck().as_deref(), Some(moment), "{words:?} was not killed: {ran:?}");
            assert_eq!(ran.code, -9, "{moment}: {ran:?}");
            let cell = Cell {
                phase: words[0].clone(),
                step: moment.split(' ').nth(1).unwrap().to_owned(),
                window: moment.split(' ').next().unwrap().to_owned(),
                accident: "SIGKILL".to_owned(),
            };
            let counts = self.census.at(&cell);
            counts.states += 1;
            *counts.seen.entry("killed".to_owned()).or_default() += 1;
            words = ["resume", site.home.to_str().unwrap()].map(str::to_owned).to_vec();
        }
        site.knobs("");
        run(&words).expect_code(0);
    }
}
