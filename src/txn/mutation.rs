//! The closed set of things kytx can do to a machine, as data.
//!
//! A mutation holds what the plan decided and nothing that changes later. What a live service may still change
//! (inodes, its metadata, its cube data) is looked up when the step is intended and named by `Intent.inputs`.
//! Behaviour is in `mutate/`, one file a variant.

use serde::{Deserialize, Serialize};

use super::StepId;
use crate::digest::Digest;
use crate::raw_path::RawPath;

/// A file of the state directory that is too long for a record: named by its path there and by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideFile {
    /// Path relative to the state directory.
    pub path: RawPath,
    /// Plain blake3 of the content.
    pub digest: Digest,
}

/// When customisations are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarryPass {
    /// While the service is up: every byte is copied here.
    Copy,
    /// After the stop: what was copied is checked to be current, and what the live service still wrote (logs,
    /// metadata backups) is linked. Costs a look a file, whatever their size.
    Settle,
}

/// When cube data are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyPass {
    /// While the service is up: the bulk, not yet consistent.
    Early,
    /// After the stop: the difference, compared and published.
    Final,
}

/// Where a copy of cube data is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CubeCopy {
    /// The live directory of this instance, with its scheme.
    pub source: RawPath,
    /// kytx's own directory for this transaction in the same file system.
    pub root: RawPath,
}

/// An owner and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Everything kytx can do to a machine. Variants are only ever added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mutation {
    /// Unpacks the package into the spare tree.
    StageTree {
        /// The package: a `.tar.gz` file or an unpacked directory.
        package: RawPath,
        /// What the package held when it was planned.
        content: Digest,
        /// The spare tree.
        spare: RawPath,
        /// Whose the unpacked files are: the owner of the old home.
        owner: Owner,
    },
    /// Carries the operator's customisations from the old home into the spare tree.
    CarryCustomisations {
        /// The old home.
        home: RawPath,
        /// The spare tree.
        spare: RawPath,
        /// What to carry.
        list: SideFile,
        /// Which of the two passes.
        pass: CarryPass,
    },
    /// Stops the service of a home.
    StopService {
        /// The home whose service is meant.
        home: RawPath,
        /// How long to wait for an answer if it has to be started again, in seconds.
        start_timeout_s: u32,
    },
    /// Backs up the metadata store into the state directory.
    BackUpMetadata {
        /// The home whose tools are used.
        home: RawPath,
        /// Where the verified copy goes.
        backup: RawPath,
    },
    /// Copies cube data aside.
    CopyCubeData {
        /// From where to where.
        cube: CubeCopy,
        /// Which of the two passes.
        pass: CopyPass,
    },
    /// Lets the new release change metadata and cube data from here on; undoing restores them exactly.
    HandOverData {
        /// The home whose tools restore the metadata.
        home: RawPath,
        /// The verified metadata backup.
        backup: RawPath,
        /// The verified copy of the cube data, if one was made.
        cube: Option<CubeCopy>,
        /// The first step at which the new release may change data. An abort that comes before it restores nothing.
        effective_from: StepId,
    },
    /// Swaps the spare tree and the live tree.
    ExchangeTrees {
        /// The home.
        live: RawPath,
        /// The spare tree.
        spare: RawPath,
    },
    /// Starts the service of a home and waits until it answers.
    StartService {
        /// The home whose service is meant.
        home: RawPath,
        /// How long to wait for an answer, in seconds.
        start_timeout_s: u32,
    },
    /// Writes the archive of the old tree.
    ArchiveTree {
        /// The tree to archive.
        tree: RawPath,
        /// The archive.
        archive: RawPath,
        /// The name of the one top directory in it.
        top: RawPath,
    },
    /// Deletes a tree of this transaction.
    DiscardTree {
        /// The tree.
        tree: RawPath,
    },
    /// Deletes a file of this transaction.
    DiscardFile {
        /// The file.
        file: RawPath,
    },
    /// Deletes this transaction's copy of the cube data.
    DiscardCubeData {
        /// kytx's directory for this transaction.
        root: RawPath,
    },
    /// Makes a snapshot of the cube data, in a file system that has them.
    SnapshotCubeData {
        /// What it is a snapshot of; its name is made from that of the transaction's directory.
        cube: CubeCopy,
    },
    /// Deletes this transaction's snapshot of the cube data.
    DiscardSnapshot {
        /// What it is a snapshot of.
        cube: CubeCopy,
    },
}

impl Mutation {
    /// What the mutation does, as a sentence without its full stop, in the imperative.
    pub fn sentence(&self) -> String {
        match self {
            Self::StageTree { package, spare, .. } => {
                format!("unpack `{package}` into the spare tree `{spare}`")
            }
            Self::CarryCustomisations { home, pass: CarryPass::Copy, .. } => {
                format!("copy the customisations of `{home}` into the spare tree")
            }
            Self::CarryCustomisations { pass: CarryPass::Settle, .. } => {
                "check that the copied customisations are current, and link logs and metadata backups"
                    .to_owned()
            }
            Self::StopService { home, .. } => format!("stop the service of `{home}`"),
            Self::BackUpMetadata { backup, .. } => {
                format!("back up the metadata to `{backup}` and prove the backup")
            }
            Self::CopyCubeData { cube, pass: CopyPass::Early } => {
                format!("copy the bulk of the cube data `{}` while the service runs", cube.source)
            }
            Self::CopyCubeData { cube, pass: CopyPass::Final } => {
                format!("complete and verify the copy of the cube data `{}`", cube.source)
            }
            Self::HandOverData { .. } => {
                "let the new release change metadata and cube data from here on".to_owned()
            }
            Self::ExchangeTrees { live, .. } => format!("swap `{live}` and the spare tree"),
            Self::StartService { home, .. } => {
                format!("start the service of `{home}` and wait until it answers")
            }
            Self::ArchiveTree { tree, archive, .. } => {
                format!("archive `{tree}` as `{archive}` and read it back")
            }
            Self::DiscardTree { tree } => format!("delete `{tree}`"),
            Self::DiscardFile { file } => format!("delete `{file}`"),
            Self::DiscardCubeData { root } => format!("delete the copy of the cube data `{root}`"),
            Self::SnapshotCubeData { cube } => format!("make a snapshot of the cube data `{}`", cube.source),
            Self::DiscardSnapshot { cube } => {
                format!("delete the snapshot of the cube data `{}`, which frees what it held", cube.source)
            }
        }
    }

    /// What undoing it does, likewise.
    pub fn undo_sentence(&self) -> String {
        match self {
            Self::StageTree { spare, .. } => format!("delete the spare tree `{spare}`"),
            Self::CarryCustomisations { .. } => "nothing: the spare tree goes as a whole".to_owned(),
            Self::StopService { home, .. } => {
                format!("start the service of `{home}` and wait until it answers")
            }
            Self::BackUpMetadata { backup, .. } => format!("nothing: the metadata backup `{backup}` stays"),
            Self::CopyCubeData { cube, pass: CopyPass::Early } => {
                format!("delete the copy of the cube data `{}`", cube.root)
            }
            Self::CopyCubeData { pass: CopyPass::Final, .. } => {
                "nothing: the copy goes as a whole".to_owned()
            }
            Self::HandOverData { cube: Some(cube), .. } => {
                format!(
                    "put the copy of the cube data back to `{}`, then restore the metadata exactly",
                    cube.source
                )
            }
            Self::HandOverData { cube: None, .. } => "restore the metadata exactly".to_owned(),
            Self::ExchangeTrees { live, .. } => format!("swap `{live}` and the spare tree back"),
            Self::StartService { home, .. } => format!("stop the service of `{home}`"),
            Self::ArchiveTree { archive, .. } => format!("nothing: the archive `{archive}` stays"),
            Self::SnapshotCubeData { cube } => {
                format!("delete the snapshot of the cube data `{}`", cube.source)
            }
            Self::DiscardTree { .. }
            | Self::DiscardFile { .. }
            | Self::DiscardCubeData { .. }
            | Self::DiscardSnapshot { .. } => "cannot be undone".to_owned(),
        }
    }
}
