//! One list of requests, sent to the fake and to a real API server; what the client saw is
//! compared, step by step. Where they differ, the fake is wrong.

use serde_json::{Value, json};

use super::client::{self, APPLY, JSON, MERGE, Watch};
use super::seen::{Known, Seen};
use super::{Cluster, Refusal, Resource, workload};
use crate::real;
use crate::support::wait_until;

/// Who asks where rules are tried; both servers know it by this name.
const USER: &str = super::rules::USER;

/// One request. In paths and bodies `{NS}` is the namespace, `{RV}` the version that the last
/// answer had, `{UID}` the uid of the last object; see also [`SHORT`].
struct Step {
    method: &'static str,
    path: String,
    body: Option<(&'static str, String)>,
    /// Waits for the rollout of a workload before, so that nobody else writes to it.
    settled: &'static str,
    /// As an ordinary user, instead of the administrator.
    ordinary: bool,
}

/// What would be repeated in each line of a list.
const SHORT: [(&str, &str); 8] = [
    ("{D}", "/apis/apps/v1/namespaces/{NS}/deployments"),
    ("{S}", "/apis/apps/v1/namespaces/{NS}/statefulsets"),
    ("{H}", "/apis/autoscaling/v2/namespaces/{NS}/horizontalpodautoscalers"),
    ("{G}", "/apis/it.intentd.example/v1/namespaces/{NS}/gadgets"),
    ("{DEPLOYMENT}", r#""apiVersion":"apps/v1","kind":"Deployment""#),
    ("{GADGET}", r#""apiVersion":"it.intentd.example/v1","kind":"Gadget""#),
    ("{REVIEW}", r#""apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview""#),
    ("{WEB}", r#""metadata":{"name":"web","namespace":"{NS}"}"#),
];

fn step(method: &'static str, path: &str, body: Option<(&'static str, &str)>) -> Step {
    let long = |text: &str| SHORT.iter().fold(text.to_owned(), |it, (s, l)| it.replace(s, l));
    let body = body.map(|(kind, body)| (kind, long(body)));
    Step { method, path: long(path), body, settled: "", ordinary: false }
}

fn get(path: &str) -> Step {
    step("GET", path, None)
}

fn delete(path: &str) -> Step {
    step("DELETE", path, None)
}

fn post(path: &str, body: &str) -> Step {
    step("POST", path, Some((JSON, body)))
}

fn merge(path: &str, body: &str) -> Step {
    step("PATCH", path, Some((MERGE, body)))
}

fn put(path: &str, metadata: &str, replicas: &str) -> Step {
    let body = format!(
        r#"{{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{{{metadata},"namespace":"{{NS}}"}},"spec":{{"replicas":{replicas}}}}}"#
    );
    step("PUT", path, Some((JSON, &body)))
}

fn apply(path: &str, body: &str) -> Step {
    step("PATCH", path, Some((APPLY, body)))
}

/// The step, once the controllers are done with a workload.
fn once(settled: &'static str, step: Step) -> Step {
    Step { settled, ..step }
}

fn created(kind: &str, name: &str, replicas: u32) -> Step {
    let plural = if kind == "Deployment" { "{D}" } else { "{S}" };
    let body = workload(kind, "{NS}", name, replicas).to_string();
    post(&format!("{plural}?fieldManager=owner"), &body)
}

/// A server and what is needed to compare it.
struct Side<'a> {
    url: &'a str,
    known: Known,
}

impl<'a> Side<'a> {
    fn new(url: &'a str, namespace: &str) -> Self {
        Side { url, known: Known::new(namespace) }
    }

    fn run(&mut self, steps: &[Step]) -> Vec<Seen> {
        steps.iter().map(|step| self.send(step)).collect()
    }

    fn send(&mut self, step: &Step) -> Seen {
        if !step.settled.is_empty() {
            self.wait_for_rollout(step.settled);
        }
        let path = self.known.fill(&step.path);
        let body = step.body.as_ref().map(|(kind, body)| (*kind, self.known.fill(body)));
        let body = body.as_ref().map(|(kind, body)| (*kind, body.as_str()));
        let user = if step.ordinary { &[("Impersonate-User", USER)][..] } else { &[] };
        let answer = client::send_with(self.url, step.method, &path, body, user)
            .unwrap_or_else(|error| panic!("{} {path}: {error}", step.method));
        self.known.see(&answer)
    }

    /// Until the controllers have nothing left to do for it.
    fn wait_for_rollout(&self, workload: &str) {
        let path = format!("/apis/apps/v1/namespaces/{}/{workload}", self.known.namespace);
        wait_until("a finished rollout", || {
            let object = client::get(self.url, &path).unwrap().json();
            let (spec, status) = (&object["spec"], &object["status"]);
            let replicas = spec["replicas"].as_i64().unwrap_or(0);
            let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
            let all = counts.iter().all(|it| status[*it].as_i64().unwrap_or(0) == replicas);
            let left = status["terminatingReplicas"].as_i64().unwrap_or(0);
            status["observedGeneration"] == object["metadata"]["generation"] && all && left == 0
        });
    }
}

/// Sends a list to the fake, and to the real server where there is one; the two have to agree.
#[track_caller]
fn compare(fake: &Cluster, real: Option<(&real::Cluster, &str)>, steps: &[Step]) -> Vec<Seen> {
    fake.namespace("it");
    let url = fake.url();
    let ours = Side::new(&url, "it").run(steps);
    fake.take_violations();
    if let Some((real, namespace)) = real {
        let theirs = Side::new(real.url(), namespace).run(steps);
        let mut differences = String::new();
        for (at, step) in steps.iter().enumerate() {
            let Step { method, path, body, .. } = step;
            if ours[at] != theirs[at] {
                let body = body.as_ref().map_or("", |(_, body)| body);
                differences += &format!(
                    "\nstep {at}: {method} {path} {body}\n  fake {}\n  real {}\n",
                    ours[at], theirs[at]
                );
            }
        }
        assert!(differences.is_empty(), "the fake is not like the real one:\n{differences}");
    }
    ours
}

fn gadgets() -> Resource {
    let schema = json!({"properties": {"spec": {"type": "object", "required": ["replicas"],
    "properties": {
        "replicas": {"type": "integer", "minimum": 0},
        "note": {"type": "string"},
    }}}});
    Resource::custom("it.intentd.example", "v1", "gadgets", "Gadget")
        .with_scale()
        .with_schema(schema)
}

/// The definition of [`gadgets`] for the real server.
fn definition() -> Value {
    let mut schema = gadgets().schema;
    schema["type"] = json!("object");
    schema["properties"]["status"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.it.intentd.example"},
        "spec": {
            "group": "it.intentd.example", "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                    },
                },
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

fn with_gadgets(real: &real::Cluster) {
    real.apply(&definition().to_string());
    let wait = "wait --for=condition=Established crd/gadgets.it.intentd.example";
    real.kubectl(&wait.split(' ').collect::<Vec<_>>());
    // Established is said before the paths are there.
    let path = "/apis/it.intentd.example/v1/gadgets";
    wait_until("the paths", || client::get(real.url(), path).unwrap().status == 200);
}

fn fake_with_gadgets() -> Cluster {
    let fake = Cluster::start();
    fake.serve(gadgets());
    fake
}

fn scaling() -> Vec<Step> {
    const SCALE: &str = "{D}/web/scale?fieldManager=intentd";
    const DB: &str = "{S}/db/scale?fieldManager=intentd";
    vec![
        created("Deployment", "web", 2),
        created("Deployment", "web", 2),
        created("StatefulSet", "db", 1),
        once("deployments/web", get("{D}/web")),
        get("{D}/web/scale"),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":3}}"#),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":4}}"#),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"abc"},"spec":{"replicas":4}}"#),
        merge(SCALE, r#"{"metadata":{"uid":"{UID}"},"spec":{"replicas":3}}"#),
        merge(
            SCALE,
            r#"{"metadata":{"uid":"11111111-8c1f-5c8a-8899-833a467f7bd1"},"spec":{"replicas":4}}"#,
        ),
        merge(SCALE, r#"{"metadata":{"name":"other"},"spec":{"replicas":4}}"#),
        merge(SCALE, r#"{"spec":{"replicas":-1}}"#),
        merge(SCALE, r#"{"spec":{"replicas":"4"}}"#),
        merge(SCALE, r#"{"spec":{"replicas":3.5}}"#),
        merge(SCALE, r#"{"spec":{"replicas":3000000000}}"#),
        merge(SCALE, r#"{"spec":{"replicas":true}}"#),
        merge(SCALE, r#"{"spec":{"replicsa":4}}"#),
        merge(
            "{D}/web/scale?fieldManager=intentd&fieldValidation=Strict",
            r#"{"spec":{"replicsa":4}}"#,
        ),
        merge(
            "{D}/web/scale?fieldManager=intentd&fieldValidation=Maybe",
            r#"{"spec":{"replicas":4}}"#,
        ),
        merge("{D}/web/scale?fieldManager=intentd&dryRun=All", r#"{"spec":{"replicas":9}}"#),
        merge("{D}/web/scale?fieldManager=intentd&dryRun=Some", r#"{"spec":{"replicas":9}}"#),
        merge("{D}/web/scale?fieldManager=intentd&force=true", r#"{"spec":{"replicas":9}}"#),
        merge(SCALE, r#"{"spec":{"replicas":3}"#),
        post(SCALE, "{}"),
        step("PATCH", SCALE, Some((JSON, "{}"))),
        once("deployments/web", get("{D}/web/scale")),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":3}}"#),
        merge(SCALE, r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":null}}"#),
        once("deployments/web", get("{D}/web/scale")),
        get("{D}/web"),
        merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":null}}"#),
        merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":-4}}"#),
        merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":"4"}}"#),
        merge(
            "{D}/web?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":4}}"#,
        ),
        get("{D}/none"),
        get("{D}/none/scale"),
        merge("{D}/none/scale?fieldManager=intentd", r#"{"spec":{"replicas":3}}"#),
        merge("{S}/none/scale?fieldManager=intentd", r#"{"spec":{"replicas":3}}"#),
        merge(
            "/apis/apps/v1/namespaces/nowhere/deployments/web/scale?fieldManager=intentd",
            r#"{"spec":{"replicas":3}}"#,
        ),
        get("/apis/apps/v1/namespaces/nowhere/deployments"),
        once("statefulsets/db", get("{S}/db/scale")),
        merge(
            "{S}/db/scale?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":2}}"#,
        ),
        merge("{S}/db/scale?fieldManager=intentd", r#"{"spec":{"replicas":-2}}"#),
        once("statefulsets/db", get("{S}/db")),
        once("statefulsets/db", get("{S}/db/scale")),
        put(DB, r#""name":"db","resourceVersion":"{RV}""#, "3"),
        put(DB, r#""name":"db","resourceVersion":"1""#, "4"),
        put(DB, r#""name":"db""#, "4"),
        put(DB, r#""name":"other""#, "5"),
        put(DB, r#""name":"db""#, "-5"),
        put(DB, r#""name":"db""#, "\"5\""),
        put("{S}/none/scale?fieldManager=intentd", r#""name":"none""#, "5"),
        delete("{D}/none"),
    ]
}

#[test]
fn scaling_a_workload_is_answered_as_by_a_real_server() {
    let real = real::shared();
    let namespace = real.map(real::Cluster::namespace).unwrap_or_default();
    compare(&Cluster::start(), real.map(|real| (real, &*namespace)), &scaling());
}

fn applying() -> Vec<Step> {
    let with = |name: &str, replicas: &str, more: &str| {
        format!(
            r#"{{{{DEPLOYMENT}},"metadata":{{"name":"{name}"{more}}},"spec":{{"replicas":{replicas}}}}}"#
        )
    };
    let of = |manager: &str, more: &str, body: String| {
        apply(&format!("{{D}}/web?fieldManager={manager}{more}"), &body)
    };
    let web = |replicas: &str| with("web", replicas, "");
    let uid = r#","uid":"11111111-8c1f-5c8a-8899-833a467f7bd1""#;
    vec![
        created("Deployment", "web", 2),
        of("a", "", web("3")),
        of("a", "", web("2")),
        of("b", "", web("3")),
        of("a", "&force=true&dryRun=All", web("5")),
        once("deployments/web", get("{D}/web")),
        of("a", "&force=true", web("3")),
        of("b", "", web("3")),
        of("c", "", web("4")),
        of("c", "&force=true", web("4")),
        merge("{D}/web/scale?fieldManager=s", r#"{"spec":{"replicas":5}}"#),
        of("c", "", web("6")),
        apply("{D}/web", &web("6")),
        of("c", "", with("other", "6", "")),
        of("c", "&force=true&fieldValidation=Strict", web("3").replace("replicas", "replicsa")),
        of("c", "&force=true", web("\"3\"")),
        of("c", "&force=true", web("-1")),
        of("c", "&force=true", with("web", "4", uid)),
        of("c", "&force=true", with("web", "4", r#","resourceVersion":"1""#)),
        of("c", "&force=true", r#"{"apiVersion":"apps/v1","metadata":{"name":"web"}}"#.to_owned()),
        apply("{D}/none?fieldManager=c", &with("none", "4", "")),
        apply("{D}/none?fieldManager=c", &with("none", "4", uid)),
        of("c", "&force=true", web("6")),
        of("c", "", r#"{{DEPLOYMENT},"metadata":{"name":"web"}}"#.to_owned()),
        once("deployments/web", get("{D}/web")),
    ]
}

#[test]
fn server_side_apply_is_answered_as_by_a_real_server() {
    let real = real::shared();
    let namespace = real.map(real::Cluster::namespace).unwrap_or_default();
    compare(&Cluster::start(), real.map(|real| (real, &*namespace)), &applying());
}

fn objects() -> Vec<Step> {
    const CREATE: &str = "{G}?fieldManager=intentd";
    const GADGET: &str = r#"{{GADGET},"metadata":{"name":"g"},"spec":{"replicas":2,"note":"x"}}"#;
    let other = |name: &str, spec: &str| {
        format!(r#"{{{{GADGET}},"metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
    };
    let absent = "/apis/absent.intentd.example/v1/namespaces/{NS}/networkintents";
    vec![
        get("/version"),
        get("/apis/apps/v1"),
        get("/apis/apps"),
        get("/apis/autoscaling/v2"),
        get("/apis/it.intentd.example/v1"),
        get("/apis/absent.intentd.example/v1"),
        get("/nothing"),
        get("/apis/apps/v1/namespaces/{NS}/deploymentz/web"),
        get("/apis/apps/v1/namespaces/{NS}/deployments/web/scales"),
        post(absent, GADGET),
        post("{G}?fieldManager=intentd&dryRun=All", GADGET),
        get("{G}/g"),
        post(CREATE, GADGET),
        post(CREATE, GADGET),
        post("{G}?fieldManager=intentd&dryRun=All", GADGET),
        get("{G}/g"),
        post("/apis/it.intentd.example/v1/namespaces/nowhere/gadgets?fieldManager=intentd", GADGET),
        post(
            CREATE,
            r#"{{GADGET},"metadata":{"name":"g","namespace":"other"},"spec":{"replicas":2}}"#,
        ),
        post(CREATE, &other("A_b", r#"{"replicas":2}"#)),
        post(CREATE, &other("h", r#"{"replicas":"2"}"#)),
        post(CREATE, &other("h", r#"{"replicas":-2}"#)),
        post(CREATE, &other("h", r#"{"note":"x"}"#)),
        post(CREATE, &other("h", r#"{"replicas":2,"more":1}"#)),
        post(
            "{G}?fieldManager=intentd&fieldValidation=Strict",
            &other("i", r#"{"replicas":2,"more":1}"#),
        ),
        post(CREATE, "{"),
        step("POST", CREATE, Some(("text/plain", GADGET))),
        get("{G}/g/scale"),
        merge(
            "{G}/g/scale?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"{RV}"},"spec":{"replicas":3}}"#,
        ),
        merge(
            "{G}/g/scale?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"1"},"spec":{"replicas":4}}"#,
        ),
        merge("{G}/g/scale?fieldManager=intentd", r#"{"spec":{"replicas":-4}}"#),
        merge("{G}/g/scale?fieldManager=intentd", r#"{"spec":{"replicas":"4"}}"#),
        get("{G}/g"),
        get("{G}"),
        get("{G}?fieldSelector=metadata.name%3Dg"),
        get("{G}?labelSelector=a%3D%3D%3Db"),
        get("{D}?fieldSelector=spec.replicas%3D3"),
        get("{H}"),
        post(
            "{H}?fieldManager=intentd",
            r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"h"},"spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"absent"},"minReplicas":1,"maxReplicas":4}}"#,
        ),
        merge("{H}/h?fieldManager=intentd", r#"{"spec":{"minReplicas":3}}"#),
        merge("{H}/h?fieldManager=intentd", r#"{"spec":{"minReplicas":5}}"#),
        merge(
            "{H}/h?fieldManager=intentd",
            r#"{"metadata":{"resourceVersion":"1"},"spec":{"minReplicas":2}}"#,
        ),
        merge("{H}/none?fieldManager=intentd", r#"{"spec":{"minReplicas":2}}"#),
        get("{H}"),
        get("/api/v1/namespaces/{NS}"),
        get("/api/v1/namespaces/nowhere"),
        get("{G}?watch=1&resourceVersion=abc"),
        get("{G}?watch=1&resourceVersion=1&timeoutSeconds=1"),
        get("{G}?watch=1&sendInitialEvents=true"),
        get("{G}?watch=1&timeoutSeconds=1"),
        get("{G}/g"),
        merge("{G}/g?fieldManager=intentd", r#"{"spec":{"note":"y"}}"#),
        delete("{G}/g"),
        get("{G}?watch=1&resourceVersion={RV}&timeoutSeconds=1"),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            r#"{{REVIEW},"spec":{"resourceAttributes":{"namespace":"{NS}","verb":"get","group":"apps","resource":"deployments"}}}"#,
        ),
    ]
}

#[test]
fn objects_lists_watches_and_discovery_are_answered_as_by_a_real_server() {
    let real = real::shared();
    let namespace = real.map(real::Cluster::namespace).unwrap_or_default();
    real.inspect(|real| with_gadgets(real));
    compare(&fake_with_gadgets(), real.map(|real| (real, &*namespace)), &objects());
}

fn forbidden() -> Vec<Step> {
    let mut steps = vec![
        get("{D}/web"),
        get("{D}"),
        get("{D}?watch=true"),
        get("{D}?fieldSelector=metadata.name%3Dweb"),
        get("{D}/web/scale"),
        merge("{D}/web/scale?fieldManager=intentd", r#"{"spec":{"replicas":3}}"#),
        post("{D}?fieldManager=intentd", "{}"),
        get("{H}"),
        get("/apis/autoscaling/v2/horizontalpodautoscalers"),
        get("/api/v1/namespaces/{NS}"),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            r#"{{REVIEW},"spec":{"resourceAttributes":{"namespace":"{NS}","verb":"patch","group":"apps","resource":"deployments","subresource":"scale"}}}"#,
        ),
    ];
    for step in &mut steps {
        step.ordinary = true;
    }
    steps
}

#[test]
fn what_is_forbidden_is_answered_as_by_a_real_server() {
    let real = real::shared();
    let namespace = real.map(real::Cluster::namespace).unwrap_or_default();
    let fake = Cluster::start();
    for resource in ["deployments", "deployments/scale", "horizontalpodautoscalers", "namespaces"] {
        fake.forbid("*", resource);
    }
    compare(&fake, real.map(|real| (real, &*namespace)), &forbidden());
}

/// Two requests that admission refuses, and how a real server is made to refuse them.
#[test]
fn what_admission_refuses_is_answered_as_by_a_real_server() {
    let real = real::shared();
    let namespace = real.map(real::Cluster::namespace).unwrap_or_default();
    real.inspect(|real| with_gadgets(real));
    let fake = fake_with_gadgets();
    let with_real = real.map(|real| (real, &*namespace));

    compare(&fake, with_real, &[created("Deployment", "web", 2)]);
    let message = "at most ten".to_owned();
    let refusal = Refusal::Policy { policy: "few-it".to_owned(), message };
    fake.refuse("update", "deployments/scale", refusal.clone());
    fake.refuse("update", "deployments", refusal);
    const SCALE: &str = "{D}/web/scale?fieldManager=intentd";
    let too_many = || merge(SCALE, r#"{"spec":{"replicas":11}}"#);
    if let Some(real) = real {
        real.apply(&policy("few-it", &namespace).to_string());
        let mut side = Side::new(real.url(), &namespace);
        let probe = merge(&format!("{SCALE}&dryRun=All"), r#"{"spec":{"replicas":11}}"#);
        wait_until("the policy", || side.send(&probe).status == 422);
    }
    compare(
        &fake,
        with_real,
        &[too_many(), merge("{D}/web?fieldManager=intentd", r#"{"spec":{"replicas":11}}"#)],
    );

    let message = "exceeded quota: few, requested: count/deployments.apps=1, used: \
                   count/deployments.apps=1, limited: count/deployments.apps=1";
    fake.refuse("create", "deployments", Refusal::Quota { message: message.to_owned() });
    if let Some(real) = real {
        let hard = "--hard=count/deployments.apps=1";
        real.kubectl(&["create", "quota", "few", hard, "-n", &namespace]);
        let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/few");
        wait_until("the quota's count", || {
            let quota = client::get(real.url(), &path).unwrap().json();
            quota["status"]["used"]["count/deployments.apps"] == "1"
        });
    }
    compare(&fake, with_real, &[created("Deployment", "second", 1)]);

    fake.terminate_namespace("it");
    if let Some(real) = real {
        let held = r#"{"metadata":{"finalizers":["example.com/hold"]}}"#;
        let patch = ["patch", "deployment", "web", "--type=merge", "-p", held, "-n", &namespace];
        real.kubectl(&patch);
        real.kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
        wait_until("the deletion of the Deployment", || {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
            let web = client::get(real.url(), &path).unwrap().json();
            web["metadata"]["deletionTimestamp"].is_string()
        });
    }
    fake.terminate("deployments", "it", "web");
    fake.admit_all();
    let gadget = r#"{{GADGET},"metadata":{"name":"g"},"spec":{"replicas":2}}"#;
    compare(
        &fake,
        with_real,
        &[
            post("{G}?fieldManager=intentd", gadget),
            get("/api/v1/namespaces/{NS}"),
            get("{D}/web"),
            get("{D}/web/scale"),
            merge(SCALE, r#"{"spec":{"replicas":3}}"#),
            get("{D}/web"),
        ],
    );
    if let Some(real) = real {
        let free = r#"{"metadata":{"finalizers":null}}"#;
        real.kubectl(&["patch", "deployment", "web", "--type=merge", "-p", free, "-n", &namespace]);
        real.kubectl(&[
            "delete",
            "validatingadmissionpolicy,validatingadmissionpolicybinding",
            "few-it",
        ]);
    }
}

/// A policy for Deployments of one namespace, with its binding of the same name.
fn policy(name: &str, namespace: &str) -> Value {
    let selected = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": selected,
                "resourceRules": [{
                    "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                    "resources": ["deployments", "deployments/scale"],
                }],
            },
            "validations": [{"expression": "object.spec.replicas <= 10", "message": "at most ten"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]})
}

/// What a watch tells of a rollout: the first event after the write, and the last.
fn rollout(url: &str, namespace: &str) -> [Value; 2] {
    let mut side = Side::new(url, namespace);
    side.send(&created("Deployment", "web", 2));
    side.wait_for_rollout("deployments/web");
    side.send(&get("{D}"));
    let path = "/apis/apps/v1/namespaces/{NS}/deployments?watch=1&resourceVersion={RV}\
                &fieldSelector=metadata.name%3Dweb";
    let watch = Watch::start(url, &side.known.fill(path)).unwrap();
    let body = r#"{"spec":{"replicas":5}}"#;
    side.send(&merge("{D}/web/scale?fieldManager=intentd", body));
    let mut seen = Vec::new();
    for event in watch {
        let event = event.unwrap();
        let (object, status) = (&event["object"], &event["object"]["status"]);
        let ready = status["readyReplicas"] == 5 && status["availableReplicas"] == 5;
        seen.push(json!({
            "type": event["type"], "wanted": object["spec"]["replicas"],
            "generation": object["metadata"]["generation"],
            "observed": status["observedGeneration"], "replicas": status["replicas"],
            "updated": status["updatedReplicas"], "ready": status["readyReplicas"],
        }));
        if ready {
            break;
        }
    }
    let last = seen.pop().expect("the rollout ends");
    [seen.swap_remove(0), last]
}

#[test]
fn a_watch_from_a_lists_version_tells_of_a_rollout_as_a_real_one_does() {
    let fake = Cluster::start();
    let ours = rollout(&fake.url(), "default");
    let event = |observed: u64, replicas: u64| {
        json!({
            "type": "MODIFIED", "wanted": 5, "generation": 2, "observed": observed,
            "replicas": replicas, "updated": replicas, "ready": replicas,
        })
    };
    assert_eq!(ours, [event(1, 2), event(2, 5)]);
    if let Some(real) = real::shared() {
        assert_eq!(rollout(real.url(), &real.namespace()), ours);
    }
}
