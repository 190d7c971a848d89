//! What differs between two manifests, every difference, in words.

use std::cmp::Ordering;
use std::fmt;

use super::manifest::{Entry, Manifest, tree_order};
use crate::effect::fs::Timestamp;
use crate::raw_path::RawPath;

/// What a comparison passes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignoring {
    /// Owner and group: only root can give files away.
    pub owner: bool,
    /// Modification times of directories: they change with every name that comes or goes.
    pub dir_mtime: bool,
    /// Extended attributes.
    pub xattrs: bool,
}

/// In which respect two entries differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// It should be there and is not.
    Missing,
    /// It is there and should not be.
    Unexpected,
    /// What it is.
    Kind,
    /// Permission bits.
    Mode,
    /// Owner and group.
    Owner,
    /// Modification time.
    Mtime,
    /// Length.
    Size,
    /// Which other name it shares its content with.
    HardLink,
    /// Where the link points.
    Target,
    /// Extended attributes.
    Xattrs,
    /// Content.
    Content,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which entry.
    pub path: RawPath,
    /// In which respect.
    pub aspect: Aspect,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, expected, found, .. } = self;
        let what = match self.aspect {
            Aspect::Missing => return write!(f, "`{path}` is missing: expected {expected}"),
            Aspect::Unexpected => return write!(f, "`{path}` should not be there: found {found}"),
            Aspect::Kind => "kind",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Mtime => "modification time",
            Aspect::Size => "length",
            Aspect::HardLink => "hard link",
            Aspect::Target => "link target",
            Aspect::Xattrs => "extended attributes",
            Aspect::Content => "content",
        };
        write!(f, "`{path}`: {what} is {found}, expected {expected}")
    }
}

/// Compares entry by entry, all of them. Content counts only where both sides have read it.
pub fn compare(expected: &Manifest, found: &Manifest, ignoring: Ignoring) -> Vec<Difference> {
    let mut differences = Vec::new();
    let (mut left, mut right) = (expected.entries.iter().peekable(), found.entries.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return differences,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => tree_order(&a.path, &b.path),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        match (a, b) {
            (Some(a), Some(b)) => compare_entries(a, b, ignoring, &mut differences),
            (Some(a), None) => differences.push(Difference {
                path: a.path.clone(),
                aspect: Aspect::Missing,
                expected: describe(a),
                found: "nothing".to_owned(),
            }),
            (None, Some(b)) => differences.push(Difference {
                path: b.path.clone(),
                aspect: Aspect::Unexpected,
                expected: "nothing".to_owned(),
                found: describe(b),
            }),
            (None, None) => return differences,
        }
    }
}

fn compare_entries(a: &Entry, b: &Entry, ignoring: Ignoring, differences: &mut Vec<Difference>) {
    let mut check = |aspect, differs: bool, expected: String, found: String| {
        if differs {
            differences.push(Difference { path: a.path.clone(), aspect, expected, found });
        }
    };
    if a.kind != b.kind {
        return check(Aspect::Kind, true, describe(a), describe(b));
    }
    let is_dir = a.kind == crate::effect::fs::Kind::Dir;
    check(Aspect::Mode, a.mode != b.mode, format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    let owner = |entry: &Entry| format!("{}:{}", entry.uid, entry.gid);
    check(Aspect::Owner, !ignoring.owner && (a.uid, a.gid) != (b.uid, b.gid), owner(a), owner(b));
    let time_counts = !(is_dir && ignoring.dir_mtime);
    check(Aspect::Mtime, time_counts && a.mtime != b.mtime, in_words(a.mtime), in_words(b.mtime));
    check(Aspect::Size, a.size != b.size, format!("{} bytes", a.size), format!("{} bytes", b.size));
    check(
        Aspect::HardLink,
        a.hard_link != b.hard_link,
        name(a.hard_link.as_ref()),
        name(b.hard_link.as_ref()),
    );
    check(Aspect::Target, a.target != b.target, name(a.target.as_ref()), name(b.target.as_ref()));
    check(Aspect::Xattrs, !ignoring.xattrs && a.xattrs != b.xattrs, attributes(a), attributes(b));
    if let (Some(x), Some(y)) = (a.content, b.content) {
        check(Aspect::Content, x != y, format!("blake3 {}", x.short()), format!("blake3 {}", y.short()));
    }
}

fn describe(entry: &Entry) -> String {
    use crate::effect::fs::Kind;
    match entry.kind {
        Kind::File => format!("a file of {} bytes", entry.size),
        Kind::Dir => "a directory".to_owned(),
        Kind::Symlink => format!("a link to {}", name(entry.target.as_ref())),
        Kind::Fifo => "a FIFO".to_owned(),
        Kind::Socket => "a socket".to_owned(),
        Kind::Device => "a device".to_owned(),
    }
}

fn name(path: Option<&RawPath>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| format!("`{path}`"))
}

fn in_words(time: Timestamp) -> String {
    format!("@{}.{:09}", time.s, time.ns)
}

/// Names alone: values may be long, binary, or nobody's business.
fn attributes(entry: &Entry) -> String {
    let names: Vec<String> = entry
        .xattrs
        .iter()
        .map(|(name, value)| {
            format!("{} ({})", RawPath::new(&name[..]), crate::digest::Digest::of(value).short())
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::entry;
    use super::*;
    use crate::digest::Digest;
    use crate::effect::fs::Kind;
    use Aspect::{Content, Kind as OfKind, Missing, Mode, Mtime, Owner, Size, Unexpected, Xattrs};

    #[test]
    fn every_difference_is_named() {
        let mut before = entry("f", Kind::File);
        before.content = Some(Digest::of(b"1"));
        let mut after = before.clone();
        (after.mode, after.uid, after.size, after.content) = (0o600, 9, 1, Some(Digest::of(b"2")));
        after.mtime.s += 1;
        after.xattrs.push((b"user.x".to_vec(), Vec::new()));
        let mut dir = entry("", Kind::Dir);
        let expected =
            Manifest { entries: vec![dir.clone(), entry("a", Kind::Fifo), before, entry("k", Kind::Dir)] };
        dir.mtime.ns += 1;
        let found = Manifest { entries: vec![dir, after, entry("g", Kind::Socket), entry("k", Kind::File)] };
        let all = compare(&expected, &found, Ignoring::default());
        let aspects: Vec<Aspect> = all.iter().map(|difference| difference.aspect).collect();
        assert_eq!(aspects, [Mtime, Missing, Mode, Owner, Mtime, Size, Xattrs, Content, Unexpected, OfKind]);
        assert_eq!(all[2].to_string(), "`f`: mode is 0600, expected 0644");
        assert_eq!(all[1].to_string(), "`a` is missing: expected a FIFO");
        let less = compare(&expected, &found, Ignoring { owner: true, dir_mtime: true, xattrs: true });
        assert_eq!(less.len(), all.len() - 3);
    }
}
