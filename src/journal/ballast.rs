//! The ballast: room that is set free when the disk is full, so that a transaction can always be ended.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::effect::fs::{Fs, exists, stat_opt};

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
    let path = path(dir);
    match stat_opt(fs, &path)? {
        Some(meta) if meta.size == BALLAST_BYTES => return Ok(()),
        Some(_) => fs.unlink(&path)?,
        None => {}
    }
    let mut file = fs.create(&path, 0o600)?;
    let mut noise = blake3::Hasher::new_derive_key("kytx 2026 ballast v1").finalize_xof();
    let mut chunk = vec![0; CHUNK_BYTES];
    for _ in 0..BALLAST_BYTES as usize / CHUNK_BYTES {
        noise.fill(&mut chunk);
        file.write_all(&chunk)?;
    }
    file.sync()?;
    fs.sync_dir(dir)
}

/// Makes the ballast again if the disk has ample room. Never an error: it is a precaution, not a promise.
pub(super) fn make_if_ample(fs: &dyn Fs, dir: &Path) {
    if fs.free_bytes(dir).is_ok_and(|free| free >= AMPLE_BYTES) {
        let _ = make(fs, dir);
    }
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
