//! A run of `kytx rehearse`'s that is to die at a chosen moment, or to count the moments that there are.
//!
//! The hidden option `--doom FILE` makes one of `begin`, `resume` and `abort`. It is honoured only in a rehearsal: FILE
//! is the one that `kytx rehearse` keeps beside the copy, `../../doom.json` seen from the home.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::error::CommandError;
use crate::effect::doom::Doom;
use crate::effect::fs::{Fs, read_file};
use crate::effect::os::OsFs;
use crate::effect::tree::{atomic_write, parent_of, sibling};
use crate::journal::{Journal, JournalError};
use crate::raw_path::RawPath;
use crate::txn::{Lsn, Record};

/// The name of the file in the rehearsal's directory.
pub const DOOM_FILE: &str = "doom.json";

/// What the rehearsal asks for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Asked {
    /// The step after whose end the calls are counted; from the first call on if left out.
    pub after: Option<String>,
    /// The call at which to die; 0 for none.
    pub at: u64,
}

/// How far a run had come when it was through with a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The step's name.
    pub step: String,
    /// How many calls there had been.
    pub calls: u64,
}

/// A doomed run.
#[derive(Debug)]
pub struct Doomed {
    /// When it dies.
    pub doom: Arc<Doom>,
    after: Option<String>,
    marks: Mutex<Vec<Mark>>,
    file: PathBuf,
}

impl Doomed {
    /// Reads what the rehearsal asks for; refuses outside of one.
    pub fn of(file: &Path, home: Option<&Path>) -> Result<Self, CommandError> {
        let refuse = |why: String| {
            CommandError::usage("`--doom` is for `kytx rehearse`, which kills a copy of a home").why(why)
        };
        let own = home.map(|home| parent_of(parent_of(home)).join(DOOM_FILE));
        if own.as_deref() != Some(file) {
            return Err(refuse(format!("`{}` is not that of a rehearsal of this home", RawPath::from(file))));
        }
        let text = read_file(&OsFs, file, 1 << 10).map_err(|error| refuse(error.to_string()))?;
        let asked: Asked = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        let doom = Arc::new(Doom::at(asked.at));
        if asked.after.is_none() {
            doom.arm();
        }
        Ok(Self { doom, after: asked.after, marks: Mutex::default(), file: file.to_owned() })
    }

    /// A step is through.
    pub fn mark(&self, step: &str) {
        if self.after.as_deref() == Some(step) {
            self.doom.arm();
        }
        if let Ok(mut marks) = self.marks.lock() {
            marks.push(Mark { step: step.to_owned(), calls: self.doom.calls() });
        }
    }

    /// Leaves the marks for the rehearsal to read.
    pub fn leave_marks(&self) -> std::io::Result<()> {
        let marks = self.marks.lock().map(|marks| marks.clone()).unwrap_or_default();
        let text = serde_json::to_vec(&marks).expect("BUG: marks have a JSON form");
        atomic_write(&OsFs, &marks_path(&self.file), &text, 0o600)
    }
}

/// Reads the marks of a run that came to its end, and removes them.
pub fn take_marks(doom_file: &Path) -> std::io::Result<Vec<Mark>> {
    let path = marks_path(doom_file);
    let marks = serde_json::from_slice(&read_file(&OsFs, &path, 1 << 20)?)?;
    OsFs.unlink(&path)?;
    Ok(marks)
}

fn marks_path(doom_file: &Path) -> PathBuf {
    sibling(doom_file, ".marks")
}

/// A journal under a doom: it may come before a record is appended, and after.
pub struct DoomedJournal<'a> {
    /// The journal.
    pub journal: &'a mut dyn Journal,
    /// When it comes.
    pub doom: &'a Doom,
}

impl Journal for DoomedJournal<'_> {
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        self.doom.call();
        let lsn = self.journal.append(record)?;
        self.doom.call();
        Ok(lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::tree::make_dirs;

    #[test]
    fn a_doom_is_refused_but_beside_the_copy_of_a_rehearsal() {
        let dir = tempfile::tempdir().unwrap();
        let (home, file) = (dir.path().join("opt/ke"), dir.path().join(DOOM_FILE));
        make_dirs(&OsFs, &home, 0o755).unwrap();
        assert!(Doomed::of(&file, Some(&home)).is_err(), "there is no such file");
        atomic_write(&OsFs, &file, br#"{"after":null,"at":3}"#, 0o600).unwrap();
        assert_eq!(Doomed::of(&file, Some(&home)).unwrap().doom.calls(), 0);
        assert!(Doomed::of(&file, None).is_err());
        assert!(Doomed::of(&file, Some(&dir.path().join("ke"))).is_err());
        assert!(Doomed::of(&dir.path().join("opt").join(DOOM_FILE), Some(&home)).is_err());
    }
}
