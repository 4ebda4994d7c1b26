//! The rows of `meta`, `intents` and `outcomes`, each with its digest.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::entry::{Acceptance, Finished, OpenIntent, Verdict};
use crate::ledger::insert::insert;
use crate::ledger::{Error, failed};
use crate::model::{Code, Digest, FileName, Mode, Outcome, Record, Seq, Timestamp};

pub fn write_meta(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value, sum) VALUES (?1, ?2, ?3)")?
        .execute(params![key, value, sum(&[key.as_bytes(), value.as_bytes()])])?;
    Ok(())
}

pub fn read_meta(connection: &Connection, key: &str) -> Result<String, Error> {
    let found: Option<(String, Vec<u8>)> = connection
        .prepare_cached("SELECT value, sum FROM meta WHERE key = ?1")
        .and_then(|mut statement| {
            statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed("read the settings"))?;
    match found {
        Some((value, kept)) if kept == sum(&[key.as_bytes(), value.as_bytes()]) => Ok(value),
        _ => Err(Error::Damaged { row: format!("meta `{key}`") }),
    }
}

pub fn read_epoch(connection: &Connection) -> Result<u64, Error> {
    read_meta(connection, "epoch")?
        .parse()
        .map_err(|_| Error::Damaged { row: "meta `epoch`".to_owned() })
}

/// The columns of `intents`, in the order that the digest covers.
pub const INTENT_COLUMNS: &str = "i.seq, i.epoch, i.mode, i.received_at, i.file, i.claim, i.digest, i.source, i.intent, i.sum, \
     i.document";

/// The columns of `outcomes`, in the order that the digest covers.
pub const OUTCOME_COLUMNS: &str = "o.outcome, o.code, o.message, o.superseded_by, o.finished_at, o.archived_as, o.violations, \
     o.receipts, o.sum";

/// How many columns these are together.
pub const COLUMNS: usize = 20;

/// Inserts the rows of what is accepted, under these seqs.
pub fn insert_intents(
    connection: &Connection,
    epoch: u64,
    accepted: &[(Seq, &Acceptance)],
) -> rusqlite::Result<()> {
    let into = "INSERT INTO intents (seq, epoch, mode, received_at, file, claim, digest, source, \
                intent, document, sum)";
    insert(connection, into, 11, accepted, |(seq, acceptance), values| {
        let (document, intent, source) = match &acceptance.verdict {
            Verdict::Admitted { document, intent, source } => {
                (Some(&**document), Some(json(intent)), source.as_deref())
            }
            Verdict::Rejected { .. } => (None, None, None),
        };
        let digest = acceptance.digest.map(|digest| *digest.as_bytes());
        values.give(seq.0)?;
        values.give(epoch)?;
        values.give(acceptance.mode.as_str())?;
        values.give(acceptance.received_at.unix_ms)?;
        values.give(acceptance.file.as_bytes())?;
        values.give(acceptance.claim.as_deref())?;
        values.give(digest)?;
        values.give(source)?;
        values.give(intent.as_deref())?;
        values.give(document)?;
        values.give(sum(&[
            &seq.0.to_le_bytes(),
            &epoch.to_le_bytes(),
            acceptance.mode.as_str().as_bytes(),
            &acceptance.received_at.unix_ms.to_le_bytes(),
            acceptance.file.as_bytes(),
            acceptance.claim.as_deref().unwrap_or_default(),
            digest.as_ref().map_or(&[][..], |digest| digest),
            source.unwrap_or_default().as_bytes(),
            intent.as_deref().unwrap_or_default().as_bytes(),
            document.unwrap_or_default(),
        ]))
    })
}

/// Inserts the ends of intents.
pub fn insert_outcomes(
    connection: &Connection,
    ended: &[(Seq, &Finished)],
) -> rusqlite::Result<()> {
    let into = "INSERT INTO outcomes (seq, outcome, code, message, superseded_by, finished_at, \
                archived_as, violations, receipts, sum)";
    insert(connection, into, 10, ended, |(seq, finished), values| {
        let violations = json(&finished.violations);
        let receipts = json(&finished.receipts);
        let superseded_by = finished.superseded_by.map(|seq| seq.0);
        values.give(seq.0)?;
        values.give(finished.outcome.as_str())?;
        values.give(finished.code.as_str())?;
        values.give(&*finished.message)?;
        values.give(superseded_by)?;
        values.give(finished.finished_at.unix_ms)?;
        values.give(finished.archived_as.as_deref())?;
        values.give(&*violations)?;
        values.give(&*receipts)?;
        values.give(sum(&[
            &seq.0.to_le_bytes(),
            finished.outcome.as_str().as_bytes(),
            finished.code.as_str().as_bytes(),
            finished.message.as_bytes(),
            &superseded_by.unwrap_or_default().to_le_bytes(),
            &finished.finished_at.unix_ms.to_le_bytes(),
            finished.archived_as.as_deref().unwrap_or_default(),
            violations.as_bytes(),
            receipts.as_bytes(),
        ]))
    })
}

/// Reads a row of [`INTENT_COLUMNS`] followed by [`OUTCOME_COLUMNS`] (null while there is none).
pub fn read_intent(row: &Row<'_>) -> Result<OpenIntent, Error> {
    let step = failed("read an intent");
    let seq = Seq(row.get(0).map_err(&step)?);
    let damaged = || Error::Damaged { row: format!("intents {seq}") };
    let read = |row: &Row<'_>| -> rusqlite::Result<_> {
        let epoch: u64 = row.get(1)?;
        let mode: String = row.get(2)?;
        let received_at: i64 = row.get(3)?;
        let file: Vec<u8> = row.get(4)?;
        let claim: Option<Vec<u8>> = row.get(5)?;
        let digest: Option<Vec<u8>> = row.get(6)?;
        let source: Option<String> = row.get(7)?;
        let intent: Option<String> = row.get(8)?;
        let kept: Vec<u8> = row.get(9)?;
        let document: Option<Vec<u8>> = row.get(10)?;
        let whole = kept
            == sum(&[
                &seq.0.to_le_bytes(),
                &epoch.to_le_bytes(),
                mode.as_bytes(),
                &received_at.to_le_bytes(),
                &file,
                claim.as_deref().unwrap_or_default(),
                digest.as_deref().unwrap_or_default(),
                source.as_deref().unwrap_or_default().as_bytes(),
                intent.as_deref().unwrap_or_default().as_bytes(),
                document.as_deref().unwrap_or_default(),
            ]);
        Ok((whole, epoch, mode, received_at, file, claim, digest, source, intent, document))
    };
    let (whole, epoch, mode, received_at, file, claim, digest, source, intent, document) =
        read(row).map_err(&step)?;
    if !whole {
        return Err(damaged());
    }
    let finished = read_finished(seq, row)?;
    let received_at = Timestamp { unix_ms: received_at };
    let record = Record {
        seq,
        file: FileName::new(file),
        digest: digest.and_then(|bytes| Digest::from_bytes(&bytes)),
        source,
        received_at,
        finished_at: finished.as_ref().map(|finished| finished.finished_at),
        epoch,
        mode: if mode == Mode::Batch.as_str() { Mode::Batch } else { Mode::Run },
        intent: intent.map(|text| parsed(&text)).transpose().map_err(|()| damaged())?,
        outcome: finished.as_ref().map_or(Outcome::Pending, |finished| finished.outcome),
        code: finished.as_ref().map(|finished| finished.code),
        message: finished.as_ref().map(|finished| finished.message.clone()),
        superseded_by: finished.as_ref().and_then(|finished| finished.superseded_by),
        violations: finished.as_ref().map_or_else(Vec::new, |f| f.violations.clone()),
        receipts: finished.as_ref().map_or_else(Vec::new, |f| f.receipts.clone()),
        end_to_end_seconds: finished.as_ref().map(|f| f.finished_at.seconds_since(received_at)),
        earlier: Vec::new(),
    };
    Ok(OpenIntent { record, claim, document, finished, progress: Vec::new() })
}

fn read_finished(seq: Seq, row: &Row<'_>) -> Result<Option<Finished>, Error> {
    let step = failed("read an outcome");
    let damaged = || Error::Damaged { row: format!("outcomes {seq}") };
    let Some(outcome) = row.get::<_, Option<String>>(11).map_err(&step)? else { return Ok(None) };
    let read = |row: &Row<'_>| -> rusqlite::Result<_> {
        let code: String = row.get(12)?;
        let message: String = row.get(13)?;
        let superseded_by: Option<u64> = row.get(14)?;
        let finished_at: i64 = row.get(15)?;
        let archived_as: Option<Vec<u8>> = row.get(16)?;
        let violations: String = row.get(17)?;
        let receipts: String = row.get(18)?;
        let kept: Vec<u8> = row.get(19)?;
        let whole = kept
            == sum(&[
                &seq.0.to_le_bytes(),
                outcome.as_bytes(),
                code.as_bytes(),
                message.as_bytes(),
                &superseded_by.unwrap_or_default().to_le_bytes(),
                &finished_at.to_le_bytes(),
                archived_as.as_deref().unwrap_or_default(),
                violations.as_bytes(),
                receipts.as_bytes(),
            ]);
        Ok((whole, code, message, superseded_by, finished_at, archived_as, violations, receipts))
    };
    let (whole, code, message, superseded_by, finished_at, archived_as, violations, receipts) =
        read(row).map_err(&step)?;
    let (true, Some(outcome), Some(code)) = (whole, Outcome::parse(&outcome), Code::parse(&code))
    else {
        return Err(damaged());
    };
    Ok(Some(Finished {
        outcome,
        code,
        message,
        superseded_by: superseded_by.map(Seq),
        finished_at: Timestamp { unix_ms: finished_at },
        archived_as,
        violations: parsed(&violations).map_err(|()| damaged())?,
        receipts: parsed(&receipts).map_err(|()| damaged())?,
    }))
}

pub fn sum(parts: &[&[u8]]) -> [u8; 32] {
    *Digest::of_parts(parts.iter().copied()).as_bytes()
}

pub fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have string keys and no failing parts")
}

pub fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ()> {
    serde_json::from_str(text).map_err(|_| ())
}
