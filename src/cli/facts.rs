//! What the preconditions are judged by: gathered from the machine, which is not touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::inquiry::inquire;
use super::place::Place;
use crate::backup::manifest::Manifest;
use crate::effect::fs::{Fs, stat_opt};
use crate::effect::os::OsFs;
use crate::effect::tree::parent_of;
use crate::kyligence::home::{Home, Package, read_through_links};
use crate::kyligence::java::{Java, fatal_above_java_8};
use crate::kyligence::preflight::{Facts, Space};
use crate::kyligence::process::{Processes, scan};
use crate::kyligence::version::{UpgradeKind, VersionRefusal};
use crate::raw_path::RawPath;

/// How long `java -version` may take.
const JAVA_LIMIT: Duration = Duration::from_mins(1);

/// What is needed beside the trees themselves: logs, journal, ballast, directories.
const SPARE_BYTES: u64 = 64 << 20;

/// What the caller knows already.
pub struct Known<'a> {
    /// The old home.
    pub home: &'a Home,
    /// The package.
    pub package: &'a Package,
    /// What the version rule says.
    pub upgrade: Result<UpgradeKind, VersionRefusal>,
    /// The listing of the old home.
    pub old: &'a Manifest,
    /// The package's manifest.
    pub new: &'a Manifest,
    /// Small files of the package.
    pub texts: &'a BTreeMap<RawPath, Vec<u8>>,
    /// Whether an archive is to be written.
    pub archive: bool,
    /// Bytes of cube data that are copied on the local file system, and where.
    pub cube: Option<(PathBuf, u64)>,
}

/// The processes of the home.
///
/// # Errors
/// The table cannot be read: then nobody may say that none runs.
pub fn processes(home: &Home) -> std::io::Result<Processes> {
    scan(&OsFs, Path::new("/proc"), &[&home.path], std::process::id())
}

/// Gathers the facts.
pub fn gather(known: &Known<'_>, place: &Place, processes: Processes) -> Facts {
    let home = known.home;
    let parent = parent_of(&home.path);
    let own_uid = rustix::process::getuid().as_raw();
    Facts {
        home: Ok((home.layout, home.identity.clone())),
        package: Ok(known.package.clone()),
        upgrade: Some(known.upgrade.clone()),
        java: java(),
        fatal_java_options: fatal_options(known),
        service_uid: service_uid(&processes),
        processes,
        space: space(known, parent),
        same_file_system: same_file_system(parent, place.state.root()),
        parent_closed: rustix::fs::access(parent, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .err()
            .map(|errno| std::io::Error::from(errno).to_string()),
        own_uid,
        cluster: None,
        home_uid: OsFs.stat(&home.path).map_or(own_uid, |meta| meta.uid),
    }
}

fn service_uid(processes: &Processes) -> Option<u32> {
    let service = processes.services().next()?;
    Some(OsFs.stat(Path::new(&format!("/proc/{}", service.pid))).ok()?.uid)
}

fn same_file_system(parent: &Path, state: &Path) -> bool {
    let device = |path: &Path| {
        path.ancestors().find_map(|dir| stat_opt(&OsFs, dir).ok().flatten()).map(|meta| meta.dev)
    };
    device(parent) == device(state)
}

/// One entry a file system: the spare tree and the archive beside the home, the copy of the cube data at its place.
fn space(known: &Known<'_>, parent: &Path) -> Vec<Space> {
    let old_bytes = known.old.content_bytes();
    // No compression is assumed for the archive, and the carried part of the old home may be all of it.
    let beside =
        known.new.content_bytes() + old_bytes * u64::from(known.archive) + old_bytes / 4 + SPARE_BYTES;
    let mut needs: Vec<(PathBuf, u64)> = vec![(parent.to_owned(), beside)];
    if let Some((dir, bytes)) = &known.cube {
        if same_file_system(parent, dir) {
            needs[0].1 += bytes;
        } else {
            needs.push((dir.clone(), *bytes));
        }
    }
    needs
        .into_iter()
        .map(|(at, needed_bytes)| {
            let free_bytes = OsFs.free_bytes(&at).map_err(|error| error.to_string());
            Space { at: at.into(), needed_bytes, free_bytes }
        })
        .collect()
}

/// The scripts of the new release, with the carried `conf/setenv.sh` in place of its own.
fn fatal_options(known: &Known<'_>) -> Vec<&'static str> {
    let own = read_through_links(&OsFs, &known.home.path.join("conf/setenv.sh")).ok().flatten();
    let new = |path: &str| known.texts.get(&RawPath::from(path)).cloned();
    let scripts =
        [own.or_else(|| new("conf/setenv.sh")), new("tomcat/bin/catalina.sh"), new("bin/setenv.sh")];
    let mut found: Vec<&'static str> = scripts
        .into_iter()
        .flatten()
        .flat_map(|script| fatal_above_java_8(&String::from_utf8_lossy(&script)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The Java that the service will use: `$JAVA_HOME/bin/java`, else `java` on the path.
fn java() -> Result<Java, String> {
    let program = match std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home).join("bin/java"),
        None => PathBuf::from("java"),
    };
    let ran = inquire(&program, &["-version"], JAVA_LIMIT)
        .map_err(|error| format!("cannot run `{}`: {error}", program.display()))?;
    Java::parse(&(ran.stderr + &ran.stdout))
        .ok_or_else(|| format!("cannot understand what `{} -version` says", program.display()))
}
