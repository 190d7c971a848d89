//! Which of two readings is the journal: the decision table of `journal-format.md` 9, pure.

use super::OpenError;
use super::codec::{Frame, FrameFault, Head};
use super::twin;
use crate::txn::Lsn;

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
    /// Reads the store's entries.
    pub(super) fn of_entries(entries: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut reading = Self::default();
        let mut head = Head::START;
        for (key, value) in entries {
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
