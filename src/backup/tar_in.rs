//! A tar stream read member by member, strictly: what two readers could understand differently is refused.
//!
//! Our own reader and not the `tar` crate's: each refusal has to be told apart, a header whose two lengths disagree
//! must not be guessed at (the hole that CVE-2025-62518 names), and after damage reading goes on at a later block.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::tar_out::{TAR_BLOCK_BYTES, XATTR_KEY, padding_bytes};
use crate::effect::fs::{Timestamp, Xattr};
use crate::raw_path::RawPath;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file; its content follows.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier member.
    HardLink,
    /// A FIFO.
    Fifo,
    /// A character or block device.
    Device,
}

/// One member: everything but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, as written.
    pub name: RawPath,
    /// What it is.
    pub kind: MemberKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Length of its content.
    pub size: u64,
    /// Where a link points, as written.
    pub link: RawPath,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// Why a stream is not a tar archive that can be relied on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ends in the middle, or without its end mark.
    #[error("the archive is cut off behind `{after}`")]
    Truncated {
        /// The last complete name.
        after: RawPath,
    },
    /// Something other than zeros follows the end mark.
    #[error("something follows the end mark of the archive")]
    TrailingGarbage,
    /// A header's check sum is wrong.
    #[error("the header that follows `{after}` has a wrong check sum")]
    HeaderChecksum {
        /// The last complete name.
        after: RawPath,
    },
    /// A header or an extension cannot be understood.
    #[error("`{name}`: {field} makes no sense")]
    BadField {
        /// The member, or the last one before it.
        name: RawPath,
        /// Which field.
        field: &'static str,
    },
    /// Header and extension give two lengths.
    #[error("`{name}` has two lengths: {header_bytes} bytes in its header, {pax_bytes} in its extension")]
    SizeConflict {
        /// The member.
        name: RawPath,
        /// Length in the header.
        header_bytes: u64,
        /// Length in the PAX extension.
        pax_bytes: u64,
    },
    /// A name is longer than any file system takes.
    #[error("the name `{name}...` is too long")]
    NameTooLong {
        /// Its beginning.
        name: RawPath,
    },
    /// A name has a NUL inside.
    #[error("the name `{name}` has a NUL inside")]
    NulInName {
        /// The name.
        name: RawPath,
    },
    /// A type that kytx does not read (sparse members, volumes, ...).
    #[error("`{name}` is of a type that kytx does not read: `{code}`")]
    UnknownType {
        /// The member.
        name: RawPath,
        /// Its type character, escaped.
        code: String,
    },
}

/// `PATH_MAX` and `NAME_MAX` of Linux.
const PATH_BYTES_MAX: usize = 4095;
const COMPONENT_BYTES_MAX: usize = 255;
/// Extended attributes may have 64 KiB each; more than this is not an extension but an attack.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// What eleven octal digits hold.
const OCTAL_BYTES_MAX: u64 = (8 << 30) - 1;

/// Reads members off a stream.
pub struct Members<R> {
    inner: R,
    /// Content and padding of the current member that nobody has read yet.
    content_left: u64,
    padding_left: u64,
    last: RawPath,
}

/// What extensions say about the member that follows them.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<Timestamp>,
    uid: Option<u32>,
    gid: Option<u32>,
    xattrs: Vec<Xattr>,
}

impl<R: Read> Members<R> {
    /// Starts at the beginning of a stream, or at any header.
    pub fn new(inner: R) -> Self {
        Self { inner, content_left: 0, padding_left: 0, last: RawPath::default() }
    }

    /// The stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Forgets the current member: the stream stands at a header again.
    pub fn resynchronise(&mut self) {
        (self.content_left, self.padding_left) = (0, 0);
    }

    /// The next member; `None` behind the end mark, once the rest of the stream is known to be empty.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        self.skip(self.content_left + self.padding_left)?;
        self.resynchronise();
        let mut extensions = Extensions::default();
        loop {
            let block = self.block()?;
            if block == [0; 512] {
                if self.block()? != [0; 512] {
                    return Err(TarError::HeaderChecksum { after: self.last.clone() });
                }
                self.expect_zeros()?;
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            self.check(header, &block)?;
            let size = header.entry_size().map_err(|_| self.bad("the length"))?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.long_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    self.read_records(&records, &mut extensions)?;
                }
                EntryType::XGlobalHeader => {
                    // `git archive` writes a comment here; anything that would change members is refused.
                    let records = self.extension(size)?;
                    let mut global = Extensions::default();
                    self.read_records(&records, &mut global)?;
                    if global.name.is_some() || global.link.is_some() || global.size.is_some() {
                        return Err(self.bad("the global extension"));
                    }
                }
                _ => return self.member(header, size, extensions).map(Some),
            }
        }
    }

    /// Reads content of the current member; 0 at its end.
    pub fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = buffer.len().min(usize::try_from(self.content_left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let count = read_retrying(&mut self.inner, &mut buffer[..want])?;
        if count == 0 {
            return Err(self.truncated());
        }
        self.content_left -= count as u64;
        Ok(count)
    }

    fn member(&mut self, header: &Header, size: u64, extensions: Extensions) -> Result<Member, TarError> {
        let name = RawPath::new(extensions.name.unwrap_or_else(|| header.path_bytes().into_owned()));
        check_name(&name)?;
        self.last = name.clone();
        let link = extensions.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let link = RawPath::new(link.unwrap_or_default());
        // A target is no name: a link may point at what could never exist.
        check_length(&link)?;
        let kind = match header.entry_type() {
            // Before ustar a directory was a file whose name ends with a slash.
            EntryType::Regular if name.as_bytes().ends_with(b"/") => MemberKind::Dir,
            EntryType::Regular | EntryType::Continuous => MemberKind::File,
            EntryType::Directory => MemberKind::Dir,
            EntryType::Symlink => MemberKind::Symlink,
            EntryType::Link => MemberKind::HardLink,
            EntryType::Fifo => MemberKind::Fifo,
            EntryType::Char | EntryType::Block => MemberKind::Device,
            other => {
                let code = other.as_byte().escape_ascii().to_string();
                return Err(TarError::UnknownType { name, code });
            }
        };
        // Only a length that the header has no room for may be in the extension alone.
        let size = match extensions.size {
            Some(pax_bytes) if pax_bytes != size && pax_bytes <= OCTAL_BYTES_MAX => {
                return Err(TarError::SizeConflict { name, header_bytes: size, pax_bytes });
            }
            Some(pax_bytes) => pax_bytes,
            None => size,
        };
        if size != 0 && kind != MemberKind::File {
            return Err(self.bad("the length"));
        }
        if size > i64::MAX as u64 {
            return Err(self.bad("the length"));
        }
        // Writers that know no owner leave the field empty; every reader takes that for 0.
        let id = |field: &[u8], value: io::Result<u64>| match value {
            _ if field.iter().all(|byte| matches!(byte, 0 | b' ')) => Some(0),
            value => value.ok().and_then(|id| u32::try_from(id).ok()),
        };
        let fields = header.as_old();
        let uid = extensions.uid.or(id(&fields.uid, header.uid())).ok_or_else(|| self.bad("the owner"))?;
        let gid = extensions.gid.or(id(&fields.gid, header.gid())).ok_or_else(|| self.bad("the group"))?;
        let mode = header.mode().map_err(|_| self.bad("the mode"))? & 0o7777;
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            // Base-256 numbers are signed: GNU tar writes times before 1970 so.
            None => Timestamp { s: header.mtime().map_err(|_| self.bad("the time"))?.cast_signed(), ns: 0 },
        };
        let mut xattrs = extensions.xattrs;
        xattrs.sort_unstable();
        (self.content_left, self.padding_left) = (size, padding_bytes(size));
        Ok(Member { name, kind, mode, uid, gid, mtime, size, link, xattrs })
    }

    fn check(&self, header: &Header, block: &[u8; 512]) -> Result<(), TarError> {
        // The check sum counts its own field as blanks.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(place, byte)| if (148..156).contains(&place) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() == Some(sum) {
            return Ok(());
        }
        Err(TarError::HeaderChecksum { after: self.last.clone() })
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(size)?;
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(self.bad("the length of an extension"));
        }
        let mut content = vec![0; (size + padding_bytes(size)) as usize];
        self.fill(&mut content)?;
        content.truncate(size as usize);
        Ok(content)
    }

    fn read_records(&self, mut records: &[u8], extensions: &mut Extensions) -> Result<(), TarError> {
        let bad = |field| self.bad(field);
        while !records.is_empty() {
            let (key, value, rest) = split_record(records).ok_or_else(|| bad("an extension"))?;
            records = rest;
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            match key {
                b"path" => extensions.name = Some(value.to_vec()),
                b"linkpath" => extensions.link = Some(value.to_vec()),
                b"size" => extensions.size = Some(number().ok_or_else(|| bad("the length"))?),
                b"uid" => extensions.uid = number().and_then(|id| u32::try_from(id).ok()),
                b"gid" => extensions.gid = number().and_then(|id| u32::try_from(id).ok()),
                b"mtime" => extensions.mtime = Some(parse_time(value).ok_or_else(|| bad("the time"))?),
                key if key.starts_with(XATTR_KEY) => {
                    let name = unescape_key(&key[XATTR_KEY.len()..]);
                    extensions.xattrs.push((name, value.to_vec()));
                }
                // A sparse member under a made-up name: its content is not the file's.
                key if key.starts_with(b"GNU.sparse.") => return Err(bad("the sparse map")),
                _ => {}
            }
        }
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; 512], TarError> {
        let mut block = [0; TAR_BLOCK_BYTES as usize];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match read_retrying(&mut self.inner, &mut buffer[filled..])? {
                0 => return Err(self.truncated()),
                count => filled += count,
            }
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TarError> {
        let mut left = bytes;
        let mut buffer = [0; 8192];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.fill(&mut buffer[..want])?;
            left -= want as u64;
        }
        Ok(())
    }

    fn expect_zeros(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 8192];
        loop {
            match read_retrying(&mut self.inner, &mut buffer)? {
                0 => return Ok(()),
                count if buffer[..count].iter().all(|byte| *byte == 0) => {}
                _ => return Err(TarError::TrailingGarbage),
            }
        }
    }

    fn truncated(&self) -> TarError {
        TarError::Truncated { after: self.last.clone() }
    }

    fn bad(&self, field: &'static str) -> TarError {
        TarError::BadField { name: self.last.clone(), field }
    }
}

fn read_retrying(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn check_name(name: &RawPath) -> Result<(), TarError> {
    check_length(name)?;
    if name.as_bytes().split(|byte| *byte == b'/').any(|part| part.len() > COMPONENT_BYTES_MAX) {
        return Err(too_long(name));
    }
    Ok(())
}

fn check_length(path: &RawPath) -> Result<(), TarError> {
    if path.as_bytes().len() > PATH_BYTES_MAX {
        return Err(too_long(path));
    }
    if path.as_bytes().contains(&0) {
        return Err(TarError::NulInName { name: path.clone() });
    }
    Ok(())
}

fn too_long(path: &RawPath) -> TarError {
    let beginning = &path.as_bytes()[..path.as_bytes().len().min(80)];
    TarError::NameTooLong { name: RawPath::new(beginning) }
}

/// Takes one `LENGTH KEY=VALUE\n` off the front.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
    if length <= blank + 1 {
        return None;
    }
    let (record, rest) = records.split_at_checked(length)?;
    let body = record[blank + 1..].strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn parse_time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let s: i64 = if whole.starts_with(['+', '-']) { return None } else { whole.parse().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits beyond the ninth are finer than any file system keeps.
    let ns: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    Some(match (negative, ns) {
        (false, ns) => Timestamp { s, ns },
        (true, 0) => Timestamp { s: -s, ns: 0 },
        (true, ns) => Timestamp { s: -s - 1, ns: 1_000_000_000 - ns },
    })
}

fn unescape_key(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, taken) = match rest.get(..3) {
            Some(b"%25") => (b'%', 3),
            Some(b"%3D") => (b'=', 3),
            _ => (*first, rest.len() - tail.len()),
        };
        name.push(byte);
        rest = &rest[taken..];
    }
    name
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::entry;
    use super::super::tar_out::{TAR_END, headers_of};
    use super::*;
    use crate::effect::fs::Kind;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn read_all(bytes: &[u8]) -> Result<Vec<Member>, TarError> {
        let mut members = Members::new(bytes);
        let mut all = Vec::new();
        while let Some(member) = members.next_member()? {
            all.push(member);
        }
        Ok(all)
    }

    #[test]
    fn what_is_written_is_read() {
        let mut file = entry(&format!("{}/{}", "d".repeat(200), "n".repeat(255)), Kind::File);
        file.mtime = Timestamp { s: -5, ns: 123_456_789 };
        (file.uid, file.gid, file.mode) = (4_000_000_000, 3_000_000, 0o4755);
        file.xattrs = vec![(b"user.%3D=%".to_vec(), b"a\nb=\0c".to_vec())];
        let mut link = entry("l", Kind::Symlink);
        link.target = Some("t".repeat(3000).replacen("tttt", "/ttt", 40).as_str().into());
        link.target = Some("x/".repeat(1000).as_str().into());
        let top = RawPath::from("top");
        let bytes = [headers_of(&top, &file), headers_of(&top, &link), TAR_END.to_vec()].concat();
        let all = read_all(&bytes).unwrap();
        assert_eq!(all[0].name, top.join(&file.path));
        assert_eq!(
            (all[0].mtime, all[0].uid, all[0].gid, all[0].mode),
            (file.mtime, file.uid, file.gid, 0o4755)
        );
        assert_eq!(all[0].xattrs, file.xattrs);
        assert_eq!((Some(&all[1].link), all[1].kind), (link.target.as_ref(), MemberKind::Symlink));
        for cut in [100, 512, 1500, bytes.len() - 1, bytes.len() - 600] {
            assert!(matches!(read_all(&bytes[..cut]), Err(TarError::Truncated { .. })), "cut at {cut}");
        }
        let garbage = [&bytes[..], &[1; 512]].concat();
        assert!(matches!(read_all(&garbage), Err(TarError::TrailingGarbage)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(20_261_124), ..ProptestConfig::default() })]

        #[test]
        fn damaged_streams_never_panic(place in 0..4096_usize, byte: u8, tail in proptest::collection::vec(any::<u8>(), 0..1500)) {
            let top = RawPath::from("top");
            let mut file = entry(&"n".repeat(150), Kind::File);
            file.xattrs = vec![(b"user.x".to_vec(), b"v".to_vec())];
            let mut bytes = [headers_of(&top, &file), tail, TAR_END.to_vec()].concat();
            let place = place % bytes.len();
            bytes[place] = byte;
            let _ = read_all(&bytes);
        }

        #[test]
        fn damaged_records_never_panic(records in proptest::collection::vec(any::<u8>(), 0..64)) {
            let members = Members::new(&[][..]);
            let _ = members.read_records(&records, &mut Extensions::default());
            let _ = parse_time(&records);
        }
    }
}
