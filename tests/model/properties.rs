//! Random records and random journals against `Txn`.

use kytx::digest::Digest;
use kytx::txn::{AbortReason, Action, Direction, Outcome, Phase, Record, Stage, StepId, Txn, plan_digest};
use proptest::prelude::*;

use crate::world::plans::{self, Plan, begin};

fn any_plan() -> impl Strategy<Value = Plan> {
    proptest::sample::select(plans::all())
}

fn any_direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Forward), Just(Direction::Backward)]
}

fn any_step_id() -> impl Strategy<Value = StepId> {
    prop_oneof![9 => 0u16..16, 1 => any::<u16>()].prop_map(StepId)
}

fn any_record() -> impl Strategy<Value = Record> {
    let steps = plans::major().steps;
    let plan = plan_digest(&steps);
    prop_oneof![
        Just(begin()),
        proptest::sample::select(steps).prop_map(Record::Planned),
        (0u16..16).prop_map(move |steps| Record::Sealed { steps, plan }),
        (any_step_id(), any_direction(), any::<[u8; 1]>()).prop_map(|(step, direction, [byte])| {
            Record::Intent { step, direction, inputs: Digest::from_bytes([byte & 1; 32]) }
        }),
        (any_step_id(), any_direction()).prop_map(|(step, direction)| Record::Done {
            step,
            direction,
            outputs: Digest::ZERO
        }),
        any_step_id().prop_map(|step| Record::Found { step }),
        Just(Record::Abort { reason: AbortReason::Operator }),
        any_step_id().prop_map(|step| Record::Abort { reason: AbortReason::Failure { step } }),
        proptest::collection::vec(any_step_id(), 0..3).prop_map(|keep| Record::Commit { keep }),
        prop_oneof![Just(Outcome::Committed), Just(Outcome::Aborted)]
            .prop_map(|outcome| Record::End { outcome }),
    ]
}

/// The record that does what is next, with the operator's or the machine's choices taken from `choice`.
fn follow(txn: &Txn, choice: u8) -> Option<Record> {
    let turn_round = choice.is_multiple_of(16) && matches!(txn.phase(), Phase::Applying | Phase::Applied);
    if turn_round {
        return Some(Record::Abort { reason: AbortReason::Operator });
    }
    match txn.next() {
        Action::Append(record) => Some(record),
        Action::Intend { step, direction: Direction::Forward } if choice % 4 == 1 => {
            Some(Record::Found { step })
        }
        Action::Intend { step, direction } => {
            let inputs = txn.inputs(step).unwrap_or(Digest::from_bytes([choice; 32]));
            Some(Record::Intent { step, direction, inputs })
        }
        Action::Drive { step, direction } => Some(Record::Done { step, direction, outputs: Digest::ZERO }),
        Action::Await => {
            let cleanup = |id: &StepId| txn.step(*id).is_some_and(|step| step.stage == Stage::Cleanup);
            Some(Record::Commit { keep: txn.ids().filter(cleanup).take(usize::from(choice & 1)).collect() })
        }
        Action::Finish(_) => None,
    }
}

/// The records of a plan, then whatever follows until nothing does.
fn walk(plan: &Plan, choices: &[u8]) -> Vec<Record> {
    let mut journal = vec![begin()];
    journal.extend(plan.steps.iter().cloned().map(Record::Planned));
    journal.push(Record::Sealed { steps: plan.steps.len() as u16, plan: plan_digest(&plan.steps) });
    let mut txn = Txn::replay(&journal).unwrap().unwrap();
    let mut choices = choices.iter().copied().cycle();
    // Each step is intended and done, both ways at most; then come a turn and an end.
    for _ in 0..=4 * plan.steps.len() + 2 {
        let Some(record) = follow(&txn, choices.next().unwrap()) else { return journal };
        txn.admit(&record).unwrap();
        journal.push(record);
    }
    panic!("the walk does not end: {:?}", txn.next());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn a_refused_record_changes_nothing_and_an_admitted_one_is_admitted_in_replay(
        plan in any_plan(),
        choices in proptest::collection::vec(any::<u8>(), 1..64),
        cut in any::<proptest::sample::Index>(),
        noise in proptest::collection::vec(any_record(), 0..40),
    ) {
        let mut journal = walk(&plan, &choices);
        journal.truncate(1 + cut.index(journal.len()));
        let mut live = Txn::replay(&journal).unwrap().unwrap();
        for record in noise {
            let before = live.clone();
            match live.admit(&record) {
                Ok(()) => journal.push(record),
                Err(_) => prop_assert_eq!(&live, &before),
            }
            // Total: no state is without an answer, and the answer's record is welcome.
            if let Action::Append(next) = live.next() {
                prop_assert!(live.clone().admit(&next).is_ok());
            }
        }
        prop_assert_eq!(Txn::replay(&journal).unwrap().unwrap(), live);
    }

    #[test]
    fn every_walk_ends_and_every_prefix_of_it_is_legal(
        plan in any_plan(),
        choices in proptest::collection::vec(any::<u8>(), 1..64),
    ) {
        let journal = walk(&plan, &choices);
        for length in 1..=journal.len() {
            let txn = Txn::replay(&journal[..length]).unwrap().unwrap();
            prop_assert_eq!(length == journal.len(), matches!(txn.next(), Action::Finish(_)));
        }
    }

    #[test]
    fn an_ended_transaction_takes_no_record(
        plan in any_plan(),
        choices in proptest::collection::vec(any::<u8>(), 1..64),
        record in any_record(),
    ) {
        let mut ended = Txn::replay(&walk(&plan, &choices)).unwrap().unwrap();
        prop_assert!(matches!(ended.phase(), Phase::Ended(_)));
        prop_assert!(ended.admit(&record).is_err());
    }
}
