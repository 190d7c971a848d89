//! The disk itself under test: it does what the real file system does while the power stays, and what it loses is what
//! the models allow, no more and no less.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kytx::effect::fs::{Attrs, Fs, Kind, Timestamp, read_file};
use kytx::effect::os::OsFs;

use crate::crash::{Draw, Model, Walk};
use crate::disk::Image;
use crate::sim_fs::{Lacking, SimFs};

fn fresh() -> SimFs {
    SimFs::mount(Image::empty(), Lacking::default(), Vec::new(), 0)
}

/// Everything that the log may leave at its end, as the content of `/a` and of `/b`, or `-`.
fn outcomes(model: Model, work: impl Fn(&dyn Fs)) -> BTreeSet<String> {
    let fs = fresh();
    let base = fs.core().image.clone();
    work(&fs);
    let log = fs.core().log.clone();
    let mut walk = Walk::new(model, &base, &log, 0);
    while walk.at < log.len() {
        walk.step();
    }
    let mut found = BTreeSet::new();
    for choice in 0..walk.regular() + 200 {
        let fs = SimFs::mount(walk.build(&walk.fates(choice)), Lacking::default(), Vec::new(), 1);
        let shown = |path: &str| match read_file(&fs, path.as_ref(), 1 << 20) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).unwrap().replace('\0', "0");
                if text.len() > 8 { format!("{}..{}", &text[..1], text.len()) } else { text }
            }
            Err(_) => "-".to_owned(),
        };
        found.insert(format!("{} {}", shown("/a"), shown("/b")));
    }
    found
}

fn write(fs: &dyn Fs, path: &str, content: &[u8]) -> Box<dyn kytx::effect::fs::FsFile> {
    let mut file = fs.create(path.as_ref(), 0o600).unwrap();
    file.write_all(content).unwrap();
    file
}

#[track_caller]
fn assert_outcomes(model: Model, wanted: &[&str], work: impl Fn(&dyn Fs)) {
    let wanted: BTreeSet<String> = wanted.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(outcomes(model, work), wanted, "{}", model.name());
}

#[test]
fn what_is_not_synced_may_be_lost_in_any_part() {
    // A name without its bytes, or with zeros for them, on a strict disk; never zeros on an ordered one.
    let work = |fs: &dyn Fs| drop(write(fs, "/a", b"new"));
    assert_outcomes(Model::Strict, &["- -", " -", "000 -", "new -"], work);
    assert_outcomes(Model::Ordered, &["- -", " -", "new -"], work);
    // Bytes without their name.
    let work = |fs: &dyn Fs| write(fs, "/a", b"new").sync().unwrap();
    assert_outcomes(Model::Strict, &["- -", "new -"], work);
    // ext4 commits the name along.
    assert_outcomes(Model::Ordered, &["new -"], work);
    let work = |fs: &dyn Fs| {
        write(fs, "/a", b"new").sync().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
    };
    for model in Model::ALL {
        assert_outcomes(model, &["new -"], work);
    }
    let work = |fs: &dyn Fs| {
        drop(write(fs, "/a", b"new"));
        fs.sync_fs("/".as_ref()).unwrap();
    };
    for model in Model::ALL {
        assert_outcomes(model, &["new -"], work);
    }
}

#[test]
fn a_rename_is_one_act_and_durable_with_its_directory() {
    let work = |fs: &dyn Fs| {
        for (path, content) in [("/a", b"old"), ("/b", b"new")] {
            write(fs, path, content).sync().unwrap();
        }
        fs.sync_dir("/".as_ref()).unwrap();
        fs.rename("/b".as_ref(), "/a".as_ref()).unwrap();
    };
    for model in Model::ALL {
        assert_outcomes(model, &["old new", "new -"], work);
    }
    let work = |fs: &dyn Fs| {
        work(fs);
        fs.sync_dir("/".as_ref()).unwrap();
    };
    for model in Model::ALL {
        assert_outcomes(model, &["new -"], work);
    }
    let work = |fs: &dyn Fs| {
        for (path, content) in [("/a", b"one"), ("/b", b"two")] {
            write(fs, path, content).sync().unwrap();
        }
        fs.sync_dir("/".as_ref()).unwrap();
        fs.exchange("/b".as_ref(), "/a".as_ref()).unwrap();
    };
    for model in Model::ALL {
        assert_outcomes(model, &["one two", "two one"], work);
    }
}

#[test]
fn a_rename_without_a_sync_before_it_may_leave_nothing_of_either_content() {
    let work = |fs: &dyn Fs| {
        write(fs, "/a", b"old").sync().unwrap();
        fs.sync_dir("/".as_ref()).unwrap();
        drop(write(fs, "/b", b"new"));
        fs.rename("/b".as_ref(), "/a".as_ref()).unwrap();
    };
    assert!(outcomes(Model::Strict, work).contains(" -"));
    assert!(outcomes(Model::Ordered, work).contains(" -"));
}

#[test]
fn files_are_reordered_and_writes_are_torn() {
    let work = |fs: &dyn Fs| {
        drop(write(fs, "/a", b"first"));
        drop(write(fs, "/b", b"second"));
    };
    let strict = outcomes(Model::Strict, work);
    assert!(strict.contains("- second") && strict.contains("first -") && strict.contains("00000 second"));
    // The journal of names is in order, the bytes are not.
    let ordered = outcomes(Model::Ordered, work);
    assert!(ordered.contains("first -") && !ordered.contains("- second") && ordered.contains(" second"));
    let work = |fs: &dyn Fs| {
        drop(write(fs, "/a", &[b'x'; 10_000]));
        fs.sync_dir("/".as_ref()).unwrap();
    };
    let strict = outcomes(Model::Strict, work);
    for wanted in [" -", "x..512 -", "x..5120 -", "0..10000 -", "x..9728 -", "x..10000 -"] {
        assert!(strict.contains(wanted), "{wanted}: {strict:?}");
    }
    assert_outcomes(Model::Ordered, &[" -", "x..4096 -", "x..8192 -", "x..10000 -"], work);
}

/// One call on both file systems, and whether they agree.
fn compare(real: &Path, sim: &SimFs, draw: &mut Draw) -> Result<String, String> {
    let names = ["a", "b", "d", "d/a", "d/b", "e", "e/a", "l"];
    let mut name = || names[draw.next() as usize % names.len()];
    let (first, second) = (name(), name());
    let number = draw.next();
    let call = |fs: &dyn Fs, root: &Path| -> Result<String, std::io::ErrorKind> {
        let (a, b) = (root.join(first), root.join(second));
        let done = match number % 13 {
            0 | 1 => {
                fs.create(&a, 0o640).and_then(|mut file| file.write_all(&vec![7; number as usize % 6_000]))
            }
            2 | 3 => fs.mkdir(&a, 0o750),
            4 => fs.rename(&a, &b),
            5 => fs.exchange(&a, &b),
            6 => fs.unlink(&a),
            7 => fs.rmdir(&a),
            8 => fs.hard_link(&a, &b),
            9 => fs.symlink(Path::new("nowhere"), &a),
            10 => fs.open_append(&a).and_then(|mut file| file.write_all(b"more")),
            11 => fs.open_append(&a).and_then(|mut file| file.set_len(number % 9_000)),
            _ => fs.set_attrs(
                &a,
                &Attrs { mode: Some(0o611), mtime: Some(Timestamp { s: 5, ns: 6 }), owner: None },
            ),
        };
        done.map(|()| String::new()).map_err(|error| error.kind())
    };
    let (ours, theirs) = (call(sim, Path::new("/")), call(&OsFs, real));
    let what = format!("{} {first} {second}: {ours:?}, {theirs:?}", number % 13);
    if ours == theirs { Ok(what) } else { Err(what) }
}

/// What is below a directory: names, kinds, lengths, modes, counts of names, contents.
fn shown(fs: &dyn Fs, dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for name in fs.list(dir).unwrap() {
        let path: PathBuf = dir.join(&name);
        let meta = fs.stat(&path).unwrap();
        let size = if meta.kind == Kind::Dir { 0 } else { meta.size };
        let nlink = if meta.kind == Kind::Dir { 0 } else { meta.nlink };
        let mut content = Vec::new();
        if meta.kind == Kind::File {
            let mut file = fs.open(&path).unwrap();
            file.seek(SeekFrom::Start(1)).unwrap();
            file.read_to_end(&mut content).unwrap();
        }
        let mtime = (meta.mtime.s == 5).then_some(meta.mtime);
        lines.push(format!(
            "{} {:?} {size} {:o} {nlink} {mtime:?} {}",
            name.display(),
            meta.kind,
            meta.mode,
            blake3::hash(&content)
        ));
        if meta.kind == Kind::Dir {
            lines.extend(shown(fs, &path));
        }
    }
    lines
}

#[test]
fn while_the_power_stays_it_behaves_like_the_real_one() {
    for seed in 0..60 {
        let (dir, sim, mut draw) = (tempfile::tempdir().unwrap(), fresh(), Draw(seed));
        for call in 0..80 {
            let what = compare(dir.path(), &sim, &mut draw);
            let what = what.unwrap_or_else(|what| panic!("seed {seed}, call {call}: {what}"));
            assert_eq!(
                shown(&sim, Path::new("/")),
                shown(&OsFs, dir.path()),
                "seed {seed}, call {call}: {what}"
            );
        }
    }
}
