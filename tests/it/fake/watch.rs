//! LIST and WATCH.

use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Last, Lines, Request, Response, Stream};
use super::kube::Target;
use super::resource::Resource;
use super::status;
use super::store::{Event, Happened, Key, Store};

/// The API server picks 30 to 60 minutes; no test waits that long.
const TIMEOUT: Duration = Duration::from_secs(1800);

pub fn list_or_watch(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
) -> Response {
    let selector = match Selector::parse(request, target) {
        Ok(selector) => selector,
        Err(response) => return *response,
    };
    if request.flag("watch") {
        watch(request, selector, resource, store)
    } else {
        list(request, &selector, resource, store)
    }
}

fn list(request: &Request, selector: &Selector, resource: &Resource, store: &Store) -> Response {
    let all = store.list(&resource.group, &resource.name, &selector.namespace);
    let mut items: Vec<Value> =
        all.into_iter().map(|(_, object)| object).filter(|object| selector.wants(object)).collect();
    let mut metadata = json!({"resourceVersion": store.version().to_string()});
    let skip = request.param("continue").and_then(|it| it.parse().ok()).unwrap_or(0_usize);
    let limit = request.param("limit").and_then(|it| it.parse().ok()).filter(|it| *it > 0_usize);
    items.drain(..skip.min(items.len()));
    if let Some(limit) = limit
        && items.len() > limit
    {
        metadata["continue"] = json!((skip + limit).to_string());
        metadata["remainingItemCount"] = json!(items.len() - limit);
        items.truncate(limit);
    }
    if !resource.custom {
        // Items of a typed list do not say what they are.
        for item in &mut items {
            super::store::remove(item, "kind");
            super::store::remove(item, "apiVersion");
        }
    }
    Response::json(
        200,
        &json!({
            "kind": format!("{}List", resource.kind), "apiVersion": resource.api_version(),
            "metadata": metadata, "items": items,
        }),
    )
}

fn watch(request: &Request, selector: Selector, resource: &Resource, store: &Store) -> Response {
    let initial = request.flag("sendInitialEvents");
    if initial && request.param("resourceVersionMatch") != Some("NotOlderThan") {
        let message =
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let cause = status::Cause::new("FieldValueForbidden", "resourceVersionMatch", message);
        return status::invalid("ListOptions", "meta.k8s.io", "", &[cause]);
    }
    let version = request.param("resourceVersion").unwrap_or("");
    let wanted = match version {
        "" => 0,
        text => match text.parse::<u64>() {
            Ok(version) => version,
            Err(_) => {
                return status::internal(&format!(
                    "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                ));
            }
        },
    };
    let bookmarks = request.flag("allowWatchBookmarks");
    let mut first = Vec::new();
    let mut ended = false;
    let position = if wanted == 0 || initial {
        for (_, object) in store.list(&resource.group, &resource.name, &selector.namespace) {
            if selector.wants(&object) {
                first.push(line("ADDED", &object));
            }
        }
        if initial && bookmarks {
            let mut mark = bookmark(resource, store.version());
            mark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
            first.push(line("BOOKMARK", &mark));
        }
        store.position()
    } else if wanted < store.oldest() {
        // No error of HTTP: the watch is on, and its only event says so.
        first.push(line("ERROR", &status::expired(wanted, store.oldest())));
        ended = true;
        store.position()
    } else {
        store.position_after(wanted)
    };
    let seconds = request.param("timeoutSeconds").and_then(|it| it.parse().ok());
    let follow = Follow { selector, resource: resource.clone(), bookmarks, wanted };
    let last = bookmarks.then(|| resource.clone());
    Response::stream(Stream {
        poll: follow.poll(first, ended, position),
        timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
        last: last.map(|resource| -> Last {
            Box::new(move |store| vec![line("BOOKMARK", &bookmark(&resource, store.version()))])
        }),
    })
}

struct Follow {
    selector: Selector,
    resource: Resource,
    bookmarks: bool,
    wanted: u64,
}

impl Follow {
    fn poll(
        self,
        first: Vec<String>,
        ended: bool,
        position: u64,
    ) -> Box<dyn FnMut(&mut Store) -> Lines + Send> {
        let (mut first, mut position) = (first, position);
        Box::new(move |store| {
            let mut lines = std::mem::take(&mut first);
            if ended {
                return Lines { lines, end: true };
            }
            let (events, next) = store.events_from(position);
            position = next;
            let mut end = false;
            for event in &events {
                match event.happened {
                    Happened::Expired => {
                        lines.push(line("ERROR", &status::expired(self.wanted, store.version())));
                        end = true;
                        break;
                    }
                    Happened::Bookmark if self.bookmarks => {
                        lines.push(line("BOOKMARK", &bookmark(&self.resource, event.version)));
                    }
                    Happened::Bookmark => {}
                    _ => lines.extend(self.line(event)),
                }
            }
            Lines { lines, end }
        })
    }

    fn line(&self, event: &Event) -> Option<String> {
        if !self.selector.is_about(&event.key, &self.resource) {
            return None;
        }
        let is = self.selector.wants(&event.object);
        let was = event.before.as_ref().is_some_and(|before| self.selector.wants(before));
        let kind = match (event.happened, was, is) {
            (Happened::Deleted, true, _) | (_, true, false) => "DELETED",
            (Happened::Deleted, false, _) | (_, false, false) => return None,
            (_, false, true) => "ADDED",
            (_, true, true) => "MODIFIED",
        };
        Some(line(kind, &event.object))
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn bookmark(resource: &Resource, version: u64) -> Value {
    json!({
        "kind": resource.kind, "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": version.to_string()},
    })
}

/// What a LIST or WATCH is about.
struct Selector {
    namespace: String,
    name: Option<String>,
    /// Label, whether it shall or shall not have it, and the value; no value is any.
    labels: Vec<(String, bool, Option<String>)>,
}

impl Selector {
    /// `metadata.name`, `metadata.namespace` and `=`, `==`, `!=` on labels.
    fn parse(request: &Request, target: &Target) -> Result<Self, Box<Response>> {
        let mut it =
            Selector { namespace: target.namespace.clone(), name: None, labels: Vec::new() };
        let parts = |name: &str| -> Vec<String> {
            let text = request.param(name).unwrap_or("");
            text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        for part in parts("fieldSelector") {
            let (field, value) = part.split_once('=').unwrap_or((&part, ""));
            let value = value.trim_start_matches('=').to_owned();
            match field {
                "metadata.name" => it.name = Some(value),
                "metadata.namespace" => it.namespace = value,
                field => {
                    return Err(Box::new(status::bad_request(&format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    ))));
                }
            }
        }
        for part in parts("labelSelector") {
            let (label, equal, value) = match part.split_once("!=") {
                Some((label, value)) => (label, false, Some(value)),
                None => match part.split_once('=') {
                    Some((label, value)) => {
                        (label, true, Some(value.strip_prefix('=').unwrap_or(value)))
                    }
                    None => (part.as_str(), true, None),
                },
            };
            if value.is_some_and(|value| value.starts_with('=')) {
                let message = "unable to parse requirement: found '=', expected: identifier";
                return Err(Box::new(status::bad_request(message)));
            }
            it.labels.push((label.to_owned(), equal, value.map(str::to_owned)));
        }
        Ok(it)
    }

    fn is_about(&self, key: &Key, resource: &Resource) -> bool {
        resource.is(&key.group, &key.resource)
            && (self.namespace.is_empty() || self.namespace == key.namespace)
    }

    fn wants(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let named = self.name.as_ref().is_none_or(|name| metadata["name"] == name.as_str());
        named
            && self.labels.iter().all(|(label, equal, value)| {
                let has = match (&metadata["labels"][label.as_str()], value) {
                    (Value::Null, _) => false,
                    (it, Some(value)) => it == value.as_str(),
                    (_, None) => true,
                };
                has == *equal
            })
    }
}
