//! Digests: blake3 hashes, one domain per use.
//!
//! Every digest that leaves this crate is made under a context string of its own (`derive_key`), so that a
//! frame of the journal can never pass for a manifest and a manifest never for a plan. File contents alone are
//! hashed plainly: `b3sum FILE` then shows the same value as a manifest does.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A blake3 hash of 32 bytes. In text it is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest that stands for "nothing was hashed".
    pub const ZERO: Self = Self([0; 32]);

    /// Hashes file content, plainly, as `b3sum` does.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// Hashes bytes under a context string.
    pub fn of_domain(context: &str, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::domain(context);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Hashes a value under a context string, through its compact JSON text, which is the same on every machine.
    ///
    /// # Panics
    /// If the value cannot be written as JSON, which none of this crate's types allows.
    pub fn of_value<T: Serialize + ?Sized>(context: &str, value: &T) -> Self {
        let text = serde_json::to_vec(value).expect("BUG: a plain value has a JSON form");
        Self::of_domain(context, &text)
    }

    /// Wraps 32 bytes that are already a hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hexadecimal digits, for messages.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a digest: expected 64 hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotADigest);
        }
        let nibble = |c: u8| (c as char).to_digit(16).ok_or(NotADigest);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (nibble(pair[0])? * 16 + nibble(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            Ok(Self(<[u8; 32]>::deserialize(deserializer)?))
        }
    }
}

/// An incremental hash.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Default for Hasher {
    fn default() -> Self {
        Self::plain()
    }
}

impl Hasher {
    /// Starts a plain hash, for file content.
    pub fn plain() -> Self {
        Self(blake3::Hasher::new())
    }

    /// Starts a hash under a context string.
    pub fn domain(context: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(context))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added so far.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

/// A reader that hashes what passes through it.
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Wraps a reader with a plain hash.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::plain(), bytes: 0 }
    }

    /// How many bytes have passed, and their digest.
    pub fn finish(self) -> (u64, Digest) {
        (self.bytes, self.hasher.finish())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// A writer that hashes what passes through it.
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps a writer with a plain hash.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::plain(), bytes: 0 }
    }

    /// The writer, how many bytes have passed, and their digest.
    pub fn finish(self) -> (W, u64, Digest) {
        (self.inner, self.bytes, self.hasher.finish())
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_name_the_same_digest() {
        let digest = Digest::of(b"kytx");
        assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        assert_eq!("12".parse::<Digest>(), Err(NotADigest));
        assert_eq!("zz".repeat(32).parse::<Digest>(), Err(NotADigest));
    }

    #[test]
    fn contexts_keep_digests_apart() {
        assert_ne!(Digest::of_domain("a", b"x"), Digest::of_domain("b", b"x"));
        assert_ne!(Digest::of_domain("a", b"x"), Digest::of(b"x"));
    }

    #[test]
    fn a_hashing_reader_and_writer_agree_with_the_plain_hash() {
        let mut reader = HashingReader::new(&b"some bytes"[..]);
        let mut writer = HashingWriter::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        assert_eq!(reader.finish(), (10, Digest::of(b"some bytes")));
        let (bytes, count, digest) = writer.finish();
        assert_eq!((bytes.as_slice(), count, digest), (&b"some bytes"[..], 10, Digest::of(b"some bytes")));
    }
}
