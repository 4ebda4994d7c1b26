//! The one writing connection: group commits under the epoch fence.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::fault;
use crate::ledger::census::{self, Census};
use crate::ledger::entry::{Acceptance, Finish, Finished, OpenIntent, Progress, Verdict};
use crate::ledger::revival::{self, Revival};
use crate::ledger::room::Room;
use crate::ledger::{Error, delivery, failed, layout, row, wal};
use crate::model::{Seq, Timestamp};

/// Copying pages back from the WAL starts at this much, off the path of any intent; it keeps the
/// WAL some tens of MiB at most and recovery after a crash short.
const CHECKPOINT_BYTES: usize = 16 << 20;

/// What a row costs in the WAL besides the document: pages of four tables, rounded up.
const ROW_BYTES: usize = 2048;

/// What a commit costs besides its rows: the pages of the counts and of the trees' tops, measured at
/// 10 KiB for a lone intent's and rounded up.
const COMMIT_BYTES: usize = 16 << 10;

/// What one commit writes. All of it, or nothing.
#[derive(Debug, Default)]
pub struct Changes {
    /// In claim order: they get rising seqs in this order.
    pub accept: Vec<Acceptance>,
    pub progress: Vec<Progress>,
    pub finish: Vec<Finish>,
    /// Intents whose archive is on the disk.
    pub archived: Vec<Seq>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.accept.is_empty()
            && self.progress.is_empty()
            && self.finish.is_empty()
            && self.archived.is_empty()
    }
}

/// Writes the ledger; there is one in a process, and only the leader's writes succeed.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    id: String,
    epoch: u64,
    commits: u64,
    /// Upper bound of what the WAL has grown by since pages were last copied back.
    wal_bytes: usize,
    room: Room,
}

impl Writer {
    /// Opens or creates the ledger. The writer leads nothing until [`Writer::raise_epoch`].
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is not ours, is newer than this program, or is damaged.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let end = wal::check(path)?;
        let connection = layout::open_for_writing(path)?;
        let id = row::read_meta(&connection, "ledger_id")?;
        let epoch = row::read_epoch(&connection)?;
        // What a killed process left in the WAL counts, so that it is copied back when it is much.
        let mut wal = path.to_owned().into_os_string();
        wal.push("-wal");
        let wal_bytes = std::fs::metadata(wal).map_or(0, |metadata| metadata.len() as usize);
        let commits = Census::read(&connection)?.commits;
        let writer = Writer { connection, id, epoch, commits, wal_bytes, room: Room::new(path) };
        if end == wal::End::Torn {
            writer.empty_log()?;
        }
        Ok(writer)
    }

    /// Tells this ledger from every other one, for ever.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The epoch that the ledger was opened at, or that this writer leads in.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many commits the ledger has.
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Takes the lead: from the moment this returns, every older leader's write fails. The new epoch
    /// is above the ledger's and above `floor`, the newest one that the spool has seen.
    ///
    /// # Errors
    ///
    /// The commit failed; the old epoch stands.
    pub fn raise_epoch(&mut self, floor: u64) -> Result<u64, Error> {
        let step = failed("raise the epoch");
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(&step)?;
        let epoch = row::read_epoch(&transaction)?.max(floor) + 1;
        row::write_meta(&transaction, "epoch", &epoch.to_string()).map_err(&step)?;
        fault::step("ledger.epoch", || transaction.commit()).map_err(&step)?;
        self.epoch = epoch;
        Ok(epoch)
    }

    /// Writes `changes` in one durable commit and returns the seqs of what was accepted, in order.
    ///
    /// # Errors
    ///
    /// Nothing was written. [`Error::Full`] may be tried again when there is room;
    /// [`Error::Fenced`] says that another instance leads; after any other error the process must
    /// stop, since what a failed sync left on the disk is unknown.
    pub fn commit(&mut self, changes: &Changes) -> Result<Vec<Seq>, Error> {
        let ours = self.epoch;
        let transaction = begin(&mut self.connection, ours)?;
        self.room.extend();
        if fault::is_mutant("ledger.seq") && !changes.accept.is_empty() {
            forget_newest(&transaction).map_err(failed("accept"))?;
        }
        let seqs = write(&transaction, ours, changes)?;
        fault::step("ledger.commit", || transaction.commit()).map_err(failed("commit"))?;
        self.commits += 1;
        self.room.look();
        let documents = changes.accept.iter().map(|acceptance| match &acceptance.verdict {
            Verdict::Admitted { document, .. } => document.len(),
            Verdict::Rejected { .. } => 0,
        });
        let rows = changes.accept.len() + changes.finish.len() + changes.progress.len() + 1;
        self.wal_bytes += documents.sum::<usize>() + rows * ROW_BYTES + COMMIT_BYTES;
        Ok(seqs)
    }

    /// Takes back the outcomes of those of `seqs` that may be retried, in one durable commit, and says
    /// of each what became of it. A request that was carried out before changes nothing and gets the
    /// same answers. `None`: one of them is not archived yet; nothing was written, ask again.
    ///
    /// # Errors
    ///
    /// As for [`Writer::commit`].
    pub fn revive(
        &mut self,
        request: &str,
        seqs: &[Seq],
        at: Timestamp,
    ) -> Result<Option<Revival>, Error> {
        let transaction = begin(&mut self.connection, self.epoch)?;
        let Some(revival) = revival::revive(&transaction, request, seqs, at)? else {
            return Ok(None);
        };
        if revival.revived.is_empty() {
            return Ok(Some(revival));
        }
        fault::step("retry.commit", || transaction.commit()).map_err(failed("commit"))?;
        self.commits += 1;
        self.wal_bytes += revival.revived.len() * ROW_BYTES + COMMIT_BYTES;
        Ok(Some(revival))
    }

    /// Copies pages from the WAL back into the file when enough have gathered. Never waits for a
    /// reader; call it between commits, when nobody waits for an answer.
    ///
    /// # Errors
    ///
    /// Reading or syncing failed; the process must stop. A full disk is no error here.
    pub fn tidy(&mut self) -> Result<(), Error> {
        if self.wal_bytes < CHECKPOINT_BYTES {
            return Ok(());
        }
        match self.checkpoint("PASSIVE") {
            // Everything is safe in the WAL; it only stays longer until there is room again.
            Err(error) if error.is_full() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.wal_bytes = 0;
                Ok(())
            }
        }
    }

    /// Empties the WAL and closes. `-wal` and `-shm` stay, for readers that may not create them.
    ///
    /// # Errors
    ///
    /// As for [`Writer::tidy`]; everything committed is safe all the same.
    pub fn close(self) -> Result<(), Error> {
        self.empty_log()?;
        fault::step("ledger.close", || self.connection.close().map_err(|(_, source)| source))
            .map_err(failed("close"))
    }

    /// Copies everything back and cuts the log. A reader or a full disk in the way leaves it as it is.
    fn empty_log(&self) -> Result<(), Error> {
        match self.checkpoint("TRUNCATE") {
            Err(error) if !error.is_full() => Err(error),
            _ => Ok(()),
        }
    }

    fn checkpoint(&self, mode: &str) -> Result<(), Error> {
        // Busy (a reader is in the way) is no error: what is left is copied the next time.
        let pragma = format!("PRAGMA wal_checkpoint({mode})");
        fault::step("ledger.checkpoint", || self.connection.query_row(&pragma, [], |_| Ok(())))
            .map_err(failed("copy back the write-ahead log"))
    }

    /// All intents that are not archived yet, oldest first, with what is known of them.
    ///
    /// # Errors
    ///
    /// Reading failed or a row is damaged.
    pub fn open_intents(&self) -> Result<Vec<OpenIntent>, Error> {
        census::check(&self.connection)?;
        let step = failed("read what is open");
        // LEFT: a row of `intents` that cannot be found is damage, and not one open intent less.
        let query = format!(
            "SELECT {}, {} FROM open LEFT JOIN intents AS i ON i.seq = open.seq \
             LEFT JOIN outcomes AS o ON o.seq = open.seq ORDER BY open.seq",
            row::INTENT_COLUMNS,
            row::OUTCOME_COLUMNS
        );
        let mut statement = self.connection.prepare(&query).map_err(&step)?;
        let mut rows = statement.query([]).map_err(&step)?;
        let mut all = Vec::new();
        while let Some(found) = rows.next().map_err(&step)? {
            let mut intent = row::read_intent(found)?;
            intent.progress = delivery::read_progress(&self.connection, intent.record.seq)?;
            intent.record.earlier = revival::read(&self.connection, intent.record.seq)?;
            all.push(intent);
        }
        Ok(all)
    }
}

/// Begins a transaction that only the leader of this epoch gets.
fn begin(connection: &mut Connection, ours: u64) -> Result<Transaction<'_>, Error> {
    let transaction = fault::step("ledger.begin", || {
        connection.transaction_with_behavior(TransactionBehavior::Immediate)
    })
    .map_err(failed("begin"))?;
    fault::guard("ledger.fence", || match row::read_epoch(&transaction)? {
        current if current == ours => Ok(()),
        current => Err(Error::Fenced { ours, current }),
    })?;
    Ok(transaction)
}

/// Writes all changes into the open transaction, and counts what is open afterwards.
fn write(connection: &Connection, epoch: u64, changes: &Changes) -> Result<Vec<Seq>, Error> {
    let mut census = Census::read(connection)?;
    census.commits += 1;
    let mut seqs = Vec::new();
    if !changes.accept.is_empty() {
        let before = census::given(connection)?;
        seqs.extend((before.0 + 1..).map(Seq).take(changes.accept.len()));
        let accepted: Vec<_> = seqs.iter().copied().zip(&changes.accept).collect();
        fault::step("ledger.accept", || accept(connection, epoch, before, &accepted))
            .map_err(failed("accept"))?;
        for (seq, Acceptance { verdict, .. }) in accepted {
            census.accepted(seq, matches!(verdict, Verdict::Admitted { .. }));
        }
    }
    for progress in &changes.progress {
        let added =
            fault::step("ledger.progress", || delivery::write_progress(connection, progress));
        census.progressed(added.map_err(failed("keep progress"))?);
    }
    if !changes.finish.is_empty() {
        fault::step("ledger.finish", || end(connection, &changes.finish, &mut census))
            .map_err(failed("finish"))?;
    }
    if !changes.archived.is_empty() {
        let closed = fault::step("ledger.archived", || close(connection, &changes.archived));
        let (rows, sum) = closed.map_err(failed("note the archive"))?;
        census.archived(rows, sum);
    }
    census.write(connection).map_err(failed("count what is open"))?;
    Ok(seqs)
}

/// Writes what is accepted, after the intent `before`; what is rejected ends with it.
fn accept(
    connection: &Connection,
    epoch: u64,
    before: Seq,
    accepted: &[(Seq, &Acceptance)],
) -> rusqlite::Result<()> {
    row::insert_intents(connection, epoch, accepted)?;
    let rejected = accepted.iter().filter_map(|(seq, acceptance)| match &acceptance.verdict {
        Verdict::Admitted { .. } => None,
        Verdict::Rejected { rejection, archive } => {
            let at = acceptance.received_at;
            Some((*seq, Finished::rejected(*seq, rejection, archive.as_ref(), at)))
        }
    });
    let rejected: Vec<(Seq, Finished)> = rejected.collect();
    let ended: Vec<_> = rejected.iter().map(|(seq, finished)| (*seq, finished)).collect();
    row::insert_outcomes(connection, &ended)?;
    // One statement for all: they are the end of `intents`.
    connection
        .prepare_cached("INSERT INTO open (seq) SELECT seq FROM intents WHERE seq > ?1")?
        .execute([before.0])?;
    Ok(())
}

/// Ends intents; what was kept of their deliveries goes.
fn end(connection: &Connection, finishes: &[Finish], census: &mut Census) -> rusqlite::Result<()> {
    let ended: Vec<_> = finishes.iter().map(|finish| (finish.seq, &finish.finished)).collect();
    row::insert_outcomes(connection, &ended)?;
    let mut reached = Vec::with_capacity(finishes.len());
    for finish in finishes {
        for (sink, key, digest) in &finish.reached {
            reached.push((finish.seq, &**sink, &**key, digest));
        }
    }
    delivery::write_targets(connection, &reached)?;
    let mut deliveries = connection.prepare_cached("DELETE FROM deliveries WHERE seq = ?1")?;
    for Finish { seq, .. } in finishes {
        // As a rule nothing was kept of anything, and the count says so.
        let removed = if census.has_deliveries() { deliveries.execute([seq.0])? } else { 0 };
        census.finished(*seq, removed);
    }
    Ok(())
}

/// Takes what is archived out of `open`; how many rows that were, and the sum of their seqs. They come
/// in runs, and a run costs little more than one of them.
fn close(connection: &Connection, archived: &[Seq]) -> rusqlite::Result<(u64, u64)> {
    let mut count = connection.prepare_cached(
        "SELECT count(*), coalesce(sum(seq), 0) FROM open WHERE seq BETWEEN ?1 AND ?2",
    )?;
    let mut delete = connection.prepare_cached("DELETE FROM open WHERE seq BETWEEN ?1 AND ?2")?;
    let mut seqs: Vec<u64> = archived.iter().map(|seq| seq.0).collect();
    seqs.sort_unstable();
    let (mut rows, mut sum) = (0, 0_u64);
    for run in seqs.chunk_by(|one, next| next - one <= 1) {
        let ends = [run[0], run[run.len() - 1]];
        let found: (u64, u64) = count.query_row(ends, |row| Ok((row.get(0)?, row.get(1)?)))?;
        delete.execute(ends)?;
        rows += found.0;
        sum = sum.wrapping_add(found.1);
    }
    Ok((rows, sum))
}

/// What the mutant does that gives a seq away twice.
fn forget_newest(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM open WHERE seq = (SELECT max(seq) FROM intents);
         DELETE FROM outcomes WHERE seq = (SELECT max(seq) FROM intents);
         DELETE FROM intents WHERE seq = (SELECT max(seq) FROM intents);
         UPDATE sqlite_sequence SET seq = max(seq - 1, 0);",
    )
}
