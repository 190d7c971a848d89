//! Replays every committed corpus file of `fuzz/` through the function that the fuzzer calls, on stable Rust, and
//! some random bytes besides.

#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// A test for each target, so that a failure says which.
macro_rules! replay {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let (_, target) = targets::TARGETS.iter().find(|(name, _)| *name == stringify!($name)).unwrap();
                every_corpus_file_passes(stringify!($name), *target);
                random_bytes_pass(*target);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            assert!(targets::TARGETS.iter().map(|(name, _)| *name).eq([$(stringify!($name)),*]));
        }
    };
}

replay!(decode journal manifest package properties replay schedule);

fn every_corpus_file_passes(name: &str, target: targets::Target) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    let size = format!("`{}` has {} files and {bytes} bytes", dir.display(), files.len());
    assert!((1..300).contains(&files.len()) && bytes < 300 << 10, "{size}");
    for file in &files {
        // Captured output names the file that broke a promise.
        println!("{}", file.display());
        target(&std::fs::read(file).unwrap());
    }
    println!("{size}");
}

fn random_bytes_pass(target: targets::Target) {
    let seed = [0x5a; 32];
    println!("seed: {seed:?}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner
        .run(&proptest::collection::vec(proptest::num::u8::ANY, 0..300), |bytes| {
            target(&bytes);
            Ok(())
        })
        .unwrap();
}
