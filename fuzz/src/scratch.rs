//! A directory for one input, gone afterwards whatever was done to its permissions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// In memory where the machine has such a place: thousands of inputs a minute should not wear a disk.
const IN_MEMORY: &str = "/dev/shm";

/// The directory.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// Makes it, where `TMPDIR` says if it does: a fuzzer that stops at a finding cleans nothing up, whoever runs it
    /// does.
    pub fn new() -> Self {
        let told = std::env::var_os("TMPDIR").is_some();
        let in_memory = Path::new(IN_MEMORY);
        let parent = if !told && in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        Self(tempfile::Builder::new().prefix("kytx-fuzz-").tempdir_in(parent).expect("a scratch directory"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only root removes what lies below a directory that nobody may enter.
        let mut open = vec![self.path().to_owned()];
        while let Some(dir) = open.pop() {
            let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
            open.extend(entries(&dir).into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
        }
    }
}

/// What is in a directory, sorted; nothing if it cannot be listed.
pub fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(list) = fs::read_dir(dir) else { return Vec::new() };
    let mut entries: Vec<_> = list.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Everything below a directory, parents first. Links are not followed.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for path in entries(&dir) {
            if path.is_dir() && !path.is_symlink() {
                open.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}
