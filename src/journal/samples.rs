//! One record of every type and one step of every mutation, for tests, fixtures and fuzzing.

use crate::digest::Digest;
use crate::raw_path::RawPath;
use crate::txn::{
    AbortReason, CarryPass, CopyPass, CubeCopy, Direction, Header, Mutation, Outcome, Override, Owner,
    Record, SideFile, Stage, Step, StepId, TxnId, plan_digest,
};

/// A first record.
pub fn begin() -> Record {
    begin_with_user("kylin")
}

/// A first record, begun by this user.
pub fn begin_with_user(user: &str) -> Record {
    Record::Begin(Header {
        txn: TxnId("00000192f3a4b5c6".to_owned()),
        kytx: "0.1.0".to_owned(),
        began_unix_s: 1_795_500_000,
        home: "/opt/ke".into(),
        old_version: "3.4.5".to_owned(),
        new_version: "3.4.6".to_owned(),
        package: "/tmp/ke.tar.gz".into(),
        user: user.to_owned(),
        host: "node1".to_owned(),
        overrides: vec![Override { check: "P4".to_owned(), reason: "Java 8 is there".to_owned() }],
    })
}

/// A plan with one step of every mutation, and both passes of those that have two; cleanup last.
pub fn steps() -> Vec<Step> {
    let (home, spare): (RawPath, RawPath) = ("/opt/ke".into(), "/opt/.kytx/ke/spare".into());
    let backup: RawPath = "/opt/.kytx/ke/backup/meta".into();
    let cube = CubeCopy { source: "hdfs://ns/kylin".into(), root: "hdfs://ns/.kytx/1".into() };
    let list = SideFile { path: "backup/carry.json".into(), digest: Digest::of(b"carry") };
    let carry = |pass| Mutation::CarryCustomisations {
        home: home.clone(),
        spare: spare.clone(),
        list: list.clone(),
        pass,
    };
    let apply = [
        Mutation::StageTree {
            package: RawPath::new(&b"/tmp/caf\xe9.tar.gz"[..]),
            content: Digest::of(b"package"),
            spare: spare.clone(),
            owner: Owner { uid: 1000, gid: 1001 },
        },
        carry(CarryPass::Copy),
        Mutation::CopyCubeData { cube: cube.clone(), pass: CopyPass::Early },
        stop_service(),
        Mutation::BackUpMetadata { home: home.clone(), backup: backup.clone() },
        Mutation::CopyCubeData { cube: cube.clone(), pass: CopyPass::Final },
        carry(CarryPass::Settle),
        Mutation::ExchangeTrees { live: home.clone(), spare: spare.clone() },
        Mutation::HandOverData {
            home: home.clone(),
            backup: backup.clone(),
            cube: Some(cube.clone()),
            effective_from: StepId(9),
        },
        Mutation::HandOverData { home: home.clone(), backup, cube: None, effective_from: StepId(9) },
        Mutation::StartService { home, start_timeout_s: 600 },
        Mutation::ArchiveTree {
            tree: spare.clone(),
            archive: "/opt/ke.backup.tar.gz".into(),
            top: "ke".into(),
        },
        Mutation::SnapshotCubeData { cube: cube.clone() },
    ];
    let cleanup = [
        Mutation::DiscardTree { tree: spare },
        Mutation::DiscardFile { file: "/opt/ke.backup.tar.gz".into() },
        Mutation::DiscardCubeData { root: cube.root.clone() },
        Mutation::DiscardSnapshot { cube },
    ];
    let named = |stage, mutations: Vec<Mutation>| {
        mutations.into_iter().enumerate().map(move |(n, mutation)| {
            let stage_name = if stage == Stage::Apply { "apply" } else { "cleanup" };
            Step { name: format!("{stage_name}-{n}"), stage, mutation }
        })
    };
    named(Stage::Apply, apply.into()).chain(named(Stage::Cleanup, cleanup.into())).collect()
}

/// The mutation of the worked example in `journal-format.md`.
pub fn stop_service() -> Mutation {
    Mutation::StopService { home: "/opt/ke".into(), start_timeout_s: 600 }
}

/// The five records of the worked example in `journal-format.md`.
pub fn example() -> Vec<Record> {
    let step = Step { name: "stop".to_owned(), stage: Stage::Apply, mutation: stop_service() };
    let plan = plan_digest([&step]);
    vec![
        begin(),
        Record::Planned(step),
        Record::Sealed { steps: 1, plan },
        Record::Intent { step: StepId(0), direction: Direction::Forward, inputs: Digest::of(b"inputs") },
        Record::Done { step: StepId(0), direction: Direction::Forward, outputs: Digest::of(b"outputs") },
    ]
}

/// A legal journal, planned to its end over [`steps`]: committed, with one step found and one cleanup step kept.
pub fn committed() -> Vec<Record> {
    let mut records = sealed();
    records.push(Record::Found { step: StepId(0) });
    let steps = steps();
    let apply = steps.iter().filter(|step| step.stage == Stage::Apply).count() as u16;
    for step in (1..apply).map(StepId) {
        records.extend(performed(step, Direction::Forward));
    }
    let kept = StepId(apply + 1);
    records.push(Record::Commit { keep: vec![kept] });
    for step in (apply..steps.len() as u16).map(StepId).filter(|step| *step != kept) {
        records.extend(performed(step, Direction::Forward));
    }
    records.push(Record::End { outcome: Outcome::Committed });
    records
}

/// A legal journal that is aborted after a failure in its third step.
pub fn aborted() -> Vec<Record> {
    let mut records = sealed();
    for step in [0, 1].map(StepId) {
        records.extend(performed(step, Direction::Forward));
    }
    records.extend(performed(StepId(2), Direction::Forward).into_iter().take(1));
    records.push(Record::Abort { reason: AbortReason::Failure { step: StepId(2) } });
    for step in [2, 1, 0].map(StepId) {
        records.extend(performed(step, Direction::Backward));
    }
    records.push(Record::End { outcome: Outcome::Aborted });
    records
}

/// Every record type, every mutation and both sides of every choice, in no legal order.
pub fn records() -> Vec<Record> {
    let mut records = committed();
    records.extend(aborted());
    records.push(Record::Abort { reason: AbortReason::Operator });
    records
}

fn sealed() -> Vec<Record> {
    let steps = steps();
    let seal = Record::Sealed { steps: steps.len() as u16, plan: plan_digest(&steps) };
    std::iter::once(begin()).chain(steps.into_iter().map(Record::Planned)).chain([seal]).collect()
}

fn performed(step: StepId, direction: Direction) -> [Record; 2] {
    let of = |what: &str| Digest::of(format!("{what} {step}").as_bytes());
    [
        Record::Intent { step, direction, inputs: of("inputs") },
        Record::Done { step, direction, outputs: of("outputs") },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::{Phase, Txn};

    #[test]
    fn the_samples_are_legal_journals() {
        let end = |records: &[Record]| Txn::replay(records).unwrap().unwrap().phase();
        assert_eq!(end(&committed()), Phase::Ended(Outcome::Committed));
        assert_eq!(end(&aborted()), Phase::Ended(Outcome::Aborted));
        assert_eq!(end(&example()), Phase::Applied);
    }
}
