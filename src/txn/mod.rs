//! What a transaction is, and what happens next: pure, without input, output, clock or store.
//!
//! A transaction is the fold of its records. [`Txn::admit`] is that fold, used live and in replay alike;
//! [`Txn::next`] is a total function from the folded state to the one thing to do; [`judge()`] says what an answer of
//! the machine means. Everything that decides whether an interrupted upgrade goes forward or back is in this folder,
//! and it imports nothing but `digest` and `raw_path`.

mod judge;
mod mutation;
mod plan;
mod record;
mod state;

pub use judge::{Observed, Verdict, judge};
pub use mutation::{CarryPass, CopyPass, CubeCopy, Mutation, Owner, SideFile};
pub use plan::{Stage, Step, StepId, plan_digest};
pub use record::{AbortReason, Direction, Header, Lsn, Outcome, Override, Record, TxnId};
pub use state::{Action, IllegalRecord, Phase, StepState, Txn};
