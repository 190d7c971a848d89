//! The jobs in a metadata backup.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::{Job, is_final, text};
use crate::effect::fs::{Fs, Kind, read_file, stat_opt};
use crate::kyligence::home::Layout;
use crate::raw_path::RawPath;

/// The longest entry of a job that is read: its output may hold what its steps have printed.
const ENTRY_LIMIT_BYTES: u64 = 64 << 20;

/// The status of an entry that cannot be understood: unfinished until somebody has looked.
const UNREADABLE: &str = "unreadable";

/// The unfinished jobs in a metadata backup, in the order of their identifiers. A job whose status is missing or cannot
/// be understood is one of them.
pub fn unfinished_in_backup(fs: &dyn Fs, backup: &Path, layout: Layout) -> io::Result<Vec<Job>> {
    match layout {
        Layout::Tomcat => in_one_folder(fs, backup),
        Layout::Server => in_projects(fs, backup),
    }
}

/// `execute/<id>` are the jobs. `execute_output/` has their states, and with `<id>-NN` those of their steps.
fn in_one_folder(fs: &dyn Fs, backup: &Path) -> io::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for id in names(fs, &backup.join("execute"))? {
        let output = read(fs, &backup.join("execute_output").join(id.as_path()))?;
        let status = match &output {
            Some(output) => text(output, "status", "status"),
            None => UNREADABLE.to_owned(),
        };
        if !is_final(&status) {
            let job = read(fs, &backup.join("execute").join(id.as_path()))?.unwrap_or_default();
            jobs.push(Job { id: id.to_string(), name: text(&job, "name", "name"), status, project: None });
        }
    }
    Ok(jobs)
}

/// `<project>/execute/<id>` are the jobs, their states in them.
fn in_projects(fs: &dyn Fs, backup: &Path) -> io::Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for project in names(fs, backup)? {
        let dir = backup.join(project.as_path()).join("execute");
        for id in names(fs, &dir)? {
            let job = read(fs, &dir.join(id.as_path()))?.unwrap_or_default();
            let status = text(job.get("output").unwrap_or(&Value::Null), "status", "status");
            if !is_final(&status) {
                let status = if status.is_empty() { UNREADABLE.to_owned() } else { status };
                let id = id.to_string();
                let id = id.strip_suffix(".json").unwrap_or(&id).to_owned();
                let name = text(&job, "name", "name");
                jobs.push(Job { id, name, status, project: Some(project.to_string()) });
            }
        }
    }
    Ok(jobs)
}

/// The names in a directory; none if it is none.
fn names(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<RawPath>> {
    match stat_opt(fs, dir)? {
        Some(meta) if meta.kind == Kind::Dir => {
            Ok(fs.list(dir)?.into_iter().map(|name| RawPath::from(Path::new(&name))).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// An entry; `None` if it is not there or no JSON.
fn read(fs: &dyn Fs, path: &Path) -> io::Result<Option<Value>> {
    match read_file(fs, path, ENTRY_LIMIT_BYTES) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::os::OsFs;

    fn backup(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in entries {
            let path = dir.path().join(path);
            crate::effect::tree::make_dirs(&OsFs, path.parent().unwrap(), 0o755).unwrap();
            crate::effect::tree::atomic_write(&OsFs, &path, text.as_bytes(), 0o644).unwrap();
        }
        dir
    }

    fn found(layout: Layout, entries: &[(&str, &str)]) -> Vec<String> {
        let dir = backup(entries);
        let jobs = unfinished_in_backup(&OsFs, dir.path(), layout).unwrap();
        jobs.iter().map(Job::to_string).collect()
    }

    #[test]
    fn the_older_form_has_states_apart_and_steps_are_no_jobs() {
        let entries = [
            ("execute/a", r#"{"name":"build a"}"#),
            ("execute_output/a", r#"{"status":"SUCCEED"}"#),
            ("execute_output/a-00", r#"{"status":"ERROR"}"#),
            ("execute/b", r#"{"name":"build b"}"#),
            ("execute_output/b", r#"{"status":"RUNNING"}"#),
            ("execute/c", "{}"),
            ("execute_output/c", "not json"),
            ("execute/d", "{}"),
            ("execute_output/gone", r#"{"status":"READY"}"#),
        ];
        assert_eq!(
            found(Layout::Tomcat, &entries),
            ["b `build b` (RUNNING)", "c (unreadable)", "d (unreadable)"]
        );
        assert!(found(Layout::Tomcat, &[("project/p.json", "{}")]).is_empty());
    }

    #[test]
    fn the_newer_form_has_them_by_project() {
        let entries = [
            ("sales/execute/a.json", r#"{"name":"x","output":{"status":"SUICIDAL"}}"#),
            ("sales/execute/b", r#"{"name":"y","output":{"status":"PAUSED"}}"#),
            ("web/execute/c.json", "{}"),
            ("UUID", "x"),
        ];
        assert_eq!(found(Layout::Server, &entries), ["b `y` (PAUSED)", "c (unreadable)"]);
    }
}
