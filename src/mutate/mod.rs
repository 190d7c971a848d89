//! The closed list of things kytx can do to a machine, one file each.
//!
//! Every file opens with what the mutation does, its crash windows, and how it is probed, applied and undone; the
//! contract they all keep is on [`crate::engine::World`]. [`Machine`] is the world that they act on.

mod archive_tree;
mod back_up_metadata;
mod carry_customisations;
mod copy_cube_data;
mod discard;
mod exchange_trees;
mod hand_over_data;
mod machine;
mod stage_tree;
mod start_service;
mod stop_service;

use std::io;

pub use machine::{Downtime, Machine, Progress};

use crate::backup::BackupError;
use crate::digest::Digest;
use crate::engine::{Sight, Task};
use crate::hadoop::HdfsError;
use crate::txn::Mutation;

/// Why a mutation failed. The machine is then somewhere between before and after; `resume` and `abort` cope.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MutationError {
    /// The file system refused.
    #[error("{0}")]
    Io(#[source] io::Error),
    /// The cube data's file system refused.
    #[error(transparent)]
    Hdfs(HdfsError),
    /// An archive, a package or a manifest is not right.
    #[error(transparent)]
    Backup(BackupError),
    /// The product did not do what it was told.
    #[error("{0}")]
    Product(String),
    /// The machine is not as it was when the plan was made.
    #[error("{0}")]
    Foreign(String),
    /// A stop was asked for in the middle of a long piece of work.
    #[error("stopped on request")]
    Interrupted,
}

/// The message of the error by which a tick ends long work.
pub(crate) const STOPPED: &str = "kytx: stopped on request";

/// The error by which a tick ends long work.
pub(crate) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, STOPPED)
}

impl From<io::Error> for MutationError {
    fn from(error: io::Error) -> Self {
        // A stop request travels as an error through functions that know nothing of it, and gains context on the way.
        if error.kind() == io::ErrorKind::Interrupted && error.to_string().contains(STOPPED) {
            return Self::Interrupted;
        }
        Self::Io(error)
    }
}

impl From<HdfsError> for MutationError {
    fn from(error: HdfsError) -> Self {
        match error {
            HdfsError::Io(error) => error.into(),
            other => Self::Hdfs(other),
        }
    }
}

impl MutationError {
    /// Whether the cause is a full disk, so that the message can say what to free.
    pub fn is_disk_full(&self) -> bool {
        let full = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Io(error) => full(error),
            Self::Backup(error) => error.io().is_some_and(full),
            _ => false,
        }
    }
}

/// One mutation's behaviour. The contract is on [`crate::engine::World`].
trait Act {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError>;
    /// What the step works from, as the bytes of its side file.
    fn inputs(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Vec<u8>, MutationError>;
    fn apply(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Digest, MutationError>;
    fn undo(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError>;
}

fn act_of(mutation: &Mutation) -> Box<dyn Act + '_> {
    match mutation {
        Mutation::StageTree { package, content, spare } => {
            Box::new(stage_tree::StageTree { package, content: *content, spare })
        }
        Mutation::CarryCustomisations { home, spare, list, pass } => {
            Box::new(carry_customisations::CarryCustomisations { home, spare, list, pass: *pass })
        }
        Mutation::StopService { home, start_timeout_s } => {
            Box::new(stop_service::StopService { home, start_timeout_s: *start_timeout_s })
        }
        Mutation::BackUpMetadata { home, backup } => Box::new(back_up_metadata::BackUpMetadata { home, backup }),
        Mutation::CopyCubeData { cube, pass } => Box::new(copy_cube_data::CopyCubeData { cube, pass: *pass }),
        Mutation::HandOverData { home, backup, cube } => {
            Box::new(hand_over_data::HandOverData { home, backup, cube: cube.as_ref() })
        }
        Mutation::ExchangeTrees { live, spare } => Box::new(exchange_trees::ExchangeTrees { live, spare }),
        Mutation::StartService { home, start_timeout_s } => {
            Box::new(start_service::StartService { home, start_timeout_s: *start_timeout_s })
        }
        Mutation::ArchiveTree { tree, archive, top } => Box::new(archive_tree::ArchiveTree { tree, archive, top }),
        Mutation::DiscardTree { tree } => Box::new(discard::DiscardLocal { path: tree }),
        Mutation::DiscardFile { file } => Box::new(discard::DiscardLocal { path: file }),
        Mutation::DiscardCubeData { root } => Box::new(discard::DiscardCubeData { root }),
    }
}
