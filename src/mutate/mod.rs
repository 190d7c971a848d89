//! The closed list of things kytx can do to a machine, one file each.

use std::io;

/// Why a mutation failed. The machine is then somewhere between before and after; `resume` and `abort` cope.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MutationError {
    /// The file system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something that is said in words.
    #[error("{0}")]
    Refused(String),
    /// A stop was asked for in the middle of a long piece of work.
    #[error("stopped on request")]
    Interrupted,
}
