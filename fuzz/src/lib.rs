//! What is fuzzed, as plain functions: `fuzz_targets/` hands them to libFuzzer, and `tests/corpus.rs` includes this
//! file and replays the committed corpora on stable Rust. They panic where a promise is broken.

#![allow(clippy::disallowed_methods, reason = "an input's scratch directory is made, damaged and looked at")]

mod decode;
mod guarded_fs;
mod journal;
mod package;
mod packed;
mod properties;
mod replay;
mod schedule;
mod scratch;
#[allow(dead_code, reason = "the tests of the model use all of it")]
#[path = "../../tests/model/world/mod.rs"]
mod world;

pub use decode::{decode, manifest};
pub use journal::journal;
pub use package::package;
pub use properties::properties;
pub use replay::replay;
pub use schedule::schedule;

/// One target: reads any bytes.
pub type Target = fn(&[u8]);

/// Every target and the name of its corpus in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("decode", decode),
    ("journal", journal),
    ("manifest", manifest),
    ("package", package),
    ("properties", properties),
    ("replay", replay),
    ("schedule", schedule),
];
