//! The Kubernetes resources of a package, field by field in the order they are written.

use serde::Serialize;
use serde_saphyr::SingleQuoted;

use crate::compose::text::{json, yaml};
use crate::model::{Intent, IntentType, NephioContext};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource<'a, B> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    #[serde(flatten)]
    body: B,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Labels<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

#[derive(Serialize)]
struct Labels<'a> {
    #[serde(rename = "app.kubernetes.io/name")]
    name: &'a str,
    #[serde(rename = "app.kubernetes.io/managed-by", skip_serializing_if = "Option::is_none")]
    managed_by: Option<&'a str>,
}

#[derive(Serialize)]
enum Annotations {
    /// Keeps the resource out of the cluster: it is about the package.
    #[serde(rename = "config.kubernetes.io/local-config")]
    LocalConfig(&'static str),
    /// Pruning the package must not delete the workload.
    #[serde(rename = "client.lifecycle.config.k8s.io/deletion")]
    Deletion(&'static str),
}

const LOCAL_CONFIG: Annotations = Annotations::LocalConfig("true");
const DETACH: Annotations = Annotations::Deletion("detach");

/// Our name in `app.kubernetes.io/managed-by`.
pub const MANAGED_BY: &str = "intentd";

/// JSON as a YAML value: in single quotes it reads as it was written, and it has none but ASCII
/// characters that can be printed.
fn text(value: &impl Serialize) -> SingleQuoted<String> {
    SingleQuoted(json(value))
}

/// The Kptfile; its description is made of checked names only.
pub fn kptfile(package: &str, intent: &Intent) -> String {
    #[derive(Serialize)]
    struct Body {
        info: Info,
    }
    #[derive(Serialize)]
    struct Info {
        description: String,
    }
    let Intent { target, namespace, replicas, .. } = intent;
    let noun = if *replicas == 1 { "replica" } else { "replicas" };
    let description = match intent.intent_type {
        IntentType::Scaling => {
            format!("Scale Deployment {target} in namespace {namespace} to {replicas} {noun}")
        }
        IntentType::Deployment => {
            format!("Deployment {target} in namespace {namespace} with {replicas} {noun}")
        }
        IntentType::Configuration => format!("Configuration of {target} in namespace {namespace}"),
    };
    yaml(&Resource {
        api_version: "kpt.dev/v1",
        kind: "Kptfile",
        metadata: Metadata {
            name: package,
            namespace: None,
            labels: None,
            annotations: Some(LOCAL_CONFIG),
        },
        body: Body { info: Info { description } },
    })
}

/// The document itself, as provenance.
pub fn intent(intent: &Intent) -> String {
    #[derive(Serialize)]
    struct Body {
        data: Data,
    }
    #[derive(Serialize)]
    struct Data {
        #[serde(rename = "intent.json")]
        intent: SingleQuoted<String>,
    }
    yaml(&Resource {
        api_version: "v1",
        kind: "ConfigMap",
        metadata: Metadata {
            name: "intent",
            namespace: None,
            labels: None,
            annotations: Some(LOCAL_CONFIG),
        },
        body: Body { data: Data { intent: text(intent) } },
    })
}

/// The replicas of a Deployment and nothing else of it.
pub fn scaling(intent: &Intent) -> String {
    #[derive(Serialize)]
    struct Body {
        spec: Spec,
    }
    #[derive(Serialize)]
    struct Spec {
        replicas: u32,
    }
    yaml(&Resource {
        api_version: "apps/v1",
        kind: "Deployment",
        metadata: Metadata {
            name: &intent.target,
            namespace: Some(&intent.namespace),
            labels: None,
            annotations: Some(DETACH),
        },
        body: Body { spec: Spec { replicas: intent.replicas } },
    })
}

/// What the intent wants of its target, for whoever reads it in the cluster.
pub fn configuration(intent: &Intent) -> String {
    #[derive(Serialize)]
    struct Wish<'a> {
        target: &'a str,
        replicas: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        target_resources: Option<&'a [String]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        nephio_context: Option<&'a NephioContext>,
    }
    #[derive(Serialize)]
    struct Body {
        data: Data,
    }
    #[derive(Serialize)]
    struct Data {
        #[serde(rename = "configuration.json")]
        configuration: SingleQuoted<String>,
    }
    let configuration = text(&Wish {
        target: &intent.target,
        replicas: intent.replicas,
        target_resources: intent.target_resources.as_deref(),
        nephio_context: intent.nephio_context.as_ref(),
    });
    yaml(&Resource {
        api_version: "v1",
        kind: "ConfigMap",
        metadata: Metadata {
            name: &format!("{}-configuration", intent.target),
            namespace: Some(&intent.namespace),
            labels: Some(Labels { name: &intent.target, managed_by: Some(MANAGED_BY) }),
            annotations: None,
        },
        body: Body { data: Data { configuration } },
    })
}

/// A whole Deployment of one container.
pub fn deployment(intent: &Intent, image: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        spec: Spec<'a>,
    }
    #[derive(Serialize)]
    struct Spec<'a> {
        replicas: u32,
        selector: Selector<'a>,
        template: Pod<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Selector<'a> {
        match_labels: Labels<'a>,
    }
    #[derive(Serialize)]
    struct Pod<'a> {
        metadata: PodMetadata<'a>,
        spec: PodSpec<'a>,
    }
    #[derive(Serialize)]
    struct PodMetadata<'a> {
        labels: Labels<'a>,
    }
    #[derive(Serialize)]
    struct PodSpec<'a> {
        containers: [Container<'a>; 1],
    }
    #[derive(Serialize)]
    struct Container<'a> {
        name: &'a str,
        image: &'a str,
    }
    let target = intent.target.as_str();
    let labels = || Labels { name: target, managed_by: None };
    yaml(&Resource {
        api_version: "apps/v1",
        kind: "Deployment",
        metadata: Metadata {
            name: target,
            namespace: Some(&intent.namespace),
            labels: Some(Labels { name: target, managed_by: Some(MANAGED_BY) }),
            annotations: Some(DETACH),
        },
        body: Body {
            spec: Spec {
                replicas: intent.replicas,
                selector: Selector { match_labels: labels() },
                template: Pod {
                    metadata: PodMetadata { labels: labels() },
                    spec: PodSpec { containers: [Container { name: target, image }] },
                },
            },
        },
    })
}
