//! The durable record of every intent: what was accepted, what became of it, what is still open.
//!
//! One SQLite file in WAL mode, written by one connection and read by any number, also in other
//! processes, whether the writer lives, hangs or is dead. The tables `intents` and `outcomes` only
//! ever grow; what recovery needs is in `open`, so its cost follows the work in flight and not the
//! age of the ledger.
//!
//! Invariants: a commit that returned is on the disk; each write re-reads the epoch in its own
//! transaction; each row carries a digest that is checked when it is read.
//! Not here: threads and grouping (`pipeline`), what a row means for the spool (`processor`).

mod delivery;
mod entry;
mod layout;
mod reader;
mod room;
mod row;
mod writer;

use std::path::PathBuf;

use crate::fault;

pub use entry::{Acceptance, ArchivePlan, Finish, Finished, OpenIntent, Progress, Verdict};
pub use reader::{Filter, Reader};
pub use writer::{Changes, Writer};

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
    #[error("ledger setting `{name}` is `{found}` where `{wanted}` was asked for")]
    Setting { name: &'static str, wanted: &'static str, found: String },
    #[error("{step} in the ledger")]
    Sql { step: &'static str, source: rusqlite::Error },
    #[error("no room to {step} in the ledger")]
    Full { step: &'static str, source: rusqlite::Error },
    #[error(
        "ledger row {row} is damaged: its digest does not match; restore the ledger from a backup"
    )]
    Damaged { row: String },
    #[error("another instance has taken the lead (epoch {current}, ours is {ours})")]
    Fenced { ours: u64, current: u64 },
}

impl Error {
    /// Whether nothing was written and the same call may succeed once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }
}

/// Classes an SQLite failure: a refused write may be tried again, anything else may not.
fn failed(step: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| match source.sqlite_error() {
        Some(error) if error.code == rusqlite::ErrorCode::DiskFull => Error::Full { step, source },
        // A quota (EDQUOT) arrives as a failed write; a failed sync has a code of its own.
        Some(error) if error.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE => {
            Error::Full { step, source }
        }
        Some(error)
            if error.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC
                && fault::is_mutant("ledger.retry-sync") =>
        {
            Error::Full { step, source }
        }
        _ => Error::Sql { step, source },
    }
}
