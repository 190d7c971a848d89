//! The ballast: room that is set free when the disk is full, so that a transaction can always be ended.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::effect::fs::{Fs, FsFile, exists, stat_opt};

/// Room for hundreds of records, for sled's reopening (which pads its file to 512 KiB) and for the copy on which a
/// store is judged.
pub const BALLAST_BYTES: u64 = 2 << 20;

/// An opening makes the ballast anew only where this much is free. Otherwise every opening on a full disk would take
/// the room back that the last failed append had released.
const AMPLE_BYTES: u64 = 64 << 20;

const CHUNK_BYTES: usize = 64 << 10;

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Makes the ballast, or does nothing if it is there in full.
///
/// Written, not `fallocate`d: file systems that cannot allocate without writing are common enough, and the bytes are
/// such that none can compress or share them.
pub(super) fn make(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    make_with(fs, dir, 0)
}

/// Makes the ballast again if the disk has ample room. Never an error: it is a precaution, not a promise.
pub(super) fn make_if_ample(fs: &dyn Fs, dir: &Path) {
    if fs.free_bytes(dir).is_ok_and(|free| free >= AMPLE_BYTES) {
        // A quota leaves less than the file system says; what is free beside the ballast is seen by using it.
        let _ = make_with(fs, dir, BALLAST_BYTES);
    }
}

/// Makes it, where so much more room is free beside it.
fn make_with(fs: &dyn Fs, dir: &Path, beside_bytes: u64) -> io::Result<()> {
    let path = path(dir);
    if stat_opt(fs, &path)?.is_some_and(|meta| meta.size == BALLAST_BYTES) {
        return Ok(());
    }
    let made = fill(fs, &path, BALLAST_BYTES + beside_bytes).and_then(|mut file| {
        file.set_len(BALLAST_BYTES)?;
        file.sync()
    });
    if made.is_err() {
        // A part of it would hold room, and set none free.
        let _ = fs.unlink(&path);
    }
    made?;
    fs.sync_dir(dir)
}

/// Sets the room free if the disk has not as much without it.
pub(super) fn release_if_short(fs: &dyn Fs, dir: &Path) {
    let trial = trial(dir);
    let is_short = fill(fs, &trial, BALLAST_BYTES).is_err_and(|error| is_full(&error));
    // Left behind, it is removed by the next trial.
    let _ = fs.unlink(&trial);
    if is_short {
        let _ = release(fs, dir);
    }
}

/// Creates a file of noise in place of what is there.
fn fill(fs: &dyn Fs, path: &Path, bytes: u64) -> io::Result<Box<dyn FsFile>> {
    if exists(fs, path)? {
        fs.unlink(path)?;
    }
    let mut file = fs.create(path, 0o600)?;
    let mut noise = blake3::Hasher::new_derive_key("kytx 2026 ballast v1").finalize_xof();
    let mut chunk = vec![0; CHUNK_BYTES];
    for _ in 0..bytes as usize / CHUNK_BYTES {
        noise.fill(&mut chunk);
        file.write_all(&chunk)?;
    }
    Ok(file)
}

/// Sets the room free and says how much it was.
pub(super) fn release(fs: &dyn Fs, dir: &Path) -> io::Result<u64> {
    let path = path(dir);
    if !exists(fs, &path)? {
        return Ok(0);
    }
    let bytes = fs.stat(&path)?.allocated;
    fs.unlink(&path)?;
    // Some file systems free the blocks only once the removal is durable.
    fs.sync_dir(dir)?;
    Ok(bytes)
}

fn path(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// A file by which is seen how much room there is.
pub(super) fn trial(dir: &Path) -> PathBuf {
    dir.join("ballast.trial")
}
