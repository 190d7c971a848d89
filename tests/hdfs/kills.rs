//! One upgrade in which kytx is killed again and again, and what was killed where.

use kytx::testbed::Seed;

use super::bed::Site;
use crate::support::census::{Cell, Census, exhaustive, seed};
use crate::support::commands::status;

/// An upgrade that is killed on its way.
pub struct Kills<'a> {
    site: &'a Site,
    /// What is typed next.
    words: Vec<String>,
    census: Census,
    number: u64,
}

impl<'a> Kills<'a> {
    /// Nothing is typed yet; `more` goes to `begin`.
    pub fn new(site: &'a Site, layer: &str, more: &[&str]) -> Self {
        Self { site, words: site.begin_words(more), census: Census::new(layer, seed()), number: 0 }
    }

    /// Kills at a call; a share of the kills that the seed chooses, unless all are asked for.
    pub fn at(&mut self, kill: &str) {
        if self.chosen() {
            self.site.killed_at(&words_of(&self.words), kill);
            self.count(kill);
        }
    }

    /// Kills once the job is in this state.
    pub fn at_job(&mut self, state: &str) {
        if self.chosen() {
            self.site.killed_at_job(&words_of(&self.words), state);
            self.count(&format!("job {state}"));
        }
    }

    /// Goes on without a kill, to this exit code.
    #[track_caller]
    pub fn go_on(&mut self, more: &[&str], code: i32) {
        let mut words = words_of(&self.words);
        words.extend(more);
        crate::support::Ran::from(self.site.kytx(&words).output().unwrap()).expect_code(code);
        self.resume();
    }

    /// An abort comes next.
    pub fn abort(&mut self) {
        let home = self.site.machine.home.to_str().unwrap();
        self.words = ["abort", home, "--yes"].map(str::to_owned).to_vec();
    }

    /// Publishes what was killed.
    pub fn publish(&self) {
        self.census.publish();
    }

    fn resume(&mut self) {
        let home = self.site.machine.home.to_str().unwrap();
        self.words = ["resume", home].map(str::to_owned).to_vec();
    }

    fn chosen(&mut self) -> bool {
        self.number += 1;
        exhaustive() || Seed(seed()).of(&self.number.to_string()).0.is_multiple_of(2)
    }

    fn count(&mut self, accident: &str) {
        let status = status(&self.site.machine);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let steps = status["steps"].as_array().unwrap();
        let is = |words: &'static [&str]| {
            steps.iter().find(|step| words.contains(&step["state"].as_str().unwrap()))
        };
        let (step, window) = match (is(&["intended", "undoing"]), is(&["pending"])) {
            (Some(step), _) => (text(&step["name"]), "before outcome"),
            (None, Some(step)) => (text(&step["name"]), "before intent"),
            (None, None) => (String::new(), ""),
        };
        let cell = Cell {
            phase: text(&status["phase"]),
            step,
            window: window.to_owned(),
            accident: format!("SIGKILL {accident}"),
        };
        let counts = self.census.at(&cell);
        counts.states += 1;
        *counts.seen.entry("killed".to_owned()).or_default() += 1;
        self.resume();
    }
}

fn words_of(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
