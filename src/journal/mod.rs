//! Makes records durable, and notices if they are not.
//!
//! Every record is kept twice: in a sled store and in a plain file, its twin. An append returns only when both hold
//! it durably; an opening compares them and says what it had to repair. `journal-format.md` is the specification:
//! bytes, protocol, decision table, and the argument why no record that was acknowledged is lost.
//!
//! The order to read the files in: [`codec`] (frames), [`twin`], `sled`, [`decide`] (which of two readings is the
//! journal), [`store`] (create, open, append, retire), `ballast`.

mod ballast;
pub mod codec;
pub mod decide;
#[doc(hidden)]
pub mod samples;
mod sled;
pub mod store;
pub mod twin;

use std::io;
use std::path::{Path, PathBuf};

pub use ballast::BALLAST_BYTES;
pub use codec::{FRAME_LIMIT_BYTES, Frame, Head, TooLarge};
pub use sled::{SledFault, Table, Tables};
use store::store_path;
pub use store::{Opened, Repair, Store};
pub use twin::{TwinView, read};

use crate::raw_path::RawPath;
use crate::txn::{Lsn, Record};

/// Where records become durable.
pub trait Journal {
    /// Appends a record and returns only once it is durable in the store and in the twin. After an error every
    /// further append is refused.
    ///
    /// # Errors
    /// A record that is refused as [`JournalError::TooLarge`] was not written and poisons nothing. After any other
    /// error the record may be found at the next open, or not; it was never acknowledged.
    fn append(&mut self, record: &Record) -> Result<Lsn, JournalError>;
}

/// What can go wrong with a journal that is open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// An earlier append failed, so nobody can say what is durable; open it afresh.
    #[error("the journal refuses further records after an earlier error")]
    Poisoned,
    /// The record does not fit. Nothing was written.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The disk is full. On the way back the ballast, if there was one, has been released: opened afresh, the journal
    /// has room.
    #[error("the disk is full")]
    Full {
        /// How many bytes were set free for the next open; 0 on the way forward, and if that had been done before.
        released_bytes: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error("the journal's store failed")]
    Store(#[source] SledFault),
    /// The twin failed.
    #[error("cannot append to the journal's twin `{}`", RawPath::from(path.as_path()))]
    Twin {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why a journal cannot be created, opened, read or retired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none: neither store nor twin. Exit code 8.
    #[error("there is no journal in `{}`", RawPath::from(dir.as_path()))]
    NoJournal {
        /// The state directory.
        dir: PathBuf,
    },
    /// There is one already, which nothing may replace.
    #[error("there is a journal in `{}` already", RawPath::from(dir.as_path()))]
    Exists {
        /// The state directory.
        dir: PathBuf,
    },
    /// The transaction is not over. Nothing was moved.
    #[error("the transaction of the journal in `{}` is not over", RawPath::from(dir.as_path()))]
    NotEnded {
        /// The state directory.
        dir: PathBuf,
    },
    /// Another process has the store open, although kytx's own lock is held. Exit code 7.
    #[error("the journal in `{}` is open in another process", RawPath::from(dir.as_path()))]
    Busy {
        /// The state directory.
        dir: PathBuf,
    },
    /// Store and twin together do not give the journal. Nothing was touched. Exit code 9.
    #[error("the journal is damaged: {what}")]
    Damaged {
        /// What is wrong where.
        what: String,
    },
    /// Store and twin hold different records in one place. Nothing was touched. Exit code 9.
    #[error("the journal is damaged: store and twin hold different records in place {lsn}")]
    Conflict {
        /// The first such place.
        lsn: Lsn,
    },
    /// A newer kytx wrote it. Nothing was touched. Exit code 9.
    #[error(
        "the journal has format version {version} or content of a newer kytx; this one reads version {}",
        codec::VERSION
    )]
    TooNew {
        /// The version found.
        version: u8,
    },
    /// The first record is refused.
    #[error("cannot begin the journal")]
    Begin(#[source] TooLarge),
    /// The store failed. Exit code 9.
    #[error("the journal's store failed")]
    Store(#[source] SledFault),
    /// The file system refused. Exit code 9.
    #[error("cannot {doing} `{}`", RawPath::from(path.as_path()))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// Whether the journal is there and cannot be trusted or read: exit code 9.
    pub fn is_unreadable(&self) -> bool {
        !matches!(
            self,
            Self::NoJournal { .. }
                | Self::Exists { .. }
                | Self::NotEnded { .. }
                | Self::Busy { .. }
                | Self::Begin(_)
        )
    }

    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_owned(), source }
    }

    fn damaged(what: String) -> Self {
        Self::Damaged { what }
    }

    /// Whether the disk is full, the ballast's room included: nothing is wrong with the journal.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(SledFault::Io { source, .. }) | Self::Io { source, .. } => ballast::is_full(source),
            _ => false,
        }
    }
}

/// Whether the medium lost what it held (EIO, EBADMSG, EUCLEAN): damage, which the other place can cure. Any other
/// error (rights, too many open files) says nothing about the bytes and repairs nothing.
fn is_bad_medium(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 74 | 117))
}
