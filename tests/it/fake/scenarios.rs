//! One list of requests, sent to the fake and to a real API server; what the client saw is
//! compared, step by step. Where they differ, the fake is wrong.
//!
//! What the real one answered is in `recorded`, so that the fake is held against it without one as
//! well. Written anew, when a step has changed, by a run with a real server and `INTENTD_RECORD=1`.

mod side;
mod steps;

use serde_json::{Value, json};

use super::client::{self, Watch};
use super::{Cluster, Refusal, Request, Resource, Response, Routes, Store, workload};
use crate::real;
use crate::support::wait_until;
use side::{Side, compare};
use steps::{created, get, merge, post};

/// A namespace of the real server for one list, where there is one.
fn real_namespace() -> Option<(&'static real::Cluster, String)> {
    real::shared().map(|real| (real, real.namespace()))
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

#[test]
fn scaling_a_workload_is_answered_as_by_a_real_server() {
    let real = real_namespace();
    let real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    compare("scaling", &Cluster::start(), real, &steps::scaling());
}

#[test]
fn server_side_apply_is_answered_as_by_a_real_server() {
    let real = real_namespace();
    let real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    compare("applying", &Cluster::start(), real, &steps::applying());
}

#[test]
fn objects_lists_watches_and_discovery_are_answered_as_by_a_real_server() {
    let real = real_namespace();
    let real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    real.inspect(|(real, _)| with_gadgets(real));
    compare("objects", &fake_with_gadgets(), real, &steps::objects());
}

#[test]
fn what_is_forbidden_is_answered_as_by_a_real_server() {
    let real = real_namespace();
    let real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    let fake = Cluster::start();
    for resource in ["deployments", "deployments/scale", "horizontalpodautoscalers", "namespaces"] {
        fake.forbid("*", resource);
    }
    compare("forbidden", &fake, real, &steps::forbidden());
}

/// With 11 replicas, which the policy of the next test refuses.
const SCALE: &str = "{D}/web/scale?fieldManager=intentd";
const ELEVEN: &str = r#"{"spec":{"replicas":11}}"#;

#[test]
fn what_a_policy_and_a_quota_refuse_is_answered_as_by_a_real_server() {
    let fake = Cluster::start();
    fake.put_as("owner", workload("Deployment", "it", "web", 2));
    let refusal =
        Refusal::Policy { policy: "few-it".to_owned(), message: "at most ten".to_owned() };
    fake.refuse("update", "deployments/scale", refusal.clone());
    fake.refuse("update", "deployments", refusal);
    let message = "exceeded quota: few, requested: count/deployments.apps=1, used: \
                   count/deployments.apps=1, limited: count/deployments.apps=1";
    fake.refuse("create", "deployments", Refusal::Quota { message: message.to_owned() });

    let real = real_namespace();
    if let Some((real, namespace)) = &real {
        let mut side = Side::new(real.url(), namespace);
        side.send(&created("Deployment", "web", 2));
        real.apply(&policy("few-it", namespace).to_string());
        let probe = merge(&format!("{SCALE}&dryRun=All"), ELEVEN);
        wait_until("the policy", || side.send(&probe).status == 422);
        let hard = "--hard=count/deployments.apps=1";
        real.kubectl(&["create", "quota", "few", hard, "-n", namespace]);
        let path = format!("/api/v1/namespaces/{namespace}/resourcequotas/few");
        wait_until("the quota's count", || {
            let quota = client::get(real.url(), &path).unwrap().json();
            quota["status"]["used"]["count/deployments.apps"] == "1"
        });
    }
    let steps = [
        merge(SCALE, ELEVEN),
        merge("{D}/web?fieldManager=intentd", ELEVEN),
        created("Deployment", "second", 1),
    ];
    let with_real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    compare("admission", &fake, with_real, &steps);
    if let Some((real, _)) = real {
        let kinds = "validatingadmissionpolicy,validatingadmissionpolicybinding";
        real.kubectl(&["delete", kinds, "few-it"]);
    }
}

/// A webhook that says no to everything: with a code of its own, or with none.
struct Webhook;

impl Routes for Webhook {
    fn answer(&mut self, request: &Request, _: &mut Store) -> Option<Response> {
        let code = request.path.strip_prefix("/deny/")?;
        let mut status = json!({"message": "at most ten"});
        if let Ok(code) = code.parse::<u16>() {
            status["code"] = json!(code);
        }
        let review = request.json();
        let response = json!({
            "uid": review["request"]["uid"], "allowed": false, "status": status,
        });
        let (version, kind) = (&review["apiVersion"], &review["kind"]);
        let answer = json!({"apiVersion": version, "kind": kind, "response": response});
        Some(Response::json(200, &answer))
    }
}

/// The webhook's configuration on the real server, for workloads of one namespace.
fn webhooks(webhook: &Cluster, namespace: &str) -> Value {
    let authority = base64(webhook.authority_pem().expect("it speaks TLS").as_bytes());
    let hook = |resource: &str, code: &str| {
        json!({
            "name": format!("few-{resource}.intentd.example"), "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "failurePolicy": "Fail",
            "clientConfig": {"url": format!("{}/deny/{code}", webhook.url()), "caBundle": authority},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
                "resources": [format!("{resource}/scale")],
            }],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "few"},
        "webhooks": [hook("deployments", "403"), hook("statefulsets", "none")],
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let all = three.iter().fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
        let all = all << (8 * (3 - three.len()));
        let digit = |at: usize| match at <= three.len() {
            true => char::from(DIGITS[all >> (18 - 6 * at) & 63]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

#[test]
fn what_a_webhook_refuses_is_answered_as_by_a_real_server() {
    let fake = Cluster::start();
    fake.put_as("owner", workload("Deployment", "it", "web", 2));
    fake.put_as("owner", workload("StatefulSet", "it", "db", 1));
    for (resource, code) in [("deployments", 403), ("statefulsets", 400)] {
        let webhook = format!("few-{resource}.intentd.example");
        let refusal = Refusal::Webhook { webhook, code, message: "at most ten".to_owned() };
        fake.refuse("update", &format!("{resource}/scale"), refusal);
    }
    let steps = [merge(SCALE, ELEVEN), merge("{S}/db/scale?fieldManager=intentd", ELEVEN)];

    let webhook = Cluster::start_tls();
    webhook.route(Box::new(Webhook));
    let real = real_namespace();
    if let Some((real, namespace)) = &real {
        let mut side = Side::new(real.url(), namespace);
        side.send(&created("Deployment", "web", 2));
        side.send(&created("StatefulSet", "db", 1));
        real.apply(&webhooks(&webhook, namespace).to_string());
        let probe = merge("{S}/db/scale?fieldManager=intentd&dryRun=All", ELEVEN);
        wait_until("the webhook", || side.send(&probe).status == 400);
    }
    let with_real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    compare("webhook", &fake, with_real, &steps);
    if let Some((real, _)) = real {
        real.kubectl(&["delete", "validatingwebhookconfiguration", "few"]);
    }
}

#[test]
fn what_is_being_deleted_is_answered_as_by_a_real_server() {
    let fake = fake_with_gadgets();
    fake.put_as("owner", workload("Deployment", "it", "web", 2));
    fake.terminate_namespace("it");
    fake.terminate("deployments", "it", "web");

    let real = real_namespace();
    if let Some((real, namespace)) = &real {
        with_gadgets(real);
        let mut side = Side::new(real.url(), namespace);
        side.send(&created("Deployment", "web", 2));
        side.wait_for_rollout("deployments/web");
        finalizers(real, namespace, r#"["example.com/hold"]"#);
        real.kubectl(&["delete", "namespace", namespace, "--wait=false"]);
        wait_until("the deletion of the Deployment", || {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/web");
            let web = client::get(real.url(), &path).unwrap().json();
            web["metadata"]["deletionTimestamp"].is_string()
        });
    }
    let gadget = r#"{{GADGET},"metadata":{"name":"g"},"spec":{"replicas":2}}"#;
    let steps = [
        post("{G}?fieldManager=intentd", gadget),
        get("/api/v1/namespaces/{NS}"),
        get("{D}/web"),
        get("{D}/web/scale"),
        merge(SCALE, r#"{"spec":{"replicas":3}}"#),
        get("{D}/web"),
    ];
    let with_real = real.as_ref().map(|(real, namespace)| (*real, &**namespace));
    compare("deletion", &fake, with_real, &steps);
    if let Some((real, namespace)) = &real {
        finalizers(real, namespace, "null");
    }
}

fn finalizers(real: &real::Cluster, namespace: &str, them: &str) {
    let patch = format!(r#"{{"metadata":{{"finalizers":{them}}}}}"#);
    real.kubectl(&["patch", "deployment", "web", "--type=merge", "-p", &patch, "-n", namespace]);
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

/// What is left after the server was killed and started again.
fn after_a_restart(url: &str, restart: impl FnOnce()) -> Vec<Value> {
    let mut side = Side::new(url, "default");
    side.send(&created("Deployment", "web", 2));
    side.wait_for_rollout("deployments/web");
    let before = side.send(&get("{D}"));
    let path = side.known.fill("{NS} {RV}");
    let (namespace, version) = path.split_once(' ').expect("two words");
    let watch = format!(
        "/apis/apps/v1/namespaces/{namespace}/deployments?watch=1&resourceVersion={version}\
         &timeoutSeconds=1"
    );
    // So that the version is one from before the restart.
    side.send(&merge(SCALE, r#"{"spec":{"replicas":3}}"#));
    side.wait_for_rollout("deployments/web");
    restart();
    let events = side.send(&get(&watch));
    let after = side.send(&get("{D}/web"));
    vec![before.body, events.body, after.body]
}

#[test]
fn a_restarted_server_keeps_its_data_and_forgets_its_history_as_a_real_one_does() {
    let fake = std::cell::RefCell::new(Cluster::start());
    let url = fake.borrow().url();
    let ours = after_a_restart(&url, || fake.borrow_mut().restart());
    assert_eq!(ours[2]["spec"]["replicas"], 3);
    assert_eq!(ours[1][0]["object"]["reason"], "Expired");
    if let Some(real) = real::Cluster::start(1) {
        let theirs = after_a_restart(real.url(), || {
            real.kill("kube-apiserver");
            real.revive("kube-apiserver");
        });
        assert_eq!(ours, theirs);
    }
}

/// The status of a workload that is at rest, without times and generated names.
fn at_rest(url: &str, namespace: &str, resource: &str) -> Value {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/{resource}");
    let mut status = client::get(url, &path).unwrap().json()["status"].take();
    for name in ["currentRevision", "updateRevision"] {
        if let Some(revision) = status.get_mut(name) {
            *revision = json!("a name");
        }
    }
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        *condition = json!([condition["type"], condition["status"], condition["reason"]]);
    }
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.sort_by_key(Value::to_string);
    }
    status
}

#[test]
fn workloads_at_rest_have_the_status_of_real_ones() {
    let fake = Cluster::start();
    let url = fake.url();
    let real = real_namespace();
    for (kind, resource) in [("Deployment", "deployments/web"), ("StatefulSet", "statefulsets/web")]
    {
        for replicas in [2, 5, 0, 1] {
            let step = match replicas {
                2 => created(kind, "web", 2),
                some => merge(
                    &format!(
                        "/apis/apps/v1/namespaces/{{NS}}/{resource}/scale?fieldManager=intentd"
                    ),
                    &json!({"spec": {"replicas": some}}).to_string(),
                ),
            };
            Side::new(&url, "default").send(&step);
            let ours = at_rest(&url, "default", resource);
            if let Some((real, namespace)) = &real {
                let mut side = Side::new(real.url(), namespace);
                side.send(&step);
                side.wait_for_rollout(resource);
                // Conditions and revisions may come a moment later.
                wait_until(&format!("{kind} of {replicas} to have the status {ours}"), || {
                    at_rest(real.url(), namespace, resource) == ours
                });
            }
        }
    }
}
