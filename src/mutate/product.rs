//! What several mutations ask of the product: its home, its processes, its service, its working directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::machine::ProductShell;
use super::{Machine, refused};
use crate::effect::shell::{Call, Shell, ending};
use crate::engine::MutationError;
use crate::hadoop::scheme;
use crate::kyligence::home::Home;
use crate::kyligence::metadata::{MetadataError, MetadataTools};
use crate::kyligence::process::{Processes, scan};
use crate::kyligence::service::{ServiceError, ServiceTools, ask};
use crate::raw_path::RawPath;

/// How long a stopped service may take to go.
pub(super) const STOP_LIMIT: Duration = Duration::from_mins(2);

/// How long a look at the cluster's file system may take.
const REACH_LIMIT: Duration = Duration::from_mins(2);

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
pub(super) fn with_metadata<T>(
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
    reach(machine, home, &working_dir.shared)?;
    match &working_dir.instance {
        Some(instance) => reach(machine, home, instance),
        None => Ok(()),
    }
}

fn reach(machine: &Machine<'_>, home: &Home, dir: &str) -> Result<(), String> {
    let path = RawPath::from(dir);
    if scheme(&path) == Some("file") {
        return machine.hdfs.reach(&path).map_err(|error| format!("the working directory `{path}`: {error}"));
    }
    let call = Call {
        label: "hadoop fs -ls".to_owned(),
        program: "hadoop".into(),
        args: ["fs", "-ls", dir].map(Into::into).to_vec(),
        cwd: home.path.clone(),
        set: BTreeMap::new(),
        unset: Vec::new(),
        time_limit: Some(REACH_LIMIT),
    };
    let ran = ProductShell(machine).run(&call).map_err(|error| {
        format!("the working directory `{path}` cannot be reached: cannot run `hadoop`: {error}")
    })?;
    // `-ls` and not `-test`: the latter exits 1 for "absent" and for "cannot ask" alike.
    if ran.code == Some(0) && !ran.timed_out {
        return Ok(());
    }
    let said = ran.stderr.lines().last().unwrap_or_default();
    Err(format!(
        "the working directory `{path}` cannot be reached: `hadoop fs -ls`: {}: {said}",
        ending(&ran)
    ))
}

/// Refuses to go on unless the working directory can be reached.
pub(super) fn require_working_dir(machine: &Machine<'_>, home: &Home) -> Result<(), MutationError> {
    reach_working_dir(machine, home).map_err(refused)
}
