//! The copy of a home that a rehearsal works on: everything that the home leads to is copied too, so that nothing the
//! copy's scripts write can get out of the rehearsal's directory.

use std::io;
use std::path::{Component, Path, PathBuf};

use crate::effect::fs::{Fs, Kind};
use crate::effect::os::{OsFs, real_path};
use crate::effect::tree::{Context, copy_attrs, copy_live_tree, make_dirs, measure_tree, no_tick, parent_of};
use crate::raw_path::RawPath;

/// How many links may lead on from what links lead to.
const TREES_LIMIT: usize = 1_000;

/// Where a link of the home leads, if it leads out of it.
struct Way {
    link: PathBuf,
    to: Target,
}

enum Target {
    /// Something that is copied.
    Tree(PathBuf),
    /// Nothing, or what holds the home itself: in the copy it leads nowhere.
    Nowhere(PathBuf),
}

/// How much there is to copy: the home, and what its links lead to outside of it. Bytes.
pub fn measure(home: &Path, dir: &Path) -> io::Result<u64> {
    let mut bytes = measure_tree(&OsFs, home)?.0;
    let mut seen = vec![home.to_owned()];
    let mut next = 0;
    while let Some(tree) = seen.get(next).cloned() {
        next += 1;
        for way in ways_out(&tree, home, dir)? {
            let Target::Tree(target) = way.to else { continue };
            if !seen.iter().any(|tree| target.starts_with(tree)) && seen.len() < TREES_LIMIT {
                bytes += measure_tree(&OsFs, &target)?.0;
                seen.push(target);
            }
        }
    }
    Ok(bytes)
}

/// Copies the home to `copy` and what it leads to below `outside`. Returns what a reader of the report should know.
pub fn copy_home(home: &Path, copy: &Path, outside: &Path, dir: &Path) -> io::Result<Vec<String>> {
    let mut remarks = Vec::new();
    make_dirs(&OsFs, outside, 0o700)?;
    let mut trees: Vec<(PathBuf, PathBuf)> = vec![(home.to_owned(), copy.to_owned())];
    let mut next = 0;
    while let Some((original, place)) = trees.get(next).cloned() {
        let report = copy_live_tree(&OsFs, &original, &place, &no_tick)?;
        remarks.extend(
            report.skipped.iter().map(|path| format!("not copied: `{}`", RawPath::from(path.as_path()))),
        );
        for way in ways_out(&original, home, dir)? {
            let to = match way.to {
                Target::Nowhere(target) => {
                    let show = RawPath::from(target.as_path());
                    remarks.push(format!(
                        "`{}` leads to `{show}`, and in the copy nowhere",
                        RawPath::from(way.link.as_path())
                    ));
                    outside.join(format!("nowhere-{}", remarks.len()))
                }
                Target::Tree(target) => place_of(&target, &mut trees, outside),
            };
            let at = place.join(way.link.strip_prefix(&original).expect("BUG: a link lies in its tree"));
            lead(&way.link, &at, &to)?;
        }
        next += 1;
    }
    if trees.len() > 1 {
        remarks.push(format!(
            "{} places outside the home that its links lead to were copied too",
            trees.len() - 1
        ));
    }
    Ok(remarks)
}

/// Where a target is in the copy; it is put on the list of what is copied if it is new.
fn place_of(target: &Path, trees: &mut Vec<(PathBuf, PathBuf)>, outside: &Path) -> PathBuf {
    for (original, place) in trees.iter() {
        if let Ok(rest) = target.strip_prefix(original) {
            return if rest.as_os_str().is_empty() { place.clone() } else { place.join(rest) };
        }
    }
    let mut name = std::ffi::OsString::from(format!("{}-", trees.len()));
    name.push(target.file_name().unwrap_or_default());
    let place = outside.join(name);
    trees.push((target.to_owned(), place.clone()));
    place
}

/// Makes a copied link lead somewhere else, and keeps what it is like.
fn lead(original: &Path, copy: &Path, to: &Path) -> io::Result<()> {
    OsFs.unlink(copy).context("replace", copy)?;
    OsFs.symlink(to, copy).context("create", copy)?;
    copy_attrs(&OsFs, original, copy, &OsFs.stat(original)?).map(drop)
}

/// The links below a tree (or the tree itself, if it is a file) whose copies would lead out of the rehearsal.
fn ways_out(tree: &Path, home: &Path, dir: &Path) -> io::Result<Vec<Way>> {
    let mut found = Vec::new();
    let mut open = vec![tree.to_owned()];
    while let Some(path) = open.pop() {
        let meta = match OsFs.stat(&path) {
            // A live home: it was there a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path != tree => continue,
            other => other.context("look at", &path)?,
        };
        match meta.kind {
            Kind::Dir => {
                open.extend(OsFs.list(&path).context("list", &path)?.into_iter().map(|name| path.join(name)));
            }
            Kind::Symlink => {
                let target = OsFs.read_link(&path).context("read", &path)?;
                let stays = target.is_relative() && plain(parent_of(&path), &target).starts_with(tree);
                if !stays {
                    let to = destination(&plain(parent_of(&path), &target), home, dir);
                    found.extend(to.map(|to| Way { link: path, to }));
                }
            }
            _ => {}
        }
    }
    found.sort_by(|a, b| a.link.cmp(&b.link));
    Ok(found)
}

/// A path without `.` and `..`, as its words say.
fn plain(parent: &Path, target: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in parent.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

/// `None` for a device, which stays what it is.
fn destination(path: &Path, home: &Path, dir: &Path) -> Option<Target> {
    // Within the home the copy has everything, what is missing included.
    if path.starts_with(home) {
        return Some(Target::Tree(path.to_owned()));
    }
    let Ok(real) = real_path(path) else { return Some(Target::Nowhere(path.to_owned())) };
    match OsFs.stat(&real).map(|meta| meta.kind) {
        Ok(Kind::Device) => None,
        Ok(Kind::File | Kind::Dir) if !home.starts_with(&real) && !dir.starts_with(&real) => {
            Some(Target::Tree(real))
        }
        _ => Some(Target::Nowhere(real)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::tree::atomic_write;

    #[test]
    fn no_link_of_a_copy_leads_out_of_the_rehearsal() {
        let scratch = tempfile::tempdir().unwrap();
        let root = real_path(scratch.path()).unwrap();
        let (home, dir) = (root.join("opt/ke"), root.join("rehearsal"));
        let data = root.join("data");
        for path in [&home.join("conf"), &data.join("logs"), &dir] {
            make_dirs(&OsFs, path, 0o755).unwrap();
        }
        let write = |path: PathBuf, text: &str| atomic_write(&OsFs, &path, text.as_bytes(), 0o644).unwrap();
        write(data.join("kylin.properties"), "a=b\n");
        write(data.join("logs/kylin.log"), "line\n");
        write(home.join("conf/own"), "own\n");
        let link = |target: &str, at: &str| {
            let target = target.replace("ROOT", root.to_str().unwrap());
            OsFs.symlink(Path::new(&target), &home.join(at)).unwrap();
        };
        link("ROOT/data/logs", "logs");
        link("../../../data/kylin.properties", "conf/kylin.properties");
        link("ROOT/opt/ke/conf/own", "inside");
        link("conf/own", "relative");
        link("ROOT/opt/ke/missing", "dangling-inside");
        link("ROOT/none", "dangling");
        link("/", "everything");
        link("/dev/null", "null");
        OsFs.symlink(&data.join("logs"), &data.join("logs/again")).unwrap();

        let copy = dir.join("opt/ke");
        make_dirs(&OsFs, &dir.join("opt"), 0o700).unwrap();
        let remarks = copy_home(&home, &copy, &dir.join("outside"), &dir).unwrap();
        let target = |at: &str| OsFs.read_link(&copy.join(at)).unwrap();
        assert_eq!(target("inside"), copy.join("conf/own"));
        assert_eq!(target("dangling-inside"), copy.join("missing"));
        assert_eq!(target("relative"), Path::new("conf/own"));
        assert_eq!(target("null"), Path::new("/dev/null"));
        for at in ["logs", "conf/kylin.properties", "dangling", "everything"] {
            assert!(target(at).starts_with(dir.join("outside")), "{at}: {:?}", target(at));
        }
        assert_eq!(std::fs::read(copy.join("conf/kylin.properties")).unwrap(), b"a=b\n");
        assert_eq!(std::fs::read(copy.join("logs/kylin.log")).unwrap(), b"line\n");
        assert_eq!(OsFs.read_link(&target("logs").join("again")).unwrap(), target("logs"));
        assert!(real_path(&copy.join("everything")).is_err() && real_path(&copy.join("dangling")).is_err());
        assert_eq!(remarks.len(), 3, "{remarks:?}");
        // Four files, counted where they are: own, properties, log.
        assert_eq!(
            measure(&home, &dir).unwrap(),
            measure_tree(&OsFs, &home).unwrap().0 + 4 + 5 + link_bytes(&data)
        );
    }

    fn link_bytes(data: &Path) -> u64 {
        OsFs.stat(&data.join("logs/again")).unwrap().size
    }
}
