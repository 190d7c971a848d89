//! What a rehearsal found.

use std::path::Path;

use serde::Serialize;

use crate::cli::draft::Draft;
use crate::cli::exit::Exit;
use crate::cli::terminal::{bytes, result};
use crate::raw_path::RawPath;

/// Room, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(clippy::struct_field_names, reason = "the unit is last in every name")]
pub struct Space {
    /// The home, and what its links lead to.
    pub home_bytes: u64,
    /// The package, unpacked.
    pub package_bytes: u64,
    /// What the rehearsal needs.
    pub needed_bytes: u64,
    /// What was free before.
    pub free_bytes: u64,
}

/// What became of the kills in one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The step's name.
    pub name: String,
    /// How often it was killed on the way forward.
    pub killed_forward: u32,
    /// And on the way back.
    pub killed_back: u32,
    /// How many of them `resume` brought to the new release.
    pub resumed_to_new: u32,
    /// How many of them `abort`, or the `resume` of one, brought to the old release.
    pub aborted_to_old: u32,
}

/// The report: what `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    home: RawPath,
    old_version: String,
    new_version: String,
    dir: RawPath,
    seed: u64,
    space: Space,
    /// Worth knowing.
    pub remarks: Vec<String>,
    /// An undisturbed `begin` and `abort`, in seconds.
    pub undisturbed_s: (f64, f64),
    /// The steps.
    pub steps: Vec<StepReport>,
    /// How many machines were compared, entry by entry.
    pub comparisons: u32,
    /// How many entries in each, the larger number of the two releases.
    pub entries: u64,
    /// All of it, in seconds.
    pub seconds: f64,
    /// What did not end as it must. Empty if the upgrade survives.
    pub violations: Vec<String>,
}

impl Report {
    /// Nothing done yet.
    pub fn new(draft: &Draft, dir: &Path, seed: u64, space: Space, remarks: Vec<String>) -> Self {
        let header = &draft.header;
        Self {
            schema: "kytx.rehearsal.v1",
            home: header.home.clone(),
            old_version: header.old_version.clone(),
            new_version: header.new_version.clone(),
            dir: dir.into(),
            seed,
            space,
            remarks,
            undisturbed_s: (0.0, 0.0),
            steps: Vec::new(),
            comparisons: 0,
            entries: 0,
            seconds: 0.0,
            violations: Vec::new(),
        }
    }

    /// The row of a step.
    pub fn step(&mut self, name: &str) -> &mut StepReport {
        let at = self.steps.iter().position(|step| step.name == name).unwrap_or_else(|| {
            let name = name.to_owned();
            let none =
                StepReport { name, killed_forward: 0, killed_back: 0, resumed_to_new: 0, aborted_to_old: 0 };
            self.steps.push(none);
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }

    /// How many kills there were.
    pub fn kills(&self) -> u32 {
        self.steps.iter().map(|step| step.killed_forward + step.killed_back).sum()
    }

    /// Prints it, and says what that means for whoever scripts it.
    pub fn print(&self, json: bool, kept: Option<&Path>) -> Exit {
        if json {
            result(&serde_json::to_string_pretty(self).expect("BUG: plain data has a JSON form"));
        } else {
            self.lines(kept).iter().for_each(|line| result(line));
        }
        if self.violations.is_empty() { Exit::Done } else { Exit::Damaged }
    }

    fn lines(&self, kept: Option<&Path>) -> Vec<String> {
        let mut lines = vec![
            format!("Upgrade of a copy of `{}` from {} to {}", self.home, self.old_version, self.new_version),
            format!(
                "  copied:      {} of the home, {} of the package; the product's scripts, store and port replaced",
                bytes(self.space.home_bytes),
                bytes(self.space.package_bytes)
            ),
        ];
        lines.extend(self.remarks.iter().map(|remark| format!("  note:        {remark}")));
        let (begin, abort) = self.undisturbed_s;
        lines.push(format!("  undisturbed: begin {begin:.1} s, abort {abort:.1} s"));
        lines
            .push(format!("  {:<24} {:>7} {:>5} {:>9} {:>9}", "step", "forward", "back", "-> new", "-> old"));
        lines.extend(self.steps.iter().map(|step| {
            let StepReport { name, killed_forward, killed_back, resumed_to_new, aborted_to_old } = step;
            format!(
                "  {name:<24} {killed_forward:>7} {killed_back:>5} {resumed_to_new:>9} {aborted_to_old:>9}"
            )
        }));
        lines.push(format!(
            "{} kills (seed {}), {} comparisons of up to {} entries, {:.1} s.",
            self.kills(),
            self.seed,
            self.comparisons,
            self.entries,
            self.seconds
        ));
        lines.extend(self.violations.iter().map(|violation| format!("WRONG: {violation}")));
        if let Some(kept) = kept {
            lines.push(format!("Everything is left in `{}`.", RawPath::from(kept)));
        }
        lines.push(if self.violations.is_empty() {
            "Every kill ended right: after `resume` in the new release, after `abort` in the old one."
                .to_owned()
        } else {
            "NOT every kill ended right.".to_owned()
        });
        lines
    }
}
