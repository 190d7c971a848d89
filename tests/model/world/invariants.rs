//! The invariants of `journal-format.md`, each a function over what happened so far and what happens now.
//!
//! [`Ledger`] keeps its own books, written without `Txn`: a second opinion, not the same one twice.

use std::rc::Rc;

use kytx::txn::{Direction, Mutation, Observed, Outcome, Record, Stage, StepId, Txn};

use super::lab::Event;
use super::machine::{Cell, Machine, THINGS, Thing, Value, probe, undo_leaves_it};
use super::plans::Plan;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: `I1` to `I12`, `outcome`, `grammar`, `verdict`, `stuck`, `stop` or `poisoned`.
    pub law: &'static str,
    pub what: String,
}

#[derive(Clone, Copy, Default)]
struct Way {
    intended: bool,
    done: bool,
    /// The act has returned, or a look has shown that it had happened and that was made durable.
    in_effect: bool,
}

#[derive(Clone, Copy, Default)]
struct Line {
    forward: Way,
    backward: Way,
    found: bool,
}

impl Line {
    fn way(&self, direction: Direction) -> &Way {
        match direction {
            Direction::Forward => &self.forward,
            Direction::Backward => &self.backward,
        }
    }

    fn way_mut(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }

    fn through(&self) -> bool {
        self.found || self.forward.done
    }

    fn gone(&self) -> bool {
        self.found || self.backward.done || !self.forward.intended
    }
}

/// What the events so far amount to.
#[derive(Clone)]
pub struct Ledger {
    plan: Rc<Plan>,
    lines: Vec<Line>,
    sealed: bool,
    aborted: bool,
    committed: bool,
    ended: bool,
    kept: Vec<StepId>,
    /// The step that was looked at in this run, since its intent.
    looked: Option<StepId>,
    /// The last such look showed it done.
    seen_done: bool,
    /// The act under way.
    active: Option<StepId>,
    /// What this run was told, and has been answered.
    stop_before: Option<StepId>,
    consulted: bool,
    stopped: bool,
    /// An append has failed in this run.
    poisoned: bool,
    /// What apply steps have changed.
    ours: [bool; THINGS.len()],
    txn: Option<Txn>,
}

impl Ledger {
    pub fn new(plan: &Rc<Plan>) -> Self {
        Self {
            plan: Rc::clone(plan),
            lines: vec![Line::default(); plan.steps.len()],
            sealed: false,
            aborted: false,
            committed: false,
            ended: false,
            kept: Vec::new(),
            looked: None,
            seen_done: false,
            active: None,
            stop_before: None,
            consulted: false,
            stopped: false,
            poisoned: false,
            ours: [false; THINGS.len()],
            txn: None,
        }
    }

    fn mutation(&self, step: StepId) -> &Mutation {
        &self.plan.steps[step.index()].mutation
    }

    fn stage(&self, step: StepId) -> Stage {
        self.plan.steps[step.index()].stage
    }

    /// Takes an event into the books. An error if it is a record that `Txn` refuses.
    pub fn fold(&mut self, event: &Event) -> Check {
        match event {
            Event::Run { stop_before } => {
                (self.looked, self.active) = (None, None);
                self.stop_before = *stop_before;
                (self.consulted, self.stopped, self.poisoned) = (false, false, false);
            }
            Event::Crashed | Event::Failed => (self.looked, self.active) = (None, None),
            Event::Asked => {}
            Event::Consulted { stop } => {
                self.consulted = true;
                self.stopped |= *stop;
            }
            Event::Durable(record) => return self.fold_record(record),
            Event::Refused => self.poisoned = true,
            Event::Looked { step, intended: true, seen } => {
                self.looked = Some(*step);
                let line = &self.lines[step.index()];
                let direction = if line.backward.intended { Direction::Backward } else { Direction::Forward };
                let there = matches!(
                    (direction, seen),
                    (Direction::Forward, Observed::After) | (Direction::Backward, Observed::Before)
                );
                self.seen_done = there && line.way(direction).intended;
            }
            Event::Looked { .. } => {}
            Event::Synced { step } => {
                if self.seen_done && self.looked == Some(*step) {
                    let line = &mut self.lines[step.index()];
                    let direction =
                        if line.backward.intended { Direction::Backward } else { Direction::Forward };
                    line.way_mut(direction).in_effect = true;
                }
            }
            Event::Begun { step, .. } => {
                self.active = Some(*step);
                self.consulted = false;
            }
            Event::Changed { step, direction: Direction::Forward, before, after } => {
                if self.stage(*step) == Stage::Apply {
                    before.differing(*after).for_each(|thing| self.ours[thing as usize] = true);
                }
            }
            Event::Changed { .. } => {}
            Event::Ended { step, direction } => {
                (self.active, self.consulted) = (None, false);
                self.lines[step.index()].way_mut(*direction).in_effect = true;
            }
        }
        Ok(())
    }

    fn fold_record(&mut self, record: &Record) -> Check {
        let legal = match &mut self.txn {
            None => Txn::begin(record).map(|txn| self.txn = Some(txn)),
            Some(txn) => txn.admit(record),
        };
        match record {
            Record::Begin(_) | Record::Planned(_) => {}
            Record::Sealed { .. } => self.sealed = true,
            Record::Intent { step, direction, .. } => {
                self.looked = None;
                self.lines[step.index()].way_mut(*direction).intended = true;
                if let Mutation::HandOverData { .. } = self.mutation(*step) {
                    self.ours[Thing::Metadata as usize] = true;
                    self.ours[Thing::Cube as usize] = true;
                }
            }
            Record::Done { step, direction, .. } => {
                self.lines[step.index()].way_mut(*direction).done = true;
            }
            Record::Found { step } => self.lines[step.index()].found = true,
            Record::Abort { .. } => self.aborted = true,
            Record::Commit { keep } => {
                self.committed = true;
                self.kept.clone_from(keep);
            }
            Record::End { .. } => self.ended = true,
        }
        legal.map_err(|refusal| refusal.to_string())
    }
}

type Check = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(what()) }
}

/// Runs every invariant over an event.
///
/// `own` is the machine without what strangers have put there: with it, through no fault of kytx, it is neither old nor
/// new.
pub fn examine(
    ledger: &Ledger,
    event: &Event,
    machine: &Machine,
    own: &Machine,
    violations: &mut Vec<Violation>,
) {
    let laws = [
        ("I1", invariant_1_plan_first(ledger, event)),
        ("I2", invariant_2_write_ahead(ledger, event)),
        ("I3", invariant_3_look_first(ledger, event)),
        ("I4", invariant_4_order(ledger, event)),
        ("I5", invariant_5_one_turn(ledger, event)),
        ("I6", invariant_6_only_our_own(ledger, event)),
        ("I7", invariant_7_nothing_lost(ledger, event, own)),
        ("I11", invariant_11_restartable(ledger, event, machine)),
        ("I12", invariant_12_asked_once(ledger, event)),
        ("outcome", invariant_outcome_and_machine_agree(ledger, event, own)),
        ("stop", law_a_stop_is_obeyed(ledger, event)),
        ("poisoned", law_nothing_follows_a_failed_append(ledger, event)),
    ];
    for (law, result) in laws {
        if let Err(what) = result {
            violations.push(Violation { law, what });
        }
    }
}

fn invariant_1_plan_first(ledger: &Ledger, event: &Event) -> Check {
    match event {
        Event::Changed { before, after, .. } if !ledger.sealed => {
            ensure(before.differing(*after).all(|thing| thing == Thing::Backup), || {
                "the machine changed before the plan was sealed".to_owned()
            })
        }
        _ => Ok(()),
    }
}

fn invariant_2_write_ahead(ledger: &Ledger, event: &Event) -> Check {
    match event {
        Event::Begun { step, direction } => {
            let way = ledger.lines[step.index()].way(*direction);
            ensure(way.intended && !way.done, || format!("step {step} acts without an intent"))
        }
        Event::Durable(record) => match &**record {
            Record::Done { step, direction, .. } => {
                let way = ledger.lines[step.index()].way(*direction);
                ensure(way.in_effect, || format!("step {step} is recorded as done and is not"))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn invariant_3_look_first(ledger: &Ledger, event: &Event) -> Check {
    match event {
        Event::Begun { step, .. } => {
            ensure(ledger.looked == Some(*step), || format!("step {step} acts without a look"))
        }
        _ => Ok(()),
    }
}

fn invariant_4_order(ledger: &Ledger, event: &Event) -> Check {
    let Event::Begun { step, direction } = event else { return Ok(()) };
    ensure(ledger.active.is_none(), || format!("step {step} starts while another is under way"))?;
    let (before, rest) = ledger.lines.split_at(step.index());
    let after = &rest[1..];
    match direction {
        Direction::Forward => {
            let kept = |index: usize| ledger.kept.iter().any(|id| id.index() == index);
            ensure(before.iter().enumerate().all(|(index, line)| line.through() || kept(index)), || {
                format!("step {step} is applied before one that comes first")
            })?;
            ensure(after.iter().all(|line| !line.forward.intended && !line.found), || {
                format!("step {step} is applied after one that comes later")
            })
        }
        Direction::Backward => ensure(after.iter().all(Line::gone), || {
            format!("step {step} is undone before one that comes later")
        }),
    }
}

fn invariant_5_one_turn(ledger: &Ledger, event: &Event) -> Check {
    let way = match event {
        Event::Begun { direction, .. } => Some(*direction),
        Event::Durable(record) => match &**record {
            Record::Intent { direction, .. } => Some(*direction),
            Record::Abort { .. } => Some(Direction::Backward),
            Record::Commit { .. } => Some(Direction::Forward),
            _ => None,
        },
        _ => None,
    };
    match way {
        Some(Direction::Forward) => ensure(!ledger.aborted, || "forward after the abort".to_owned()),
        Some(Direction::Backward) => ensure(!ledger.committed, || "backward after the commit".to_owned()),
        None => Ok(()),
    }
}

fn invariant_6_only_our_own(ledger: &Ledger, event: &Event) -> Check {
    match event {
        Event::Begun { step, direction: Direction::Backward } => {
            ensure(!ledger.lines[step.index()].found, || format!("step {step} was found and is undone"))
        }
        Event::Changed { step, direction, before, after } => {
            for thing in before.differing(*after) {
                ensure(before[thing] != Cell::Whole(Value::Stranger), || {
                    format!("step {step} changes {thing:?}, which somebody else put there")
                })?;
                let own_name = ledger.plan.initial[thing] == Cell::Absent && thing != Thing::Service;
                let apply = *direction == Direction::Forward && ledger.stage(*step) == Stage::Apply;
                ensure(apply || own_name || ledger.ours[thing as usize], || {
                    format!("step {step} undoes or deletes {thing:?}, which is not ours")
                })?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn invariant_7_nothing_lost(ledger: &Ledger, event: &Event, own: &Machine) -> Check {
    let Event::Changed { step, .. } = event else { return Ok(()) };
    if ledger.committed {
        return Ok(());
    }
    let exists = |value, places: &[Thing]| places.iter().any(|place| own[*place] == Cell::Whole(value));
    let lost = |what: &str| format!("step {step} leaves no copy of the old {what}");
    ensure(exists(Value::OldTree, &[Thing::Live, Thing::Spare, Thing::Hold]), || lost("tree"))?;
    ensure(exists(Value::Old, &[Thing::Metadata, Thing::Backup]), || lost("metadata"))?;
    let no_cube_data = ledger.plan.initial[Thing::Cube] == Cell::Absent;
    ensure(no_cube_data || exists(Value::Old, &[Thing::Cube, Thing::CubeCopy]), || lost("cube data"))
}

fn invariant_11_restartable(ledger: &Ledger, event: &Event, machine: &Machine) -> Check {
    let Event::Ended { step, direction } = event else { return Ok(()) };
    let mutation = ledger.mutation(*step);
    let seen = probe(machine, mutation, true).seen;
    let arrived = match (direction, mutation) {
        (_, Mutation::HandOverData { .. }) => seen == Observed::Torn,
        (Direction::Forward, _) => seen == Observed::After,
        (Direction::Backward, _) => seen == Observed::Before || undo_leaves_it(mutation),
    };
    ensure(arrived, || format!("step {step} says it has gone {direction:?} and is {seen:?}"))
}

fn invariant_12_asked_once(ledger: &Ledger, event: &Event) -> Check {
    match event {
        Event::Asked => ensure(!ledger.sealed, || "a question whose answer is in the plan".to_owned()),
        _ => Ok(()),
    }
}

/// All of the old, or all of the new; and the journal says which.
fn invariant_outcome_and_machine_agree(ledger: &Ledger, event: &Event, machine: &Machine) -> Check {
    let Event::Durable(record) = event else { return Ok(()) };
    let Record::End { outcome } = **record else { return Ok(()) };
    ensure(!ledger.ended, || "a second end".to_owned())?;
    ensure(ledger.committed == (outcome == Outcome::Committed), || format!("it ends as {outcome:?}"))?;
    let (now, wanted) = match outcome {
        Outcome::Committed => (*machine, ledger.plan.reference(&ledger.kept)),
        Outcome::Aborted => (machine.without_harmless(), ledger.plan.initial.without_harmless()),
    };
    ensure(now == wanted, || format!("{outcome:?} with {now:?}, wanted {wanted:?}"))
}

/// Whether to stop is asked before every act; after a yes nothing is begun, and the step that the operator named is
/// not started.
fn law_a_stop_is_obeyed(ledger: &Ledger, event: &Event) -> Check {
    let does_something = match event {
        Event::Begun { step, .. } => {
            ensure(ledger.consulted, || format!("step {step} acts, and nobody asked whether to stop"))?;
            true
        }
        Event::Durable(record) => {
            let started = match **record {
                Record::Intent { step, direction: Direction::Forward, .. } | Record::Found { step } => {
                    Some(step)
                }
                _ => None,
            };
            ensure(started.is_none() || started != ledger.stop_before, || {
                format!("step {started:?} is started although it was to be stopped before")
            })?;
            true
        }
        Event::Changed { .. } | Event::Looked { .. } => true,
        _ => false,
    };
    ensure(!(does_something && ledger.stopped), || format!("{event:?} after a stop was asked for"))
}

/// After an append has failed nobody knows what is durable: the run does nothing more.
fn law_nothing_follows_a_failed_append(ledger: &Ledger, event: &Event) -> Check {
    match event {
        Event::Begun { .. } | Event::Changed { .. } | Event::Durable(_) | Event::Refused => {
            ensure(!ledger.poisoned, || format!("{event:?} after an append has failed"))
        }
        _ => Ok(()),
    }
}
