//! Bytes of kytx's own side files: little-endian, fixed-width, length-prefixed, one encoding a value.
//!
//! Input is hostile until its digest has been checked, and a fuzzer feeds it anyway: nothing here panics, and no
//! length that the input names makes it allocate more than the input itself could fill.

use crate::digest::Digest;
use crate::raw_path::RawPath;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The input ends too early.
    #[error("the file ends too early: {field} needs {needed} bytes, {left} are left")]
    Short {
        /// What was being read.
        field: &'static str,
        /// How many bytes it needs.
        needed: u64,
        /// How many are left.
        left: u64,
    },
    /// It is some other kind of file.
    #[error("the file is of another kind: it does not begin with `{expected}`")]
    WrongMagic {
        /// How it should begin.
        expected: &'static str,
    },
    /// It was written by a later kytx.
    #[error("the file has format version {version}; this kytx knows {known}")]
    TooNew {
        /// Its version.
        version: u16,
        /// The latest known.
        known: u16,
    },
    /// Something follows where nothing may.
    #[error("{bytes} bytes follow the end")]
    Trailing {
        /// How many.
        bytes: u64,
    },
    /// A value that is never written.
    #[error("{field} cannot be {value}")]
    BadValue {
        /// Which value.
        field: &'static str,
        /// What it is.
        value: u64,
    },
    /// A path that is not in order, or twice there.
    #[error("`{path}` is out of order")]
    OutOfOrder {
        /// The path.
        path: RawPath,
    },
}

/// Collects encoded values.
#[derive(Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Starts with a magic of eight bytes and a version.
    pub fn start(magic: &'static str, version: u16) -> Self {
        let mut writer = Self(magic.as_bytes().to_vec());
        writer.raw(&version.to_le_bytes());
        writer
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends a length and that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("BUG: a name or an attribute is shorter than 4 GiB"));
        self.raw(bytes);
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes encoded values off the front.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts behind a magic and a version that is known.
    pub fn start(bytes: &'a [u8], magic: &'static str, known: u16) -> Result<Self, FormatError> {
        let Some(rest) = bytes.strip_prefix(magic.as_bytes()) else {
            return Err(FormatError::WrongMagic { expected: magic });
        };
        let mut reader = Self(rest);
        let version = u16::from_le_bytes(reader.array("the version")?);
        match version {
            0 => Err(FormatError::BadValue { field: "the version", value: 0 }),
            version if version > known => Err(FormatError::TooNew { version, known }),
            _ => Ok(reader),
        }
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// Takes a fixed number of bytes.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let Some((head, rest)) = self.0.split_first_chunk::<N>() else { return Err(self.short(field, N)) };
        self.0 = rest;
        Ok(*head)
    }

    /// Takes one byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, FormatError> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Takes four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// Takes eight bytes.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// Takes a number of items, each of which fills at least `item_bytes`: a number that the rest of the input cannot
    /// hold is refused before anything is allocated for it.
    pub fn count(&mut self, field: &'static str, item_bytes: usize) -> Result<usize, FormatError> {
        let count = self.u64(field)?;
        if count > (self.left() / item_bytes) as u64 {
            let needed = count.saturating_mul(item_bytes as u64);
            return Err(FormatError::Short { field, needed, left: self.left() as u64 });
        }
        Ok(count as usize)
    }

    /// Takes a length and that many bytes.
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], FormatError> {
        let length = self.u32(field)? as usize;
        if length > self.0.len() {
            return Err(self.short(field, length));
        }
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(head)
    }

    /// Takes a path.
    pub fn path(&mut self, field: &'static str) -> Result<RawPath, FormatError> {
        Ok(RawPath::new(self.bytes(field)?))
    }

    /// Takes a digest.
    pub fn digest(&mut self, field: &'static str) -> Result<Digest, FormatError> {
        Ok(Digest::from_bytes(self.array(field)?))
    }

    /// Makes sure that nothing follows.
    pub fn end(self) -> Result<(), FormatError> {
        match self.0.len() {
            0 => Ok(()),
            bytes => Err(FormatError::Trailing { bytes: bytes as u64 }),
        }
    }

    fn short(&self, field: &'static str, needed: usize) -> FormatError {
        FormatError::Short { field, needed: needed as u64, left: self.0.len() as u64 }
    }
}
