//! A shell for commands that must leave no trace beside the home: its files go to a scratch directory.

use std::io;
use std::path::Path;

use crate::effect::fs::Fs;
use crate::effect::os::OsFs;
use crate::effect::run_log::RunLog;
use crate::effect::shell::{OsShell, Shell};
use crate::effect::signal::StopRequests;
use crate::effect::tree::{no_tick, remove_tree};
use crate::kyligence::secrets::mask_text;

/// Runs programs from a fresh directory, which is gone afterwards.
pub fn with_scratch_shell<T>(label: &str, work: impl FnOnce(&dyn Shell, &Path) -> T) -> io::Result<T> {
    let scratch = std::env::temp_dir().join(format!("kytx-{label}-{}", std::process::id()));
    OsFs.mkdir(&scratch, 0o700).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot use `{}`: {error}", scratch.display()))
    })?;
    let worked = RunLog::create(&scratch, label).map(|log| {
        let shell = OsShell::new(scratch.join("child"), &log, mask_text, StopRequests::none());
        work(&shell, &scratch)
    });
    let _ = remove_tree(&OsFs, &scratch, &no_tick);
    worked
}
