//! The paths of the API: which object a request is about, discovery, and who answers.

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::resource::Resource;
use super::rules::Rules;
use super::status::{self, Named};
use super::store::{Key, Store};
use super::{watch, write};

/// What the API server reads from a query, of what clients of ours send.
const PARAMS: [&str; 17] = [
    "allowWatchBookmarks",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "force",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "pretty",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

/// What a path below `/api` and `/apis` names; what it does not is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
}

impl Target {
    /// `None` for other paths, and for those of discovery.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", version, rest),
            ["apis", group, version, rest @ ..] => (*group, version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (resource, "", ""),
            [resource, name] => (resource, *name, ""),
            [resource, name, subresource] => (resource, *name, *subresource),
            _ => return None,
        };
        let [group, version, namespace, resource, name, subresource] =
            [group, version, namespace, resource, name, subresource].map(str::to_owned);
        Some(Target { group, version, namespace, resource, name, subresource })
    }

    /// As RBAC calls it.
    pub fn verb(&self, request: &Request) -> &'static str {
        match (request.method.as_str(), self.name.is_empty()) {
            ("GET", false) => "get",
            ("GET", true) if request.flag("watch") => "watch",
            ("GET", true) => "list",
            ("POST", _) => "create",
            ("PATCH", _) => "patch",
            ("PUT", _) => "update",
            ("DELETE", false) => "delete",
            ("DELETE", true) => "deletecollection",
            _ => "unknown",
        }
    }

    pub fn with_subresource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            subresource => format!("{}/{subresource}", self.resource),
        }
    }

    pub fn key(&self) -> Key {
        Key::new(&self.group, &self.resource, &self.namespace, &self.name)
    }
}

/// What is behind a request besides the store.
pub struct Context<'a> {
    pub rules: &'a Rules,
    /// What a client of ours must not do; the test fails with it.
    pub violations: &'a mut Vec<String>,
}

/// Answers as the API server does; authorization has been asked before.
pub fn answer(request: &Request, store: &mut Store, context: &mut Context) -> Response {
    let read = request.method == "GET";
    match request.path.as_str() {
        "/version" if read => return Response::json(200, &version()),
        "/readyz" | "/livez" | "/healthz" if read => return Response::text(200, "ok"),
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" if request.method == "POST" => {
            return context.rules.review(request);
        }
        _ => {}
    }
    let Some(target) = Target::parse(&request.path) else {
        return discovery(&request.path, store).unwrap_or_else(status::no_page);
    };
    let is_served = |it: &&Resource| it.group == target.group && it.version == target.version;
    if !store.resources.iter().any(|it| is_served(&it)) {
        return status::no_page();
    }
    let Some(resource) = store.resource(&target.group, &target.resource) else {
        return status::no_resource();
    };
    for (name, _) in &request.query {
        if !PARAMS.contains(&name.as_str()) {
            context.violations.push(format!("an unknown parameter {name}: {}", request.line()));
        }
    }
    served(request, &target, &resource, store, context)
}

fn served(
    request: &Request,
    target: &Target,
    resource: &Resource,
    store: &mut Store,
    context: &mut Context,
) -> Response {
    let known = match target.subresource.as_str() {
        "" | "status" => true,
        "scale" => resource.scale,
        _ => false,
    };
    if !known {
        return match resource.custom {
            true => status::not_found(&named(target, resource)),
            false => status::no_resource(),
        };
    }
    match (request.method.as_str(), target.name.is_empty(), target.subresource.as_str()) {
        ("GET", true, _) => watch::list_or_watch(request, target, resource, store),
        ("GET", false, "scale") => match store.get(&target.key()) {
            Some(object) => Response::json(200, &write::scale(&object)),
            None => status::not_found(&named(target, resource)),
        },
        ("GET", false, _) => match store.get(&target.key()) {
            Some(object) => Response::json(200, &object),
            None => status::not_found(&named(target, resource)),
        },
        ("POST", true, "") => write::create(request, target, resource, store, context),
        ("PUT", false, "scale") => write::replace(request, target, resource, store, context),
        ("PATCH", false, _) => write::patch(request, target, resource, store, context),
        ("DELETE", false, "") => write::delete(request, target, resource, store),
        _ => status::not_allowed(),
    }
}

pub fn named<'a>(target: &'a Target, resource: &'a Resource) -> Named<'a> {
    Named {
        group: &target.group,
        resource: &target.resource,
        kind: &resource.kind,
        name: &target.name,
    }
}

fn discovery(path: &str, store: &Store) -> Option<Response> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let of = |group: &str| -> Vec<&Resource> {
        store.resources.iter().filter(|it| it.group == group).collect()
    };
    let value = match parts.as_slice() {
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"]}),
        ["apis"] => {
            let mut names: Vec<&str> = store.resources.iter().map(|it| it.group.as_str()).collect();
            names.retain(|name| !name.is_empty());
            names.dedup();
            let groups: Vec<Value> = names.iter().map(|name| group(name, &of(name))).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        ["apis", name] if !of(name).is_empty() => {
            let mut group = group(name, &of(name));
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        }
        ["api", version] => resources("", version, &of("")),
        ["apis", name, version] if of(name).iter().any(|it| it.version == *version) => {
            resources(name, version, &of(name))
        }
        _ => return None,
    };
    Some(Response::json(200, &value))
}

fn group(name: &str, resources: &[&Resource]) -> Value {
    let mut versions: Vec<&str> = resources.iter().map(|it| it.version.as_str()).collect();
    versions.dedup();
    let versions: Vec<Value> = versions
        .iter()
        .map(|it| json!({"groupVersion": format!("{name}/{it}"), "version": it}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn resources(group: &str, version: &str, resources: &[&Resource]) -> Value {
    let mut list = json!({"kind": "APIResourceList"});
    if group.is_empty() {
        list["groupVersion"] = json!(version);
    } else {
        list["apiVersion"] = json!("v1");
        list["groupVersion"] = json!(format!("{group}/{version}"));
    }
    let these = resources.iter().filter(|it| it.version == version);
    list["resources"] = these.flat_map(|it| it.discovery()).collect();
    list
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": "v1.36.3",
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.8", "compiler": "gc", "platform": "linux/amd64",
    })
}
