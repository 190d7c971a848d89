//! A shelter for tests that leave processes behind on purpose: namespaces of their own for processes, mounts and the
//! network. In there nobody else's processes are met, every port is free, and the scratch directory is memory, as a kill
//! loses nothing that is written. However the tests end, by SIGKILL too, the kernel ends all of it with them.
//!
//! Where the machine does not let a program make namespaces, tests run without.

#![allow(unsafe_code, reason = "the loopback interface is set up by ioctl, which has no safe form")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set within a shelter, to its scratch directory.
const INSIDE: &str = "KYTX_SHELTER";

/// Runs a test in a shelter. `None`: it has run there, and succeeded. Else it is to be run here, in this directory.
///
/// # Panics
///
/// If the test fails in its shelter.
pub fn enter(test: &str) -> Option<PathBuf> {
    if let Some(scratch) = std::env::var_os(INSIDE) {
        raise_loopback().unwrap();
        return Some(scratch.into());
    }
    let Some(mut unshare) = [&[][..], &["--user", "--map-root-user"]].into_iter().find_map(shelter) else {
        println!("no namespaces on this machine: run without a shelter");
        let memory = Path::new("/dev/shm");
        let is_usable = tempfile::tempdir_in(memory).is_ok();
        return Some(if is_usable { memory.to_owned() } else { std::env::temp_dir() });
    };
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shelter-{test}"));
    std::fs::create_dir_all(&scratch).unwrap();
    // A shell stays the first process, and so buries the orphans.
    unshare.args(["sh", "-c", "mount -t tmpfs kytx \"$0\" && \"$@\"; exit $?"]).arg(&scratch);
    unshare.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let status = unshare.env(INSIDE, &scratch).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "the test failed in its shelter: {status}");
    None
}

/// `unshare` with these words, if it works.
fn shelter(more: &[&str]) -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(more).args(["--pid", "--fork", "--kill-child", "--mount-proc", "--net", "--"]);
        // SAFETY: between fork and exec it makes one system call. It ends with the thread that waits for it.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        command
    };
    let tried = unshare().arg("true").stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success()).then(unshare)
}

/// A new network has nothing but a loopback interface, which is down.
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: a structure of integers, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is live, and of the kind that this call takes.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
