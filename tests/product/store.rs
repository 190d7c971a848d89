//! The metadata stores, read past the product: a directory as files, a database as rows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::bed::{Bed, PASSWORD};

/// An entry: when it was changed, in milliseconds, and a digest of what it holds.
pub type Entries = BTreeMap<String, (i64, blake3::Hash)>;

/// Which kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A database of `MariaDB`.
    Database,
}

/// One store.
pub struct Store {
    pub kind: Kind,
    dir: PathBuf,
    working: PathBuf,
    database: String,
}

impl Store {
    /// An empty one, in a directory of the test's own or in a database of this name.
    pub fn new(bed: &Bed, kind: Kind, root: &Path, database: &str) -> Self {
        let dir = root.join("metadata");
        fs::create_dir_all(&dir).unwrap();
        if kind == Kind::Database {
            bed.sql(&format!(
                "create database {database}; grant all on {database}.* to {database}@'127.0.0.1' identified by '{PASSWORD}'"
            ));
        }
        Self { kind, dir, working: root.join("hdfs/kylin/kylin_metadata"), database: database.to_owned() }
    }

    /// Takes a database away.
    pub fn drop_database(&self, bed: &Bed) {
        if self.kind == Kind::Database {
            bed.sql(&format!("drop database {0}; drop user {0}@'127.0.0.1'", self.database));
        }
    }

    /// What a home's configuration says of it.
    pub fn url(&self, bed: &Bed) -> String {
        match self.kind {
            Kind::Directory => self.dir.to_str().unwrap().to_owned(),
            Kind::Database => format!(
                "kylin_metadata@jdbc,url=jdbc:mysql://127.0.0.1:{}/{},username={},password={PASSWORD},\
                 maxActive=10,maxIdle=10",
                bed.database, self.database, self.database
            ),
        }
    }

    /// Lets nobody into the database any more, or again. Who is in stays in.
    pub fn lock(&self, bed: &Bed, how: &str) {
        bed.sql(&format!("alter user {}@'127.0.0.1' account {how}", self.database));
    }

    /// Whether the database has a row for an entry, with content or without.
    pub fn has_row(&self, bed: &Bed, path: &str) -> bool {
        let table = &self.database;
        let count = format!("select count(*) from {table}.kylin_metadata where META_TABLE_KEY = '{path}'");
        bed.sql(&count) == ["1"]
    }

    /// Where the large entries of a database are.
    pub fn large(&self) -> PathBuf {
        self.working.join("resources-jdbc")
    }

    /// The instance's part of the working directory.
    pub fn working(&self) -> &Path {
        &self.working
    }

    /// Every entry but what each start of the product writes (reference 22.6), and the store's own name.
    pub fn entries(&self, bed: &Bed) -> Entries {
        let mut all = match self.kind {
            Kind::Directory => files(&self.dir),
            Kind::Database => self.rows(bed),
        };
        all.retain(|path, _| !path.starts_with("/user") && path != "/UUID");
        all
    }

    fn rows(&self, bed: &Bed) -> Entries {
        // Outputs of jobs, and more that grows, are in a table of their own.
        let select = |table: &str| {
            format!(
                "select META_TABLE_KEY, META_TABLE_TS, hex(META_TABLE_CONTENT) from {}.{table};",
                self.database
            )
        };
        let rows = bed.sql(&[select("kylin_metadata"), select("kylin_metadata_log")].concat());
        let entry = |row: String| {
            let mut columns = row.split('\t');
            let mut next = || columns.next().unwrap().to_owned();
            let (path, time, hex) = (next(), next(), next());
            // A large entry is a row without content.
            let content = match hex.as_str() {
                "" | "NULL" => fs::read(self.large().join(&path[1..])).unwrap_or_default(),
                _ => unhex(&hex),
            };
            (path, (time.parse().unwrap(), blake3::hash(&content)))
        };
        rows.into_iter().map(entry).collect()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The entries that a directory holds, of a store or of a backup.
pub fn files(dir: &Path) -> Entries {
    fn collect(dir: &Path, below: &str, all: &mut Entries) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{below}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &path, all);
                continue;
            }
            let meta = entry.metadata().unwrap();
            let time = meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000;
            all.insert(path, (time, blake3::hash(&fs::read(entry.path()).unwrap())));
        }
    }
    let mut all = Entries::new();
    collect(dir, "", &mut all);
    all
}

/// A tree of metadata, as a backup holds it: projects, cubes, finished jobs and `more` of them, dictionaries. One is so
/// large that a database keeps it outside.
pub fn seed(dir: &Path, more: usize) {
    let project = |name: &str| {
        format!(
            r#"{{"uuid":"{name}-0","last_modified":0,"version":"3.0.0.20500","name":"{name}","tables":[],"owner":"ADMIN","status":"ENABLED","realizations":[],"override_kylin_properties":{{}}}}"#
        )
    };
    let mut second = 1_700_000_000;
    let mut put = |path: &str, content: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        second += 1;
        // Milliseconds, too: a store keeps them.
        let time = UNIX_EPOCH + Duration::from_secs(second) + Duration::from_millis(second % 1000);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    for name in ["sales", "web", "finance"] {
        put(&format!("project/{name}.json"), project(name).as_bytes());
    }
    for number in 0..20 + more {
        let id = format!("6f1e3c2a-0000-4000-8000-{number:012}");
        let job = format!(
            r#"{{"uuid":"{id}","last_modified":0,"version":"3.0.0.20500","name":"BUILD {number}","tasks":[],"type":"org.apache.kylin.job.execution.DefaultChainedExecutable","params":{{}}}}"#
        );
        put(&format!("execute/{id}"), job.as_bytes());
        let output = format!(
            r#"{{"uuid":"{id}","last_modified":0,"version":"3.0.0.20500","status":"SUCCEED","content":"done","info":{{}}}}"#
        );
        put(&format!("execute_output/{id}"), output.as_bytes());
    }
    for number in 0..5 {
        put(&format!("dict/DB.T/C/{number}.dict"), &noise(number, 20_000));
    }
    put(LARGE, &noise(9, 1_500_000));
}

/// The entry that a database keeps outside.
pub const LARGE: &str = "dict/DB.T/BIG/large.dict";

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = crate::support::random::Random::new(seed);
    std::iter::repeat_with(|| random.bits().to_le_bytes()).flatten().take(bytes).collect()
}
