//! Verifying backups of cube data on a cluster.

use std::io;

use super::scratch::with_scratch_shell;
use crate::backup::verify::{Finding, Severity};
use crate::hadoop::cluster::{Cluster, ClusterError};
use crate::hadoop::manifest::{Apart, CubeManifest};
use crate::hadoop::parse::without_authority;
use crate::hadoop::survey::Sums;
use crate::raw_path::RawPath;

/// How deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Names, lengths and attributes.
    Names,
    /// HDFS's checksum of every file too, and the NameNode's word on every block.
    Checksums,
    /// And every byte is read. HDFS notes a checksum when it writes and does not look at the data again for it, so only
    /// reading finds a block that has decayed; the NameNode then knows it, too.
    Bytes,
}

/// Holds a tree against its manifest. Never stops at the first damage.
pub fn verify(tree: &RawPath, manifest: &CubeManifest, depth: Depth) -> io::Result<Vec<Finding>> {
    with_scratch_shell("verify", |shell, scratch| {
        let cluster = Cluster::new(shell, scratch);
        all(&cluster, tree, manifest, depth).unwrap_or_else(|error| {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            vec![damage(tree.clone(), format!("it cannot be verified: {error}{cause}"))]
        })
    })
}

fn all(
    cluster: &Cluster<'_>,
    tree: &RawPath,
    manifest: &CubeManifest,
    depth: Depth,
) -> Result<Vec<Finding>, ClusterError> {
    let mut findings = Vec::new();
    let sums = if depth == Depth::Names { Sums::Left } else { Sums::Wanted };
    let mut recorded = manifest.clone();
    if depth == Depth::Names {
        for entry in &mut recorded.entries {
            (entry.algorithm, entry.checksum) = (String::new(), String::new());
        }
    }
    let found = cluster.survey(std::slice::from_ref(tree), sums)?.remove(0);
    // Owners are told where they could not be kept, and are no damage.
    for difference in recorded.differences(&found, Apart { owner: true, dir_times: true }) {
        let subject = tree.join(&difference.path);
        if difference.is_content {
            findings.push(damage(subject, difference.what));
        } else {
            findings.push(Finding { severity: Severity::Note, ..damage(subject, difference.what) });
        }
    }
    if depth == Depth::Bytes {
        let files: Vec<RawPath> =
            found.entries.iter().filter(|entry| !entry.is_dir).map(|entry| tree.join(&entry.path)).collect();
        for complaint in cluster.read_all(&files)? {
            findings.push(damage(named_in(&complaint, &files).unwrap_or_else(|| tree.clone()), complaint));
        }
    }
    if depth != Depth::Names
        && let Err(damaged) = cluster.blocks(tree)?
    {
        let what = format!("the NameNode names damaged blocks: {}", damaged.join("; "));
        findings.push(damage(tree.clone(), what));
    }
    Ok(findings)
}

/// Which file a complaint is about: the longest whose path stands in it.
fn named_in(complaint: &str, files: &[RawPath]) -> Option<RawPath> {
    let stands = |file: &&RawPath| {
        complaint.contains(String::from_utf8_lossy(without_authority(file).as_bytes()).as_ref())
    };
    files.iter().filter(stands).max_by_key(|file| file.as_bytes().len()).cloned()
}

fn damage(subject: RawPath, what: String) -> Finding {
    Finding {
        severity: Severity::Damage,
        subject,
        what,
        advice: "do not commit while the live cube data may be needed from here; an abort restores nothing from it"
            .to_owned(),
    }
}
