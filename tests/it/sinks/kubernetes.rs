//! The sink `kubernetes`, over the API server in this process; `real` has what only a real one shows.

mod faults;
mod modes;
mod real;
mod verification;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use intentd::config::{
    ClusterAccess, Confirmed, HpaRule, KubernetesMode, KubernetesSettings, Workload,
};
use intentd::model::{Code, Seq};
use intentd::sink::cluster::Clusters;
use intentd::sink::kubernetes::Kubernetes;
use intentd::sink::{Answer, Context, Fatal, Retry, Sink, Step, Waker};
use serde_json::json;

use super::{
    Fencing, Job, PATIENCE, Steps, Subject, deliver, done, failed, holds_the_contract, job, settle,
};
use crate::fake::{Cluster, Fault, Refusal, Wrong};

/// As the configuration has them by default, with a kubeconfig.
pub fn settings(kubeconfig: std::path::PathBuf) -> KubernetesSettings {
    KubernetesSettings {
        access: ClusterAccess { kubeconfig: Some(kubeconfig), context: None },
        mode: KubernetesMode::Scale,
        workload: Workload {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        },
        field_manager: "intentd".to_owned(),
        force: false,
        hpa: HpaRule::Refuse,
        delivered: Confirmed::Observed,
        verify_timeout: PATIENCE,
        timeout: Duration::from_secs(10),
        concurrency: 8,
        whole_cluster: false,
    }
}

/// A sink of a process of its own.
pub fn sink(settings: &KubernetesSettings) -> Kubernetes {
    let cluster = Clusters::new().unwrap().at(settings.access.clone());
    Kubernetes::new("kubernetes".to_owned(), settings, cluster)
}

/// A cluster with Deployments of 2 replicas.
pub fn with(targets: &[&str]) -> Cluster {
    let cluster = Cluster::start();
    targets.iter().for_each(|target| cluster.deployment("ran-a", target, 2));
    cluster
}

pub fn sink_at(cluster: &Cluster, change: impl FnOnce(&mut KubernetesSettings)) -> Kubernetes {
    let mut settings = settings(cluster.kubeconfig());
    change(&mut settings);
    sink(&settings)
}

/// More than any call causes.
const WAKES: usize = 64;

/// One call of `deliver` and all that a test looks at of it.
pub struct Called {
    pub answer: Answer,
    pub journal: Vec<(Seq, Step)>,
    pub wakes: Receiver<Seq>,
}

pub fn call(sink: &mut dyn Sink, job: &Job) -> Called {
    let (sender, wakes) = bounded(WAKES);
    let waker: Waker = Arc::new(move |seq| {
        let _ = sender.try_send(seq);
    });
    let (journal, fence) = (Steps::default(), Fencing::holds());
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let answer = sink.deliver(&[job.delivery()], &context).unwrap().remove(0);
    Called { answer, journal: journal.taken(), wakes }
}

/// Delivers one until it is settled.
pub fn settled(sink: &mut dyn Sink, job: &Job) -> Answer {
    settle(sink, &[job]).remove(0)
}

#[track_caller]
pub fn pending(answer: Answer) -> Step {
    match answer {
        Answer::Pending { step, .. } => step,
        other => panic!("not pending: {other:?}"),
    }
}

/// What was asked of workloads and autoscalers, watches and their lists left out.
pub fn calls(cluster: &Cluster) -> Vec<String> {
    let is_followed = |it: &crate::fake::Request| {
        it.method == "GET" && (it.flag("watch") || it.param("limit").is_some())
    };
    cluster.requests().iter().filter(|it| !is_followed(it)).map(|it| it.line()).collect()
}

pub fn patches(cluster: &Cluster) -> usize {
    cluster.requests().iter().filter(|it| it.method == "PATCH").count()
}

pub fn replicas(cluster: &Cluster, target: &str) -> i64 {
    cluster.replicas("deployments", "ran-a", target)
}

#[test]
fn a_kubernetes_sink_holds_the_contract() {
    for mode in [KubernetesMode::Scale, KubernetesMode::Ssa, KubernetesMode::NetworkIntent] {
        holds_the_contract("kubernetes", || {
            let cluster = Arc::new(with(&["a", "b", "c"]));
            let sink = sink_at(&cluster, |it| {
                it.mode = mode;
                // The targets were made by somebody else.
                it.force = true;
            });
            let (seen, stalled) = (Arc::clone(&cluster), Arc::clone(&cluster));
            Subject {
                sink: Box::new(sink),
                visible: Box::new(move || {
                    let path = "/apis/intent.nephoran.com/v1alpha1/namespaces/ran-a/networkintents";
                    let made = crate::fake::client::get(&seen.url(), path).unwrap().json();
                    let made = made["items"].as_array().unwrap().iter();
                    let made = made.map(|it| it["spec"].to_string());
                    let counts = ["a", "b", "c"].map(|it| format!("{it} {}", replicas(&seen, it)));
                    counts.into_iter().chain(made).collect()
                }),
                stall: Box::new(move || {
                    stalled.fail(Fault::new(Wrong::Blackhole).but_watches().always());
                    Box::new(Healed(Arc::clone(&stalled)))
                }),
            }
        });
    }
}

/// Heals the cluster when it is dropped.
struct Healed(Arc<Cluster>);

impl std::fmt::Debug for Healed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Healed")
    }
}

impl Drop for Healed {
    fn drop(&mut self) {
        self.0.heal();
    }
}

#[test]
fn two_requests_scale_a_workload_and_the_receipt_tells_how_far_it_came() {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |it| it.delivered = Confirmed::Converged);
    let answer = settled(&mut sink, &job("web", 5));
    let confirmation = done(&answer);
    assert_eq!(confirmation.location, "deployments/ran-a/web");
    assert!(!confirmation.unchanged);
    let told: Vec<&str> = confirmation.further.keys().map(String::as_str).collect();
    assert_eq!(told, ["accepted_at", "converged_at", "observed_at", "resource_version"]);
    assert_eq!(replicas(&cluster, "web"), 5);
    let scale = "/apis/apps/v1/namespaces/ran-a/deployments/web/scale";
    assert_eq!(
        calls(&cluster),
        [format!("GET {scale}"), format!("PATCH {scale}?fieldManager=intentd")]
    );
    let patch = cluster.requests().into_iter().find(|it| it.method == "PATCH").unwrap();
    assert_eq!(patch.content_type(), "application/merge-patch+json");
    let body = patch.json();
    assert_eq!(body["spec"], json!({"replicas": 5}));
    assert!(body["metadata"]["resourceVersion"].is_string(), "{body}");
    let agents: Vec<String> =
        cluster.requests().iter().map(|it| it.user_agent().to_owned()).collect();
    assert!(agents.iter().all(|agent| agent.starts_with("intentd/")), "{agents:?}");
}

#[test]
fn what_already_is_as_wanted_is_unchanged_and_not_written() {
    let cluster = with(&["web"]);
    for delivered in [Confirmed::Accepted, Confirmed::Observed, Confirmed::Converged] {
        let mut sink = sink_at(&cluster, |it| it.delivered = delivered);
        assert!(done(&settled(&mut sink, &job("web", 2))).unchanged, "{delivered:?}");
    }
    assert_eq!(patches(&cluster), 0);
}

#[test]
fn a_batch_is_worked_on_over_few_connections_and_answered_in_its_order() {
    let names: Vec<String> = (0..200).map(|at| format!("web-{at}")).collect();
    let cluster = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut sink = sink_at(&cluster, |_| {});
    let jobs: Vec<Job> = names.iter().map(|name| job(name, 3)).collect();
    let answers = settle(&mut sink, &jobs.iter().collect::<Vec<_>>());
    for (answer, name) in answers.iter().zip(&names) {
        assert_eq!(done(answer).location, format!("deployments/ran-a/{name}"));
        assert_eq!(replicas(&cluster, name), 3);
    }
    assert_eq!(calls(&cluster).len(), 400, "two requests a delivery");
    let connections = cluster.connections();
    // 8 calls at a time and two watches; a pool may open one more while another is on its way back.
    assert!(connections <= 20, "{connections}");
}

#[test]
fn any_kind_with_a_scale_subresource_is_scaled() {
    let cluster = Cluster::start();
    cluster.stateful_set("ran-a", "db", 2);
    let mut sink = sink_at(&cluster, |it| {
        it.workload.kind = "StatefulSet".to_owned();
        it.workload.plural = "statefulsets".to_owned();
        it.delivered = Confirmed::Converged;
    });
    let answer = settled(&mut sink, &job("db", 4));
    assert_eq!(done(&answer).location, "statefulsets/ran-a/db");
    assert_eq!(cluster.replicas("statefulsets", "ran-a", "db"), 4);
}

#[test]
fn a_missing_right_is_named_by_a_probe_and_by_a_delivery() {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |it| it.whole_cluster = true);
    sink.probe().unwrap();
    cluster.forbid("patch", "deployments/scale");
    let fault = sink.probe().unwrap_err();
    assert_eq!((fault.code, fault.retry), (Code::Forbidden, Retry::Later));
    assert_eq!(
        fault.message,
        "these rights are missing at the API server: patch deployments/scale in all namespaces"
    );
    let said = failed(&call(&mut sink, &job("web", 5)).answer, Code::Forbidden, Retry::Later);
    assert!(said.starts_with("cannot scale deployments/ran-a/web to 5: "), "{said}");
    cluster.permit("patch", "deployments/scale");
    done(&settled(&mut sink, &job("web", 5)));
}

#[test]
fn nothing_is_scaled_where_autoscalers_cannot_be_known() {
    let cluster = with(&["web"]);
    cluster.forbid("list", "horizontalpodautoscalers");
    let mut sink = sink_at(&cluster, |_| {});
    let said = failed(&call(&mut sink, &job("web", 5)).answer, Code::Forbidden, Retry::Later);
    assert!(
        said.starts_with(
            "cannot follow horizontalpodautoscalers in namespace `ran-a`, which takes the rights \
             `list` and `watch`: "
        ),
        "{said}"
    );
    assert_eq!((patches(&cluster), replicas(&cluster, "web")), (0, 2));
    cluster.permit("list", "horizontalpodautoscalers");
    done(&settled(&mut sink, &job("web", 5)));
}

#[test]
fn each_refusal_of_the_target_has_its_code() {
    let cluster = with(&["web", "ending"]);
    cluster.terminate("deployments", "ran-a", "ending");
    let mut sink = sink_at(&cluster, |_| {});
    let mut refused = |target: &str, code| {
        let before = patches(&cluster);
        let said = failed(&call(&mut sink, &job(target, 5)).answer, code, Retry::Never);
        (said, patches(&cluster) - before)
    };
    let (said, writes) = refused("nobody", Code::TargetNotFound);
    assert!(said.contains("\"nobody\" not found"), "{said}");
    assert_eq!(writes, 0);
    let (said, writes) = refused("ending", Code::TargetTerminating);
    assert_eq!(said, "deployments/ran-a/ending is being deleted; nothing was written");
    assert_eq!(writes, 0);
    let webhook = Refusal::Webhook {
        webhook: "rules.site".to_owned(),
        code: 400,
        message: "no more than four".to_owned(),
    };
    cluster.refuse("update", "deployments/scale", webhook);
    let (said, writes) = refused("web", Code::AdmissionDenied);
    assert!(said.contains("no more than four"), "{said}");
    assert_eq!(writes, 1);
    assert_eq!(replicas(&cluster, "web"), 2);
}

#[test]
fn a_deployment_intent_is_not_for_the_modes_that_scale() {
    let cluster = with(&["web"]);
    for mode in [KubernetesMode::Scale, KubernetesMode::Ssa] {
        let mut sink = sink_at(&cluster, |it| it.mode = mode);
        let mut job = job("web", 5);
        job.intent.intent_type = intentd::model::IntentType::Deployment;
        failed(&call(&mut sink, &job).answer, Code::UnsupportedIntent, Retry::Never);
    }
    assert_eq!(calls(&cluster), Vec::<String>::new());
}
