//! Reading small files out of a jar, which is a zip archive.
//!
//! Two things that an upgrade must know are in jars only: Tomcat's full version and the table of renamed keys. The
//! archive's directory at its end is authoritative; what does not fit together is passed over, as nothing depends on a
//! jar being readable.

use std::io::Read;

use flate2::read::DeflateDecoder;

/// The longest member that is read, in bytes.
const MEMBER_LIMIT_BYTES: u64 = 1 << 20;

/// The longest comment behind a zip's directory, and the record that points to the directory.
const END_LIMIT_BYTES: usize = 22 + 65_535;

/// The members whose name is wanted, by name, in the directory's order.
pub fn members(jar: &[u8], wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let Some((mut at, count)) = directory(jar) else { return Vec::new() };
    let mut found = Vec::new();
    for _ in 0..count {
        let Some(entry) = Entry::read(jar, at) else { break };
        at = entry.next;
        if wanted(&entry.name)
            && let Some(content) = entry.content(jar)
        {
            found.push((entry.name, content));
        }
    }
    found
}

/// One member.
pub fn member(jar: &[u8], name: &str) -> Option<Vec<u8>> {
    members(jar, |other| other == name).into_iter().next().map(|(_, content)| content)
}

/// Where the directory begins, and how many entries it has.
fn directory(jar: &[u8]) -> Option<(usize, usize)> {
    let from = jar.len().saturating_sub(END_LIMIT_BYTES);
    let end = jar[from..].windows(4).rposition(|window| window == b"PK\x05\x06")? + from;
    Some((number(jar, end + 16, 4)?, number(jar, end + 10, 2)?))
}

fn number(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

struct Entry {
    name: String,
    method: usize,
    packed_bytes: usize,
    local: usize,
    next: usize,
}

impl Entry {
    fn read(jar: &[u8], at: usize) -> Option<Self> {
        if jar.get(at..at + 4)? != b"PK\x01\x02" {
            return None;
        }
        let lengths = [28, 30, 32].map(|field| number(jar, at + field, 2));
        let [Some(name), Some(extra), Some(comment)] = lengths else { return None };
        let text = jar.get(at + 46..at + 46 + name)?;
        Some(Self {
            name: String::from_utf8_lossy(text).into_owned(),
            method: number(jar, at + 10, 2)?,
            packed_bytes: number(jar, at + 20, 4)?,
            local: number(jar, at + 42, 4)?,
            next: at + 46 + name + extra + comment,
        })
    }

    fn content(&self, jar: &[u8]) -> Option<Vec<u8>> {
        if jar.get(self.local..self.local.checked_add(4)?)? != b"PK\x03\x04" {
            return None;
        }
        let begin = self.local + 30 + number(jar, self.local + 26, 2)? + number(jar, self.local + 28, 2)?;
        let packed = jar.get(begin..begin.checked_add(self.packed_bytes)?)?;
        let mut content = Vec::new();
        match self.method {
            0 => packed.take(MEMBER_LIMIT_BYTES + 1).read_to_end(&mut content).ok()?,
            8 => DeflateDecoder::new(packed).take(MEMBER_LIMIT_BYTES + 1).read_to_end(&mut content).ok()?,
            _ => return None,
        };
        (content.len() as u64 <= MEMBER_LIMIT_BYTES).then_some(content)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    /// A jar with these members, the first stored and the rest deflated.
    pub fn jar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (place, (name, content)) in files.iter().enumerate() {
            let method = if place == 0 { 0u16 } else { 8 };
            let packed = if method == 0 {
                content.to_vec()
            } else {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            };
            let local = out.len() as u32;
            let mut fields = Vec::new();
            fields.extend([20u16, 0, method, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
            let sizes = [0u32, packed.len() as u32, content.len() as u32];
            fields.extend(sizes.iter().flat_map(|word| word.to_le_bytes()));
            fields.extend((name.len() as u16).to_le_bytes());
            fields.extend(3u16.to_le_bytes());
            out.extend(b"PK\x03\x04");
            out.extend(&fields);
            out.extend(name.as_bytes());
            out.extend(b"ext");
            out.extend(&packed);
            directory.extend(b"PK\x01\x02\x14\0");
            directory.extend(&fields);
            directory.extend([0u8; 10]);
            directory.extend(local.to_le_bytes());
            directory.extend(name.as_bytes());
            directory.extend(b"ext");
        }
        let begin = out.len() as u32;
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((files.len() as u16).to_le_bytes());
        out.extend((files.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(begin.to_le_bytes());
        out.extend(7u16.to_le_bytes());
        out.extend(b"comment");
        out
    }

    #[test]
    fn members_are_found_stored_and_deflated() {
        let text = b"server.number=7.0.100.0\n".repeat(50);
        let jar = jar(&[("META-INF/MANIFEST.MF", b"Manifest"), ("a/b.properties", &text), ("c", b"")]);
        assert_eq!(member(&jar, "META-INF/MANIFEST.MF").unwrap(), b"Manifest");
        assert_eq!(member(&jar, "a/b.properties").unwrap(), text);
        assert_eq!(member(&jar, "c").unwrap(), b"");
        assert_eq!(member(&jar, "b.properties"), None);
        assert_eq!(members(&jar, |_| true).len(), 3);
    }

    #[test]
    fn what_is_no_jar_or_a_cut_one_has_no_members_and_no_panic() {
        let whole = jar(&[("a", b"content"), ("b", b"more content")]);
        for end in 0..whole.len() {
            let _ = members(&whole[..end], |_| true);
            let mut bent = whole.clone();
            bent[end] ^= 0xff;
            let _ = members(&bent, |_| true);
        }
        assert!(members(b"no zip at all", |_| true).is_empty());
    }
}
