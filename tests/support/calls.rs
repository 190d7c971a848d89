//! What a system call is about: on which files, and in which ways it can fail.

use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use libc::{c_int, c_long, pid_t};

use super::tracer::Call;

/// The ways in which a call can fail, as a set of bits.
pub type Ways = u16;

/// It may need room on the medium: ENOSPC, EDQUOT.
pub const ALLOCATES: Ways = 1;
/// It changes a file system: EROFS, EIO.
pub const CHANGES: Ways = 1 << 1;
/// It forces something to the medium: EIO, and the room that was only promised.
pub const SYNCS: Ways = 1 << 2;
/// It reads content, names or attributes: EIO.
pub const READS: Ways = 1 << 3;
/// It makes a descriptor: EMFILE.
pub const OPENS: Ways = 1 << 4;
/// It can be interrupted: EINTR.
pub const WAITS: Ways = 1 << 5;
/// It moves bytes and may move fewer than asked for.
pub const MOVES: Ways = 1 << 6;
/// Old kernels or some file systems do not have it: ENOSYS, EINVAL.
pub const NEWER: Ways = 1 << 7;
/// It makes a thread or a process: EAGAIN.
pub const SPAWNS: Ways = 1 << 8;

/// A call, looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: &'static str,
    /// What it is on; of two names, the one that is new. Empty where it is on nothing with a name.
    pub path: PathBuf,
    /// The ways in which it can fail.
    pub ways: Ways,
    /// For a call that moves bytes: which argument says how many.
    pub count_argument: Option<usize>,
}

/// Where a call says what it is on.
#[derive(Clone, Copy)]
enum On {
    /// A descriptor.
    Fd(usize),
    /// A path.
    Path(usize),
    /// A descriptor and a path below it.
    At(usize, usize),
    Nothing,
}

struct Row {
    number: c_long,
    name: &'static str,
    on: On,
    ways: Ways,
    count_argument: Option<usize>,
}

const fn row(number: c_long, name: &'static str, on: On, ways: Ways) -> Row {
    Row { number, name, on, ways, count_argument: None }
}

const fn moves(number: c_long, name: &'static str, argument: usize, ways: Ways) -> Row {
    Row { number, name, on: On::Fd(0), ways: ways | MOVES | WAITS, count_argument: Some(argument) }
}

const NAMES: Ways = ALLOCATES | CHANGES;

/// Every call of a program's own that can fail for a reason outside of it. Opening has the ways that its flags give it.
static ROWS: &[Row] = &[
    moves(libc::SYS_read, "read", 2, READS),
    moves(libc::SYS_pread64, "pread64", 2, READS),
    moves(libc::SYS_readv, "readv", 2, READS),
    moves(libc::SYS_write, "write", 2, NAMES),
    moves(libc::SYS_pwrite64, "pwrite64", 2, NAMES),
    moves(libc::SYS_writev, "writev", 2, NAMES),
    Row {
        number: libc::SYS_copy_file_range,
        name: "copy_file_range",
        on: On::Fd(2),
        ways: NAMES | MOVES | NEWER | WAITS,
        count_argument: Some(4),
    },
    Row {
        number: libc::SYS_sendfile,
        name: "sendfile",
        on: On::Fd(0),
        ways: NAMES | MOVES | WAITS | NEWER,
        count_argument: Some(3),
    },
    row(libc::SYS_openat, "openat", On::At(0, 1), OPENS | READS | WAITS),
    row(libc::SYS_getdents64, "getdents64", On::Fd(0), READS),
    row(libc::SYS_fstat, "fstat", On::Fd(0), READS),
    row(libc::SYS_newfstatat, "newfstatat", On::At(0, 1), READS),
    row(libc::SYS_statx, "statx", On::At(0, 1), READS | NEWER),
    row(libc::SYS_statfs, "statfs", On::Path(0), READS),
    row(libc::SYS_fstatfs, "fstatfs", On::Fd(0), READS),
    row(libc::SYS_readlinkat, "readlinkat", On::At(0, 1), READS),
    row(libc::SYS_faccessat, "faccessat", On::At(0, 1), READS),
    row(libc::SYS_faccessat2, "faccessat2", On::At(0, 1), READS | NEWER),
    row(libc::SYS_llistxattr, "llistxattr", On::Path(0), READS),
    row(libc::SYS_lgetxattr, "lgetxattr", On::Path(0), READS),
    row(libc::SYS_lseek, "lseek", On::Fd(0), READS),
    row(libc::SYS_fsync, "fsync", On::Fd(0), SYNCS | WAITS),
    row(libc::SYS_fdatasync, "fdatasync", On::Fd(0), SYNCS | WAITS),
    row(libc::SYS_syncfs, "syncfs", On::Fd(0), SYNCS | NEWER),
    row(libc::SYS_sync_file_range, "sync_file_range", On::Fd(0), SYNCS | NEWER),
    row(libc::SYS_fadvise64, "fadvise64", On::Fd(0), NEWER),
    row(libc::SYS_ftruncate, "ftruncate", On::Fd(0), CHANGES | WAITS),
    row(libc::SYS_fallocate, "fallocate", On::Fd(0), NAMES | NEWER | WAITS),
    row(libc::SYS_renameat2, "renameat2", On::At(2, 3), NAMES | NEWER),
    row(libc::SYS_renameat, "renameat", On::At(2, 3), NAMES),
    row(libc::SYS_unlinkat, "unlinkat", On::At(0, 1), CHANGES),
    row(libc::SYS_mkdirat, "mkdirat", On::At(0, 1), NAMES),
    row(libc::SYS_mknodat, "mknodat", On::At(0, 1), NAMES),
    row(libc::SYS_linkat, "linkat", On::At(2, 3), NAMES),
    row(libc::SYS_symlinkat, "symlinkat", On::At(1, 2), NAMES),
    row(libc::SYS_fchmod, "fchmod", On::Fd(0), CHANGES),
    row(libc::SYS_fchmodat, "fchmodat", On::At(0, 1), CHANGES),
    row(libc::SYS_fchown, "fchown", On::Fd(0), NAMES),
    row(libc::SYS_fchownat, "fchownat", On::At(0, 1), NAMES),
    row(libc::SYS_utimensat, "utimensat", On::At(0, 1), CHANGES),
    row(libc::SYS_lsetxattr, "lsetxattr", On::Path(0), NAMES),
    row(libc::SYS_flock, "flock", On::Fd(0), WAITS),
    row(libc::SYS_wait4, "wait4", On::Nothing, WAITS),
    row(libc::SYS_waitid, "waitid", On::Nothing, WAITS),
    row(libc::SYS_clock_nanosleep, "clock_nanosleep", On::Nothing, WAITS),
    row(libc::SYS_poll, "poll", On::Nothing, WAITS),
    row(libc::SYS_ppoll, "ppoll", On::Nothing, WAITS),
    row(libc::SYS_connect, "connect", On::Nothing, WAITS),
    row(libc::SYS_recvfrom, "recvfrom", On::Nothing, WAITS),
    row(libc::SYS_sendto, "sendto", On::Nothing, WAITS),
    row(libc::SYS_socket, "socket", On::Nothing, OPENS),
    row(libc::SYS_socketpair, "socketpair", On::Nothing, OPENS),
    row(libc::SYS_pipe2, "pipe2", On::Nothing, OPENS),
    row(libc::SYS_dup, "dup", On::Nothing, OPENS),
    row(libc::SYS_eventfd2, "eventfd2", On::Nothing, OPENS),
    row(libc::SYS_epoll_create1, "epoll_create1", On::Nothing, OPENS),
    row(libc::SYS_pidfd_open, "pidfd_open", On::Nothing, OPENS | NEWER),
    row(libc::SYS_getrandom, "getrandom", On::Nothing, NEWER),
    row(libc::SYS_sched_getaffinity, "sched_getaffinity", On::Nothing, NEWER),
    row(libc::SYS_clone, "clone", On::Nothing, SPAWNS),
    row(libc::SYS_clone3, "clone3", On::Nothing, SPAWNS | NEWER),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_open, "open", On::Path(0), OPENS | READS | WAITS),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_stat, "stat", On::Path(0), READS),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_lstat, "lstat", On::Path(0), READS),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_access, "access", On::Path(0), READS),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_readlink, "readlink", On::Path(0), READS),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_rename, "rename", On::Path(1), NAMES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_unlink, "unlink", On::Path(0), CHANGES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_rmdir, "rmdir", On::Path(0), CHANGES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_mkdir, "mkdir", On::Path(0), NAMES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_link, "link", On::Path(1), NAMES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_symlink, "symlink", On::Path(1), NAMES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_chmod, "chmod", On::Path(0), CHANGES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_chown, "chown", On::Path(0), NAMES),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_lchown, "lchown", On::Path(0), NAMES),
];

/// Looks at a call of the traced program; `None` for one that fails for no outside reason.
pub fn look(program: &mut Memory, call: &Call) -> Option<Seen> {
    if call.number == libc::SYS_fcntl {
        let duplicates = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC].contains(&(call.args[1] as c_int));
        let seen = Seen { name: "fcntl-dup", path: PathBuf::new(), ways: OPENS, count_argument: None };
        return duplicates.then_some(seen);
    }
    let row = ROWS.iter().find(|row| row.number == call.number)?;
    let path = program.path(call, row.on);
    let ways = row.ways | flag_ways(call, &path);
    Some(Seen { name: row.name, path, ways, count_argument: row.count_argument })
}

/// What the flags of an opening add.
fn flag_ways(call: &Call, path: &Path) -> Ways {
    let flags = match call.number {
        libc::SYS_openat => call.args[2],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => call.args[1],
        _ => return 0,
    } as c_int;
    if flags & libc::O_CREAT != 0 && fs::symlink_metadata(path).is_err() {
        NAMES
    } else if flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_RDWR) != 0 {
        CHANGES
    } else {
        0
    }
}

/// The memory of the traced program.
#[derive(Default)]
pub struct Memory(Option<File>);

/// No path is longer.
const PATH_LIMIT_BYTES: usize = 4096;

impl Memory {
    fn path(&mut self, call: &Call, on: On) -> PathBuf {
        match on {
            On::Nothing => PathBuf::new(),
            On::Fd(argument) => of_descriptor(call.pid, call.args[argument]),
            On::Path(argument) => below(&of_directory(call.pid), self.text(call.pid, call.args[argument])),
            On::At(fd, argument) => {
                let text = self.text(call.pid, call.args[argument]);
                let is_cwd = call.args[fd] as c_int == libc::AT_FDCWD;
                if text.is_absolute() {
                    text
                } else if is_cwd {
                    below(&of_directory(call.pid), text)
                } else {
                    below(&of_descriptor(call.pid, call.args[fd]), text)
                }
            }
        }
    }

    /// The text at an address; empty for none.
    fn text(&mut self, pid: pid_t, address: u64) -> PathBuf {
        if address == 0 {
            return PathBuf::new();
        }
        // All threads have one memory; it is another one after an exec, and so it is opened anew when it ends.
        for _ in 0..2 {
            if self.0.is_none() {
                self.0 = File::open(format!("/proc/{pid}/mem")).ok();
            }
            let mut bytes = Vec::new();
            while let (Some(file), true) = (&self.0, bytes.len() < PATH_LIMIT_BYTES) {
                // To the end of a page: the next one may not be there.
                let at = address + bytes.len() as u64;
                let mut piece = vec![0; 4096 - (at % 4096) as usize];
                match file.read_at(&mut piece, at) {
                    Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
                    _ => break,
                }
                if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
                    bytes.truncate(end);
                    return PathBuf::from(std::ffi::OsString::from_vec(bytes));
                }
            }
            self.0 = None;
        }
        PathBuf::new()
    }
}

fn below(dir: &Path, path: PathBuf) -> PathBuf {
    if path.as_os_str().is_empty() { dir.to_owned() } else { dir.join(path) }
}

fn of_descriptor(pid: pid_t, fd: u64) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/fd/{}", fd as c_int)).unwrap_or_default()
}

fn of_directory(pid: pid_t) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default()
}
