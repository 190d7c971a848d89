//! The machine of the simulation: a home in use, a package, cube data, a database, and neighbours that are nobody's
//! business. It is small, and has one of everything that is hard to copy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use kytx::backup::package::{Limits, scan};
use kytx::digest::Digest;
use kytx::effect::fs::{Attrs, Fs, Kind, Timestamp};
use kytx::effect::tree::{make_dirs, no_tick, parent_of, remove_tree};
use kytx::journal::BALLAST_BYTES;
use kytx::kyligence::carry::{CarryItem, CarryList, How};
use kytx::kyligence::planner::{ArchiveWhen, CubeKept, PlanInputs, steps};
use kytx::mutate::{content_name, item_digest};
use kytx::state_dir::StateDir;
use kytx::txn::{CubeCopy, Mutation, Owner, Stage, Step};

use crate::disk::{Database, Image, Ino, ROOT};
use crate::sim_fs::{Lacking, SimFs};

/// The transaction's name.
pub const TXN: &str = "0123456789abcdef";
/// The home.
pub const HOME: &str = "/opt/home";
/// The archive.
pub const ARCHIVE: &str = "/opt/home.0123456789abcdef.backup.tar.gz";
/// The cube data of this instance.
pub const CUBE: &str = "/hdfs/kylin/id";
/// Where their copy goes.
pub const CUBE_ROOT: &str = "/hdfs/kylin/_kytx/0123456789abcdef";

/// The copy of another transaction.
const OTHER_COPY: &str = "/hdfs/kylin/_kytx/fedcba9876543210";

/// What is everywhere around, and nobody of this transaction made.
pub const NEIGHBOURS: [&str; 8] = [
    "/opt/home.backup.tar.gz",
    "/opt/home2",
    "/opt/.kytx/home2",
    "/opt/.kytx/home/backup/fedcba9876543210",
    "/opt/.kytx/home/history/fedcba9876543210",
    OTHER_COPY,
    "/hdfs/kylin/other",
    "/downloads",
];

/// The state directory.
pub fn state() -> StateDir {
    StateDir::default_for(Path::new(HOME))
}

/// The spare tree.
pub fn spare() -> PathBuf {
    state().spare()
}

/// The verified metadata backup.
pub fn metadata_backup() -> PathBuf {
    state().backup().join(TXN).join("metadata")
}

struct Builder(SimFs);

impl Builder {
    fn file(&self, path: &str, content: &str, mode: u32) {
        let path = Path::new(path);
        make_dirs(&self.0, parent_of(path), 0o755).unwrap();
        self.0.create(path, mode).unwrap().write_all(content.as_bytes()).unwrap();
        let mtime = Some(Timestamp { s: 1_400_000_000 + content.len() as i64, ns: 123_456_789 });
        self.0.set_attrs(path, &Attrs { mtime, ..Attrs::default() }).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        self.0.symlink(Path::new(target), Path::new(path)).unwrap();
        let mtime = Some(Timestamp { s: 1_300_000_000, ns: 1 });
        self.0.set_attrs(Path::new(path), &Attrs { mtime, ..Attrs::default() }).unwrap();
    }

    fn home(&self, at: &str, version: &str, properties: &str) {
        let file = |name: &str, content: &str, mode| self.file(&format!("{at}/{name}"), content, mode);
        file("VERSION", &format!("Kyligence Enterprise {version}\n"), 0o644);
        file("commit_SHA1", "0123456789\n", 0o644);
        file("bin/kylin.sh", "#!/bin/sh\n", 0o755);
        file("bin/metastore.sh", "#!/bin/sh\n", 0o755);
        file("conf/kylin.properties", properties, 0o640);
        file("tomcat/conf/server.xml", "<Server/>\n", 0o644);
        self.link(&format!("{at}/bin/again"), "kylin.sh");
        self.0.hard_link(Path::new(&format!("{at}/VERSION")), Path::new(&format!("{at}/version"))).unwrap();
    }
}

const PROPERTIES: &str = "kylin.metadata.url=id@jdbc\nkylin.env.hdfs-working-dir=file:///hdfs/kylin\n";

/// A machine with an empty home, on which nothing but the journal is of interest.
pub fn build_bare() -> Image {
    let fs = SimFs::mount(Image::empty(), Lacking::default(), Vec::new(), 0);
    for dir in ["/proc", "/opt", HOME] {
        fs.mkdir(Path::new(dir), 0o755).unwrap();
    }

    fs.core().image.clone()
}

/// Steps that are found done: they write records, and do nothing.
pub fn bare_plan() -> Vec<Step> {
    let step = |number| Step {
        name: format!("stop-{number}"),
        stage: Stage::Apply,
        mutation: Mutation::StopService { home: HOME.into(), start_timeout_s: 1 },
    };
    (0..4).map(step).collect()
}

/// The machine before the upgrade, with everything on the medium: also the ballast, which stays from an earlier upgrade.
///
/// A machine that is shared has the copy of another transaction beside where this one's goes.
pub fn build(is_shared: bool) -> Image {
    let built = Builder(SimFs::mount(build_bare(), Lacking::default(), Vec::new(), 0));
    make_dirs(&built.0, state().root(), 0o700).unwrap();
    built.0.create(&state().root().join("ballast"), 0o600).unwrap().set_len(BALLAST_BYTES).unwrap();
    built.home(HOME, "3.4.5.2113", PROPERTIES);
    let file = |name: &str, content: &str, mode| built.file(&format!("{HOME}/{name}"), content, mode);
    file("conf/own.xml", "<own/>\n", 0o4750);
    built.0.set_xattr(Path::new("/opt/home/conf/own.xml"), b"user.owner", b"ops").unwrap();
    file("ext/a/driver.jar", &"jar".repeat(3_000), 0o644);
    built.0.hard_link(Path::new("/opt/home/ext/a/driver.jar"), Path::new("/opt/home/ext/again.jar")).unwrap();
    built.link("/opt/home/ext/link.jar", "a/driver.jar");
    file("logs/kylin.log", "line\n", 0o600);
    file("meta_backups/meta_0/UUID", "uuid", 0o644);
    built.home("/downloads/Kyligence-Enterprise-4.0", "3.4.6.1", "a=new\n");
    built.file("/downloads/Kyligence-Enterprise-4.0/lib/big.jar", &"0123456789".repeat(1_000), 0o644);
    built.file(&format!("{CUBE}/cube/0.parquet"), &"first segment".repeat(700), 0o644);
    built.file(&format!("{CUBE}/cube/1.parquet"), "second", 0o600);
    built.link(&format!("{CUBE}/cube/last"), "1.parquet");
    for name in NEIGHBOURS {
        if name != "/downloads" && !name.ends_with("gz") && (is_shared || name != OTHER_COPY) {
            built.file(&format!("{name}/a/file"), &format!("{name} is not ours"), 0o600);
        }
    }
    built.file(NEIGHBOURS[0], "an operator's", 0o600);
    let entry = |name: &str, content: &str| (name.to_owned(), content.as_bytes().to_vec());
    built.0.commit(Database::from([
        entry("UUID", "uuid"),
        entry("project/p.json", "{\"name\":\"p\"}"),
        entry("cube/c.json", "{\"name\":\"c\"}"),
    ]));

    built.0.core().image.clone()
}

/// What the new release does once the operator has started it: it changes data, and syncs nothing of it but what its
/// database commits.
pub fn migrate(fs: &SimFs) {
    let mut database = fs.database();
    database.insert("cube/c.json".to_owned(), b"changed".to_vec());
    database.insert("cube/added.json".to_owned(), b"added".to_vec());
    fs.commit(database);
    let at = |name: &str| PathBuf::from(format!("{CUBE}/{name}"));
    fs.unlink(&at("cube/1.parquet")).unwrap();
    fs.mkdir(&at("new"), 0o755).unwrap();
    fs.create(&at("new/0.parquet"), 0o644).unwrap().write_all(b"migrated").unwrap();
    fs.open_append(&at("cube/0.parquet")).unwrap().write_all(b"more").unwrap();
}

/// Something in the state directory loses its last bytes, or is gone, and the medium knows it.
pub fn spoil(fs: &SimFs, name: &str, in_part: bool) {
    let path = state().root().join(name);
    if in_part {
        let mut file = fs.open_append(&path).unwrap();
        file.set_len(fs.stat(&path).unwrap().size - 3).unwrap();
    } else {
        remove_tree(fs, &path, &no_tick).unwrap();
    }
    fs.settle();
}

/// Writes the side files of the plan, and returns its steps: a major upgrade that the operator starts.
pub fn plan(fs: &SimFs) -> Vec<Step> {
    let state = state();
    let merged = Digest::of(PROPERTIES.as_bytes());
    state.write_side(fs, &content_name(&merged), PROPERTIES.as_bytes()).unwrap();
    let item = |from: &str, to: &str, how: How| {
        let is_planned = matches!(how, How::Copy | How::Edited { .. });
        let expected = is_planned.then(|| item_digest(fs, &Path::new(HOME).join(from), 1).unwrap());
        CarryItem { from: from.into(), to: to.into(), how, expected, why: String::new() }
    };
    let items = vec![
        item("conf/kylin.properties", "conf/kylin.properties", How::Edited { content: merged }),
        item("conf/own.xml", "conf/own.xml", How::Copy),
        item("conf/own.xml", "conf/profile", How::Symlink { target: "own.xml".into() }),
        item("ext", "lib/ext/of-old", How::Copy),
        item("logs", "logs/before", How::Link),
        item("meta_backups", "meta_backups", How::Link),
    ];
    let text = serde_json::to_vec(&CarryList { items, notes: Vec::new() }).unwrap();
    let carry = state.write_side(fs, "carry.json", &text).unwrap();
    let package = Path::new("/downloads/Kyligence-Enterprise-4.0");
    let limits = Limits::for_free_bytes(1 << 30);
    let content = scan(fs, package, limits, &|_| false, &no_tick).unwrap().content;
    steps(&PlanInputs {
        home: HOME.into(),
        package: package.into(),
        content,
        spare: spare().into(),
        owner: Owner { uid: 0, gid: 0 },
        carry,
        metadata_backup: metadata_backup().into(),
        cube: Some((
            CubeCopy {
                source: format!("file://{CUBE}").as_str().into(),
                root: format!("file://{CUBE_ROOT}").as_str().into(),
            },
            CubeKept::Copy,
        )),
        archive_when: ArchiveWhen::After,
        archive: ARCHIVE.into(),
        start: false,
        start_timeout_s: 1,
        home_only: false,
    })
}

/// One name of a tree, without what a change of names below it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: Option<Timestamp>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
    /// The first name of the same inode in this tree.
    first_name: Option<PathBuf>,
}

impl Seen {
    /// Of a file: its bytes.
    pub fn file(&self) -> Option<&[u8]> {
        (self.kind == Kind::File).then_some(&self.content)
    }
}

/// A tree by path, or nothing.
pub type Tree = BTreeMap<PathBuf, Seen>;

/// Looks at a tree. Backups that the product's tool makes meanwhile are not looked at: nobody relies on them.
pub fn tree(image: &Image, path: impl AsRef<Path>) -> Tree {
    let mut found = Tree::new();
    let mut at = ROOT;
    for part in path.as_ref().components().skip(1) {
        match image.node(at).names.get(part.as_os_str()) {
            Some(ino) => at = *ino,
            None => return found,
        }
    }
    visit(image, at, PathBuf::new(), &mut BTreeMap::new(), &mut found);
    found
}

fn visit(image: &Image, ino: Ino, path: PathBuf, firsts: &mut BTreeMap<Ino, PathBuf>, found: &mut Tree) {
    let node = image.node(ino);
    let is_new_backup = |name: &OsString| path.ends_with("meta_backups") && name != "meta_0";
    for (name, child) in &node.names {
        if !is_new_backup(name) {
            visit(image, *child, path.join(name), firsts, found);
        }
    }
    let seen = Seen {
        kind: node.kind,
        mode: node.mode,
        owner: node.owner,
        // Of a directory and of the link that kytx makes, the time is that of its making.
        mtime: (node.kind != Kind::Dir && !path.ends_with("conf/profile")).then_some(node.mtime),
        xattrs: node.xattrs.clone(),
        content: match node.kind {
            Kind::File => node.content.bytes(),
            _ => node.target.as_encoded_bytes().to_vec(),
        },
        first_name: match node.kind {
            Kind::Dir => None,
            _ => firsts.get(&ino).cloned(),
        },
    };
    firsts.entry(ino).or_insert_with(|| path.clone());
    found.insert(path, seen);
}

/// The first difference between two trees, in words.
pub fn difference(wanted: &Tree, found: &Tree) -> Option<String> {
    if let Some(path) = wanted.keys().find(|path| !found.contains_key(*path)) {
        return Some(format!("`{}` is missing", path.display()));
    }
    found.iter().find_map(|(path, seen)| match wanted.get(path) {
        None => Some(format!("`{}` should not be there", path.display())),
        Some(wanted) if wanted != seen => {
            let short = |seen: &Seen| {
                let content = &seen.content[..seen.content.len().min(20)];
                format!(
                    "{:?} {:o} {:?} {} bytes {:?} {:?}",
                    seen.kind,
                    seen.mode,
                    seen.mtime,
                    seen.content.len(),
                    String::from_utf8_lossy(content),
                    seen.first_name
                )
            };
            Some(format!("`{}` is {} and not {}", path.display(), short(seen), short(wanted)))
        }
        Some(_) => None,
    })
}
