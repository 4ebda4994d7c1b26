//! What is known of workloads, their rollouts and their autoscalers, whoever carries the calls: the
//! API client or `kubectl`.
//!
//! Everything here is a pure function over objects as the server shows them; the time of day and the
//! time spent are arguments.

pub mod autoscaler;
pub mod rollout;
pub mod verdict;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Workload;
use crate::model::Timestamp;
use crate::sink::Step;
use crate::sink::workload::autoscaler::Decision;

/// How far a delivery has come, as it is kept in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Progress {
    /// A write was about to be made; whether it was is not known.
    Writing { wanted: u32, resource_version: String },
    /// The server has stored the write, and it is being verified.
    Written(Written),
}

/// A write that the server has stored, or a state that needed none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Of the object afterwards.
    pub resource_version: String,
    /// Where the answer told it; that of a scale subresource does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    pub wanted: u32,
    /// An autoscaler was told; it may go higher, and its object is the one of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Nothing had to be written.
    #[serde(default)]
    pub unchanged: bool,
    #[serde(with = "unix_ms")]
    pub accepted_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "unix_ms_or_none")]
    pub observed_at: Option<Timestamp>,
    /// Time that the verification has taken in all processes so far; never reckoned from the clock.
    #[serde(default)]
    pub spent_ms: u64,
}

impl Progress {
    /// What a step says; `None` too where another version has written it.
    pub fn read(step: Option<&Step>) -> Option<Self> {
        serde_json::from_str(&step?.0).ok()
    }

    /// The step that [`Progress::read`] reads.
    pub fn step(&self) -> Step {
        Step(serde_json::to_string(self).expect("plain data is JSON"))
    }
}

impl Written {
    /// What a decision comes to at that version, at that time; nothing of it has been observed.
    pub fn by(decision: &Decision, resource_version: String, accepted_at: Timestamp) -> Self {
        let (wanted, through) = match decision {
            Decision::Scale(wanted) => (*wanted, None),
            Decision::RaiseFloor { hpa, to, .. } => (*to, Some(hpa.clone())),
        };
        Written {
            resource_version,
            generation: None,
            wanted,
            through,
            unchanged: false,
            accepted_at,
            observed_at: None,
            spent_ms: 0,
        }
    }

    /// What goes into the receipt, with the autoscaler that was told instead; `None` is what was not
    /// waited for.
    pub fn receipt(&self, converged_at: Option<Timestamp>) -> BTreeMap<String, Value> {
        let time = |at: Timestamp| Value::from(at.to_string());
        let mut receipt = BTreeMap::from([
            ("resource_version".to_owned(), Value::from(self.resource_version.as_str())),
            ("accepted_at".to_owned(), time(self.accepted_at)),
        ]);
        receipt.extend(self.observed_at.map(|at| ("observed_at".to_owned(), time(at))));
        receipt.extend(converged_at.map(|at| ("converged_at".to_owned(), time(at))));
        receipt.extend(self.through.iter().map(|hpa| ("hpa".to_owned(), hpa.as_str().into())));
        receipt
    }
}

/// Where the effect is to be found: `deployments/<namespace>/<name>`.
pub fn location(kind: &Workload, namespace: &str, name: &str) -> String {
    format!("{}/{namespace}/{name}", kind.plural)
}

/// Whether a version is that one or a later one of the same server; `None` where the two are of a
/// form that cannot be compared. They are whole numbers on every API server that stores in etcd.
pub fn is_at_least(version: &str, other: &str) -> Option<bool> {
    if version == other {
        return Some(true);
    }
    let number = |text: &str| text.parse::<u128>().ok();
    Some(number(version)? >= number(other)?)
}

mod unix_ms {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Timestamp;

    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.unix_ms)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        Ok(Timestamp { unix_ms: i64::deserialize(from)? })
    }
}

mod unix_ms_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::Timestamp;

    pub fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        at.map(|at| at.unix_ms).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(|unix_ms| Timestamp { unix_ms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_survives_the_ledger_and_one_of_another_version_is_none() {
        let written = Written {
            resource_version: "17".to_owned(),
            generation: Some(4),
            wanted: 5,
            through: None,
            unchanged: false,
            accepted_at: Timestamp { unix_ms: 1_700_000_000_000 },
            observed_at: Some(Timestamp { unix_ms: 1_700_000_000_500 }),
            spent_ms: 700,
        };
        for progress in [
            Progress::Written(written.clone()),
            Progress::Writing { wanted: 5, resource_version: "16".to_owned() },
        ] {
            assert_eq!(Progress::read(Some(&progress.step())), Some(progress));
        }
        assert_eq!(Progress::read(Some(&Step("drafted".to_owned()))), None);
        assert_eq!(Progress::read(None), None);
        let receipt = written.receipt(None);
        assert_eq!(
            Value::from_iter(receipt),
            serde_json::json!({
                "resource_version": "17", "accepted_at": "2023-11-14T22:13:20.000Z",
                "observed_at": "2023-11-14T22:13:20.500Z",
            })
        );
    }

    #[test]
    fn versions_are_compared_as_numbers_where_they_are_some() {
        assert_eq!(is_at_least("10", "9"), Some(true));
        assert_eq!(is_at_least("9", "10"), Some(false));
        assert_eq!(is_at_least("a", "a"), Some(true));
        assert_eq!(is_at_least("a", "9"), None);
    }
}
