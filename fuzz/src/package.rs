//! Hostile packages: scanned, unpacked, and whatever they are, nothing outside the target is touched.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use arbitrary::Unstructured;
use kytx::backup::package::{Limits, Package, PackageError, scan};
use kytx::backup::unpack::unpack;
use kytx::digest::Digest;
use kytx::effect::tree::no_tick;
use kytx::raw_path::RawPath;

use super::guarded_fs::GuardedFs;
use super::packed::packed;
use super::scratch::{Scratch, entries, walk};

const FREE_BYTES: u64 = 1 << 20;
const LIMITS: Limits = Limits { unpacked_bytes: FREE_BYTES, entries: 10_000, ratio: 200 };
const NEIGHBOUR: &[u8] = b"somebody else's";

/// A package is refused or unpacked, and either way nothing changes outside its target, no more is written than is
/// free, no link leads out, and nothing in the tree has a special bit. What a scan lets in can be unpacked, and the
/// tree scanned as a package is the same package.
pub fn package(data: &[u8]) {
    let Ok(bytes) = packed(&mut Unstructured::new(data)) else { return };
    let scratch = Scratch::new();
    let file = scratch.path().join("p.tar.gz");
    let neighbour = scratch.path().join("neighbour");
    fs::write(&file, &bytes).expect("the scratch directory takes it");
    fs::write(&neighbour, NEIGHBOUR).expect("the scratch directory takes it");
    let target = scratch.path().join("target");
    fs::create_dir(&target).expect("the scratch directory takes it");

    let fs_guard = GuardedFs::new(&target, FREE_BYTES);
    if let Ok(scanned) = scan(&fs_guard, &file, LIMITS, &is_text, &no_tick) {
        unpack_and_compare(&fs_guard, &file, &target, &scanned);
    } else {
        // Whoever unpacks what a scan refuses gets no further.
        let into = target.join("refused");
        let refused = unpack(&fs_guard, &file, &Digest::ZERO, &into, owner_of(&target), 1, &no_tick);
        assert!(refused.is_err(), "unpacked what was refused");
    }
    assert!(fs_guard.written_bytes() <= FREE_BYTES, "more was written than was free");
    nothing_leads_out(&target);
    assert_eq!(fs::read(&neighbour).ok().as_deref(), Some(NEIGHBOUR));
    assert_eq!(fs::read(&file).ok().as_deref(), Some(&bytes[..]));
    assert_eq!(entries(scratch.path()).len(), 3, "something new beside the target");
}

fn unpack_and_compare(guard: &GuardedFs, file: &Path, target: &Path, scanned: &Package) {
    assert!(scanned.manifest.entries.iter().map(|entry| entry.size).sum::<u64>() <= FREE_BYTES);
    let into = target.join(scanned.top.as_path());
    match unpack(guard, file, &scanned.content, &into, owner_of(target), 1, &no_tick) {
        Ok(_) => {}
        Err(PackageError::Io(error)) if is_of_this_machine(&error) => return,
        Err(error) => panic!("a scan let in what cannot be unpacked: {error:?}"),
    }
    match scan(guard, &into, LIMITS, &is_text, &no_tick) {
        Ok(again) => assert_eq!(again, *scanned, "the unpacked tree is another package"),
        Err(PackageError::Io(error)) if is_of_this_machine(&error) => {}
        Err(error) => panic!("the unpacked tree is refused: {error:?}"),
    }
}

fn is_text(path: &RawPath) -> bool {
    path.file_name() == b"VERSION"
}

/// A path that is too long where the target lies, or a directory that only root could enter.
fn is_of_this_machine(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidFilename | io::ErrorKind::PermissionDenied)
}

/// Whose the unpacked files are: everybody may give to himself.
fn owner_of(dir: &Path) -> (u32, u32) {
    let meta = fs::metadata(dir).expect("it is there");
    (meta.uid(), meta.gid())
}

/// Follows a link on the disk, one component after the other; what is not there is taken for a directory.
fn leads_out(target: &Path, link: &Path) -> bool {
    let mut at = link.parent().expect("a link is in a directory").to_owned();
    let mut texts = vec![fs::read_link(link).expect("it is a link")];
    let mut followed = 0;
    while let Some(text) = texts.pop() {
        let mut rest = text.components();
        while let Some(component) = rest.next() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => {
                    at.pop();
                }
                Component::Normal(name) => {
                    if let Ok(next) = fs::read_link(at.join(name)) {
                        followed += 1;
                        texts.extend([rest.as_path().to_owned(), next]);
                        break;
                    }
                    at.push(name);
                }
                Component::RootDir | Component::Prefix(_) => return true,
            }
            if !at.starts_with(target) {
                return true;
            }
        }
        // The kernel follows no more than that.
        if followed > 40 {
            return false;
        }
    }
    false
}

fn nothing_leads_out(target: &Path) {
    for path in walk(target) {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let kind = meta.file_type();
        assert!(kind.is_file() || kind.is_dir() || kind.is_symlink(), "a special file `{}`", path.display());
        let special = meta.permissions().mode() & 0o7000;
        assert!(special == 0 || kind.is_symlink(), "`{}` has special bits", path.display());
        if kind.is_file() {
            let same = |other: &&PathBuf| {
                fs::symlink_metadata(other)
                    .is_ok_and(|other| (other.ino(), other.dev()) == (meta.ino(), meta.dev()))
            };
            let names = walk(target).iter().filter(same).count() as u64;
            assert_eq!(meta.nlink(), names, "`{}` has a name elsewhere", path.display());
        }
        if kind.is_symlink() {
            assert!(!leads_out(target, &path), "`{}` leads out of the tree", path.display());
        }
    }
}
