//! What trees on a cluster hold, in as few commands as it takes.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{COMMAND_LIMIT, Cluster, ClusterError, SURVEY_LIMIT, batches, failed, not_understood};
use super::manifest::{CubeEntry, CubeManifest};
use super::parse::{self, Listed};
use crate::raw_path::RawPath;

/// Whether checksums are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// Yes: a request to a DataNode for each file.
    Wanted,
    /// No.
    Left,
}

impl Cluster<'_> {
    /// What several trees hold. Four commands for any number of trees: their roots, their names, what `-ls` does not say
    /// well, and checksums; and one more if any name has an access list.
    pub fn survey(&self, roots: &[RawPath], sums: Sums) -> Result<Vec<CubeManifest>, ClusterError> {
        let mut listed = Vec::new();
        for (root, here) in roots.iter().zip(self.look(roots)?) {
            let absent = || ClusterError::Wrong { path: root.clone(), what: "is not there".to_owned() };
            listed.push(here.ok_or_else(absent)?);
        }
        let literal: Vec<RawPath> = roots.iter().map(parse::literal).collect();
        for line in self.ask_surely("hadoop", &["fs", "-ls", "-R"], &literal, SURVEY_LIMIT)? {
            listed.push(parse::listed(&line).ok_or_else(|| not_understood("hadoop fs -ls -R", &line))?);
        }
        let all: Vec<RawPath> = listed.iter().map(|listed| listed.path.clone()).collect();
        let stats = self.stats(&all)?;
        let files: Vec<RawPath> =
            listed.iter().filter(|listed| !listed.is_dir).map(|listed| listed.path.clone()).collect();
        let sums = if sums == Sums::Wanted { self.checksums(&files)? } else { BTreeMap::new() };
        let lists = if listed.iter().any(|listed| listed.has_acl) {
            let words = ["fs", "-getfacl", "-R"];
            parse::access_lists(&self.ask_surely("hadoop", &words, &literal, SURVEY_LIMIT)?)
        } else {
            Vec::new()
        };
        let lists: BTreeMap<RawPath, String> = lists.into_iter().collect();
        let mut trees = vec![Vec::new(); roots.len()];
        for (listed, stat) in listed.into_iter().zip(stats) {
            let (tree, path) =
                placed(roots, &listed.path).ok_or_else(|| ClusterError::Changed(listed.path.clone()))?;
            let (algorithm, checksum) = sums.get(&listed.path).cloned().unwrap_or_default();
            let plain =
                lists.get(&listed.path).or_else(|| lists.get(&parse::without_authority(&listed.path)));
            trees[tree].push(CubeEntry {
                path,
                is_dir: listed.is_dir,
                length: listed.length,
                block_bytes: if listed.is_dir { 0 } else { stat.block_bytes },
                algorithm,
                checksum,
                mode: listed.mode,
                owner: stat.owner,
                group: stat.group,
                mtime_ms: stat.mtime_ms,
                replication: listed.replication,
                acl: plain.filter(|_| listed.has_acl).cloned().unwrap_or_default(),
            });
        }
        Ok(trees.into_iter().map(CubeManifest::new).collect())
    }

    /// What a survey says of the root of a tree, but for its time.
    pub fn root_of(&self, root: &RawPath) -> Result<CubeEntry, ClusterError> {
        let listed = self.look(std::slice::from_ref(root))?.remove(0);
        let absent = || ClusterError::Wrong { path: root.clone(), what: "is not there".to_owned() };
        let listed = listed.ok_or_else(absent)?;
        let acl = if listed.has_acl {
            let lines =
                self.ask_surely("hadoop", &["fs", "-getfacl"], &[parse::literal(root)], COMMAND_LIMIT)?;
            parse::access_lists(&lines).into_iter().next().map(|(_, text)| text).unwrap_or_default()
        } else {
            String::new()
        };
        let stat = self.stats(std::slice::from_ref(root))?.remove(0);
        Ok(CubeEntry {
            path: RawPath::default(),
            is_dir: listed.is_dir,
            length: listed.length,
            block_bytes: 0,
            algorithm: String::new(),
            checksum: String::new(),
            mode: listed.mode,
            owner: stat.owner,
            group: stat.group,
            mtime_ms: stat.mtime_ms,
            replication: listed.replication,
            acl,
        })
    }

    /// The owners and groups that occur in a tree, and whether any name in it has an access list. Names that come and go
    /// meanwhile do not matter.
    pub fn owners(&self, root: &RawPath) -> Result<(BTreeSet<(String, String)>, bool), ClusterError> {
        let words = ["fs", "-ls", "-R"];
        let (lines, ran) = self.ask("hadoop", &words, &[parse::literal(root)], SURVEY_LIMIT)?;
        let listed: Vec<Listed> = lines.iter().filter_map(|line| parse::listed(line)).collect();
        if ran.code != Some(0) && listed.is_empty() {
            return Err(failed("hadoop", &words, &ran));
        }
        let has_acl = listed.iter().any(|listed| listed.has_acl);
        Ok((listed.into_iter().map(|listed| (listed.owner, listed.group)).collect(), has_acl))
    }

    fn stats(&self, paths: &[RawPath]) -> Result<Vec<parse::Stated>, ClusterError> {
        let words = ["fs", "-stat", parse::STAT_FORMAT];
        let mut stats = Vec::new();
        for batch in batches(paths) {
            for line in self.ask_surely("hadoop", &words, &batch, SURVEY_LIMIT)? {
                stats.push(parse::stated(&line).ok_or_else(|| not_understood("hadoop fs -stat", &line))?);
            }
        }
        // One line a path, in their order; a path with another number of lines would shift all that follow.
        if stats.len() != paths.len() {
            return Err(ClusterError::Changed(paths.first().cloned().unwrap_or_default()));
        }
        Ok(stats)
    }

    fn checksums(&self, paths: &[RawPath]) -> Result<BTreeMap<RawPath, (String, String)>, ClusterError> {
        let mut found = BTreeMap::new();
        for batch in batches(paths) {
            for line in self.ask_surely("hadoop", &["fs", "-checksum"], &batch, SURVEY_LIMIT)? {
                let sum = parse::checksummed(&line);
                let (path, algorithm, checksum) =
                    sum.ok_or_else(|| not_understood("hadoop fs -checksum", &line))?;
                if algorithm == "NONE" || checksum.is_empty() {
                    return Err(ClusterError::NoChecksum(path));
                }
                found.insert(path, (algorithm, checksum));
            }
        }
        let missing = paths.iter().find(|path| !found.contains_key(*path));
        missing.map_or(Ok(found), |path| Err(ClusterError::NoChecksum(path.clone())))
    }
}

/// In which of the trees a path lies, and where.
fn placed(roots: &[RawPath], path: &RawPath) -> Option<(usize, RawPath)> {
    roots.iter().enumerate().find_map(|(at, root)| {
        let rest = path.as_bytes().strip_prefix(root.as_bytes())?;
        match rest {
            [] => Some((at, RawPath::default())),
            [b'/', below @ ..] => Some((at, RawPath::new(below))),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_tree_that_it_is_below() {
        let roots = ["/k/m", "/k/m2"].map(RawPath::from);
        assert_eq!(placed(&roots, &"/k/m2/a b".into()), Some((1, "a b".into())));
        assert_eq!(placed(&roots, &"/k/m".into()), Some((0, RawPath::default())));
        assert_eq!(placed(&roots, &"/k/m3".into()), None);
    }
}
