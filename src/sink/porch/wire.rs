//! What Porch says of its objects, cut down to what is decided by.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::sink::porch::seen::{Lifecycle, Origin, Revision, Texts};
use crate::sink::porch::wanted::{APPROVAL, DIGEST, INTENT_ID, LATEST, SOURCE, TARGET};

/// A PackageRevision as it comes.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageRevision {
    metadata: Metadata,
    spec: RevisionSpec,
}

/// An answer to LIST.
#[derive(Debug, Deserialize)]
pub struct PackageRevisions {
    #[serde(default, deserialize_with = "null_is_default")]
    pub items: Vec<PackageRevision>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    deletion_timestamp: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    owner_references: Vec<Owner>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevisionSpec {
    lifecycle: Lifecycle,
    /// A number; `"v3"` before Porch 1.4.
    #[serde(default)]
    revision: Value,
    #[serde(default, deserialize_with = "null_is_default")]
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    #[serde(default)]
    init: Option<Init>,
    #[serde(default)]
    edit: Option<Edit>,
}

#[derive(Debug, Deserialize)]
struct Init {
    #[serde(default)]
    description: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Edit {
    #[serde(default, deserialize_with = "null_is_default")]
    source_ref: SourceRef,
}

#[derive(Debug, Default, Deserialize)]
struct SourceRef {
    #[serde(default)]
    name: String,
}

impl Task {
    fn origin(self) -> Option<Origin> {
        let new = |Init { description }| Origin::New { description };
        let copy = |edit: Edit| Origin::Copy { source: edit.source_ref.name };
        self.init.map(new).or(self.edit.map(copy))
    }
}

impl From<PackageRevision> for Revision {
    fn from(PackageRevision { metadata, spec }: PackageRevision) -> Self {
        let note = |name: &str| metadata.annotations.get(name).cloned();
        let owner = |owner: &Owner| format!("{} `{}`", owner.kind, owner.name);
        let numbered = |text: &str| text.trim_start_matches('v').parse().ok();
        let number = spec.revision.as_i64().or_else(|| spec.revision.as_str().and_then(numbered));
        Revision {
            lifecycle: spec.lifecycle,
            number: number.unwrap_or(0),
            is_latest: metadata.labels.get(LATEST).is_some_and(|value| value == "true"),
            is_going: metadata.deletion_timestamp.is_some(),
            owner: metadata.owner_references.first().map(owner),
            target: metadata.labels.get(TARGET).cloned(),
            intent: note(INTENT_ID),
            digest: note(DIGEST),
            source: note(SOURCE),
            approval: note(APPROVAL),
            origin: spec.tasks.into_iter().next().and_then(Task::origin),
            name: metadata.name,
            version: metadata.resource_version,
        }
    }
}

/// A PackageRevisionResources as it comes.
#[derive(Debug, Deserialize)]
pub struct Resources {
    metadata: Metadata,
    spec: ResourcesSpec,
    #[serde(default, deserialize_with = "null_is_default")]
    status: ResourcesStatus,
}

#[derive(Debug, Deserialize)]
struct ResourcesSpec {
    #[serde(default, deserialize_with = "null_is_default")]
    resources: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourcesStatus {
    #[serde(default, deserialize_with = "null_is_default")]
    render_status: RenderStatus,
}

#[derive(Debug, Default, Deserialize)]
struct RenderStatus {
    #[serde(default)]
    error: String,
    #[serde(default, deserialize_with = "null_is_default")]
    result: RenderResult,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RenderResult {
    #[serde(default)]
    exit_code: i64,
    #[serde(default, deserialize_with = "null_is_default")]
    items: Vec<Function>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Function {
    #[serde(default)]
    image: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    stderr: String,
}

impl From<Resources> for Texts {
    fn from(Resources { metadata, spec, status }: Resources) -> Self {
        let RenderStatus { error, result } = status.render_status;
        let failing = result.items.iter().find(|function| function.exit_code != 0);
        let render_error = match failing {
            _ if !error.is_empty() => Some(error),
            Some(Function { image, exit_code, stderr }) => {
                Some(format!("the function {image} ends with {exit_code}: {stderr}"))
            }
            None if result.exit_code != 0 => {
                Some(format!("its functions end with {}", result.exit_code))
            }
            None => None,
        };
        Texts {
            version: metadata.resource_version,
            files: spec.resources,
            render_error,
            is_going: metadata.deletion_timestamp.is_some(),
        }
    }
}

/// A Repository as it comes.
#[derive(Debug, Deserialize)]
pub struct Repository {
    metadata: RepositoryMetadata,
    #[serde(default, deserialize_with = "null_is_default")]
    status: RepositoryStatus,
}

#[derive(Debug, Deserialize)]
struct RepositoryMetadata {
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct RepositoryStatus {
    #[serde(default, deserialize_with = "null_is_default")]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
}

impl Repository {
    /// Whether its revisions are served by the newer API alone.
    pub fn is_of_v1alpha2(&self) -> bool {
        let annotation = self.metadata.annotations.get("porch.kpt.dev/v1alpha2-migration");
        annotation.is_some_and(|value| value == "true")
    }

    /// Why it is not ready, in its own words.
    pub fn unready(&self) -> Option<String> {
        match self.status.conditions.iter().find(|condition| condition.r#type == "Ready") {
            None => Some("Porch has not looked at it yet".to_owned()),
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(ready.message.clone()),
        }
    }
}

/// Porch's server leaves empty things out or writes `null`, as Go does.
fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_revision_is_read_with_a_number_of_either_form() {
        let read = |spec: Value| -> Revision {
            let object = json!({"metadata": {"name": "r.p.w", "resourceVersion": "7",
                "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {LATEST: "true"},
                "annotations": {INTENT_ID: "3@x"}, "ownerReferences": [
                    {"kind": "PackageVariant", "name": "v"}]}, "spec": spec});
            serde_json::from_value::<PackageRevision>(object).unwrap().into()
        };
        let new = read(json!({"lifecycle": "Published", "revision": 3}));
        assert_eq!((new.number, new.lifecycle), (3, Lifecycle::Published));
        assert!(new.is_latest && new.is_going);
        assert_eq!(new.owner.as_deref(), Some("PackageVariant `v`"));
        assert_eq!(new.intent.as_deref(), Some("3@x"));
        assert_eq!(read(json!({"lifecycle": "Draft", "revision": "v12"})).number, 12);
        assert_eq!(read(json!({"lifecycle": "Proposed"})).number, 0);
    }

    #[test]
    fn a_failed_render_is_told_wherever_porch_says_it() {
        let read = |status: Value| -> Option<String> {
            let object = json!({"metadata": {"name": "n"}, "spec": {"resources": null},
                "status": {"renderStatus": status}});
            Texts::from(serde_json::from_value::<Resources>(object).unwrap()).render_error
        };
        assert_eq!(read(json!(null)), None);
        assert_eq!(read(json!({"error": "", "result": {"exitCode": 0, "items": null}})), None);
        assert_eq!(read(json!({"error": "no"})).unwrap(), "no");
        assert_eq!(read(json!({"result": {"exitCode": 1}})).unwrap(), "its functions end with 1");
        let items = json!([{"image": "a", "exitCode": 0}, {"image": "b", "exitCode": 2,
            "stderr": "bad"}]);
        assert_eq!(
            read(json!({"result": {"exitCode": 1, "items": items}})).unwrap(),
            "the function b ends with 2: bad"
        );
    }

    #[test]
    fn a_repository_says_whether_it_is_ready_and_for_us() {
        let read = |object: Value| serde_json::from_value::<Repository>(object).unwrap();
        let ready = read(json!({"metadata": {}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "message": "x"}]}}));
        assert_eq!((ready.unready(), ready.is_of_v1alpha2()), (None, false));
        let failing = read(json!({"metadata": {"annotations":
            {"porch.kpt.dev/v1alpha2-migration": "true"}}, "status": {"conditions": [
            {"type": "Ready", "status": "False", "message": "no such host"}]}}));
        assert_eq!(failing.unready().unwrap(), "no such host");
        assert!(failing.is_of_v1alpha2());
        assert!(read(json!({"metadata": {}})).unready().is_some());
    }
}
