//! Looking things up in the listing of a tree.

use std::collections::BTreeMap;

use crate::backup::manifest::{Entry, Manifest};
use crate::digest::Digest;
use crate::effect::fs::Kind;
use crate::raw_path::RawPath;

/// A listing by path.
#[derive(Clone, Debug)]
pub struct Listing<'a> {
    by_path: BTreeMap<&'a [u8], &'a Entry>,
}

impl<'a> Listing<'a> {
    /// Indexes a manifest.
    pub fn new(manifest: &'a Manifest) -> Self {
        let by_path = manifest.entries.iter().map(|entry| (entry.path.as_bytes(), entry)).collect();
        Self { by_path }
    }

    /// The entry with this path.
    pub fn get(&self, path: &RawPath) -> Option<&'a Entry> {
        self.by_path.get(path.as_bytes()).copied()
    }

    /// The digest of a regular file's content, by its first name if it has several.
    pub fn content(&self, entry: &Entry) -> Option<Digest> {
        entry.content.or_else(|| self.get(entry.hard_link.as_ref()?)?.content)
    }

    /// All entries in order.
    pub fn entries(&self) -> impl Iterator<Item = &'a Entry> + '_ {
        self.by_path.values().copied()
    }

    /// The entries strictly below a directory.
    pub fn below<'b>(&'b self, dir: &RawPath) -> impl Iterator<Item = &'a Entry> + use<'a, 'b> {
        let prefix = [dir.as_bytes(), b"/"].concat();
        let range = self
            .by_path
            .range::<[u8], _>((std::ops::Bound::Included(prefix.as_slice()), std::ops::Bound::Unbounded));
        let entries: Vec<_> =
            range.take_while(|(path, _)| path.starts_with(&prefix)).map(|(_, e)| *e).collect();
        entries.into_iter()
    }

    /// The nearest thing above a path that is there and is no directory: nothing can be put below it.
    pub fn obstacle_above(&self, path: &RawPath) -> Option<&'a Entry> {
        let bytes = path.as_bytes();
        (0..bytes.len())
            .filter(|at| bytes[*at] == b'/')
            .filter_map(|at| self.by_path.get(&bytes[..at]).copied())
            .find(|entry| entry.kind != Kind::Dir)
    }

    /// Where a path leads within the tree, links followed. `instead` replaces the target of one link. `None` if it
    /// leads out of the tree, nowhere, or round in circles.
    pub fn resolve(&self, path: &RawPath, instead: Option<(&RawPath, &RawPath)>) -> Option<RawPath> {
        let mut todo: Vec<Vec<u8>> = components(path).rev().collect();
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    done.pop()?;
                    continue;
                }
                _ => done.push(name),
            }
            let here = RawPath::new(done.join(&b'/'));
            let entry = self.get(&here)?;
            if entry.kind != Kind::Symlink {
                continue;
            }
            links += 1;
            let target = match instead {
                Some((link, target)) if *link == here => target,
                _ => entry.target.as_ref()?,
            };
            if links > 40 || target.as_bytes().starts_with(b"/") {
                return None;
            }
            done.pop();
            todo.extend(components(target).rev());
        }
        Some(RawPath::new(done.join(&b'/')))
    }
}

fn components(path: &RawPath) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.as_bytes().split(|b| *b == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec)
}
