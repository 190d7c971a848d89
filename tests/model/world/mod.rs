//! The model world: a machine in memory, plans for it, a laboratory where accidents happen to kytx, and the invariants
//! that are checked after every event. The tests walk it exhaustively; `fuzz/` includes it and walks it at random.

#![allow(
    clippy::struct_excessive_bools,
    clippy::trivially_copy_pass_by_ref,
    reason = "a ledger is a table of marks"
)]
#![allow(
    clippy::match_same_arms,
    clippy::unnested_or_patterns,
    reason = "one arm a mutation or event, as in a table"
)]

pub mod accident;
pub mod invariants;
pub mod lab;
pub mod machine;
pub mod plans;
