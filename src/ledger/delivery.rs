//! The rows of `deliveries` and `targets`: how far each sink is, and what it last held.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::entry::Progress;
use crate::ledger::insert::insert;
use crate::ledger::row::{json, parsed, sum};
use crate::ledger::{Error, failed};
use crate::model::{Digest, Seq, TargetKey};

/// Keeps how far a sink is, and returns how many rows that has added.
pub fn write_progress(connection: &Connection, progress: &Progress) -> rusqlite::Result<usize> {
    let receipt = progress.receipt.as_ref().map(json);
    let replaced = connection
        .prepare_cached("DELETE FROM deliveries WHERE seq = ?1 AND sink = ?2")?
        .execute(params![progress.seq.0, progress.sink])?;
    let written = connection
        .prepare_cached(
            "INSERT INTO deliveries (seq, sink, attempts, spent_ms, step, receipt, sum) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            progress.seq.0,
            progress.sink,
            progress.attempts,
            progress.spent_ms,
            progress.step,
            receipt,
            progress_sum(progress, receipt.as_deref()),
        ])?;
    Ok(written.saturating_sub(replaced))
}

/// Notes what was last finished at sinks: `reached` has the intent, the sink, the target and the digest.
pub fn write_targets(
    connection: &Connection,
    reached: &[(Seq, &str, &TargetKey, &Digest)],
) -> rusqlite::Result<()> {
    let into = "INSERT OR REPLACE INTO targets (sink, intent_type, namespace, target, seq, digest, \
                sum)";
    insert(connection, into, 7, reached, |(seq, sink, key, digest), values| {
        values.give(sink)?;
        values.give(key.intent_type.as_str())?;
        values.give(&*key.namespace)?;
        values.give(&*key.target)?;
        values.give(seq.0)?;
        values.give(digest.as_bytes())?;
        values.give(target_sum(sink, key, *seq, digest.as_bytes()))
    })
}

pub fn read_target(
    connection: &Connection,
    sink: &str,
    key: &TargetKey,
) -> Result<Option<Digest>, Error> {
    Ok(target(connection, sink, key)?.map(|(_, digest)| digest))
}

fn target(
    connection: &Connection,
    sink: &str,
    key: &TargetKey,
) -> Result<Option<(Seq, Digest)>, Error> {
    let found: Option<(u64, Vec<u8>, Vec<u8>)> = connection
        .prepare_cached(
            "SELECT seq, digest, sum FROM targets \
             WHERE sink = ?1 AND intent_type = ?2 AND namespace = ?3 AND target = ?4",
        )
        .and_then(|mut statement| {
            statement
                .query_row(
                    params![sink, key.intent_type.as_str(), key.namespace, key.target],
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )
                .optional()
        })
        .map_err(failed("read the last digest of a target"))?;
    let Some((seq, digest, kept)) = found else { return Ok(None) };
    match Digest::from_bytes(&digest) {
        Some(known) if kept == target_sum(sink, key, Seq(seq), &digest) => {
            Ok(Some((Seq(seq), known)))
        }
        _ => Err(Error::Damaged { row: format!("targets `{key}` at `{sink}`") }),
    }
}

/// The newest intent that any sink holds of this target.
pub fn newest_at(connection: &Connection, key: &TargetKey) -> Result<Option<Seq>, Error> {
    let step = failed("look for newer intents");
    // From sink to sink by the primary key: there are few, and many targets each.
    let mut next = connection
        .prepare_cached("SELECT sink FROM targets WHERE sink > ?1 ORDER BY sink LIMIT 1")
        .map_err(&step)?;
    let (mut sink, mut newest) = (String::new(), None);
    while let Some(found) =
        next.query_row([&sink], |row| row.get::<_, String>(0)).optional().map_err(&step)?
    {
        sink = found;
        newest = newest.max(target(connection, &sink, key)?.map(|(seq, _)| seq));
    }
    Ok(newest)
}

pub fn read_progress(connection: &Connection, seq: Seq) -> Result<Vec<Progress>, Error> {
    let step = failed("read what was delivered");
    let damaged = || Error::Damaged { row: format!("deliveries {seq}") };
    let mut statement = connection
        .prepare_cached(
            "SELECT sink, attempts, spent_ms, step, receipt, sum FROM deliveries WHERE seq = ?1",
        )
        .map_err(&step)?;
    let mut rows = statement.query([seq.0]).map_err(&step)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(&step)? {
        let read = |row: &Row<'_>| {
            let receipt: Option<String> = row.get(4)?;
            let progress = Progress {
                seq,
                sink: row.get(0)?,
                attempts: row.get(1)?,
                spent_ms: row.get(2)?,
                step: row.get(3)?,
                receipt: None,
            };
            Ok((progress, receipt, row.get::<_, Vec<u8>>(5)?))
        };
        let (mut progress, receipt, kept) = read(row).map_err(&step)?;
        if kept != progress_sum(&progress, receipt.as_deref()) {
            return Err(damaged());
        }
        progress.receipt = receipt.map(|text| parsed(&text)).transpose().map_err(|()| damaged())?;
        all.push(progress);
    }
    Ok(all)
}

fn progress_sum(progress: &Progress, receipt: Option<&str>) -> [u8; 32] {
    sum(&[
        &progress.seq.0.to_le_bytes(),
        progress.sink.as_bytes(),
        &progress.attempts.to_le_bytes(),
        &progress.spent_ms.to_le_bytes(),
        progress.step.as_deref().unwrap_or_default().as_bytes(),
        receipt.unwrap_or_default().as_bytes(),
    ])
}

fn target_sum(sink: &str, key: &TargetKey, seq: Seq, digest: &[u8]) -> [u8; 32] {
    sum(&[
        sink.as_bytes(),
        key.intent_type.as_str().as_bytes(),
        key.namespace.as_bytes(),
        key.target.as_bytes(),
        &seq.0.to_le_bytes(),
        digest,
    ])
}
