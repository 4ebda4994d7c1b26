//! From what kubectl prints to what decisions are made from.

use serde_json::Value;

use crate::model::Code;
use crate::sink::workload::autoscaler::{self, Autoscaler};
use crate::sink::workload::{rollout, verdict};
use crate::sink::{Fault, Retry};

/// The workload at this place.
pub fn workload(object: &Value, place: &str) -> Result<rollout::Wire, Fault> {
    serde_json::from_value(object.clone()).map_err(|error| {
        let message = format!("{place} is nothing that can be scaled: {error}");
        Fault { code: Code::UnsupportedIntent, message, retry: Retry::Never }
    })
}

/// Refuses what is on its way out.
pub fn check_stays(seen: &rollout::Wire, place: &str) -> Result<(), Fault> {
    match seen.metadata.deletion_timestamp {
        None => Ok(()),
        Some(_) => Err(verdict::terminating(place)),
    }
}

/// The autoscalers of a list; one that cannot be read decides nothing.
pub fn autoscalers(list: &Value) -> Vec<Autoscaler> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| serde_json::from_value::<autoscaler::Wire>(item.clone()).ok())
        .map(Autoscaler::from)
        .collect()
}
