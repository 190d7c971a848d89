//! The product's scripts, as far as an upgrade runs them here: the metadata tool of a home with a Tomcat.
//!
//! The metadata are in a database, which commits each entry by itself. What the tool writes to files it does not sync,
//! as the product's own does not: until kytx has made it durable, it may vanish with the power.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kytx::effect::fs::{Fs, Kind, exists, read_file};
use kytx::effect::shell::{Call, Ran, Shell};

use crate::disk::Database;
use crate::sim_fs::SimFs;

/// The scripts of the homes on a simulated machine.
pub struct SimShell(pub SimFs);

impl Shell for SimShell {
    fn run(&self, call: &Call) -> io::Result<Ran> {
        let args: Vec<&str> = call.args.iter().map(|arg| arg.to_str().unwrap()).collect();
        let stdout = match (call.program.file_name().unwrap().to_str().unwrap(), &args[..]) {
            ("metastore.sh", ["backup"]) => self.back_up(call.program.parent().unwrap().parent().unwrap())?,
            ("metastore.sh", ["list", folder]) => self.list(folder),
            ("metastore.sh", ["reset"]) => {
                self.0.commit(Database::default());
                "reset\n".to_owned()
            }
            ("metastore.sh", ["restore", from]) => {
                let from = Path::new(from);
                self.restore(from, from)?;
                format!("Metadata restored from {}\n", from.display())
            }
            other => panic!("an upgrade runs no {other:?} here"),
        };
        let stderr = String::new();
        Ok(Ran { code: Some(0), signal: None, timed_out: false, stdout, stderr, took: Duration::ZERO })
    }
}

impl SimShell {
    /// The names one level below a folder.
    fn list(&self, folder: &str) -> String {
        let below = folder.trim_matches('/');
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        let database = self.0.database();
        let rests = database.keys().filter_map(|path| path.strip_prefix(&prefix));
        let names: BTreeSet<&str> = rests.filter_map(|rest| rest.split('/').next()).collect();
        if names.is_empty() {
            return "null\n".to_owned();
        }
        let names: Vec<String> = names.into_iter().map(|name| format!("/{prefix}{name}")).collect();
        format!("Starting list {folder}\n[{}]\n", names.join(", "))
    }

    fn back_up(&self, home: &Path) -> io::Result<String> {
        let parent = home.join("meta_backups");
        let name = |number: usize| parent.join(format!("meta_{number}"));
        let dir = (0..1_000).map(name).find(|dir| !exists(&self.0, dir).unwrap()).unwrap();
        for (path, content) in self.0.database() {
            let path = dir.join(path);
            let missing: Vec<PathBuf> = path
                .ancestors()
                .skip(1)
                .take_while(|dir| !exists(&self.0, dir).unwrap())
                .map(Path::to_owned)
                .collect();
            for dir in missing.iter().rev() {
                self.0.mkdir(dir, 0o755)?;
            }
            self.0.create(&path, 0o644)?.write_all(&content)?;
        }
        Ok(format!("Metadata backed up to {}\n", dir.display()))
    }

    fn restore(&self, root: &Path, from: &Path) -> io::Result<()> {
        for name in self.0.list(from)? {
            let path = from.join(name);
            if self.0.stat(&path)?.kind == Kind::Dir {
                self.restore(root, &path)?;
                continue;
            }
            let mut database = self.0.database();
            let entry = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            database.insert(entry, read_file(&self.0, &path, 1 << 20)?);
            self.0.commit(database);
        }
        Ok(())
    }
}
