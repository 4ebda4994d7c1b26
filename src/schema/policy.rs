//! What the document promises about itself (`constraints`) and what the site allows (policy).
//!
//! Both speak about a document that the schema has accepted; all that is broken is reported.

use crate::model::{Code, Constraints, Intent};
use crate::schema::finding::Finding;
use crate::schema::glob::Glob;
use crate::schema::wording::Wrong;

/// What a site allows. An empty list of what is allowed allows everything that is not denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub allowed_namespaces: Vec<Glob>,
    pub denied_namespaces: Vec<Glob>,
    pub allowed_targets: Vec<Glob>,
    pub denied_targets: Vec<Glob>,
    pub replicas_min: Option<u32>,
    pub replicas_max: Option<u32>,
    /// Each that matches counts, besides the two above.
    pub replica_bounds: Vec<ReplicaBound>,
}

/// Bounds for the replicas of some targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaBound {
    pub namespace: Glob,
    pub target: Glob,
    pub min: Option<u32>,
    pub max: Option<u32>,
}

/// Keeps intents out of the namespaces that Kubernetes itself lives in.
impl Default for Policy {
    fn default() -> Self {
        let own = ["kube-system", "kube-public", "kube-node-lease"];
        Policy {
            allowed_namespaces: Vec::new(),
            denied_namespaces: own.map(|name| name.parse().expect("the name is a label")).to_vec(),
            allowed_targets: Vec::new(),
            denied_targets: Vec::new(),
            replicas_min: None,
            replicas_max: None,
            replica_bounds: Vec::new(),
        }
    }
}

impl Policy {
    /// Adds what the policy has against the intent.
    pub fn check(&self, intent: &Intent, findings: &mut Vec<Finding>) {
        let names = [
            ("/namespace", &intent.namespace, &self.allowed_namespaces, &self.denied_namespaces),
            ("/target", &intent.target, &self.allowed_targets, &self.denied_targets),
        ];
        for (pointer, name, allowed, denied) in names {
            if let Some(glob) = denied.iter().find(|glob| glob.matches(name)) {
                let expected = format!("a name that does not match `{glob}`");
                findings.push(policy(pointer, "is denied by the site's policy", expected));
            } else if !allowed.is_empty() && !allowed.iter().any(|glob| glob.matches(name)) {
                let globs: Vec<String> = allowed.iter().map(|glob| format!("`{glob}`")).collect();
                let expected = format!("a name that matches {}", globs.join(" or "));
                findings.push(policy(pointer, "is not allowed by the site's policy", expected));
            }
        }
        let of_target = self.replica_bounds.iter().filter(|bound| {
            bound.namespace.matches(&intent.namespace) && bound.target.matches(&intent.target)
        });
        let bounds = of_target.map(|bound| (bound.min, bound.max));
        for (min, max) in [(self.replicas_min, self.replicas_max)].into_iter().chain(bounds) {
            if let Some(min) = min.filter(|min| intent.replicas < *min) {
                let message = format!("is less than the {min} that the site's policy asks for");
                findings.push(policy("/replicas", &message, format!("at least {min}")));
            }
            if let Some(max) = max.filter(|max| intent.replicas > *max) {
                let message = format!("is greater than the {max} that the site's policy allows");
                findings.push(policy("/replicas", &message, format!("at most {max}")));
            }
        }
    }
}

fn policy(pointer: &str, message: &str, expected: String) -> Finding {
    against(Code::Policy, pointer, message, expected)
}

fn against(code: Code, pointer: &str, message: &str, expected: String) -> Finding {
    let wrong = Wrong::Against { message: message.to_owned(), expected, hint: None };
    Finding { code, pointer: pointer.to_owned(), wrong }
}

/// Adds what the document's own constraints have against it.
pub fn check_constraints(intent: &Intent, constraints: &Constraints, findings: &mut Vec<Finding>) {
    let mut add = |pointer: &str, message: &str, expected: String| {
        findings.push(against(Code::Constraint, pointer, message, expected));
    };
    let (min, max) = (constraints.min_replicas, constraints.max_replicas);
    if let Some(max) = max.filter(|max| intent.replicas > *max) {
        let message = format!("is greater than the document's own max_replicas of {max}");
        add("/replicas", &message, format!("at most {max}"));
    }
    if let Some(min) = min.filter(|min| intent.replicas < *min) {
        let message = format!("is less than the document's own min_replicas of {min}");
        add("/replicas", &message, format!("at least {min}"));
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        let message = format!("is greater than max_replicas, which is {max}");
        add("/constraints/min_replicas", &message, format!("at most {max}"));
    }
    if let Some(allowed) = &constraints.allowed_namespaces
        && !allowed.contains(&intent.namespace)
    {
        let expected = match allowed.as_slice() {
            [] => "no namespace at all: the list is empty".to_owned(),
            several => format!("one of {}", several.join(", ")),
        };
        add("/namespace", "is not among the document's own allowed_namespaces", expected);
    }
}
