//! The closed list of things kytx can do to a machine, one file each.
//!
//! Every file opens with what the mutation does, its crash windows, and how it is probed, applied and undone; the
//! contract they all keep is on [`crate::engine::World`]. [`Machine`] is the world that they act on.

mod archive_tree;
mod back_up_metadata;
mod carry_customisations;
mod cluster;
mod copy_cluster_data;
mod copy_cube_data;
mod discard;
mod exchange_trees;
mod hand_over_data;
mod machine;
mod product;
mod restore_cluster_data;
mod restore_metadata;
mod snapshot_cube_data;
mod stage_tree;
mod start_service;
mod stop_service;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

pub use archive_tree::{ArchiveRecord, record_path as archive_record_path};
pub use back_up_metadata::manifest_path as metadata_manifest_path;
pub use carry_customisations::{content_name, item_digest};
pub use cluster::{
    cluster_copy_path, copy_manifest_path as cluster_copy_manifest_path, may_have_job, read_cube_manifest,
    snapshot_manifest_path as cluster_snapshot_manifest_path, snapshot_path as cluster_snapshot_path,
};
pub use copy_cube_data::{copy_path as cube_copy_path, manifest_path as cube_manifest_path};
pub use machine::{Downtime, Machine, Progress};
pub(crate) use product::with_metadata;
pub use restore_metadata::RestoreHow;

use self::cluster::is_on_cluster;
use crate::backup::archive::ArchiveError;
use crate::backup::manifest::ManifestError;
use crate::backup::package::PackageError;
use crate::backup::read_back::ReadBackError;
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::{Context, parent_of};
use crate::engine::{MutationError, Sight, Task};
use crate::hadoop::HdfsError;
use crate::hadoop::cluster::ClusterError;
use crate::kyligence::home::NotAHome;
use crate::kyligence::jobs::UnfinishedJobs;
use crate::kyligence::metadata::MetadataError;
use crate::kyligence::service::ServiceError;
use crate::txn::Mutation;

/// The message of the error by which a tick ends long work. It travels through functions that know nothing of it and
/// gains context on the way, so it is known by its text.
const STOPPED: &str = "kytx: stopped on request";

/// The error by which a tick ends long work.
pub(crate) fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, STOPPED)
}

/// Syncs the directory that holds a name.
fn sync_parent(machine: &Machine<'_>, path: &Path) -> Result<(), MutationError> {
    let parent = parent_of(path);
    // Where not even the directory is, as nothing was ever made in it, nothing can be lost.
    if exists(machine.fs, parent).context("look at", parent)? {
        machine.fs.sync_dir(parent).context("sync", parent)?;
    }
    Ok(())
}

/// A failure, or the stop request that is behind it.
fn failed(error: impl Error + Send + Sync + 'static) -> MutationError {
    let mut next: Option<&dyn Error> = Some(&error);
    while let Some(cause) = next {
        if cause.to_string().contains(STOPPED) {
            return MutationError::Interrupted;
        }
        next = cause.source();
    }
    MutationError::Failed(Box::new(error))
}

macro_rules! fails_by {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for MutationError {
            fn from(error: $error) -> Self {
                failed(error)
            }
        })*
    };
}

fails_by!(
    io::Error,
    HdfsError,
    ClusterError,
    ManifestError,
    PackageError,
    ArchiveError,
    ReadBackError,
    MetadataError,
    NotAHome,
    UnfinishedJobs
);

impl From<ServiceError> for MutationError {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Interrupted { .. } => Self::Interrupted,
            other => failed(other),
        }
    }
}

/// A failure in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Words(String);

/// A failure in words.
fn refused(what: impl Into<String>) -> MutationError {
    MutationError::Failed(Box::new(Words(what.into())))
}

/// One mutation's behaviour. The contract is on [`crate::engine::World`].
trait Act {
    fn probe(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError>;
    /// What the step works from, as the bytes of its side file.
    /// `Ok(None)` where the mutation itself says it all.
    fn inputs(&self, _: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        Ok(None)
    }
    fn apply(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError>;
    /// Syncs the directories in which the step gives or takes names. What lies below them was synced before.
    fn make_durable(&self, machine: &Machine<'_>) -> Result<(), MutationError>;
    /// What an applied step made; nothing worth a name for most.
    fn outputs(&self, _: &Machine<'_>) -> Result<Digest, MutationError> {
        Ok(Digest::ZERO)
    }
    fn undo(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError>;
    /// What a failed attempt leaves unfinished, and the next one makes anew.
    fn part(&self) -> Option<PathBuf> {
        None
    }
}

fn act_of(mutation: &Mutation) -> Box<dyn Act + '_> {
    match mutation {
        Mutation::StageTree { package, content, spare, owner } => {
            Box::new(stage_tree::StageTree { package, content: *content, spare, owner: *owner })
        }
        Mutation::CarryCustomisations { home, spare, list, pass } => {
            Box::new(carry_customisations::CarryCustomisations { home, spare, list, pass: *pass })
        }
        Mutation::StopService { home, start_timeout_s } => {
            Box::new(stop_service::StopService { home, start_timeout_s: *start_timeout_s })
        }
        Mutation::BackUpMetadata { home, backup } => {
            Box::new(back_up_metadata::BackUpMetadata { home, backup })
        }
        Mutation::CopyCubeData { cube, pass } if is_on_cluster(&cube.source) => {
            Box::new(copy_cluster_data::CopyClusterData { cube, pass: *pass })
        }
        Mutation::CopyCubeData { cube, pass } => Box::new(copy_cube_data::CopyCubeData { cube, pass: *pass }),
        Mutation::HandOverData { home, backup, cube, effective_from } => {
            Box::new(hand_over_data::HandOverData {
                home,
                backup,
                cube: cube.as_ref(),
                effective_from: *effective_from,
            })
        }
        Mutation::ExchangeTrees { live, spare } => Box::new(exchange_trees::ExchangeTrees { live, spare }),
        Mutation::StartService { home, start_timeout_s } => {
            Box::new(start_service::StartService { home, start_timeout_s: *start_timeout_s })
        }
        Mutation::ArchiveTree { tree, archive, top } => {
            Box::new(archive_tree::ArchiveTree { tree, archive, top })
        }
        Mutation::DiscardTree { tree } => Box::new(discard::DiscardLocal { path: tree }),
        Mutation::DiscardFile { file } => Box::new(discard::DiscardLocal { path: file }),
        Mutation::DiscardCubeData { root } if is_on_cluster(root) => {
            Box::new(discard::DiscardClusterData { root })
        }
        Mutation::SnapshotCubeData { cube } => Box::new(snapshot_cube_data::SnapshotCubeData { cube }),
        Mutation::DiscardSnapshot { cube } => Box::new(discard::DiscardSnapshot { cube }),
        Mutation::DiscardCubeData { root } => Box::new(discard::DiscardCubeData { root }),
    }
}
