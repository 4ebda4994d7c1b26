//! The record of one intent: what `history`, `batch` and `status/` show.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::{Deserialize, Serialize};

use crate::model::{Code, Digest, FileName, Intent, IntentType, TargetKey, Timestamp, Violation};

/// The ledger's number of an intent: grows by acceptance order, is never used twice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something for each of some intents. Seqs are ours and not a producer's, so no hash that withstands an
/// attacker is needed.
pub type SeqMap<T> = HashMap<Seq, T, BuildHasherDefault<SeqHasher>>;

/// Spreads seqs by one multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeqHasher(u64);

impl Hasher for SeqHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: neighbours differ in the high bits as well as in the low ones.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What has become of an intent. All but `Pending` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Accepted and not yet decided.
    Pending,
    /// The target confirmed a change.
    Delivered,
    /// The target already was as the intent wants it.
    Unchanged,
    /// A newer intent for the target took its place before it started anywhere.
    Superseded,
    /// The document's fault.
    Rejected,
    /// Given up: not the document's form but its wish, or the world, stands in the way.
    Parked,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Pending => "pending",
            Outcome::Delivered => "delivered",
            Outcome::Unchanged => "unchanged",
            Outcome::Superseded => "superseded",
            Outcome::Rejected => "rejected",
            Outcome::Parked => "parked",
        }
    }

    /// The outcome of that name; the inverse of [`Outcome::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        [
            Outcome::Pending,
            Outcome::Delivered,
            Outcome::Unchanged,
            Outcome::Superseded,
            Outcome::Rejected,
            Outcome::Parked,
        ]
        .into_iter()
        .find(|outcome| outcome.as_str() == name)
    }

    /// Whether the producer got what it asked for, or something newer (`processed/`, exit code 0).
    pub fn is_success(self) -> bool {
        match self {
            Outcome::Delivered | Outcome::Unchanged | Outcome::Superseded => true,
            Outcome::Pending | Outcome::Rejected | Outcome::Parked => false,
        }
    }
}

/// By which command a document came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Run,
    Batch,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Run => "run",
            Mode::Batch => "batch",
        }
    }
}

/// What one sink confirmed, or how it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub sink: String,
    /// Where the effect is to be found: a path, a commit, an object; absent when parked there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    pub unchanged: bool,
    /// Tries, the successful one included.
    pub attempts: u32,
    /// Set when this sink gave up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What else this kind of sink confirms (a revision, a time), by name.
    #[serde(flatten)]
    pub further: std::collections::BTreeMap<String, serde_json::Value>,
}

/// The part of an intent that a record repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntentSummary {
    pub intent_type: IntentType,
    pub namespace: String,
    pub target: String,
    pub replicas: u32,
    pub priority: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

impl IntentSummary {
    /// What the intent acts on.
    pub fn key(&self) -> TargetKey {
        TargetKey {
            intent_type: self.intent_type,
            namespace: self.namespace.clone(),
            target: self.target.clone(),
        }
    }
}

impl From<&Intent> for IntentSummary {
    fn from(intent: &Intent) -> Self {
        IntentSummary {
            intent_type: intent.intent_type,
            namespace: intent.namespace.clone(),
            target: intent.target.clone(),
            replicas: intent.replicas,
            priority: intent.priority(),
            correlation_id: intent.correlation_id.clone(),
        }
    }
}

/// Everything there is to say about one intent; the JSON shape is part of the contract.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    pub seq: Seq,
    pub file: FileName,
    #[serde(serialize_with = "display", skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The document's own `source`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    pub received_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    pub epoch: u64,
    #[serde(skip)]
    pub mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<IntentSummary>,
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<Seq>,
    pub violations: Vec<Violation>,
    pub receipts: Vec<Receipt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_seconds: Option<f64>,
    /// Outcomes that were taken back by `retry`, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
}

/// An outcome that was final until somebody asked for another try.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Earlier {
    pub outcome: Outcome,
    pub code: Code,
    pub message: String,
    pub finished_at: Timestamp,
    pub receipts: Vec<Receipt>,
    pub retried_at: Timestamp,
    /// The name in `failed/` that the document had; absent for an operand of `batch`.
    #[serde(skip)]
    pub archived_as: Option<Vec<u8>>,
}

/// What `retry` did with one intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retried {
    pub seq: Seq,
    /// Whether it is pending again.
    pub retried: bool,
    /// Why it was parked; absent where it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// A sentence without its subject, which is the intent.
    pub message: String,
}

fn display<S: serde::Serializer>(digest: &Option<Digest>, to: S) -> Result<S::Ok, S::Error> {
    match digest {
        Some(digest) => to.collect_str(digest),
        None => to.serialize_none(),
    }
}
