//! What an abort brings back, part by part, what made since is lost, and what nothing can undo: told before it starts.

use crate::kyligence::version::Version;
use crate::txn::{Mutation, StepId, StepState, Txn};

/// The parts, one line each.
pub fn lines(txn: &Txn) -> Vec<String> {
    let mut lines = vec!["What comes back, and what does not:".to_owned()];
    lines.push(format!("  home: {}", home(txn)));
    lines.extend(data(txn));
    lines.push(format!("  service: {}", service(txn)));
    lines.push("  not undone: jobs that were discarded before the upgrade stay so".to_owned());
    lines
}

fn find<T>(txn: &Txn, pick: impl Fn(&Mutation) -> Option<T>) -> Option<(StepId, T)> {
    txn.ids().find_map(|id| Some((id, pick(&txn.step(id)?.mutation)?)))
}

/// Whether a step was ever begun, and is not undone.
fn is_under_way(txn: &Txn, id: StepId) -> bool {
    matches!(txn.state(id), StepState::Intended { .. } | StepState::Done { .. } | StepState::Undoing { .. })
}

fn home(txn: &Txn) -> String {
    let old = &txn.header().old_version;
    let swap = find(txn, |mutation| match mutation {
        Mutation::ExchangeTrees { spare, .. } => Some(spare.clone()),
        _ => None,
    });
    match swap {
        Some((id, spare)) if is_under_way(txn, id) => format!(
            "{old} comes back whole, the tree itself, from `{spare}`; lost is what was written into the new tree since \
             the swap: its logs, and settings changed there"
        ),
        _ => format!("{old} is there; nothing of it is lost"),
    }
}

fn data(txn: &Txn) -> Vec<String> {
    let handed = find(txn, |mutation| match mutation {
        Mutation::HandOverData { backup, cube, effective_from, .. } => {
            Some((backup.clone(), cube.clone(), *effective_from))
        }
        _ => None,
    });
    let Some((id, (backup, cube, effective_from))) = handed else {
        return vec!["  metadata, cube data: the primary node's; this node did not touch them".to_owned()];
    };
    if !is_under_way(txn, id) || !is_under_way(txn, effective_from) {
        return vec![
            "  metadata, cube data: untouched, as the new release was never started; nothing is lost"
                .to_owned(),
        ];
    }
    let metadata = format!(
        "  metadata: restored exactly from `{backup}`, made after the stop; lost is every project, model, cube, job, \
         user and right that was made or changed since"
    );
    let cubes = match cube {
        Some(cube) => format!(
            "  cube data: `{}` as it was after the stop; lost is every segment that was built or merged since",
            cube.source
        ),
        None if is_major(txn) => "  cube data: CANNOT BE UNDONE: none were kept (`--cube-backup none`); what the new \
                                  release changed in them stays changed, and the restored metadata may not fit them"
            .to_owned(),
        None => "  cube data: not touched; segments built since stay on disk and are named by no metadata, and what a \
                 cleanup deleted since does not come back"
            .to_owned(),
    };
    vec![metadata, cubes]
}

fn is_major(txn: &Txn) -> bool {
    let header = txn.header();
    match (Version::parse(&header.old_version), Version::parse(&header.new_version)) {
        (Ok(old), Ok(new)) => old.line() != new.line(),
        // Not to know is no reason to promise.
        _ => true,
    }
}

fn service(txn: &Txn) -> &'static str {
    let stop = find(txn, |mutation| matches!(mutation, Mutation::StopService { .. }).then_some(()));
    match stop.map(|(id, ())| txn.state(id)) {
        Some(StepState::Found) => "was down before the upgrade, and stays down",
        Some(StepState::Pending | StepState::Undone) | None => "untouched",
        Some(_) => "the old one is started again, if it ran before",
    }
}
