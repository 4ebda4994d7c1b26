//! Storage errors: calls that fail, full and broken disks, limits.
//!
//! The laws: a failed sync ends the process with 74 and is never repeated; a full disk refuses new
//! work, keeps old promises and goes on by itself; interrupted calls and short transfers have no
//! effect; whatever else fails is tried again or told, and nothing is lost.

mod strace;
mod sweep;

use std::process::Command;

use crate::report::Row;

pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "B1", what: "a sync fails: 74, once, and recovery", run: sweep::syncs },
        Row { id: "B3", what: "no room and no quota (B7) at every call", run: sweep::no_room },
        Row { id: "B14", what: "a rename is refused", run: sweep::renames },
        Row { id: "B16.each", what: "every other call fails", run: sweep::others },
        Row { id: "B17", what: "no memory can be mapped", run: sweep::memory },
        Row { id: "B13.each", what: "each call is interrupted", run: sweep::interrupted },
    ]
}

/// Whether a program is installed.
fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output();
    found.is_ok_and(|found| found.status.success())
}
