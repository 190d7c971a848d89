//! The contract of a mutation, for every mutation of the model: it fails once, runs twice, is undone twice, is undone
//! after part of the act, and restarts from every torn state.

use kytx::txn::{Direction, Mutation, Observed, Stage};

use crate::world::machine::{Machine, probe, stages, undo_leaves_it};
use crate::world::plans;

const FORWARD: Direction = Direction::Forward;
const BACKWARD: Direction = Direction::Backward;

fn end(machine: Machine, mutation: &Mutation, direction: Direction) -> Machine {
    stages(machine, mutation, direction).last().copied().unwrap_or(machine)
}

/// Calls `check` with each step of the major and the minor upgrade and the machine as it is when the step begins.
fn each_step(check: impl Fn(&str, &Mutation, Stage, Machine)) {
    for plan in [plans::major(), plans::minor(), plans::restart()] {
        let mut machine = plan.initial;
        for step in &plan.steps {
            check(&step.name, &step.mutation, step.stage, machine);
            machine = end(machine, &step.mutation, FORWARD);
        }
    }
}

#[test]
fn i11_apply_reaches_its_end_from_every_torn_state_and_twice() {
    each_step(|name, mutation, _, before| {
        let after = end(before, mutation, FORWARD);
        for torn in stages(before, mutation, FORWARD) {
            assert_eq!(end(torn, mutation, FORWARD), after, "{name} from {torn:?}");
        }
        assert!(stages(after, mutation, FORWARD).is_empty(), "{name} run twice changes nothing");
    });
}

#[test]
fn i11_undo_reaches_its_end_from_every_torn_state_and_twice() {
    each_step(|name, mutation, stage, before| {
        if stage == Stage::Cleanup {
            return;
        }
        let after = end(before, mutation, FORWARD);
        let undone = end(after, mutation, BACKWARD);
        let mut starts = stages(before, mutation, FORWARD);
        starts.extend(stages(after, mutation, BACKWARD));
        for torn in starts {
            let back = end(torn, mutation, BACKWARD);
            assert_eq!(end(back, mutation, BACKWARD), back, "{name} undone twice");
            // What the new release did to the data is for the undo of the step before.
            let hands_on = matches!(mutation, Mutation::StartService { .. });
            if !undo_leaves_it(mutation) && !hands_on {
                assert_eq!(back, undone, "{name} undone from {torn:?}");
            }
        }
    });
}

#[test]
fn a_look_tells_before_torn_and_after_apart() {
    each_step(|name, mutation, _, before| {
        let path = stages(before, mutation, FORWARD);
        let Some((after, torn)) = path.split_last() else { return };
        assert_eq!(probe(&before, mutation, true).seen, Observed::Before, "{name}");
        assert_eq!(probe(after, mutation, true).seen, Observed::After, "{name}");
        for torn in torn {
            let seen = probe(torn, mutation, true).seen;
            assert_eq!(seen, Observed::Torn, "{name} at {torn:?}");
        }
    });
}
