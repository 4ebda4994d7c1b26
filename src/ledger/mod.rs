//! The durable record of every intent: what was accepted, what became of it, what is still open.
//!
//! One SQLite file in WAL mode, written by one connection and read by any number, also in other
//! processes, whether the writer lives, hangs or is dead. The table `intents` only ever grows, and so
//! does `outcomes`, but for an outcome that `retry` takes back, which moves to `earlier`. What recovery
//! needs is in `open`, so its cost follows the work in flight and not the age of the ledger.
//!
//! Invariants: a commit that returned is on the disk; each write re-reads the epoch in its own
//! transaction; each row carries a digest of its key and its content that is checked when it is read; a
//! row that is gone is missed.
//! Not here: threads and grouping (`pipeline`), what a row means for the spool (`processor`).

mod census;
mod delivery;
mod entry;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod insert;
mod layout;
mod reader;
mod revival;
mod room;
mod row;
mod wal;
mod writer;

use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::fault;

pub use entry::{Acceptance, ArchivePlan, Finish, Finished, OpenIntent, Progress, Verdict};
pub use reader::{Filter, Reader};
pub use revival::Revival;
pub use writer::{Changes, Writer};

/// What to do about a ledger that cannot be trusted.
const REMEDY: &str = "put the state directory back from a backup, or move it away and start once with \
                      --accept-restored-ledger, which begins a new history";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("create ledger file `{path}`")]
    Create { path: PathBuf, source: std::io::Error },
    #[error("open ledger `{path}`")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error("`{path}` is no ledger of intentd (application id {found:#x})")]
    Foreign { path: PathBuf, found: i32 },
    #[error(
        "ledger `{path}` was written by a newer intentd (format {found}, this one knows {known})"
    )]
    Newer { path: PathBuf, found: i32, known: i32 },
    #[error(
        "ledger `{path}` has format {found} of a version before the first release, this one knows \
         {known}; {REMEDY}"
    )]
    Older { path: PathBuf, found: i32, known: i32 },
    #[error("ledger setting `{name}` is `{found}` where `{wanted}` was asked for")]
    Setting { name: &'static str, wanted: &'static str, found: String },
    #[error("{step} in the ledger")]
    Sql { step: &'static str, source: rusqlite::Error },
    #[error("no room to {step} in the ledger")]
    Full { step: &'static str, source: rusqlite::Error },
    #[error(
        "another process holds the ledger, so that we cannot {step}; end that process (`fuser` on \
         ledger.db names it; it may be an intentd that stands still), then start again"
    )]
    Busy { step: &'static str, source: rusqlite::Error },
    #[error("the ledger's file is damaged: cannot {step}; {REMEDY}")]
    Corrupt { step: &'static str, source: rusqlite::Error },
    #[error("the ledger is damaged: {row} does not match its digest; {REMEDY}")]
    Damaged { row: String },
    #[error("the ledger is damaged: {what}; {REMEDY}")]
    Missing { what: String },
    #[error("another instance has taken the lead (epoch {current}, ours is {ours})")]
    Fenced { ours: u64, current: u64 },
}

impl Error {
    /// Whether nothing was written and the same call may succeed once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }
}

/// Failures of writes that need room.
const GROWTH: [i32; 2] = [rusqlite::ffi::SQLITE_IOERR_WRITE, rusqlite::ffi::SQLITE_IOERR_SHMSIZE];

/// Classes an SQLite failure: a refused write may be tried again, anything else may not.
fn failed(step: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| match source.sqlite_error() {
        Some(error) if error.code == ErrorCode::DiskFull => Error::Full { step, source },
        // A quota (EDQUOT) arrives as a failed write; a failed sync has a code of its own.
        // The index of the write-ahead log, too, grows by writing.
        Some(error) if GROWTH.contains(&error.extended_code) => Error::Full { step, source },
        Some(error)
            if error.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC
                && fault::is_mutant("ledger.retry-sync") =>
        {
            Error::Full { step, source }
        }
        Some(error) if error.code == ErrorCode::DatabaseBusy => Error::Busy { step, source },
        _ if is_damage(&source) => Error::Corrupt { step, source },
        _ => Error::Sql { step, source },
    }
}

/// Whether the file does not say what we wrote: statements and types are ours, so one that is refused
/// or a value of another type comes from the file as well.
fn is_damage(source: &rusqlite::Error) -> bool {
    use rusqlite::Error as Sqlite;
    match source {
        Sqlite::SqliteFailure(error, _) => matches!(
            error.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        Sqlite::InvalidColumnType(..)
        | Sqlite::FromSqlConversionFailure(..)
        | Sqlite::IntegralValueOutOfRange(..)
        | Sqlite::Utf8Error(..)
        | Sqlite::SqlInputError { .. } => true,
        _ => false,
    }
}
