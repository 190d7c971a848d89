//! Which of two readings is the journal: the decision table of `journal-format.md` 9, pure.

use super::OpenError;
use super::codec::{Frame, FrameFault, Head};
use super::twin;
use crate::txn::Lsn;

/// One entry of the store: key and value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// How far one of the two places could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The frames that verify, from the first on.
    pub frames: Vec<Frame>,
    /// What ended the reading; `None` if it came to a clean end with at least one frame.
    pub fault: Option<Fault>,
    /// For the twin: the bytes after the last frame.
    pub tail: Vec<u8>,
    /// For the twin: the length of the whole file in bytes.
    pub length_bytes: usize,
}

/// What ended a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Damage, in words.
    Broken(String),
    /// A newer format: its version.
    Newer(u8),
}

impl From<FrameFault> for Fault {
    fn from(fault: FrameFault) -> Self {
        fault.newer().map_or_else(|| Self::Broken(fault.to_string()), Self::Newer)
    }
}

impl Fault {
    fn sentence(&self) -> String {
        match self {
            Self::Broken(what) => what.clone(),
            Self::Newer(version) => format!("a record claims format version {version}"),
        }
    }
}

/// What to do before the journal can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) truth: Vec<Frame>,
    pub(super) store: StoreRepair,
    pub(super) twin: TwinRepair,
}

/// What the store needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreRepair {
    None,
    Rebuild { why: String },
}

/// What the twin needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TwinRepair {
    None,
    /// A crash between the two writes of an append: a frame is missing, whole or in part.
    Complete {
        lsn: Lsn,
    },
    Rebuild {
        why: String,
    },
}

impl Reading {
    /// Reads the store.
    pub(super) fn of_pairs(pairs: &[Pair]) -> Self {
        let mut reading = Self::default();
        let mut head = Head::START;
        for (key, value) in pairs {
            match Frame::open(head, &[&key[..], value].concat()) {
                Ok(frame) => {
                    head = frame.head();
                    reading.frames.push(frame);
                }
                Err(fault) => {
                    reading.fault = Some(fault.into());
                    return reading;
                }
            }
        }
        if reading.frames.is_empty() {
            reading.fault = Some(Fault::Broken("it holds no record".to_owned()));
        }
        reading
    }

    /// A place that could not be read at all.
    pub(super) fn broken(what: String) -> Self {
        Self { fault: Some(Fault::Broken(what)), ..Self::default() }
    }
}

/// Decides. An append writes the store first and the twin second, each durable before the next begins, so of two
/// undamaged places the store is equal or ahead by exactly the last frame; everything else is damage.
///
/// I9: a frame that was durable in both is in the truth, or this is an error.
pub(super) fn decide(store: Option<&Reading>, twin: Option<&Reading>) -> Result<Decision, OpenError> {
    let missing = Reading::broken("it is missing".to_owned());
    let (store, twin) = (store.unwrap_or(&missing), twin.unwrap_or(&missing));
    let (in_store, in_twin) = (store.frames.len(), twin.frames.len());
    if let Some((frame, _)) =
        store.frames.iter().zip(&twin.frames).find(|(ours, theirs)| ours.chain != theirs.chain)
    {
        return Err(OpenError::Conflict { lsn: frame.lsn });
    }
    // A flipped bit can look like a newer version; it is one unless the other place has a frame of ours there.
    for (reading, other) in [(store, in_twin), (twin, in_store)] {
        if let Some(Fault::Newer(version)) = reading.fault
            && other <= reading.frames.len()
        {
            return Err(OpenError::TooNew { version });
        }
    }
    let truth = if in_store >= in_twin { &store.frames } else { &twin.frames };
    let (store, twin) = match (&store.fault, &twin.fault) {
        (None, None) => both_clean(in_store, in_twin),
        (None, Some(fault)) => (StoreRepair::None, twin_faulty(store, twin, fault)?),
        (Some(fault), None) => store_faulty(in_store, in_twin, fault)?,
        (Some(store), Some(twin)) => {
            let (store, twin) = (store.sentence(), twin.sentence());
            return Err(OpenError::damaged(format!("the store: {store}; `{}`: {twin}", twin::FILE_NAME)));
        }
    };
    Ok(Decision { truth: truth.clone(), store, twin })
}

fn both_clean(in_store: usize, in_twin: usize) -> (StoreRepair, TwinRepair) {
    if in_store < in_twin {
        let why = format!("it had lost {} of {in_twin} records", in_twin - in_store);
        return (StoreRepair::Rebuild { why }, TwinRepair::None);
    }
    (StoreRepair::None, twin_behind(in_store, in_twin))
}

fn twin_behind(in_store: usize, in_twin: usize) -> TwinRepair {
    match in_store - in_twin {
        0 => TwinRepair::None,
        1 => TwinRepair::Complete { lsn: Lsn(in_store as u64) },
        lost => TwinRepair::Rebuild { why: format!("it had lost {lost} of {in_store} records") },
    }
}

fn twin_faulty(store: &Reading, twin: &Reading, fault: &Fault) -> Result<TwinRepair, OpenError> {
    let (in_store, in_twin) = (store.frames.len(), twin.frames.len());
    // A twin has the length that its frames give it. A longer one held more records than the store still has: the
    // store has lost them, and nothing says what they were.
    if twin.length_bytes > twin::bytes_of(&store.frames).len() {
        return Err(OpenError::damaged(format!(
            "`{}` is damaged after record {in_twin}, and the store ends at record {in_store}",
            twin::FILE_NAME
        )));
    }
    if let Some([last]) = store.frames.get(in_twin..)
        && is_torn(&twin.tail, &twin::entry(last))
    {
        return Ok(TwinRepair::Complete { lsn: last.lsn });
    }
    Ok(TwinRepair::Rebuild { why: fault.sentence() })
}

/// Whether a crash while `entry` was being written can have left `tail`: its beginning, then perhaps zeros.
fn is_torn(tail: &[u8], entry: &[u8]) -> bool {
    let written = tail.iter().zip(entry).take_while(|(ours, theirs)| ours == theirs).count();
    tail.len() <= entry.len() && tail[written..].iter().all(|byte| *byte == 0) && !tail.is_empty()
}

fn store_faulty(
    in_store: usize,
    in_twin: usize,
    fault: &Fault,
) -> Result<(StoreRepair, TwinRepair), OpenError> {
    let rebuild = StoreRepair::Rebuild { why: fault.sentence() };
    match in_store.checked_sub(in_twin) {
        None | Some(0) => Ok((rebuild, TwinRepair::None)),
        // Durable in the store, never acknowledged: keeping it is as right as losing it, and loses less.
        Some(1) => Ok((rebuild, TwinRepair::Complete { lsn: Lsn(in_store as u64) })),
        Some(_) => Err(OpenError::damaged(format!(
            "the store is damaged after record {in_store}, and `{}` ends at record {in_twin}",
            twin::FILE_NAME
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::codec::VERSION;
    use crate::journal::samples;

    fn frames() -> Vec<Frame> {
        let mut head = Head::START;
        let seal = |record| {
            let frame = Frame::seal(head, record).unwrap();
            head = frame.head();
            frame
        };
        samples::example().iter().map(seal).collect()
    }

    /// A clean store of the first `count` frames.
    fn store(count: usize) -> Reading {
        let pairs: Vec<_> =
            frames()[..count].iter().map(|frame| (frame.key().to_vec(), frame.value().to_vec())).collect();
        Reading::of_pairs(&pairs)
    }

    fn broken_store(count: usize) -> Reading {
        Reading { fault: Some(Fault::Broken("broken".to_owned())), ..store(count) }
    }

    fn newer_store(count: usize) -> Reading {
        Reading { fault: Some(Fault::Newer(VERSION + 1)), ..store(count) }
    }

    fn bytes(count: usize) -> Vec<u8> {
        twin::bytes_of(&frames()[..count])
    }

    fn twin_of(bytes: &[u8]) -> Reading {
        twin::parse(bytes)
    }

    /// A twin of `count` frames with one byte of frame `at` (from 1) changed.
    fn flipped(count: usize, at: usize, byte: usize, to: u8) -> Reading {
        let mut content = bytes(count);
        let start = bytes(at - 1).len() + 4;
        content[start + byte] = to;
        twin_of(&content)
    }

    /// What a decision says, in a word each for truth, store and twin.
    fn verdict(store: Option<&Reading>, twin: Option<&Reading>) -> String {
        match decide(store, twin) {
            Ok(decision) => {
                let store = match decision.store {
                    StoreRepair::None => "keep",
                    StoreRepair::Rebuild { .. } => "rebuild",
                };
                let twin = match decision.twin {
                    TwinRepair::None => "keep",
                    TwinRepair::Complete { .. } => "complete",
                    TwinRepair::Rebuild { .. } => "rebuild",
                };
                assert_eq!(decision.truth, frames()[..decision.truth.len()]);
                format!("{} {store} {twin}", decision.truth.len())
            }
            Err(OpenError::Damaged { .. }) => "damaged".to_owned(),
            Err(OpenError::Conflict { lsn }) => format!("conflict {lsn}"),
            Err(OpenError::TooNew { version }) => format!("too new {version}"),
            Err(other) => panic!("unexpected: {other}"),
        }
    }

    #[test]
    fn i9_the_decision_table() {
        let entry_start = bytes(4).len();
        let cut = |length: usize| twin_of(&bytes(5)[..length]);
        let torn = |zeros: usize| {
            let mut content = bytes(5)[..entry_start + 20].to_vec();
            content.resize(content.len() + zeros, 0);
            twin_of(&content)
        };
        let too_long = twin_of(&[&bytes(5)[..], b"\n"].concat());
        let newer = flipped(5, 5, 8, VERSION + 1);
        let cases: Vec<(&str, Option<Reading>, Option<Reading>, &str)> = vec![
            ("equal", Some(store(5)), Some(cut(bytes(5).len())), "5 keep keep"),
            ("a crash between the two writes", Some(store(5)), Some(cut(entry_start)), "5 keep complete"),
            ("torn in the length", Some(store(5)), Some(cut(entry_start + 2)), "5 keep complete"),
            ("torn in the frame", Some(store(5)), Some(torn(0)), "5 keep complete"),
            ("torn, length durable before content", Some(store(5)), Some(torn(30)), "5 keep complete"),
            ("twin lost two", Some(store(5)), Some(twin_of(&bytes(3))), "5 keep rebuild"),
            ("store lost one", Some(store(4)), Some(twin_of(&bytes(5))), "5 rebuild keep"),
            ("store lost many", Some(store(1)), Some(twin_of(&bytes(5))), "5 rebuild keep"),
            ("store empty", Some(store(0)), Some(twin_of(&bytes(5))), "5 rebuild keep"),
            ("store damaged", Some(broken_store(2)), Some(twin_of(&bytes(5))), "5 rebuild keep"),
            (
                "store damaged after an unacknowledged frame",
                Some(broken_store(5)),
                Some(twin_of(&bytes(4))),
                "5 rebuild complete",
            ),
            (
                "store damaged, twin shorter by two",
                Some(broken_store(5)),
                Some(twin_of(&bytes(3))),
                "damaged",
            ),
            ("store missing", None, Some(twin_of(&bytes(5))), "5 rebuild keep"),
            ("twin missing", Some(store(5)), None, "5 keep rebuild"),
            ("twin zero-length", Some(store(5)), Some(twin_of(b"")), "5 keep rebuild"),
            ("twin without its header", Some(store(5)), Some(twin_of(&bytes(5)[1..])), "5 keep rebuild"),
            ("twin with its header alone", Some(store(5)), Some(twin_of(&bytes(0))), "5 keep rebuild"),
            ("twin damaged in the middle", Some(store(5)), Some(flipped(5, 2, 50, 0xff)), "5 keep rebuild"),
            (
                "twin damaged in its last frame",
                Some(store(5)),
                Some(flipped(5, 5, 50, 0xff)),
                "5 keep rebuild",
            ),
            ("twin damaged, store shorter", Some(store(3)), Some(flipped(5, 2, 50, 0xff)), "damaged"),
            (
                "twin damaged at its end, store ends before",
                Some(store(4)),
                Some(flipped(5, 5, 50, 0xff)),
                "damaged",
            ),
            ("twin torn where the store ends", Some(store(4)), Some(cut(entry_start + 2)), "damaged"),
            ("twin longer than the store can say", Some(store(5)), Some(too_long), "damaged"),
            ("both damaged", Some(broken_store(5)), Some(flipped(5, 2, 50, 0xff)), "damaged"),
            ("store damaged, twin torn", Some(broken_store(5)), Some(torn(0)), "damaged"),
            ("store missing, twin torn", None, Some(torn(0)), "damaged"),
            ("store damaged, twin missing", Some(broken_store(5)), None, "damaged"),
            ("both empty", Some(store(0)), Some(twin_of(&bytes(0))), "damaged"),
            ("both newer", Some(newer_store(4)), Some(newer.clone()), "too new 2"),
            ("newer in the store alone", Some(newer_store(4)), Some(twin_of(&bytes(4))), "too new 2"),
            ("newer in the twin alone, no store", None, Some(newer.clone()), "too new 2"),
            ("a flipped version in the twin", Some(store(5)), Some(newer), "5 keep rebuild"),
            (
                "a flipped version in the store",
                Some(newer_store(3)),
                Some(twin_of(&bytes(5))),
                "5 rebuild keep",
            ),
        ];
        for (name, store, twin, expected) in cases {
            assert_eq!(verdict(store.as_ref(), twin.as_ref()), expected, "{name}");
        }
    }

    #[test]
    fn i9_different_frames_in_one_place_are_a_conflict() {
        let mut other = store(3);
        other.frames[2] = Frame::seal(other.frames[1].head(), &samples::records()[1]).unwrap();
        assert_eq!(verdict(Some(&other), Some(&twin_of(&bytes(5)))), "conflict 3");
        let stranger = Frame::seal(Head::START, &samples::begin_with_user("other")).unwrap();
        other.frames = vec![stranger];
        assert_eq!(verdict(Some(&other), Some(&twin_of(&bytes(5)))), "conflict 1");
    }
}
