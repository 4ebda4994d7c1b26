//! The errors of the API server, word by word as version 1.36 says them.

use serde_json::{Value, json};

use super::http::Response;

/// A `Status` with what varies; empty `reason` and null `details` are left out, as there.
pub fn status(code: u16, reason: &str, message: &str, details: Value) -> Response {
    Response::json(code, &body(code, reason, message, details))
}

/// The object of [`status`], which also stands in ERROR events.
pub fn body(code: u16, reason: &str, message: &str, details: Value) -> Value {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "code": code,
    });
    if !reason.is_empty() {
        body["reason"] = json!(reason);
    }
    if !details.is_null() {
        body["details"] = details;
    }
    body
}

/// A resource and one of its objects, as messages and details name them.
#[derive(Clone, Debug)]
pub struct Named<'a> {
    pub group: &'a str,
    pub resource: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
}

impl Named<'_> {
    /// `deployments.apps`, or `namespaces` in the group without a name.
    pub fn resource(&self) -> String {
        qualified(self.resource, self.group)
    }

    fn details(&self) -> Value {
        details(self.name, self.group, self.resource)
    }
}

pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn details(name: &str, group: &str, kind: &str) -> Value {
    let mut details = json!({"kind": kind});
    for (key, value) in [("name", name), ("group", group)] {
        if !value.is_empty() {
            details[key] = json!(value);
        }
    }
    details
}

pub fn not_found(it: &Named) -> Response {
    let message = format!("{} {:?} not found", it.resource(), it.name);
    status(404, "NotFound", &message, it.details())
}

/// No such resource in a group that is served.
pub fn no_resource() -> Response {
    let message = "the server could not find the requested resource";
    status(404, "NotFound", message, json!({}))
}

/// No such group or version, or no such path at all: no `Status`.
pub fn no_page() -> Response {
    Response::text(404, "404 page not found\n")
}

pub fn not_allowed() -> Response {
    let message = "the server does not allow this method on the requested resource";
    status(405, "MethodNotAllowed", message, json!({}))
}

pub fn already_exists(it: &Named) -> Response {
    let message = format!("{} {:?} already exists", it.resource(), it.name);
    status(409, "AlreadyExists", &message, it.details())
}

pub fn modified(it: &Named) -> Response {
    conflict(
        it,
        "the object has been modified; please apply your changes to the latest version and try again",
    )
}

pub fn conflict(it: &Named, why: &str) -> Response {
    let message =
        format!("Operation cannot be fulfilled on {} {:?}: {why}", it.resource(), it.name);
    status(409, "Conflict", &message, it.details())
}

pub fn bad_request(message: &str) -> Response {
    status(400, "BadRequest", message, Value::Null)
}

/// An error inside the server, which has no reason.
pub fn internal(message: &str) -> Response {
    status(500, "", message, Value::Null)
}

pub fn unauthorized() -> Response {
    status(401, "Unauthorized", "Unauthorized", Value::Null)
}

/// What is wrong with one field.
pub struct Cause {
    pub reason: &'static str,
    pub field: String,
    pub message: String,
}

impl Cause {
    pub fn new(reason: &'static str, field: &str, message: &str) -> Self {
        Cause { reason, field: field.to_owned(), message: message.to_owned() }
    }
}

/// 422 about an object of a kind. Without a name and a kind it is about a patch.
pub fn invalid(kind: &str, group: &str, name: &str, causes: &[Cause]) -> Response {
    let sentences: Vec<String> =
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    // Told twice, counted once: the message leaves out what is the same.
    let mut unique = sentences.clone();
    unique.dedup();
    let all = match unique.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    let message = format!("{} {name:?} is invalid: {all}", qualified(kind, group));
    let mut details = if kind.is_empty() { json!({}) } else { details(name, group, kind) };
    details["causes"] = causes
        .iter()
        .map(|it| json!({"reason": it.reason, "message": it.message, "field": it.field}))
        .collect();
    status(422, "Invalid", &message, details)
}

/// RBAC's refusal.
pub fn forbidden(it: &Named, user: &str, verb: &str, resource: &str, scope: &str) -> Response {
    let subject = match it.name {
        "" => it.resource(),
        name => format!("{} {name:?}", it.resource()),
    };
    let message = format!(
        "{subject} is forbidden: User {user:?} cannot {verb} resource {resource:?} in API group \
         {:?} {scope}",
        it.group
    );
    status(403, "Forbidden", &message, it.details())
}

/// A refusal by an admission plugin that speaks of the object, as quota does.
pub fn refused(it: &Named, why: &str) -> Response {
    let message = format!("{} {:?} is forbidden: {why}", it.resource(), it.name);
    status(403, "Forbidden", &message, it.details())
}

/// Nothing new in a namespace that is being deleted.
pub fn namespace_terminating(it: &Named, namespace: &str) -> Response {
    let message = format!(
        "{} {:?} is forbidden: unable to create new content in namespace {namespace} because it \
         is being terminated",
        it.resource(),
        it.name
    );
    let mut details = it.details();
    details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    status(403, "Forbidden", &message, details)
}

/// A ValidatingAdmissionPolicy's refusal: 422, though its sentence says forbidden.
pub fn policy_denied(it: &Named, policy: &str, message: &str) -> Response {
    let why = format!(
        "ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {message}"
    );
    let mut details = it.details();
    details["causes"] = json!([{"message": why}]);
    let message = format!("{} {:?} is forbidden: {why}", it.resource(), it.name);
    status(422, "Invalid", &message, details)
}

/// A webhook's refusal. Code and reason are the webhook's; 400 when it gives none, and no reason
/// (those made with controller-runtime say 403 and Forbidden).
pub fn webhook_denied(webhook: &str, code: u16, message: &str) -> Response {
    let message = format!("admission webhook {webhook:?} denied the request: {message}");
    status(code, "", &message, Value::Null)
}

/// The object of an ERROR event for a version that is forgotten.
pub fn expired(wanted: u64, oldest: u64) -> Value {
    let message = format!("too old resource version: {wanted} ({oldest})");
    body(410, "Expired", &message, Value::Null)
}
