//! Makes records durable, and notices if they are not.

use crate::txn::{Lsn, Record};

/// Where records become durable.
pub trait Journal {
    /// Appends a record and returns only once it is durable in the store and in the twin. After an error every
    /// further append is refused.
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError>;
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// An earlier append failed, so nobody can say what is durable; open it afresh.
    #[error("the journal refuses further records after an earlier error")]
    Poisoned,
}
