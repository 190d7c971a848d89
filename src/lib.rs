//! kytx: a crash-safe transactional upgrader for Kyligence Enterprise and Apache Kylin.
//!
//! The order to read the files in:
//!
//! 1. [`txn`]: pure; what a transaction is, and what happens next.
//! 2. [`journal`]: makes records durable, and notices if they are not.
//! 3. [`engine`]: one loop; ask `txn`, write the journal, look, act.
//! 4. [`effect`]: the only code that touches the machine.
//! 5. [`mutate`]: the closed list of things kytx can do, each with probe, apply, undo.
//! 6. [`kyligence`], [`backup`], [`hadoop`]: what an installation, an archive and cube data are.
//! 7. [`cli`]: words; arguments, questions, progress, messages, exit codes.
//!
//! [`testbed`] is a stand-in for the product, for `kytx demo` and for the tests.

pub mod backup;
pub mod cli;
pub mod digest;
pub mod effect;
pub mod engine;
pub mod hadoop;
pub mod journal;
pub mod kyligence;
pub mod mutate;
pub mod raw_path;
pub mod state_dir;
pub mod testbed;
pub mod txn;
