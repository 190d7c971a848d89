//! A disk with a volatile write cache: one file, served over FUSE, that a loop device makes a disk of.
//!
//! What is written counts as on the medium only once the disk is told to flush, which the loop device passes on as a
//! sync of the file. At the cut, each sector of each write since then is on the medium, or not, by the seed; a sector
//! is never half there, as with real drives. The disk as the cut leaves it is made beside the file, and the file
//! itself goes on as if nothing had happened, so that unmounting it needs no care.
//!
//! The server is a process of its own: were it a thread of the process that uses the disk, killing that process in the
//! middle of an unmount would leave both waiting for each other. With its last descriptor the kernel ends the disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, mount};

use crate::support::random::Random;

/// The smallest unit that a disk writes whole.
pub const SECTOR_BYTES: usize = 4096;

/// The name of the disk in the mounted directory, and of what cuts its power.
const DISK: &str = "disk";
const CUT: &str = "cut";
const NODES: [(&str, u64); 2] = [(DISK, 2), (CUT, 3)];

/// The variable that tells the test binary to be a server, and of which image.
const IMAGE: &str = "KYTX_POWER_IMAGE";

/// The disk, as its user sees it.
pub struct Cache {
    dir: std::path::PathBuf,
    server: Child,
}

impl Cache {
    /// Serves an image in a directory that exists.
    pub fn serve(image: &Path, dir: &Path) -> io::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", device.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("BUG: one final zero");
        mount("kytx-disk", dir, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options)?;
        let server = Command::new(std::env::current_exe()?)
            .args(["--exact", "a_disk_is_served"])
            .env(IMAGE, image)
            .stdin(Stdio::from(device))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { dir: dir.to_owned(), server })
    }

    /// The file to make a disk of.
    pub fn disk(&self) -> std::path::PathBuf {
        self.dir.join(DISK)
    }

    /// The server's process.
    pub fn pid(&self) -> i32 {
        self.server.id().cast_signed()
    }

    /// What cuts the power, and leaves the disk of then in a file.
    pub fn cutter(&self, seed: u64, after: &Path) -> impl FnOnce() + Send + use<> {
        let (order, order_to) = (format!("{seed} {}", after.display()), self.dir.join(CUT));
        move || fs::write(order_to, order).expect("the power is cut")
    }

    /// Takes the disk away, once nothing uses it.
    pub fn remove(mut self) -> io::Result<()> {
        rustix::mount::unmount(&self.dir, rustix::mount::UnmountFlags::empty())?;
        self.server.wait().map(drop)
    }
}

/// Serves a disk until it is unmounted, if this process was started for that.
pub fn serve_if_asked() {
    let Some(image) = std::env::var_os(IMAGE) else { return };
    let device = rustix::stdio::stdin().try_clone_to_owned().unwrap();
    let image = File::options().read(true).write(true).open(image).unwrap();
    let mut server = Server { image, unflushed: Vec::new() };
    let mut device = File::from(device);
    let mut request = vec![0; (1 << 20) + 8192];
    loop {
        match device.read(&mut request) {
            Ok(length) => {
                if let Some(answer) = server.answer(&request[..length]) {
                    // One that was interrupted is not waited for any more.
                    let _ = device.write(&answer);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // ENODEV: unmounted.
            Err(_) => return,
        }
    }
}

/// A write since the last flush.
struct Unflushed {
    offset: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

struct Server {
    image: File,
    unflushed: Vec<Unflushed>,
}

impl Server {
    /// The answer to a request of the protocol in `linux/fuse.h`; `None` where none is awaited.
    fn answer(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        const FORGET: u64 = 2;
        const BATCH_FORGET: u64 = 42;
        let head = Fields(request);
        let (operation, unique, node) = (head.u32(4), head.u64(8), head.u64(16));
        if operation == FORGET || operation == BATCH_FORGET {
            return None;
        }
        let (error, body) = match self.operate(operation, node, &request[40..]) {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error().unwrap_or(libc::EIO), Vec::new()),
        };
        let mut answer = Vec::with_capacity(16 + body.len());
        answer.extend((16 + body.len() as u32).to_ne_bytes());
        answer.extend(error.to_ne_bytes());
        answer.extend(unique.to_ne_bytes());
        answer.extend(body);
        Some(answer)
    }

    fn operate(&mut self, operation: u64, node: u64, body: &[u8]) -> io::Result<Vec<u8>> {
        let input = Fields(body);
        Ok(match operation {
            // LOOKUP
            1 => {
                let name = body.strip_suffix(b"\0").unwrap_or(body);
                let found = NODES.iter().find(|(known, _)| known.as_bytes() == name);
                let (_, node) = found.ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
                // Node, generation; how long both may be believed.
                let mut entry = words(&[*node, 0, 3600, 3600, 0]);
                entry.extend(self.attributes(*node)?);
                entry
            }
            // GETATTR, SETATTR: nothing is set but by writing.
            3 | 4 => {
                let mut found = words(&[3600, 0]);
                found.extend(self.attributes(node)?);
                found
            }
            // OPEN, OPENDIR
            14 | 27 => words(&[0, 0]),
            // READ
            15 => {
                let mut bytes = vec![0; input.u32(16) as usize];
                let length = self.image.read_at(&mut bytes, input.u64(8))?;
                bytes.truncate(length);
                bytes
            }
            // WRITE
            16 => {
                let length = input.u32(16) as usize;
                let content = &body[40..40 + length];
                if node == 3 {
                    self.cut(content)?;
                } else {
                    self.write(input.u64(8), content)?;
                }
                words(&[length as u64])
            }
            // FSYNC
            20 => {
                self.unflushed.clear();
                Vec::new()
            }
            // RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY
            18 | 25 | 29 | 34 | 38 => Vec::new(),
            // INIT: version 7.31; read ahead; flags, of which the last permits writes of more than 32 pages; requests
            // under way; bytes of one write; pages of one write.
            26 => {
                const MAX_PAGES: u32 = 1 << 22;
                let mut answer = Vec::new();
                for word in [7, 31, input.u32(8) as u32, MAX_PAGES, 0, 1 << 20, 1, 256] {
                    answer.extend(word.to_ne_bytes());
                }
                answer.resize(64, 0);
                answer
            }
            _ => return Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        })
    }

    fn attributes(&self, node: u64) -> io::Result<Vec<u8>> {
        let (mode, size) = match node {
            1 => (libc::S_IFDIR | 0o700, 0),
            2 => (libc::S_IFREG | 0o600, self.image.metadata()?.len()),
            _ => (libc::S_IFREG | 0o600, 0),
        };
        // Node, size, blocks, three times and their nanoseconds; mode, links, owner, device, block size, flags.
        let mut bytes = words(&[node, size, size / 512, 0, 0, 0]);
        for word in [0, 0, 0, mode, 1, 0, 0, 0, SECTOR_BYTES as u32, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        Ok(bytes)
    }

    fn write(&mut self, offset: u64, content: &[u8]) -> io::Result<()> {
        let mut old = vec![0; content.len()];
        self.image.read_exact_at(&mut old, offset)?;
        self.image.write_all_at(content, offset)?;
        self.unflushed.push(Unflushed { offset, old, new: content.to_owned() });
        Ok(())
    }

    /// Makes the disk that a power cut at this moment leaves.
    fn cut(&self, order: &[u8]) -> io::Result<()> {
        let order = std::str::from_utf8(order).map_err(io::Error::other)?;
        let (seed, path) = order.split_once(' ').ok_or(io::ErrorKind::InvalidInput)?;
        let mut random = Random::new(seed.parse().map_err(io::Error::other)?);
        let after = crate::disk::copy_sparse(&self.image, Path::new(path))?;
        for write in self.unflushed.iter().rev() {
            after.write_all_at(&write.old, write.offset)?;
        }
        // Some disks had written nearly everything by then, others nearly nothing.
        let kept_percent = [0, 10, 50, 90, 100][random.up_to(5) as usize - 1];
        for write in &self.unflushed {
            // A write is kept, lost, or torn: then each sector has its own fate.
            let is_torn = random.up_to(4) == 1;
            let mut is_kept = random.up_to(100) <= kept_percent;
            for (number, sector) in write.new.chunks(SECTOR_BYTES).enumerate() {
                if is_torn {
                    is_kept = random.up_to(100) <= kept_percent;
                }
                if is_kept {
                    after.write_all_at(sector, write.offset + (number * SECTOR_BYTES) as u64)?;
                }
            }
        }
        Ok(())
    }
}

/// Numbers at places of a request.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u64 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("BUG: four bytes")).into()
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().expect("BUG: eight bytes"))
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// What was flushed stays; each sector since then is the old or the new one, and over some seeds every mixture occurs.
#[test]
fn a_cut_takes_sectors_that_were_not_flushed_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let image =
        File::options().read(true).write(true).create_new(true).open(dir.path().join("disk")).unwrap();
    image.set_len(8 * SECTOR_BYTES as u64).unwrap();
    let mut server = Server { image, unflushed: Vec::new() };
    let sectors = |byte: u8| vec![byte; 4 * SECTOR_BYTES];
    server.write(0, &sectors(1)).unwrap();
    server.operate(20, 2, &[]).unwrap();
    server.write(2 * SECTOR_BYTES as u64, &sectors(2)).unwrap();
    server.write(3 * SECTOR_BYTES as u64, &sectors(3)).unwrap();
    let mut mixtures = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let after = dir.path().join("after");
        server.cut(format!("{seed} {}", after.display()).as_bytes()).unwrap();
        let bytes = fs::read(after).unwrap();
        let found: Vec<u8> = bytes
            .chunks(SECTOR_BYTES)
            .map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
                sector[0]
            })
            .collect();
        assert_eq!(found[..2], [1, 1]);
        for (sector, possible) in
            found[2..].iter().zip([&[1, 2][..], &[1, 2, 3], &[0, 2, 3], &[0, 2, 3], &[0, 3], &[0]])
        {
            assert!(possible.contains(sector), "{found:?}");
        }
        mixtures.insert(found);
    }
    let torn = |found: &&Vec<u8>| found[3] == 3 && found[6] == 0;
    assert!(
        mixtures.contains(&vec![1, 1, 1, 1, 0, 0, 0, 0]) && mixtures.contains(&vec![1, 1, 2, 3, 3, 3, 3, 0])
    );
    assert!(mixtures.iter().any(|found| torn(&found)), "{mixtures:?}");
    // The disk itself goes on.
    let mut now = [0; 1];
    server.image.read_exact_at(&mut now, 3 * SECTOR_BYTES as u64).unwrap();
    assert_eq!(now, [3]);
}
