//! Where kytx keeps its state: beside the installation, on the same file system, never inside it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::effect::fs::{Fs, read_file};
use crate::effect::tree::{Context, atomic_write, make_dirs, parent_of};
use crate::raw_path::RawPath;
use crate::txn::{SideFile, StepId};

/// How the names of the contents of edited files begin.
pub const CONTENT_PREFIX: &str = "content-";

/// The longest side file that is read back.
const SIDE_FILE_LIMIT_BYTES: u64 = 256 << 20;

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

    /// Puts a side file of the plan in place, durably, before the record that names it.
    pub fn write_side(&self, fs: &dyn Fs, name: &str, content: &[u8]) -> io::Result<SideFile> {
        let path = RawPath::from("plan").join(&name.into());
        atomic_write(fs, &self.root.join(path.as_path()), content, 0o600)?;
        Ok(SideFile { path, digest: Digest::of(content) })
    }

    /// Removes the contents of edited files. They hold what a configuration holds, passwords included, so they stay no
    /// longer than a transaction that may have to carry them again. Not synced: what comes back with a lost power is
    /// removed by the next `begin`.
    pub fn remove_contents(&self, fs: &dyn Fs) -> io::Result<()> {
        for name in fs.list(&self.plan())? {
            if name.as_encoded_bytes().starts_with(CONTENT_PREFIX.as_bytes()) {
                fs.unlink(&self.plan().join(name))?;
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
