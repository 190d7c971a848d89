//! Where kytx keeps its state: beside the installation, on the same file system, never inside it.
//!
//! The default place belongs to the home whatever `--state-dir` says: its lock is held by every run that writes, and
//! while an upgrade keeps its state elsewhere, the claim in it says where.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::effect::fs::{Fs, exists, read_file};
use crate::effect::shell::OUTPUT_NAMES;
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of};
use crate::raw_path::RawPath;
use crate::txn::{SideFile, StepId, TxnId};

/// How the names of the contents of edited files begin.
pub const CONTENT_PREFIX: &str = "content-";

/// The longest side file that is read back.
const SIDE_FILE_LIMIT_BYTES: u64 = 256 << 20;

/// The longest claim that is read back.
const CLAIM_LIMIT_BYTES: u64 = 64 << 10;

/// Which upgrade has a home, and where its state is, if that is not the home's default place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The state directory, its real path.
    pub state_dir: RawPath,
    /// The transaction. A journal of another one there says that this claim is out of date.
    pub transaction: TxnId,
}

/// The state directory of one home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The default place for a home: `<parent>/.kytx/<name>`. `home` must be its real path.
    pub fn default_for(home: &Path) -> Self {
        let name = home.file_name().unwrap_or_default();
        Self { root: parent_of(home).join(".kytx").join(name) }
    }

    /// A place that the operator chose.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes the directories that every run needs. The root is closed to others, as it holds copies of metadata.
    pub fn prepare(&self, fs: &dyn Fs) -> io::Result<()> {
        make_dirs(fs, &self.root, 0o700)?;
        for dir in [self.log(), self.backup(), self.plan(), self.steps()] {
            make_dirs(fs, &dir, 0o700)?;
        }
        Ok(())
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// kytx's own lock.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Who holds it.
    pub fn holder(&self) -> PathBuf {
        self.root.join("holder.json")
    }

    /// In a home's default place: where the state of its open upgrade is, if it is elsewhere.
    pub fn claim(&self) -> PathBuf {
        self.root.join("claim.json")
    }

    /// The orphan lock.
    pub fn child(&self) -> PathBuf {
        self.root.join("child")
    }

    /// The other tree: new before the exchange, old after it.
    pub fn spare(&self) -> PathBuf {
        self.root.join("spare")
    }

    /// Manifests and metadata backups.
    pub fn backup(&self) -> PathBuf {
        self.root.join("backup")
    }

    /// What the plan names by digest.
    pub fn plan(&self) -> PathBuf {
        self.root.join("plan")
    }

    /// What the intents name by digest.
    pub fn steps(&self) -> PathBuf {
        self.root.join("steps")
    }

    /// The logs of the runs.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Journals of transactions that have ended.
    pub fn history(&self) -> PathBuf {
        self.root.join("history")
    }

    /// Reads the claim in a home's default place.
    ///
    /// # Errors
    /// Also for what is no claim: it is written at one stroke, so it was damaged or written by somebody else.
    pub fn read_claim(&self, fs: &dyn Fs) -> io::Result<Option<Claim>> {
        let path = self.claim();
        match read_file(fs, &path, CLAIM_LIMIT_BYTES) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).map_err(io::Error::from).context("understand", &path)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error).context("read", &path),
        }
    }

    /// Puts a claim in place, durably, or replaces one.
    pub fn write_claim(&self, fs: &dyn Fs, claim: &Claim) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(claim).expect("BUG: a claim has a JSON form");
        atomic_write(fs, &self.claim(), &text, 0o600)
    }

    /// Removes the claim, if there is one, durably.
    pub fn remove_claim(&self, fs: &dyn Fs) -> io::Result<()> {
        let path = self.claim();
        if exists(fs, &path).context("look at", &path)? {
            fs.unlink(&path).context("remove", &path)?;
            fs.sync_dir(&self.root).context("sync", &self.root)?;
        }
        Ok(())
    }

    /// Puts a side file of the plan in place, durably, before the record that names it.
    pub fn write_side(&self, fs: &dyn Fs, name: &str, content: &[u8]) -> io::Result<SideFile> {
        let path = RawPath::from("plan").join(&name.into());
        atomic_write(fs, &self.root.join(path.as_path()), content, 0o600)?;
        Ok(SideFile { path, digest: Digest::of(content) })
    }

    /// Removes the contents of edited files. They hold what a configuration holds, passwords included, so they stay no
    /// longer than a transaction that may have to carry them again. Removes the names of output files as well, which
    /// a kill may have left. Not synced: what comes back with a lost power is removed by the next `begin`.
    pub fn remove_contents(&self, fs: &dyn Fs) -> io::Result<()> {
        for name in fs.list(&self.plan())? {
            if name.as_encoded_bytes().starts_with(CONTENT_PREFIX.as_bytes()) {
                fs.unlink(&self.plan().join(name))?;
            }
        }
        for name in OUTPUT_NAMES {
            let path = self.root.join(name);
            if exists(fs, &path)? {
                fs.unlink(&path)?;
            }
        }
        Ok(())
    }

    /// Reads a side file and holds it against the digest that names it.
    pub fn read_side(&self, fs: &dyn Fs, side: &SideFile) -> io::Result<Vec<u8>> {
        read_checked(fs, &self.root.join(side.path.as_path()), side.digest)
    }

    /// Puts down what a step works from, durably, before its intent.
    pub fn write_inputs(&self, fs: &dyn Fs, step: StepId, content: &[u8]) -> io::Result<Digest> {
        atomic_write(fs, &self.inputs_path(step), content, 0o600)?;
        Ok(Digest::of(content))
    }

    /// Reads what a step works from, as its durable intent names it.
    pub fn read_inputs(&self, fs: &dyn Fs, step: StepId, inputs: Digest) -> io::Result<Vec<u8>> {
        read_checked(fs, &self.inputs_path(step), inputs)
    }

    fn inputs_path(&self, step: StepId) -> PathBuf {
        self.steps().join(format!("{step}.inputs"))
    }
}

fn read_checked(fs: &dyn Fs, path: &Path, digest: Digest) -> io::Result<Vec<u8>> {
    let content = read_file(fs, path, SIDE_FILE_LIMIT_BYTES).context("read", path)?;
    if Digest::of(&content) != digest {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("`{}` is not what the journal names: it has been changed", path.display()),
        ));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::os::OsFs;

    fn prepared(dir: &Path) -> StateDir {
        let state = StateDir::default_for(&dir.join("kyligence"));
        state.prepare(&OsFs).unwrap();
        state
    }

    #[test]
    fn it_lies_beside_the_home_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let state = prepared(dir.path());
        assert_eq!(state.root(), dir.path().join(".kytx/kyligence"));
        assert_eq!(OsFs.stat(state.root()).unwrap().mode, 0o700);
        state.prepare(&OsFs).unwrap();
        for path in [state.lock(), state.holder(), state.child(), state.spare(), state.history()] {
            assert_eq!(path.parent(), Some(state.root()));
        }
    }

    #[test]
    fn a_claim_is_replaced_removed_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let place = StateDir::default_for(&dir.path().join("kyligence"));
        assert_eq!(place.read_claim(&OsFs).unwrap(), None, "not even the directory is there");
        place.remove_claim(&OsFs).unwrap();
        place.prepare(&OsFs).unwrap();
        let claim = |dir: &str| Claim { state_dir: dir.into(), transaction: TxnId("0123".to_owned()) };
        place.write_claim(&OsFs, &claim("/a")).unwrap();
        place.write_claim(&OsFs, &claim("/b")).unwrap();
        assert_eq!(place.read_claim(&OsFs).unwrap(), Some(claim("/b")));
        atomic_write(&OsFs, &place.claim(), b"{", 0o600).unwrap();
        let error = place.read_claim(&OsFs).unwrap_err();
        assert!(error.to_string().contains("claim.json"), "{error}");
        place.remove_claim(&OsFs).unwrap();
        assert_eq!(place.read_claim(&OsFs).unwrap(), None);
    }

    #[test]
    fn names_that_a_kill_left_to_output_files_go_with_the_contents() {
        let dir = tempfile::tempdir().unwrap();
        let state = prepared(dir.path());
        for name in OUTPUT_NAMES {
            atomic_write(&OsFs, &state.root().join(name), b"", 0o600).unwrap();
        }
        let before = OsFs.list(state.root()).unwrap().len();
        state.remove_contents(&OsFs).unwrap();
        state.remove_contents(&OsFs).unwrap();
        assert_eq!(OsFs.list(state.root()).unwrap().len(), before - OUTPUT_NAMES.len());
    }

    #[test]
    fn a_side_file_is_refused_once_it_is_not_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let state = prepared(dir.path());
        let side = state.write_side(&OsFs, "carry.json", b"list").unwrap();
        assert_eq!(state.read_side(&OsFs, &side).unwrap(), b"list");
        state.write_side(&OsFs, "carry.json", b"another").unwrap();
        let error = state.read_side(&OsFs, &side).unwrap_err();
        assert!(error.to_string().contains("has been changed"), "{error}");
        OsFs.unlink(&state.plan().join("carry.json")).unwrap();
        let error = state.read_side(&OsFs, &side).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("carry.json"), "{error}");
    }

    #[test]
    fn i2_inputs_are_read_as_the_intent_names_them_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let state = prepared(dir.path());
        let first = state.write_inputs(&OsFs, StepId(3), b"inodes").unwrap();
        assert_eq!(state.read_inputs(&OsFs, StepId(3), first).unwrap(), b"inodes");
        let second = state.write_inputs(&OsFs, StepId(3), b"others").unwrap();
        assert!(state.read_inputs(&OsFs, StepId(3), first).is_err());
        assert_eq!(state.read_inputs(&OsFs, StepId(3), second).unwrap(), b"others");
        assert!(state.read_inputs(&OsFs, StepId(4), second).is_err());
    }
}
