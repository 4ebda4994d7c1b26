//! What goes into the ledger and what comes out of it, as the rest of the program knows it.

use std::sync::Arc;

use crate::model::{
    Code, Digest, FileName, IntentSummary, Mode, Outcome, Receipt, Record, Rejection, Seq,
    TargetKey, Timestamp, Violation,
};

/// What the accept transaction records of one claim or operand.
#[derive(Clone, Debug)]
pub struct Acceptance {
    pub file: FileName,
    /// The name in `work/`; absent for an operand of `batch`.
    pub claim: Option<Vec<u8>>,
    pub mode: Mode,
    pub received_at: Timestamp,
    /// Of the bytes that were read; absent where none were.
    pub digest: Option<Digest>,
    pub verdict: Verdict,
}

/// What intake decided.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// To be delivered; the bytes go into the ledger, since the file may not survive a power cut.
    Admitted { document: Arc<[u8]>, intent: IntentSummary, source: Option<String> },
    /// Final at once: accepted and finished in one transaction.
    Rejected { rejection: Rejection, archive: Option<ArchivePlan> },
}

/// Under which name a file will be archived; decided before, so that a repeat decides the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivePlan {
    /// The file's name, safe to store.
    pub safe: String,
    /// Whether that name is in use in the directory, so that the seq has to go in front.
    pub taken: bool,
}

impl ArchivePlan {
    /// The archived name for the intent `seq`.
    pub fn name(&self, seq: Seq) -> Vec<u8> {
        let prefix = if self.taken { format!("{seq}.") } else { String::new() };
        crate::model::derived(&prefix, self.safe.as_bytes(), "")
    }
}

/// The end of one admitted intent.
#[derive(Clone, Debug)]
pub struct Finish {
    pub seq: Seq,
    pub finished: Finished,
    /// Sinks whose target now holds a package of this digest.
    pub reached: Vec<(Arc<str>, Arc<TargetKey>, Digest)>,
}

/// The final part of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub outcome: Outcome,
    pub code: Code,
    pub message: String,
    pub superseded_by: Option<Seq>,
    pub finished_at: Timestamp,
    /// The name in `processed/` or `failed/`; absent for an operand of `batch`.
    pub archived_as: Option<Vec<u8>>,
    pub violations: Vec<Violation>,
    pub receipts: Vec<Receipt>,
}

/// How far one sink has come with one intent.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    pub seq: Seq,
    pub sink: String,
    pub attempts: u32,
    /// Time spent on tries and waiting between them, in milliseconds; no clock time is kept.
    pub spent_ms: u64,
    pub step: Option<String>,
    /// Set once this sink is done while others are not.
    pub receipt: Option<Receipt>,
}

/// An intent that is not archived yet, as recovery finds it.
#[derive(Clone, Debug)]
pub struct OpenIntent {
    pub record: Record,
    pub claim: Option<Vec<u8>>,
    /// Present for admitted intents.
    pub document: Option<Vec<u8>>,
    pub finished: Option<Finished>,
    pub progress: Vec<Progress>,
}

impl Finished {
    /// The end of a rejected document, which comes with its acceptance.
    pub fn rejected(
        seq: Seq,
        rejection: &Rejection,
        archive: Option<&ArchivePlan>,
        at: Timestamp,
    ) -> Self {
        Finished {
            outcome: Outcome::Rejected,
            code: rejection.code,
            message: rejection.message.clone(),
            superseded_by: None,
            finished_at: at,
            archived_as: archive.map(|plan| plan.name(seq)),
            violations: rejection.violations.clone(),
            receipts: Vec::new(),
        }
    }
}
