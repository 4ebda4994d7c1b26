//! Taking the outcome of a parked intent back: when that is right, and how it is written.
//!
//! The row of `outcomes` moves to `earlier`, where `history` goes on to show it; the intent is open
//! again, with the receipts of the sinks that had confirmed and nothing else kept of its deliveries;
//! a receipt is not kept where a newer intent, parked since, may have undone what it confirms.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use crate::ledger::census::Census;
use crate::ledger::entry::{OpenIntent, Progress};
use crate::ledger::row::{self, json, parsed, sum};
use crate::ledger::{Error, delivery, failed};
use crate::model::{Code, Earlier, Outcome, Receipt, Retried, Seq, TargetKey, Timestamp};

/// What came of a request.
#[derive(Debug, Default)]
pub struct Revival {
    /// One for each seq of the request, rising.
    pub answers: Vec<Retried>,
    /// What is pending again, oldest first: its document is still in `failed/`.
    pub revived: Vec<OpenIntent>,
}

/// What the ledger knows of an intent that is to be retried.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    outcome: Outcome,
    superseded_by: Option<Seq>,
    /// It is in `open`: pending, or finished and perhaps not archived.
    open: bool,
    /// This very request has taken back an outcome with this code before.
    done: Option<Code>,
    newer: Option<Newer>,
}

/// An intent that would be overtaken by the retried one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newer {
    /// At one of its sinks at least.
    Delivered(Seq),
    Pending(Seq),
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Retry,
    /// The request was carried out before: say it again.
    Done(Code),
    /// Its document is on the way to the archive: ask again.
    NotYet,
    Refuse(String),
}

fn decide(facts: Option<&Facts>) -> Decision {
    let refuse = |why: &str| Decision::Refuse(format!("not retried: {why}"));
    let Some(facts) = facts else { return refuse("there is no such intent") };
    if let Some(code) = facts.done {
        return Decision::Done(code);
    }
    match (facts.outcome, facts.newer) {
        (Outcome::Pending, _) => refuse("it is pending already"),
        (Outcome::Delivered | Outcome::Unchanged, _) => {
            refuse(&format!("it is {}", facts.outcome.as_str()))
        }
        (Outcome::Rejected, _) => refuse("it was rejected; mend the file and drop it again"),
        (Outcome::Superseded, _) => match facts.superseded_by {
            Some(by) => refuse(&format!("intent {by}, which is newer, has superseded it")),
            None => refuse("a newer intent has superseded it"),
        },
        (Outcome::Parked, Some(Newer::Delivered(seq))) => {
            refuse(&format!("intent {seq}, which is newer, was delivered on its target"))
        }
        (Outcome::Parked, Some(Newer::Pending(seq))) => {
            refuse(&format!("intent {seq}, which is newer, is pending on its target"))
        }
        (Outcome::Parked, None) if facts.open => Decision::NotYet,
        (Outcome::Parked, None) => Decision::Retry,
    }
}

/// Takes back what may be taken back of `seqs` in the open transaction; each is answered. `None` when
/// one of them has to be archived first: then the transaction must not be committed.
pub fn revive(
    connection: &Connection,
    request: &str,
    seqs: &[Seq],
    at: Timestamp,
) -> Result<Option<Revival>, Error> {
    let mut census = Census::read(connection)?;
    census.commits += 1;
    let mut pending = newest_pending(connection)?;
    let tried = newest_tried(connection, seqs)?;
    let mut revival = Revival::default();
    let mut seqs = seqs.to_vec();
    seqs.sort_unstable();
    seqs.dedup();
    // Rising, so that of two that are parked on one target the older one is not refused for the other.
    for seq in seqs {
        let found = find(connection, seq)?;
        let key =
            found.as_ref().and_then(|found| found.intent.record.intent.as_ref()?.key().into());
        let facts = match &found {
            Some(found) => Some(Facts {
                outcome: found.intent.record.outcome,
                superseded_by: found.intent.record.superseded_by,
                open: found.open,
                done: done(found, request),
                newer: newer(connection, &pending, seq, key.as_ref())?,
            }),
            None => None,
        };
        let code = match (decide(facts.as_ref()), found) {
            (Decision::NotYet, _) => return Ok(None),
            (Decision::Done(code), _) => code,
            (Decision::Retry, Some(found)) => {
                let is_undone = |sink: &str| {
                    let at_sink = key.as_ref().and_then(|key| tried.get(key)?.get(sink));
                    at_sink.is_some_and(|newest| *newest > seq)
                };
                let (intent, earlier) =
                    take_back(connection, found.intent, request, at, is_undone)?;
                census.revived(seq, intent.progress.len());
                pending.extend(key.map(|key| (key, seq)));
                revival.revived.push(intent);
                earlier
            }
            (Decision::Retry, None) => return Err(gone(seq)),
            (Decision::Refuse(message), _) => {
                revival.answers.push(Retried { seq, retried: false, code: None, message });
                continue;
            }
        };
        let message = format!("pending again (was parked: {code})");
        revival.answers.push(Retried { seq, retried: true, code: Some(code), message });
    }
    census.write(connection).map_err(failed("count what is open"))?;
    Ok(Some(revival))
}

/// An intent, and whether it is in `open`.
struct Found {
    intent: OpenIntent,
    open: bool,
    /// Which request has taken back each of its earlier outcomes.
    requests: Vec<String>,
}

fn find(connection: &Connection, seq: Seq) -> Result<Option<Found>, Error> {
    let step = failed("look for an intent");
    let query = format!(
        "SELECT {}, {}, EXISTS (SELECT 1 FROM open WHERE open.seq = i.seq) FROM intents AS i \
         LEFT JOIN outcomes AS o ON o.seq = i.seq WHERE i.seq = ?1",
        row::INTENT_COLUMNS,
        row::OUTCOME_COLUMNS
    );
    let mut statement = connection.prepare_cached(&query).map_err(&step)?;
    // A number past what SQLite stores was never given.
    let Ok(number) = i64::try_from(seq.0) else { return Ok(None) };
    let mut rows = statement.query([number]).map_err(&step)?;
    let Some(found) = rows.next().map_err(&step)? else { return Ok(None) };
    let open = found.get(row::COLUMNS).map_err(&step)?;
    let mut intent = row::read_intent(found)?;
    let (requests, earlier) = read_all(connection, seq)?.into_iter().unzip();
    intent.record.earlier = earlier;
    Ok(Some(Found { intent, open, requests }))
}

/// The code of the outcome that this very request has taken back.
fn done(found: &Found, request: &str) -> Option<Code> {
    let place = found.requests.iter().position(|known| known == request)?;
    Some(found.intent.record.earlier[place].code)
}

/// The newest pending intent of each target.
fn newest_pending(connection: &Connection) -> Result<HashMap<TargetKey, Seq>, Error> {
    let step = failed("look for newer intents");
    let query = format!(
        "SELECT {}, {} FROM open JOIN intents AS i ON i.seq = open.seq \
         LEFT JOIN outcomes AS o ON o.seq = open.seq WHERE o.seq IS NULL ORDER BY open.seq",
        row::INTENT_COLUMNS,
        row::OUTCOME_COLUMNS
    );
    let mut statement = connection.prepare_cached(&query).map_err(&step)?;
    let mut rows = statement.query([]).map_err(&step)?;
    let mut pending = HashMap::new();
    while let Some(found) = rows.next().map_err(&step)? {
        let record = row::read_intent(found)?.record;
        pending.extend(record.intent.map(|intent| (intent.key(), record.seq)));
    }
    Ok(pending)
}

/// The newest parked intent of each target that was tried at each sink, among those that are newer than
/// the oldest of `seqs`.
fn newest_tried(
    connection: &Connection,
    seqs: &[Seq],
) -> Result<HashMap<TargetKey, HashMap<String, Seq>>, Error> {
    let step = failed("look for newer intents");
    let mut tried: HashMap<TargetKey, HashMap<String, Seq>> = HashMap::new();
    let oldest = seqs.iter().min().and_then(|seq| i64::try_from(seq.0).ok());
    let Some(oldest) = oldest else { return Ok(tried) };
    let query = format!(
        "SELECT {}, {} FROM outcomes AS o JOIN intents AS i ON i.seq = o.seq \
         WHERE o.seq > ?1 AND o.outcome = 'parked' ORDER BY o.seq",
        row::INTENT_COLUMNS,
        row::OUTCOME_COLUMNS
    );
    let mut statement = connection.prepare_cached(&query).map_err(&step)?;
    let mut rows = statement.query([oldest]).map_err(&step)?;
    while let Some(found) = rows.next().map_err(&step)? {
        let OpenIntent { record, finished, .. } = row::read_intent(found)?;
        let Some(intent) = record.intent else { continue };
        let sinks = tried.entry(intent.key()).or_default();
        let receipts = finished.into_iter().flat_map(|finished| finished.receipts);
        sinks.extend(receipts.map(|receipt| (receipt.sink, record.seq)));
    }
    Ok(tried)
}

fn newer(
    connection: &Connection,
    pending: &HashMap<TargetKey, Seq>,
    seq: Seq,
    key: Option<&TargetKey>,
) -> Result<Option<Newer>, Error> {
    let Some(key) = key else { return Ok(None) };
    if let Some(newest) = pending.get(key).filter(|newest| **newest > seq) {
        return Ok(Some(Newer::Pending(*newest)));
    }
    let delivered = delivery::newest_at(connection, key)?;
    Ok(delivered.filter(|newest| *newest > seq).map(Newer::Delivered))
}

/// Moves the outcome to `earlier` and opens the intent again. What confirmed sinks have said is kept,
/// but for those where `is_undone`; attempts and budgets of the others begin anew.
fn take_back(
    connection: &Connection,
    mut intent: OpenIntent,
    request: &str,
    retried_at: Timestamp,
    is_undone: impl Fn(&str) -> bool,
) -> Result<(OpenIntent, Code), Error> {
    let step = failed("retry");
    let seq = intent.record.seq;
    let Some(finished) = intent.finished.take() else { return Err(gone(seq)) };
    let earlier = Earlier {
        outcome: finished.outcome,
        code: finished.code,
        message: finished.message,
        finished_at: finished.finished_at,
        receipts: finished.receipts,
        retried_at,
        archived_as: finished.archived_as,
    };
    let n = intent.record.earlier.len() as u64 + 1;
    insert(connection, seq, n, request, &earlier).map_err(&step)?;
    let execute = |statement: &str| {
        connection.prepare_cached(statement).and_then(|mut prepared| prepared.execute([seq.0]))
    };
    execute("DELETE FROM outcomes WHERE seq = ?1").map_err(&step)?;
    execute("INSERT INTO open (seq) VALUES (?1)").map_err(&step)?;
    let stands = |receipt: &&Receipt| receipt.code.is_none() && !is_undone(&receipt.sink);
    let confirmed = earlier.receipts.iter().filter(stands);
    let progress = confirmed.map(|receipt| Progress {
        seq,
        sink: receipt.sink.clone(),
        attempts: receipt.attempts,
        spent_ms: 0,
        step: None,
        receipt: Some(receipt.clone()),
    });
    intent.progress = progress.collect();
    for kept in &intent.progress {
        delivery::write_progress(connection, kept).map_err(&step)?;
    }
    let code = earlier.code;
    let record = &mut intent.record;
    record.earlier.push(earlier);
    record.finished_at = None;
    record.outcome = Outcome::Pending;
    record.code = None;
    record.message = None;
    record.receipts = Vec::new();
    record.end_to_end_seconds = None;
    Ok((intent, code))
}

fn gone(seq: Seq) -> Error {
    Error::Missing { what: format!("intent {seq} has no outcome to take back") }
}

fn insert(
    connection: &Connection,
    seq: Seq,
    n: u64,
    request: &str,
    earlier: &Earlier,
) -> rusqlite::Result<()> {
    let receipts = json(&earlier.receipts);
    connection
        .prepare_cached(
            "INSERT INTO earlier (seq, n, request, retried_at, outcome, code, message, finished_at, \
             archived_as, receipts, sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            seq.0,
            n,
            request,
            earlier.retried_at.unix_ms,
            earlier.outcome.as_str(),
            earlier.code.as_str(),
            earlier.message,
            earlier.finished_at.unix_ms,
            earlier.archived_as,
            receipts,
            digest(seq, n, request, earlier, &receipts),
        ])?;
    Ok(())
}

fn digest(seq: Seq, n: u64, request: &str, earlier: &Earlier, receipts: &str) -> [u8; 32] {
    sum(&[
        &seq.0.to_le_bytes(),
        &n.to_le_bytes(),
        request.as_bytes(),
        &earlier.retried_at.unix_ms.to_le_bytes(),
        earlier.outcome.as_str().as_bytes(),
        earlier.code.as_str().as_bytes(),
        earlier.message.as_bytes(),
        &earlier.finished_at.unix_ms.to_le_bytes(),
        earlier.archived_as.as_deref().unwrap_or_default(),
        receipts.as_bytes(),
    ])
}

/// The outcomes of the intent that were taken back, oldest first.
///
/// # Errors
///
/// Reading failed, or a row is damaged.
pub fn read(connection: &Connection, seq: Seq) -> Result<Vec<Earlier>, Error> {
    Ok(read_all(connection, seq)?.into_iter().map(|(_, earlier)| earlier).collect())
}

/// The same, each with the request that took it back.
fn read_all(connection: &Connection, seq: Seq) -> Result<Vec<(String, Earlier)>, Error> {
    let step = failed("read earlier outcomes");
    let mut statement = connection
        .prepare_cached(
            "SELECT n, request, retried_at, outcome, code, message, finished_at, archived_as, \
             receipts, sum FROM earlier WHERE seq = ?1 ORDER BY n",
        )
        .map_err(&step)?;
    let mut rows = statement.query([seq.0]).map_err(&step)?;
    let mut all = Vec::new();
    while let Some(found) = rows.next().map_err(&step)? {
        let damaged = || Error::Damaged { row: format!("earlier {seq}") };
        let written = read_row(found).map_err(&step)?.ok_or_else(damaged)?;
        let Written { n, request, earlier, receipts, kept } = written;
        let whole = kept == digest(seq, n, &request, &earlier, &receipts);
        // A row that is gone breaks the run of their numbers, or is missed by the census.
        if !whole || n != all.len() as u64 + 1 {
            return Err(damaged());
        }
        let receipts = parsed(&receipts).map_err(|()| damaged())?;
        all.push((request, Earlier { receipts, ..earlier }));
    }
    Ok(all)
}

/// A row as it was written, with its receipts as text beside it.
struct Written {
    n: u64,
    request: String,
    earlier: Earlier,
    receipts: String,
    kept: Vec<u8>,
}

/// `None` if a name in the row is none of ours.
fn read_row(row: &Row<'_>) -> rusqlite::Result<Option<Written>> {
    let (outcome, code): (String, String) = (row.get(3)?, row.get(4)?);
    let (Some(outcome), Some(code)) = (Outcome::parse(&outcome), Code::parse(&code)) else {
        return Ok(None);
    };
    let earlier = Earlier {
        outcome,
        code,
        message: row.get(5)?,
        finished_at: Timestamp { unix_ms: row.get(6)? },
        receipts: Vec::new(),
        retried_at: Timestamp { unix_ms: row.get(2)? },
        archived_as: row.get(7)?,
    };
    Ok(Some(Written {
        n: row.get(0)?,
        request: row.get(1)?,
        earlier,
        receipts: row.get(8)?,
        kept: row.get(9)?,
    }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ledger::{Acceptance, Changes, Filter, Finish, Finished, Reader, Verdict, Writer};
    use crate::model::{FileName, IntentSummary, IntentType, Mode, Receipt, Record};

    fn parked() -> Facts {
        let outcome = Outcome::Parked;
        Facts { outcome, superseded_by: None, open: false, done: None, newer: None }
    }

    #[track_caller]
    fn refused(facts: Option<Facts>, why: &str) {
        let wanted = Decision::Refuse(format!("not retried: {why}"));
        assert_eq!(decide(facts.as_ref()), wanted, "{facts:?}");
    }

    #[test]
    fn what_is_parked_and_archived_is_retried() {
        assert_eq!(decide(Some(&parked())), Decision::Retry);
        let on_its_way = Facts { open: true, ..parked() };
        assert_eq!(decide(Some(&on_its_way)), Decision::NotYet);
    }

    #[test]
    fn what_is_not_parked_is_refused_with_its_reason() {
        let is = |outcome| Some(Facts { outcome, ..parked() });
        refused(None, "there is no such intent");
        refused(is(Outcome::Pending), "it is pending already");
        refused(is(Outcome::Delivered), "it is delivered");
        refused(is(Outcome::Unchanged), "it is unchanged");
        refused(is(Outcome::Rejected), "it was rejected; mend the file and drop it again");
        let superseded = Facts {
            outcome: Outcome::Superseded,
            superseded_by: Some(Seq(14)),
            newer: Some(Newer::Delivered(Seq(14))),
            ..parked()
        };
        refused(Some(superseded), "intent 14, which is newer, has superseded it");
    }

    #[test]
    fn a_newer_intent_on_the_target_is_never_undone() {
        let beside = |newer| Some(Facts { newer: Some(newer), open: true, ..parked() });
        let delivered = "intent 9, which is newer, was delivered on its target";
        refused(beside(Newer::Delivered(Seq(9))), delivered);
        let pending = "intent 9, which is newer, is pending on its target";
        refused(beside(Newer::Pending(Seq(9))), pending);
    }

    #[test]
    fn a_request_that_was_carried_out_says_so_again_whatever_has_come_since() {
        for outcome in [Outcome::Pending, Outcome::Parked, Outcome::Delivered] {
            let newer = Some(Newer::Delivered(Seq(9)));
            let again = Facts { outcome, done: Some(Code::Forbidden), newer, ..parked() };
            assert_eq!(decide(Some(&again)), Decision::Done(Code::Forbidden));
        }
    }

    const NOW: Timestamp = Timestamp { unix_ms: 0 };

    /// A ledger whose first intent is parked, with one of two sinks confirmed.
    fn with_parked(path: &Path) -> Writer {
        let mut writer = Writer::open(path).unwrap();
        writer.raise_epoch(0).unwrap();
        let intent = IntentSummary {
            intent_type: IntentType::Scaling,
            namespace: "default".to_owned(),
            target: "web".to_owned(),
            replicas: 3,
            priority: 5,
            correlation_id: None,
        };
        let acceptance = Acceptance {
            file: FileName::new("intent-a.json"),
            claim: Some(b"1.0.intent-a.json".to_vec()),
            mode: Mode::Run,
            received_at: NOW,
            digest: None,
            verdict: Verdict::Admitted { document: b"{}"[..].into(), intent, source: None },
        };
        let accept = Changes { accept: vec![acceptance], ..Changes::default() };
        let seqs = writer.commit(&accept).unwrap();
        let receipt = |sink: &str, code| Receipt {
            sink: sink.to_owned(),
            location: None,
            unchanged: false,
            attempts: 4,
            code,
            message: None,
            further: Default::default(),
        };
        let finished = Finished {
            outcome: Outcome::Parked,
            code: Code::Forbidden,
            message: "no".to_owned(),
            superseded_by: None,
            finished_at: NOW,
            archived_as: Some(b"intent-a.json".to_vec()),
            violations: Vec::new(),
            receipts: vec![receipt("a", None), receipt("b", Some(Code::Forbidden))],
        };
        let finish = vec![Finish { seq: seqs[0], finished, reached: Vec::new() }];
        writer.commit(&Changes { finish, ..Changes::default() }).unwrap();
        writer
    }

    fn archive(writer: &mut Writer) {
        writer.commit(&Changes { archived: vec![Seq(1)], ..Changes::default() }).unwrap();
    }

    fn history(path: &Path) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        Reader::open(path)?.history(&Filter::default(), |record| {
            records.push(record);
            true
        })?;
        Ok(records)
    }

    #[test]
    fn what_is_taken_back_is_open_with_its_receipts_and_its_outcome_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut writer = with_parked(&path);
        assert!(writer.revive("r", &[Seq(1)], NOW).unwrap().is_none(), "it is not archived yet");
        archive(&mut writer);
        let commits = writer.commits();
        let revival = writer.revive("r", &[Seq(9), Seq(1), Seq(1)], NOW).unwrap().unwrap();
        assert_eq!(writer.commits(), commits + 1);
        let answered: Vec<_> = revival.answers.iter().map(|one| (one.seq.0, one.retried)).collect();
        assert_eq!(answered, [(1, true), (9, false)]);
        let open = writer.open_intents().unwrap();
        assert_eq!(open.len(), 1);
        assert!(open[0].finished.is_none());
        assert_eq!(open[0].record, revival.revived[0].record, "as recovery finds it");
        assert_eq!(open[0].progress, revival.revived[0].progress);
        let kept: Vec<_> =
            open[0].progress.iter().map(|kept| (&*kept.sink, kept.attempts)).collect();
        assert_eq!(kept, [("a", 4)], "what was refused begins anew");
        let record = history(&path).unwrap().remove(0);
        assert_eq!((record.outcome, record.earlier[0].code), (Outcome::Pending, Code::Forbidden));

        let again = writer.revive("r", &[Seq(1)], NOW).unwrap().unwrap();
        assert!(again.revived.is_empty() && again.answers[0].retried, "the same request");
        let other = writer.revive("s", &[Seq(1)], NOW).unwrap().unwrap();
        assert_eq!(other.answers[0].message, "not retried: it is pending already");
        assert_eq!(writer.commits(), commits + 1, "neither has written anything");
    }

    #[test]
    fn an_earlier_outcome_that_is_changed_or_gone_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut writer = with_parked(&path);
        archive(&mut writer);
        writer.revive("r", &[Seq(1)], NOW).unwrap().unwrap();
        writer.close().unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("UPDATE earlier SET message = 'yes'").unwrap();
        assert!(matches!(history(&path), Err(Error::Damaged { .. })));
        assert!(matches!(Writer::open(&path).unwrap().open_intents(), Err(Error::Damaged { .. })));
        connection.execute_batch("DELETE FROM earlier").unwrap();
        assert!(matches!(history(&path), Err(Error::Missing { .. })));
        assert!(matches!(Writer::open(&path).unwrap().open_intents(), Err(Error::Missing { .. })));
    }
}
