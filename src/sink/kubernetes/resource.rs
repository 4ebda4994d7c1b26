//! The custom resource NetworkIntent, from which its definition is made.

use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an intent asks of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "intent.nephoran.com",
    version = "v1alpha1",
    kind = "NetworkIntent",
    namespaced,
    status = "NetworkIntentStatus",
    shortname = "ni",
    derive = "PartialEq",
    doc = "An intent for the network, as it was dropped.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.target"}"#,
    printcolumn = r#"{"name":"Replicas","type":"integer","jsonPath":".spec.replicas"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct NetworkIntentSpec {
    /// Who wrote the intent.
    #[serde(default = "source_default")]
    pub source: String,
    /// What it asks for: scaling, deployment or configuration.
    pub intent_type: String,
    /// What it acts on.
    #[schemars(length(min = 1, max = 63))]
    pub target: String,
    /// The namespace of the target.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// How many replicas the target is to have.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_parameters: Option<ScalingParameters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_parameters: Option<NetworkParameters>,
}

/// Details of a scaling intent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling_policy: Option<AutoscalingPolicy>,
}

/// How the target may be scaled without further intents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingPolicy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metric_thresholds: Vec<MetricThreshold>,
}

/// One metric and the value at which it matters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricThreshold {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: i64,
}

/// Details of the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_slice_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos_profile: Option<QosProfile>,
}

/// The quality of service that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QosProfile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_data_rate: Option<String>,
}

/// What has become of it, by whoever carries it out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkIntentStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub llm_response: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed_endpoints: Vec<Endpoint>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    Pending,
    Validating,
    Validated,
    Deploying,
    Deployed,
    Failed,
    Error,
}

/// One aspect of the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Something that was reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contacted_at: Option<String>,
}

fn source_default() -> String {
    "conductor-loop".to_owned()
}

/// The CustomResourceDefinition as YAML, ready for `kubectl apply -f -`.
///
/// # Errors
///
/// It cannot be written as YAML.
pub fn crd() -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(&NetworkIntent::crd())
}
