//! Fills a site's Deployment template: the site says what runs, the intent says where and how many.
//!
//! The template is one Deployment in YAML. Name, namespace, replicas, the `app.kubernetes.io` labels
//! and the label by which the Deployment finds its pods are ours; everything else is kept. The
//! result is written with its keys sorted, as kubectl prints them; comments are not kept.

use serde_json::{Map, Value, json};

use crate::compose::krm::MANAGED_BY;
use crate::compose::{Error, text};
use crate::model::Intent;

/// Tells whether a template can be filled, without an intent.
///
/// # Errors
///
/// [`Error`] names what has to be mended.
pub fn check_template(template: &str) -> Result<(), Error> {
    parse(template).map(drop)
}

/// The Deployment of one intent.
pub fn fill(template: &str, intent: &Intent) -> Result<String, Error> {
    let mut root = parse(template)?;
    let name = json!({ "app.kubernetes.io/name": intent.target });
    let metadata = object(&mut root, "metadata", "metadata")?;
    metadata.insert("name".to_owned(), json!(intent.target));
    metadata.insert("namespace".to_owned(), json!(intent.namespace));
    let labels = object(metadata, "labels", "metadata.labels")?;
    merge(labels, &name);
    merge(labels, &json!({ "app.kubernetes.io/managed-by": MANAGED_BY }));
    let annotations = object(metadata, "annotations", "metadata.annotations")?;
    // A site that wants its Deployments pruned with their packages says so in the template.
    annotations.entry("client.lifecycle.config.k8s.io/deletion").or_insert_with(|| json!("detach"));
    let spec = object(&mut root, "spec", "spec")?;
    spec.insert("replicas".to_owned(), json!(intent.replicas));
    let selector = object(spec, "selector", "spec.selector")?;
    merge(object(selector, "matchLabels", "spec.selector.matchLabels")?, &name);
    let pod = object(spec, "template", "spec.template")?;
    let pod = object(pod, "metadata", "spec.template.metadata")?;
    merge(object(pod, "labels", "spec.template.metadata.labels")?, &name);
    Ok(text::yaml(&root))
}

fn parse(template: &str) -> Result<Map<String, Value>, Error> {
    if let Some(char) = template.chars().find(|char| !survives(*char)) {
        return Err(Error::Character { code: u32::from(char) });
    }
    let value: Value = serde_saphyr::from_str(template)
        .map_err(|source| Error::Parse { source: Box::new(source) })?;
    let field = |field, expected| Error::Field { field, expected };
    let Value::Object(mut root) = value else {
        return Err(field("kind", "Deployment"));
    };
    for (name, expected) in [("apiVersion", "apps/v1"), ("kind", "Deployment")] {
        if root.get(name).and_then(Value::as_str) != Some(expected) {
            return Err(field(name, expected));
        }
    }
    let spec = object(&mut root, "spec", "spec")?;
    let pod = object(spec, "template", "spec.template")?;
    let pod_labels = object(pod, "metadata", "spec.template.metadata")?;
    let pod_labels = object(pod_labels, "labels", "spec.template.metadata.labels")?.clone();
    let containers = object(pod, "spec", "spec.template.spec")?.get("containers");
    let named = |container: &Value| ["name", "image"].iter().all(|key| container[*key].is_string());
    match containers.and_then(Value::as_array) {
        Some(containers) if !containers.is_empty() && containers.iter().all(named) => {}
        _ => return Err(field("spec.template.spec.containers", "a list with name and image each")),
    }
    let selector = object(spec, "selector", "spec.selector")?;
    let wanted = object(selector, "matchLabels", "spec.selector.matchLabels")?;
    if wanted.iter().any(|(key, value)| !ours(key) && pod_labels.get(key) != Some(value)) {
        return Err(field("spec.template.metadata.labels", "as spec.selector.matchLabels"));
    }
    // Asked for here as well, so that a template that passes the check can always be filled.
    let metadata = object(&mut root, "metadata", "metadata")?;
    object(metadata, "labels", "metadata.labels")?;
    object(metadata, "annotations", "metadata.annotations")?;
    Ok(root)
}

fn ours(label: &str) -> bool {
    label == "app.kubernetes.io/name"
}

/// The object under `key`, made when it is missing or null.
fn object<'a>(
    parent: &'a mut Map<String, Value>,
    key: &str,
    field: &'static str,
) -> Result<&'a mut Map<String, Value>, Error> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or(Error::Field { field, expected: "a mapping" })
}

fn merge(into: &mut Map<String, Value>, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into.insert(key.clone(), value.clone());
    }
}

/// Whether kpt writes the character back as it read it.
fn survives(char: char) -> bool {
    match char {
        '\n' | '\t' | '\r' => true,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        _ => !char.is_control() && char <= '\u{ffff}',
    }
}
