//! The model world: a machine in memory, plans for it, a laboratory where accidents happen to kytx, and the invariants
//! that are checked after every event. The tests walk it exhaustively; `fuzz/` includes it and walks it at random.

pub mod accident;
pub mod invariants;
pub mod lab;
pub mod machine;
pub mod plans;
