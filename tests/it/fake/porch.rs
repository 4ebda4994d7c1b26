//! Porch v1.5.8 with its CR cache, behind the fake API server: codes and words as recorded from the
//! real one, without git. Held against the real one by `sinks::porch::scenarios`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::server::Routes;
use super::status::{Named, status};
use super::store::Store;

const GROUP: &str = "porch.kpt.dev";
const REVISIONS: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisions";
const RESOURCES: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisionresources";
const REPOSITORIES: &str = "/apis/config.porch.kpt.dev/v1alpha1/namespaces/default/repositories";
const LATEST: &str = "kpt.dev/latest-revision";

/// What happens to the next write that it can happen to, besides or instead of its effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mishap {
    /// The draft that was answered with 201 is not found afterwards.
    LosesCreated,
    /// A creation that was cut off: the draft is there, without labels and annotations.
    HalfCreated,
    /// Proposed is answered with 200 and a time of deletion, and the draft is gone.
    LosesProposed,
    /// 504, and the write lands all the same.
    TimesOut,
    /// Another request for the same object is on its way.
    Busy,
    /// Somebody changes the object at the same moment.
    Stale,
    /// Somebody publishes another revision of the package first.
    Overtaken,
    /// The cache has forgotten that the source is published.
    SourceForgotten,
    /// A person publishes the proposal first.
    Approved,
    /// The write is not carried out, and a person publishes the draft as it is.
    PublishedAsItIs,
}

/// Changes files as a function in a pipeline does.
pub type Pipeline = fn(&mut BTreeMap<String, String>);

#[derive(Clone, Debug)]
struct Revision {
    package: String,
    workspace: String,
    lifecycle: String,
    number: i64,
    version: u64,
    metadata: Value,
    task: Value,
    files: BTreeMap<String, String>,
}

#[derive(Default)]
struct State {
    /// By name: why it is not ready, and its annotations.
    repositories: BTreeMap<String, (Option<String>, Value)>,
    /// By their name on the server.
    revisions: BTreeMap<String, (String, Revision)>,
    mishaps: Vec<(&'static str, Mishap)>,
    pipeline: Option<Pipeline>,
    versions: u64,
}

/// The hand of a test on it; what it answers with is inside.
#[derive(Clone, Default)]
pub struct Porch(Arc<Mutex<State>>);

impl Porch {
    /// With one ready Repository of that name.
    pub fn new(repository: &str) -> Self {
        let porch = Porch::default();
        porch.lock().repositories.insert(repository.to_owned(), (None, json!({})));
        porch
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn repository(&self, name: &str, unready: Option<&str>, annotations: Value) {
        let repository = (unready.map(str::to_owned), annotations);
        self.lock().repositories.insert(name.to_owned(), repository);
    }

    pub fn remove_repository(&self, name: &str) {
        self.lock().repositories.remove(name);
    }

    /// At the next request to `verb`: `create`, `write`, `propose`, `approve` or `withdraw`.
    pub fn next(&self, verb: &'static str, mishap: Mishap) {
        self.lock().mishaps.push((verb, mishap));
    }

    /// Runs on the files of each package that is written from now on.
    pub fn pipeline(&self, pipeline: Pipeline) {
        self.lock().pipeline = Some(pipeline);
    }

    /// Somebody publishes files as the next revision of a package; gives its name.
    pub fn publish(&self, repository: &str, package: &str, files: &[(&str, &str)]) -> String {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        self.lock().publish(repository, package, files.collect(), json!({}))
    }

    /// Sets labels, annotations or owners of a revision.
    pub fn mark(&self, name: &str, metadata: Value) {
        let mut state = self.lock();
        let (_, revision) = state.revisions.get_mut(name).expect("it is there");
        merge(&mut revision.metadata, &metadata);
    }

    /// Somebody else writes a file, in whatever lifecycle.
    pub fn set_file(&self, name: &str, path: &str, text: &str) {
        let mut state = self.lock();
        state.versions += 1;
        let version = state.versions;
        let (_, revision) = state.revisions.get_mut(name).expect("it is there");
        revision.version = version;
        revision.files.insert(path.to_owned(), text.to_owned());
    }

    /// Drops a revision as if its tag had been removed; the branch stays.
    pub fn forget(&self, name: &str) {
        self.lock().revisions.remove(name);
    }

    pub fn set_lifecycle(&self, name: &str, lifecycle: &str) {
        let mut state = self.lock();
        let (_, revision) = state.revisions.get_mut(name).expect("it is there");
        revision.lifecycle = lifecycle.to_owned();
    }

    pub fn file(&self, name: &str, path: &str) -> Option<String> {
        self.lock().revisions.get(name)?.1.files.get(path).cloned()
    }

    /// Name and lifecycle of each revision, but for the branches themselves.
    pub fn revisions(&self) -> Vec<String> {
        let state = self.lock();
        let told = |(name, (_, it)): (&String, &(String, Revision))| match it.number {
            0 => format!("{name} {}", it.lifecycle),
            number => format!("{name} {} {number}", it.lifecycle),
        };
        state.revisions.iter().filter(|(_, (_, it))| it.number >= 0).map(told).collect()
    }
}

impl Routes for Porch {
    fn answer(&mut self, request: &Request, _: &mut Store) -> Option<Response> {
        let mut state = self.lock();
        if let Some(name) = below(&request.path, REPOSITORIES) {
            return Some(state.get_repository(name));
        }
        if let Some(name) = below(&request.path, RESOURCES) {
            return Some(match request.method.as_str() {
                "GET" => state.get(name, "packagerevisionresources", State::resources),
                "PATCH" => state.write(name, &request.json()),
                _ => super::status::not_allowed(),
            });
        }
        if request.path == REVISIONS {
            return Some(match request.method.as_str() {
                "POST" => state.create(&request.json()),
                _ => state.list(request),
            });
        }
        let name = below(&request.path, REVISIONS)?;
        Some(match (request.method.as_str(), name.strip_suffix("/approval")) {
            ("PATCH", Some(name)) => state.approve(name, &request.json()),
            ("PATCH", None) => state.update(name, &request.json()),
            ("DELETE", None) => state.delete(name),
            _ => state.get(name, "packagerevisions", State::object),
        })
    }
}

fn below<'a>(path: &'a str, above: &str) -> Option<&'a str> {
    path.strip_prefix(above)?.strip_prefix('/')
}

impl State {
    fn get_repository(&self, name: &str) -> Response {
        let Some((unready, annotations)) = self.repositories.get(name) else {
            return missing_repository(name);
        };
        let ready = if unready.is_none() { "True" } else { "False" };
        let message = unready.clone().unwrap_or_else(|| "Repository Ready".to_owned());
        let condition = json!({"type": "Ready", "status": ready, "message": message});
        Response::json(
            200,
            &json!({"apiVersion": "config.porch.kpt.dev/v1alpha1", "kind": "Repository",
                "metadata": {"name": name, "namespace": "default", "annotations": annotations},
                "status": {"conditions": [condition]}}),
        )
    }

    fn get(&self, name: &str, resource: &str, show: fn(&Self, &str) -> Value) -> Response {
        let repository = name.split('.').next().unwrap_or_default();
        match self.revisions.contains_key(name) {
            true => Response::json(200, &show(self, name)),
            false if !self.repositories.contains_key(repository) => missing_repository(repository),
            false => missing(resource, name),
        }
    }

    fn object(&self, name: &str) -> Value {
        let (repository, revision) = &self.revisions[name];
        let mut object = json!({
            "kind": "PackageRevision", "apiVersion": "porch.kpt.dev/v1alpha1",
            "metadata": {"name": name, "namespace": "default",
                "resourceVersion": revision.version.to_string()},
            "spec": {"packageName": revision.package, "repository": repository,
                "workspaceName": revision.workspace, "lifecycle": revision.lifecycle,
                "tasks": [revision.task]},
            "status": {"publishTimestamp": null},
        });
        merge(&mut object["metadata"], &revision.metadata);
        if revision.number != 0 {
            object["spec"]["revision"] = json!(revision.number);
        }
        if self.is_latest(repository, revision) {
            object["metadata"]["labels"][LATEST] = json!("true");
        }
        object
    }

    fn is_latest(&self, repository: &str, revision: &Revision) -> bool {
        revision.number > 0
            && self.of(repository, &revision.package).all(|it| it.number <= revision.number)
    }

    fn of<'a>(&'a self, repository: &str, package: &str) -> impl Iterator<Item = &'a Revision> {
        let is_it = move |(at, it): &&(String, Revision)| at == repository && it.package == package;
        self.revisions.values().filter(is_it).map(|(_, it)| it).collect::<Vec<_>>().into_iter()
    }

    fn resources(&self, name: &str) -> Value {
        let (repository, revision) = &self.revisions[name];
        json!({
            "kind": "PackageRevisionResources", "apiVersion": "porch.kpt.dev/v1alpha1",
            "metadata": {"name": name, "namespace": "default",
                "resourceVersion": revision.version.to_string()},
            "spec": {"packageName": revision.package, "workspaceName": revision.workspace,
                "repository": repository, "resources": revision.files},
            "status": {"renderStatus": {"result": {"metadata": {}, "exitCode": 0}, "error": ""}},
        })
    }

    fn list(&self, request: &Request) -> Response {
        let selectors = |name| request.param(name).unwrap_or_default().split(',');
        let selected = |object: &Value| {
            let fields = selectors("fieldSelector").filter(|it| !it.is_empty()).all(|field| {
                let (path, value) = field.split_once('=').expect("a field selector");
                let pointer = format!("/{}", path.replace('.', "/"));
                match object.pointer(&pointer) {
                    // As if nothing had been asked for.
                    _ if field == "spec.revision=0" => true,
                    Some(other) => other.as_str() == Some(value),
                    None => false,
                }
            });
            let labels = selectors("labelSelector").filter(|it| !it.is_empty()).all(|label| {
                let (name, value) = label.split_once('=').expect("a label selector");
                object["metadata"]["labels"][name] == value
            });
            fields && labels
        };
        let objects = self.revisions.keys().map(|name| self.object(name));
        let items: Vec<Value> = objects.filter(selected).collect();
        Response::json(200, &json!({"kind": "PackageRevisionList", "metadata": {}, "items": items}))
    }

    fn create(&mut self, body: &Value) -> Response {
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (repository, package) = (text("/spec/repository"), text("/spec/packageName"));
        let workspace = text("/spec/workspaceName");
        if let Some((_, annotations)) = self.repositories.get(repository) {
            if annotations["porch.kpt.dev/v1alpha2-migration"] == "true" {
                let message = format!(
                    "repository {repository:?} is managed by v1alpha2; use the v1alpha2 API"
                );
                return status(410, "Gone", &message, Value::Null);
            }
        } else {
            return missing_repository(repository);
        }
        let mishap = self.mishap("create");
        if mishap == Some(Mishap::Busy) {
            return busy(
                "packagerevisions",
                "(new creation)",
                "create package revision with details",
            );
        }
        let name = format!("{repository}.{}.{workspace}", package.replace('/', "."));
        if self.revisions.contains_key(&name) {
            return internal(&format!(
                "package revision workspaceNames must be unique; package revision with name \
                 {package} in repo {repository} with workspaceName {workspace} already exists"
            ));
        }
        let task = &body["spec"]["tasks"][0];
        let files = match task["edit"]["sourceRef"]["name"].as_str() {
            Some(_) if mishap == Some(Mishap::SourceForgotten) => {
                return internal("source revision must be published");
            }
            Some(source) => match self.revisions.get(source) {
                None => {
                    return internal(&format!(
                        "failed to fetch package {source:?}: cannot find package revision {source:?}"
                    ));
                }
                Some((_, it)) if it.number == 0 => {
                    return internal("source revision must be published");
                }
                Some((_, it)) => it.files.clone(),
            },
            None if self.of(repository, package).any(|it| it.number != 0) => {
                return internal(&format!(
                    "package {package:?} already exists in repository {repository:?}"
                ));
            }
            None => new_package(package),
        };
        let metadata = match mishap {
            Some(Mishap::HalfCreated) => json!({}),
            _ => json!({"labels": body["metadata"]["labels"],
                "annotations": body["metadata"]["annotations"]}),
        };
        let revision = Revision {
            package: package.to_owned(),
            workspace: workspace.to_owned(),
            lifecycle: "Draft".to_owned(),
            number: 0,
            version: self.version(),
            metadata,
            task: task.clone(),
            files,
        };
        self.revisions.insert(name.clone(), (repository.to_owned(), revision));
        let object = self.object(&name);
        match mishap {
            Some(Mishap::LosesCreated) => drop(self.revisions.remove(&name)),
            Some(Mishap::TimesOut | Mishap::HalfCreated) => return timed_out(),
            _ => {}
        }
        Response::json(201, &object)
    }

    fn write(&mut self, name: &str, body: &Value) -> Response {
        let resource = "packagerevisionresources";
        let Some((_, revision)) = self.revisions.get(name) else { return missing(resource, name) };
        let mut files = revision.files.clone();
        let not_a_draft = |lifecycle: &str| {
            internal(&format!(
                "cannot update a package revision with lifecycle value {lifecycle:?}; package must be \
                 Draft"
            ))
        };
        if revision.lifecycle != "Draft" {
            return not_a_draft(&revision.lifecycle);
        }
        let mishap = self.mishap("write");
        if mishap == Some(Mishap::PublishedAsItIs) {
            self.put_published(name);
            return not_a_draft("Published");
        }
        if let Some(refusal) = self.stop(mishap, resource, name, body) {
            return refusal;
        }
        for (path, text) in body["spec"]["resources"].as_object().into_iter().flatten() {
            match text.as_str() {
                Some(text) => drop(files.insert(path.clone(), text.to_owned())),
                None => drop(files.remove(path)),
            }
        }
        let bare = |(path, text): &(&String, &String)| {
            path.ends_with(".yaml") && !text.contains("apiVersion:")
        };
        if let Some((path, _)) = files.iter().find(bare) {
            return internal(&format!(
                "error rendering package in kpt function pipeline. Package NOT pushed to remote. Fix \
                 locally (until 'kpt fn render' succeeds) and retry. Details: fn.render: pkg \
                 /:\n\tpkg.render: input resource list must contain only KRM resources: {path}: \
                 resource must have `apiVersion`"
            ));
        }
        if let Some(pipeline) = self.pipeline {
            pipeline(&mut files);
        }
        let version = self.version();
        let (_, revision) = self.revisions.get_mut(name).expect("it is there");
        (revision.files, revision.version) = (files, version);
        match mishap {
            Some(Mishap::TimesOut) => timed_out(),
            _ => Response::json(200, &self.resources(name)),
        }
    }

    fn update(&mut self, name: &str, body: &Value) -> Response {
        let resource = "packagerevisions";
        let Some((_, revision)) = self.revisions.get(name) else { return missing(resource, name) };
        let lifecycle = body["spec"]["lifecycle"].as_str().map(str::to_owned);
        let was_published = revision_is_published(revision);
        let mishap = match lifecycle.as_deref() {
            Some("Proposed") => self.mishap("propose"),
            Some("Draft") => self.mishap("withdraw"),
            _ => None,
        };
        if mishap == Some(Mishap::Approved) {
            self.put_published(name);
        }
        if (was_published || mishap == Some(Mishap::Approved)) && lifecycle.is_some() {
            let message = "spec can only update package with lifecycle value one of Draft,Proposed";
            return invalid(name, "spec", message);
        }
        if let Some(refusal) = self.stop(mishap, resource, name, body) {
            return refusal;
        }
        let version = self.version();
        let (_, revision) = self.revisions.get_mut(name).expect("it is there");
        for part in ["labels", "annotations"] {
            if !body["metadata"][part].is_null() {
                merge(&mut revision.metadata, &json!({part: body["metadata"][part]}));
            }
        }
        if let Some(lifecycle) = lifecycle {
            revision.lifecycle = lifecycle;
        }
        revision.version = version;
        let mut object = self.object(name);
        match mishap {
            Some(Mishap::TimesOut) => return timed_out(),
            Some(Mishap::LosesProposed) => {
                self.revisions.remove(name);
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            _ => {}
        }
        Response::json(200, &object)
    }

    fn approve(&mut self, name: &str, body: &Value) -> Response {
        let resource = "packagerevisions";
        let Some((_, revision)) = self.revisions.get(name) else { return missing(resource, name) };
        if revision.lifecycle == "Draft" {
            let message = "Invalid value: \"Draft\": cannot approve package with Draft lifecycle \
                           value; only Proposed packages can be approved";
            return invalid(name, "spec.lifecycle", message);
        }
        if revision_is_published(revision) {
            let message = "Invalid value: \"Published\": package with Published lifecycle value can \
                           only be updated to 'ProposeDeletion'";
            return invalid(name, "spec.lifecycle", message);
        }
        let mishap = self.mishap("approve");
        if let Some(refusal) = self.stop(mishap, resource, name, body) {
            return refusal;
        }
        self.put_published(name);
        match mishap {
            Some(Mishap::TimesOut) => timed_out(),
            _ => Response::json(200, &self.object(name)),
        }
    }

    fn put_published(&mut self, name: &str) {
        let (repository, mut revision) = self.revisions.remove(name).expect("it is there");
        let number = self.of(&repository, &revision.package).map(|it| it.number).max();
        revision.number = number.unwrap_or(0).max(0) + 1;
        revision.lifecycle = "Published".to_owned();
        revision.version = self.version();
        self.put_branch(&repository, &revision);
        self.revisions.insert(name.to_owned(), (repository, revision));
    }

    fn delete(&mut self, name: &str) -> Response {
        match self.revisions.get(name) {
            None => missing("packagerevisions", name),
            Some((_, it)) if revision_is_published(it) => {
                let message = format!(
                    "admission webhook \"packagerevdeletion.google.com\" denied the request: failed \
                     to delete package revision {name:?}: published PackageRevisions must be \
                     proposed for deletion by setting spec.lifecycle to 'DeletionProposed' prior to \
                     deletion"
                );
                status(400, "", &message, Value::Null)
            }
            Some(_) => {
                let object = self.object(name);
                self.revisions.remove(name);
                Response::json(200, &object)
            }
        }
    }

    fn publish(
        &mut self,
        repository: &str,
        package: &str,
        files: BTreeMap<String, String>,
        metadata: Value,
    ) -> String {
        let number = self.of(repository, package).map(|it| it.number).max().unwrap_or(0).max(0) + 1;
        let workspace = format!("v{number}");
        let name = format!("{repository}.{}.{workspace}", package.replace('/', "."));
        let revision = Revision {
            package: package.to_owned(),
            workspace,
            lifecycle: "Published".to_owned(),
            number,
            version: self.version(),
            metadata,
            task: json!({"type": "init", "init": {"description": "x"}}),
            files,
        };
        self.put_branch(repository, &revision);
        self.revisions.insert(name.clone(), (repository.to_owned(), revision));
        name
    }

    /// The branch itself, which is listed as a revision too.
    fn put_branch(&mut self, repository: &str, revision: &Revision) {
        let name = format!("{repository}.{}.main", revision.package.replace('/', "."));
        let branch = Revision {
            workspace: "main".to_owned(),
            number: -1,
            metadata: json!({}),
            ..revision.clone()
        };
        self.revisions.insert(name, (repository.to_owned(), branch));
    }

    /// Why a conditional write is not carried out.
    fn stop(
        &mut self,
        mishap: Option<Mishap>,
        resource: &str,
        name: &str,
        body: &Value,
    ) -> Option<Response> {
        if mishap == Some(Mishap::Busy) {
            let doing = "on package revision";
            return Some(busy(resource, name, &format!("{doing} \"default/{name}\"")));
        }
        if mishap == Some(Mishap::Overtaken) {
            let (repository, revision) = self.revisions[name].clone();
            let latest = self.of(&repository, &revision.package).max_by_key(|it| it.number);
            let files = latest.map_or_else(BTreeMap::new, |it| it.files.clone());
            self.publish(&repository, &revision.package, files, json!({}));
        }
        if mishap == Some(Mishap::Stale) {
            let version = self.version();
            self.revisions.get_mut(name).expect("it is there").1.version = version;
        }
        let (_, revision) = &self.revisions[name];
        let given = body["metadata"]["resourceVersion"].as_str();
        (given.is_some() && given != Some(&revision.version.to_string())).then(|| {
            internal(&format!(
                "Operation cannot be fulfilled on {resource}.{GROUP} {name:?}: the object has been \
                 modified; please apply your changes to the latest version and try again"
            ))
        })
    }

    fn mishap(&mut self, verb: &str) -> Option<Mishap> {
        let at = self.mishaps.iter().position(|(it, _)| *it == verb)?;
        Some(self.mishaps.remove(at).1)
    }

    fn version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }
}

fn revision_is_published(revision: &Revision) -> bool {
    matches!(revision.lifecycle.as_str(), "Published" | "DeletionProposed")
}

fn new_package(package: &str) -> BTreeMap<String, String> {
    let leaf = package.rsplit('/').next().unwrap_or_default();
    let local = "  annotations:\n    config.kubernetes.io/local-config: \"true\"\n";
    BTreeMap::from([
        (
            "Kptfile".to_owned(),
            format!("apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata:\n  name: {leaf}\n{local}"),
        ),
        ("README.md".to_owned(), format!("# {leaf}\n")),
        (
            "package-context.yaml".to_owned(),
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kptfile.kpt.dev\n{local}data:\n  \
                 name: example\n"
            ),
        ),
    ])
}

/// Lays one object over another.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from.iter().filter(|(_, value)| !value.is_null()) {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn internal(text: &str) -> Response {
    let details = json!({"causes": [{"message": text}]});
    status(500, "InternalError", &format!("Internal error occurred: {text}"), details)
}

fn invalid(name: &str, field: &str, message: &str) -> Response {
    let text = format!("PackageRevision.porch.kpt.dev {name:?} is invalid: {field}: {message}");
    status(422, "Invalid", &text, json!({"name": name, "group": GROUP, "kind": "PackageRevision"}))
}

fn busy(resource: &str, name: &str, doing: &str) -> Response {
    let message = format!(
        "Operation cannot be fulfilled on {resource}.{GROUP} {name:?}: another request is already in \
         progress {doing}"
    );
    status(409, "Conflict", &message, json!({"name": name, "group": GROUP, "kind": resource}))
}

fn timed_out() -> Response {
    let message = "Timeout: request did not complete within requested timeout - context deadline \
                   exceeded";
    status(504, "Timeout", message, json!({}))
}

fn missing(resource: &str, name: &str) -> Response {
    super::status::not_found(&Named { group: GROUP, resource, kind: "", name })
}

fn missing_repository(name: &str) -> Response {
    let group = "config.porch.kpt.dev";
    super::status::not_found(&Named { group, resource: "repositories", kind: "", name })
}
