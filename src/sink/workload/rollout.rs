//! Judges how far a workload has followed a write, by the rules of kstatus.
//!
//! The server's own word on a rollout is not enough: after a scale-out `Progressing` stays true while
//! pods are pending, and no deadline of its ever fires. So replicas are counted here, and the time
//! that a sink allows is the sink's.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta, Resource};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::config::Workload;
use crate::sink::workload::autoscaler::group;
use crate::sink::workload::{Written, is_at_least};

/// How long a condition that says "failed" has to stand after the write: the one of an earlier
/// rollout stays for a moment until its controller has come round.
const FAILURE_SETTLES: Duration = Duration::from_secs(3);

/// An object of any kind with replicas, as far as it matters here. Each change of each object of a
/// namespace is read, so what is not asked for is skipped and not kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wire {
    pub metadata: Meta,
    pub spec: Spec,
    pub status: Option<Status>,
}

/// The `metadata` of a workload.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "WireMeta")]
pub struct Meta {
    /// Without labels, annotations, owners and managed fields.
    object: ObjectMeta,
    writers: Vec<Writer>,
}

/// Who has written to an object, and whether that was the count.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Writer {
    manager: Option<String>,
    subresource: String,
    /// In the form of RFC 3339 and UTC, which sorts as it is.
    time: String,
    fields_v1: Fields,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(rename = "f:spec")]
    spec: SpecFields,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct SpecFields {
    #[serde(rename = "f:replicas")]
    replicas: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    managed_fields: Vec<Writer>,
}

impl From<WireMeta> for Meta {
    fn from(wire: WireMeta) -> Self {
        let WireMeta { name, namespace, uid, resource_version, generation, .. } = wire;
        let deletion_timestamp = wire.deletion_timestamp;
        let object = ObjectMeta {
            name,
            namespace,
            uid,
            resource_version,
            generation,
            deletion_timestamp,
            ..ObjectMeta::default()
        };
        Meta { object, writers: wire.managed_fields }
    }
}

impl Deref for Meta {
    type Target = ObjectMeta;

    fn deref(&self) -> &ObjectMeta {
        &self.object
    }
}

impl Resource for Wire {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata.object
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata.object
    }
}

/// The `spec` of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub replicas: Option<i64>,
    pub paused: bool,
    pub update_strategy: Strategy,
}

/// How a StatefulSet brings pods up to date; other kinds have nothing of it that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Strategy {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "rollingUpdate")]
    pub rolling: Option<Rolling>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rolling {
    pub partition: i64,
}

/// The `status` of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub observed_generation: Option<i64>,
    pub replicas: i64,
    pub updated_replicas: i64,
    pub ready_replicas: Option<i64>,
    pub available_replicas: i64,
    pub current_replicas: i64,
    pub current_revision: String,
    pub update_revision: String,
    pub conditions: Vec<Condition>,
}

/// One condition of a status; `kind` is its type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
}

/// How far the workload has come. `missing` says in a few words what is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The write is stored; its controller has not seen it.
    Accepted { missing: String },
    /// Its controller has seen it.
    Observed { missing: String },
    /// All replicas are updated and ready, and there are no others.
    Converged,
    /// Its controller has seen it and reports that it does not get on.
    Failed { reason: String, message: String },
    /// It is being deleted.
    Terminating,
    /// Somebody has set another count since.
    Changed { replicas: i64, by: Option<String> },
}

impl Standing {
    /// Whether its controller has seen the write.
    pub fn is_observed(&self) -> bool {
        matches!(self, Standing::Observed { .. } | Standing::Failed { .. } | Standing::Converged)
    }
}

/// Judges the object as it was seen last, so long after the write.
pub fn judge(kind: &Workload, object: &Wire, written: &Written, after: Duration) -> Standing {
    if object.metadata.deletion_timestamp.is_some() {
        return Standing::Terminating;
    }
    let is_scaled = written.through.is_none();
    let version = object.metadata.resource_version.as_deref().unwrap_or_default();
    // Versions of an autoscaler and of a workload say nothing of each other.
    if is_scaled && is_at_least(version, &written.resource_version) == Some(false) {
        let missing = "the server has not shown the write yet".to_owned();
        return Standing::Accepted { missing };
    }
    let wanted = i64::from(written.wanted);
    // A kind that keeps its count elsewhere shows none; the server has said that it stored ours.
    let replicas = object.spec.replicas.unwrap_or(if is_apps(kind) { 1 } else { wanted });
    match &written.through {
        None if replicas != wanted => {
            return Standing::Changed { replicas, by: owner(object).map(|it| it.0) };
        }
        Some(hpa) if replicas < wanted => {
            let missing =
                format!("HorizontalPodAutoscaler `{hpa}` has not raised it above {replicas} yet");
            return Standing::Accepted { missing };
        }
        _ => {}
    }
    let status = object.status.clone().unwrap_or_default();
    if let Some(missing) = unobserved(kind, object, &status, written) {
        return Standing::Accepted { missing };
    }
    let missing = match kind.kind.as_str() {
        "StatefulSet" if is_apps(kind) => short_of_stateful_set(&object.spec, &status, replicas),
        "Deployment" if is_apps(kind) => short_of_deployment(&object.spec, &status, replicas),
        _ => short_of_any(&status, replicas),
    };
    let Some(missing) = missing else { return Standing::Converged };
    match failure(&status, replicas) {
        Some(it) if after >= FAILURE_SETTLES => {
            Standing::Failed { reason: it.reason.clone(), message: it.message.clone() }
        }
        Some(it) => Standing::Observed { missing: format!("{missing}; {}", it.message) },
        None => Standing::Observed { missing },
    }
}

/// Who has set the count last, and by which subresource.
pub fn owner(object: &Wire) -> Option<(String, String)> {
    let sets = |writer: &&Writer| writer.fields_v1.spec.replicas.is_some();
    let last = object.metadata.writers.iter().filter(sets).max_by_key(|writer| &writer.time)?;
    Some((last.manager.clone()?, last.subresource.clone()))
}

fn is_apps(kind: &Workload) -> bool {
    group(&kind.api_version) == "apps"
}

/// What the controller has yet to say before it is known to have seen the write.
fn unobserved(
    kind: &Workload,
    object: &Wire,
    status: &Status,
    written: &Written,
) -> Option<String> {
    let generation = object.metadata.generation.max(written.generation).unwrap_or_default();
    match status.observed_generation {
        Some(observed) if observed >= generation => None,
        Some(observed) => Some(format!(
            "its controller has seen generation {observed}, and the write made {generation}"
        )),
        None if is_apps(kind) || status.replicas != i64::from(written.wanted) => {
            Some("its controller has not reported that it saw the write".to_owned())
        }
        None => None,
    }
}

fn short_of_deployment(spec: &Spec, status: &Status, replicas: i64) -> Option<String> {
    let Status { updated_replicas: updated, available_replicas: available, .. } = *status;
    let ready = status.ready_replicas.unwrap_or_default();
    let of = |count: i64, what: &str| Some(format!("{count} of {replicas} replicas {what}"));
    if status.replicas < replicas {
        return of(status.replicas, if spec.paused { "made, and it is paused" } else { "made" });
    }
    if updated < replicas {
        return of(updated, if spec.paused { "updated, and it is paused" } else { "updated" });
    }
    if status.replicas > replicas {
        return Some(surplus(status.replicas - replicas));
    }
    if ready < replicas {
        return of(ready, "ready");
    }
    if available < updated {
        return of(available, "available");
    }
    let progressing = condition(status, "Progressing");
    if progressing.is_some_and(|it| it.reason != "NewReplicaSetAvailable" && !spec.paused) {
        return Some("its rollout is still under way".to_owned());
    }
    if condition(status, "Available").is_none_or(|it| it.status != "True") {
        return Some("it is not reported as available".to_owned());
    }
    None
}

fn short_of_stateful_set(spec: &Spec, status: &Status, replicas: i64) -> Option<String> {
    if let Some(missing) = short_of_any(status, replicas) {
        return Some(missing);
    }
    let of = |count: i64, all: i64| Some(format!("{count} of {all} replicas updated"));
    if spec.update_strategy.kind == "OnDelete" {
        return None;
    }
    let partition = spec.update_strategy.rolling.as_ref().map_or(0, |rolling| rolling.partition);
    if partition > 0 {
        let all = (replicas - partition).max(0);
        return if status.updated_replicas < all { of(status.updated_replicas, all) } else { None };
    }
    if status.current_replicas < replicas {
        return of(status.updated_replicas, replicas);
    }
    (status.current_revision != status.update_revision)
        .then(|| "its rollout is still under way".to_owned())
}

/// For kinds of which only the common counts are known, and of those only what is shown.
fn short_of_any(status: &Status, replicas: i64) -> Option<String> {
    if status.replicas < replicas {
        return Some(format!("{} of {replicas} replicas made", status.replicas));
    }
    if let Some(ready) = status.ready_replicas.filter(|ready| *ready < replicas) {
        return Some(format!("{ready} of {replicas} replicas ready"));
    }
    (status.replicas > replicas).then(|| surplus(status.replicas - replicas))
}

fn surplus(count: i64) -> String {
    format!("{count} surplus {} to end", if count == 1 { "replica has" } else { "replicas have" })
}

fn condition<'a>(status: &'a Status, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.kind == kind)
}

/// The condition that says that waiting will not help. Pods that cannot be made only matter while
/// there are too few.
fn failure(status: &Status, replicas: i64) -> Option<&Condition> {
    let deadline = condition(status, "Progressing")
        .filter(|it| it.status == "False" && it.reason == "ProgressDeadlineExceeded");
    let too_few = status.replicas < replicas;
    deadline
        .or_else(|| condition(status, "ReplicaFailure").filter(|it| it.status == "True" && too_few))
}

#[cfg(test)]
mod tests;
