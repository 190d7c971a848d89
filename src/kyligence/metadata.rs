//! Backing up the metadata store with the product's own tool, and restoring it exactly.
//!
//! The tool's exit code says nothing about a backup, its success line little: an unreachable store, a killed Java or a
//! missing `JAVA_HOME` leave an empty directory and code 0. Worse, with the working directory out of reach the tool
//! deletes live entries whose content lies there, and reports success. So the working directory is proven reachable
//! before every command, the output is searched for the traces of that deletion, and the backup's content is looked at.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::home::Layout;
use super::metadata_listing::{Line, Listing, Names, listed};
use super::metadata_output::{
    BackupFault, StoreDamaged, judge_backup, judge_reset, judge_restore, no_traces_of_damage,
};
use super::service::{how_it_ended, script_call};
use crate::effect::fs::{Fs, Kind, stat_opt};
use crate::effect::shell::{Call, Ran, Shell};
use crate::raw_path::RawPath;

/// What the metadata of a home are handled with.
pub struct MetadataTools<'a> {
    /// Runs the tool.
    pub shell: &'a dyn Shell,
    /// Looks at what it wrote.
    pub fs: &'a dyn Fs,
    /// Proves that this instance's working directory can be reached with the configuration that the product's scripts
    /// use, and that it holds the instance's folder. The error says what is wrong, in a sentence without its full stop.
    pub working_dir_reachable: &'a dyn Fn() -> Result<(), String>,
    /// How long one command may take. `None` waits as long as it takes: large stores take minutes.
    pub time_limit: Option<Duration>,
}

/// A backup that the tool made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Where it is: a directory in the home's `meta_backups`.
    pub dir: PathBuf,
}

/// Why metadata could not be backed up or restored.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The tool breaks such paths apart, backs up nothing, and exits 0.
    #[error("the path `{home}` has a blank in it: the product's metadata tool cannot work there")]
    BlankInHome {
        /// The home.
        home: RawPath,
    },
    /// The working directory cannot be reached: the tool would delete live entries.
    #[error("no metadata command was run: {why}")]
    Unreachable {
        /// What is wrong.
        why: String,
    },
    /// A directory could not be looked at.
    #[error("cannot look at the metadata backups in `{dir}`")]
    Look {
        /// The directory.
        dir: RawPath,
        /// Why.
        source: io::Error,
    },
    /// A script could not be run at all.
    #[error("cannot run `{program}`")]
    Script {
        /// The script.
        program: RawPath,
        /// Why.
        source: io::Error,
    },
    /// The output shows that the backup failed.
    #[error("`metastore.sh backup` made no complete backup ({ended})")]
    Backup {
        /// How the script ended.
        ended: String,
        /// What the output shows.
        source: BackupFault,
    },
    /// The tool named a directory that was there before.
    #[error("`metastore.sh backup` wrote into `{dir}`, which was there before")]
    NotFresh {
        /// The directory.
        dir: RawPath,
    },
    /// A backup without what every backup has.
    #[error("the metadata backup `{dir}` is not complete: it has no {missing}")]
    Incomplete {
        /// The directory.
        dir: RawPath,
        /// What is not there.
        missing: &'static str,
    },
    /// The tool does not list the store, so that nothing can be compared with it.
    #[error(
        "`metastore.sh list {folder}` of `{home}` listed nothing ({ended}): without it nobody knows whether a backup holds \
         every entry; put the store right, or leave the comparison out with `--override P17=REASON` in another `begin`"
    )]
    NotListed {
        /// The folder.
        folder: String,
        /// How the script ended.
        ended: String,
        /// The home.
        home: RawPath,
    },
    /// Another tool of the product failed.
    #[error("`{command}` failed ({ended})")]
    Tool {
        /// The command.
        command: String,
        /// How it ended.
        ended: String,
    },
    /// A command that only reads has deleted entries from the live store.
    #[error(transparent)]
    Damaged(#[from] StoreDamaged),
    /// The backup lacks what the tool lists.
    #[error(
        "the metadata backup `{dir}` lacks {} entries that `metastore.sh list` named {when} it was made: {}",
        names.len(),
        listed(names)
    )]
    Lacking {
        /// The directory.
        dir: RawPath,
        /// `before` or `after`.
        when: &'static str,
        /// The names.
        names: Vec<String>,
    },
    /// The store has fewer entries than before the backup.
    #[error(
        "{} entries have gone from the store while it was backed up: {}; another instance uses it, or the tool has \
         deleted them",
        names.len(),
        listed(names)
    )]
    Gone {
        /// The names.
        names: Vec<String>,
    },
    /// The backup is not what was verified once. Nothing was changed.
    #[error("the metadata backup `{dir}` was not restored, and the store was not emptied: {why}")]
    Unverified {
        /// The directory.
        dir: RawPath,
        /// What is wrong.
        why: String,
    },
    /// An entry could not be removed.
    #[error("`metastore.sh remove {path}` did not remove the entry ({ended})")]
    NotRemoved {
        /// The entry.
        path: String,
        /// How the script ended, or why it was not run.
        ended: String,
    },
    /// The store could not be emptied.
    #[error(
        "`metastore.sh reset` failed ({ended}); the store may be partly empty until the restore is repeated"
    )]
    Reset {
        /// How the script ended.
        ended: String,
    },
    /// The restore failed.
    #[error(
        "`metastore.sh restore` failed ({ended}): {why}; the store is not complete until the restore is repeated"
    )]
    Restore {
        /// How the script ended.
        ended: String,
        /// What the output shows.
        why: String,
    },
}

/// Backs up the metadata of a home into its `meta_backups` and proves as much of it as can be proven there: it is
/// fresh, the tool finished, nothing shows that the store was damaged, and it holds what every backup holds.
///
/// The tool names the directory by the second, and writes into one that it finds under that name: the caller lets the
/// second of an earlier backup go by first. It is neither synced nor copied out here.
///
/// `compares` has it held against what the tool lists before and after: the only positive proof (reference 22.1), and a
/// few seconds a folder with a real product. What `MetadataTool` of the newer layout lists is documented nowhere, so its
/// backups are proven by the rest.
pub fn back_up(
    tools: &MetadataTools<'_>,
    home: &Path,
    layout: Layout,
    compares: bool,
) -> Result<Backup, MetadataError> {
    refuse_blank(home)?;
    let compares = compares && layout == Layout::Tomcat;
    let listing = if compares {
        prove_reachable(tools)?;
        Some(Listing::take(&mut |folder| list(tools, home, folder))?)
    } else {
        None
    };
    let parent = home.join("meta_backups");
    let before = names(tools.fs, &parent)?;
    let ran = run(tools, home, &["backup"])?;
    let named = judge_backup(layout, &ran.stdout, &ran.stderr)
        .map_err(|source| MetadataError::Backup { ended: how_it_ended(&ran), source })?;
    // By the name that the command printed, never "the newest": others back up into the same directory.
    let name = Path::new(&named).file_name().unwrap_or_default().to_owned();
    let dir = parent.join(&name);
    if name.is_empty() || before.contains(&name) {
        return Err(MetadataError::NotFresh { dir: dir.into() });
    }
    check_content(tools.fs, &dir, layout)?;
    if let Some(before) = listing {
        compare_with(tools, home, &dir, &before)?;
    }
    Ok(Backup { dir })
}

/// Everything that was listed before must be in the backup and in the store still, and everything that is listed after
/// in the backup.
fn compare_with(
    tools: &MetadataTools<'_>,
    home: &Path,
    dir: &Path,
    before: &Listing,
) -> Result<(), MetadataError> {
    let held = |listing: &Listing, when: &'static str| {
        let names = listing.missing_from::<MetadataError>(&|folder| {
            let names = names(tools.fs, &dir.join(folder.trim_start_matches('/')))?;
            Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
        })?;
        if names.is_empty() { Ok(()) } else { Err(MetadataError::Lacking { dir: dir.into(), when, names }) }
    };
    held(before, "before")?;
    prove_reachable(tools)?;
    let after = Listing::take_again(&mut |folder| list(tools, home, folder))?;
    let names = before.gone_in(&after);
    if !names.is_empty() {
        return Err(MetadataError::Gone { names });
    }
    held(&after, "after")
}

/// Restores the metadata exactly: afterwards the store holds what the backup holds and nothing else.
///
/// `verify` compares the backup with its manifest; nothing is emptied before it is content. `repeated` says that an
/// earlier restore may have been interrupted. Restartable: emptying and restoring can both be repeated.
pub fn restore_exact(
    tools: &MetadataTools<'_>,
    home: &Path,
    layout: Layout,
    dir: &Path,
    verify: &dyn Fn() -> Result<(), String>,
    repeated: bool,
) -> Result<(), MetadataError> {
    refuse_blank(home)?;
    let unverified = |why: String| MetadataError::Unverified { dir: dir.into(), why };
    verify().map_err(unverified)?;
    // An empty directory is restored with success, and leaves an empty store.
    check_content(tools.fs, dir, layout).map_err(|error| unverified(error.to_string()))?;
    let path = path_for_the_tool(dir)?;
    match layout {
        Layout::Tomcat => {
            let ran = run(tools, home, &["reset"])?;
            if !judge_reset(ran.code, &ran.stdout, &ran.stderr) {
                return Err(MetadataError::Reset { ended: how_it_ended(&ran) });
            }
            restore(tools, home, layout, &["restore", path])
        }
        Layout::Server => {
            if repeated {
                leave_maintenance(tools, home)?;
            }
            let restored = restore(tools, home, layout, &["restore", path, "--after-truncate"]);
            // The script switches the mode on first and off last: a failure between leaves it on, and so does the end of
            // the program that switches it off, after a success and without a word. What failed first is what the
            // operator must hear of.
            let _ = leave_maintenance(tools, home);
            restored
        }
    }
}

/// Lays the entries of a directory over those of the store, and leaves all others.
pub fn lay_over(
    tools: &MetadataTools<'_>,
    home: &Path,
    layout: Layout,
    dir: &Path,
) -> Result<(), MetadataError> {
    refuse_blank(home)?;
    restore(tools, home, layout, &["restore", path_for_the_tool(dir)?])
}

/// The path of a backup, if the tool can be given it.
fn path_for_the_tool(dir: &Path) -> Result<&str, MetadataError> {
    let unfit = |why: &str| MetadataError::Unverified { dir: dir.into(), why: why.to_owned() };
    let path = dir.to_str().ok_or_else(|| unfit("its path is not UTF-8"))?;
    if path.contains(char::is_whitespace) {
        return Err(unfit("its path has a blank, at which the tool would cut it"));
    }
    Ok(path)
}

/// Removes one entry of the store. Restartable: one that is gone is fine. The caller looks at the store after, as the
/// command says nothing.
pub fn remove(tools: &MetadataTools<'_>, home: &Path, path: &str) -> Result<(), MetadataError> {
    refuse_blank(home)?;
    let not_removed = |ended: String| MetadataError::NotRemoved { path: path.to_owned(), ended };
    if path.contains(char::is_whitespace) || !path.is_ascii() {
        return Err(not_removed(
            "it has a blank or no plain letters, at which the tool might cut it".to_owned(),
        ));
    }
    let ran = run(tools, home, &["remove", path])?;
    let is_sound = ran.code == Some(0) && no_traces_of_damage(&ran.stdout, &ran.stderr).is_ok();
    if is_sound { Ok(()) } else { Err(not_removed(how_it_ended(&ran))) }
}

fn restore(
    tools: &MetadataTools<'_>,
    home: &Path,
    layout: Layout,
    args: &[&str],
) -> Result<(), MetadataError> {
    let ran = run(tools, home, args)?;
    judge_restore(layout, ran.code, &ran.stdout, &ran.stderr)
        .map_err(|why| MetadataError::Restore { ended: how_it_ended(&ran), why })
}

/// Switches maintenance mode off, should it be on. Its result is not judged: the restore that follows or has failed
/// is, and releases before Kylin 5 have the class under another name.
fn leave_maintenance(tools: &MetadataTools<'_>, home: &Path) -> Result<(), MetadataError> {
    let args = ["org.apache.kylin.tool.MaintainModeTool", "-off"];
    run_script(tools, home, "kylin.sh", &args).map(drop)
}

fn run(tools: &MetadataTools<'_>, home: &Path, args: &[&str]) -> Result<Ran, MetadataError> {
    run_script(tools, home, "metastore.sh", args)
}

/// One folder's names; none where no entry lies below it. The working directory was proven reachable for the listing as a
/// whole: only names are read, and on a cluster each proof is a start of Java in the downtime.
fn list(tools: &MetadataTools<'_>, home: &Path, folder: &str) -> Result<Names, MetadataError> {
    let mut line = Line::default();
    let call = script_call(home, "metastore.sh", &["list", folder], tools.time_limit);
    let ran = tools.shell.attend(&call, &mut line).map_err(|source| not_run(&call, source))?;
    no_traces_of_damage(&ran.stdout, &ran.stderr)?;
    let names = if ran.code == Some(0) { line.names(folder) } else { None };
    names.ok_or_else(|| MetadataError::NotListed {
        folder: folder.to_owned(),
        ended: how_it_ended(&ran),
        home: home.into(),
    })
}

/// Runs one of the scripts that touch the metadata, once the working directory is proven reachable (reference 22.1).
pub(super) fn run_script(
    tools: &MetadataTools<'_>,
    home: &Path,
    script: &str,
    args: &[&str],
) -> Result<Ran, MetadataError> {
    // Before every command, not once: the directory may go away between two.
    prove_reachable(tools)?;
    let call = script_call(home, script, args, tools.time_limit);
    tools.shell.run(&call).map_err(|source| not_run(&call, source))
}

fn not_run(call: &Call, source: io::Error) -> MetadataError {
    MetadataError::Script { program: RawPath::from(call.program.as_path()), source }
}

fn prove_reachable(tools: &MetadataTools<'_>) -> Result<(), MetadataError> {
    (tools.working_dir_reachable)().map_err(|why| MetadataError::Unreachable { why })
}

fn refuse_blank(home: &Path) -> Result<(), MetadataError> {
    let raw = RawPath::from(home);
    if raw.as_bytes().iter().any(u8::is_ascii_whitespace) {
        return Err(MetadataError::BlankInHome { home: raw });
    }
    Ok(())
}

fn names(fs: &dyn Fs, dir: &Path) -> Result<BTreeSet<OsString>, MetadataError> {
    match fs.list(dir) {
        Ok(names) => Ok(names.into_iter().collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(source) => Err(MetadataError::Look { dir: dir.into(), source }),
    }
}

/// Looks for what every backup of a used system holds. A directory with `UUID` alone is an empty one.
fn check_content(fs: &dyn Fs, dir: &Path, layout: Layout) -> Result<(), MetadataError> {
    let incomplete = |missing| MetadataError::Incomplete { dir: dir.into(), missing };
    let look = |source| MetadataError::Look { dir: dir.into(), source };
    match stat_opt(fs, dir).map_err(look)? {
        Some(meta) if meta.kind == Kind::Dir => {}
        _ => return Err(incomplete("directory")),
    }
    let top = names(fs, dir)?;
    match layout {
        Layout::Tomcat => {
            if top.iter().all(|name| name == "UUID") {
                return Err(incomplete("entry but `UUID` at most"));
            }
            let projects = names(fs, &dir.join("project"))?;
            if !projects.iter().any(|name| Path::new(name).extension().is_some_and(|e| e == "json")) {
                return Err(incomplete("`project/*.json`"));
            }
        }
        Layout::Server => {
            for missing in ["UUID", "_image", "_global"] {
                if !top.contains(OsString::from(missing).as_os_str()) {
                    return Err(incomplete(missing));
                }
            }
            let is_project = |name: &OsString| {
                let meta = stat_opt(fs, &dir.join(name)).map_err(look)?;
                Ok(name != "_image" && name != "_global" && meta.is_some_and(|meta| meta.kind == Kind::Dir))
            };
            let projects: Vec<bool> = top.iter().map(is_project).collect::<Result<_, MetadataError>>()?;
            if !projects.contains(&true) {
                return Err(incomplete("directory of a project"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
