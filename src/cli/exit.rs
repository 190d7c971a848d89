//! The exit codes, a contract with whoever scripts kytx. An unknown code must be taken for a failure.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A fault that kytx has no name for.
    Fault = 1,
    /// Wrong arguments.
    Usage = 2,
    /// Refused: the preflight said no, or the operator did. Nothing was changed.
    Refused = 3,
    /// Stopped or failed part-way: resume or abort.
    Open = 4,
    /// The machine is not as the journal says: a person must look.
    Foreign = 5,
    /// Verification found damage, or a rehearsal an end that was not right.
    Damaged = 6,
    /// Another kytx, or an orphan of one, is at work.
    Locked = 7,
    /// Nothing is open, or it is not in a phase for this command.
    NotOpen = 8,
    /// The journal is unreadable, shortened, damaged or too new.
    Journal = 9,
    /// Interrupted by a signal at a safe point: resume.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
