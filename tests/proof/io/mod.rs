//! Storage errors: calls that fail, full and broken disks, limits.
//!
//! The laws: a failed sync ends the process with 74 and is never repeated; a full disk refuses new
//! work, keeps old promises and goes on by itself; interrupted calls and short transfers have no
//! effect; whatever else fails is tried again or told, and nothing is lost.

pub mod disk;
mod full;
mod limits;
mod strace;
mod sweep;

use std::process::Command;

use crate::report::{Options, Row, Tally};

/// Rows of the matrix that are not here: B4 (a write that lies) cannot be seen before it is read back,
/// which the path does not do. B7 is in B3. B18 to B20 are about a damaged ledger. B21 is
/// `leader::a_broken_lock_is_not_a_held_one`, B22 is the conflict test of
/// `sinks::package`. B23 would need a command that compares packages with the ledger.
pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "B1", what: "a sync fails: 74, once, and recovery", run: sweep::syncs },
        Row {
            id: "B1.hands",
            what: "the same with both hands of the package sink at work",
            run: sweep::syncs_of_a_backlog,
        },
        Row { id: "B2", what: "fsyncgate: a sync fails, later ones succeed", run: full::fsyncgate },
        Row { id: "B3", what: "no room and no quota (B7) at every call", run: sweep::no_room },
        Row {
            id: "B3.log",
            what: "each write to the ledger's log fails, of commits and of room for them",
            run: sweep::log_writes,
        },
        Row { id: "B5", what: "a disk without a free byte, and then with", run: full::bytes },
        Row { id: "B6", what: "a disk without a free inode, and then with", run: full::inodes },
        Row {
            id: "B8",
            what: "spool or packages become read-only for a while",
            run: full::read_only,
        },
        Row { id: "B9", what: "the filesystem goes down", run: full::down },
        Row { id: "B10", what: "a disk hangs, or vanishes (B11)", run: hung },
        Row { id: "B12", what: "every sync takes long", run: limits::slow_syncs },
        Row { id: "B13", what: "every third call is interrupted", run: limits::interrupted },
        Row { id: "B14", what: "a rename is refused", run: sweep::renames },
        Row { id: "B15", what: "files may not grow past a limit", run: limits::file_size },
        Row { id: "B16", what: "no descriptor is left for a while", run: limits::descriptors },
        Row { id: "B16.each", what: "every other call fails", run: sweep::others },
        Row { id: "B17", what: "no memory can be mapped", run: sweep::memory },
        Row { id: "B24", what: "somebody else locks the ledger for a while", run: limits::locked },
        Row { id: "B25", what: "a claim cannot be read for a while", run: limits::unreadable },
        Row { id: "B26", what: "a file that cannot be moved", run: limits::immutable },
        Row { id: "B13.each", what: "each call is interrupted", run: sweep::interrupted },
    ]
}

/// B10, B11: a disk that stands still needs a block device whose server can be stopped.
fn hung(_: &Options) -> Tally {
    Tally::skipped("no qemu-storage-daemon serves a block device here that could be stopped")
}

/// Whether a program is installed.
fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output();
    found.is_ok_and(|found| found.status.success())
}
