//! The ledger is damaged, cut, lost or put back from a copy: it is noticed, or it makes no difference.

mod flips;
mod readers;
mod template;
mod whole;

use crate::report::Row;

pub fn rows() -> Vec<Row> {
    let row = |id, what, run| Row { id, what, run };
    vec![
        row(
            "B18",
            "a byte of the ledger flips while it is down: detected, or without effect",
            flips::anywhere,
        ),
        row(
            "B19",
            "the write-ahead log is cut at any length: detected, or without effect",
            flips::cut,
        ),
        row(
            "B19.room",
            "zeros behind the end of the write-ahead log, of any length: without effect",
            flips::room,
        ),
        row(
            "B20",
            "-wal, -shm, ledger deleted, or put back from a copy of an older epoch or the same one",
            whole::lost,
        ),
        row("A15", "a ledger of a newer version is refused and left as it is", whole::newer),
        row(
            "R",
            "history works as another user while the daemon runs, hangs and is dead",
            readers::another_user,
        ),
    ]
}
