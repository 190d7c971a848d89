//! Which home is meant, and where its state is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::WhichArgs;
use super::doomed::Doomed;
use super::error::CommandError;
use crate::effect::fs::{Fs, Kind, stat_opt};
use crate::effect::os::{OsFs, real_path};
use crate::effect::tree::parent_of;
use crate::raw_path::RawPath;
use crate::state_dir::StateDir;

/// How many links a home may be behind.
const LINKS_LIMIT: usize = 40;

/// Linux' magic number of NFS.
const NFS_MAGIC: u64 = 0x6969;

/// A home and its state directory.
#[derive(Clone, Debug)]
pub struct Place {
    /// The home's real path; what the state directory says if only that was given.
    pub home: Option<PathBuf>,
    /// The state directory.
    pub state: StateDir,
    /// What to add to a command to mean this place again.
    pub words: String,
    /// For a run of a rehearsal: when it dies.
    pub doomed: Option<Arc<Doomed>>,
}

impl Place {
    /// Finds the place that the arguments, or `KYLIN_HOME`, mean.
    pub fn of(which: &WhichArgs) -> Result<Self, CommandError> {
        let named = which.home.clone().or_else(|| match &which.state_dir {
            Some(_) => None,
            None => std::env::var_os("KYLIN_HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
        });
        let home = named.as_deref().map(real_home).transpose()?;
        let state = match (&which.state_dir, &home) {
            (Some(dir), _) => StateDir::at(real_as_far_as_there(&absolute(dir)?)),
            (None, Some(home)) => StateDir::default_for(home),
            (None, None) => {
                return Err(CommandError::usage("no home was given")
                    .why("neither OLD_KYLIN_HOME nor `--state-dir` was given, and `$KYLIN_HOME` is not set")
                    .hint("kytx <command> /path/to/kylin-home"));
            }
        };
        let mut words = String::new();
        if let Some(home) = &home {
            words = format!(" {}", quoted(home.as_os_str()));
        }
        if let Some(dir) = &which.state_dir {
            words = format!("{words} --state-dir {}", quoted(dir.as_os_str()));
        }
        let doomed = which.doom.as_deref().map(|file| Doomed::of(file, home.as_deref())).transpose()?;
        Ok(Self { home, state, words, doomed: doomed.map(Arc::new) })
    }

    /// The same home with its state in another directory.
    #[must_use]
    pub fn with_state(&self, state: StateDir) -> Self {
        let mut words =
            self.home.as_ref().map_or_else(String::new, |home| format!(" {}", quoted(home.as_os_str())));
        let is_default = self.home.as_deref().is_some_and(|home| StateDir::default_for(home) == state);
        if !is_default {
            words = format!("{words} --state-dir {}", quoted(state.root().as_os_str()));
        }
        Self { home: self.home.clone(), state, words, doomed: self.doomed.clone() }
    }

    /// A command of kytx for this place, as it is typed.
    pub fn command(&self, command: &str) -> String {
        format!("kytx {command}{}", self.words)
    }

    /// Refuses a home or a state directory that the product's metadata tool could not work with, and a state directory
    /// that cannot do its work: on another file system than the home, inside it, or on a
    /// network file system, where locks and renames do not mean what they mean here.
    pub fn check_state_dir(&self, home: &Path) -> Result<(), CommandError> {
        let root = self.state.root();
        check_for_the_metadata_tool(home)?;
        check_for_the_metadata_tool(root)?;
        let show = RawPath::from(root);
        if root.starts_with(home) {
            return Err(CommandError::refused(format!("the state directory `{show}` lies inside the home"))
                .why("it would be swapped away with it")
                .hint("kytx begin ... --state-dir DIR, with DIR beside the home"));
        }
        if home.starts_with(root) {
            return Err(CommandError::refused(format!("the home lies inside the state directory `{show}`"))
                .why("a tree cannot be swapped with one that it lies in")
                .hint("kytx begin ... --state-dir DIR, with DIR beside the home"));
        }
        let there = root.ancestors().find(|dir| stat_opt(&OsFs, dir).is_ok_and(|meta| meta.is_some()));
        let there = there.unwrap_or(Path::new("/"));
        let unseen = |path: &Path, error: std::io::Error| {
            CommandError::refused(format!("cannot look at `{}`", RawPath::from(path)))
                .because(&error)
                .hint("run kytx as the user that owns the home")
        };
        let device = |path: &Path| OsFs.stat(path).map(|meta| meta.dev).map_err(|error| unseen(path, error));
        if device(there)? != device(parent_of(home))? {
            return Err(CommandError::refused(format!("the state directory `{show}` is on another file system"))
                .why("the spare tree in it is swapped with the home by a rename, which works within one file system only")
                .hint("kytx begin ... --state-dir DIR, with DIR on the file system of the home"));
        }
        if is_nfs(there).map_err(|error| unseen(there, error))? {
            return Err(CommandError::refused(format!("the state directory `{show}` is on NFS"))
                .why("file locks and renames there do not give the guarantees that kytx builds on")
                .hint("kytx begin ... --state-dir DIR, with DIR on a local disk"));
        }
        Ok(())
    }
}

/// The product's metadata tool cuts paths at a blank, backs up nothing, and reports success; the way back would hand it
/// the backup in the state directory. Found here, not in the downtime.
pub fn check_for_the_metadata_tool(path: &Path) -> Result<(), CommandError> {
    let fit = path.to_str().is_some_and(|text| !text.contains(char::is_whitespace));
    if fit {
        return Ok(());
    }
    let show = RawPath::from(path);
    Err(CommandError::refused(format!("the product's metadata tool cannot work with the path `{show}`"))
        .why("it cuts a path at a blank, and takes UTF-8 only")
        .hint("move the home, or give a --state-dir, so that neither path has such a name in it"))
}

#[allow(clippy::unnecessary_cast, reason = "the width differs between architectures")]
fn is_nfs(path: &Path) -> std::io::Result<bool> {
    Ok(is_nfs_magic(rustix::fs::statfs(path)?.f_type as u64))
}

fn is_nfs_magic(magic: u64) -> bool {
    magic == NFS_MAGIC
}

/// A path as a shell takes it.
pub fn quoted(path: &OsStr) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path made absolute, without resolving anything.
pub fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|error| {
        CommandError::usage(format!("cannot resolve `{}`", RawPath::from(path)))
            .because(&error)
            .hint("give an absolute path")
    })
}

/// A path without the links in that part of it that is there already: what is made below a link is made where it leads,
/// and has one name.
pub fn real_as_far_as_there(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|part| Some((part, real_path(part).ok()?)));
    match there {
        Some((part, real)) => match path.strip_prefix(part) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path.to_owned(),
    }
}

/// The real path of a home: a link to it stays, and what is swapped is its target. The last component need not exist,
/// as a crash may have come between two renames.
fn real_home(named: &Path) -> Result<PathBuf, CommandError> {
    let mut path = absolute(named)?;
    for _ in 0..LINKS_LIMIT {
        let Ok(Some(meta)) = stat_opt(&OsFs, &path) else { break };
        if meta.kind != Kind::Symlink {
            break;
        }
        let target = OsFs.read_link(&path).map_err(|error| unresolved(named).because(&error))?;
        path = parent_of(&path).join(target);
    }
    let Some(name) = path.file_name() else {
        // `/`, or a path that ends in `..`.
        return real_path(&path).map_err(|error| unresolved(named).because(&error));
    };
    let parent = real_path(parent_of(&path)).map_err(|error| unresolved(named).because(&error))?;
    Ok(parent.join(name))
}

fn unresolved(path: &Path) -> CommandError {
    CommandError::refused(format!("cannot find `{}`", RawPath::from(path)))
        .hint("give the path of the installed home")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nfs_is_told_from_local_file_systems() {
        assert!(is_nfs_magic(0x6969));
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994] {
            assert!(!is_nfs_magic(local), "ext4, xfs, btrfs, tmpfs");
        }
        assert!(!is_nfs(&std::env::temp_dir()).unwrap());
    }

    #[test]
    fn a_path_is_quoted_for_a_shell_when_it_must_be() {
        assert_eq!(quoted(OsStr::new("/opt/ke-3.4+x")), "/opt/ke-3.4+x");
        assert_eq!(quoted(OsStr::new("/opt/my ke")), "'/opt/my ke'");
        assert_eq!(quoted(OsStr::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(OsStr::new("")), "''");
    }

    #[test]
    fn a_directory_below_a_link_has_the_name_of_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        let root = real_path(dir.path()).unwrap();
        OsFs.mkdir(&root.join("there"), 0o755).unwrap();
        OsFs.symlink(Path::new("there"), &root.join("link")).unwrap();
        for (named, real) in
            [("link", "there"), ("link/a/b", "there/a/b"), ("there/a", "there/a"), ("none/a", "none/a")]
        {
            assert_eq!(real_as_far_as_there(&root.join(named)), root.join(real));
        }
    }

    #[test]
    fn a_linked_home_is_its_target_even_while_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = real_path(dir.path()).unwrap();
        OsFs.symlink(Path::new("releases/ke"), &root.join("current")).unwrap();
        OsFs.mkdir(&root.join("releases"), 0o755).unwrap();
        assert_eq!(real_home(&root.join("current")).unwrap(), root.join("releases/ke"));
        OsFs.mkdir(&root.join("releases/ke"), 0o755).unwrap();
        assert_eq!(real_home(&root.join("current/.")).unwrap(), root.join("releases/ke"));
    }
}
