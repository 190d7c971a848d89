//! Tar headers, written so that any GNU tar restores every attribute.
//!
//! A ustar header holds what fits. Long names go into GNU `L` and `K` members and not into PAX records, because GNU
//! tar takes a PAX path for UTF-8 and converts it to the locale, which spoils it where names are in another encoding
//! (GB18030 is common); `L` members are bytes. PAX records hold what has no other place: times with nanoseconds or
//! before 1970, and extended attributes. Owners are numbers alone, as names may mean somebody else on restoring.

use tar::{EntryType, Header};

use super::manifest::Entry;
use crate::effect::fs::{Kind, Timestamp};
use crate::raw_path::RawPath;

/// The unit that everything is padded to.
pub const TAR_BLOCK_BYTES: u64 = 512;
/// Two empty blocks end an archive.
pub const TAR_END: [u8; 1024] = [0; 1024];
/// The name of a PAX record of an extended attribute begins so.
pub const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

const NAME_BYTES: usize = 100;
/// The largest time that eleven octal digits hold.
const OCTAL_TIME_MAX: i64 = 0o777_7777_7777;

/// Everything that goes before the content of an entry: the long name and the attributes, then the header.
pub fn headers_of(top: &RawPath, entry: &Entry) -> Vec<u8> {
    let mut name = top.join(&entry.path).as_bytes().to_vec();
    if entry.kind == Kind::Dir {
        name.push(b'/');
    }
    let (kind, link) = match (entry.kind, entry.is_later_name()) {
        (Kind::File, true) => {
            let first = entry.hard_link.clone().unwrap_or_default();
            (EntryType::Link, top.join(&first).as_bytes().to_vec())
        }
        (Kind::File, false) => (EntryType::Regular, Vec::new()),
        (Kind::Dir, _) => (EntryType::Directory, Vec::new()),
        (Kind::Symlink, _) => {
            (EntryType::Symlink, entry.target.clone().unwrap_or_default().as_bytes().to_vec())
        }
        (Kind::Fifo, _) => (EntryType::Fifo, Vec::new()),
        (Kind::Socket | Kind::Device, _) => unreachable!("BUG: sockets and devices are left out"),
    };
    let mut bytes = Vec::new();
    if name.len() > NAME_BYTES {
        long_name(EntryType::GNULongName, &name, &mut bytes);
    }
    if link.len() > NAME_BYTES {
        long_name(EntryType::GNULongLink, &link, &mut bytes);
    }
    let records = if kind == EntryType::Link { Vec::new() } else { pax_records(entry) };
    if !records.is_empty() {
        let mut header = Header::new_ustar();
        set_name(&mut header, b"PaxHeader", b"");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        append(&mut header, &records, &mut bytes);
    }
    let mut header = Header::new_ustar();
    set_name(&mut header, &name, &link);
    header.set_entry_type(kind);
    header.set_mode(entry.mode);
    header.set_uid(entry.uid.into());
    header.set_gid(entry.gid.into());
    header.set_mtime(entry.mtime.s.clamp(0, OCTAL_TIME_MAX) as u64);
    header.set_size(content_bytes(entry));
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes
}

/// How many bytes of content follow the headers of an entry.
pub fn content_bytes(entry: &Entry) -> u64 {
    if entry.kind == Kind::File && !entry.is_later_name() { entry.size } else { 0 }
}

/// How many bytes fill the last block of a content of this length.
pub fn padding_bytes(length: u64) -> u64 {
    length.next_multiple_of(TAR_BLOCK_BYTES) - length
}

fn set_name(header: &mut Header, name: &[u8], link: &[u8]) {
    let ustar = header.as_ustar_mut().expect("BUG: the header was made as ustar");
    let put = |field: &mut [u8], bytes: &[u8]| {
        let length = bytes.len().min(field.len());
        field[..length].copy_from_slice(&bytes[..length]);
    };
    put(&mut ustar.name, name);
    put(&mut ustar.linkname, link);
}

fn long_name(kind: EntryType, name: &[u8], bytes: &mut Vec<u8>) {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().expect("BUG: the header was made as GNU").name[..13]
        .copy_from_slice(b"././@LongLink");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    append(&mut header, &[name, b"\0"].concat(), bytes);
}

fn append(header: &mut Header, content: &[u8], bytes: &mut Vec<u8>) {
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + padding_bytes(content.len() as u64) as usize, 0);
}

fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    if entry.mtime.ns != 0 || !(0..=OCTAL_TIME_MAX).contains(&entry.mtime.s) {
        pax_record(b"mtime", pax_time(entry.mtime).as_bytes(), &mut records);
    }
    for (name, value) in &entry.xattrs {
        // A key ends at its first `=`; GNU tar writes one inside a name as `%3D`.
        let mut key = XATTR_KEY.to_vec();
        for byte in name {
            match byte {
                b'%' => key.extend_from_slice(b"%25"),
                b'=' => key.extend_from_slice(b"%3D"),
                byte => key.push(*byte),
            }
        }
        pax_record(&key, value, &mut records);
    }
    records
}

/// Decimal seconds. `Timestamp` counts nanoseconds upwards before 1970 too, a decimal fraction does not.
fn pax_time(time: Timestamp) -> String {
    let (sign, s, ns) = match (time.s, time.ns) {
        (s, ns) if s >= 0 => ("", s.unsigned_abs(), ns),
        (s, 0) => ("-", s.unsigned_abs(), 0),
        (s, ns) => ("-", (s + 1).unsigned_abs(), 1_000_000_000 - ns),
    };
    format!("{sign}{s}.{ns:09}")
}

/// A record begins with its own length, the digits of the length included.
fn pax_record(key: &[u8], value: &[u8], records: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for piece in [&b" "[..], key, b"=", value, b"\n"] {
        records.extend_from_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::super::manifest::tests::entry;
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in 0..2000 {
            let mut records = Vec::new();
            pax_record(b"key", &vec![b'v'; length], &mut records);
            let digits = records.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let claimed: usize = std::str::from_utf8(&records[..digits]).unwrap().parse().unwrap();
            assert_eq!(claimed, records.len());
        }
    }

    #[test]
    fn times_before_1970_are_decimal_fractions() {
        let text = |s, ns| pax_time(Timestamp { s, ns });
        assert_eq!(text(-5, 123_456_789), "-4.876543211");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(-5, 0), "-5.000000000");
        assert_eq!(text(5, 1), "5.000000001");
    }

    #[test]
    fn a_length_of_more_than_8_gib_has_a_header_form() {
        let mut large = entry("large", Kind::File);
        (large.size, large.uid, large.mtime.ns) = (9 << 30, 4_000_000_000, 0);
        let bytes = headers_of(&"top".into(), &large);
        assert_eq!(bytes.len(), 512);
        let header = Header::from_byte_slice(&bytes);
        assert_eq!((header.entry_size().unwrap(), header.uid().unwrap()), (9 << 30, 4_000_000_000));
        // GNU tar shows the header before it misses the content.
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), &bytes).unwrap();
        let listing =
            std::process::Command::new("tar").arg("-tvf").arg(dir.path().join("a")).output().unwrap();
        let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
        assert!(listing.contains("9663676416") && listing.contains("top/large"), "{listing}");
    }
}
