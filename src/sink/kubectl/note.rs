//! How far a delivery has come, as the journal keeps it.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Timestamp;
use crate::sink::Step;

/// One step. What cannot be read, of another version, is as good as none: the target is looked at
/// in any case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kubectl", rename_all = "lowercase")]
pub enum Note {
    /// A write was about to be made: it may have happened.
    Writing(Written),
    /// The target is as it was wanted, and its controllers follow.
    Written(Written),
}

/// What was written, and what was seen of it. The times are for the receipt alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub from: u32,
    pub to: u32,
    /// It was so already.
    #[serde(default)]
    pub unchanged: bool,
    /// Of the object, when the write was seen to be stored.
    #[serde(default)]
    pub generation: i64,
    /// The autoscaler whose minimum was set, which may raise the replicas further.
    #[serde(default)]
    pub floor_of: Option<String>,
    /// The autoscaler within whose bounds the wanted number was kept.
    #[serde(default)]
    pub clamped_by: Option<String>,
    #[serde(default)]
    pub accepted_ms: Option<i64>,
    #[serde(default)]
    pub observed_ms: Option<i64>,
    #[serde(default)]
    pub converged_ms: Option<i64>,
}

impl Note {
    pub fn read(step: &Step) -> Option<Self> {
        serde_json::from_str(&step.0).ok()
    }

    pub fn step(&self) -> Step {
        Step(serde_json::to_string(self).expect("plain data can be written"))
    }
}

impl Written {
    /// What goes into the receipt.
    pub fn receipt(&self, wanted: u32) -> BTreeMap<String, Value> {
        let mut further = BTreeMap::from([
            ("replicas".to_owned(), Value::from(self.to)),
            ("replicas_before".to_owned(), Value::from(self.from)),
        ]);
        let mut put = |name: &str, value: Value| {
            further.insert(name.to_owned(), value);
        };
        if self.generation > 0 {
            put("generation", self.generation.into());
        }
        if self.to != wanted {
            put("replicas_wanted", wanted.into());
        }
        if let Some(name) = &self.floor_of {
            put("hpa_floor_of", name.as_str().into());
        }
        if let Some(name) = &self.clamped_by {
            put("hpa_clamped_by", name.as_str().into());
        }
        let times = [
            ("accepted_at", self.accepted_ms),
            ("observed_at", self.observed_ms),
            ("converged_at", self.converged_ms),
        ];
        for (name, unix_ms) in times {
            if let Some(unix_ms) = unix_ms {
                put(name, Timestamp { unix_ms }.to_string().into());
            }
        }
        further
    }
}

/// What this process knows of a delivery besides: the desk hands a step back only of one that is
/// pending, and a write whose answer was lost is not.
#[derive(Clone, Debug)]
pub struct Kept {
    pub note: Note,
    /// Since when the target is followed by this process.
    pub since: Instant,
}

/// The wall clock, for receipts.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_comes_back_and_a_strange_one_is_none() {
        let written = Written { from: 1, to: 3, generation: 4, ..Written::default() };
        for note in [Note::Writing(written.clone()), Note::Written(written)] {
            assert_eq!(Note::read(&note.step()), Some(note));
        }
        let old = Step("{\"kubectl\":\"writing\",\"from\":1,\"to\":2}".to_owned());
        assert!(matches!(Note::read(&old), Some(Note::Writing(Written { to: 2, .. }))));
        for text in ["", "{}", "{\"kubectl\":\"later\"}", "drafted"] {
            assert_eq!(Note::read(&Step(text.to_owned())), None, "{text}");
        }
    }

    #[test]
    fn a_receipt_tells_what_happened_and_when() {
        let written = Written {
            from: 1,
            to: 5,
            generation: 2,
            clamped_by: Some("h".to_owned()),
            accepted_ms: Some(0),
            ..Written::default()
        };
        let receipt = serde_json::to_value(written.receipt(9)).unwrap();
        let expected = serde_json::json!({
            "replicas": 5, "replicas_before": 1, "replicas_wanted": 9, "generation": 2,
            "hpa_clamped_by": "h", "accepted_at": "1970-01-01T00:00:00.000Z",
        });
        assert_eq!(receipt, expected);
    }
}
