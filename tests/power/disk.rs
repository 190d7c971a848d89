//! Disks that live in one file, file systems on them, and two ways to cut their power.

#![allow(
    unsafe_code,
    reason = "three requests of ioctl have no safe form; nothing but these calls is in an unsafe block"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::cache::{Cache, SECTOR_BYTES};

/// A file system of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

/// How the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Cut {
    /// The file system is told to stop at once, and not to write its log: what was given to the disk stays, what was
    /// not is lost.
    Shutdown,
    /// The disk loses, keeps or tears what it was given since it was last told to flush.
    VolatileCache,
}

impl FileSystem {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// The program that makes one, with what keeps the file small and quick to copy.
    fn maker(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-b", "4096", "-J", "size=4", "-E", "nodiscard"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "-K", "-s", "size=4096"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K", "-s", "4096", "-m", "single"]),
        }
    }

    fn options(self) -> &'static std::ffi::CStr {
        match self {
            // Nothing in the background that the next cut would have to wait for.
            Self::Ext4 => c"noinit_itable",
            Self::Xfs => c"",
            Self::Btrfs => c"nodiscard",
        }
    }

    /// Makes a file system in a new file.
    pub fn make(self, image: &Path) -> io::Result<()> {
        const SIZE_BYTES: u64 = 512 << 20;
        File::create(image)?.set_len(SIZE_BYTES)?;
        let (program, args) = self.maker();
        let output = crate::namespace::program_of_root(program).args(args).arg(image).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("{program}: {text}")));
        }
        Ok(())
    }
}

/// A mounted disk.
pub struct Disk {
    image: PathBuf,
    mountpoint: PathBuf,
    cache: Option<(Cache, PathBuf)>,
}

impl Disk {
    /// Mounts an image; the kernel recovers it if its power was cut.
    pub fn mount(image: &Path, file_system: FileSystem, mountpoint: &Path) -> io::Result<Self> {
        attach(image, file_system, mountpoint)?;
        Ok(Self { image: image.to_owned(), mountpoint: mountpoint.to_owned(), cache: None })
    }

    /// The same, such that its power can be cut this way. What the cut leaves is in the file `after`.
    pub fn mount_to_cut(
        image: &Path,
        file_system: FileSystem,
        mountpoint: &Path,
        cut: Cut,
        after: &Path,
    ) -> io::Result<Self> {
        if cut == Cut::Shutdown {
            return Self::mount(image, file_system, mountpoint);
        }
        let dir = image.with_extension("served");
        std::fs::create_dir_all(&dir)?;
        let cache = Cache::serve(image, &dir)?;
        attach(&cache.disk(), file_system, mountpoint)?;
        let cache = Some((cache, after.to_owned()));
        Ok(Self { image: image.to_owned(), mountpoint: mountpoint.to_owned(), cache })
    }

    /// What cuts its power.
    pub fn cutter(&self, seed: u64) -> io::Result<Box<dyn FnOnce() + Send>> {
        if let Some((cache, after)) = &self.cache {
            return Ok(Box::new(cache.cutter(seed, after)));
        }
        let root = File::open(&self.mountpoint)?;
        Ok(Box::new(move || shut_down(&root).expect("the file system shuts down")))
    }

    /// The process that must live as long as the disk.
    pub fn server(&self) -> Option<i32> {
        self.cache.as_ref().map(|(cache, _)| cache.pid())
    }

    /// Unmounts it.
    pub fn unmount(self) -> io::Result<()> {
        // What has just been killed may not be gone altogether.
        let begun = std::time::Instant::now();
        loop {
            match unmount(&self.mountpoint, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) if begun.elapsed() < crate::support::PATIENCE => {
                    std::thread::yield_now();
                }
                other => break other?,
            }
        }
        self.cache.map_or(Ok(()), |(cache, _)| cache.remove())
    }

    /// Unmounts it after a cut, and leaves in `after` what the cut left.
    pub fn unmount_cut(self, after: &Path) -> io::Result<()> {
        let (image, is_made) = (self.image.clone(), self.cache.is_some());
        self.unmount()?;
        if is_made { std::fs::remove_file(image) } else { std::fs::rename(image, after) }
    }
}

/// Copies the parts of a file that hold something.
pub fn copy_sparse(from: &File, to: &Path) -> io::Result<File> {
    let copy = File::options().read(true).write(true).create(true).truncate(true).open(to)?;
    let length = from.metadata()?.len();
    copy.set_len(length)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(from.as_fd(), SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => return Ok(copy),
            other => other?,
        };
        let end = rustix::fs::seek(from.as_fd(), SeekFrom::Hole(start))?;
        at = start;
        while at < end {
            let part = &mut buffer[..(end - at).min(1 << 20) as usize];
            from.read_exact_at(part, at)?;
            // Journals of file systems are long runs of zeros.
            if part.iter().any(|byte| *byte != 0) {
                copy.write_all_at(part, at)?;
            }
            at += part.len() as u64;
        }
    }
}

/// Makes a loop device of a file and mounts it. The device goes with its last user, whatever ends that one.
fn attach(file: &Path, file_system: FileSystem, mountpoint: &Path) -> io::Result<()> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const AUTOCLEAR: u32 = 4;
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let file = File::options().read(true).write(true).open(file)?;
    // struct loop_config: descriptor, sector size, then struct loop_info64 with its flags at byte 52, and room.
    let mut config = [0_u8; 304];
    config[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    config[4..8].copy_from_slice(&(SECTOR_BYTES as u32).to_ne_bytes());
    config[60..64].copy_from_slice(&AUTOCLEAR.to_ne_bytes());
    loop {
        // SAFETY: it takes no argument.
        let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        // SAFETY: the structure is live and of the size that it reads.
        match checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, config.as_ptr()) }) {
            // Somebody else took it in between.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => continue,
            other => other?,
        };
        mount(&path, mountpoint, file_system.name(), MountFlags::NOATIME, file_system.options())?;
        return Ok(());
    }
}

/// Stops a file system without writing its log. The request and its flag are the same for ext4 and xfs.
fn shut_down(root: &File) -> io::Result<()> {
    // _IOR('X', 125, __u32)
    const SHUTDOWN: libc::c_ulong = 0x8004_587D;
    let no_log_flush: u32 = 2;
    // SAFETY: the flag is a live integer of the size that it reads.
    checked(unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN as _, &raw const no_log_flush) }).map(drop)
}

/// Brings up the loopback interface of a new network namespace.
pub fn bring_up_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // struct ifreq: the name, and its flags at byte 16.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(libc::IFF_UP as u16).to_ne_bytes());
    // SAFETY: the structure is live and of the size that it reads.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, request.as_ptr()) }).map(drop)
}

fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
