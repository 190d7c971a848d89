//! Programs that must not hang, and what they have written so far.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::support::{PATIENCE, Ran};

/// Runs a command with no input to its end, and kills it when it hangs.
pub fn run_limited(mut command: Command) -> Ran {
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    };
    let code = status.code().or(status.signal().map(|signal| -signal)).expect("it ended");
    Ran { code, stdout: text_of(&out), stderr: text_of(&err) }
}

/// Everything that was written to a file so far. A writer that shares the file is not disturbed.
pub fn text_of(file: &File) -> String {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
