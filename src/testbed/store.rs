//! A metadata store and its large entries: filling one, and reading it as the product would.

#![allow(clippy::disallowed_methods, reason = "it builds test machines, not customers'")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::package::Layout;

/// What a large entry holds in the store; its content is a file below the working directory. The same text as in
/// `testbed/product/standin.sh`.
const MARKER: &[u8] = b"standin: content is in the working directory";

/// Entries by their path; large ones with their content, `None` where it is lost.
pub type StoreContent = BTreeMap<String, Option<Vec<u8>>>;

/// A metadata store of the stand-in.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    working: PathBuf,
}

impl Store {
    /// The store in this directory, whose instance has this part of the working directory.
    pub fn at(dir: impl Into<PathBuf>, working: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), working: working.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The instance's part of the working directory.
    pub fn working(&self) -> &Path {
        &self.working
    }

    /// Every entry but `UUID`, which is the store's own, as the product would read it.
    pub fn content(&self) -> io::Result<StoreContent> {
        let mut content = StoreContent::new();
        self.collect(&self.dir, "", &mut content)?;
        content.remove("UUID");
        Ok(content)
    }

    /// Puts one entry, large ones as the product does: a marker, and a file below the working directory.
    pub fn put(&self, path: &str, content: &[u8]) -> io::Result<()> {
        if is_large(path) {
            let large = self.working.join("resources-jdbc").join(path);
            write_below(&large, content)?;
            return write_below(&self.dir.join(path), MARKER);
        }
        write_below(&self.dir.join(path), content)
    }

    /// Makes everything in it, and the instance's data, survive a power cut.
    pub fn sync(&self) -> io::Result<()> {
        sync_below(&self.dir)?;
        sync_below(&self.working)
    }

    /// The entry that names the major version whose schema the store has.
    pub fn schema_path(layout: Layout) -> &'static str {
        match layout {
            Layout::Ke3 => "history/schema",
            Layout::Ke4 => "_global/schema",
        }
    }

    /// Fills an empty store with two projects, their cubes and users, as a version leaves it.
    pub fn fill(&self, layout: Layout, version: &str) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        fs::create_dir_all(&self.working)?;
        fs::write(self.dir.join("UUID"), b"\0\x2411111111-2222-4333-8444-555555555555")?;
        let entries = match layout {
            Layout::Ke3 => KE3_ENTRIES,
            Layout::Ke4 => KE4_ENTRIES,
        };
        entries.iter().try_for_each(|(path, text)| self.put(path, text.as_bytes()))?;
        self.put(Self::schema_path(layout), major_of(version).as_bytes())?;
        // Cube data: a segment of each cube.
        for cube in ["sales_cube", "web_cube"] {
            write_below(
                &self.working.join("parquet").join(cube).join("0.parquet"),
                cube.repeat(40).as_bytes(),
            )?;
        }
        Ok(())
    }

    fn collect(&self, dir: &Path, below: &str, content: &mut StoreContent) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.collect(&entry.path(), &format!("{path}/"), content)?;
                continue;
            }
            let bytes = fs::read(entry.path())?;
            let value = if bytes == MARKER {
                fs::read(self.working.join("resources-jdbc").join(&path)).ok()
            } else {
                Some(bytes)
            };
            content.insert(path, value);
        }
        Ok(())
    }
}

fn is_large(path: &str) -> bool {
    path.starts_with("dict/") || path.starts_with("table_snapshot/")
}

/// The first two numbers of a version.
pub(super) fn major_of(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

pub(super) fn write_below(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().expect("BUG: an entry lies in a directory"))?;
    fs::write(path, content)
}

fn sync_below(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            sync_below(&entry?.path())?;
        }
    }
    fs::File::open(path)?.sync_all()
}

const KE3_ENTRIES: &[(&str, &str)] = &[
    (
        "project/sales.json",
        r#"{"name":"sales","tables":["DEFAULT.ORDERS"],"realizations":[{"type":"CUBE","realization":"sales_cube"}],"override_kylin_properties":{}}"#,
    ),
    (
        "project/web.json",
        r#"{"name":"web","tables":["DEFAULT.CLICKS","DEFAULT.EVENTS"],"realizations":[{"type":"CUBE","realization":"web_cube"}],"override_kylin_properties":{}}"#,
    ),
    ("table/DEFAULT.ORDERS--sales.json", r#"{"name":"ORDERS","database":"DEFAULT","source_type":0}"#),
    ("table/DEFAULT.CLICKS--web.json", r#"{"name":"CLICKS","database":"DEFAULT","source_type":0}"#),
    ("table/DEFAULT.EVENTS--web.json", r#"{"name":"EVENTS","database":"DEFAULT","source_type":1}"#),
    (
        "cube/sales_cube.json",
        r#"{"name":"sales_cube","status":"READY","segments":[{"name":"0","status":"READY"}]}"#,
    ),
    (
        "cube/web_cube.json",
        r#"{"name":"web_cube","status":"READY","segments":[{"name":"0","status":"READY"}]}"#,
    ),
    ("cube_desc/sales_cube.json", r#"{"name":"sales_cube","storage_type":100,"engine_type":98}"#),
    ("cube_desc/web_cube.json", r#"{"name":"web_cube","storage_type":100,"engine_type":98}"#),
    ("model_desc/sales_model.json", r#"{"name":"sales_model","fact_table":"DEFAULT.ORDERS"}"#),
    (
        "execute/6f1e3c2a",
        r#"{"uuid":"6f1e3c2a","name":"BUILD sales_cube","type":"CubingJob","tasks":[],"params":{}}"#,
    ),
    ("execute_output/6f1e3c2a", r#"{"uuid":"6f1e3c2a","status":"SUCCEED","content":"","info":{}}"#),
    ("user/ADMIN", r#"{"username":"ADMIN","authorities":["ROLE_ADMIN"]}"#),
    ("user_group", r#"{"groups":["ALL_USERS","ROLE_ADMIN"]}"#),
    ("dict/DEFAULT.ORDERS/SELLER/6a1.dict", "a dictionary, large enough to live outside of the store"),
    ("table_snapshot/ORDERS/9b2.snapshot", "a snapshot, large enough to live outside of the store"),
];

const KE4_ENTRIES: &[(&str, &str)] = &[
    ("_image", r#"{"offset":42}"#),
    ("_global/project/sales.json", r#"{"name":"sales","status":"ENABLED"}"#),
    ("_global/project/web.json", r#"{"name":"web","status":"ENABLED"}"#),
    ("_global/user/ADMIN", r#"{"username":"ADMIN"}"#),
    ("_global/user_group/ALL_USERS", r#"{"name":"ALL_USERS"}"#),
    ("sales/model_desc/1c.json", r#"{"uuid":"1c","alias":"sales_model"}"#),
    ("sales/table/DEFAULT.ORDERS.json", r#"{"name":"ORDERS","source_type":9}"#),
    ("sales/execute/7d.json", r#"{"uuid":"7d","output":{"status":"SUCCEED"}}"#),
    ("web/model_desc/2d.json", r#"{"uuid":"2d","alias":"web_model"}"#),
];
