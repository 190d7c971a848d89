//! What the manual recommends before an upgrade from KAP 2: to look for broken metadata, and to delete what nothing refers
//! to any more (reference 16.1), so that there is less to copy and to migrate. Each tool lists first and deletes when told.
//!
//! It changes data for good. So it has its place before the backups, with the service down, or none at all.

use std::path::Path;

use super::metadata::{MetadataError, MetadataTools, run_script};
use super::metadata_output::no_traces_of_damage;
use super::secrets::mask_text;
use super::service::how_it_ended;
use crate::effect::shell::Ran;

/// Lines of one tool's output that are repeated.
const SHOWN_LINES: usize = 40;

/// One tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleaner {
    /// Its script.
    pub script: &'static str,
    /// The words that have it list.
    pub lists: &'static [&'static str],
    /// The words that have it delete, or put right.
    pub deletes: &'static [&'static str],
}

/// Looks for broken metadata; `recovery` takes them out, and keeps a copy in `meta_backups`. Only after a look that found
/// some.
pub const CHECKER: Cleaner = Cleaner {
    script: "kylin.sh",
    lists: &["io.kyligence.kap.tool.metadata.MetadataChecker", "check"],
    deletes: &["io.kyligence.kap.tool.metadata.MetadataChecker", "recovery"],
};

/// The two that delete what nothing refers to, in the manual's order: metadata, then cube data.
pub const CLEANERS: [Cleaner; 2] = [
    Cleaner { script: "metastore.sh", lists: &["clean"], deletes: &["clean", "--delete", "true"] },
    Cleaner {
        script: "kylin.sh",
        lists: &["io.kyligence.kap.tool.storage.KapStorageCleanupCLI"],
        deletes: &["io.kyligence.kap.tool.storage.KapStorageCleanupCLI", "--delete", "true"],
    },
];

/// Runs one of them, and returns what it said, masked, its last lines if there are many.
pub fn run(
    tools: &MetadataTools<'_>,
    home: &Path,
    script: &str,
    words: &[&str],
) -> Result<Vec<String>, MetadataError> {
    let ran = run_script(tools, home, script, words)?;
    no_traces_of_damage(&ran.stdout, &ran.stderr)?;
    if ran.code != Some(0) {
        let command = format!("{script} {}", words.join(" "));
        return Err(MetadataError::Tool { command, ended: how_it_ended(&ran) });
    }
    Ok(said(&ran))
}

fn said(ran: &Ran) -> Vec<String> {
    let lines: Vec<String> = ran.stdout.lines().map(mask_text).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].to_vec()
}
