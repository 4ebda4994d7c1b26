//! From what kubectl prints to what decisions are made from.

use serde_json::Value;

use crate::model::Code;
use crate::sink::workload::autoscaler::{self, Autoscaler};
use crate::sink::workload::rollout;
use crate::sink::{Fault, Retry};

/// The workload at this place, which is not being deleted.
pub fn workload(object: &Value, place: &str) -> Result<rollout::Wire, Fault> {
    let parked = |code, message| Fault { code, message, retry: Retry::Never };
    let read = serde_json::from_value::<rollout::Wire>(object.clone());
    let seen = read.map_err(|error| {
        let message = format!("{place} is nothing that can be scaled: {error}");
        parked(Code::UnsupportedIntent, message)
    })?;
    match seen.metadata.deletion_timestamp {
        Some(_) => Err(parked(Code::TargetTerminating, format!("{place} is being deleted"))),
        None => Ok(seen),
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
