//! What of a package is let in, member by member: pure, so that every trick can be tried on it.

use std::collections::{BTreeMap, HashMap};

use super::manifest::{Entry, Manifest, tree_order};
use super::package::{Limits, PackageError};
use super::tar_in::{Member, MemberKind};
use crate::digest::Digest;
use crate::effect::fs::{Kind, Timestamp};
use crate::raw_path::RawPath;

/// Below this even a stream of zeros is no danger, and short files compress oddly.
const BOMB_BYTES_MIN: u64 = 64 << 20;
/// As many links as Linux follows before it says `ELOOP`.
const LINKS_FOLLOWED_MAX: usize = 40;
/// What a directory gets that no member announces.
const IMPLIED_DIR_MODE: u32 = 0o755;

/// Lets members in, or refuses them by name.
pub struct Intake {
    limits: Limits,
    top: Option<RawPath>,
    entries: HashMap<RawPath, Entry>,
    /// For every file with several names, its names by the one that came first.
    names: BTreeMap<RawPath, Vec<RawPath>>,
    declared_bytes: u64,
    poured_bytes: u64,
}

impl Intake {
    /// Starts empty.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            top: None,
            entries: HashMap::new(),
            names: BTreeMap::new(),
            declared_bytes: 0,
            poured_bytes: 0,
        }
    }

    /// Judges a member and returns it as an entry below the top directory; a hard link then names an earlier entry.
    /// `None` for the directory that the archive is unpacked in (`./`).
    pub fn admit(&mut self, member: &Member) -> Result<Option<Entry>, PackageError> {
        let Some((top, path)) = split_top(&member.name, &member.name)? else { return Ok(None) };
        match &self.top {
            None => self.top = Some(top),
            Some(first) if *first == top => {}
            Some(first) => return Err(PackageError::TwoTops { first: first.clone(), second: top }),
        }
        if path.as_bytes().is_empty() && member.kind != MemberKind::Dir {
            return Err(PackageError::NoTop);
        }
        self.admit_parents(member, &path)?;
        let entry = self.entry_of(member, path)?;
        self.declared_bytes = self.declared_bytes.saturating_add(entry.size);
        if self.declared_bytes > self.limits.unpacked_bytes {
            let (name, limit) = (member.name.clone(), self.limits.unpacked_bytes);
            return Err(PackageError::TooLarge { name, limit });
        }
        match self.entries.get_mut(&entry.path) {
            None => {
                self.entries.insert(entry.path.clone(), entry.clone());
            }
            // As with tar, the last word on a directory counts; build tools do announce one twice.
            Some(known) if known.kind == Kind::Dir && entry.kind == Kind::Dir => *known = entry.clone(),
            Some(_) => return Err(PackageError::Duplicate { name: member.name.clone() }),
        }
        if self.entries.len() as u64 > self.limits.entries {
            let (name, limit) = (member.name.clone(), self.limits.entries);
            return Err(PackageError::TooManyMembers { name, limit });
        }
        if let Some(first) = entry.hard_link.clone() {
            let names = self.names.entry(first.clone()).or_insert_with(|| vec![first]);
            names.push(entry.path.clone());
        }
        Ok(Some(entry))
    }

    /// Compares what has come out with what has gone in.
    pub fn weigh(&mut self, bytes: u64, packed_bytes: u64, name: &RawPath) -> Result<(), PackageError> {
        self.poured_bytes += bytes;
        let allowed = packed_bytes.saturating_mul(self.limits.ratio).max(BOMB_BYTES_MIN);
        if self.poured_bytes > allowed {
            return Err(PackageError::Bomb { name: name.clone(), limit: self.limits.ratio });
        }
        Ok(())
    }

    /// Records what a file held.
    pub fn complete(&mut self, entry: &Entry, content: Digest) {
        if entry.kind == Kind::File
            && entry.hard_link.is_none()
            && let Some(known) = self.entries.get_mut(&entry.path)
        {
            known.content = Some(content);
        }
    }

    /// Judges what can be judged only at the end, and returns the top directory's name and what is below it.
    pub fn finish(mut self) -> Result<(RawPath, Manifest), PackageError> {
        let top = self.top.take().ok_or(PackageError::NoTop)?;
        for entry in self.entries.values() {
            if entry.kind == Kind::Symlink && self.leaves(entry) {
                let target = entry.target.clone().unwrap_or_default();
                return Err(PackageError::LinkLeaves { name: top.join(&entry.path), target });
            }
        }
        for (written, mut names) in std::mem::take(&mut self.names) {
            names.sort_unstable_by(tree_order);
            let Some(file) = self.entries.get(&written).cloned() else { continue };
            for name in &names {
                let alike = Entry { path: name.clone(), hard_link: names.first().cloned(), ..file.clone() };
                self.entries.insert(name.clone(), alike);
            }
        }
        let mut entries: Vec<Entry> = self.entries.into_values().collect();
        entries.sort_unstable_by(|a, b| tree_order(&a.path, &b.path));
        Ok((top, Manifest { entries }))
    }

    /// What is above a member must be a directory; one that was never announced is implied.
    fn admit_parents(&mut self, member: &Member, path: &RawPath) -> Result<(), PackageError> {
        let bytes = path.as_bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
        for end in std::iter::once(0).chain(slashes) {
            let parent = RawPath::new(&bytes[..end]);
            match self.entries.get(&parent) {
                Some(known) if known.kind == Kind::Dir => {}
                Some(_) => {
                    return Err(PackageError::ParentIsNoDir { name: member.name.clone(), parent });
                }
                None => {
                    let implied = plain_entry(parent.clone(), Kind::Dir, IMPLIED_DIR_MODE, member.mtime);
                    self.entries.insert(parent, implied);
                }
            }
        }
        Ok(())
    }

    fn entry_of(&self, member: &Member, path: RawPath) -> Result<Entry, PackageError> {
        let special = |kind| Err(PackageError::SpecialFile { name: member.name.clone(), kind });
        let kind = match member.kind {
            MemberKind::File | MemberKind::HardLink => Kind::File,
            MemberKind::Dir => Kind::Dir,
            MemberKind::Symlink => Kind::Symlink,
            MemberKind::Fifo => return special("FIFO"),
            MemberKind::Device => return special("device"),
        };
        // A symbolic link has no mode of its own; file systems show 0777.
        let mode = if kind == Kind::Symlink { 0o777 } else { member.mode & 0o777 };
        let mut entry = plain_entry(path, kind, mode, member.mtime);
        if member.kind == MemberKind::File {
            entry.size = member.size;
        }
        if kind == Kind::Symlink {
            if member.link.as_bytes().is_empty() || member.link.as_bytes().starts_with(b"/") {
                let (name, target) = (member.name.clone(), member.link.clone());
                return Err(PackageError::LinkLeaves { name, target });
            }
            entry.target = Some(member.link.clone());
        }
        if member.kind == MemberKind::HardLink {
            entry.hard_link = Some(self.linked_file(member)?);
        }
        Ok(entry)
    }

    /// The first name of the file that a hard link is another name of.
    fn linked_file(&self, member: &Member) -> Result<RawPath, PackageError> {
        let (name, target) = (member.name.clone(), member.link.clone());
        let leaves = || PackageError::LinkLeaves { name: name.clone(), target: target.clone() };
        let (top, path) = split_top(&member.link, &name).map_err(|_| leaves())?.ok_or_else(leaves)?;
        if Some(&top) != self.top.as_ref() {
            return Err(leaves());
        }
        match self.entries.get(&path) {
            Some(known) if known.kind == Kind::File => Ok(known.hard_link.clone().unwrap_or(path)),
            _ => Err(PackageError::LinkToNoFile { name, target }),
        }
    }

    /// Whether a symbolic link leads outside, followed as the kernel would, through the package's own links: a chain
    /// of links that each look harmless can climb out. What does not exist is taken for a directory.
    fn leaves(&self, entry: &Entry) -> bool {
        let mut at = entry.path.as_bytes().to_vec();
        pop(&mut at);
        let mut pending: Vec<Vec<u8>> = Vec::new();
        push_components(&mut pending, entry.target.as_ref());
        let mut followed = 0;
        while let Some(component) = pending.pop() {
            match component.as_slice() {
                b"" | b"." => {}
                b".." => {
                    if !pop(&mut at) {
                        return true;
                    }
                }
                name => {
                    let next = RawPath::new(at.clone()).join(&RawPath::new(name));
                    match self.entries.get(&next) {
                        Some(link) if link.kind == Kind::Symlink => {
                            followed += 1;
                            // The kernel gives up here, and so nobody gets anywhere.
                            if followed > LINKS_FOLLOWED_MAX {
                                return false;
                            }
                            push_components(&mut pending, link.target.as_ref());
                        }
                        _ => at = next.as_bytes().to_vec(),
                    }
                }
            }
        }
        false
    }
}

fn plain_entry(path: RawPath, kind: Kind, mode: u32, mtime: Timestamp) -> Entry {
    Entry {
        path,
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime,
        size: 0,
        hard_link: None,
        target: None,
        xattrs: Vec::new(),
        content: None,
    }
}

/// Splits a name into the top component and the rest, blank and `.` components dropped. `None` if nothing is left.
fn split_top(path: &RawPath, name: &RawPath) -> Result<Option<(RawPath, RawPath)>, PackageError> {
    if path.as_bytes().starts_with(b"/") {
        return Err(PackageError::Absolute { name: name.clone() });
    }
    let mut components = Vec::new();
    for component in path.as_bytes().split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(PackageError::ParentInName { name: name.clone() }),
            component => components.push(component),
        }
    }
    let Some((top, rest)) = components.split_first() else { return Ok(None) };
    Ok(Some((RawPath::new(*top), RawPath::new(rest.join(&b'/')))))
}

/// Goes up one directory. `false` at the top.
fn pop(path: &mut Vec<u8>) -> bool {
    if path.is_empty() {
        return false;
    }
    path.truncate(path.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
    true
}

/// Puts the components of a target before what is still to be followed.
fn push_components(pending: &mut Vec<Vec<u8>>, target: Option<&RawPath>) {
    let target = target.map_or(&[][..], RawPath::as_bytes);
    pending.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, kind: MemberKind, link: &str) -> Member {
        Member {
            name: name.into(),
            kind,
            mode: 0o4755,
            uid: 5,
            gid: 5,
            mtime: Timestamp { s: 1, ns: 0 },
            size: 0,
            link: link.into(),
            xattrs: Vec::new(),
        }
    }

    fn take_in(members: &[(&str, MemberKind, &str)]) -> Result<(RawPath, Manifest), PackageError> {
        let mut intake = Intake::new(Limits { unpacked_bytes: 100, entries: 20, ratio: 10 });
        for (name, kind, link) in members {
            if let Some(entry) = intake.admit(&member(name, *kind, link))? {
                intake.complete(&entry, Digest::of(name.as_bytes()));
            }
        }
        intake.finish()
    }

    use MemberKind::{Device, Dir, Fifo, File, HardLink, Symlink};

    #[test]
    fn a_sound_package_is_let_in_and_normalised() {
        let (top, manifest) = take_in(&[
            ("./", Dir, ""),
            ("./t//conf/", Dir, ""),
            ("t/conf/profile_prod/k", File, ""),
            ("t/conf/profile", Symlink, "profile_prod"),
            ("t/conf/k", Symlink, "profile/k"),
            ("t/conf/up", Symlink, "../bin/./../lib"),
            ("t/z", File, ""),
            ("t/a", HardLink, "./t/z"),
            ("t/b", HardLink, "t/a"),
            ("t/conf", Dir, ""),
        ])
        .unwrap();
        assert_eq!(top, "t".into());
        let paths: Vec<String> = manifest.entries.iter().map(|entry| entry.path.to_string()).collect();
        let expected = [
            "",
            "a",
            "b",
            "conf",
            "conf/k",
            "conf/profile",
            "conf/profile_prod",
            "conf/profile_prod/k",
            "conf/up",
            "z",
        ];
        assert_eq!(paths, expected);
        let get = |path: &str| manifest.get(&path.into()).unwrap();
        assert_eq!((get("a").mode, get("a").uid, get("conf/profile").mode), (0o755, 0, 0o777));
        assert!(["a", "b", "z"].iter().all(|name| get(name).hard_link == Some("a".into())));
        assert_eq!(get("b").content, Some(Digest::of(b"t/z")));
    }

    #[test]
    fn every_trick_is_refused_by_its_own_name() {
        use PackageError as E;
        type Case<'a> = (&'a [(&'a str, MemberKind, &'a str)], fn(&PackageError) -> bool);
        let cases: &[Case<'_>] = &[
            (&[], |e| matches!(e, E::NoTop)),
            (&[("./", Dir, "")], |e| matches!(e, E::NoTop)),
            (&[("file", File, "")], |e| matches!(e, E::NoTop)),
            (&[("t/", Dir, ""), ("u/", Dir, "")], |e| matches!(e, E::TwoTops { .. })),
            (&[("/etc/passwd", File, "")], |e| matches!(e, E::Absolute { .. })),
            (&[("t/../x", File, "")], |e| matches!(e, E::ParentInName { .. })),
            (&[("t/l", Symlink, "/etc")], |e| matches!(e, E::LinkLeaves { .. })),
            (&[("t/l", Symlink, "")], |e| matches!(e, E::LinkLeaves { .. })),
            (&[("t/l", Symlink, "a/../../x")], |e| matches!(e, E::LinkLeaves { .. })),
            // Each link alone stays inside; the kernel takes `s/s/s` for the top and climbs from there.
            (&[("t/s", Symlink, "."), ("t/l", Symlink, "s/s/s/../..")], |e| {
                matches!(e, E::LinkLeaves { .. })
            }),
            (&[("t/l", HardLink, "/etc/passwd")], |e| matches!(e, E::LinkLeaves { .. })),
            (&[("t/l", HardLink, "t/../../etc/passwd")], |e| matches!(e, E::LinkLeaves { .. })),
            (&[("t/l", HardLink, "u/f")], |e| matches!(e, E::LinkLeaves { .. })),
            (&[("t/l", HardLink, "t/f")], |e| matches!(e, E::LinkToNoFile { .. })),
            (&[("t/d/", Dir, ""), ("t/l", HardLink, "t/d")], |e| matches!(e, E::LinkToNoFile { .. })),
            (&[("t/s", Symlink, "x"), ("t/l", HardLink, "t/s")], |e| matches!(e, E::LinkToNoFile { .. })),
            (&[("t/s", Symlink, "x"), ("t/s/f", File, "")], |e| matches!(e, E::ParentIsNoDir { .. })),
            (&[("t/f", File, ""), ("t/f/f", File, "")], |e| matches!(e, E::ParentIsNoDir { .. })),
            (&[("t/d/f", File, ""), ("t/d", Symlink, "x")], |e| matches!(e, E::Duplicate { .. })),
            (&[("t/f", File, ""), ("t/./f", File, "")], |e| matches!(e, E::Duplicate { .. })),
            (&[("t/p", Fifo, "")], |e| matches!(e, E::SpecialFile { kind: "FIFO", .. })),
            (&[("t/p", Device, "")], |e| matches!(e, E::SpecialFile { kind: "device", .. })),
        ];
        for (members, is_expected) in cases {
            let error = take_in(members).unwrap_err();
            assert!(is_expected(&error), "{members:?}: {error:?}");
        }
    }

    #[test]
    fn a_loop_of_links_ends() {
        take_in(&[("t/a", Symlink, "b/../b"), ("t/b", Symlink, "a/x/../../a")]).unwrap();
    }

    #[test]
    fn bombs_are_refused() {
        let mut intake = Intake::new(Limits { unpacked_bytes: 100, entries: 3, ratio: 10 });
        let large = Member { size: 101, ..member("t/f", File, "") };
        assert!(matches!(intake.admit(&large), Err(PackageError::TooLarge { limit: 100, .. })));
        let huge = Member { size: u64::MAX, ..member("t/f", File, "") };
        assert!(matches!(intake.admit(&huge), Err(PackageError::TooLarge { .. })));
        let mut intake = Intake::new(Limits { unpacked_bytes: 100, entries: 3, ratio: 10 });
        let deep = intake.admit(&member("t/a/b/c/d/e", File, ""));
        assert!(matches!(deep, Err(PackageError::TooManyMembers { limit: 3, .. })));
        let name = RawPath::from("t/zeros");
        intake.weigh(BOMB_BYTES_MIN, 1, &name).unwrap();
        assert!(matches!(intake.weigh(1, 1, &name), Err(PackageError::Bomb { limit: 10, .. })));
    }
}
