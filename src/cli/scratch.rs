//! A shell for commands that must leave no trace beside the home: its files go to a scratch directory.

use std::io;
use std::path::{Path, PathBuf};

use crate::effect::fs::Fs;
use crate::effect::os::OsFs;
use crate::effect::run_log::RunLog;
use crate::effect::shell::{OsShell, Shell};
use crate::effect::signal::StopRequests;
use crate::effect::tree::{Context, no_tick, remove_tree};
use crate::kyligence::secrets::mask_text;

/// How many names are tried. Only kytx that were killed leave any.
const NAMES: u32 = 1_000;

/// Runs programs from a fresh directory, which is gone afterwards.
pub fn with_scratch_shell<T>(label: &str, work: impl FnOnce(&dyn Shell, &Path) -> T) -> io::Result<T> {
    let scratch = fresh_dir(label)?;
    let worked = RunLog::create(&scratch, label).map(|log| {
        let shell = OsShell::new(scratch.join("child"), &log, mask_text, StopRequests::none());
        work(&shell, &scratch)
    });
    let _ = remove_tree(&OsFs, &scratch, &no_tick);
    worked
}

/// Process ids are used again, so a name may be taken by what a killed kytx has left, or by another thread of this one.
/// Making the directory is what decides; nothing that is there already is ever used.
fn fresh_dir(label: &str) -> io::Result<PathBuf> {
    let parent = std::env::temp_dir();
    for number in 0..NAMES {
        let scratch = parent.join(format!("kytx-{label}-{}-{number}", std::process::id()));
        match OsFs.mkdir(&scratch, 0o700) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.context("create", &scratch).map(|()| scratch),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists)).context("find a free name in", &parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_way_is_passed_over_and_left_alone() {
        let first = fresh_dir("scratch-test").unwrap();
        let second = fresh_dir("scratch-test").unwrap();
        assert_ne!(first, second);
        let within = with_scratch_shell("scratch-test", |_, scratch| scratch.to_owned()).unwrap();
        assert!(within != first && within != second && !within.exists());
        for dir in [first, second] {
            assert!(dir.is_dir());
            remove_tree(&OsFs, &dir, &no_tick).unwrap();
        }
    }
}
