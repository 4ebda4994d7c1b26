//! How many rows there have to be: a row that is gone has no digest that could say so.
//!
//! `intents` is an unbroken run of seqs, which needs no count. What is open comes and goes: its rows
//! are counted in `meta`, under the digest of that row, in the commit that changes them.

use rusqlite::Connection;

use crate::ledger::{Error, failed, row};
use crate::model::Seq;

/// The row of `meta`.
pub const KEY: &str = "open";

/// A number of rows and the sum of their seqs, so that no row stands in for another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    rows: u64,
    seqs: u64,
}

impl Count {
    fn add(&mut self, seq: Seq) {
        self.rows = self.rows.wrapping_add(1);
        self.seqs = self.seqs.wrapping_add(seq.0);
    }

    fn take(&mut self, seq: Seq) {
        self.rows = self.rows.wrapping_sub(1);
        self.seqs = self.seqs.wrapping_sub(seq.0);
    }
}

/// What is in the tables of open work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Rows of `open`.
    open: Count,
    /// Those of them without an outcome.
    pending: Count,
    /// Rows of `deliveries`.
    deliveries: u64,
    /// Commits so far: tells an older copy of the ledger from a newer one.
    pub commits: u64,
    /// Rows of `earlier`: outcomes that `retry` has taken back. A ledger of format 2 counts none.
    pub earlier: u64,
}

impl Census {
    /// The count as it was committed.
    pub fn read(connection: &Connection) -> Result<Self, Error> {
        let text = row::read_meta(connection, KEY)?;
        let mut numbers = text.split(' ').map_while(|number| number.parse().ok());
        let mut next = || numbers.next().ok_or(Error::Damaged { row: format!("meta `{KEY}`") });
        Ok(Census {
            open: Count { rows: next()?, seqs: next()? },
            pending: Count { rows: next()?, seqs: next()? },
            deliveries: next()?,
            commits: next()?,
            earlier: next().unwrap_or(0),
        })
    }

    pub fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        row::write_meta(connection, KEY, &self.text())
    }

    fn text(&self) -> String {
        let Census { open, pending, deliveries, commits, earlier } = self;
        let (of_open, of_pending) = (open.seqs, pending.seqs);
        format!(
            "{} {of_open} {} {of_pending} {deliveries} {commits} {earlier}",
            open.rows, pending.rows
        )
    }

    pub fn accepted(&mut self, seq: Seq, pending: bool) {
        self.open.add(seq);
        if pending {
            self.pending.add(seq);
        }
    }

    pub fn finished(&mut self, seq: Seq, deliveries: usize) {
        self.pending.take(seq);
        self.deliveries = self.deliveries.wrapping_sub(deliveries as u64);
    }

    pub fn progressed(&mut self, new_rows: usize) {
        self.deliveries = self.deliveries.wrapping_add(new_rows as u64);
    }

    /// So many rows of `open` are gone, with this sum of their seqs.
    pub fn archived(&mut self, rows: u64, seqs: u64) {
        self.open.rows = self.open.rows.wrapping_sub(rows);
        self.open.seqs = self.open.seqs.wrapping_sub(seqs);
    }

    /// Whether there is any row of `deliveries`.
    pub fn has_deliveries(&self) -> bool {
        self.deliveries > 0
    }

    pub fn revived(&mut self, seq: Seq, deliveries: usize) {
        self.open.add(seq);
        self.pending.add(seq);
        self.deliveries = self.deliveries.wrapping_add(deliveries as u64);
        self.earlier += 1;
    }
}

/// Checks that no row of open work is missing or doubled, and that `intents` ends where it should. What
/// it costs follows the work in flight, and what was ever retried, and not the age of the ledger.
///
/// # Errors
///
/// A row is missing, or reading failed.
pub fn check(connection: &Connection) -> Result<Census, Error> {
    let step = failed("count what is open");
    let count = |query: &str| {
        connection.query_row(query, [], |row| Ok(Count { rows: row.get(0)?, seqs: row.get(1)? }))
    };
    let kept = Census::read(connection)?;
    let found = Census {
        commits: kept.commits,
        earlier: match kept.earlier {
            // Nothing is looked for that was never written; so a ledger of format 2 can be read.
            0 => 0,
            _ => connection
                .query_row("SELECT count(*) FROM earlier", [], |row| row.get(0))
                .map_err(&step)?,
        },
        open: count("SELECT count(*), coalesce(sum(seq), 0) FROM open").map_err(&step)?,
        pending: count(
            "SELECT count(*), coalesce(sum(open.seq), 0) FROM open \
             LEFT JOIN outcomes AS o ON o.seq = open.seq WHERE o.seq IS NULL",
        )
        .map_err(&step)?,
        deliveries: connection
            .query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0))
            .map_err(&step)?,
    };
    if found != kept {
        let (kept, found) = (kept.text(), found.text());
        return Err(Error::Missing {
            what: format!("what is open does not count up ({found} instead of {kept})"),
        });
    }
    let (newest, given) = (newest(connection)?, given(connection)?);
    if newest != given {
        return Err(Error::Missing { what: format!("intents end at {newest} instead of {given}") });
    }
    Ok(kept)
}

/// The newest seq that there is.
fn newest(connection: &Connection) -> Result<Seq, Error> {
    connection
        .query_row("SELECT coalesce(max(seq), 0) FROM intents", [], |row| row.get(0).map(Seq))
        .map_err(failed("look for the newest intent"))
}

/// The newest seq that was ever given.
pub fn given(connection: &Connection) -> Result<Seq, Error> {
    connection
        .prepare_cached(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'intents'), 0)",
        )
        .and_then(|mut statement| statement.query_row([], |row| row.get(0).map(Seq)))
        .map_err(failed("look for the newest seq"))
}
