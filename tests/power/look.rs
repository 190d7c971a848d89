//! What a machine is: looked at byte for byte, and by its journal.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kytx::testbed::StoreContent;
use serde_json::Value;

use crate::support::Machine;
use crate::support::census::Cell;
use crate::support::product::WRITTEN;
use crate::support::snapshot::Snapshot;

/// What is looked at in other ways, and the stand-in's own notes. Everything else on the machine is nobody's business.
const ELSEWHERE: [&str; 7] = [
    "opt/kyligence",
    "opt/.kytx",
    "opt/kyligence.*backup.tar.gz",
    "hdfs",
    "metadata",
    "metadata.restoring.*",
    "calls.log",
];

/// Everything of the product that an upgrade changes.
pub struct Look {
    tree: Snapshot,
    metadata: StoreContent,
    cube: Snapshot,
}

/// What a machine has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub phase: String,
    pub outcome: String,
    pub records: u64,
    pub cell: Cell,
}

impl Look {
    /// Looks at the machine.
    pub fn of(machine: &Machine) -> Self {
        let mut metadata = machine.store.content().unwrap();
        // Every start of the product rewrites these (reference 22.6).
        metadata.retain(|path, _| !path.starts_with("user"));
        Self {
            tree: Snapshot::take(&machine.real_home, &WRITTEN),
            metadata,
            // Large metadata entries are files there too, and are compared as metadata.
            cube: Snapshot::take(&machine.working_dir.join("kylin_metadata"), &["resources-jdbc"]),
        }
    }

    /// Every difference, to a machine that must be the same one.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let mut lines = self.tree.diff(&found.tree);
        lines.extend(differences(&self.metadata, &found.metadata));
        lines.extend(self.cube.diff(&found.cube));
        lines
    }

    /// Every difference, to a machine that another run has made: what is new in it has other times.
    pub fn differences_of_another_run(&self, found: &Self) -> Vec<String> {
        let mut lines = self.tree.diff_but_dir_times(&found.tree);
        lines.extend(differences(&self.metadata, &found.metadata));
        let contents = |look: &Self| look.cube.clone().without_times();
        lines.extend(contents(self).diff(&contents(found)));
        lines
    }
}

impl Standing {
    /// What the machine's journal says.
    pub fn of(machine: &Machine) -> Self {
        let accident = "power cut".to_owned();
        let (step, window) = (String::new(), String::new());
        let status = match status(machine) {
            Ok(status) => status,
            Err(phase) => {
                let cell = Cell { phase: "planning".to_owned(), step, window, accident };
                return Self { phase, outcome: String::new(), records: 0, cell };
            }
        };
        let phase = status["phase"].as_str().unwrap().to_owned();
        let (step, window) = step_in_hand(&status, &phase).unwrap_or((step, window));
        Self {
            outcome: status["outcome"].as_str().unwrap_or_default().to_owned(),
            records: status["journal"]["records"].as_u64().unwrap(),
            cell: Cell { phase: phase.clone(), step, window, accident },
            phase,
        }
    }
}

/// What `status --json` prints; `none` where nothing is open, and else why there is no answer.
pub fn status(machine: &Machine) -> Result<Value, String> {
    let ran = machine.run(&["status", "--json", machine.home.to_str().unwrap()]);
    match ran.code {
        0 => Ok(serde_json::from_str(&ran.stdout).unwrap()),
        8 => Err("none".to_owned()),
        _ => Err(format!("unreadable: {}", ran.stderr)),
    }
}

/// Everything else on the machine.
pub fn elsewhere(machine: &Machine) -> Snapshot {
    Snapshot::take(&machine.root, &ELSEWHERE)
}

fn differences(expected: &StoreContent, found: &StoreContent) -> Vec<String> {
    let mut all: BTreeMap<&String, (Option<&_>, Option<&_>)> = BTreeMap::new();
    for (path, content) in expected {
        all.entry(path).or_default().0 = Some(content);
    }
    for (path, content) in found {
        all.entry(path).or_default().1 = Some(content);
    }
    let shown = |content: Option<&Option<Vec<u8>>>| match content {
        None => "missing".to_owned(),
        Some(None) => "its content is lost".to_owned(),
        Some(Some(bytes)) => format!("`{}`", String::from_utf8_lossy(bytes)),
    };
    all.into_iter()
        .filter(|(_, (expected, found))| expected != found)
        .map(|(path, (expected, found))| format!("metadata `{path}`: {} / {}", shown(expected), shown(found)))
        .collect()
}

/// The step that a command was at, and how far it was.
fn step_in_hand(status: &Value, phase: &str) -> Option<(String, String)> {
    let mut steps: Vec<&Value> = status["steps"].as_array()?.iter().collect();
    let (stage, at): (_, &[&str]) = match phase {
        "applying" => ("apply", &["pending", "intended"]),
        "aborting" => ("apply", &["intended", "done", "undoing"]),
        "committing" => ("cleanup", &["pending", "intended"]),
        _ => return None,
    };
    if phase == "aborting" {
        steps.reverse();
    }
    let found = steps
        .iter()
        .find(|step| step["stage"] == stage && at.contains(&step["state"].as_str().unwrap_or_default()))?;
    let underway = if phase == "aborting" { "undoing" } else { "intended" };
    let window = if found["state"] == underway { "before outcome" } else { "before intent" };
    Some((found["name"].as_str()?.to_owned(), window.to_owned()))
}

/// The names in a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
