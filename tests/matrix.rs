//! `docs/crash-matrix.md`: what every layer of crash tests explored and found, made from their counts and never written
//! by hand.
//!
//! `tests/run --exhaustive` leaves a count a layer in the directory that `KYTX_CENSUS` names;
//! `KYTX_BLESS=1 KYTX_CENSUS=DIR cargo test --test matrix` puts them into `docs/crash-matrix.json` and writes the page.
//! Without that, the page must be what the counts say, and the counts must cover everything kytx can do.

#![allow(clippy::disallowed_methods, reason = "it reads and writes documents of the source tree")]

#[path = "matrix/page.rs"]
mod page;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::census::Census;
use support::{Machine, options};

/// Everything the page is made from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    /// The commit that was tested.
    commit: String,
    /// The kernel it was tested on.
    kernel: String,
    /// The steps that a major upgrade has, in order.
    steps: Vec<String>,
    /// A count a layer.
    layers: Vec<Census>,
}

/// Layers without which nothing is proven.
const LAYERS: [&str; 11] = [
    "model",
    "simulated: strict",
    "simulated: ordered",
    "kill grid",
    "power: ext4",
    "power: xfs",
    "power: btrfs",
    "faults",
    "full disk",
    "concurrency",
    "manual procedure",
];

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn published() -> Published {
    serde_json::from_slice(&fs::read(document("crash-matrix.json")).unwrap()).unwrap()
}

fn blessing() -> Option<PathBuf> {
    std::env::var_os("KYTX_BLESS")?;
    std::env::var_os("KYTX_CENSUS").map(PathBuf::from)
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Takes over the counts that a run left.
fn take_over(dir: &Path) -> Published {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let mut layers: Vec<Census> =
        paths.iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect();
    let place =
        |census: &Census| LAYERS.iter().position(|layer| *layer == census.layer).unwrap_or(LAYERS.len());
    layers.sort_by_key(|census| (place(census), census.layer.clone()));
    let (apply, cleanup) = planned();
    Published {
        steps: apply.into_iter().chain(cleanup).collect(),
        commit: said_by("git", &["rev-parse", "--short=12", "HEAD"]),
        kernel: said_by("uname", &["-r"]),
        layers,
    }
}

#[test]
#[ignore = "no clean run of every layer has been published yet"]
fn the_page_is_what_the_counts_say() {
    if let Some(dir) = blessing() {
        let published = take_over(&dir);
        // A row a line, so that a change can be read.
        let text = serde_json::to_string(&published).unwrap().replace("},{", "},\n{") + "\n";
        fs::write(document("crash-matrix.json"), text).unwrap();
        fs::write(document("crash-matrix.md"), page::render(&published)).unwrap();
    }
    let page = fs::read_to_string(document("crash-matrix.md")).unwrap();
    assert!(
        page == page::render(&published()),
        "docs/crash-matrix.md is not what docs/crash-matrix.json says: see the head of tests/matrix.rs"
    );
}

#[test]
#[ignore = "no clean run of every layer has been published yet"]
fn the_readme_quotes_the_totals() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let totals = page::totals(&published());
    assert!(readme.contains(&totals), "README.md does not quote the totals of the crash matrix:\n{totals}");
}

#[test]
#[ignore = "no clean run of every layer has been published yet"]
fn every_layer_ran_and_nothing_went_wrong() {
    let published = published();
    for layer in LAYERS {
        let census = published.layers.iter().find(|census| census.layer == layer);
        let census = census.unwrap_or_else(|| panic!("nothing is said of the layer `{layer}`"));
        assert_eq!(census.not_run, "", "{layer}");
        if layer != "manual procedure" {
            let (_, violations, stuck) = census.totals();
            assert_eq!((violations, stuck), (0, 0), "{layer}");
        }
    }
}

/// The steps that a major upgrade has: of each stage, in order.
fn planned() -> (Vec<String>, Vec<String>) {
    let machine = Machine::new(&options().major());
    let package = machine.package.to_str().unwrap();
    let ran = machine.run(&["plan", machine.home.to_str().unwrap(), "--package", package, "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let plan: Value = serde_json::from_str(&ran.stdout).unwrap();
    let of = |stage: &str| {
        let steps = plan["steps"].as_array().unwrap().iter().filter(|step| step["stage"] == stage);
        steps.map(|step| step["name"].as_str().unwrap().to_owned()).collect()
    };
    (of("apply"), of("cleanup"))
}

/// The real binary was killed in each window of each step that there is, on the way there, back, and past the commit.
#[test]
#[ignore = "no clean run of every layer has been published yet"]
fn every_step_was_killed_in_every_window() {
    let published = published();
    let grid = published.layers.iter().find(|census| census.layer == "kill grid").unwrap();
    let met: BTreeSet<(&str, &str, &str)> = grid
        .cells
        .keys()
        .map(|cell| (cell.phase.as_str(), cell.step.as_str(), cell.window.as_str()))
        .collect();
    let (apply, cleanup) = planned();
    assert!(apply.len() >= 10 && cleanup.len() >= 4, "{apply:?} {cleanup:?}");
    for step in &apply {
        for (phase, window) in
            [("applying", "before intent"), ("applying", "before outcome"), ("aborting", "before outcome")]
        {
            assert!(met.contains(&(phase, step, window)), "no kill in {step}, {phase}, {window}");
        }
    }
    for step in &cleanup {
        assert!(met.contains(&("committing", step, "before outcome")), "no kill in {step}");
    }
}
