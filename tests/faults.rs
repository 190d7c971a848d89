//! System calls that fail: each site of kytx's own threads, once and for good; a disk that is really full; a file
//! system that becomes read-only.
//!
//! Whatever failed, kytx says so in its four parts or goes on where it may, and once the cause is gone `resume` ends in
//! the new release and `abort` in the old one, byte for byte. On a disk that is still full `abort` works, too.
//! `KYTX_EXHAUSTIVE=1` tries each site both ways, once and for good, and `KYTX_EXHAUSTIVE=2` by each error that can befall
//! it. `KYTX_SEED` repeats a run, `KYTX_FAULT` picks what holds these words in its line of the list of regressions, and
//! `KYTX_MINUTES` ends a long run in good order.

#![allow(clippy::disallowed_methods, reason = "it looks into test machines")]
#![allow(
    clippy::print_stdout,
    reason = "a run of many minutes says its seed, its counts, and each violation at once"
)]

#[path = "faults/choice.rs"]
mod choice;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/grid.rs"]
mod grid;
#[path = "faults/message.rs"]
mod message;
#[path = "faults/scene.rs"]
mod scene;
mod support;

use support::census::Census;
use support::tracer::CAN_INJECT;

const LAYER: &str = "faults";

/// I4, I5, I11: whatever call fails, the operator is told, and both ways lead on.
#[test]
#[ignore = "4 of its 394 states are not judged yet: a look at the home or at the disk whose failure is not told"]
fn i11_whichever_call_fails_an_upgrade_ends_new_or_old_and_says_why() {
    let seed = support::census::seed();
    if !CAN_INJECT {
        let mut census = Census::new(LAYER, seed);
        "calls can be made to fail on x86_64 only".clone_into(&mut census.not_run);
        census.publish();
        return;
    }
    let (census, violations) = grid::run(LAYER, seed);
    census.publish();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n\n"));
}

/// I11: a disk that is full for real keeps nobody from going back.
#[test]
fn i11_on_a_disk_that_is_full_for_real_the_way_back_works() {
    disk::full_disk(support::census::seed());
}

/// I11: a file system that becomes read-only in the middle loses nothing.
#[test]
fn i11_a_file_system_that_becomes_read_only_loses_nothing() {
    disk::read_only(support::census::seed());
}
