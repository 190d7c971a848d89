//! From what was found and asked for to the list of steps. Pure.
//!
//! Two rules make undoing cheap and downtime short: work where nobody looks, then swap once; and only what must wait
//! for the stop happens after the stop.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::raw_path::RawPath;
use crate::txn::{CarryPass, CopyPass, CubeCopy, Mutation, Owner, SideFile, Stage, Step, StepId};

/// When the archive of the old tree is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveWhen {
    /// After the new release answers: no downtime.
    After,
    /// Before the swap, for sites that insist on it: within the downtime.
    Before,
    /// Not at all: there is no way back by hand then, only by kytx.
    None,
}

/// How the cube data are kept for the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CubeKept {
    /// By a copy.
    Copy,
    /// By a snapshot.
    Snapshot,
    /// By a snapshot, and a copy that is made from it.
    Both,
}

impl CubeKept {
    /// Whether there is a copy.
    pub fn has_copy(self) -> bool {
        self != Self::Snapshot
    }

    /// Whether there is a snapshot.
    pub fn has_snapshot(self) -> bool {
        self != Self::Copy
    }
}

/// Everything that the list of steps depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanInputs {
    /// The home, its real path.
    pub home: RawPath,
    /// The package.
    pub package: RawPath,
    /// What it held when it was read.
    pub content: Digest,
    /// The spare tree.
    pub spare: RawPath,
    /// Whose the home is.
    pub owner: Owner,
    /// What to carry.
    pub carry: SideFile,
    /// Where the verified copy of the metadata backup goes.
    pub metadata_backup: RawPath,
    /// The cube data and how they are kept, if they are to be.
    pub cube: Option<(CubeCopy, CubeKept)>,
    /// When to archive.
    pub archive_when: ArchiveWhen,
    /// The archive.
    pub archive: RawPath,
    /// Whether to start the new release.
    pub start: bool,
    /// How long to wait for a service that was started, in seconds.
    pub start_timeout_s: u32,
    /// Whether the home alone is changed: another node of the cluster backs up what they share.
    pub home_only: bool,
}

/// The list of steps. The order is the argument:
///
/// * everything that reads or writes in bulk is before `stop-service` or after `start-service`;
/// * `hand-over-data` is before `exchange-trees`, so that on the way back the old tools are in place again when they
///   restore the metadata;
/// * `archive-tree` reads a tree that nobody writes any more.
pub fn steps(inputs: &PlanInputs) -> Vec<Step> {
    let mut steps = before_the_stop(inputs);
    steps.extend(downtime(inputs));
    if inputs.start {
        let mutation =
            Mutation::StartService { home: inputs.home.clone(), start_timeout_s: inputs.start_timeout_s };
        steps.push(apply("start-service", mutation));
    }
    if inputs.archive_when == ArchiveWhen::After {
        steps.push(apply("archive-tree", archive(inputs, &inputs.spare)));
    }
    steps.extend(cleanup(inputs));
    let first = effective_from(&steps);
    for step in &mut steps {
        if let Mutation::HandOverData { effective_from, .. } = &mut step.mutation {
            *effective_from = first;
        }
    }
    steps
}

/// The step from which on the new release may change data: its start, or the swap where the start is the operator's.
fn effective_from(steps: &[Step]) -> StepId {
    let is_start = |step: &Step| matches!(step.mutation, Mutation::StartService { .. });
    let is_swap = |step: &Step| matches!(step.mutation, Mutation::ExchangeTrees { .. });
    let at = steps.iter().position(is_start).or_else(|| steps.iter().position(is_swap));
    StepId(at.expect("BUG: every plan swaps the trees") as u16)
}

fn apply(name: &str, mutation: Mutation) -> Step {
    Step { name: name.to_owned(), stage: Stage::Apply, mutation }
}

fn before_the_stop(inputs: &PlanInputs) -> Vec<Step> {
    let stage = Mutation::StageTree {
        package: inputs.package.clone(),
        content: inputs.content,
        spare: inputs.spare.clone(),
        owner: inputs.owner,
    };
    let mut steps =
        vec![apply("stage-tree", stage), apply("carry-customisations", carry(inputs, CarryPass::Copy))];
    if let Some((cube, kept)) = &inputs.cube
        && kept.has_copy()
    {
        let copy = Mutation::CopyCubeData { cube: cube.clone(), pass: CopyPass::Early };
        steps.push(apply("copy-cube-data-early", copy));
    }
    steps
}

fn downtime(inputs: &PlanInputs) -> Vec<Step> {
    let home = &inputs.home;
    let stop = Mutation::StopService { home: home.clone(), start_timeout_s: inputs.start_timeout_s };
    let metadata = Mutation::BackUpMetadata { home: home.clone(), backup: inputs.metadata_backup.clone() };
    let mut steps = vec![apply("stop-service", stop)];
    if !inputs.home_only {
        steps.push(apply("back-up-metadata", metadata));
    }
    if let Some((cube, kept)) = &inputs.cube {
        if kept.has_snapshot() {
            steps.push(apply("snapshot-cube-data", Mutation::SnapshotCubeData { cube: cube.clone() }));
        }
        if kept.has_copy() {
            let copy = Mutation::CopyCubeData { cube: cube.clone(), pass: CopyPass::Final };
            steps.push(apply("copy-cube-data", copy));
        }
    }
    steps.push(apply("settle-customisations", carry(inputs, CarryPass::Settle)));
    if inputs.archive_when == ArchiveWhen::Before {
        steps.push(apply("archive-tree", archive(inputs, home)));
    }
    let hand_over = Mutation::HandOverData {
        home: home.clone(),
        backup: inputs.metadata_backup.clone(),
        cube: inputs.cube.as_ref().map(|(cube, _)| cube.clone()),
        effective_from: StepId(0),
    };
    let exchange = Mutation::ExchangeTrees { live: home.clone(), spare: inputs.spare.clone() };
    if !inputs.home_only {
        steps.push(apply("hand-over-data", hand_over));
    }
    steps.push(apply("exchange-trees", exchange));
    steps
}

fn cleanup(inputs: &PlanInputs) -> Vec<Step> {
    let step = |name: &str, mutation| Step { name: name.to_owned(), stage: Stage::Cleanup, mutation };
    let mut steps = vec![step("discard-old-tree", Mutation::DiscardTree { tree: inputs.spare.clone() })];
    if inputs.archive_when != ArchiveWhen::None {
        steps.push(step("discard-archive", Mutation::DiscardFile { file: inputs.archive.clone() }));
    }
    if !inputs.home_only {
        let metadata = Mutation::DiscardTree { tree: inputs.metadata_backup.clone() };
        steps.push(step("discard-metadata-backup", metadata));
    }
    if let Some((cube, kept)) = &inputs.cube {
        if kept.has_copy() {
            steps.push(step("discard-cube-data", Mutation::DiscardCubeData { root: cube.root.clone() }));
        }
        if kept.has_snapshot() {
            steps.push(step("discard-snapshot", Mutation::DiscardSnapshot { cube: cube.clone() }));
        }
    }
    steps
}

fn carry(inputs: &PlanInputs, pass: CarryPass) -> Mutation {
    Mutation::CarryCustomisations {
        home: inputs.home.clone(),
        spare: inputs.spare.clone(),
        list: inputs.carry.clone(),
        pass,
    }
}

fn archive(inputs: &PlanInputs, tree: &RawPath) -> Mutation {
    Mutation::ArchiveTree {
        tree: tree.clone(),
        archive: inputs.archive.clone(),
        top: RawPath::new(inputs.home.file_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(major: bool, archive_when: ArchiveWhen, start: bool) -> PlanInputs {
        PlanInputs {
            home: "/opt/ke".into(),
            package: "/tmp/p.tar.gz".into(),
            content: Digest::ZERO,
            spare: "/opt/.kytx/ke/spare".into(),
            owner: Owner { uid: 1000, gid: 1000 },
            carry: SideFile { path: "plan/carry.json".into(), digest: Digest::ZERO },
            metadata_backup: "/opt/.kytx/ke/backup/1/metadata".into(),
            cube: major.then(|| {
                (
                    CubeCopy { source: "file:/kylin/id".into(), root: "file:/kylin/_kytx/1".into() },
                    CubeKept::Copy,
                )
            }),
            archive_when,
            archive: "/opt/ke.backup.tar.gz".into(),
            start,
            start_timeout_s: 600,
            home_only: false,
        }
    }

    fn names(inputs: &PlanInputs) -> Vec<String> {
        steps(inputs).into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn a_major_upgrade_copies_cube_data_twice_and_archives_at_leisure() {
        let expected = [
            "stage-tree",
            "carry-customisations",
            "copy-cube-data-early",
            "stop-service",
            "back-up-metadata",
            "copy-cube-data",
            "settle-customisations",
            "hand-over-data",
            "exchange-trees",
            "start-service",
            "archive-tree",
            "discard-old-tree",
            "discard-archive",
            "discard-metadata-backup",
            "discard-cube-data",
        ];
        assert_eq!(names(&inputs(true, ArchiveWhen::After, true)), expected);
    }

    #[test]
    fn a_snapshot_is_made_after_the_stop_and_before_the_copy_that_is_made_from_it() {
        for (kept, early, downtime) in [
            (CubeKept::Snapshot, false, &["snapshot-cube-data"][..]),
            (CubeKept::Both, true, &["snapshot-cube-data", "copy-cube-data"]),
        ] {
            let mut inputs = inputs(true, ArchiveWhen::After, true);
            inputs.cube = inputs.cube.map(|(cube, _)| (cube, kept));
            let names = names(&inputs);
            assert_eq!(names.contains(&"copy-cube-data-early".to_owned()), early);
            let stop = names.iter().position(|name| name == "back-up-metadata").unwrap();
            assert_eq!(names[stop + 1..=stop + downtime.len()], *downtime);
            assert!(names.contains(&"discard-snapshot".to_owned()));
            assert_eq!(names.contains(&"discard-cube-data".to_owned()), early);
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_planned() {
        let minor = names(&inputs(false, ArchiveWhen::None, false));
        for absent in
            ["copy-cube-data", "archive-tree", "start-service", "discard-archive", "discard-cube-data"]
        {
            assert!(!minor.iter().any(|name| name == absent), "{absent}");
        }
    }

    #[test]
    fn a_secondary_node_changes_its_home_alone() {
        let mut inputs = inputs(false, ArchiveWhen::After, true);
        inputs.home_only = true;
        let expected = [
            "stage-tree",
            "carry-customisations",
            "stop-service",
            "settle-customisations",
            "exchange-trees",
            "start-service",
            "archive-tree",
            "discard-old-tree",
            "discard-archive",
        ];
        assert_eq!(names(&inputs), expected);
    }

    #[test]
    fn an_archive_before_the_swap_is_made_from_the_home_itself() {
        let steps = steps(&inputs(false, ArchiveWhen::Before, true));
        let at = |name: &str| steps.iter().position(|step| step.name == name).unwrap();
        assert!(at("stop-service") < at("archive-tree") && at("archive-tree") < at("exchange-trees"));
        assert!(matches!(&steps[at("archive-tree")].mutation,
            Mutation::ArchiveTree { tree, .. } if *tree == "/opt/ke".into()));
    }

    #[test]
    fn data_are_handed_over_from_the_start_on_or_from_the_swap_if_the_operator_starts() {
        for (start, name) in [(true, "start-service"), (false, "exchange-trees")] {
            let steps = steps(&inputs(false, ArchiveWhen::After, start));
            let handed = steps.iter().find_map(|step| match step.mutation {
                Mutation::HandOverData { effective_from, .. } => Some(effective_from),
                _ => None,
            });
            assert_eq!(steps[handed.unwrap().index()].name, name);
        }
    }

    #[test]
    fn an_upgrade_stays_within_sixty_records() {
        let steps = steps(&inputs(true, ArchiveWhen::After, true)).len();
        // Begin, Sealed, Commit, End; and Planned, Intent, Done for each step.
        assert!(4 + 3 * steps <= 60, "{steps} steps");
    }
}
