//! What can befall a run of kytx: the accident that a laboratory is told to let happen, and the step that fails.

use std::io;

use kytx::engine::MutationError;
use kytx::journal::JournalError;
use kytx::txn::{Direction, StepId};

/// What befalls a run. Each kind is counted from 0 within the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accident {
    #[default]
    None,
    /// The power goes at this point.
    PowerCut(usize),
    /// The journal fails at this append; a record that is kept is found at the next opening all the same, as it was
    /// durable in one of its two places.
    Refused { append: usize, kept: bool },
    /// A signal comes before this question whether to stop, and every later answer is yes too.
    Stopped(usize),
    /// The operator said `--stop-before` this step.
    StopBefore(StepId),
}

/// The kinds of accidents, each of which can happen at any of its places.
pub const KINDS: [fn(usize) -> Accident; 5] = [
    Accident::PowerCut,
    |append| Accident::Refused { append, kept: false },
    |append| Accident::Refused { append, kept: true },
    Accident::Stopped,
    |step| Accident::StopBefore(StepId(step as u16)),
];

impl Accident {
    /// Its kind, in words.
    pub fn kind(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PowerCut(_) => "crash",
            Self::Refused { kept: false, .. } => "append refused, record lost",
            Self::Refused { kept: true, .. } => "append refused, record kept",
            Self::Stopped(_) => "signal",
            Self::StopBefore(_) => "stop-before",
        }
    }
}

/// The call of `World` in which a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Look,
    Inputs,
    /// Apply or undo, once that many of its stages are through.
    Stage(usize),
    /// Making durable what a look has found done.
    Durable,
    Outputs,
}

/// A step that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub step: StepId,
    pub direction: Direction,
    pub place: Place,
    /// Or once.
    pub for_good: bool,
}

impl Fault {
    pub(super) fn error(&self) -> MutationError {
        MutationError::Failed(format!("step {} fails at {:?}", self.step, self.place).into())
    }
}

/// The error of a refused append: of the store before the record was there, or of the twin after it.
pub(super) fn refusal(kept: bool) -> JournalError {
    let source = io::Error::other("the medium failed");
    if kept {
        JournalError::Twin { path: "journal.log".into(), source }
    } else {
        JournalError::Full { released_bytes: 0, source }
    }
}
