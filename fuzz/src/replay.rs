//! Any sequence of records against the pure core.

use arbitrary::Unstructured;
use kytx::digest::Digest;
use kytx::journal::samples;
use kytx::txn::{
    AbortReason, Action, Direction, Outcome, Phase, Record, Stage, Step, StepId, Txn, plan_digest,
};

/// Any sequence of records: admitting never panics, a refusal changes nothing, `next` always has an answer, what was
/// admitted replays to the same state, the end is final, and a loop that does what `next` says gets there.
pub fn replay(data: &[u8]) {
    let mut source = Source(Unstructured::new(data));
    if source.next() % 8 == 7 {
        let record = source.record(&[]);
        let begun = Txn::replay([&record]);
        assert_eq!(begun.is_ok(), matches!(record, Record::Begin(_)));
        assert_eq!(Txn::replay([]).map(|txn| txn.is_some()), Ok(false));
        return;
    }
    let mut admitted = vec![samples::begin()];
    let mut txn = Txn::begin(&admitted[0]).expect("a first record begins");
    while !source.is_empty() {
        let record = source.likely(&txn);
        let before = txn.clone();
        match txn.admit(&record) {
            Ok(()) => {
                assert!(!matches!(before.phase(), Phase::Ended(_)), "a record after the end");
                check_step(&before, &txn, &record);
                admitted.push(record);
            }
            Err(refusal) => {
                assert_eq!(txn, before, "a refused record changed the transaction");
                assert!(refusal.to_string().contains(record.kind()));
            }
        }
        let _ = txn.next();
        look_at(&txn);
    }
    assert_eq!(Txn::replay(&admitted).expect("what was admitted replays"), Some(txn.clone()));
    drive_to_the_end(txn);
}

/// I5: there is one turn, and it is never taken back.
fn check_step(before: &Txn, after: &Txn, record: &Record) {
    use Phase::{Aborting, Applied, Applying, Committing, Ended, Planning};
    let legal = match (before.phase(), after.phase()) {
        (from, to) if from == to => true,
        (Planning, to) => matches!(to, Applying | Applied | Ended(Outcome::Aborted)),
        (Applying, to) => matches!(to, Applied | Aborting),
        (Applied, to) => matches!(to, Committing | Aborting),
        (Aborting, to) => to == Ended(Outcome::Aborted),
        (Committing, to) => to == Ended(Outcome::Committed),
        (Ended(_), _) => false,
    };
    assert!(legal, "{record:?} led from {:?} to {:?}", before.phase(), after.phase());
    let forward = match record {
        Record::Intent { direction, .. } | Record::Done { direction, .. } => *direction == Direction::Forward,
        _ => return,
    };
    let aborting = before.phase() == Phase::Aborting;
    assert_ne!(forward, aborting, "{record:?} in {:?}", before.phase());
    assert!(after.phase() == before.phase() || after.phase() == Phase::Applied);
}

fn drive_to_the_end(mut txn: Txn) {
    let limit = txn.steps().len() * 4 + 4;
    for _ in 0..limit {
        let record = match txn.next() {
            Action::Append(record) => record,
            Action::Intend { step, direction } => intent(&txn, step, direction, Digest::ZERO),
            Action::Drive { step, direction } => Record::Done { step, direction, outputs: Digest::ZERO },
            Action::Await => Record::Commit { keep: Vec::new() },
            Action::Finish(outcome) => {
                assert_eq!(txn.phase(), Phase::Ended(outcome));
                return;
            }
        };
        txn.admit(&record).expect("what `next` asks for is admitted");
    }
    panic!("no end after {limit} records");
}

/// An intent as the engine writes it: what is undone is undone from the inputs it was applied from.
fn intent(txn: &Txn, step: StepId, direction: Direction, forward_inputs: Digest) -> Record {
    let inputs = match direction {
        Direction::Forward => forward_inputs,
        Direction::Backward => txn.inputs(step).expect("what is undone was intended"),
    };
    Record::Intent { step, direction, inputs }
}

/// What `status` shows of a transaction hangs together, whatever state it is in.
fn look_at(txn: &Txn) {
    assert_eq!(Record::Begin(txn.header().clone()), samples::begin());
    if let Some(reason) = txn.abort_reason() {
        assert!(matches!(txn.phase(), Phase::Aborting | Phase::Ended(Outcome::Aborted)), "{reason:?}");
        let known = |step: &StepId| txn.step(*step).is_some();
        assert!(
            matches!(reason, AbortReason::Operator)
                || matches!(reason, AbortReason::Failure { step } if known(step))
        );
    }
    assert!(txn.kept().iter().all(|id| txn.step(*id).is_some_and(|step| step.stage == Stage::Cleanup)));
    assert!(txn.furthest().is_none_or(|id| id.index() < txn.steps().len()));
    for step in txn.steps() {
        let (does, undoes) = (step.mutation.sentence(), step.mutation.undo_sentence());
        assert!(!does.is_empty() && !undoes.is_empty() && !does.ends_with('.') && !undoes.ends_with('.'));
    }
}

/// Bytes that are turned into records; zeros once they are used up.
struct Source<'a>(Unstructured<'a>);

impl Source<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn next(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or(0)
    }

    /// Half of the time what `next` asks for, so that deep states are reached; otherwise anything.
    fn likely(&mut self, txn: &Txn) -> Record {
        let choice = self.next();
        if choice & 1 == 1 || txn.phase() == Phase::Planning {
            return self.record(txn.steps());
        }
        match txn.next() {
            Action::Append(record) => record,
            Action::Intend { step, direction: Direction::Forward } if choice & 6 == 6 => {
                Record::Found { step }
            }
            Action::Intend { step, direction } => intent(txn, step, direction, self.digest()),
            Action::Drive { step, direction } => Record::Done { step, direction, outputs: self.digest() },
            Action::Await | Action::Finish(_) => self.record(txn.steps()),
        }
    }

    fn record(&mut self, planned: &[Step]) -> Record {
        match self.next() % 9 {
            0 => samples::begin(),
            1 => Record::Planned(self.step(planned.len())),
            2 => {
                let off_by = u16::from(self.next() % 8 == 7);
                Record::Sealed { steps: planned.len() as u16 + off_by, plan: plan_digest(planned) }
            }
            3 => Record::Intent { step: self.id(), direction: self.direction(), inputs: self.digest() },
            4 => Record::Done { step: self.id(), direction: self.direction(), outputs: self.digest() },
            5 => Record::Found { step: self.id() },
            6 if self.next() & 1 == 0 => Record::Abort { reason: AbortReason::Operator },
            6 => Record::Abort { reason: AbortReason::Failure { step: self.id() } },
            7 => {
                let count = self.next() % 3;
                Record::Commit { keep: (0..count).map(|_| self.id()).collect() }
            }
            _ if self.next() & 1 == 0 => Record::End { outcome: Outcome::Committed },
            _ => Record::End { outcome: Outcome::Aborted },
        }
    }

    fn step(&mut self, planned: usize) -> Step {
        let byte = self.next();
        let mut steps = samples::steps();
        let mut step = steps.swap_remove(usize::from(byte >> 1) % steps.len());
        step.stage = if byte & 1 == 0 { Stage::Apply } else { Stage::Cleanup };
        // Now and then a name that is taken.
        let number = if byte >= 0xf0 { planned.saturating_sub(1) } else { planned };
        step.name = format!("step-{number}");
        step
    }

    fn id(&mut self) -> StepId {
        match self.next() {
            byte @ 0..0xf0 => StepId(u16::from(byte % 8)),
            byte => StepId(u16::MAX - u16::from(byte & 0xf)),
        }
    }

    fn direction(&mut self) -> Direction {
        if self.next() & 1 == 0 { Direction::Forward } else { Direction::Backward }
    }

    fn digest(&mut self) -> Digest {
        Digest::from_bytes([self.next(); 32])
    }
}
