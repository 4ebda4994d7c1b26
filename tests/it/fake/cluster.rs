//! The handle of a test on a fake API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::controllers::{self, Pace};
use super::faults::Fault;
use super::fields::Writer;
use super::http::Request;
use super::resource::Resource;
use super::rules::Refusal;
use super::server::{Routes, Server, Shared, State};
use super::store::{Happened, Key, Store, Write, now};
use super::tls::{Authority, Certificate, Identity};
use crate::support::PATIENCE;

/// A running API server, and the hand of a test on it.
pub struct Cluster {
    shared: Arc<Shared>,
    server: Option<Server>,
    pub(super) address: SocketAddr,
    dir: TempDir,
    authority: Option<Authority>,
    identity: Option<Identity>,
}

impl Cluster {
    /// With the namespace `default` and nothing in it, over plain HTTP.
    pub fn start() -> Self {
        Cluster::start_with(None)
    }

    /// The same over TLS; the kubeconfig names the authority. See [`Cluster::present`].
    pub fn start_tls() -> Self {
        Cluster::start_with(Some(Authority::new("fake")))
    }

    fn start_with(authority: Option<Authority>) -> Self {
        let shared = Arc::<Shared>::default();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let identity = authority.as_ref().map(|it| it.identity(Certificate::Valid));
        let server = Server::start(Arc::clone(&shared), anywhere, identity.clone());
        let server = server.expect("a free port");
        let address = server.address();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cluster = Cluster { shared, server: Some(server), address, dir, authority, identity };
        cluster.namespace("default");
        cluster.write_kubeconfig(json!({}));
        cluster
    }

    pub fn url(&self) -> String {
        let scheme = if self.identity.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Restarts a server that speaks TLS with another certificate.
    pub fn present(&mut self, certificate: Certificate) {
        let authority = self.authority.as_ref().expect("it speaks TLS");
        self.identity = Some(authority.identity(certificate));
        self.restart();
    }

    /// The certificate of the authority that the kubeconfig names, where it speaks TLS.
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::pem)
    }

    /// A kubeconfig with this server as its only cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Wants this bearer token from now on, and writes it into the file that the kubeconfig names:
    /// the token has been rotated everywhere. See [`Cluster::rotate`] for the server's side alone.
    pub fn expect_token(&self, token: &str) {
        self.rotate(token);
        std::fs::write(self.token_file(), token).unwrap();
        self.write_kubeconfig(json!({"tokenFile": self.token_file()}));
    }

    /// Wants another token, of which the client's file knows nothing yet.
    pub fn rotate(&self, token: &str) {
        self.with(|state| state.rules.expect_token(Some(token)));
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    fn write_kubeconfig(&self, user: Value) {
        let mut cluster = json!({"server": self.url()});
        if let Some(authority) = &self.authority {
            let path = self.dir.path().join("ca.crt");
            std::fs::write(&path, authority.pem()).unwrap();
            cluster["certificate-authority"] = json!(path);
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": cluster}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).unwrap();
    }

    /// The server is killed: its connections end, nobody listens, the data stays.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// It is started again on its port, with its data; watches have to begin anew, with a list.
    pub fn restart(&mut self) {
        self.stop();
        self.forget_history();
        crate::support::wait_until("the port to be free again", || {
            let (shared, identity) = (Arc::clone(&self.shared), self.identity.clone());
            self.server = Server::start(shared, self.address, identity).ok();
            self.server.is_some()
        });
    }

    /// Serves a further resource, as if its definition had been applied.
    pub fn serve(&self, resource: Resource) {
        self.with(|state| state.store.resources.push(resource));
    }

    /// Serves a resource no longer, such as `networkintents` before its definition is applied.
    pub fn unserve(&self, resource: &str) {
        self.with(|state| state.store.resources.retain(|it| it.name != resource));
    }

    /// Answers further paths, before the API's own.
    pub fn route(&self, routes: Box<dyn Routes>) {
        self.with(|state| state.routes.push(routes));
    }

    pub fn namespace(&self, name: &str) {
        self.with(|state| put_namespace(&mut state.store, name));
    }

    /// A settled Deployment.
    pub fn deployment(&self, namespace: &str, name: &str, replicas: u32) {
        self.put(workload("Deployment", namespace, name, replicas));
    }

    /// A settled StatefulSet.
    pub fn stateful_set(&self, namespace: &str, name: &str, replicas: u32) {
        self.put(workload("StatefulSet", namespace, name, replicas));
    }

    /// An autoscaler of a Deployment, under its name.
    pub fn autoscaler(&self, namespace: &str, deployment: &str, min: u32, max: u32) {
        self.put(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": deployment, "namespace": namespace},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment},
                "minReplicas": min, "maxReplicas": max,
            },
            "status": {"desiredReplicas": 0, "currentMetrics": null},
        }));
    }

    /// Makes or replaces an object in its namespace, which is made where there is none; workloads
    /// are rolled out at once.
    pub fn put(&self, object: Value) {
        self.put_as("kubectl-create", object);
    }

    /// The same by a field manager of that name.
    pub fn put_as(&self, manager: &str, object: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        self.with(|state| {
            let store = &mut state.store;
            let resource = store.of_kind(&version, &kind);
            let resource = resource.unwrap_or_else(|| panic!("{version} {kind} is not served"));
            let metadata = &object["metadata"];
            let namespace = text(&metadata["namespace"]);
            let key =
                Key::new(&resource.group, &resource.name, &namespace, &text(&metadata["name"]));
            if resource.namespaced {
                put_namespace(store, &namespace);
            }
            let write = Write { writer: Writer::update(manager, &version), dry: false };
            if store.get(&key).is_some() {
                store.update(&key, object.clone(), &write);
            } else {
                store.create(&resource, &key, object.clone(), &write);
            }
            if resource.rolls_out {
                controllers::complete(store, &key);
            }
        });
    }

    /// An object by the plural of its kind, such as `deployments`.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.with(|state| {
            let key = key(&state.store, resource, namespace, name);
            state.store.get(&key)
        })
    }

    /// `spec.replicas` of an object that is there.
    #[track_caller]
    pub fn replicas(&self, resource: &str, namespace: &str, name: &str) -> i64 {
        let object = self.get(resource, namespace, name).expect("it is there");
        object["spec"]["replicas"].as_i64().expect("a count")
    }

    /// Takes an object away at once.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.with(|state| {
            let key = key(&state.store, resource, namespace, name);
            state.store.remove(&key).expect("it is there")
        });
    }

    /// Marks an object as being deleted, held by a finalizer.
    pub fn terminate(&self, resource: &str, namespace: &str, name: &str) {
        self.with(|state| {
            let key = key(&state.store, resource, namespace, name);
            state.store.terminate(&key).expect("it is there")
        });
    }

    /// Marks a namespace as being deleted; what is in it stays until [`Cluster::delete_namespace`].
    pub fn terminate_namespace(&self, name: &str) {
        self.with(|state| {
            let key = Key::new("", "namespaces", "", name);
            let mut namespace = state.store.get(&key).expect("it is there");
            namespace["metadata"]["deletionTimestamp"] = json!(now());
            namespace["status"]["phase"] = json!("Terminating");
            let writer = Writer::update("kubectl-delete", "v1");
            state.store.update(&key, namespace, &Write { writer, dry: false });
        });
    }

    /// Takes a namespace away with all that is in it.
    pub fn delete_namespace(&self, name: &str) {
        self.with(|state| {
            let store = &mut state.store;
            for resource in store.resources.clone() {
                for (key, _) in store.list(&resource.group, &resource.name, name) {
                    store.remove(&key);
                }
            }
            store.remove(&Key::new("", "namespaces", "", name));
        });
    }

    /// How the controllers work from now on.
    pub fn pace(&self, pace: Pace) {
        self.with(|state| state.store.controllers.pace = pace);
    }

    /// The controllers note the newest generation of a held workload; no pod changes.
    pub fn observe(&self, name: &str) {
        self.with(|state| controllers::release(&mut state.store, name, false));
    }

    /// The controllers finish a held workload, if it has been written.
    pub fn release(&self, name: &str) {
        self.with(|state| controllers::release(&mut state.store, name, true));
    }

    /// The rollout of a workload has met its deadline for progress.
    pub fn fail_rollout(&self, resource: &str, namespace: &str, name: &str) {
        self.with(|state| {
            let key = key(&state.store, resource, namespace, name);
            controllers::fail(&mut state.store, &key);
        });
    }

    /// 403 from now on: a verb and a resource with its subresource; `*` is any.
    pub fn forbid(&self, verb: &str, resource: &str) {
        self.with(|state| state.rules.forbid(verb, resource));
    }

    /// Takes back what [`Cluster::forbid`] was given.
    pub fn permit(&self, verb: &str, resource: &str) {
        self.with(|state| state.rules.permit(verb, resource));
    }

    /// Admission says no to `create` or `update` of a resource.
    pub fn refuse(&self, verb: &str, resource: &str, refusal: Refusal) {
        self.with(|state| state.rules.refuse(verb, resource, refusal));
    }

    /// Admission says yes again.
    pub fn admit_all(&self) {
        self.with(|state| state.rules.admit_all());
    }

    /// Makes the next requests fail.
    pub fn fail(&self, fault: Fault) {
        self.with(|state| state.faults.add(fault));
    }

    pub fn heal(&self) {
        self.with(|state| state.faults.clear());
    }

    /// Watches from a version before now are answered by an ERROR event (410, Expired).
    pub fn forget_history(&self) {
        self.with(|state| state.store.forget_history());
    }

    /// All running watches end with an ERROR event (410, Expired).
    pub fn expire_watches(&self) {
        self.with(|state| state.store.announce(Happened::Expired));
    }

    /// All watches that allow it are sent a bookmark.
    pub fn bookmark(&self) {
        self.with(|state| state.store.announce(Happened::Bookmark));
    }

    /// The requests so far, in order of arrival; of very many the newest.
    pub fn requests(&self) -> Vec<Request> {
        self.with(|state| state.requests.iter().cloned().collect())
    }

    /// The lines of the requests so far.
    pub fn request_lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.with(|state| state.requests.clear());
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.with(|state| state.connections)
    }

    /// Waits for the requests so far to be as wanted; fails the test after [`PATIENCE`].
    #[track_caller]
    pub fn wait_for_requests(&self, what: &str, mut reached: impl FnMut(&[Request]) -> bool) {
        let reached =
            self.shared.wait_until(PATIENCE, |state| reached(state.requests.make_contiguous()));
        assert!(reached, "waited {PATIENCE:?} for {what}: {:#?}", self.request_lines());
    }

    /// Waits for an object to be as wanted; fails the test after [`PATIENCE`].
    #[track_caller]
    pub fn wait_for(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        mut reached: impl FnMut(&Value) -> bool,
    ) {
        let found = self.shared.wait_until(PATIENCE, |state| {
            let key = key(&state.store, resource, namespace, name);
            state.store.get(&key).is_some_and(|object| reached(&object))
        });
        assert!(found, "waited {PATIENCE:?}: {:#?}", self.get(resource, namespace, name));
    }

    /// What clients did that one of ours must not do; whoever takes it has expected it.
    pub fn take_violations(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.violations))
    }

    /// A directory that lives as long as the cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        self.shared.with(act)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        let violations = self.take_violations();
        if !std::thread::panicking() {
            assert!(violations.is_empty(), "no client of ours does this: {violations:#?}");
        }
    }
}

fn key(store: &Store, resource: &str, namespace: &str, name: &str) -> Key {
    let found = store.resources.iter().find(|it| it.name == resource);
    let found = found.unwrap_or_else(|| panic!("{resource} is not served"));
    Key::new(&found.group, &found.name, namespace, name)
}

fn put_namespace(store: &mut Store, name: &str) {
    let key = Key::new("", "namespaces", "", name);
    let resource = store.resource("", "namespaces").expect("every server has it");
    if store.get(&key).is_none() {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"labels": {"kubernetes.io/metadata.name": name}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        let writer = Writer::update("kubectl-create", "v1");
        store.create(&resource, &key, namespace, &Write { writer, dry: false });
    }
}

/// A workload as `kubectl create` makes it.
pub fn workload(kind: &str, namespace: &str, name: &str, replicas: u32) -> Value {
    let mut workload = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "any"}]},
            },
        },
    });
    if kind == "StatefulSet" {
        workload["spec"]["serviceName"] = json!(name);
    }
    workload
}
