//! The plans that are walked.

use kytx::digest::Digest;
use kytx::txn::{
    CarryPass, CopyPass, CubeCopy, Direction, Header, Mutation, Owner, Record, SideFile, Stage, Step, StepId,
    TxnId,
};

use super::machine::{Cell, Machine, Thing, stages};

/// A plan and the machine it is for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: &'static str,
    pub initial: Machine,
    pub steps: Vec<Step>,
}

impl Plan {
    /// The machine once every step but the kept ones has run: straight through, without engine and journal.
    pub fn reference(&self, keep: &[kytx::txn::StepId]) -> Machine {
        let mut machine = self.initial;
        for (index, step) in self.steps.iter().enumerate() {
            if !keep.iter().any(|kept| kept.index() == index) {
                machine =
                    stages(machine, &step.mutation, Direction::Forward).last().copied().unwrap_or(machine);
            }
        }
        machine
    }
}

/// The first record of every journal here.
pub fn begin() -> Record {
    Record::Begin(Header {
        txn: TxnId("0123456789abcdef".to_owned()),
        kytx: "0.1.0".to_owned(),
        began_unix_s: 1_795_500_000,
        home: "home".into(),
        old_version: "3.4.5".to_owned(),
        new_version: "3.5.1".to_owned(),
        package: "package".into(),
        user: "kylin".to_owned(),
        host: "node1".to_owned(),
        overrides: Vec::new(),
    })
}

fn apply(name: &str, mutation: Mutation) -> Step {
    Step { name: name.to_owned(), stage: Stage::Apply, mutation }
}

fn cleanup(name: &str, mutation: Mutation) -> Step {
    Step { name: name.to_owned(), stage: Stage::Cleanup, mutation }
}

fn stage() -> Step {
    apply(
        "stage-tree",
        Mutation::StageTree {
            package: "package".into(),
            content: Digest::ZERO,
            spare: "spare".into(),
            owner: Owner { uid: 0, gid: 0 },
        },
    )
}

fn carry(name: &str, pass: CarryPass) -> Step {
    let list = SideFile { path: "customisations".into(), digest: Digest::ZERO };
    apply(name, Mutation::CarryCustomisations { home: "home".into(), spare: "spare".into(), list, pass })
}

fn cube() -> CubeCopy {
    CubeCopy { source: "hdfs:/kylin/x".into(), root: "hdfs:/kytx/x".into() }
}

fn copy(name: &str, pass: CopyPass) -> Step {
    apply(name, Mutation::CopyCubeData { cube: cube(), pass })
}

fn stop() -> Step {
    apply("stop-service", Mutation::StopService { home: "home".into(), start_timeout_s: 60 })
}

fn start() -> Step {
    apply("start-service", Mutation::StartService { home: "home".into(), start_timeout_s: 60 })
}

fn back_up() -> Step {
    apply("back-up-metadata", Mutation::BackUpMetadata { home: "home".into(), backup: "backup".into() })
}

fn hand_over() -> Step {
    let mutation = Mutation::HandOverData {
        home: "home".into(),
        backup: "backup".into(),
        cube: Some(cube()),
        effective_from: StepId(0),
    };
    apply("hand-over-data", mutation)
}

fn exchange() -> Step {
    apply("exchange-trees", Mutation::ExchangeTrees { live: "home".into(), spare: "spare".into() })
}

fn archive() -> Step {
    let mutation = Mutation::ArchiveTree {
        tree: "spare".into(),
        archive: "home.backup.tar.gz".into(),
        top: "home".into(),
    };
    apply("archive-tree", mutation)
}

fn discard_tree() -> Step {
    cleanup("discard-old-tree", Mutation::DiscardTree { tree: "spare".into() })
}

fn discard_archive() -> Step {
    cleanup("discard-archive", Mutation::DiscardFile { file: "home.backup.tar.gz".into() })
}

fn discard_copy() -> Step {
    cleanup("discard-cube-data", Mutation::DiscardCubeData { root: cube().root })
}

/// A major upgrade: all twelve mutations, those with two passes twice.
pub fn major() -> Plan {
    Plan {
        name: "major",
        initial: Machine::running(),
        steps: vec![
            stage(),
            carry("carry-customisations", CarryPass::Copy),
            copy("copy-cube-data-early", CopyPass::Early),
            stop(),
            back_up(),
            copy("copy-cube-data", CopyPass::Final),
            carry("settle-customisations", CarryPass::Settle),
            hand_over(),
            exchange(),
            start(),
            archive(),
            discard_tree(),
            discard_archive(),
            discard_copy(),
        ],
    }
}

/// The same on an installation whose service is down: its stop is found.
pub fn major_stopped() -> Plan {
    let initial = Machine::running().with(Thing::Service, Cell::Absent);
    Plan { name: "major-stopped", initial, ..major() }
}

/// A minor upgrade of an installation without cube data, with the trees exchanged before the metadata are handed over.
pub fn minor() -> Plan {
    Plan {
        name: "minor",
        initial: Machine::running().with(Thing::Cube, Cell::Absent),
        steps: vec![stage(), stop(), back_up(), exchange(), hand_over(), start(), discard_tree()],
    }
}

/// Nothing to do at all.
pub fn empty() -> Plan {
    Plan { name: "empty", initial: Machine::running(), steps: Vec::new() }
}

/// One step and no cleanup.
pub fn single() -> Plan {
    Plan { name: "single", initial: Machine::running(), steps: vec![stage()] }
}

/// No apply step, and a cleanup step whose object is gone already.
pub fn cleanup_only() -> Plan {
    Plan { name: "cleanup-only", initial: Machine::running(), steps: vec![discard_archive()] }
}

/// Every step is found in place.
pub fn all_found() -> Plan {
    let initial = Machine::running();
    Plan { name: "all-found", initial, steps: vec![start(), discard_archive(), discard_copy()] }
}

/// A restart: the second step makes what the first one took away.
pub fn restart() -> Plan {
    Plan { name: "restart", initial: Machine::running(), steps: vec![stop(), start()] }
}

/// All of them.
pub fn all() -> Vec<Plan> {
    vec![major(), major_stopped(), minor(), empty(), single(), cleanup_only(), all_found(), restart()]
}
