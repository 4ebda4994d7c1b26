//! The Kubernetes resources of a package, field by field in the order they are written.
//!
//! What every intent needs is filled into a form that was made of the library's own text once, as
//! long as each value is one that YAML takes as it stands; else the library writes it.

use std::sync::LazyLock;

use serde::Serialize;
use serde_saphyr::SingleQuoted;

use crate::compose::form::{Form, is_plain};
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
    static FORM: LazyLock<Form> = LazyLock::new(|| {
        Form::new(&write_kptfile("name-hole", "text-hole"), &["name-hole", "text-hole"])
    });
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
    if is_plain(package) && is_plain(&description) {
        FORM.fill(&[package, &description])
    } else {
        write_kptfile(package, &description)
    }
}

fn write_kptfile(package: &str, description: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        info: Info<'a>,
    }
    #[derive(Serialize)]
    struct Info<'a> {
        description: &'a str,
    }
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
    static FORM: LazyLock<Form> =
        LazyLock::new(|| Form::new(&write_intent("json-hole".to_owned()), &["json-hole"]));
    let text = json(intent);
    // In single quotes only the single quote itself is written in another way.
    if text.contains('\'') { FORM.fill(&[&text.replace('\'', "''")]) } else { FORM.fill(&[&text]) }
}

fn write_intent(json: String) -> String {
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
        body: Body { data: Data { intent: SingleQuoted(json) } },
    })
}

/// The replicas of a Deployment and nothing else of it.
pub fn scaling(intent: &Intent) -> String {
    const HOLES: [&str; 3] = ["name-hole", "space-hole", "4000000000"];
    static FORM: LazyLock<Form> =
        LazyLock::new(|| Form::new(&write_scaling(HOLES[0], HOLES[1], 4_000_000_000), &HOLES));
    let Intent { target, namespace, replicas, .. } = intent;
    if is_plain(target) && is_plain(namespace) {
        FORM.fill(&[target, namespace, &replicas.to_string()])
    } else {
        write_scaling(target, namespace, *replicas)
    }
}

fn write_scaling(target: &str, namespace: &str, replicas: u32) -> String {
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
            name: target,
            namespace: Some(namespace),
            labels: None,
            annotations: Some(DETACH),
        },
        body: Body { spec: Spec { replicas } },
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compose::tests::document;

    proptest! {
        #[test]
        fn a_filled_form_is_what_the_library_writes(
            target in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|true|null|yes|0x1f|1e3|2026-01-01",
            namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?|no|on|nan",
            intent_type in "scaling|deployment|configuration",
            replicas in 1u32..=100,
            reason in "\\PC{0,40}|['\"\\\\: #%&*!|>@`-]{0,20}",
        ) {
            let text = serde_json::json!({
                "intent_type": intent_type, "target": target, "namespace": namespace,
                "replicas": replicas, "reason": reason,
            });
            let wanted = document(&text.to_string());
            let package = crate::compose::package_name(&wanted.key());
            prop_assert_eq!(intent(&wanted), write_intent(json(&wanted)));
            prop_assert_eq!(scaling(&wanted), write_scaling(&target, &namespace, replicas));
            let filled = kptfile(&package, &wanted);
            let description = serde_saphyr::from_str::<serde_json::Value>(&filled).unwrap();
            let description = description["info"]["description"].as_str().unwrap();
            prop_assert_eq!(&filled, &write_kptfile(&package, description));
            prop_assert!(description.contains(&target));
        }
    }

    /// YAML's words for truth, nothing and numbers are short; a name that is one has to be quoted.
    #[test]
    fn every_short_name_is_written_as_the_library_writes_it() {
        let letters: Vec<String> =
            ('a'..='z').chain('0'..='9').map(|letter| letter.to_string()).collect();
        let longer = |names: &[String]| -> Vec<String> {
            names
                .iter()
                .flat_map(|name| letters.iter().map(move |l| format!("{name}{l}")))
                .collect()
        };
        let two = longer(&letters);
        let words = ["true", "false", "null", "infinity", "none", "undefined"].map(str::to_owned);
        for name in letters.iter().chain(&two).chain(&longer(&two)).chain(&words) {
            let written = write_scaling(name, "ran-a", 1);
            let plain = written.contains(&format!("  name: {name}\n"));
            assert!(plain || !is_plain(name), "{written}");
        }
    }
}
