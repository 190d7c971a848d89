//! The stand-in's knobs: shell assignments in a file outside the home.

#![allow(clippy::disallowed_methods, reason = "it builds test machines, not customers'")]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One nastiness, or one place, that the stand-in looks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knob {
    /// A file to which every call of a script is appended.
    CallLog,
    /// The program that has the service in it: kytx.
    ServiceProgram,
    /// The metadata store's directory, for a metadata URL that names none.
    MetadataDir,
    /// The local directory that stands for a working directory on a cluster.
    WorkingDir,
    /// `ok`, `fail` (exit 1), or `nothing` (exit 0, and nothing was started).
    StartMode,
    /// A file that `start` waits for, once it holds its lock. `<file>.reached` appears when it waits.
    StartGate,
    /// The pid file is written this many milliseconds after the start returned.
    PidLateMs,
    /// `1`: `start` leaves its lock behind.
    LockStays,
    /// `ok`, `fail` (exit 1, the process lives), or `lies` (exit 0 at once, whether or not the process lives).
    StopMode,
    /// A file that `stop` waits for before it sends the signal.
    StopGate,
    /// How many milliseconds `stop` waits before it kills.
    StopWaitMs,
    /// `stop` takes this many milliseconds longer.
    StopTakesMs,
    /// `1`: `stop` leaves the pid file behind.
    StopKeepsPid,
    /// The service answers 503 for this many milliseconds.
    ReadyAfterMs,
    /// `ok`, `never` (503 for ever), `drop` (connections are closed without an answer), `login-page` (200 and a page of
    /// HTML, whatever was asked), `query-fails` (200 and an exception for each query), or `other-rows` (a row more).
    HttpMode,
    /// The service ends this many milliseconds after TERM.
    TermIgnoredMs,
    /// `auto` (a major version that the store has not seen changes metadata and cube data), `always`, `never`, or `fails`
    /// (the log says so, and the service never gets ready).
    Migrates,
    /// `ok`; exit 0 and the script's success line all the same: `empty`, `uuid-only`, `half`, `failed-copy`,
    /// `lost-markers` (entries are deleted from the live store), `forgets` (KE 3: one is, and nothing tells of it); or
    /// `killed` (by SIGKILL, half way).
    BackupMode,
    /// A file that `backup` waits for half way.
    BackupGate,
    /// `ok`, `half` (fails half way), or `killed` (by SIGKILL, half way).
    RestoreMode,
    /// A file that `restore` waits for half way.
    RestoreGate,
    /// A file that `reset` waits for when the store is empty.
    ResetGate,
    /// `1`: the metadata store cannot be reached.
    StoreDown,
    /// `1`: what the store has acknowledged survives a power cut, as with a database.
    StoreSyncs,
    /// `1`: without `JAVA_HOME` in the environment a backup is empty.
    NeedsJavaHome,
    /// `1`: a KE 3 backup works in a home with a blank in its path, which the real one does not.
    BlankIsFine,
    /// `1`: `get-properties.sh` answers every question with an empty line.
    PropertiesBroken,
}

impl Knob {
    const ALL: [Self; 27] = [
        Self::CallLog,
        Self::ServiceProgram,
        Self::MetadataDir,
        Self::WorkingDir,
        Self::StartMode,
        Self::StartGate,
        Self::PidLateMs,
        Self::LockStays,
        Self::StopMode,
        Self::StopGate,
        Self::StopWaitMs,
        Self::StopTakesMs,
        Self::StopKeepsPid,
        Self::ReadyAfterMs,
        Self::HttpMode,
        Self::TermIgnoredMs,
        Self::Migrates,
        Self::BackupMode,
        Self::BackupGate,
        Self::RestoreMode,
        Self::RestoreGate,
        Self::ResetGate,
        Self::StoreDown,
        Self::StoreSyncs,
        Self::NeedsJavaHome,
        Self::BlankIsFine,
        Self::PropertiesBroken,
    ];

    /// The shell variable.
    pub fn name(self) -> &'static str {
        match self {
            Self::CallLog => "CALL_LOG",
            Self::ServiceProgram => "SERVICE_PROGRAM",
            Self::MetadataDir => "METADATA_DIR",
            Self::WorkingDir => "WORKING_DIR",
            Self::StartMode => "START_MODE",
            Self::StartGate => "START_GATE",
            Self::PidLateMs => "PID_LATE_MS",
            Self::LockStays => "LOCK_STAYS",
            Self::StopMode => "STOP_MODE",
            Self::StopGate => "STOP_GATE",
            Self::StopWaitMs => "STOP_WAIT_MS",
            Self::StopTakesMs => "STOP_TAKES_MS",
            Self::StopKeepsPid => "STOP_KEEPS_PID",
            Self::ReadyAfterMs => "READY_AFTER_MS",
            Self::HttpMode => "HTTP_MODE",
            Self::TermIgnoredMs => "TERM_IGNORED_MS",
            Self::Migrates => "MIGRATES",
            Self::BackupMode => "BACKUP_MODE",
            Self::BackupGate => "BACKUP_GATE",
            Self::RestoreMode => "RESTORE_MODE",
            Self::RestoreGate => "RESTORE_GATE",
            Self::ResetGate => "RESET_GATE",
            Self::StoreDown => "STORE_DOWN",
            Self::StoreSyncs => "STORE_SYNCS",
            Self::NeedsJavaHome => "NEEDS_JAVA_HOME",
            Self::BlankIsFine => "BLANK_IS_FINE",
            Self::PropertiesBroken => "PROPERTIES_BROKEN",
        }
    }
}

/// What the knobs are set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<Knob, String>);

impl Settings {
    /// Reads a file of knobs and, on top of it, the one that speaks for a version. A file that is not there sets none.
    pub fn read(path: &Path, version: &str) -> io::Result<Self> {
        let mut settings = Self::default();
        settings.add(path)?;
        settings.add(&for_version(path, version))?;
        Ok(settings)
    }

    /// A knob's value; empty if it is not set.
    pub fn text(&self, knob: Knob) -> &str {
        self.0.get(&knob).map_or("", String::as_str)
    }

    /// A knob's value as a number; 0 if it is not set or no number.
    pub fn number(&self, knob: Knob) -> u64 {
        self.text(knob).parse().unwrap_or(0)
    }

    fn add(&mut self, path: &Path) -> io::Result<()> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else { continue };
            if let Some(knob) = Knob::ALL.into_iter().find(|knob| knob.name() == name) {
                self.0.insert(knob, unquote(value));
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let lines = self.0.iter().map(|(knob, value)| format!("{}={}\n", knob.name(), quote(value)));
        // Written aside and renamed, as a script may read it at this very moment.
        let part = for_version(path, "part");
        std::fs::write(&part, lines.collect::<String>())?;
        std::fs::rename(part, path)
    }
}

/// A file of knobs, to turn them.
#[derive(Clone, Debug)]
pub struct Knobs {
    path: PathBuf,
}

impl Knobs {
    /// The knobs in this file, which need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The knobs that speak for the home of one version only, and overrule these.
    #[must_use]
    pub fn of_version(&self, version: &str) -> Self {
        Self { path: for_version(&self.path, version) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets a knob. Whatever runs already and reads it again sees the new value.
    pub fn set(&self, knob: Knob, value: impl fmt::Display) -> io::Result<()> {
        let mut settings = Settings::default();
        settings.add(&self.path)?;
        settings.0.insert(knob, value.to_string());
        settings.write(&self.path)
    }

    /// Takes a knob back.
    pub fn unset(&self, knob: Knob) -> io::Result<()> {
        let mut settings = Settings::default();
        settings.add(&self.path)?;
        settings.0.remove(&knob);
        settings.write(&self.path)
    }
}

fn for_version(path: &Path, version: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(version);
    name.into()
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn unquote(value: &str) -> String {
    let inner = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(value);
    inner.replace(r"'\''", "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_kept_and_a_version_overrules() {
        let dir = tempfile::tempdir().unwrap();
        let knobs = Knobs::at(dir.path().join("knobs"));
        knobs.set(Knob::StartMode, "it's").unwrap();
        knobs.set(Knob::ReadyAfterMs, 20).unwrap();
        knobs.of_version("2.0").set(Knob::ReadyAfterMs, 30).unwrap();
        let old = Settings::read(knobs.path(), "1.0").unwrap();
        let new = Settings::read(knobs.path(), "2.0").unwrap();
        assert_eq!((old.text(Knob::StartMode), new.text(Knob::StartMode)), ("it's", "it's"));
        assert_eq!((old.number(Knob::ReadyAfterMs), new.number(Knob::ReadyAfterMs)), (20, 30));
        knobs.unset(Knob::ReadyAfterMs).unwrap();
        assert_eq!(Settings::read(knobs.path(), "1.0").unwrap().text(Knob::ReadyAfterMs), "");
    }

    #[test]
    fn every_knob_is_looked_up_by_a_script_or_by_the_service() {
        let places = [
            include_str!("../../testbed/product/standin.sh"),
            include_str!("../../testbed/product/get-properties.sh"),
            include_str!("../../testbed/product/ke3/kylin.sh"),
            include_str!("../../testbed/product/ke3/metastore.sh"),
        ];
        let service = include_str!("service.rs");
        for knob in Knob::ALL {
            let used = places.iter().any(|text| text.contains(&format!("${}", knob.name())))
                || places.iter().any(|text| text.contains(&format!("${{{}", knob.name())))
                || service.contains(&format!("Knob::{knob:?}"));
            assert!(used, "{knob:?}");
        }
    }
}
