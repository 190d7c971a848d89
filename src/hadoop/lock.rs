//! The lock of an instance's cube data: one upgrade at a time, from whatever host and whatever home.
//!
//! It belongs to a transaction and not to a process, and no time ends it: an upgrade that was killed keeps it until it
//! has been resumed or aborted. `LOCK` names the transaction and its first run, `LOCK.2`, `LOCK.3` and so on its later
//! runs. Each is written under a name of its own first and then renamed without overwriting: it is whole when it appears,
//! and of any number of contenders one gets it. `LOCK` itself stays in place from the first run to the last, so there is no
//! moment at which a stranger could slip in between two runs, and the numbers only grow.
//!
//! *Crash windows.* Before the rename: a claim that binds nobody, removed with the next release. After it: the next run of
//! the same transaction finds its own name and goes on under the next number. While it is let go: the later runs' names
//! go first and `LOCK` last, so whatever is left still names the transaction.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::HdfsError;
use super::cluster::{COMMAND_LIMIT, Cluster, ClusterError, failed, not_understood};
use super::local::local_path;
use super::parse;
use crate::effect::fs::{Fs, exists, read_file};
use crate::effect::shell::Ran;
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of};
use crate::raw_path::RawPath;

/// How often a contender looks again when names come and go while it looks.
const LOOKS: usize = 5;
/// What HDFS says to a user who may not.
const DENIED: &str = "Permission denied";
/// The longest text of a holder that is read back from a local disk.
const TEXT_LIMIT_BYTES: u64 = 64 << 10;

/// Who holds the lock: a transaction, and one run of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The transaction.
    pub transaction: String,
    /// The number of the run, from 1.
    pub epoch: u32,
    /// The home that is upgraded.
    pub home: RawPath,
    /// Where the journal is, on that host.
    pub state_dir: RawPath,
    /// The host of the run.
    pub host: String,
    /// Which boot of that host, as its kernel names it.
    pub boot: String,
    /// The process.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its user.
    pub user: String,
    /// The version of kytx.
    pub version: String,
    /// The step that was next when the run began.
    pub step: String,
    /// When the run began, in seconds since 1970-01-01 UTC.
    pub since_unix_s: u64,
}

impl Holder {
    fn is_run_of(&self, other: &Self) -> bool {
        let run =
            |holder: &Self| (holder.transaction.clone(), holder.boot.clone(), holder.pid, holder.start_ticks);
        run(self) == run(other)
    }

    fn name(&self) -> String {
        if self.epoch == 1 { "LOCK".to_owned() } else { format!("LOCK.{}", self.epoch) }
    }

    fn claim(&self) -> String {
        format!("claim.{}.{}-{}", self.transaction, self.pid, self.start_ticks)
    }

    fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).expect("BUG: plain data has a JSON form");
        text.push(b'\n');
        text
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { home, host, pid, user, step, .. } = self;
        write!(
            f,
            "the upgrade of `{home}` by {user} on {host}, process {pid}, at step `{step}` when that began"
        )
    }
}

/// Why the lock cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockRefusal {
    /// Somebody has it.
    #[error("{0}")]
    Held(Box<Holder>),
    /// The directory cannot be looked at or changed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// So on a local disk.
    #[error(transparent)]
    Local(#[from] HdfsError),
}

impl LockRefusal {
    /// Whether this user may not write where the lock would be.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Cluster(ClusterError::Failed { said, .. }) => said.contains(DENIED),
            Self::Local(HdfsError::Io(error)) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

/// A directory in which a lock can be.
pub trait LockPlace {
    /// Everybody who is named there.
    fn holders(&self) -> Result<Vec<Holder>, LockRefusal>;
    /// Writes a text under the name of a claim, and gives it its final name if that is free. Whether it was, the next look
    /// says: a connection may break after the rename.
    fn publish(&self, claim: &str, name: &str, text: &[u8]) -> Result<(), LockRefusal>;
    /// Removes names in this order and the claims of a transaction, and the directory and the two above it if nothing
    /// else is in them.
    fn clear(&self, names: &[String], transaction: &str) -> Result<(), LockRefusal>;
}

/// Takes the lock, or takes it over from an earlier run of the same transaction that `is_gone`. Returns the run's number.
///
/// # Errors
/// Another transaction has it, or a run of this one that may be alive; or the place cannot be used.
pub fn take(
    place: &dyn LockPlace,
    me: &Holder,
    is_gone: &dyn Fn(&Holder) -> bool,
) -> Result<u32, LockRefusal> {
    let (mut refused, mut has_claim) = (None, false);
    for _ in 0..LOOKS {
        let holders = place.holders()?;
        if let Some(stranger) = newest(holders.iter().filter(|other| other.transaction != me.transaction)) {
            if has_claim {
                place.clear(&[], &me.transaction)?;
            }
            return Err(LockRefusal::Held(Box::new(stranger.clone())));
        }
        let next = match newest(holders.iter()) {
            Some(run) if run.is_run_of(me) => return Ok(run.epoch),
            Some(run) if !is_gone(run) => return Err(LockRefusal::Held(Box::new(run.clone()))),
            Some(run) => Holder { epoch: run.epoch + 1, ..me.clone() },
            None => Holder { epoch: 1, ..me.clone() },
        };
        // Refused if another was faster, which the next look says as well.
        has_claim = true;
        refused = place.publish(&next.claim(), &next.name(), &next.text()).err();
    }
    Err(refused.unwrap_or_else(|| {
        let changing = ClusterError::Changed("LOCK".into());
        LockRefusal::Cluster(changing)
    }))
}

/// Lets the lock go if this transaction has it, and removes what it left there in any case.
pub fn release(place: &dyn LockPlace, transaction: &str) -> Result<(), LockRefusal> {
    let mut own = place.holders()?;
    own.retain(|holder| holder.transaction == transaction);
    // `LOCK` last: what a kill leaves still names the transaction.
    own.sort_by_key(|holder| std::cmp::Reverse(holder.epoch));
    let names: Vec<String> = own.iter().map(Holder::name).collect();
    place.clear(&names, transaction)
}

fn newest<'a>(holders: impl Iterator<Item = &'a Holder>) -> Option<&'a Holder> {
    holders.max_by_key(|holder| holder.epoch)
}

/// A lock on a cluster.
pub struct ClusterLock<'a> {
    /// The cluster.
    pub cluster: &'a Cluster<'a>,
    /// The directory.
    pub dir: RawPath,
    /// Where a claim is written before it is put there.
    pub scratch: PathBuf,
    /// The local file system.
    pub fs: &'a dyn Fs,
}

impl LockPlace for ClusterLock<'_> {
    fn holders(&self) -> Result<Vec<Holder>, LockRefusal> {
        let words = ["fs", "-cat"];
        let pattern = parse::literal(&self.dir).join(&"LOCK*".into());
        let (lines, ran) =
            self.cluster.ask("hadoop", &words, std::slice::from_ref(&pattern), COMMAND_LIMIT)?;
        if ran.code != Some(0) {
            let absent = parse::says_absent(&ran.stderr, &pattern);
            return if absent { Ok(Vec::new()) } else { Err(failed("hadoop", &words, &ran).into()) };
        }
        let holder = |line: &Vec<u8>| {
            serde_json::from_slice(line)
                .map_err(|_| LockRefusal::from(not_understood("hadoop fs -cat LOCK", line)))
        };
        lines.iter().map(holder).collect()
    }

    fn publish(&self, claim: &str, name: &str, text: &[u8]) -> Result<(), LockRefusal> {
        let local = |error: io::Error| LockRefusal::Local(error.into());
        make_dirs(self.fs, parent_of(&self.scratch), 0o700).map_err(local)?;
        atomic_write(self.fs, &self.scratch, text, 0o600).map_err(local)?;
        // Never what is above: a working directory that is away must be missed, and not be there again, empty.
        let dirs: Vec<RawPath> = with_holders(&self.dir).into_iter().rev().collect();
        let words = ["fs", "-Dfs.permissions.umask-mode=077", "-mkdir"];
        // Those that are there are an error to it. What else was wrong the next command says, except that it may not be
        // done: without the directory that is one more missing name.
        let (_, ran) = self.cluster.ask("hadoop", &words, &dirs, COMMAND_LIMIT)?;
        if let Some(denied) = ran.stderr.lines().find(|line| line.contains(DENIED)) {
            return Err(failed("hadoop", &words, &Ran { stderr: denied.to_owned(), ..ran }).into());
        }
        let claim = self.dir.join(&claim.into());
        self.cluster.put(&self.scratch, &claim)?;
        Ok(self.cluster.rename(&claim, &self.dir.join(&name.into()))?)
    }

    fn clear(&self, names: &[String], transaction: &str) -> Result<(), LockRefusal> {
        let mut paths: Vec<RawPath> = names.iter().map(|name| self.dir.join(&name.as_str().into())).collect();
        paths = paths.iter().map(parse::literal).collect();
        paths.push(parse::literal(&self.dir).join(&format!("claim.{transaction}.*").as_str().into()));
        let words = ["fs", "-rm", "-f", "-skipTrash"];
        self.cluster.ask_surely("hadoop", &words, &paths, COMMAND_LIMIT)?;
        Ok(self.cluster.remove_if_empty(&with_holders(&self.dir))?)
    }
}

/// A directory and the two above it, lowest first: `<root>/lock/<instance>`.
fn with_holders(dir: &RawPath) -> Vec<RawPath> {
    let mut dirs = vec![dir.clone()];
    for _ in 0..2 {
        let lowest = dirs.last().expect("BUG: there is one").as_bytes();
        let end = lowest.iter().rposition(|byte| *byte == b'/').expect("BUG: it has a directory above");
        dirs.push(RawPath::new(&lowest[..end]));
    }
    dirs
}

/// A lock on a local disk, which hosts may share.
pub struct LocalLock<'a> {
    /// The file system.
    pub fs: &'a dyn Fs,
    /// The directory, as a `file:` path.
    pub dir: RawPath,
}

impl LocalLock<'_> {
    fn names(&self, dir: &Path) -> Result<Vec<String>, HdfsError> {
        if !exists(self.fs, dir).context("look at", dir)? {
            return Ok(Vec::new());
        }
        let names = self.fs.list(dir).context("list", dir)?;
        Ok(names.iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }
}

impl LockPlace for LocalLock<'_> {
    fn holders(&self) -> Result<Vec<Holder>, LockRefusal> {
        let dir = local_path(&self.dir)?;
        let mut holders = Vec::new();
        for name in self.names(&dir)?.iter().filter(|name| name.starts_with("LOCK")) {
            let path = dir.join(name);
            match read_file(self.fs, &path, TEXT_LIMIT_BYTES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LockRefusal::Local(error.into())),
                Ok(text) => holders.push(
                    serde_json::from_slice(&text)
                        .map_err(|_| not_understood(&format!("the lock `{}`", path.display()), &text))?,
                ),
            }
        }
        Ok(holders)
    }

    fn publish(&self, claim: &str, name: &str, text: &[u8]) -> Result<(), LockRefusal> {
        let dir = local_path(&self.dir)?;
        let publish = || -> io::Result<()> {
            let root = dir.ancestors().nth(3).unwrap_or(&dir);
            if !exists(self.fs, root).context("look at", root)? {
                // Made here, a working directory that is away would be there again, empty.
                let why = format!("the working directory `{}` is not there", root.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, why));
            }
            make_dirs(self.fs, &dir, 0o700)?;
            let (claim, name) = (dir.join(claim), dir.join(name));
            atomic_write(self.fs, &claim, text, 0o600)?;
            // A second name is never given over an existing one, whoever else asks for it in the same moment.
            let linked = self.fs.hard_link(&claim, &name).context("claim", &name);
            self.fs.unlink(&claim).context("remove", &claim)?;
            self.fs.sync_dir(&dir).context("sync", &dir)?;
            linked
        };
        publish().map_err(|error| LockRefusal::Local(error.into()))
    }

    fn clear(&self, names: &[String], transaction: &str) -> Result<(), LockRefusal> {
        let dir = local_path(&self.dir)?;
        let clear = || -> Result<(), HdfsError> {
            let claims = format!("claim.{transaction}.");
            let there = self.names(&dir)?;
            let stray = there.iter().filter(|name| name.starts_with(&claims));
            for name in names.iter().filter(|name| there.contains(name)).chain(stray) {
                let path = dir.join(name);
                self.fs.unlink(&path).context("remove", &path)?;
                self.fs.sync_dir(&dir).context("sync", &dir)?;
            }
            let hdfs = super::local::LocalHdfs::new(self.fs);
            with_holders(&self.dir).iter().try_for_each(|dir| super::Hdfs::remove_if_empty(&hdfs, dir))
        };
        clear().map_err(LockRefusal::Local)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "it makes and breaks what the lock meets")]
mod tests {
    use super::*;
    use crate::effect::os::OsFs;

    fn holder(transaction: &str, pid: u32) -> Holder {
        Holder {
            transaction: transaction.to_owned(),
            epoch: 0,
            home: "/opt/kyligence".into(),
            state_dir: "/opt/.kytx/kyligence".into(),
            host: "node1".to_owned(),
            boot: "b".to_owned(),
            pid,
            start_ticks: 7,
            user: "ke".to_owned(),
            version: "0".to_owned(),
            step: "stop-service".to_owned(),
            since_unix_s: 0,
        }
    }

    fn place(dir: &Path) -> LocalLock<'static> {
        std::fs::create_dir_all(dir.join("kylin")).unwrap();
        let dir = format!("file:{}/kylin/_kytx/lock/m", dir.display());
        LocalLock { fs: &OsFs, dir: dir.as_str().into() }
    }

    #[test]
    fn i8_of_many_contenders_one_gets_it_and_the_others_are_told_who() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let taken: Vec<Result<u32, LockRefusal>> = std::thread::scope(|scope| {
                let take = |number: u32| {
                    let dir = dir.path();
                    scope.spawn(move || take(&place(dir), &holder(&format!("t{number}"), number), &|_| true))
                };
                let threads: Vec<_> = (0..8).map(take).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let owners: Vec<usize> = (0..8).filter(|at| taken[*at].is_ok()).collect();
            assert_eq!(owners.len(), 1, "round {round}: {taken:?}");
            for refusal in taken.iter().filter_map(|taken| taken.as_ref().err()) {
                assert!(
                    matches!(refusal, LockRefusal::Held(who) if who.transaction == format!("t{}", owners[0])),
                    "{refusal:?}"
                );
            }
            release(&place(dir.path()), &format!("t{}", owners[0])).unwrap();
            // Those who were refused had nothing to leave.
            for number in 0..8 {
                release(&place(dir.path()), &format!("t{number}")).unwrap();
            }
            assert!(!dir.path().join("kylin/_kytx").exists(), "nothing is left");
        }
    }

    #[test]
    fn a_later_run_takes_over_and_a_stranger_never_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        assert_eq!(take(&place, &holder("t", 1), &|_| false).unwrap(), 1);
        // The same run again: its first answer was lost.
        assert_eq!(take(&place, &holder("t", 1), &|_| false).unwrap(), 1);
        assert!(
            matches!(take(&place, &holder("t", 2), &|_| false), Err(LockRefusal::Held(who)) if who.pid == 1)
        );
        assert_eq!(take(&place, &holder("t", 2), &|_| true).unwrap(), 2);
        assert_eq!(take(&place, &holder("t", 3), &|_| true).unwrap(), 3);
        match take(&place, &holder("u", 4), &|_| true) {
            Err(LockRefusal::Held(who)) => assert_eq!((who.pid, who.epoch), (3, 3)),
            other => panic!("{other:?}"),
        }
        release(&place, "u").unwrap();
        assert!(take(&place, &holder("u", 4), &|_| true).is_err(), "what is not ours is not let go");
        // Killed while it let go: `LOCK` is the last to go.
        let local = dir.path().join("kylin/_kytx/lock/m");
        std::fs::remove_file(local.join("LOCK.3")).unwrap();
        assert!(take(&place, &holder("u", 4), &|_| true).is_err());
        release(&place, "t").unwrap();
        assert!(!dir.path().join("kylin/_kytx").exists());
        assert_eq!(take(&place, &holder("u", 4), &|_| true).unwrap(), 1);
    }

    #[test]
    fn a_working_directory_that_is_away_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        std::fs::remove_dir(dir.path().join("kylin")).unwrap();
        assert!(matches!(take(&place, &holder("t", 1), &|_| true), Err(LockRefusal::Local(_))));
        assert!(!dir.path().join("kylin").exists());
    }

    #[test]
    fn what_cannot_be_understood_is_never_taken_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let local = dir.path().join("kylin/_kytx/lock/m");
        std::fs::create_dir_all(&local).unwrap();
        std::fs::write(local.join("LOCK"), "").unwrap();
        assert!(matches!(take(&place, &holder("t", 1), &|_| true), Err(LockRefusal::Cluster(_))));
    }
}
