//! `kytx status`: where an upgrade stands and what to type. Reads the twin only, so it works while another kytx runs.

use serde_json::json;

use super::args::WhichArgs;
use super::claim;
use super::error::CommandError;
use super::exit::Exit;
use super::place::Place;
use super::scratch::with_scratch_shell;
use super::session::{self, journal_error};
use super::standing;
use super::terminal::result;
use crate::effect::fs::exists;
use crate::effect::lock::{Holder, live_holder};
use crate::effect::os::OsFs;
use crate::hadoop::cluster::Cluster;
use crate::journal::{TwinView, read};
use crate::mutate::may_have_job;
use crate::txn::{AbortReason, Mutation, Step, Txn};

/// Runs the command.
pub fn run(which: &WhichArgs, json: bool) -> Result<Exit, CommandError> {
    let place = claim::follow(which)?;
    let view = read(&OsFs, place.state.root()).map_err(|error| journal_error(&error, &place))?;
    let txn = session::replay(view.records(), &place)?;
    let holder = live_holder(&OsFs, &place.state.holder());
    let job = copy_job(&txn, &place);
    if json {
        let mut status = as_json(&txn, &view, holder.as_ref(), &place);
        if let Some(job) = &job {
            status["copy_job"] = json!(job);
        }
        result(&serde_json::to_string_pretty(&status).expect("BUG: plain data has a JSON form"));
    } else {
        for line in lines(&txn, holder.as_ref(), job.as_deref(), &place) {
            result(&line);
        }
    }
    Ok(Exit::Done)
}

fn as_json(txn: &Txn, view: &TwinView, holder: Option<&Holder>, place: &Place) -> serde_json::Value {
    let header = txn.header();
    let steps: Vec<_> = txn
        .ids()
        .map(|id| {
            let step = &txn.steps()[id.index()];
            json!({
                "id": id,
                "name": step.name,
                "stage": step.stage,
                "sentence": step.mutation.sentence(),
                "state": standing::step_word(txn, id),
            })
        })
        .collect();
    let store = place.state.root().join("journal");
    json!({
        "schema": "kytx.status.v1",
        "transaction": header.txn,
        "phase": standing::phase_word(txn),
        "outcome": standing::outcome_word(txn),
        "home": header.home,
        "old_version": header.old_version,
        "new_version": header.new_version,
        "sentence": standing::sentence(txn),
        "steps": steps,
        "next": standing::next_commands(txn, place),
        "holder": holder,
        "journal": {
            "records": view.frames.len(),
            "store": if exists(&OsFs, &store).unwrap_or(false) { "present" } else { "missing" },
            "twin": if view.torn_tail { "torn" } else { "whole" },
        },
    })
}

/// What has become of a copy job, which outlives the kytx that started it. Asked only where one was started and nobody has
/// seen its end.
fn copy_job(txn: &Txn, place: &Place) -> Option<String> {
    let is_open = |step: &Step| match &step.mutation {
        Mutation::CopyCubeData { cube, .. }
        | Mutation::SnapshotCubeData { cube }
        | Mutation::HandOverData { cube: Some(cube), .. } => may_have_job(&OsFs, &place.state, cube),
        _ => false,
    };
    txn.steps().iter().find(|step| is_open(step))?;
    let asked =
        with_scratch_shell("status", |shell, scratch| Cluster::new(shell, scratch).jobs(&txn.header().txn.0));
    Some(match asked {
        Ok(Ok(jobs)) => jobs.iter().find(|job| !job.has_ended()).map_or_else(
            || "no copy job is at work any more; `resume` compares what it copied".to_owned(),
            |job| format!("{} is {}, {} done; `resume` awaits it", job.id, job.state, job.progress),
        ),
        Ok(Err(error)) => format!("YARN cannot be asked: {error}"),
        Err(error) => format!("cannot ask YARN: {error}"),
    })
}

fn lines(txn: &Txn, holder: Option<&Holder>, job: Option<&str>, place: &Place) -> Vec<String> {
    let header = txn.header();
    let mut lines = vec![
        standing::sentence(txn),
        format!("  transaction: {} of {} on {}", header.txn, header.user, header.host),
        format!("  phase:       {}", standing::phase_word(txn)),
    ];
    if let Some(AbortReason::Failure { step }) = txn.abort_reason() {
        let name = txn.step(*step).map(|step| step.name.as_str()).unwrap_or_default();
        lines.push(format!("  turned round because step `{name}` failed"));
    }
    if let Some(holder) = holder {
        lines.push(format!("  at work now: {holder}"));
    }
    if let Some(job) = job {
        lines.push(format!("  copy job:    {job}"));
    }
    for id in txn.ids() {
        let step = &txn.steps()[id.index()];
        lines.push(format!(
            "  {:<9} {:<24} {}",
            standing::step_word(txn, id),
            step.name,
            step.mutation.sentence()
        ));
    }
    let next = standing::next_commands(txn, place);
    if !next.is_empty() {
        lines.push("Type one of:".to_owned());
        lines.extend(next.into_iter().map(|command| format!("  {command}")));
    }
    let manual = standing::manual_way(txn);
    if !manual.is_empty() {
        lines.push("Or go back by hand, as the manual says:".to_owned());
        lines.extend(manual.into_iter().map(|command| format!("  {command}")));
    }
    lines
}
