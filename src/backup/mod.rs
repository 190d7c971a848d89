//! What a backup is: manifests, archives, packages, and their verification.
//!
//! The order to read the files in: [`manifest`] (what a tree held), [`walk`], [`compare`], [`archive`] (a tree as a
//! `.tar.gz` of independent members) with its [`index`], [`read_back`] (the archive read again), [`tree_writer`] (a
//! tree made from entries), [`package`] and [`unpack`] (somebody else's archive, hostile until proven), [`verify`].

pub mod archive;
mod blocks;
mod codec;
pub mod compare;
mod gzip;
pub mod index;
mod intake;
pub mod manifest;
pub mod package;
mod parallel;
mod pour;
pub mod read_back;
mod tar_in;
mod tar_out;
pub mod tree_writer;
pub mod unpack;
pub mod verify;
pub mod walk;

pub use codec::FormatError;

/// Feeds arbitrary bytes to the decoders of manifest and index. What decodes must encode to the very same bytes.
///
/// # Panics
/// If a decoder accepts bytes that are not the one encoding of what they decode to.
pub fn fuzz_decode(bytes: &[u8]) {
    if let Ok(manifest) = manifest::Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes, "BUG: a manifest has two encodings");
    }
    if let Ok(index) = index::Index::decode(bytes) {
        assert_eq!(index.encode(), bytes, "BUG: an index has two encodings");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_fuzzer_is_decoded_or_refused_as_its_names_say() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/manifest");
        for name in ["manifest-awkward", "manifest-empty", "index-awkward", "index-empty"] {
            let bytes = std::fs::read(format!("{corpus}/{name}")).unwrap();
            let decoded = manifest::Manifest::decode(&bytes).is_ok() || index::Index::decode(&bytes).is_ok();
            assert!(decoded, "{name}");
        }
        for file in std::fs::read_dir(corpus).unwrap() {
            fuzz_decode(&std::fs::read(file.unwrap().path()).unwrap());
        }
        let too_new = std::fs::read(format!("{corpus}/manifest-too-new")).unwrap();
        assert_eq!(manifest::Manifest::decode(&too_new), Err(FormatError::TooNew { version: 9, known: 1 }));
    }
}
