//! A transaction as the fold of its records.

use std::sync::Arc;

use super::{AbortReason, Direction, Header, Outcome, Record, Stage, Step, StepId, plan_digest};
use crate::digest::Digest;

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The plan is being written; nothing has been touched.
    Planning,
    /// The apply steps are running.
    Applying,
    /// Every apply step is done; the operator must commit or abort.
    Applied,
    /// The steps are being undone. There is no way forward.
    Aborting,
    /// The cleanup steps are running. There is no way back.
    Committing,
    /// Over.
    Ended(Outcome),
}

impl Phase {
    /// Whether only one way is left, and steps on it.
    pub fn is_past_turning(self) -> bool {
        matches!(self, Self::Aborting | Self::Committing)
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Not reached.
    Pending,
    /// The intent is durable; the act may have happened, in part or in full.
    Intended {
        /// What the step works from.
        inputs: Digest,
    },
    /// Applied.
    Done {
        /// What the step worked from.
        inputs: Digest,
        /// What it made.
        outputs: Digest,
    },
    /// It was so already.
    Found,
    /// The intent to undo is durable.
    Undoing {
        /// What the step had worked from.
        inputs: Digest,
    },
    /// Undone.
    Undone,
}

/// The one thing to do next.
#[allow(clippy::large_enum_variant, reason = "one lives at a time")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Append this record.
    Append(Record),
    /// Look at the machine; append the intent, or `Found` if it is so already.
    Intend {
        /// The step.
        step: StepId,
        /// Which way.
        direction: Direction,
    },
    /// The intent is durable: look, act as [`super::judge()`] says, append `Done`.
    Drive {
        /// The step.
        step: StepId,
        /// Which way.
        direction: Direction,
    },
    /// Every step is applied: the operator must commit or abort.
    Await,
    /// Nothing is left.
    Finish(Outcome),
}

/// A record that may not follow the ones before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record `{record}` may not follow here: {reason}")]
pub struct IllegalRecord {
    /// The type of the record.
    pub record: &'static str,
    /// Which rule it breaks.
    pub reason: &'static str,
}

/// A transaction: the fold of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    // Shared: the engine folds each record into a copy, and the plan is most of a transaction.
    header: Arc<Header>,
    steps: Arc<Vec<Step>>,
    states: Vec<StepState>,
    phase: Phase,
    keep: Vec<StepId>,
    abort_reason: Option<AbortReason>,
}

impl Txn {
    /// Folds a whole journal. `None` if it holds no record.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Option<Self>, IllegalRecord> {
        let mut records = records.into_iter();
        let Some(first) = records.next() else { return Ok(None) };
        let mut txn = Self::begin(first)?;
        for record in records {
            txn.admit(record)?;
        }
        Ok(Some(txn))
    }

    /// Starts a transaction from its first record.
    pub fn begin(first: &Record) -> Result<Self, IllegalRecord> {
        let Record::Begin(header) = first else {
            return Err(IllegalRecord { record: first.kind(), reason: "a journal begins with `begin`" });
        };
        Ok(Self {
            header: Arc::new(header.clone()),
            steps: Arc::default(),
            states: Vec::new(),
            phase: Phase::Planning,
            keep: Vec::new(),
            abort_reason: None,
        })
    }

    /// Folds one more record in, or refuses it and changes nothing. The same function live and in replay.
    pub fn admit(&mut self, record: &Record) -> Result<(), IllegalRecord> {
        let refuse = |reason| Err(IllegalRecord { record: record.kind(), reason });
        match record {
            Record::Begin(_) => return refuse("the transaction has begun already"),
            Record::Planned(step) => {
                if self.phase != Phase::Planning {
                    return refuse("the plan is sealed");
                }
                if self.steps.len() >= usize::from(u16::MAX) {
                    return refuse("too many steps");
                }
                if self.steps.iter().any(|planned| planned.name == step.name) {
                    return refuse("two steps of one name");
                }
                if step.stage == Stage::Apply
                    && self.steps.iter().any(|planned| planned.stage == Stage::Cleanup)
                {
                    return refuse("an apply step after a cleanup step");
                }
                Arc::make_mut(&mut self.steps).push(step.clone());
                self.states.push(StepState::Pending);
            }
            Record::Sealed { steps, plan } => {
                if self.phase != Phase::Planning {
                    return refuse("the plan is sealed already");
                }
                if usize::from(*steps) != self.steps.len() || *plan != plan_digest(&*self.steps) {
                    return refuse("it names another plan");
                }
                self.phase = Phase::Applying;
            }
            Record::Intent { step, direction, inputs } => {
                if self.next() != (Action::Intend { step: *step, direction: *direction }) {
                    return refuse("it is not this step's turn");
                }
                if self.inputs(*step).is_some_and(|applied_from| applied_from != *inputs) {
                    return refuse("it undoes from other inputs than the step was applied from");
                }
                self.states[step.index()] = match (direction, self.states[step.index()]) {
                    (Direction::Forward, _) => StepState::Intended { inputs: *inputs },
                    (
                        Direction::Backward,
                        StepState::Intended { inputs } | StepState::Done { inputs, .. },
                    ) => StepState::Undoing { inputs },
                    (Direction::Backward, _) => return refuse("the step was never applied"),
                };
            }
            Record::Found { step } => {
                if self.next() != (Action::Intend { step: *step, direction: Direction::Forward }) {
                    return refuse("it is not this step's turn");
                }
                self.states[step.index()] = StepState::Found;
            }
            Record::Done { step, direction, outputs } => {
                if self.next() != (Action::Drive { step: *step, direction: *direction }) {
                    return refuse("no such step was under way");
                }
                self.states[step.index()] = match (direction, self.states[step.index()]) {
                    (Direction::Forward, StepState::Intended { inputs }) => {
                        StepState::Done { inputs, outputs: *outputs }
                    }
                    _ => StepState::Undone,
                };
            }
            Record::Abort { reason } => {
                // I5: past the commit record nothing is undone.
                if !matches!(self.phase, Phase::Applying | Phase::Applied) {
                    return refuse("there is nothing to abort, or it is too late");
                }
                if let AbortReason::Failure { step } = reason
                    && self.step(*step).is_none()
                {
                    return refuse("it names a step that the plan does not have");
                }
                self.abort_reason = Some(reason.clone());
                self.phase = Phase::Aborting;
            }
            Record::Commit { keep } => {
                // I5: past the abort record nothing is applied. I7: only from here on cleanup steps have their turn.
                if self.phase != Phase::Applied {
                    return refuse("only an applied transaction can be committed");
                }
                let cleanup = |id: &StepId| self.step(*id).is_some_and(|step| step.stage == Stage::Cleanup);
                if !keep.iter().all(cleanup) {
                    return refuse("it keeps a step that is no cleanup step");
                }
                self.keep.clone_from(keep);
                self.phase = Phase::Committing;
            }
            Record::End { outcome } => {
                if self.next() != Action::Append(record.clone()) {
                    return refuse("the transaction is not at its end");
                }
                self.phase = Phase::Ended(*outcome);
            }
        }
        if self.phase == Phase::Applying && self.next_forward(Stage::Apply).is_none() {
            self.phase = Phase::Applied;
        }
        Ok(())
    }

    /// The one thing to do next. Total: every state has an answer.
    pub fn next(&self) -> Action {
        let end = |outcome| Action::Append(Record::End { outcome });
        match self.phase {
            Phase::Planning => end(Outcome::Aborted),
            Phase::Applying => self.next_forward(Stage::Apply).unwrap_or(Action::Await),
            Phase::Applied => Action::Await,
            Phase::Aborting => self.next_backward().unwrap_or_else(|| end(Outcome::Aborted)),
            Phase::Committing => self.next_forward(Stage::Cleanup).unwrap_or_else(|| end(Outcome::Committed)),
            Phase::Ended(outcome) => Action::Finish(outcome),
        }
    }

    /// I4: forward in plan order, one step at a time.
    fn next_forward(&self, stage: Stage) -> Option<Action> {
        self.ids().filter(|id| self.steps[id.index()].stage == stage && !self.keep.contains(id)).find_map(
            |step| {
                let direction = Direction::Forward;
                match self.states[step.index()] {
                    StepState::Pending => Some(Action::Intend { step, direction }),
                    StepState::Intended { .. } => Some(Action::Drive { step, direction }),
                    _ => None,
                }
            },
        )
    }

    /// I4: backward in reverse order. I6: a step that was found is not ours and is passed over.
    fn next_backward(&self) -> Option<Action> {
        self.ids().rev().find_map(|step| {
            let direction = Direction::Backward;
            match self.states[step.index()] {
                StepState::Intended { .. } | StepState::Done { .. } => {
                    Some(Action::Intend { step, direction })
                }
                StepState::Undoing { .. } => Some(Action::Drive { step, direction }),
                StepState::Pending | StepState::Found | StepState::Undone => None,
            }
        })
    }

    /// Every step's id, in plan order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = StepId> + use<> {
        (0..self.steps.len() as u16).map(StepId)
    }

    /// The first record.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The plan.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// One step of the plan.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.index())
    }

    /// Where a step stands. `Pending` for a step that the plan does not have.
    pub fn state(&self, id: StepId) -> StepState {
        self.states.get(id.index()).copied().unwrap_or(StepState::Pending)
    }

    /// Where the transaction stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The cleanup steps that the operator wanted left out.
    pub fn kept(&self) -> &[StepId] {
        &self.keep
    }

    /// Why it turned round, if it did.
    pub fn abort_reason(&self) -> Option<&AbortReason> {
        self.abort_reason.as_ref()
    }

    /// The last step, in plan order, that was ever begun or found.
    pub fn furthest(&self) -> Option<StepId> {
        self.ids().rev().find(|id| self.state(*id) != StepState::Pending)
    }

    /// What the step works from, once its intent is durable.
    pub fn inputs(&self, id: StepId) -> Option<Digest> {
        match self.state(id) {
            StepState::Intended { inputs }
            | StepState::Done { inputs, .. }
            | StepState::Undoing { inputs } => Some(inputs),
            StepState::Pending | StepState::Found | StepState::Undone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::{Mutation, TxnId};

    const FORWARD: Direction = Direction::Forward;
    const BACKWARD: Direction = Direction::Backward;

    fn begin() -> Record {
        Record::Begin(Header {
            txn: TxnId("0123456789abcdef".to_owned()),
            kytx: "0.1.0".to_owned(),
            began_unix_s: 0,
            home: "home".into(),
            old_version: "1".to_owned(),
            new_version: "2".to_owned(),
            package: "package".into(),
            user: "kylin".to_owned(),
            host: "node1".to_owned(),
            overrides: Vec::new(),
        })
    }

    fn step(name: &str, stage: Stage) -> Step {
        Step { name: name.to_owned(), stage, mutation: Mutation::DiscardFile { file: name.into() } }
    }

    fn steps() -> [Step; 3] {
        [step("a", Stage::Apply), step("b", Stage::Apply), step("c", Stage::Cleanup)]
    }

    fn planned() -> Vec<Record> {
        std::iter::once(begin()).chain(steps().map(Record::Planned)).collect()
    }

    fn sealed() -> Record {
        Record::Sealed { steps: 3, plan: plan_digest(&steps()) }
    }

    fn intent(step: u16, direction: Direction) -> Record {
        Record::Intent { step: StepId(step), direction, inputs: Digest::ZERO }
    }

    fn done(step: u16, direction: Direction) -> Record {
        Record::Done { step: StepId(step), direction, outputs: Digest::ZERO }
    }

    fn found(step: u16) -> Record {
        Record::Found { step: StepId(step) }
    }

    fn abort() -> Record {
        Record::Abort { reason: AbortReason::Operator }
    }

    fn commit(keep: &[u16]) -> Record {
        Record::Commit { keep: keep.iter().copied().map(StepId).collect() }
    }

    fn end(outcome: Outcome) -> Record {
        Record::End { outcome }
    }

    /// The journal of a sealed plan and what follows.
    fn after(rest: &[Record]) -> Txn {
        let mut journal = planned();
        journal.push(sealed());
        journal.extend_from_slice(rest);
        Txn::replay(&journal).unwrap().unwrap()
    }

    fn planning() -> Txn {
        Txn::replay(&planned()).unwrap().unwrap()
    }

    #[test]
    fn each_phase_and_what_comes_next() {
        let intend = |step, direction| Action::Intend { step: StepId(step), direction };
        let under_way = |step, direction| Action::Drive { step: StepId(step), direction };
        let both = [found(0), intent(1, FORWARD), done(1, FORWARD)];
        let with = |rest: &[Record]| after(&[&both, rest].concat());
        let table = [
            (planning(), Phase::Planning, Action::Append(end(Outcome::Aborted))),
            (after(&[]), Phase::Applying, intend(0, FORWARD)),
            (after(&[intent(0, FORWARD)]), Phase::Applying, under_way(0, FORWARD)),
            (after(&[found(0)]), Phase::Applying, intend(1, FORWARD)),
            (with(&[]), Phase::Applied, Action::Await),
            (with(&[abort()]), Phase::Aborting, intend(1, BACKWARD)),
            (with(&[abort(), intent(1, BACKWARD)]), Phase::Aborting, under_way(1, BACKWARD)),
            (
                with(&[abort(), intent(1, BACKWARD), done(1, BACKWARD)]),
                Phase::Aborting,
                Action::Append(end(Outcome::Aborted)),
            ),
            (with(&[commit(&[])]), Phase::Committing, intend(2, FORWARD)),
            (with(&[commit(&[2])]), Phase::Committing, Action::Append(end(Outcome::Committed))),
            (
                with(&[commit(&[2]), end(Outcome::Committed)]),
                Phase::Ended(Outcome::Committed),
                Action::Finish(Outcome::Committed),
            ),
        ];
        for (txn, phase, next) in table {
            assert_eq!((txn.phase(), txn.next()), (phase, next));
        }
    }

    #[test]
    fn each_refusal_says_why_and_changes_nothing() {
        let applied = || after(&[found(0), found(1)]);
        let ours = || after(&[intent(0, FORWARD), done(0, FORWARD), abort()]);
        let other = Record::Intent { step: StepId(0), direction: BACKWARD, inputs: Digest::of(b"other") };
        let lost = Record::Abort { reason: AbortReason::Failure { step: StepId(9) } };
        let table = [
            (planning(), begin(), "the transaction has begun already"),
            (after(&[]), Record::Planned(step("d", Stage::Cleanup)), "the plan is sealed"),
            (planning(), Record::Planned(step("a", Stage::Cleanup)), "two steps of one name"),
            (planning(), Record::Planned(step("d", Stage::Apply)), "an apply step after a cleanup step"),
            (after(&[]), sealed(), "the plan is sealed already"),
            (planning(), Record::Sealed { steps: 3, plan: Digest::ZERO }, "it names another plan"),
            (planning(), Record::Sealed { steps: 2, plan: plan_digest(&steps()) }, "it names another plan"),
            (planning(), intent(0, FORWARD), "it is not this step's turn"),
            (after(&[]), intent(1, FORWARD), "it is not this step's turn"),
            (after(&[]), intent(0, BACKWARD), "it is not this step's turn"),
            (after(&[]), intent(9, FORWARD), "it is not this step's turn"),
            (applied(), intent(2, FORWARD), "it is not this step's turn"),
            (ours(), other, "it undoes from other inputs than the step was applied from"),
            (after(&[intent(0, FORWARD)]), found(0), "it is not this step's turn"),
            (ours(), found(0), "it is not this step's turn"),
            (after(&[]), done(0, FORWARD), "no such step was under way"),
            (after(&[intent(0, FORWARD)]), done(0, BACKWARD), "no such step was under way"),
            (planning(), abort(), "there is nothing to abort, or it is too late"),
            (after(&[]), lost, "it names a step that the plan does not have"),
            (
                after(&[found(0), found(1), commit(&[])]),
                abort(),
                "there is nothing to abort, or it is too late",
            ),
            (after(&[]), commit(&[]), "only an applied transaction can be committed"),
            (ours(), commit(&[]), "only an applied transaction can be committed"),
            (applied(), commit(&[1]), "it keeps a step that is no cleanup step"),
            (applied(), end(Outcome::Committed), "the transaction is not at its end"),
            (planning(), end(Outcome::Committed), "the transaction is not at its end"),
        ];
        for (txn, record, reason) in table {
            let mut same = txn.clone();
            let refusal = IllegalRecord { record: record.kind(), reason };
            assert_eq!(same.admit(&record), Err(refusal));
            assert_eq!(same, txn);
        }
    }

    #[test]
    fn a_journal_begins_with_begin_and_may_be_empty() {
        assert_eq!(Txn::replay(&[]), Ok(None));
        let refusal = IllegalRecord { record: "sealed", reason: "a journal begins with `begin`" };
        assert_eq!(Txn::replay(&[sealed()]), Err(refusal));
    }
}
