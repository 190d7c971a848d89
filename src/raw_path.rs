//! Paths as bytes: an installation may hold names in any encoding.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A path, kept as the bytes that the kernel sees.
///
/// In text (messages, JSON) every byte that is not part of valid, printable UTF-8 is written `\xNN` and a backslash
/// is doubled, so that two different paths never read the same and no name can smuggle control characters into a
/// terminal.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawPath(Vec<u8>);

impl RawPath {
    /// Wraps bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as a path of the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The same as an owned path of the standard library.
    pub fn to_path_buf(&self) -> PathBuf {
        self.as_path().to_owned()
    }

    /// This path followed by another, with one slash between; a side that is empty adds none.
    #[must_use]
    pub fn join(&self, tail: &Self) -> Self {
        if self.0.is_empty() {
            return tail.clone();
        }
        if tail.0.is_empty() {
            return self.clone();
        }
        let mut bytes = self.0.clone();
        if bytes.last() != Some(&b'/') {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&tail.0);
        Self(bytes)
    }

    /// The last component's bytes.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }
}

impl AsRef<Path> for RawPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl From<&Path> for RawPath {
    fn from(path: &Path) -> Self {
        Self(path.as_os_str().as_bytes().to_vec())
    }
}

impl From<PathBuf> for RawPath {
    fn from(path: PathBuf) -> Self {
        path.as_path().into()
    }
}

impl From<&str> for RawPath {
    fn from(path: &str) -> Self {
        Self(path.as_bytes().to_vec())
    }
}

impl fmt::Display for RawPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => {
                        let mut utf8 = [0; 4];
                        for byte in c.encode_utf8(&mut utf8).bytes() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    c => write!(f, "{c}")?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RawPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        if let Some(tail) = rest.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = tail;
        } else {
            let digit = |c: u8| (c as char).to_digit(16);
            let digits = rest.strip_prefix(b"x")?.get(..2)?;
            bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
            rest = &rest[3..];
        }
    }
    Some(bytes)
}

impl Serialize for RawPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            unescape(&text).map(Self).ok_or_else(|| D::Error::custom("bad escape in a path"))
        } else {
            Ok(Self(Vec::deserialize(deserializer)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive_the_text_form() {
        for bytes in [
            &b"plain/name"[..],
            b"back\\slash\\x41",
            b"new\nline",
            b"bad\xff\xfeutf8",
            "\u{85}gr\u{fc}n".as_bytes(),
        ] {
            let path = RawPath::new(bytes);
            let text = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<RawPath>(&text).unwrap(), path, "{text}");
            assert!(!path.to_string().chars().any(char::is_control));
        }
    }

    #[test]
    fn a_bad_escape_is_refused() {
        for text in [r#""\\""#, r#""\\x4""#, r#""\\q00""#, r#""\\xzz""#, r#""\\x+f""#] {
            assert!(serde_json::from_str::<RawPath>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn join_puts_one_slash_between() {
        let join = |a: &str, b: &str| RawPath::from(a).join(&b.into()).to_string();
        assert_eq!([join("a", "b"), join("/", "b"), join("", "b"), join("a", "")], ["a/b", "/b", "b", "a"]);
    }
}
