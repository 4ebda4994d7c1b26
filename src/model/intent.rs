//! An intent as the rest of the program sees it, after the schema has accepted the document.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The priority of a document that names none.
pub const PRIORITY_DEFAULT: u8 = 5;

/// One intent document. Fields stand in the order of the schema: serialising writes that order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    pub intent_type: IntentType,
    pub target: String,
    pub namespace: String,
    pub replicas: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Progress>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_resources: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nephio_context: Option<NephioContext>,
}

impl Intent {
    /// The priority that counts: the document's, else [`PRIORITY_DEFAULT`].
    pub fn priority(&self) -> u8 {
        self.priority.unwrap_or(PRIORITY_DEFAULT)
    }

    /// What the intent acts on; intents with one key take effect in ledger order.
    pub fn key(&self) -> TargetKey {
        TargetKey {
            intent_type: self.intent_type,
            namespace: self.namespace.clone(),
            target: self.target.clone(),
        }
    }
}

/// What an intent asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentType {
    Scaling,
    Deployment,
    Configuration,
}

impl IntentType {
    pub fn as_str(self) -> &'static str {
        match self {
            IntentType::Scaling => "scaling",
            IntentType::Deployment => "deployment",
            IntentType::Configuration => "configuration",
        }
    }
}

impl fmt::Display for IntentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who wrote the document, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    User,
    Planner,
    Test,
    /// The producer left the field empty.
    #[serde(rename = "")]
    Unsaid,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Source::User => "user",
            Source::Planner => "planner",
            Source::Test => "test",
            Source::Unsaid => "",
        }
    }
}

/// The document's `status`: informative, never acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Progress {
    Pending,
    Processing,
    Completed,
    Failed,
}

/// Bounds that the producer sets on its own intent; enforced, and open to further keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Constraints {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kpt_package_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub porch_repository: Option<String>,
    /// Keys that we do not know, sorted by name.
    #[serde(flatten)]
    pub further: Map<String, Value>,
}

/// Where in a Nephio installation the intent belongs; informative.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NephioContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blueprint_name: Option<String>,
}

/// The unit of ordering and superseding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey {
    pub intent_type: IntentType,
    pub namespace: String,
    pub target: String,
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.target)
    }
}
