//! What a client sees of an answer, without what differs from server to server.

use serde_json::{Value, json};

use super::client::Answer;

/// Status, media type, and the body without names, times, versions and uids of one server.
#[derive(Clone, PartialEq)]
pub struct Seen {
    pub status: u16,
    pub content_type: String,
    pub body: Value,
}

/// What one side has told so far.
pub struct Known {
    pub namespace: String,
    version: String,
    uid: String,
}

impl Known {
    pub fn new(namespace: &str) -> Self {
        Known { namespace: namespace.to_owned(), version: String::new(), uid: String::new() }
    }

    /// A path or a body of a step, for this side.
    pub fn fill(&self, text: &str) -> String {
        text.replace("{NS}", &self.namespace)
            .replace("{RV}", &self.version)
            .replace("{UID}", &self.uid)
    }

    pub fn see(&mut self, answer: &Answer) -> Seen {
        let first = answer.json();
        for (kept, key) in [(&mut self.version, "resourceVersion"), (&mut self.uid, "uid")] {
            if let Some(value) = first["metadata"][key].as_str() {
                *kept = value.to_owned();
            }
        }
        let events = answer.lines();
        let body = if events.iter().any(|event| event.get("object").is_some()) {
            events.iter().map(|event| self.event(event)).collect()
        } else if first.is_null() {
            json!(answer.text.trim_end())
        } else {
            self.object(&first)
        };
        let content_type = answer.header("content-type").to_owned();
        Seen { status: answer.status, content_type, body }
    }

    fn event(&self, event: &Value) -> Value {
        json!({"type": event["type"], "object": self.object(&event["object"])})
    }

    fn object(&self, object: &Value) -> Value {
        match object["kind"].as_str().unwrap_or_default() {
            "Status" => self.status(object),
            "APIResourceList" => resources(object),
            "APIGroup" => object.clone(),
            "SelfSubjectAccessReview" => json!({
                "kind": object["kind"], "apiVersion": object["apiVersion"],
                "spec": self.texts(&object["spec"]), "allowed": object["status"]["allowed"],
            }),
            kind if kind.ends_with("List") => json!({
                "kind": kind, "apiVersion": object["apiVersion"],
                "version": object["metadata"]["resourceVersion"].is_string(),
                "items": object["items"].as_array().into_iter().flatten()
                    .map(|item| self.item(object, item)).collect::<Vec<_>>(),
            }),
            // The version of the server.
            "" if object.get("gitVersion").is_some() => {
                json!({"major": object["major"], "minor": object["minor"]})
            }
            _ => self.thing(object),
        }
    }

    /// An item of a list, which may not say itself what it is.
    fn item(&self, list: &Value, item: &Value) -> Value {
        let mut whole = item.clone();
        whole["apiVersion"] = list["apiVersion"].clone();
        let mut seen = self.thing(&whole);
        seen["apiVersion"] = item["apiVersion"].clone();
        seen
    }

    /// An object of the cluster: whose it is, what it wants, and who wants that.
    fn thing(&self, object: &Value) -> Value {
        let metadata = &object["metadata"];
        let mut spec = object["spec"].clone();
        if object["apiVersion"] == "apps/v1" || object["apiVersion"] == "autoscaling/v2" {
            // The rest is filled in by the real one.
            spec = json!({});
            for key in ["replicas", "minReplicas", "maxReplicas", "selector"] {
                spec[key] = object["spec"][key].clone();
            }
        }
        let told = ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"];
        let told: Vec<&str> = told.into_iter().filter(|it| metadata.get(it).is_some()).collect();
        let owners = metadata["managedFields"].as_array().into_iter().flatten();
        let owners = owners.filter(|owner| {
            let fields = &owner["fieldsV1"]["f:spec"];
            fields.get("f:replicas").is_some() || fields.get("f:minReplicas").is_some()
        });
        let owner = |it: &Value| {
            json!([it["manager"], it["operation"], it["apiVersion"], it["subresource"]])
        };
        self.texts(&json!({
            "kind": object["kind"], "apiVersion": object["apiVersion"],
            "name": metadata["name"], "namespace": metadata["namespace"],
            "generation": metadata["generation"], "labels": metadata["labels"],
            "has": told,
            "spec": spec, "selector": object["status"]["selector"],
            "phase": object["status"]["phase"], "owners": owners.map(owner).collect::<Vec<_>>(),
        }))
    }

    fn status(&self, status: &Value) -> Value {
        let mut status = self.texts(status);
        if let Some(details) = status.get_mut("details") {
            super::store::remove(details, "uid");
        }
        // Conflicts come in any order.
        if let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) {
            causes.sort_by_key(Value::to_string);
        }
        status
    }

    /// The same with all strings made comparable.
    fn texts(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.texts(item)).collect(),
            Value::Object(items) => {
                items.iter().map(|(key, value)| (key.clone(), self.texts(value))).collect()
            }
            other => other.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (it, name) in [(&self.namespace, "NAMESPACE"), (&self.uid, "UID")] {
            if !it.is_empty() {
                // As a word, so that a short name does not hit inside of others.
                let quotes = [("\"", "\""), ("namespace ", " ")];
                for (before, after) in quotes {
                    let from = format!("{before}{it}{after}");
                    text = text.replace(&from, &format!("{before}{name}{after}"));
                }
                if text == *it {
                    text = name.to_owned();
                }
                if name == "UID" {
                    text = text.replace(it.as_str(), name);
                }
            }
        }
        // An object inside of a sentence.
        if let (Some(start), Some(end)) = (text.find("\"{"), text.rfind("}\"")) {
            text.replace_range(start..end + 2, "OBJECT");
        }
        if text.starts_with("too old resource version") {
            text.truncate("too old resource version".len());
        }
        text
    }
}

/// Of a version's discovery what both have; the fake has fewer resources.
fn resources(list: &Value) -> Value {
    let wanted = ["deployments", "statefulsets", "horizontalpodautoscalers", "gadgets"];
    let all = list["resources"].as_array().into_iter().flatten();
    let these = all.filter(|it| {
        let name = it["name"].as_str().unwrap_or_default();
        wanted.contains(&name.split('/').next().unwrap_or_default())
    });
    let mut these: Vec<Value> = these
        .map(|it| {
            let mut it = it.clone();
            for key in ["storageVersionHash", "categories"] {
                super::store::remove(&mut it, key);
            }
            let mut verbs: Vec<Value> = it["verbs"].as_array().cloned().unwrap_or_default();
            verbs.sort_by_key(Value::to_string);
            it["verbs"] = json!(verbs);
            it
        })
        .collect();
    these.sort_by_key(|it| it["name"].to_string());
    json!({
        "kind": list["kind"], "apiVersion": list["apiVersion"],
        "groupVersion": list["groupVersion"], "resources": these,
    })
}
