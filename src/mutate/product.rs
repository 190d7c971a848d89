//! What several mutations ask of the product: its home, its processes, its service, its working directory.

use std::path::Path;
use std::time::Duration;

use super::machine::ProductShell;
use super::{Machine, refused};
use crate::engine::MutationError;
use crate::hadoop::cluster::Cluster;
use crate::hadoop::scheme;
use crate::kyligence::home::Home;
use crate::kyligence::metadata::{MetadataError, MetadataTools};
use crate::kyligence::process::{Processes, scan};
use crate::kyligence::service::{ServiceError, ServiceTools, ask};
use crate::raw_path::RawPath;

/// How long a stopped service may take to go.
pub(super) const STOP_LIMIT: Duration = Duration::from_mins(2);

/// Recognises the home that is at a path now.
pub(super) fn home(machine: &Machine<'_>, path: &RawPath) -> Result<Home, MutationError> {
    Ok(Home::recognise(machine.fs, path.as_path())?)
}

/// The processes of a home.
pub(super) fn processes(machine: &Machine<'_>, home: &Path) -> Result<Processes, MutationError> {
    Ok(scan(machine.fs, &machine.proc_root, &[home], std::process::id())?)
}

/// Handles a home's service. The time is the product's.
pub(super) fn with_service(
    machine: &Machine<'_>,
    home: &Path,
    work: impl FnOnce(&mut ServiceTools<'_>) -> Result<(), ServiceError>,
) -> Result<(), MutationError> {
    let look = || scan(machine.fs, &machine.proc_root, &[home], std::process::id());
    let mut wait = |time| machine.wait(time);
    let mut told_s = 0;
    let mut progress = |what: &str, waited: Duration| {
        // A line every ten seconds is enough for a log, and tells a person that kytx is alive.
        if waited.as_secs() >= told_s + 10 {
            told_s = waited.as_secs();
            machine.progress.say(&format!("{what} ({told_s} s)"));
        }
    };
    let mut tools = ServiceTools {
        shell: machine.shell,
        fs: machine.fs,
        look: &look,
        wait: &mut wait,
        http: &ask,
        progress: &mut progress,
    };
    machine.products_time(|| work(&mut tools)).map_err(Into::into)
}

/// Handles the metadata with the tools of the home that is at a path now. The time is the product's.
pub(crate) fn with_metadata<T>(
    machine: &Machine<'_>,
    path: &RawPath,
    work: impl FnOnce(&Home, &MetadataTools<'_>) -> Result<T, MetadataError>,
) -> Result<T, MutationError> {
    let home = home(machine, path)?;
    let tools = MetadataTools {
        shell: &ProductShell(machine),
        fs: machine.fs,
        working_dir_reachable: &|| reach_working_dir(machine, &home),
        time_limit: None,
    };
    Ok(work(&home, &tools)?)
}

/// Proves that the working directory can be reached with the configuration of this home, and that it holds this
/// instance's folder. A metadata command that is run while it cannot be reached deletes live entries and reports
/// success (reference 22.1).
pub(super) fn reach_working_dir(machine: &Machine<'_>, home: &Home) -> Result<(), String> {
    let working_dir = home.working_dir().map_err(|error| error.to_string())?;
    let dirs: Vec<RawPath> = [Some(working_dir.shared), working_dir.instance]
        .into_iter()
        .flatten()
        .map(|dir| dir.as_str().into())
        .collect();
    if scheme(&dirs[0]) == Some("file") {
        let reach = |path: &RawPath| {
            machine.hdfs.reach(path).map_err(|error| format!("the working directory `{path}`: {error}"))
        };
        return dirs.iter().try_for_each(reach);
    }
    let shell = ProductShell(machine);
    let there = Cluster::new(&shell, &home.path).look(&dirs).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("the working directory `{}` cannot be reached: {error}{cause}", dirs[0])
    })?;
    match dirs.iter().zip(&there).find(|(_, here)| here.is_none()) {
        Some((dir, _)) => Err(format!("the working directory `{dir}` is not there")),
        None => Ok(()),
    }
}

/// Refuses to go on unless the working directory can be reached.
pub(super) fn require_working_dir(machine: &Machine<'_>, home: &Home) -> Result<(), MutationError> {
    reach_working_dir(machine, home).map_err(refused)
}
