//! Who may do what, and what admission refuses: set by a test, changed at any time.

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::kube::Target;
use super::status::{self, Named};

/// The service account that every request comes from.
pub const USER: &str = "system:serviceaccount:default:intentd";

/// How admission says no.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A ValidatingAdmissionPolicy, whose binding has the same name: 422.
    Policy { policy: String, message: String },
    /// A webhook, with its code (400 when it gives none).
    Webhook { webhook: String, code: u16, message: String },
    /// A ResourceQuota: 403, such as `exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2`.
    Quota { message: String },
}

/// A verb and a resource with its subresource (`deployments/scale`); `*` is any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Act {
    verb: String,
    resource: String,
}

impl Act {
    fn new(verb: &str, resource: &str) -> Self {
        Act { verb: verb.to_owned(), resource: resource.to_owned() }
    }

    fn is(&self, verb: &str, resource: &str) -> bool {
        let fits = |rule: &str, it: &str| rule == "*" || rule == it;
        fits(&self.verb, verb) && fits(&self.resource, resource)
    }
}

#[derive(Default)]
pub struct Rules {
    token: Option<String>,
    forbidden: Vec<Act>,
    refusals: Vec<(Act, Refusal)>,
}

impl Rules {
    pub fn expect_token(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }

    pub fn forbid(&mut self, verb: &str, resource: &str) {
        self.forbidden.push(Act::new(verb, resource));
    }

    /// Takes back what `forbid` was given.
    pub fn permit(&mut self, verb: &str, resource: &str) {
        let act = Act::new(verb, resource);
        self.forbidden.retain(|it| *it != act);
    }

    pub fn refuse(&mut self, verb: &str, resource: &str, refusal: Refusal) {
        self.refusals.push((Act::new(verb, resource), refusal));
    }

    pub fn admit_all(&mut self) {
        self.refusals.clear();
    }

    /// 401 for a wrong token, 403 for a forbidden act, else nothing.
    pub fn stop(&self, request: &Request, target: Option<&Target>) -> Option<Response> {
        if let Some(token) = &self.token
            && request.header("authorization") != Some(&format!("Bearer {token}"))
        {
            return Some(status::unauthorized());
        }
        let target = target?;
        let verb = target.verb(request);
        let resource = target.with_subresource();
        if !self.forbidden.iter().any(|act| act.is(verb, &resource)) {
            return None;
        }
        // A list of one named object is a question about that object.
        let selected =
            request.param("fieldSelector").and_then(|it| it.strip_prefix("metadata.name="));
        let name = if target.name.is_empty() { selected.unwrap_or("") } else { &target.name };
        let it = Named { group: &target.group, resource: &target.resource, kind: "", name };
        let namespace = if target.resource == "namespaces" { name } else { &target.namespace };
        let scope = match namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        Some(status::forbidden(&it, USER, verb, &resource, &scope))
    }

    /// What admission says to a write.
    pub fn admission(&self, verb: &str, resource: &str, it: &Named) -> Option<Response> {
        let (_, refusal) = self.refusals.iter().find(|(act, _)| act.is(verb, resource))?;
        Some(match refusal {
            Refusal::Policy { policy, message } => status::policy_denied(it, policy, message),
            Refusal::Webhook { webhook, code, message } => {
                status::webhook_denied(webhook, *code, message)
            }
            Refusal::Quota { message } => status::refused(it, message),
        })
    }

    /// The answer to a SelfSubjectAccessReview.
    pub fn review(&self, request: &Request) -> Response {
        let mut review = request.json();
        let text = |key: &str| {
            let value = &review["spec"]["resourceAttributes"][key];
            value.as_str().unwrap_or_default().to_owned()
        };
        let (verb, resource, subresource) = (text("verb"), text("resource"), text("subresource"));
        let resource =
            if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        let allowed = !self.forbidden.iter().any(|act| act.is(&verb, &resource));
        review["metadata"] = json!({});
        review["status"] = if allowed {
            json!({"allowed": true, "reason": "RBAC: allowed by a rule of the test"})
        } else {
            json!({"allowed": false})
        };
        match review["spec"] {
            Value::Object(_) => Response::json(201, &review),
            _ => status::bad_request("a SelfSubjectAccessReview is wanted"),
        }
    }
}
