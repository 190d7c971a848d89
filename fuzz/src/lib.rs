//! What is fuzzed, as plain functions: `fuzz_targets/` hands them to libFuzzer, and `tests/corpus.rs` includes this
//! file and replays the committed corpora on stable Rust. They panic where a promise is broken.

use kytx::digest::Digest;
use kytx::journal::codec::{FRAME_HEAD_BYTES, FRAME_LIMIT_BYTES, decode_payload};
use kytx::journal::{Frame, Head, samples, twin};
use kytx::txn::{
    AbortReason, Action, Direction, Outcome, Phase, Record, Stage, Step, StepId, Txn, plan_digest,
};

/// One target: reads any bytes.
pub type Target = fn(&[u8]);

/// Every target and the name of its corpus in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] =
    &[("decode", decode), ("manifest", manifest), ("properties", properties), ("replay", replay)];

/// I10: any bytes are a twin, a frame, a payload, or patches of a good twin; reading them never panics, and what is
/// read is what was written.
pub fn decode(data: &[u8]) {
    let reading = twin::parse(data);
    if !reading.frames.is_empty() {
        let whole = twin::bytes_of(&reading.frames);
        assert!(data.starts_with(&whole));
        assert_eq!(reading.tail, data[whole.len()..]);
    }
    if let Ok(frame) = Frame::open(Head::START, data) {
        assert_eq!(frame.bytes(), data);
    }
    if let Some(record) = decode_payload(data) {
        assert!(data.len() <= FRAME_LIMIT_BYTES - FRAME_HEAD_BYTES);
        let frame = Frame::seal(Head::START, &record).expect("what was decoded fits");
        assert_eq!(&frame.bytes()[FRAME_HEAD_BYTES..], data, "two encodings of one record");
        assert_eq!(Frame::open(Head::START, frame.bytes()).expect("what was sealed opens"), frame);
    }
    patched_twin(data);
}

/// I10: any bytes are a manifest, or an archive's index; reading them never panics, and what is read is written as the
/// very same bytes.
pub fn manifest(data: &[u8]) {
    kytx::backup::fuzz_decode(data);
}

/// Any bytes are a properties file: parsing never panics, an unchanged file is written back byte for byte, and setting
/// a key changes that key and no other.
pub fn properties(data: &[u8]) {
    kytx::kyligence::properties::fuzz_properties(data);
}

/// Three bytes a patch: place, most significant byte first, and what is flipped there.
fn patched_twin(data: &[u8]) {
    let good = good_twin();
    let mut bytes = good.clone();
    for patch in data.chunks_exact(3).take(64) {
        let place = usize::from(u16::from_be_bytes([patch[0], patch[1]])) % bytes.len();
        bytes[place] ^= patch[2];
    }
    let reading = twin::parse(&bytes);
    assert_eq!(reading.fault.is_some(), bytes != good, "damage passed");
    let sound = twin::parse(&good).frames;
    assert_eq!(reading.frames, sound[..reading.frames.len()], "an altered frame passed");
}

fn good_twin() -> Vec<u8> {
    let mut head = Head::START;
    let mut frames = Vec::new();
    for record in samples::example() {
        let frame = Frame::seal(head, &record).expect("a sample fits");
        head = frame.head();
        frames.push(frame);
    }
    twin::bytes_of(&frames)
}

/// Any sequence of records: admitting never panics, a refusal changes nothing, `next` always has an answer, what was
/// admitted replays to the same state, the end is final, and a loop that does what `next` says gets there.
pub fn replay(data: &[u8]) {
    let mut source = Source { bytes: data.to_vec(), at: 0 };
    if source.next() % 8 == 7 {
        let record = source.record(&[]);
        assert_eq!(Txn::replay([&record]).is_ok(), matches!(record, Record::Begin(_)));
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
            Err(_) => assert_eq!(txn, before, "a refused record changed the transaction"),
        }
        let _ = txn.next();
    }
    assert_eq!(Txn::replay(&admitted).expect("what was admitted replays"), Some(txn.clone()));
    drive_to_the_end(txn);
}

/// I5: there is one turn, and it is never taken back.
fn check_step(before: &Txn, after: &Txn, record: &Record) {
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

/// Bytes that are turned into records; zeros once they are used up.
struct Source {
    bytes: Vec<u8>,
    at: usize,
}

impl Source {
    fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn next(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
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
