//! The last step of an intent: what a person finds beside the file.

use serde::{Deserialize, Serialize};

use crate::ledger::{Finished, OpenIntent};
use crate::model::{Code, FileName, Outcome, Record, Seq, Violation, derived, printable_json};
use crate::processor::Token;
use crate::spool::{Archived, Error, Shelf, Spool};

/// An intent whose end is in the ledger and not yet in the directories.
#[derive(Debug)]
pub struct Request {
    /// The final record.
    pub record: Box<Record>,
    /// The name in `work/`; absent for an operand of `batch`.
    pub claim: Option<Vec<u8>>,
    /// The name to be archived under, as the ledger has it.
    pub archived_as: Option<Vec<u8>>,
    pub token: Token,
}

/// What `failed/<name>.reason.json` says.
#[derive(Serialize)]
struct Reason<'a> {
    seq: Seq,
    file: &'a FileName,
    code: Option<Code>,
    message: Option<&'a str>,
    violations: &'a [Violation],
}

/// What `status/<name>.<seq>.json` says: the record, and what readers of conductor-loop look for.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(flatten)]
    record: &'a Record,
    intent_file: &'a FileName,
    status: &'static str,
    timestamp: String,
    processed_by: &'static str,
    mode: &'static str,
    processing_duration: f64,
    retry_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_details: Option<&'a str>,
}

const PROCESSED_BY: &str = concat!("intentd/", env!("CARGO_PKG_VERSION"));

/// Which directory an outcome ends in.
pub fn shelf(outcome: Outcome) -> Shelf {
    if outcome.is_success() { Shelf::Processed } else { Shelf::Failed }
}

/// Writes reason and status, then moves the document. Safe to repeat after a crash at any point.
///
/// # Errors
///
/// A step failed and may be tried again; those before it are repeated without harm.
pub fn archive(spool: &Spool, request: &Request) -> Result<(), Error> {
    let record = &request.record;
    let shelf = shelf(record.outcome);
    if let (Some(archived_as), Shelf::Failed) = (&request.archived_as, shelf) {
        spool.write_reason(&reason_name(archived_as), &reason(record))?;
    }
    spool.write_status(&status_name(record), &status(record))?;
    let (Some(claim), Some(archived_as)) = (&request.claim, &request.archived_as) else {
        return Ok(());
    };
    let spare = || derived(&format!("{}.", record.seq), record.file.safe().as_bytes(), "");
    if let Archived::Elsewhere(name) = spool.archive(claim, shelf, archived_as, spare)?
        && shelf == Shelf::Failed
    {
        // Somebody's file took the planned name since: the reason follows the document.
        spool.write_reason(&reason_name(&name), &reason(record))?;
    }
    Ok(())
}

/// Undoes the archive of an intent that is pending again: its document goes back to `work/`, its reason
/// goes, its status says that it is pending. Safe to repeat after a crash at any point, also when the
/// intent has ended again meanwhile: [`archive`] then follows.
///
/// # Errors
///
/// A step failed and may be tried again.
pub fn restore(spool: &Spool, open: &OpenIntent) -> Result<(), Error> {
    let record = &open.record;
    let Some(earlier) = record.earlier.last() else { return Ok(()) };
    if let (Some(claim), Some(archived_as), Some(document)) =
        (&open.claim, &earlier.archived_as, &open.document)
    {
        let spare = derived(&format!("{}.", record.seq), record.file.safe().as_bytes(), "");
        // It lies under the spare name where somebody's file had taken the planned one.
        for name in [&spare, archived_as] {
            let reason = reason_name(name);
            let about = spool.read_reason(&reason).and_then(|text| seq_of(&text));
            // The same document may have failed again under this name, as another intent.
            if about.is_none_or(|seq| seq == record.seq) {
                spool.restore(name, claim, document)?;
            }
            if about == Some(record.seq) {
                spool.remove_reason(&reason)?;
            }
        }
    }
    if record.outcome == Outcome::Pending {
        spool.write_status(&status_name(record), &status(record))?;
    }
    Ok(())
}

/// The intent that a reason is about.
fn seq_of(reason: &[u8]) -> Option<Seq> {
    #[derive(Deserialize)]
    struct About {
        seq: Seq,
    }
    serde_json::from_slice::<About>(reason).ok().map(|about| about.seq)
}

fn status_name(record: &Record) -> Vec<u8> {
    derived("", record.file.safe().as_bytes(), &format!(".{}.json", record.seq))
}

/// The request that ends an intent: its pending record completed by what the ledger has.
pub fn request(
    mut record: Box<Record>,
    claim: Option<Vec<u8>>,
    mut finished: Finished,
    token: Token,
) -> Request {
    let archived_as = finished.archived_as.take();
    crate::processor::item::complete(&mut record, finished);
    Request { record, claim, archived_as, token }
}

fn reason_name(archived_as: &[u8]) -> Vec<u8> {
    derived("", archived_as, ".reason.json")
}

fn reason(record: &Record) -> Vec<u8> {
    text(&Reason {
        seq: record.seq,
        file: &record.file,
        code: record.code,
        message: record.message.as_deref(),
        violations: &record.violations,
    })
}

fn status(record: &Record) -> Vec<u8> {
    let success = record.outcome.is_success();
    let attempts = record.receipts.iter().map(|receipt| receipt.attempts).max().unwrap_or(1);
    text(&Status {
        record,
        intent_file: &record.file,
        status: match record.outcome {
            Outcome::Pending => "pending",
            _ if success => "success",
            _ => "failed",
        },
        timestamp: record.finished_at.unwrap_or(record.received_at).to_string(),
        processed_by: PROCESSED_BY,
        mode: record.mode.as_str(),
        processing_duration: record.end_to_end_seconds.unwrap_or_default(),
        retry_count: attempts.saturating_sub(1),
        error_details: if success { None } else { record.message.as_deref() },
    })
}

fn text(value: &impl Serialize) -> Vec<u8> {
    let mut text = printable_json(value).expect("our own types always serialise");
    text.push('\n');
    text.into_bytes()
}
