//! What the loop says and when it rests, where the model, which judges by what becomes of the machine, is indifferent.

use kytx::digest::Digest;
use kytx::engine::{Control, DriveError, MutationError, Rest, Sight, Task, World, drive};
use kytx::journal::samples::begin;
use kytx::journal::{Journal, JournalError};
use kytx::txn::{
    AbortReason, Direction, Lsn, Mutation, Observed, Outcome, Record, Stage, Step, StepId, Txn, plan_digest,
};

/// A journal that keeps nothing: what it would keep is in the transaction.
struct Counting(u64);

impl Journal for Counting {
    fn append(&mut self, _: &Record) -> Result<Lsn, JournalError> {
        self.0 += 1;
        Ok(Lsn(self.0))
    }
}

/// A machine on which every look before an intent sees this, and everything else goes well.
struct Seen(Sight);

impl World for Seen {
    fn probe(&mut self, task: &Task<'_>) -> Result<Sight, MutationError> {
        Ok(if task.inputs.is_some() { Sight::of(Observed::Torn) } else { self.0.clone() })
    }

    fn inputs(&mut self, _: &Task<'_>) -> Result<Digest, MutationError> {
        Ok(Digest::ZERO)
    }

    fn apply(&mut self, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(())
    }

    fn outputs(&mut self, _: &Task<'_>) -> Result<Digest, MutationError> {
        Ok(Digest::ZERO)
    }

    fn undo(&mut self, _: &Task<'_>) -> Result<(), MutationError> {
        Ok(())
    }
}

fn steps() -> [Step; 2] {
    [("a", Stage::Apply), ("c", Stage::Cleanup)].map(|(name, stage)| Step {
        name: name.to_owned(),
        stage,
        mutation: Mutation::DiscardFile { file: name.into() },
    })
}

fn sealed() -> Vec<Record> {
    let mut records = vec![begin()];
    records.extend(steps().map(Record::Planned));
    records.push(Record::Sealed { steps: 2, plan: plan_digest(&steps()) });
    records
}

fn driven(records: &[Record], sight: Sight, stop: bool) -> (Txn, Result<Rest, DriveError>) {
    let mut txn = Txn::replay(records).unwrap().unwrap();
    let mut control = Control { stop_before: None, stop_requested: &|| stop, watch: &mut |_, _| {} };
    let rest = drive(&mut txn, &mut Counting(0), &mut Seen(sight), &mut control);
    (txn, rest)
}

fn foreign(sight: Sight) -> String {
    match driven(&sealed(), sight, false).1 {
        Err(DriveError::Foreign { step: StepId(0), name, what }) if name == "a" => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_in_the_way_before_an_intent_is_said_in_the_words_of_who_saw_it() {
    let torn = |what: &str| Sight { seen: Observed::Torn, what: what.to_owned() };
    assert_eq!(foreign(torn("`x` is half there")), "`x` is half there");
    assert_eq!(foreign(Sight::foreign("`x` is a stranger")), "`x` is a stranger");
    // A mutation that cannot say more than torn still gets a sentence.
    assert_eq!(foreign(torn("")), "part of what the step makes is there before it has begun");
}

#[test]
fn a_stop_is_heeded_while_there_is_something_to_do_and_only_then() {
    let before = Sight::of(Observed::Before);
    assert_eq!(driven(&sealed(), before.clone(), true).1.unwrap(), Rest::Interrupted);

    let mut applied = sealed();
    applied.push(Record::Intent { step: StepId(0), direction: Direction::Forward, inputs: Digest::ZERO });
    applied.push(Record::Done { step: StepId(0), direction: Direction::Forward, outputs: Digest::ZERO });
    assert_eq!(driven(&applied, before.clone(), true).1.unwrap(), Rest::Applied);

    let mut ended = sealed();
    ended.push(Record::Abort { reason: AbortReason::Operator });
    ended.push(Record::End { outcome: Outcome::Aborted });
    assert_eq!(driven(&ended, before, true).1.unwrap(), Rest::Ended(Outcome::Aborted));
}

#[test]
fn a_transaction_knows_why_it_turned_and_what_it_keeps() {
    let before = || Sight::of(Observed::Before);
    let (txn, rest) = driven(&sealed(), before(), false);
    assert_eq!(rest.unwrap(), Rest::Applied);
    assert_eq!((txn.abort_reason(), txn.kept()), (None, &[][..]));

    let mut records = sealed();
    records.push(Record::Abort { reason: AbortReason::Failure { step: StepId(0) } });
    let (txn, _) = driven(&records, before(), false);
    assert_eq!(txn.abort_reason(), Some(&AbortReason::Failure { step: StepId(0) }));

    let mut records = sealed();
    records.push(Record::Found { step: StepId(0) });
    records.push(Record::Commit { keep: vec![StepId(1)] });
    let (txn, rest) = driven(&records, before(), false);
    assert_eq!((txn.kept(), rest.unwrap()), (&[StepId(1)][..], Rest::Ended(Outcome::Committed)));
}

#[test]
fn each_mutation_says_what_it_does_and_what_undoing_it_does() {
    let steps = kytx::journal::samples::steps();
    let sentences: Vec<_> =
        steps.iter().map(|step| (step.mutation.sentence(), step.mutation.undo_sentence())).collect();
    for (step, (done, undone)) in steps.iter().zip(&sentences) {
        assert_ne!(done, undone);
        for sentence in [done, undone] {
            assert!(sentence.contains(' ') && !sentence.ends_with('.'), "{sentence}");
        }
        assert_eq!(step.stage == Stage::Cleanup, undone == "cannot be undone", "{undone}");
    }
    for (step, sentence) in steps.iter().zip(&sentences) {
        let mut same = steps.iter().zip(&sentences).filter(|(_, other)| *other == sentence);
        assert!(same.all(|(other, _)| other.mutation == step.mutation), "{sentence:?}");
    }
    let Record::Begin(header) = begin() else { panic!("the first record begins") };
    assert_eq!(header.txn.to_string(), header.txn.0);
}
