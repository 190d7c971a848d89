//! Becoming kytx again in another environment, as a script makes it.

#![allow(clippy::disallowed_methods, reason = "nothing is run beside kytx here: the shell takes its place")]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Set in the environment that a script has made, to the script: it is not run twice.
pub const MARK: &str = "KYTX_ENV_SCRIPT";

/// Runs a script in a shell and then this very program in the environment that the script leaves. Returns only if that
/// cannot be. A script that fails ends the run with the shell's code.
pub fn again_after(script: &Path, args: impl IntoIterator<Item = OsString>) -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    // The script's own words go to standard error: standard output is the command's result. It gets no arguments: some
    // read them.
    let text = "script=$1; shift; saved=(\"$@\"); set --; . \"$script\" 1>&2 || { echo \"kytx: the environment script failed: $script\" >&2; exit 3; }; exec \"${saved[@]}\"";
    Command::new("bash")
        .args(["-c", text, "kytx"])
        .arg(script)
        .arg(program)
        .args(args)
        .env(MARK, script)
        .exec()
}
