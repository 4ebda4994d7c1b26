//! Reading connections: for `history` in another process, for the fence and for `unchanged` in ours.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::ledger::{Error, census, delivery, failed, layout, revival, row, wal};
use crate::model::{Digest, Outcome, Record, TargetKey, Timestamp};

/// Which records to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only the newest so many of those that match.
    pub newest: Option<u64>,
    pub outcome: Option<Outcome>,
    /// Only intents received at this time or later.
    pub since: Option<Timestamp>,
}

/// Reads the ledger and never writes; works while a daemon runs, hangs or is dead.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// # Errors
    ///
    /// The file is missing, not readable, not ours or newer than this program.
    pub fn open(path: &Path) -> Result<Self, Error> {
        wal::check(path)?;
        Ok(Reader { connection: layout::open_for_reading(path)? })
    }

    /// The epoch that leads now.
    ///
    /// # Errors
    ///
    /// Reading failed or the row is damaged.
    pub fn epoch(&self) -> Result<u64, Error> {
        row::read_epoch(&self.connection)
    }

    /// The digests of the packages that were last finished for `keys` at `sink`, in their order; one
    /// look for all, since each look takes and lets go locks.
    ///
    /// # Errors
    ///
    /// Reading failed or a row is damaged.
    pub fn last_digests<'a>(
        &self,
        sink: &str,
        keys: impl Iterator<Item = &'a TargetKey>,
    ) -> Result<Vec<Option<Digest>>, Error> {
        let step = failed("read the last digests");
        let look = self.connection.unchecked_transaction().map_err(&step)?;
        let digests = keys.map(|key| delivery::read_target(&look, sink, key)).collect();
        look.finish().map_err(&step)?;
        digests
    }

    /// Calls `take` with each record that matches, oldest first, until it answers `false`. Rows are
    /// read as they are taken: a long history is never held in memory.
    ///
    /// # Errors
    ///
    /// Reading failed or a row is damaged; what came before it has been taken.
    pub fn history(
        &self,
        filter: &Filter,
        mut take: impl FnMut(Record) -> bool,
    ) -> Result<(), Error> {
        // One view of the ledger, so that what is counted is what is read.
        let view = self.connection.unchecked_transaction().map_err(failed("read the history"))?;
        let retried = census::check(&view)?.earlier > 0;
        let outcome = filter.outcome.map(Outcome::as_str);
        let since = filter.since.map_or(i64::MIN, |time| time.unix_ms);
        let matching =
            "(?1 IS NULL OR coalesce(o.outcome, 'pending') = ?1) AND i.received_at >= ?2";
        // The first row of the newest N is found by walking back over the primary key.
        let first: u64 = match filter.newest {
            None => 0,
            Some(0) => return Ok(()),
            Some(newest) => self
                .connection
                .query_row(
                    &format!(
                        "SELECT coalesce(min(seq), 0) FROM (SELECT i.seq AS seq FROM intents AS i \
                         LEFT JOIN outcomes AS o ON o.seq = i.seq WHERE {matching} \
                         ORDER BY i.seq DESC LIMIT ?3)"
                    ),
                    params![outcome, since, newest],
                    |row| row.get(0),
                )
                .map_err(failed("read the history"))?,
        };
        let query = format!("{} WHERE {matching} AND i.seq >= ?3 ORDER BY i.seq", select());
        let mut run = Run::new(filter.outcome.is_some() || filter.since.is_some(), first);
        self.each(&query, params![outcome, since, first], |mut record, open| {
            run.next(&record, open)?;
            if retried {
                record.earlier = revival::read(&view, record.seq)?;
            }
            Ok(take(record))
        })
    }

    /// Calls `take` with each record that has no outcome yet, oldest first, until it answers
    /// `false`; what it costs follows the work in flight and not the age of the ledger.
    ///
    /// # Errors
    ///
    /// As for [`Reader::history`].
    pub fn pending(&self, mut take: impl FnMut(Record) -> bool) -> Result<(), Error> {
        let query = format!(
            "{} WHERE i.seq IN (SELECT seq FROM open) AND o.seq IS NULL ORDER BY i.seq",
            select()
        );
        self.each(&query, [], |record, _| Ok(take(record)))
    }

    fn each(
        &self,
        query: &str,
        parameters: impl rusqlite::Params,
        mut take: impl FnMut(Record, bool) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let step = failed("read the history");
        let mut statement = self.connection.prepare_cached(query).map_err(&step)?;
        let mut rows = statement.query(parameters).map_err(&step)?;
        while let Some(found) = rows.next().map_err(&step)? {
            let open = found.get(row::COLUMNS).map_err(&step)?;
            if !take(row::read_intent(found)?.record, open)? {
                break;
            }
        }
        Ok(())
    }
}

fn select() -> String {
    format!(
        "SELECT {}, {}, EXISTS (SELECT 1 FROM open WHERE open.seq = i.seq) \
         FROM intents AS i LEFT JOIN outcomes AS o ON o.seq = i.seq",
        row::INTENT_COLUMNS,
        row::OUTCOME_COLUMNS
    )
}

/// The run of seqs as it is read: each one above the one before it, and none left out unless rows are
/// filtered.
struct Run {
    filtered: bool,
    /// The newest seq that was read, or the one before the first that is to come.
    last: u64,
}

impl Run {
    fn new(filtered: bool, first: u64) -> Self {
        Run { filtered, last: first.saturating_sub(1) }
    }

    fn next(&mut self, record: &Record, open: bool) -> Result<(), Error> {
        let (seq, last) = (record.seq.0, self.last);
        if seq <= last || (!self.filtered && seq != last + 1) {
            return Err(Error::Missing { what: format!("intent {last} is followed by {seq}") });
        }
        if record.outcome == Outcome::Pending && !open {
            return Err(Error::Missing {
                what: format!("intent {seq} has no outcome and is not open"),
            });
        }
        self.last = seq;
        Ok(())
    }
}
