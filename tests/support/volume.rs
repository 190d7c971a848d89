//! A small file system of a test's own, which can be filled to the last byte or become read-only under its users.

#![allow(unsafe_code, reason = "unshare has no safe form; nothing but this call is in an unsafe block")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Gives this thread, and all that it starts, mounts of their own: whatever happens to the test, none is left behind.
///
/// # Errors
/// In words: only root may.
pub fn own_mounts() -> Result<(), String> {
    // SAFETY: no memory is involved; it concerns this thread's view of the mounts alone.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(format!("cannot have mounts of its own: {}", io::Error::last_os_error()));
    }
    run("mount", &["--make-rprivate", "/"])
}

/// The file system.
pub struct Volume {
    at: PathBuf,
    image: Option<PathBuf>,
}

impl Volume {
    /// One in memory.
    pub fn tmpfs(at: &Path, bytes: u64) -> Result<Self, String> {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes},mode=755"), "tmpfs", &shown(at)])?;
        Ok(Self { at: at.to_owned(), image: None })
    }

    /// An ext4 in a file that is as large as what is in it.
    pub fn ext4(at: &Path, image: &Path, bytes: u64) -> Result<Self, String> {
        let made = File::create(image).and_then(|file| file.set_len(bytes));
        made.map_err(|error| format!("cannot make `{}`: {error}", image.display()))?;
        run("mkfs.ext4", &["-q", &shown(image)])?;
        run("mount", &["-o", "loop", &shown(image), &shown(at)])?;
        Ok(Self { at: at.to_owned(), image: Some(image.to_owned()) })
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        fill(&self.at);
    }

    /// Gives it back.
    pub fn empty(&self) {
        let _ = fs::remove_file(self.filler());
    }

    /// After [`fail_read_only`]: what a reboot does. Whoever uses it has ended.
    pub fn renew(&self) -> Result<(), String> {
        let image = self.image.as_ref().expect("BUG: only a file system with a medium comes back");
        // What has been killed may still be on its way out.
        crate::support::wait_until("nobody uses the file system", || {
            run("umount", &[&shown(&self.at)]).is_ok()
        });
        run("mount", &["-o", "loop", &shown(image), &shown(&self.at)])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, as a service of the test may still stand in it.
        let _ = run("umount", &["-l", &shown(&self.at)]);
    }
}

/// Fills the file system at a directory to its last byte.
pub fn fill(at: &Path) {
    let mut file = File::options().append(true).create(true).open(at.join("filler")).unwrap();
    let mut piece = vec![7; 1 << 20];
    while !piece.is_empty() {
        if file.write(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}

/// Makes an ext4 do what it does when it meets an error on its medium: it forgets what is not committed and is read-only
/// from now on, for open files as well.
pub fn fail_read_only(at: &Path) -> Result<(), String> {
    run("mount", &["-o", "remount,abort", &shown(at)])
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let ran = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("cannot run `{program}`: {error}"))?;
    let told = String::from_utf8_lossy(&ran.stderr);
    if ran.status.success() {
        Ok(())
    } else {
        Err(format!("`{program} {}`: {}", args.join(" "), told.trim()))
    }
}
