//! The log of one run: every program that kytx ran, with its output.

#![allow(clippy::disallowed_methods)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// The log of one run. Not synced: it explains, and nothing depends on it.
pub struct RunLog {
    path: PathBuf,
    file: Option<Mutex<File>>,
}

impl RunLog {
    /// Starts a log in `dir`, named by time, process and command.
    pub fn create(dir: &Path, command: &str) -> io::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let path = dir.join(format!("{now}-{}-{command}.log", std::process::id()));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        Ok(Self { path, file: Some(Mutex::new(file)) })
    }

    /// A log that keeps nothing, for a run that must go on where none can be made: a full disk must not keep an abort
    /// from running.
    pub fn none() -> Self {
        Self { path: PathBuf::new(), file: None }
    }

    /// Adds a line. A log that cannot be written (a full disk) must not end the upgrade, so an error is passed over.
    pub fn line(&self, label: &str, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{}.{:03} {label}| {text}\n", now.as_secs(), now.subsec_millis());
        if let Some(Ok(mut file)) = self.file.as_ref().map(Mutex::lock) {
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Where it is; empty for none.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_their_time_and_label_and_nobody_else_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::create(dir.path(), "begin").unwrap();
        log.line("kylin.sh stop", "stopping");
        log.line("kylin.sh stop", "stopped");
        let text = std::fs::read_to_string(log.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].ends_with(" kylin.sh stop| stopped"), "{text}");
        let (time, _) = lines[0].split_once(' ').unwrap();
        let (s, ms) = time.split_once('.').unwrap();
        assert!(s.parse::<u64>().is_ok() && ms.len() == 3, "{time}");
        assert_eq!(std::fs::metadata(log.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(log.path().to_str().unwrap().ends_with("-begin.log"));
        assert!(RunLog::create(&dir.path().join("none"), "begin").is_err());
    }
}
