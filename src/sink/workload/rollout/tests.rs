//! Objects as a real API server of version 1.36 shows them, cut down to what is read.

use serde_json::{Value, json};

use super::*;
use crate::model::Timestamp;

const AT_ONCE: Duration = Duration::ZERO;

fn kind(name: &str) -> Workload {
    let api_version = if name == "Widget" { "example.com/v1" } else { "apps/v1" };
    Workload {
        api_version: api_version.to_owned(),
        kind: name.to_owned(),
        plural: format!("{}s", name.to_lowercase()),
    }
}

fn written(wanted: u32) -> Written {
    Written {
        resource_version: "100".to_owned(),
        generation: None,
        wanted,
        through: None,
        unchanged: false,
        accepted_at: Timestamp { unix_ms: 0 },
        observed_at: None,
        spent_ms: 0,
    }
}

/// A Deployment of 5 that has converged, with some members replaced.
fn deployment(changes: &[(&str, Value)]) -> Wire {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "ran-a", "generation": 4, "resourceVersion": "101",
            "managedFields": [
                {"manager": "intentd", "operation": "Update", "subresource": "scale",
                 "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "kubectl-edit", "operation": "Update",
                 "time": "2026-01-01T00:00:09Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "helm", "operation": "Update",
                 "time": "2026-01-01T00:01:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
            ],
        },
        "spec": {"replicas": 5, "template": {"spec": {}}, "strategy": {"type": "RollingUpdate"}},
        "status": {
            "observedGeneration": 4, "replicas": 5, "updatedReplicas": 5, "readyReplicas": 5,
            "availableReplicas": 5,
            "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable",
                 "message": "done"},
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable",
                 "message": "there"},
            ],
        },
    });
    for (pointer, value) in changes {
        match object.pointer_mut(pointer) {
            Some(there) => *there = value.clone(),
            None => {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                object.pointer_mut(parent).unwrap()[name] = value.clone();
            }
        }
    }
    serde_json::from_value(object).unwrap()
}

fn judged(changes: &[(&str, Value)]) -> Standing {
    judge(&kind("Deployment"), &deployment(changes), &written(5), AT_ONCE)
}

fn observed(missing: &str) -> Standing {
    Standing::Observed { missing: missing.to_owned() }
}

fn accepted(missing: &str) -> Standing {
    Standing::Accepted { missing: missing.to_owned() }
}

#[test]
fn a_deployment_converges_step_by_step() {
    assert_eq!(
        judged(&[("/metadata/resourceVersion", json!("99"))]),
        accepted("the server has not shown the write yet")
    );
    assert_eq!(
        judged(&[("/status/observedGeneration", json!(3))]),
        accepted("its controller has seen generation 3, and the write made 4")
    );
    assert_eq!(
        judged(&[("/status", json!({}))]),
        accepted("its controller has not reported that it saw the write")
    );
    assert_eq!(judged(&[("/status/replicas", json!(3))]), observed("3 of 5 replicas made"));
    assert_eq!(
        judged(&[("/status/updatedReplicas", json!(2))]),
        observed("2 of 5 replicas updated")
    );
    assert_eq!(
        judged(&[("/status/replicas", json!(7))]),
        observed("2 surplus replicas have to end")
    );
    assert_eq!(judged(&[("/status/readyReplicas", json!(3))]), observed("3 of 5 replicas ready"));
    assert_eq!(
        judged(&[("/status/availableReplicas", json!(4))]),
        observed("4 of 5 replicas available")
    );
    assert_eq!(
        judged(&[("/status/conditions/0/reason", json!("ReplicaSetUpdated"))]),
        observed("its rollout is still under way")
    );
    assert_eq!(
        judged(&[("/status/conditions/1/status", json!("False"))]),
        observed("it is not reported as available")
    );
    assert_eq!(judged(&[]), Standing::Converged);
}

#[test]
fn a_paused_deployment_says_so_while_it_does_not_follow() {
    let paused = ("/spec/paused", json!(true));
    assert_eq!(
        judged(&[paused.clone(), ("/status/updatedReplicas", json!(0))]),
        observed("0 of 5 replicas updated, and it is paused")
    );
    let reason = ("/status/conditions/0/reason", json!("DeploymentPaused"));
    assert_eq!(judged(&[paused, reason]), Standing::Converged);
}

#[test]
fn a_failure_counts_once_it_has_stood_for_a_while_and_only_if_something_is_missing() {
    let late = |changes: &[(&str, Value)]| {
        judge(&kind("Deployment"), &deployment(changes), &written(5), FAILURE_SETTLES)
    };
    let quota = "pods \"web-1\" is forbidden: exceeded quota: q, requested: pods=1";
    let failing = [
        ("/status/replicas", json!(3)),
        (
            "/status/conditions/1",
            json!({"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                   "message": quota}),
        ),
    ];
    assert_eq!(judged(&failing), observed(&format!("3 of 5 replicas made; {quota}")));
    assert_eq!(
        late(&failing),
        Standing::Failed { reason: "FailedCreate".to_owned(), message: quota.to_owned() }
    );
    let stuck = [
        ("/status/readyReplicas", json!(3)),
        (
            "/status/conditions/0",
            json!({"type": "Progressing", "status": "False",
                   "reason": "ProgressDeadlineExceeded", "message": "timed out"}),
        ),
    ];
    let reason = "ProgressDeadlineExceeded".to_owned();
    assert_eq!(late(&stuck), Standing::Failed { reason, message: "timed out".to_owned() });
    let enough = [failing[1].clone(), ("/status/readyReplicas", json!(4))];
    assert_eq!(late(&enough), observed("4 of 5 replicas ready"), "all of them were made");
}

#[test]
fn a_count_that_somebody_else_has_set_since_is_named_with_its_owner() {
    assert_eq!(
        judged(&[("/spec/replicas", json!(2))]),
        Standing::Changed { replicas: 2, by: Some("kubectl-edit".to_owned()) }
    );
    assert_eq!(
        judged(&[("/spec/replicas", json!(2)), ("/metadata/managedFields", json!([]))]),
        Standing::Changed { replicas: 2, by: None }
    );
    assert_eq!(
        judged(&[("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"))]),
        Standing::Terminating
    );
}

#[test]
fn behind_an_autoscaler_more_than_the_floor_is_as_good() {
    let floor = Written { through: Some("web-hpa".to_owned()), ..written(4) };
    let judge = |changes: &[(&str, Value)]| {
        judge(&kind("Deployment"), &deployment(changes), &floor, AT_ONCE)
    };
    assert_eq!(judge(&[]), Standing::Converged);
    let old = ("/metadata/resourceVersion", json!("50"));
    assert_eq!(
        judge(&[old, ("/spec/replicas", json!(3))]),
        accepted("HorizontalPodAutoscaler `web-hpa` has not raised it above 3 yet")
    );
}

fn stateful_set(spec: Value, status: Value) -> Standing {
    let mut object = json!({
        "metadata": {"name": "db", "generation": 2, "resourceVersion": "101"},
        "spec": {"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}},
        "status": {
            "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "currentReplicas": 3,
            "updatedReplicas": 3, "currentRevision": "db-1", "updateRevision": "db-1",
        },
    });
    for (part, changes) in [("spec", spec), ("status", status)] {
        object[part].as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    }
    let object = serde_json::from_value(object).unwrap();
    judge(&kind("StatefulSet"), &object, &written(3), AT_ONCE)
}

#[test]
fn a_stateful_set_converges_by_its_revisions_and_its_partition() {
    assert_eq!(stateful_set(json!({}), json!({})), Standing::Converged);
    assert_eq!(
        stateful_set(json!({}), json!({"readyReplicas": 1})),
        observed("1 of 3 replicas ready")
    );
    assert_eq!(
        stateful_set(json!({}), json!({"replicas": 4})),
        observed("1 surplus replica has to end")
    );
    assert_eq!(
        stateful_set(json!({}), json!({"currentReplicas": 1, "updatedReplicas": 2})),
        observed("2 of 3 replicas updated")
    );
    assert_eq!(
        stateful_set(json!({}), json!({"updateRevision": "db-2"})),
        observed("its rollout is still under way")
    );
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    let parted = json!({"updateStrategy": rolling});
    let halfway = json!({"currentReplicas": 2, "updatedReplicas": 0, "updateRevision": "db-2"});
    assert_eq!(stateful_set(parted.clone(), halfway), observed("0 of 1 replicas updated"));
    let there = json!({"currentReplicas": 2, "updatedReplicas": 1, "updateRevision": "db-2"});
    assert_eq!(stateful_set(parted, there), Standing::Converged);
    let by_hand = json!({"updateStrategy": {"type": "OnDelete"}});
    assert_eq!(stateful_set(by_hand, json!({"updateRevision": "db-2"})), Standing::Converged);
}

#[test]
fn a_kind_of_its_own_is_judged_by_what_it_shows() {
    let judge = |spec: Value, status: Value| {
        let metadata = json!({"name": "w", "generation": 2, "resourceVersion": "101"});
        let object = json!({"metadata": metadata, "spec": spec, "status": status});
        judge(&kind("Widget"), &serde_json::from_value(object).unwrap(), &written(3), AT_ONCE)
    };
    assert_eq!(
        judge(json!({"replicas": 3}), json!({})),
        accepted("its controller has not reported that it saw the write")
    );
    assert_eq!(judge(json!({"replicas": 3}), json!({"replicas": 3})), Standing::Converged);
    assert_eq!(
        judge(json!({"size": 3}), json!({"observedGeneration": 2, "replicas": 2})),
        observed("2 of 3 replicas made"),
        "its count has another name"
    );
    assert_eq!(
        judge(json!({"replicas": 3}), json!({"observedGeneration": 1, "replicas": 3})),
        accepted("its controller has seen generation 1, and the write made 2")
    );
    assert_eq!(
        judge(json!({"replicas": 3}), json!({"replicas": 3, "readyReplicas": 2})),
        observed("2 of 3 replicas ready")
    );
}
