//! The counts as a page for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Published;
use crate::support::census::{Cell, Census, Counts};

/// The layer whose states are not kytx's.
pub const MANUAL: &str = "manual procedure";

/// The order in which an upgrade meets its phases.
const PHASES: [&str; 6] = ["planning", "applying", "applied", "aborting", "committing", "ended"];

/// What a crash can be, in the order of the columns.
const KINDS: [&str; 5] = ["SIGKILL", "power cut", "simulated", "fault", "model"];

/// States of one place in an upgrade.
#[derive(Default)]
struct Row<'a> {
    by_kind: BTreeMap<&'a str, u64>,
    all: Counts,
}

/// What the README quotes.
pub fn totals(published: &Published) -> String {
    let (mut states, mut violations, mut stuck) = (0, 0, 0);
    for census in published.layers.iter().filter(|census| census.layer != MANUAL) {
        let (more, bad, ended) = census.totals();
        states += more;
        violations += bad;
        stuck += ended;
    }
    format!("crash states explored: {}, violations: {violations}, stuck: {stuck}", grouped(states))
}

/// The whole page.
pub fn render(published: &Published) -> String {
    let mut page = format!(
        "# Crash matrix\n\n\
         What was tried to break kytx, and what came of it. Made by `tests/matrix.rs` from what the tests counted\n\
         (`docs/crash-matrix.json`), never by hand; every number can be had again with its seed.\n\n\
         **{}.** Commit {}, Linux {}.\n\n\
         A state is one way in which an upgrade was cut short. From each, `resume` had to lead to the new release and\n\
         `abort` to the old one, byte for byte and with all attributes, with metadata and cube data as they were, and\n\
         nothing else touched. What ends otherwise is a violation; what leads nowhere is stuck.\n\n",
        totals(published),
        published.commit,
        published.kernel,
    );
    layers(&mut page, published);
    matrix(&mut page, published);
    sights(&mut page, published);
    manual(&mut page, published);
    page
}

fn layers(page: &mut String, published: &Published) {
    page.push_str("## Layers\n\n");
    page.push_str(
        "| layer | states | violations | stuck | also | seed | share |\n|---|--:|--:|--:|---|--:|---|\n",
    );
    for census in &published.layers {
        let (states, violations, stuck) = census.totals();
        let also: Vec<String> =
            census.figures.iter().map(|(name, figure)| format!("{} {name}", grouped(*figure))).collect();
        let share = match (census.not_run.as_str(), census.exhaustive) {
            ("", true) => "all",
            ("", false) => "chosen by seed",
            (why, _) => why,
        };
        row(
            page,
            &[
                &census.layer,
                &grouped(states),
                &grouped(violations),
                &grouped(stuck),
                &also.join(", "),
                &census.seed.to_string(),
                share,
            ],
        );
    }
    page.push('\n');
}

fn matrix(page: &mut String, published: &Published) {
    page.push_str(
        "## Step, window, accident\n\n\
         *Before intent*: the step's intent is not in the journal yet. *Before outcome*: its intent is, its outcome is\n\
         not. How many states there were of each kind; then what `resume` and `abort` led to from all of them.\n\n\
         | phase | step | window | SIGKILL | power cut | simulated | fault | model | resume | abort |\n\
         |---|---|---|--:|--:|--:|--:|--:|---|---|\n",
    );
    // Sorted as an upgrade meets them.
    let place =
        |names: &[&str], name: &str| names.iter().position(|known| *known == name).unwrap_or(names.len());
    let steps: Vec<&str> = published.steps.iter().map(String::as_str).collect();
    let mut table: BTreeMap<(usize, usize, &str, &str), Row<'_>> = BTreeMap::new();
    for (census, cell, counts) in cells(published) {
        let (phase, position) = (place(&PHASES, &cell.phase), place(&steps, &cell.step));
        let row = table.entry((phase, position, &cell.step, &cell.window)).or_default();
        *row.by_kind.entry(kind(census, cell)).or_default() += counts.states;
        row.all.add(counts);
    }
    for ((phase, _, step, window), Row { by_kind, all }) in &table {
        let counts: Vec<String> = KINDS
            .iter()
            .map(|kind| by_kind.get(kind).map_or(String::new(), |states| grouped(*states)))
            .collect();
        let (resumed, aborted) = (tally(&all.after_resume), tally(&all.after_abort));
        let mut columns = vec![PHASES.get(*phase).copied().unwrap_or("no journal"), step, window];
        columns.extend(counts.iter().map(String::as_str));
        columns.extend([resumed.as_str(), aborted.as_str()]);
        row(page, &columns);
    }
    page.push('\n');
}

fn sights(page: &mut String, published: &Published) {
    page.push_str(
        "## What the operator sees\n\n\
         | accident | states | what the command that met it did |\n|---|--:|---|\n",
    );
    let mut table: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
    for (census, cell, counts) in cells(published) {
        table.entry((kind(census, cell), &cell.accident)).or_default().add(counts);
    }
    for ((_, accident), counts) in &table {
        row(page, &[accident, &grouped(counts.states), &tally(&counts.seen)]);
    }
    page.push('\n');
}

fn manual(page: &mut String, published: &Published) {
    let Some(census) = published.layers.iter().find(|census| census.layer == MANUAL) else { return };
    page.push_str(
        "## The same kills, and the manual's procedure\n\n\
         The manual's steps as the shell script that an operator would make of them (`tests/manual/`), killed at its own\n\
         system calls and those of its programs; then run again from the start (*again*), or undone as the manual says\n\
         (*rollback*).\n\n\
         | where | accident | states | again | rollback | violations | stuck |\n|---|---|--:|---|---|--:|--:|\n",
    );
    for (cell, counts) in &census.cells {
        let place = [cell.phase.as_str(), &cell.step, &cell.window]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(", ");
        row(
            page,
            &[
                &place,
                &cell.accident,
                &grouped(counts.states),
                &tally(&counts.after_resume),
                &tally(&counts.after_abort),
                &grouped(counts.violations),
                &grouped(counts.stuck),
            ],
        );
    }
}

/// Every cell of kytx's own layers.
fn cells(published: &Published) -> impl Iterator<Item = (&Census, &Cell, &Counts)> {
    let layers = published.layers.iter().filter(|census| census.layer != MANUAL);
    layers.flat_map(|census| census.cells.iter().map(move |(cell, counts)| (census, cell, counts)))
}

fn kind(census: &Census, cell: &Cell) -> &'static str {
    let layer = census.layer.as_str();
    match cell.accident.as_str() {
        _ if layer == "model" => "model",
        _ if layer.starts_with("simulated") => "simulated",
        _ if layer.starts_with("power") => "power cut",
        accident if accident.contains("SIGKILL") => "SIGKILL",
        _ => "fault",
    }
}

/// `new 12, old 3`.
fn tally(counted: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> =
        counted.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
    parts.join(", ")
}

fn row(page: &mut String, columns: &[&str]) {
    writeln!(page, "| {} |", columns.join(" | ")).expect("a string takes everything");
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn numbers_are_grouped_by_three() {
    for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), text);
    }
}
