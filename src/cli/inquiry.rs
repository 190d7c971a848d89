//! Running other people's programs to ask them something, before there is a transaction.
//!
//! `check` and `plan` must leave no trace beside the home, so each question gets a scratch directory of its own, and
//! several can be asked side by side.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::effect::fs::Fs;
use crate::effect::os::OsFs;
use crate::effect::run_log::RunLog;
use crate::effect::shell::{Call, OsShell, Ran, Shell};
use crate::effect::signal::StopRequests;
use crate::effect::tree::{no_tick, remove_tree};
use crate::kyligence::secrets::mask_text;

/// Runs a program that changes nothing, and returns what it said, secrets masked.
pub fn inquire(program: &Path, args: &[&str], limit: Duration) -> io::Result<Ran> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let scratch = std::env::temp_dir().join(format!("kytx-inquiry-{}-{number}", std::process::id()));
    OsFs.mkdir(&scratch, 0o700)?;
    let ran = run(program, args, limit, &scratch);
    let _ = remove_tree(&OsFs, &scratch, &no_tick);
    ran
}

fn run(program: &Path, args: &[&str], limit: Duration, scratch: &Path) -> io::Result<Ran> {
    let log = RunLog::create(scratch, "inquiry")?;
    let shell = OsShell::new(scratch.join("child"), &log, mask_text, StopRequests::none());
    shell.run(&Call {
        label: program.display().to_string(),
        program: program.to_owned(),
        args: args.iter().map(OsString::from).collect(),
        cwd: scratch.to_owned(),
        set: BTreeMap::new(),
        unset: Vec::new(),
        time_limit: Some(limit),
    })
}

/// Where a program is on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}
