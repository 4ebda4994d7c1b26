//! What a delivery would change, told by a dry run at the server.

use std::time::Instant;

use crate::config::KubectlSettings;
use crate::limits::DELIVERY_MAX;
use crate::model::{Code, Intent, IntentType};
use crate::sink::kubectl::calls::Calls;
use crate::sink::kubectl::object::{Seen, autoscalers};
use crate::sink::kubectl::plan::plan;
use crate::sink::kubectl::program::Program;
use crate::sink::kubectl::saying::Trouble;
use crate::sink::kubectl::{check_version, unsupported};
use crate::sink::{Change, Comparison, Fault, Retry};

/// Asks the server and changes nothing there.
///
/// # Errors
///
/// The fault that the delivery would meet.
pub fn compare(settings: &KubectlSettings, intent: &Intent) -> Result<Comparison, Fault> {
    let parked = |code, message| Fault { code, message, retry: Retry::Never };
    if intent.intent_type != IntentType::Scaling {
        return Err(unsupported(intent));
    }
    let calls = Calls::new(Program::new(settings, None), &settings.workload)
        .map_err(|error| parked(Code::SinkUnavailable, error.to_string()))?;
    let due = Instant::now() + DELIVERY_MAX;
    let (namespace, name) = (intent.namespace.as_str(), intent.target.as_str());
    let what = format!("{} {namespace}/{name}", calls.shown);
    let version = calls.version(due).map_err(|trouble| trouble.fault("ask kubectl its version"))?;
    check_version(&version)?;
    let reading = |trouble: Trouble| trouble.fault(&format!("read {what}"));
    let object = calls.read(namespace, &[name], due).map_err(reading)?.remove(name);
    let object =
        object.ok_or_else(|| parked(Code::TargetNotFound, format!("there is no {what}")))?;
    let seen = Seen::read(&object)
        .ok_or_else(|| parked(Code::UnsupportedIntent, format!("{what} has no `spec.replicas`")))?;
    let list = calls.autoscalers(namespace, due);
    let list =
        list.map_err(|trouble| trouble.fault(&format!("read the autoscalers of {namespace}")))?;
    let ours = autoscalers(&list, &settings.workload, name);
    let planned = plan(&what, &seen, &ours, intent.replicas, settings.hpa)?;
    let mut changes = Vec::new();
    let scaling = |trouble: Trouble| trouble.fault(&format!("scale {what}"));
    if let Some(floor) = &planned.floor {
        calls.floor(namespace, floor, true, due).map_err(scaling)?;
        changes.push(Change {
            path: format!(
                "horizontalpodautoscalers.autoscaling/{namespace}/{}",
                floor.autoscaler.name
            ),
            before: format!("minReplicas: {}\n", floor.autoscaler.min),
            after: format!("minReplicas: {}\n", floor.min),
        });
    }
    if planned.to != seen.replicas {
        let version = &seen.resource_version;
        let printed =
            calls.scale(namespace, name, planned.to, version, true, due).map_err(scaling)?;
        // A kubectl before 1.36 prints the number of before.
        let to = printed.filter(|printed| *printed != seen.replicas).unwrap_or(planned.to);
        changes.push(Change {
            path: format!("{}/{namespace}/{name}", calls.shown),
            before: format!("replicas: {}\n", seen.replicas),
            after: format!("replicas: {to}\n"),
        });
    }
    Ok(if changes.is_empty() { Comparison::Same } else { Comparison::Different(changes) })
}
