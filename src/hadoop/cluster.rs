//! A cluster's file system through the `hadoop` and `hdfs` programs, which are there wherever the product is.
//!
//! Each program is a Java that takes a second to start, so every question here is asked of many paths at once. Exit codes
//! decide nothing: "absent", "NameNode down" and "forbidden" are one code. A path is absent where the program says so of
//! that path; after a change the caller looks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::manifest::CubeEntry;
use super::parse::{self, Counted, Listed};
use crate::effect::shell::{Attendant, Call, Ran, Shell, ending};
use crate::raw_path::RawPath;

/// How long a question or a change of a few names may take. A client that finds nobody tries for some minutes.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_mins(5);
/// How long a listing of everything may take, with a checksum for each file.
pub(super) const SURVEY_LIMIT: Duration = Duration::from_hours(6);
/// Arguments of one call, in bytes: a quarter of what the kernel takes at most.
const ARGUMENT_BYTES: usize = 512 << 10;

/// Why something could not be learned or done on the cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A program could not be run at all.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program did not do what it was asked for.
    #[error("`{what}` failed ({ended}): {said}")]
    Failed {
        /// The command, its paths left out.
        what: String,
        /// How it ended.
        ended: String,
        /// What it complained about.
        said: String,
    },
    /// A program said something that cannot be understood, such as a name with a line break in it.
    #[error("cannot understand what `{what}` says: `{line}`")]
    NotUnderstood {
        /// The command.
        what: String,
        /// The line.
        line: RawPath,
    },
    /// The file system has no checksum for a file: then nothing says that two files are equal.
    #[error("there is no checksum for `{0}`")]
    NoChecksum(RawPath),
    /// Names came or went between two looks.
    #[error("`{0}` changed while it was looked at: is anything still writing there?")]
    Changed(RawPath),
    /// A name that must be free is taken, or one that must be there is not.
    #[error("`{path}` {what}")]
    Wrong {
        /// The path.
        path: RawPath,
        /// What is wrong.
        what: String,
    },
    /// A stop was asked for.
    #[error(transparent)]
    Stopped(io::Error),
}

/// A cluster's file system.
pub struct Cluster<'a> {
    shell: &'a dyn Shell,
    cwd: PathBuf,
}

/// Keeps every line of standard output to itself.
#[derive(Default)]
struct Lines(Vec<Vec<u8>>);

impl Attendant for Lines {
    fn takes(&mut self, line: &[u8]) -> bool {
        self.0.push(line.to_vec());
        true
    }
}

/// Lets standard output go.
struct Silence;

impl Attendant for Silence {
    fn discards_output(&self) -> bool {
        true
    }
}

impl<'a> Cluster<'a> {
    /// Works through this shell; programs run in the directory `cwd`.
    pub fn new(shell: &'a dyn Shell, cwd: &Path) -> Self {
        Self { shell, cwd: cwd.to_owned() }
    }

    /// A call of one of the programs, in a locale in which every name can be said.
    pub(super) fn call(
        &self,
        program: &str,
        words: &[&str],
        paths: &[RawPath],
        limit: Option<Duration>,
    ) -> Call {
        let mut args: Vec<OsString> = words.iter().map(Into::into).collect();
        args.extend(paths.iter().map(|path| OsString::from_vec(path.as_bytes().to_vec())));
        let utf8 = |name: &str| {
            let value = std::env::var(name).unwrap_or_default().to_ascii_lowercase();
            value.contains("utf-8") || value.contains("utf8")
        };
        let mut set: BTreeMap<OsString, OsString> = BTreeMap::new();
        // Java reads arguments in the encoding of the locale: another one turns names into question marks.
        if !utf8("LC_ALL") {
            set.insert("LC_ALL".into(), "C.UTF-8".into());
        }
        let mut options = std::env::var_os("HADOOP_CLIENT_OPTS").unwrap_or_default();
        options.push(" -Dfile.encoding=UTF-8 -Dsun.jnu.encoding=UTF-8");
        set.insert("HADOOP_CLIENT_OPTS".into(), options);
        set.insert("HADOOP_ROOT_LOGGER".into(), "INFO,console".into());
        Call {
            label: [&[program], words].concat().into_iter().take(3).collect::<Vec<_>>().join(" "),
            program: program.into(),
            args,
            cwd: self.cwd.clone(),
            set,
            unset: Vec::new(),
            time_limit: limit,
        }
    }

    pub(super) fn attend(&self, call: &Call, attendant: &mut dyn Attendant) -> Result<Ran, ClusterError> {
        let program = call.program.display().to_string();
        self.shell.attend(call, attendant).map_err(|source| ClusterError::Run { program, source })
    }

    pub(super) fn ask(
        &self,
        program: &str,
        words: &[&str],
        paths: &[RawPath],
        limit: Duration,
    ) -> Result<(Vec<Vec<u8>>, Ran), ClusterError> {
        let mut lines = Lines::default();
        let ran = self.attend(&self.call(program, words, paths, Some(limit)), &mut lines)?;
        Ok((lines.0, ran))
    }

    /// Asks, and takes every exit code but 0 for a failure.
    pub(super) fn ask_surely(
        &self,
        program: &str,
        words: &[&str],
        paths: &[RawPath],
        limit: Duration,
    ) -> Result<Vec<Vec<u8>>, ClusterError> {
        let (lines, ran) = self.ask(program, words, paths, limit)?;
        if ran.code == Some(0) { Ok(lines) } else { Err(failed(program, words, &ran)) }
    }

    fn change(&self, program: &str, words: &[&str], paths: &[RawPath]) -> Result<(), ClusterError> {
        self.ask_surely(program, words, paths, COMMAND_LIMIT).map(|_| ())
    }

    /// What is under each of these names, `None` where nothing is.
    pub fn look(&self, paths: &[RawPath]) -> Result<Vec<Option<Listed>>, ClusterError> {
        let words = ["fs", "-ls", "-d"];
        let literal: Vec<RawPath> = paths.iter().map(parse::literal).collect();
        let (lines, ran) = self.ask("hadoop", &words, &literal, COMMAND_LIMIT)?;
        let listed: Vec<Listed> = lines.iter().filter_map(|line| parse::listed(line)).collect();
        let mut found = Vec::new();
        for path in paths {
            let here = listed.iter().find(|listed| listed.path == *path).cloned();
            if here.is_none() && !parse::says_absent(&ran.stderr, path) {
                return Err(failed("hadoop", &words, &ran));
            }
            found.push(here);
        }
        Ok(found)
    }

    /// The names in a directory, as whole paths; none if it is not there.
    pub fn names_in(&self, dir: &RawPath) -> Result<Vec<RawPath>, ClusterError> {
        let words = ["fs", "-ls"];
        let (lines, ran) = self.ask("hadoop", &words, &[parse::literal(dir)], COMMAND_LIMIT)?;
        if ran.code != Some(0) && !parse::says_absent(&ran.stderr, dir) {
            return Err(failed("hadoop", &words, &ran));
        }
        let mut names = Vec::new();
        for line in &lines {
            match parse::listed(line) {
                Some(listed) => names.push(listed.path),
                None if line.starts_with(b"Found ") => {}
                None => return Err(not_understood("hadoop fs -ls", line)),
            }
        }
        Ok(names)
    }

    /// Makes directories, closed to others, and those above them. Those that are there are fine.
    pub fn make_dirs(&self, dirs: &[RawPath]) -> Result<(), ClusterError> {
        self.change("hadoop", &["fs", "-Dfs.permissions.umask-mode=077", "-mkdir", "-p"], dirs)
    }

    /// Renames, without a look before or after.
    pub fn rename(&self, from: &RawPath, to: &RawPath) -> Result<(), ClusterError> {
        self.change("hadoop", &["fs", "-mv"], &[parse::literal(from), to.clone()])
    }

    /// Renames onto a name that the caller knows to be free, and looks: `-mv` onto a directory moves *into* it, and a
    /// connection may break after the NameNode has renamed.
    pub fn rename_surely(&self, from: &RawPath, to: &RawPath) -> Result<(), ClusterError> {
        let renamed = self.rename(from, to);
        let nested = to.join(&RawPath::new(from.file_name()));
        match self.look(&[from.clone(), to.clone(), nested.clone()])?.as_slice() {
            [None, Some(_), None] => Ok(()),
            [None, _, Some(_)] => {
                // Ours, in the wrong place: back, so that the next attempt finds what this one found.
                self.rename(&nested, from)?;
                Err(ClusterError::Wrong { path: to.clone(), what: "is there already".to_owned() })
            }
            _ => Err(renamed.err().unwrap_or_else(|| ClusterError::Wrong {
                path: from.clone(),
                what: format!("was not renamed to `{to}`"),
            })),
        }
    }

    /// Removes trees, past the trash. Those that are not there are fine.
    pub fn remove(&self, paths: &[RawPath]) -> Result<(), ClusterError> {
        for batch in batches(paths) {
            self.change("hadoop", &["fs", "-rm", "-r", "-f", "-skipTrash"], &batch)?;
        }
        Ok(())
    }

    /// Removes directories that are empty, in this order; others stay as they are, and this is no failure.
    pub fn remove_if_empty(&self, dirs: &[RawPath]) -> Result<(), ClusterError> {
        let words = ["fs", "-rmdir", "--ignore-fail-on-non-empty"];
        let (_, ran) = self.ask("hadoop", &words, dirs, COMMAND_LIMIT)?;
        let fine = |line: &str| dirs.iter().any(|dir| parse::says_absent(line, dir));
        let complaint = parse::complaint(&ran.stderr);
        if ran.code == Some(0) || fine(&complaint) { Ok(()) } else { Err(failed("hadoop", &words, &ran)) }
    }

    /// Puts a local file there, over an earlier one.
    pub fn put(&self, file: &Path, to: &RawPath) -> Result<(), ClusterError> {
        self.change("hadoop", &["fs", "-put", "-f"], &[file.into(), to.clone()])
    }

    /// Gives a directory the permission bits of an entry and, where it may, its owner and group.
    pub fn set_attributes(
        &self,
        path: &RawPath,
        is: &CubeEntry,
        like: &CubeEntry,
    ) -> Result<(), ClusterError> {
        let path = parse::literal(path);
        if (&is.owner, &is.group) != (&like.owner, &like.group) {
            let who = format!("{}:{}", like.owner, like.group);
            // Only a superuser may give away; the comparison afterwards says what could not be set.
            self.ask("hadoop", &["fs", "-chown", &who], std::slice::from_ref(&path), COMMAND_LIMIT)?;
        }
        if !like.acl.is_empty() && is.acl != like.acl {
            self.change("hadoop", &["fs", "-setfacl", "--set", &like.acl], std::slice::from_ref(&path))?;
        }
        if is.mode != like.mode {
            self.change("hadoop", &["fs", "-chmod", &format!("{:o}", like.mode)], &[path])?;
        }
        Ok(())
    }

    /// Whether a file or directory can be given to this owner and group.
    pub fn may_give(&self, path: &RawPath, owner: &str, group: &str) -> Result<bool, ClusterError> {
        let who = format!("{owner}:{group}");
        let (_, ran) = self.ask("hadoop", &["fs", "-chown", &who], &[parse::literal(path)], COMMAND_LIMIT)?;
        let here = self.look(std::slice::from_ref(path))?;
        Ok(ran.code == Some(0)
            && here[0]
                .as_ref()
                .is_some_and(|here| (here.owner.as_str(), here.group.as_str()) == (owner, group)))
    }

    /// Makes a snapshot of a snapshottable directory. One of that name that is there already is fine.
    pub fn create_snapshot(&self, dir: &RawPath, name: &str) -> Result<(), ClusterError> {
        self.change("hadoop", &["fs", "-createSnapshot"], &[dir.clone(), name.into()])
    }

    /// Deletes a snapshot.
    pub fn delete_snapshot(&self, dir: &RawPath, name: &str) -> Result<(), ClusterError> {
        self.change("hadoop", &["fs", "-deleteSnapshot"], &[dir.clone(), name.into()])
    }

    /// Asks the NameNode whether every block below a path has a healthy replica. `Err` inside names what has not.
    pub fn blocks(&self, path: &RawPath) -> Result<Result<(), Vec<String>>, ClusterError> {
        let (lines, ran) = self.ask("hdfs", &["fsck"], std::slice::from_ref(path), SURVEY_LIMIT)?;
        parse::file_system_check(&text(&lines)).ok_or_else(|| failed("hdfs", &["fsck"], &ran))
    }

    /// The files below a path that are open for writing.
    pub fn open_files(&self, path: &RawPath) -> Result<Vec<String>, ClusterError> {
        let words = ["fsck"];
        let paths = [path.clone(), "-openforwrite".into()];
        let (lines, ran) = self.ask("hdfs", &words, &paths, SURVEY_LIMIT)?;
        let said = text(&lines);
        parse::file_system_check(&said).ok_or_else(|| failed("hdfs", &words, &ran))?.ok();
        Ok(parse::open_files(&said))
    }

    /// Reads every byte of files, and lets them go. Returns what the readers complained about, a line a file.
    pub fn read_all(&self, files: &[RawPath]) -> Result<Vec<String>, ClusterError> {
        let mut complaints = Vec::new();
        for batch in batches(files) {
            let ran = self.attend(&self.call("hadoop", &["fs", "-cat"], &batch, None), &mut Silence)?;
            let said: Vec<String> =
                ran.stderr.lines().filter(|line| line.starts_with("cat: ")).map(str::to_owned).collect();
            if ran.code != Some(0) && said.is_empty() {
                return Err(failed("hadoop", &["fs", "-cat"], &ran));
            }
            complaints.extend(said);
        }
        Ok(complaints)
    }

    /// A key of the configuration.
    pub fn configured(&self, key: &str) -> Result<String, ClusterError> {
        let lines = self.ask_surely("hdfs", &["getconf", "-confKey", key], &[], COMMAND_LIMIT)?;
        let last = lines.last().map(|line| String::from_utf8_lossy(line).trim().to_owned());
        Ok(last.unwrap_or_default())
    }

    /// Quotas and sizes of directories.
    pub fn count(&self, dirs: &[RawPath]) -> Result<Vec<Counted>, ClusterError> {
        let literal: Vec<RawPath> = dirs.iter().map(parse::literal).collect();
        let lines = self.ask_surely("hadoop", &["fs", "-count", "-q"], &literal, SURVEY_LIMIT)?;
        let counted =
            |line: &Vec<u8>| parse::counted(line).ok_or_else(|| not_understood("hadoop fs -count -q", line));
        lines.iter().map(counted).collect()
    }

    /// Bytes that are free in the file system that holds a directory.
    pub fn free_bytes(&self, dir: &RawPath) -> Result<u64, ClusterError> {
        let lines = self.ask_surely("hadoop", &["fs", "-df"], &[parse::literal(dir)], COMMAND_LIMIT)?;
        parse::free_bytes(&lines).ok_or_else(|| not_understood("hadoop fs -df", &lines.concat()))
    }

    /// Whether the NameNode is in safe mode, in which nothing can be changed.
    pub fn safe_mode(&self) -> Result<bool, ClusterError> {
        let said = text(&self.ask_surely("hdfs", &["dfsadmin", "-safemode", "get"], &[], COMMAND_LIMIT)?);
        match (said.contains("ON"), said.contains("OFF")) {
            (on, off) if on || off => Ok(on),
            _ => Err(not_understood("hdfs dfsadmin -safemode get", said.as_bytes())),
        }
    }

    /// The directories of which this user may make snapshots.
    pub fn snapshottable(&self) -> Result<Vec<RawPath>, ClusterError> {
        Ok(parse::snapshottable(&text(&self.ask_surely(
            "hdfs",
            &["lsSnapshottableDir"],
            &[],
            COMMAND_LIMIT,
        )?)))
    }

    /// Whether this user may write to a directory; `None` where the release cannot be asked.
    pub fn writable(&self, dir: &RawPath) -> Result<Option<bool>, ClusterError> {
        let (_, ran) = self.ask("hadoop", &["fs", "-test", "-w"], &[parse::literal(dir)], COMMAND_LIMIT)?;
        Ok(match ran.code {
            Some(0) => Some(true),
            Some(1) if !ran.stderr.contains("test: ") => Some(false),
            _ => None,
        })
    }
}

pub(super) fn failed(program: &str, words: &[&str], ran: &Ran) -> ClusterError {
    ClusterError::Failed {
        what: [&[program], words].concat().join(" "),
        ended: ending(ran),
        said: parse::complaint(&ran.stderr),
    }
}

pub(super) fn not_understood(what: &str, line: &[u8]) -> ClusterError {
    ClusterError::NotUnderstood { what: what.to_owned(), line: RawPath::new(line) }
}

fn text(lines: &[Vec<u8>]) -> String {
    lines.iter().map(|line| String::from_utf8_lossy(line) + "\n").collect()
}

/// Paths as literal arguments, in calls that the kernel takes.
pub(super) fn batches(paths: &[RawPath]) -> Vec<Vec<RawPath>> {
    let mut batches: Vec<Vec<RawPath>> = Vec::new();
    let mut bytes = ARGUMENT_BYTES;
    for path in paths {
        let argument = parse::literal(path);
        // A pointer and an end for each.
        let cost = argument.as_bytes().len() + 9;
        if bytes + cost > ARGUMENT_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += cost;
        batches.last_mut().expect("BUG: the first path opens a batch").push(argument);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_stay_within_what_the_kernel_takes_and_lose_no_path() {
        let paths: Vec<RawPath> =
            (0..20_000).map(|n| format!("/kylin/some/longer/path/to/a/file*{n}").as_str().into()).collect();
        let batches = batches(&paths);
        assert!(batches.len() > 1);
        for batch in &batches {
            assert!(batch.iter().map(|path| path.as_bytes().len() + 9).sum::<usize>() <= ARGUMENT_BYTES);
        }
        assert_eq!(batches.concat(), paths.iter().map(parse::literal).collect::<Vec<_>>());
        assert!(super::batches(&[]).is_empty());
    }
}
