//! What is particular to autoscalers and to the modes `ssa` and `networkintent`.

use super::*;

fn with_autoscaler() -> Cluster {
    let cluster = with(&["web"]);
    cluster.autoscaler("ran-a", "web", 2, 6);
    cluster
}

fn floor_of(cluster: &Cluster) -> serde_json::Value {
    let hpa = cluster.get("horizontalpodautoscalers", "ran-a", "web").unwrap();
    hpa["spec"]["minReplicas"].clone()
}

#[test]
fn an_autoscaler_is_refused_within_its_bounds_too() {
    let cluster = with_autoscaler();
    let mut sink = sink_at(&cluster, |_| {});
    let said = failed(&call(&mut sink, &job("web", 4)).answer, Code::HpaConflict, Retry::Never);
    assert!(said.contains("`web` scales Deployment `web` between 2 and 6"), "{said}");
    assert_eq!((patches(&cluster), replicas(&cluster, "web")), (0, 2));
}

#[test]
fn an_autoscaler_that_comes_and_goes_is_known_without_asking() {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |_| {});
    done(&settled(&mut sink, &job("web", 3)));
    cluster.forget_requests();
    cluster.autoscaler("ran-a", "web", 2, 6);
    crate::support::wait_until("the autoscaler to be known", || {
        matches!(call(&mut sink, &job("web", 3)).answer, Answer::Failed(_))
    });
    cluster.delete("horizontalpodautoscalers", "ran-a", "web");
    crate::support::wait_until("it to be forgotten", || {
        matches!(call(&mut sink, &job("web", 3)).answer, Answer::Done(_))
    });
    let lists = cluster.requests().iter().filter(|it| it.param("limit").is_some()).count();
    assert_eq!((lists, patches(&cluster)), (0, 0));
}

#[test]
fn floor_raises_the_minimum_and_leaves_the_workload_to_the_autoscaler() {
    let cluster = with_autoscaler();
    let mut sink = sink_at(&cluster, |it| it.hpa = HpaRule::Floor);
    let first = call(&mut sink, &job("web", 4));
    assert_eq!((floor_of(&cluster), replicas(&cluster, "web")), (json!(4), 2));
    let step = pending(first.answer);
    // The autoscaler's part.
    cluster.deployment("ran-a", "web", 4);
    let answer = settled(&mut sink, &Job { step: Some(step), ..job("web", 4) });
    let confirmation = done(&answer);
    assert_eq!((confirmation.unchanged, &confirmation.further["hpa"]), (false, &json!("web")));
    assert!(done(&settled(&mut sink, &job("web", 4))).unchanged);
    assert_eq!(patches(&cluster), 1);
    let said = failed(&call(&mut sink, &job("web", 7)).answer, Code::HpaConflict, Retry::Never);
    assert!(said.contains("no more than 6 replicas"), "{said}");
}

#[test]
fn clamp_keeps_the_count_within_the_bounds() {
    let cluster = with_autoscaler();
    let mut sink = sink_at(&cluster, |it| it.hpa = HpaRule::Clamp);
    let clamped = settled(&mut sink, &job("web", 9));
    assert_eq!(done(&clamped).further["replicas"], 6, "not what was asked for");
    assert_eq!((floor_of(&cluster), replicas(&cluster, "web")), (json!(2), 6));
    assert!(done(&settled(&mut sink, &job("web", 9))).unchanged);
}

fn ssa(cluster: &Cluster, force: bool) -> Kubernetes {
    sink_at(cluster, |it| {
        it.mode = KubernetesMode::Ssa;
        it.force = force;
    })
}

#[test]
fn ssa_applies_the_count_alone_and_names_the_owner_in_a_conflict() {
    let cluster = with(&["web"]);
    let said = failed(
        &call(&mut ssa(&cluster, false), &job("web", 5)).answer,
        Code::FieldConflict,
        Retry::Never,
    );
    assert!(said.contains("\"kubectl-create\""), "{said}");
    assert_eq!(replicas(&cluster, "web"), 2);

    let answer = settled(&mut ssa(&cluster, true), &job("web", 5));
    assert!(!done(&answer).unchanged);
    assert_eq!(replicas(&cluster, "web"), 5);
    let patch = cluster.requests().into_iter().rfind(|it| it.method == "PATCH").unwrap();
    assert_eq!(patch.content_type(), "application/apply-patch+yaml");
    let body = patch.json();
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&body), ["apiVersion", "kind", "metadata", "spec"]);
    assert_eq!(keys(&body["metadata"]), ["name", "resourceVersion", "uid"]);
    assert_eq!(body["spec"], json!({"replicas": 5}));
    // What is ours by now needs no force.
    done(&settled(&mut ssa(&cluster, false), &job("web", 6)));
    assert_eq!(replicas(&cluster, "web"), 6);
}

#[test]
fn ssa_never_creates_a_target() {
    let cluster = with(&[]);
    cluster.namespace("ran-a");
    let mut sink = ssa(&cluster, true);
    failed(&call(&mut sink, &job("web", 5)).answer, Code::TargetNotFound, Retry::Never);
    assert_eq!(patches(&cluster), 0);
}

fn network(cluster: &Cluster) -> Kubernetes {
    sink_at(cluster, |it| it.mode = KubernetesMode::NetworkIntent)
}

#[test]
fn a_network_intent_is_made_once_for_a_drop() {
    let cluster = with(&[]);
    cluster.namespace("ran-a");
    let first = call(&mut network(&cluster), &job("web", 5));
    let confirmation = done(&first.answer);
    assert!(!confirmation.unchanged);
    let name = confirmation.location.rsplit('/').next().unwrap().to_owned();
    let made = cluster.get("networkintents", "ran-a", &name).unwrap();
    assert_eq!(
        made["spec"],
        json!({"source": "conductor-loop", "intentType": "scaling", "target": "web",
               "namespace": "ran-a", "replicas": 5})
    );
    assert_eq!(made["metadata"]["labels"]["nephoran.com/target"], "web");
    // Killed between the effect and the receipt.
    let step = first.journal.last().map(|(_, step)| step.clone());
    assert!(step.is_some());
    let again = call(&mut network(&cluster), &Job { step, ..job("web", 5) });
    assert_eq!(
        (&done(&again.answer).location, done(&again.answer).unchanged),
        (&confirmation.location, false)
    );
    // The same place in the ledger, another content: not ours.
    let other = Job { seq: Seq(5), ..job("web", 6) };
    let other =
        Job { intent: intentd::model::Intent { replicas: 7, ..other.intent.clone() }, ..other };
    let said =
        failed(&call(&mut network(&cluster), &other).answer, Code::PackageConflict, Retry::Never);
    assert!(said.ends_with("is there already and says something else"), "{said}");
}

#[test]
fn a_cluster_without_the_definition_says_how_to_get_it() {
    let cluster = with(&[]);
    cluster.namespace("ran-a");
    cluster.unserve("networkintents");
    let said = failed(
        &call(&mut network(&cluster), &job("web", 5)).answer,
        Code::TargetNotFound,
        Retry::Never,
    );
    assert!(said.contains("`intentd schema crd | kubectl apply -f -`"), "{said}");
}

/// `intentd diff` of an intent with this many replicas of `web`.
fn compared(cluster: &Cluster, more: &str, replicas: u64) -> (Option<i32>, serde_json::Value) {
    let site = crate::support::Site::with_config(&format!(
        "sink = [\"kubernetes\"]\n[sinks.kubernetes]\nkubeconfig = \"{}\"\n{more}\n",
        cluster.kubeconfig().display()
    ));
    let document = site.root().join("intent-web.json");
    std::fs::write(&document, crate::support::scaling("web", replicas)).unwrap();
    let mut found = site.run(&["diff", document.to_str().unwrap(), "-o", "jsonl"]);
    let told = found.jsonl().remove(0);
    (found.code.take(), told)
}

#[test]
fn diff_rehearses_the_write_at_the_server_and_changes_nothing() {
    let cluster = Cluster::start();
    cluster.deployment("default", "web", 2);
    for mode in ["mode = \"scale\"", "mode = \"ssa\"\nforce = true"] {
        let (code, told) = compared(&cluster, mode, 5);
        assert_eq!((code, &told["result"]), (Some(1), &json!("different")), "{told}");
        assert_eq!(
            told["changes"],
            json!([{"path": "deployments/default/web", "before": "spec.replicas: 2\n",
                    "after": "spec.replicas: 5\n"}])
        );
        assert_eq!(compared(&cluster, mode, 2).0, Some(0));
    }
    let rehearsed = cluster.requests().into_iter().filter(|it| it.method == "PATCH");
    assert!(rehearsed.into_iter().all(|it| it.param("dryRun") == Some("All")));
    let (code, told) = compared(&cluster, "mode = \"networkintent\"", 5);
    assert_eq!((code, &told["result"]), (Some(1), &json!("different")), "{told}");
    assert_eq!(cluster.replicas("deployments", "default", "web"), 2);

    cluster.autoscaler("default", "web", 1, 3);
    let (code, told) = compared(&cluster, "", 5);
    assert_eq!((code, &told["code"]), (Some(1), &json!("HPA_CONFLICT")), "{told}");
    cluster.refuse(
        "update",
        "deployments/scale",
        Refusal::Policy { policy: "few".to_owned(), message: "too many".to_owned() },
    );
    cluster.delete("horizontalpodautoscalers", "default", "web");
    let (code, told) = compared(&cluster, "", 5);
    assert_eq!((code, &told["code"]), (Some(1), &json!("ADMISSION_DENIED")), "{told}");
}
