//! An intent in memory, between the ledger's two commits about it.

use std::sync::Arc;

use crate::compose::Package;
use crate::ledger::{Finished, Progress};
use crate::model::{Intent, Record, Seq, TargetKey};
use crate::processor::Token;

/// An accepted intent that has not ended.
#[derive(Debug)]
pub struct Item {
    /// Its record so far, with the outcome pending.
    pub record: Box<Record>,
    /// The name in `work/`; absent for an operand of `batch`.
    pub claim: Option<Vec<u8>>,
    pub intent: Arc<Intent>,
    /// What the intent acts on.
    pub key: Arc<TargetKey>,
    pub document: Arc<[u8]>,
    /// How far each sink had come when it was read from the ledger.
    pub progress: Vec<Progress>,
    /// It was accepted by an earlier leader and may have had an effect.
    pub resumed: bool,
    pub token: Token,
}

/// One package on its way to one sink's thread and back.
#[derive(Clone, Debug)]
pub struct Job {
    pub seq: Seq,
    pub intent: Arc<Intent>,
    pub document: Arc<[u8]>,
    /// The dropped file's name, safe to use.
    pub file: String,
    pub package: Arc<Package>,
    pub step: Option<String>,
    pub attempts: u32,
    pub spent_ms: u64,
}

/// Completes the pending `record`.
pub fn complete(record: &mut Record, finished: Finished) {
    record.end_to_end_seconds = Some(finished.finished_at.seconds_since(record.received_at));
    record.finished_at = Some(finished.finished_at);
    record.outcome = finished.outcome;
    record.code = Some(finished.code);
    record.message = Some(finished.message);
    record.superseded_by = finished.superseded_by;
    record.violations = finished.violations;
    record.receipts = finished.receipts;
}
