//! Unpacks a package into a tree that is durable and proven when this returns.

use std::io;
use std::path::Path;

use super::compare::{Ignoring, compare};
use super::manifest::{Entry, Manifest};
use super::package::{Limits, PackageError, content_of};
use super::pour::pour;
use super::tree_writer::{Sink, TreeWriter, sync_dirs, with_syncing};
use super::walk::Contents;
use crate::digest::Digest;
use crate::effect::fs::Fs;
use crate::effect::tree::{Tick, parent_of};
use crate::raw_path::RawPath;

/// Unpacks the package at `path` into `into`, which must not exist, everything below the top directory directly into
/// it. Everything will belong to `owner` (user, group); who is not root can only give to himself.
///
/// The package is checked as strictly as in [`super::package::scan`], hashed on its way, and must be the one whose
/// content is `expected`. Every file is synced by one of several `threads` on the handle that wrote it, every directory
/// after that, and the tree is looked at once more. The name `into` itself is not synced: the caller gives the tree
/// another. On an error a part of it is left for the caller to remove.
pub fn unpack(
    fs: &dyn Fs,
    path: &Path,
    expected: &Digest,
    into: &Path,
    owner: (u32, u32),
    threads: usize,
    tick: Tick<'_>,
) -> Result<Manifest, PackageError> {
    let free_bytes = fs.free_bytes(parent_of(into))?;
    let (manifest, owner_lost) = with_syncing(threads, |closing| {
        let writer = TreeWriter::create(fs, into, closing)?;
        let mut sink = Owned { writer, owner };
        let (top, mut manifest) = pour(fs, path, Limits::for_free_bytes(free_bytes), &mut sink, tick)?;
        let found = content_of(&top, &manifest);
        if found != *expected {
            return Err(PackageError::Changed { expected: *expected, found });
        }
        for entry in &mut manifest.entries {
            (entry.uid, entry.gid) = owner;
        }
        let owner_lost = sink.writer.finish(&manifest.entries)?;
        Ok((manifest, owner_lost))
    })?;
    sync_dirs(fs, into, &manifest.entries)?;
    prove(fs, into, manifest, &owner_lost, threads, tick)
}

struct Owned<'a> {
    writer: TreeWriter<'a>,
    owner: (u32, u32),
}

impl Owned<'_> {
    fn owned(&self, entry: &Entry) -> Entry {
        let (uid, gid) = self.owner;
        Entry { uid, gid, ..entry.clone() }
    }
}

impl Sink for Owned<'_> {
    fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        self.writer.begin(entry)
    }

    fn content(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.writer.content(chunk)
    }

    fn end(&mut self, entry: &Entry) -> io::Result<()> {
        let entry = self.owned(entry);
        self.writer.end(&entry)
    }

    fn lose(&mut self, entry: &Entry) -> io::Result<()> {
        self.writer.lose(entry)
    }
}

/// Looks at the tree once more: a file system that folds case or rewrites names would have lost something unseen.
fn prove(
    fs: &dyn Fs,
    into: &Path,
    mut manifest: Manifest,
    owner_lost: &[RawPath],
    threads: usize,
    tick: Tick<'_>,
) -> Result<Manifest, PackageError> {
    let found = Manifest::walk(fs, into, Contents::Skip, threads, tick)?;
    // A new file may inherit an access control list from the directory above.
    let ignoring = Ignoring { owner: !owner_lost.is_empty(), dir_mtime: false, xattrs: true };
    let differences = compare(&manifest, &found, ignoring);
    if let Some(first) = differences.first() {
        let (first, count) = (first.to_string(), differences.len());
        return Err(PackageError::Unfaithful { into: into.into(), first, count });
    }
    for (entry, found) in manifest.entries.iter_mut().zip(found.entries) {
        (entry.uid, entry.gid, entry.xattrs) = (found.uid, found.gid, found.xattrs);
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::super::package::{Package, scan};
    use super::super::tar_in::TarError;
    use super::*;
    use crate::effect::fs::Kind;
    use crate::effect::os::OsFs;
    use crate::effect::tree::no_tick;
    use std::io::Write;
    use std::path::PathBuf;
    use std::process::Command;

    const LIMITS: Limits = Limits { unpacked_bytes: 1 << 30, entries: 1000, ratio: 200 };

    fn release(dir: &Path) -> PathBuf {
        let tree = dir.join("Kyligence-Enterprise-9.9");
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        std::fs::create_dir_all(tree.join("conf/profile_prod")).unwrap();
        std::fs::write(tree.join("VERSION"), "Kyligence Enterprise 9.9\n").unwrap();
        std::fs::write(tree.join("bin/kylin.sh"), "#!/bin/bash\n").unwrap();
        std::os::unix::fs::symlink("profile_prod", tree.join("conf/profile")).unwrap();
        std::fs::write(tree.join("conf/profile_prod/kylin.properties"), "a=b\n").unwrap();
        std::fs::write(tree.join("conf").join("n".repeat(200)), vec![7; 700_000]).unwrap();
        std::fs::hard_link(tree.join("VERSION"), tree.join("bin/version")).unwrap();
        tree
    }

    fn tar(dir: &Path, args: &[&str]) -> PathBuf {
        let archive = dir.join("p.tar.gz");
        let ran =
            Command::new("tar").args(["-zcf"]).arg(&archive).args(args).current_dir(dir).status().unwrap();
        assert!(ran.success());
        archive
    }

    fn look(path: &Path) -> Result<Package, PackageError> {
        scan(&OsFs, path, LIMITS, &|path| path.file_name() == b"VERSION", &no_tick)
    }

    fn owner() -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }

    #[test]
    fn a_package_unpacks_to_what_was_scanned_in_either_form() {
        let dir = tempfile::tempdir().unwrap();
        let tree = release(dir.path());
        let name = "Kyligence-Enterprise-9.9";
        let archive = tar(dir.path(), &["--format=posix", name]);
        let (packed, unpacked) = (look(&archive).unwrap(), look(&tree).unwrap());
        assert_eq!(packed, unpacked);
        assert_eq!((packed.top.clone(), packed.manifest.entries.len()), (name.into(), 10));
        assert_eq!(packed.texts[&"VERSION".into()], b"Kyligence Enterprise 9.9\n");
        for (form, threads) in [(&archive, 1), (&archive, 4), (&tree, 4)] {
            let into = dir.path().join("into");
            let made = unpack(&OsFs, form, &packed.content, &into, owner(), threads, &no_tick).unwrap();
            let walked = Manifest::walk(&OsFs, &into, Contents::Hash, 2, &no_tick).unwrap();
            assert_eq!(compare(&made, &walked, Ignoring::default()), []);
            assert_eq!(made.get(&"bin/version".into()).unwrap().hard_link, Some("VERSION".into()));
            let again = unpack(&OsFs, form, &packed.content, &into, owner(), 2, &no_tick).unwrap_err();
            let exists = matches!(&again, PackageError::Io(e) if e.kind() == io::ErrorKind::AlreadyExists);
            assert!(exists, "{again}");
            std::fs::remove_dir_all(&into).unwrap();
        }
    }

    #[test]
    fn formats_of_other_packers_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        release(dir.path());
        // The old formats keep whole seconds.
        let at = ["--mtime=@1700000000", "--owner=someone:77", "--group=some:88"];
        let contents: Vec<Digest> = ["gnu", "posix", "oldgnu"]
            .iter()
            .map(|format| {
                let format = format!("--format={format}");
                let args = [&at[..], &[format.as_str(), "./Kyligence-Enterprise-9.9"]].concat();
                look(&tar(dir.path(), &args)).unwrap().content
            })
            .collect();
        assert!(contents.iter().all(|content| *content == contents[0]));
    }

    #[test]
    fn a_package_that_changed_since_the_scan_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let tree = release(dir.path());
        let planned = look(&tree).unwrap();
        std::fs::write(tree.join("VERSION"), "Kyligence Enterprise 8.8\n").unwrap();
        let into = dir.path().join("into");
        let error = unpack(&OsFs, &tree, &planned.content, &into, owner(), 2, &no_tick).unwrap_err();
        assert!(matches!(error, PackageError::Changed { .. }), "{error}");
    }

    #[test]
    fn damaged_files_are_refused_each_by_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        release(dir.path());
        let archive = tar(dir.path(), &["Kyligence-Enterprise-9.9"]);
        let sound = std::fs::read(&archive).unwrap();
        let with = |bytes: &[u8]| {
            std::fs::write(&archive, bytes).unwrap();
            look(&archive).unwrap_err()
        };
        assert!(matches!(with(b""), PackageError::NotGzip));
        assert!(matches!(with(b"PK\x03\x04"), PackageError::NotGzip));
        assert!(matches!(with(b"\x1fno gzip header follows"), PackageError::NotGzip));
        for cut in [1, 5, 12, sound.len() / 2, sound.len() - 1] {
            let error = with(&sound[..cut]);
            assert!(matches!(error, PackageError::CutOff), "{cut}: {error:?}");
        }
        assert!(matches!(with(&[&sound[..], b"garbage"].concat()), PackageError::TrailingGarbage));
        let mut flipped = sound.clone();
        let place = sound.len() - 6;
        flipped[place] ^= 1;
        assert!(matches!(with(&flipped), PackageError::Damaged { .. }));
        // Two members in a row are one stream, and what follows the end mark inside is refused.
        let twice = with(&[&sound[..], &sound].concat());
        assert!(matches!(twice, PackageError::Tar(TarError::TrailingGarbage)), "{twice:?}");
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn two_lengths_for_one_member_are_refused() {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        let record = b"13 size=1024\n";
        header.set_size(record.len() as u64);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(record);
        bytes.resize(1024, 0);
        let mut header = tar::Header::new_ustar();
        header.set_path("t/f").unwrap();
        for set in [tar::Header::set_size, tar::Header::set_uid, tar::Header::set_gid, tar::Header::set_mtime]
        {
            set(&mut header, 0);
        }
        header.set_mode(0o644);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(4096, 0);
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("p.tar.gz");
        std::fs::write(&archive, gzip(&bytes)).unwrap();
        let error = look(&archive).unwrap_err();
        let conflict = TarError::SizeConflict { name: "t/f".into(), header_bytes: 0, pax_bytes: 1024 };
        assert!(matches!(&error, PackageError::Tar(found) if found.to_string() == conflict.to_string()));
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("t")).unwrap();
        std::fs::File::create(dir.path().join("t/zeros")).unwrap().set_len(100 << 20).unwrap();
        let archive = tar(dir.path(), &["t"]);
        assert!(matches!(look(&archive).unwrap_err(), PackageError::Bomb { .. }));
        let small = Limits { unpacked_bytes: 1 << 20, ..LIMITS };
        let error = scan(&OsFs, &archive, small, &|_| false, &no_tick).unwrap_err();
        assert!(matches!(error, PackageError::TooLarge { .. }));
    }

    #[test]
    fn a_directory_with_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = release(dir.path());
        let _socket = std::os::unix::net::UnixListener::bind(tree.join("s")).unwrap();
        assert!(matches!(look(&tree).unwrap_err(), PackageError::SpecialFile { kind: "socket", .. }));
        assert_eq!(OsFs.stat(&tree).unwrap().kind, Kind::Dir);
    }

    #[test]
    fn a_stop_request_ends_an_unpacking() {
        let dir = tempfile::tempdir().unwrap();
        let tree = release(dir.path());
        let archive = tar(dir.path(), &["Kyligence-Enterprise-9.9"]);
        let content = look(&tree).unwrap().content;
        let stop = |bytes: u64| if bytes > 0 { Err(io::Error::other("stop")) } else { Ok(()) };
        let error = unpack(&OsFs, &archive, &content, &dir.path().join("i"), owner(), 4, &stop).unwrap_err();
        assert_eq!(error.to_string(), "stop");
    }
}
