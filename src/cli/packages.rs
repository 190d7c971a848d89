//! Reading a package once, and keeping of it what decisions need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::CommandError;
use super::place::absolute;
use super::progress::Meter;
use crate::backup::package::{Limits, Package as ScannedPackage, scan};
use crate::effect::fs::Fs;
use crate::effect::os::{OsFs, real_path};
use crate::effect::tree::parent_of;
use crate::kyligence::components::CATALINA_JAR;
use crate::kyligence::home::{Home, Package};
use crate::kyligence::jar::members;
use crate::kyligence::renamed::{Renames, TABLE_NAME};
use crate::mutate::Progress;
use crate::raw_path::RawPath;

/// A package that was read.
pub struct Seen {
    /// Where it is, its real path.
    pub path: PathBuf,
    /// What it holds.
    pub scanned: ScannedPackage,
    /// The keys that this release calls otherwise than those before it.
    pub renames: Renames,
}

/// Reads a package. `what` is what it is called in messages.
pub fn read_package(path: &Path, what: &str, home: &Home, meter: &Meter) -> Result<Seen, CommandError> {
    let show = RawPath::from(path);
    let refuse = |error: &(dyn std::error::Error + 'static)| {
        CommandError::refused(format!("the {what} `{show}` cannot be used"))
            .because(error)
            .hint("give the package as it was downloaded, after a look at the vendor's check sum")
    };
    let path = real_path(&absolute(path)?).map_err(|error| refuse(&error))?;
    if path.starts_with(&home.path) || home.path.starts_with(&path) {
        return Err(CommandError::refused(format!(
            "the {what} `{show}` and the home lie inside one another"
        ))
        .why("the home is swapped as a whole, and would take the package with it")
        .hint("move the package beside the home"));
    }
    meter.start(&format!("read the {what}"));
    let free_bytes = OsFs.free_bytes(parent_of(&home.path)).unwrap_or(u64::MAX);
    let tick = |bytes| {
        meter.bytes(bytes);
        Ok(())
    };
    let mut scanned = scan(&OsFs, &path, Limits::for_free_bytes(free_bytes), &wanted, &tick)
        .map_err(|error| refuse(&error))?;
    meter.clear();
    let renames = take_renames(&mut scanned.texts);
    Ok(Seen { path, scanned, renames })
}

/// The tables of renamed keys: files of their own, or in the jars that were kept for them and are not needed further.
fn take_renames(texts: &mut BTreeMap<RawPath, Vec<u8>>) -> Renames {
    let mut renames = Renames::default();
    texts.retain(|path, content| {
        if is_table(path.file_name()) {
            renames.extend(content);
        }
        let is_for_tables = is_table_jar(path);
        if is_for_tables {
            for (_, table) in members(content, |name| is_table(name.as_bytes())) {
                renames.extend(&table);
            }
        }
        !is_for_tables
    });
    renames
}

fn is_table(name: &[u8]) -> bool {
    name.starts_with(TABLE_NAME.as_bytes()) && name.ends_with(b".properties")
}

/// The jars that have the core classes in them, and with these the table.
fn is_table_jar(path: &RawPath) -> bool {
    let name = path.file_name();
    let starts = ["kylin-tool", "kap-tool", "kylin-core-common", "kap-core-common"];
    name.ends_with(b".jar") && starts.iter().any(|start| name.starts_with(start.as_bytes()))
}

/// The small files of a package that decisions need.
fn wanted(path: &RawPath) -> bool {
    let bytes = path.as_bytes();
    bytes.starts_with(b"conf/")
        || bytes.starts_with(b"tomcat/conf/")
        || is_table(path.file_name())
        || is_table_jar(path)
        || [
            &b"VERSION"[..],
            b"commit_SHA1",
            b"spark/RELEASE",
            b"tomcat/RELEASE-NOTES",
            b"tomcat/bin/catalina.sh",
            b"tomcat/context.xml",
            CATALINA_JAR.as_bytes(),
            b"bin/setenv.sh",
        ]
        .contains(&bytes)
}

/// The name of its top directory.
pub fn name_of(seen: &Seen) -> RawPath {
    seen.scanned.top.clone()
}

/// The old package must be the one that the home came from: with another base the merge would take the difference
/// between two releases for the operator's wishes.
pub fn check_base(base: &Seen, home: &Home) -> Result<(), CommandError> {
    let show = RawPath::from(base.path.as_path());
    let package =
        Package::recognise(&name_of(base), &base.scanned.texts, &base.scanned.manifest).map_err(|error| {
            CommandError::refused(format!("`{show}` is no package of the product"))
                .because(&error)
                .hint("give the package that the home was installed from, or leave `--old-package` out")
        })?;
    if package.identity.version.numbers != home.identity.version.numbers {
        return Err(CommandError::refused(format!("the old package `{show}` is not the home's release"))
            .why(format!("it is {}, and the home is {}", package.identity.version, home.identity.version))
            .hint("give the package that the home was installed from, or leave `--old-package` out"));
    }
    Ok(())
}
