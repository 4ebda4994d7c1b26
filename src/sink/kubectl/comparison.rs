//! What a delivery would change, told by a dry run at the server.

use std::time::Instant;

use crate::config::KubectlSettings;
use crate::limits::DELIVERY_MAX;
use crate::model::{Code, Intent, IntentType};
use crate::sink::kubectl::calls::Calls;
use crate::sink::kubectl::looks::{autoscalers, check_stays, workload};
use crate::sink::kubectl::program::Program;
use crate::sink::kubectl::saying::Trouble;
use crate::sink::kubectl::{check_version, unsupported};
use crate::sink::workload::autoscaler::{Decision, decide};
use crate::sink::workload::location;
use crate::sink::{Change, Comparison, Fault, Retry};

/// Asks the server and changes nothing there.
///
/// # Errors
///
/// The fault that the delivery would meet.
pub fn compare(settings: &KubectlSettings, intent: &Intent) -> Result<Comparison, Fault> {
    if intent.intent_type != IntentType::Scaling {
        return Err(unsupported(intent));
    }
    let calls = Calls::new(Program::new(settings, None), &settings.workload).map_err(|error| {
        let message = error.to_string();
        Fault { code: Code::SinkUnavailable, message, retry: Retry::Never }
    })?;
    let due = Instant::now() + DELIVERY_MAX;
    let (namespace, name, kind) = (&intent.namespace, &intent.target, &settings.workload);
    let place = location(kind, namespace, name);
    let cannot = |verb: &str, place: &str| {
        let what = format!("{verb} {place}");
        move |trouble: Trouble| trouble.fault(&what)
    };
    let version = calls.version(due).map_err(|trouble| trouble.fault("ask kubectl its version"))?;
    check_version(&version)?;
    let reading = cannot("read", &place);
    let found = calls.read(namespace, &[name], due).map_err(&reading)?.remove(name);
    let seen = workload(&found.ok_or_else(|| reading(calls.not_found(name)))?, &place)?;
    check_stays(&seen, &place)?;
    let list = calls
        .autoscalers(namespace, due)
        .map_err(cannot("read", &format!("horizontalpodautoscalers/{namespace}")))?;
    let decision = decide(&autoscalers(&list), kind, name, intent.replicas, settings.hpa)?;
    let (path, field, before, after) = match decision {
        Decision::Scale(to) if seen.spec.replicas != Some(i64::from(to)) => {
            let version = seen.metadata.resource_version.as_deref().unwrap_or_default();
            let printed = calls.scale(namespace, name, to, version, true, due);
            let printed = printed.map_err(cannot("scale", &place))?.map(i64::from);
            // A kubectl before 1.36 prints the number of before; a newer one what would be stored.
            let to = printed.filter(|it| Some(*it) != seen.spec.replicas).unwrap_or(i64::from(to));
            (place, "replicas", seen.spec.replicas, to)
        }
        Decision::RaiseFloor { hpa, resource_version, from, to } if from != to => {
            let floored = calls.floor(namespace, &hpa, to, &resource_version, true, due);
            floored.map_err(cannot("scale", &place))?;
            let path = format!("horizontalpodautoscalers/{namespace}/{hpa}");
            (path, "minReplicas", Some(i64::from(from)), i64::from(to))
        }
        Decision::Scale(_) | Decision::RaiseFloor { .. } => return Ok(Comparison::Same),
    };
    let text = |count: i64| format!("{field}: {count}\n");
    let before = before.map(text).unwrap_or_default();
    Ok(Comparison::Different(vec![Change { path, before, after: text(after) }]))
}
