//! Walks what is nobody's power cut: steps that fail, and strangers that change the machine.

use std::rc::Rc;

use kytx::engine::DriveError;
use kytx::txn::{Direction, StepId};

use crate::explore::{CHOICES, Tally, crashes};
use crate::world::accident::{Accident, Fault, Place};
use crate::world::lab::{Command, End, Lab};
use crate::world::machine::STRANGE;
use crate::world::plans::{self, Plan};

/// Each step failing in each of its calls, once and for good, forward and backward, followed by each recovery with a
/// crash at each of its points.
pub fn failures() -> Tally {
    let mut tally = Tally::default();
    for plan in [plans::major(), plans::minor(), plans::restart()] {
        let plan = Rc::new(plan);
        let applied = tally.applied(&plan).expect("BUG: every plan here can be applied");
        for fault in faults(&plan) {
            let (at, command) = match fault.direction {
                Direction::Forward if is_cleanup(&plan, fault.step) => (applied.clone(), Command::Commit),
                Direction::Forward => (Lab::new(&plan), Command::Begin),
                Direction::Backward => (applied.clone(), Command::Abort),
            };
            let mut lab = at;
            lab.fault = Some(fault);
            if fault.place == Place::Durable {
                // Only what a crash has left done without an outcome is made durable.
                tally.explore(&lab, command, crashes(1));
                continue;
            }
            let end = tally.run(&mut lab, command, Accident::None);
            if !fails(&end, fault.step) {
                // The undo of this step passes through no such stage.
                tally.settle(&mut lab, end);
                continue;
            }
            let again = tally.run(&mut lab, Command::Resume, Accident::None);
            if fault.for_good {
                tally.keep_failing(lab, fault, &again);
            } else {
                tally.settle(&mut lab, again);
            }
        }
    }
    tally
}

impl Tally {
    /// A fault for good: resumed it fails again, it can be turned back from, and mended it can be got past.
    fn keep_failing(&mut self, mut lab: Lab, fault: Fault, again: &End) {
        // Past its first stage a look may find the step nearer its end, or at it.
        let further = matches!(fault.place, Place::Stage(1..));
        if !further && !fails(again, fault.step) {
            self.blame("stuck", format!("{fault:?} fails for good and then {again:?}"));
        }
        // A step that cannot be applied can still be undone; one that cannot be undone must be mended.
        if fault.direction == Direction::Backward || is_cleanup(&lab.plan, fault.step) {
            lab.fault = None;
        }
        self.explore(&lab, Command::Abort, crashes(1));
        lab.fault = None;
        self.explore(&lab, Command::Resume, crashes(1));
    }
}

fn fails(end: &End, at: StepId) -> bool {
    matches!(end, End::Broke(DriveError::Failed { step, .. }) if *step == at)
}

fn is_cleanup(plan: &Plan, step: StepId) -> bool {
    plan.steps[step.index()].stage == kytx::txn::Stage::Cleanup
}

fn faults(plan: &Plan) -> Vec<Fault> {
    const STAGES_MAX: usize = 6;
    let places = [Place::Look, Place::Inputs, Place::Durable, Place::Outputs];
    let places = || places.into_iter().chain((0..=STAGES_MAX).map(Place::Stage));
    let mut faults = Vec::new();
    for step in (0..plan.steps.len() as u16).map(StepId) {
        for direction in [Direction::Forward, Direction::Backward] {
            if direction == Direction::Backward && is_cleanup(plan, step) {
                continue;
            }
            for place in places() {
                faults.extend([false, true].map(|for_good| Fault { step, direction, place, for_good }));
            }
        }
    }
    faults
}

/// Somebody else puts something in the place of each thing after each crash of begin: kytx must not touch it, and must
/// go on once it is gone. Also returns how often a run halted.
pub fn strangers() -> (Tally, usize) {
    let mut tally = Tally::default();
    let mut halts = 0;
    let plan = Rc::new(plans::major());
    for point in 0.. {
        let mut crashed = Lab::new(&plan);
        if !matches!(tally.run(&mut crashed, Command::Begin, Accident::PowerCut(point)), End::Crashed) {
            return (tally, halts);
        }
        for thing in STRANGE {
            for choice in CHOICES {
                let mut lab = crashed.clone();
                lab.intrude(thing);
                let end = tally.run(&mut lab, choice, Accident::None);
                if let End::Broke(DriveError::Foreign { what, .. }) = end {
                    halts += 1;
                    assert!(!what.is_empty(), "a halt says what differs");
                    // It goes away again, and nothing was lost by waiting.
                    lab.send_strangers_away();
                    let end = tally.run(&mut lab, Command::Resume, Accident::None);
                    tally.settle(&mut lab, end);
                }
            }
        }
    }
    unreachable!("every command has an end")
}
