//! What a grid of crashes explored and found, counted in one form for every layer, so that `docs/crash-matrix.md` can
//! be made from it.
//!
//! A cell is where a crash fell: the phase, the step in hand, the window within it, and what happened. What the machine
//! came to afterwards is counted by name, and a name that is not expected is a violation that the grid itself reports.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where a crash fell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// `planning`, `applying`, `applied`, `aborting`, `committing` or `ended`: what the journal says after the crash.
    pub phase: String,
    /// The step in hand, by its name in the plan; empty between steps.
    pub step: String,
    /// How far the step was: `before intent`, `before outcome`; empty between steps.
    pub window: String,
    /// `SIGKILL`, `power cut`, `simulated power cut`, or the failing call: `ENOSPC, once`, `EIO, for good`.
    pub accident: String,
}

/// What became of the crash states of one cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Distinct crash states explored.
    pub states: u64,
    /// What `resume` led to: `new`, `old`, `nothing open`, or what else it was.
    pub after_resume: BTreeMap<String, u64>,
    /// What `abort` led to.
    pub after_abort: BTreeMap<String, u64>,
    /// What the operator saw when it happened: `killed`, or the exit code.
    pub seen: BTreeMap<String, u64>,
    /// States that ended neither new nor old, lost something, or touched what is not ours.
    pub violations: u64,
    /// States from which neither `resume` nor `abort` got on.
    pub stuck: u64,
}

impl Counts {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.states += other.states;
        self.violations += other.violations;
        self.stuck += other.stuck;
        for (mine, theirs) in [
            (&mut self.after_resume, &other.after_resume),
            (&mut self.after_abort, &other.after_abort),
            (&mut self.seen, &other.seen),
        ] {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// One layer's count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    /// The layer: `kill grid`, `faults`, `power: ext4`, `simulated: strict`.
    pub layer: String,
    /// What repeats the run.
    pub seed: u64,
    /// Whether every state was explored, or a share chosen by the seed.
    pub exhaustive: bool,
    /// Why the layer did not run; empty if it did.
    pub not_run: String,
    /// Figures of the layer that have no cell: second kills, rounds, seconds.
    pub figures: BTreeMap<String, u64>,
    /// What was explored.
    #[serde(with = "rows")]
    pub cells: BTreeMap<Cell, Counts>,
}

impl Census {
    /// Nothing counted yet.
    pub fn new(layer: &str, seed: u64) -> Self {
        Self {
            layer: layer.to_owned(),
            seed,
            exhaustive: exhaustive(),
            not_run: String::new(),
            figures: BTreeMap::new(),
            cells: BTreeMap::new(),
        }
    }

    /// The counts of a cell.
    pub fn at(&mut self, cell: &Cell) -> &mut Counts {
        self.cells.entry(cell.clone()).or_default()
    }

    /// Adds what another part of the same layer counted.
    pub fn add(&mut self, other: &Self) {
        for (name, figure) in &other.figures {
            *self.figures.entry(name.clone()).or_default() += figure;
        }
        for (cell, counts) in &other.cells {
            self.at(cell).add(counts);
        }
    }

    /// All cells together: states, violations, stuck.
    pub fn totals(&self) -> (u64, u64, u64) {
        self.cells.values().fold((0, 0, 0), |(states, violations, stuck), counts| {
            (states + counts.states, violations + counts.violations, stuck + counts.stuck)
        })
    }

    /// One line for the log of a run.
    pub fn line(&self) -> String {
        let (states, violations, stuck) = self.totals();
        let figures: Vec<String> =
            self.figures.iter().map(|(name, figure)| format!(", {figure} {name}")).collect();
        let not_run =
            if self.not_run.is_empty() { String::new() } else { format!(" NOT RUN: {}", self.not_run) };
        format!(
            "crash states explored: {}: {states}{}, {violations} violations, {stuck} stuck (KYTX_SEED={}){not_run}",
            self.layer,
            figures.concat(),
            self.seed
        )
    }

    /// Prints the line, and leaves the count in the directory that `KYTX_CENSUS` names, if it does.
    pub fn publish(&self) {
        println!("{}", self.line());
        if let Some(dir) = std::env::var_os("KYTX_CENSUS") {
            let name: String =
                self.layer.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            fs::create_dir_all(&dir).unwrap();
            let path = Path::new(&dir).join(format!("{name}.json"));
            fs::write(path, serde_json::to_vec_pretty(self).unwrap()).unwrap();
        }
    }
}

/// Whether `tests/run --exhaustive` asked for every state.
pub fn exhaustive() -> bool {
    std::env::var_os("KYTX_EXHAUSTIVE").is_some()
}

/// The seed of a run: `KYTX_SEED`, or the usual one.
pub fn seed() -> u64 {
    std::env::var("KYTX_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_124)
}

/// A map whose keys are structures, as the list of rows that JSON can hold.
mod rows {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Cell, Counts};

    #[derive(Serialize, Deserialize)]
    struct Row {
        #[serde(flatten)]
        cell: Cell,
        #[serde(flatten)]
        counts: Counts,
    }

    pub fn serialize<S: Serializer>(cells: &BTreeMap<Cell, Counts>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(cells.iter().map(|(cell, counts)| Row { cell: cell.clone(), counts: counts.clone() }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Cell, Counts>, D::Error> {
        let rows = Vec::<Row>::deserialize(from)?;
        Ok(rows.into_iter().map(|row| (row.cell, row.counts)).collect())
    }
}
