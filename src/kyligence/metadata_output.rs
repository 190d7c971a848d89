//! What the output of the metadata tool proves. Pure functions on text.

use super::home::Layout;
use super::secrets::mask_text;

/// Lines that are quoted at most.
const QUOTED_LINES: usize = 20;

/// A command that only reads has deleted entries from the live store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tool has deleted entries from the live store, because it did not find their content in the working directory; \
     run nothing that reads the metadata before that directory is back: {}",
    lines.join(" | ")
)]
pub struct StoreDamaged {
    /// The lines that show it, masked.
    pub lines: Vec<String>,
}

/// What a backup's output shows when it is no complete backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupFault {
    /// The tool did not find the content of entries in the working directory and deleted the entries.
    #[error(transparent)]
    StoreDamaged(#[from] StoreDamaged),
    /// Some entries were not copied.
    #[error("entries were not copied: {}", lines.join(" | "))]
    NotCopied {
        /// The lines that say so.
        lines: Vec<String>,
    },
    /// The tool says that it failed.
    #[error("the tool says `{line}`")]
    SaysFailed {
        /// The line.
        line: String,
    },
    /// The line that only a finished backup writes is not there.
    #[error("the line `{expected}` is missing, which the tool writes only when all went well")]
    NoSuccessLine {
        /// The beginning of the line.
        expected: &'static str,
    },
}

/// The directory that a finished backup has named, or why it is no complete backup.
pub fn judge_backup(layout: Layout, stdout: &str, stderr: &str) -> Result<String, BackupFault> {
    let lines: Vec<String> = plain_lines(stdout).chain(plain_lines(stderr)).collect();
    // Before everything else: these lines come with full success.
    no_traces_in(&lines)?;
    let not_copied = quote(&lines, |line| line.contains("Failed to copy"));
    if !not_copied.is_empty() {
        return Err(BackupFault::NotCopied { lines: not_copied });
    }
    match layout {
        Layout::Tomcat => {
            // The script's own line, `metadata store backed up to`, comes whatever happened.
            let expected = "Metadata backed up to ";
            after(&lines, expected).ok_or(BackupFault::NoSuccessLine { expected })
        }
        Layout::Server => {
            if let Some(line) = lines.iter().find(|line| line.contains("Backup failed.")) {
                return Err(BackupFault::SaysFailed { line: mask_text(line) });
            }
            let expected = "Backup at local disk succeed.";
            if !lines.iter().any(|line| line.contains(expected)) {
                return Err(BackupFault::NoSuccessLine { expected });
            }
            let expected = "The metadata backup path is ";
            let path = after(&lines, expected).ok_or(BackupFault::NoSuccessLine { expected })?;
            Ok(path.strip_suffix('.').unwrap_or(&path).to_owned())
        }
    }
}

/// Whether a reset emptied the store: its code is Java's, and 1 when the store is down.
pub fn judge_reset(code: Option<i32>, stdout: &str, stderr: &str) -> bool {
    code == Some(0) && !plain_lines(stdout).chain(plain_lines(stderr)).any(|line| is_trace_of_damage(&line))
}

/// Whether a restore finished; if not, what shows it.
pub fn judge_restore(layout: Layout, code: Option<i32>, stdout: &str, stderr: &str) -> Result<(), String> {
    let lines: Vec<String> = plain_lines(stdout).chain(plain_lines(stderr)).collect();
    let faults = quote(&lines, |line| {
        line.contains("Failed to copy") || line.contains("Restore failed.") || is_trace_of_damage(line)
    });
    if !faults.is_empty() {
        return Err(faults.join(" | "));
    }
    // The script of the newer layout swallows the code, so the line must be there in both, and the code be 0 in both.
    let expected = match layout {
        Layout::Tomcat => "Metadata restored from ",
        Layout::Server => "Restore succeed.",
    };
    if !lines.iter().any(|line| line.contains(expected)) {
        return Err(format!("the line `{expected}` is missing"));
    }
    if code == Some(0) { Ok(()) } else { Err("its code is not 0".to_owned()) }
}

/// Looks for lines that show that entries were deleted from the live store. Any command that reads the metadata may do it.
pub fn no_traces_of_damage(stdout: &str, stderr: &str) -> Result<(), StoreDamaged> {
    let lines: Vec<String> = plain_lines(stdout).chain(plain_lines(stderr)).collect();
    no_traces_in(&lines)
}

fn no_traces_in(lines: &[String]) -> Result<(), StoreDamaged> {
    let lines = quote(lines, is_trace_of_damage);
    if lines.is_empty() { Ok(()) } else { Err(StoreDamaged { lines }) }
}

/// Traces of entries that were deleted from the live store because their content was not found.
fn is_trace_of_damage(line: &str) -> bool {
    line.contains("Marker exists but real file not found, delete marker")
        || (line.contains("RETRY ") && line.contains(" error resource"))
        || (line.contains("expects ") && line.contains(" resources but got "))
}

fn quote(lines: &[String], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    lines.iter().filter(|line| wanted(line)).take(QUOTED_LINES).map(|line| mask_text(line)).collect()
}

/// What follows a text in the last line that has it.
fn after(lines: &[String], text: &str) -> Option<String> {
    let tail = lines.iter().rev().find_map(|line| Some(line.split_once(text)?.1.trim().to_owned()))?;
    (!tail.is_empty()).then_some(tail)
}

/// Lines without colour codes and line ends.
fn plain_lines(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().map(|line| {
        let mut plain = String::with_capacity(line.len());
        let mut rest = line;
        while let Some((before, code)) = rest.split_once("\x1b[") {
            plain.push_str(before);
            rest = code.find(|c: char| c.is_ascii_alphabetic()).map_or("", |at| &code[at + 1..]);
        }
        plain.push_str(rest);
        plain
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/opt/kylin/meta_backups/meta_2026_11_24_09_00_00";

    fn ke3_success() -> String {
        format!(
            "Starting backup to {DIR}\n2026-11-24 INFO tool: 200 entries\nMetadata backed up to {DIR}\n\
             metadata store backed up to {DIR}\n"
        )
    }

    #[test]
    fn only_javas_own_line_is_a_finished_backup() {
        assert_eq!(judge_backup(Layout::Tomcat, &ke3_success(), "").as_deref(), Ok(DIR));
        let killed = format!("Starting backup to {DIR}\nmetadata store backed up to {DIR}\n");
        let fault = judge_backup(Layout::Tomcat, &killed, "").unwrap_err();
        assert!(matches!(fault, BackupFault::NoSuccessLine { .. }));
    }

    #[test]
    fn every_trace_of_a_damaged_store_is_fatal_though_the_tool_reports_success() {
        for (stdout, stderr) in [
            ("RETRY 1 error resource /dict/x password=geheim\n", ""),
            ("", "ERROR Marker exists but real file not found, delete marker: /dict/x\n"),
            ("", "java: expects 1 resources but got 0\n"),
        ] {
            let fault = judge_backup(Layout::Tomcat, &(ke3_success() + stdout), stderr).unwrap_err();
            let BackupFault::StoreDamaged(StoreDamaged { lines }) = fault else { panic!("{fault}") };
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains("geheim"));
        }
    }

    #[test]
    fn a_resource_that_was_not_copied_is_named() {
        let fault = judge_backup(Layout::Tomcat, &(ke3_success() + "Failed to copy resource: /cube/a\n"), "");
        assert!(fault.unwrap_err().to_string().contains("/cube/a"));
    }

    #[test]
    fn the_newer_form_has_colours_and_names_its_path_first() {
        let path = "/opt/kylin/meta_backups/2026-11-24-09-00-00_backup";
        let begun = format!("The metadata backup path is {path}.\n");
        let done = format!("{begun}\x1b[33mBackup at local disk succeed.\x1b[0m\n");
        assert_eq!(judge_backup(Layout::Server, &done, "").as_deref(), Ok(path));
        let coloured =
            format!("The metadata backup path is \x1b[33m{path}.\x1b[0m\nBackup at local disk succeed.");
        assert_eq!(judge_backup(Layout::Server, &coloured, "").as_deref(), Ok(path));
        let fault = judge_backup(Layout::Server, &begun, "").unwrap_err();
        assert!(matches!(fault, BackupFault::NoSuccessLine { .. }), "the path alone is no proof");
        let failed =
            format!("{begun}\x1b[33mBackup failed. Detailed Message is at \"logs/shell.stderr\".\x1b[0m\n");
        assert!(matches!(judge_backup(Layout::Server, &failed, ""), Err(BackupFault::SaysFailed { .. })));
    }

    #[test]
    fn a_restore_needs_code_and_line() {
        let ok = "Metadata restored from /x\n";
        assert_eq!(judge_restore(Layout::Tomcat, Some(0), ok, ""), Ok(()));
        for (code, stdout) in [
            (Some(1), ok),
            (None, ok),
            (Some(0), "illegal args\n"),
            (Some(0), "Metadata restored from /x\nFailed to copy 3 resource\n"),
        ] {
            assert!(judge_restore(Layout::Tomcat, code, stdout, "").is_err(), "{code:?} {stdout}");
        }
        assert_eq!(judge_restore(Layout::Server, Some(0), "\x1b[33mRestore succeed.\x1b[0m", ""), Ok(()));
        assert!(judge_restore(Layout::Server, Some(0), "Restore failed. Detailed", "").is_err());
        assert!(judge_reset(Some(0), "", "") && !judge_reset(Some(1), "", ""));
    }
}
