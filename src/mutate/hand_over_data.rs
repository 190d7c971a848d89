//! Lets the new release change metadata and cube data from here on.
//!
//! Applying it does nothing but check that the way back exists. Undoing it is the way back: a compensation that
//! restores meaning, not bytes, since entries of a database cannot be swapped.
//!
//! *Probe.* Nobody can see whether the new release has changed anything: `Torn`, once the intent is there.
//! *Undo*, by the old tools, as the old home is in its place again: first the cube data, by two renames, the changed
//! directory aside and the verified copy into place, so that nothing is deleted before its replacement is there; then
//! the metadata, emptied and restored or by what differs (`restore_metadata.rs`). No metadata command runs between the two
//! renames (reference 22.1), and each only once the working directory is proved reachable.
//! Nothing is restored if the new release was never started: then it has changed nothing.
//! *Crash windows.* Between the renames the working directory is empty: the copy is still there, and the next attempt
//! puts it in place. An emptied or half-restored store is emptied and restored again.

use serde::{Deserialize, Serialize};

use super::cluster::{copy_manifest_path, is_on_cluster, snapshot_manifest_path};
use super::restore_metadata::restore_metadata;
use super::{Act, Machine, back_up_metadata, copy_cube_data, refused, restore_cluster_data};
use crate::backup::compare::{Ignoring, compare};
use crate::backup::manifest::{Manifest, tree_order};
use crate::backup::walk::hash_file;
use crate::digest::Digest;
use crate::effect::fs::exists;
use crate::effect::tree::Context;
use crate::engine::{MutationError, Sight, Task};
use crate::raw_path::RawPath;
use crate::txn::{CubeCopy, Direction, Observed, StepId};

pub(super) struct HandOverData<'a> {
    pub home: &'a RawPath,
    pub backup: &'a RawPath,
    pub cube: Option<&'a CubeCopy>,
    pub effective_from: StepId,
}

/// The manifests by which the backups are verified before anything is replaced.
#[derive(Serialize, Deserialize)]
struct Manifests {
    metadata: Digest,
    cube: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snapshot: Option<Digest>,
}

impl HandOverData<'_> {
    fn manifests(machine: &Machine<'_>, task: &Task<'_>) -> Result<Manifests, MutationError> {
        let inputs = task.inputs.expect("BUG: the intent is durable");
        let content = machine.state.read_inputs(machine.fs, task.step, inputs)?;
        serde_json::from_slice(&content)
            .map_err(|error| MutationError::Foreign(format!("the step's inputs: {error}")))
    }

    /// Puts the copy back by renames, from any window of an earlier attempt.
    fn restore_cube(machine: &Machine<'_>, cube: &CubeCopy, expected: Digest) -> Result<(), MutationError> {
        let copy = copy_cube_data::copy_path(cube);
        let hdfs = machine.hdfs;
        if !hdfs.exists(&copy)? {
            // It is in place already, unless somebody took both.
            if hdfs.exists(&cube.source)? {
                // Both names of the rename, as its attempt may have been killed before it synced either.
                hdfs.make_durable(&cube.source)?;
                return Ok(hdfs.make_durable(&copy)?);
            }
            return Err(refused(format!("neither `{}` nor its copy `{copy}` is there", cube.source)));
        }
        let manifest =
            Manifest::read(machine.fs, &copy_cube_data::manifest_path(machine.state, cube), &expected)?;
        machine.progress.total(manifest.content_bytes());
        let mut entries = hdfs.manifest(&copy, &machine.tick())?;
        entries.sort_unstable_by(|a, b| tree_order(&a.path, &b.path));
        if let Some(difference) = compare(&manifest, &Manifest { entries }, Ignoring::default()).first() {
            return Err(refused(format!("the copy of the cube data is damaged: {difference}")));
        }
        if hdfs.exists(&cube.source)? {
            hdfs.rename(&cube.source, &Self::free_aside(machine, cube)?)?;
        }
        Ok(hdfs.rename(&copy, &cube.source)?)
    }

    /// A name aside that is free: an earlier attempt, or the product in between, may have left something there.
    fn free_aside(machine: &Machine<'_>, cube: &CubeCopy) -> Result<RawPath, MutationError> {
        for number in 0.. {
            let aside = cube.root.join(&format!("aside-{number}").as_str().into());
            if !machine.hdfs.exists(&aside)? {
                return Ok(aside);
            }
        }
        unreachable!("BUG: numbers do not end")
    }
}

impl Act for HandOverData<'_> {
    fn probe(&self, _: &Machine<'_>, task: &Task<'_>) -> Result<Sight, MutationError> {
        Ok(Sight::of(match (task.inputs, task.direction) {
            (None, _) => Observed::Before,
            // Nothing is left to be done forward, and everything may be to be undone.
            (Some(_), Direction::Forward | Direction::Backward) => Observed::Torn,
        }))
    }

    fn inputs(&self, machine: &Machine<'_>) -> Result<Option<Vec<u8>>, MutationError> {
        let digest =
            |path: &std::path::Path| Ok::<_, MutationError>(hash_file(machine.fs, path, &machine.tick())?.1);
        let if_there = |path: std::path::PathBuf| -> Result<Option<Digest>, MutationError> {
            if exists(machine.fs, &path).context("look at", &path)? {
                digest(&path).map(Some)
            } else {
                Ok(None)
            }
        };
        let (cube, snapshot) = match self.cube {
            Some(cube) if is_on_cluster(&cube.source) => (
                if_there(copy_manifest_path(machine.state, cube))?,
                if_there(snapshot_manifest_path(machine.state, cube))?,
            ),
            Some(cube) => (Some(digest(&copy_cube_data::manifest_path(machine.state, cube))?), None),
            None => (None, None),
        };
        let metadata = digest(&back_up_metadata::manifest_path(self.backup))?;
        let manifests = Manifests { metadata, cube, snapshot };
        Ok(Some(serde_json::to_vec(&manifests).expect("BUG: plain data has a JSON form")))
    }

    fn apply(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError> {
        // I7: the way back must be whole before anything may change.
        let manifests = Self::manifests(machine, task)?;
        Manifest::read(machine.fs, &back_up_metadata::manifest_path(self.backup), &manifests.metadata)?;
        match self.cube {
            Some(cube) if is_on_cluster(&cube.source) => {
                restore_cluster_data::check_way_back(machine, cube, manifests.cube, manifests.snapshot)?;
            }
            Some(cube) => {
                let digest = manifests.cube.expect("BUG: a local copy has a manifest");
                Manifest::read(machine.fs, &copy_cube_data::manifest_path(machine.state, cube), &digest)?;
            }
            None => {}
        }
        Ok(())
    }

    fn make_durable(&self, _: &Machine<'_>) -> Result<(), MutationError> {
        Ok(())
    }

    fn undo(&self, machine: &Machine<'_>, task: &Task<'_>) -> Result<(), MutationError> {
        // A store that the new release never saw is not emptied: restoring it could only do harm.
        if task.furthest < Some(self.effective_from) {
            return Ok(());
        }
        let manifests = Self::manifests(machine, task)?;
        match (self.cube, manifests.cube) {
            (Some(cube), copy) if is_on_cluster(&cube.source) => {
                restore_cluster_data::restore(machine, cube, copy, manifests.snapshot)?;
            }
            (Some(cube), Some(expected)) => Self::restore_cube(machine, cube, expected)?,
            (Some(_) | None, _) => {}
        }
        restore_metadata(machine, self.home, self.backup, manifests.metadata)
    }
}
