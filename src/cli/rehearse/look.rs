//! What a rehearsal compares: the copied home, its metadata and its cube data.

use std::io;
use std::path::Path;

use crate::backup::compare::{Ignoring, compare};
use crate::backup::manifest::Manifest;
use crate::backup::walk::Contents;
use crate::effect::fs::{Kind, Timestamp};
use crate::effect::os::OsFs;
use crate::effect::tree::no_tick;
use crate::testbed::{StandIn, StoreContent};

/// What the product itself writes whenever one of its scripts runs: these entries, and what is below them.
const PRODUCTS_OWN: [&str; 9] = [
    "LOCK",
    "bin/check-env-bypass",
    "conf/fairscheduler.xml",
    "kgid",
    "logrotate",
    "logs",
    "meta_backups",
    "pid",
    "tomcat/logs",
];

/// A machine as it is.
#[derive(PartialEq)]
pub struct Look {
    tree: Manifest,
    metadata: StoreContent,
    cube: Manifest,
}

impl Look {
    /// Looks at everything, every byte.
    pub fn take(home: &Path, stand_in: &StandIn) -> io::Result<Self> {
        let walk =
            |root: &Path| Manifest::walk(&OsFs, root, Contents::Hash, 2, &no_tick).map_err(io::Error::other);
        let mut tree = walk(home)?;
        tree.entries.retain(|entry| !is_products_own(&entry.path.to_string()));
        let mut cube = walk(&stand_in.working_dir())?;
        // Large metadata entries are files there too, which a restore writes anew; and the copy is kytx's.
        cube.entries.retain(|entry| {
            let path = entry.path.to_string();
            !path.contains("/resources-jdbc") && !path.starts_with("_kytx") && !path.contains("/_backup")
        });
        for entry in &mut cube.entries {
            // The new release writes them anew each time.
            entry.mtime = Timestamp::default();
        }
        Ok(Self { tree, metadata: stand_in.metadata()?, cube })
    }

    /// How many entries were compared: home, metadata, cube data.
    pub fn entries(&self) -> u64 {
        (self.tree.entries.len() + self.metadata.len() + self.cube.entries.len()) as u64
    }

    /// The same without the times of links: one that kytx makes in the new tree is as old as that.
    #[must_use]
    pub fn without_link_times(mut self) -> Self {
        for entry in self.tree.entries.iter_mut().filter(|entry| entry.kind == Kind::Symlink) {
            entry.mtime = Timestamp::default();
        }
        self
    }

    /// What differs, in words.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let ignoring = Ignoring { dir_mtime: true, ..Ignoring::default() };
        let mut lines: Vec<String> =
            compare(&self.tree, &found.tree, ignoring).iter().map(|one| format!("home: {one}")).collect();
        lines
            .extend(compare(&self.cube, &found.cube, ignoring).iter().map(|one| format!("cube data: {one}")));
        let paths = self.metadata.keys().chain(found.metadata.keys());
        let mut differing: Vec<&String> =
            paths.filter(|path| self.metadata.get(*path) != found.metadata.get(*path)).collect();
        differing.sort();
        differing.dedup();
        lines.extend(differing.into_iter().map(|path| format!("metadata: `{path}` differs")));
        lines
    }
}

fn is_products_own(path: &str) -> bool {
    let below =
        |own: &str| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // The directories themselves are made if they are not there; what the operator has in them is his.
    let made = ["ext", "hadoop_conf", "hadoop_conf/core-site.xml"].contains(&path);
    made || path.starts_with("bin/cached-")
        || path == "tomcat/webapps/kylin"
        || path.starts_with("tomcat/webapps/kylin/")
        || PRODUCTS_OWN.iter().any(|own| below(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_owns_is_compared() {
        for own in [
            "logs",
            "logs/kylin.log",
            "pid",
            "bin/cached-hive-dependency.sh",
            "ext",
            "tomcat/webapps/kylin/WEB-INF",
        ] {
            assert!(is_products_own(own), "{own}");
        }
        for compared in [
            "ext/driver.jar",
            "conf/kylin.properties",
            "pid.mine",
            "tomcat/conf/server.xml",
            "tomcat/webapps/kylin.war",
            "logs-of-ours",
            "bin/own.sh",
        ] {
            assert!(!is_products_own(compared), "{compared}");
        }
    }
}
