//! Running other people's programs to ask them something, before there is a transaction.
//!
//! `check` and `plan` must leave no trace beside the home, so each question gets a scratch directory of its own, and
//! several can be asked side by side.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::scratch::with_scratch_shell;
use crate::effect::shell::{Call, Ran};

/// Runs a program that changes nothing, and returns what it said, secrets masked.
pub fn inquire(program: &Path, args: &[&str], limit: Duration) -> io::Result<Ran> {
    with_scratch_shell("inquiry", |shell, scratch| {
        shell.run(&Call {
            label: program.display().to_string(),
            program: program.to_owned(),
            args: args.iter().map(OsString::from).collect(),
            cwd: scratch.to_owned(),
            set: BTreeMap::new(),
            unset: Vec::new(),
            time_limit: Some(limit),
        })
    })?
}

/// Where a program is on the PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}
