//! A stand-in for the controllers and kubelets: rolls out what was written.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fields::Writer;
use super::store::{Key, Store, Write, now};

/// Their name as a field manager.
const MANAGER: &str = "kube-controller-manager";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Observed and then ready, right after each write, as two changes of their own.
    #[default]
    Prompt,
    /// Nothing until the test says so.
    Held,
}

#[derive(Default)]
pub struct Controllers {
    pub pace: Pace,
    waiting: BTreeSet<Key>,
}

/// The workloads, which are the only ones that are rolled out.
fn rolls_out(store: &Store, key: &Key) -> bool {
    store.resource(&key.group, &key.resource).is_some_and(|resource| resource.rolls_out)
}

/// After a write to `key`: rolls it out, or keeps that for later.
pub fn written(store: &mut Store, key: &Key) {
    let Some(object) = store.get(key) else { return };
    let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    if seen || !rolls_out(store, key) {
        return;
    }
    match store.controllers.pace {
        Pace::Prompt => {
            observe(store, key);
            complete(store, key);
        }
        Pace::Held => {
            store.controllers.waiting.insert(key.clone());
        }
    }
}

/// The held rollouts of a name, in whatever namespace; `finish` them too or only note them.
pub fn release(store: &mut Store, name: &str, finish: bool) -> usize {
    let held = store.controllers.waiting.iter().filter(|key| key.name == name);
    let held: Vec<Key> = held.cloned().collect();
    for key in &held {
        observe(store, key);
        if finish {
            complete(store, key);
            store.controllers.waiting.remove(key);
        }
    }
    held.len()
}

/// Sees the newest generation and has no pod of it yet.
fn observe(store: &mut Store, key: &Key) {
    change(store, key, |object, status| {
        status["observedGeneration"] = object["metadata"]["generation"].clone();
        if key.resource == "deployments" {
            let progressing = condition(
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                &format!("ReplicaSet \"{}-1\" is progressing.", key.name),
            );
            set_condition(status, progressing);
        }
    });
}

/// Has as many ready pods as are wanted.
pub fn complete(store: &mut Store, key: &Key) {
    change(store, key, |object, status| {
        let replicas = object["spec"]["replicas"].as_u64().unwrap_or(1);
        status["observedGeneration"] = object["metadata"]["generation"].clone();
        for count in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
            match replicas {
                // Counts of nothing are left out.
                0 => super::store::remove(status, count),
                some => status[count] = json!(some),
            }
        }
        match key.resource.as_str() {
            "deployments" => {
                status["terminatingReplicas"] = json!(0);
                let message = format!("ReplicaSet \"{}-1\" has successfully progressed.", key.name);
                set_condition(
                    status,
                    condition("Progressing", "True", "NewReplicaSetAvailable", &message),
                );
                let message = "Deployment has minimum availability.";
                set_condition(
                    status,
                    condition("Available", "True", "MinimumReplicasAvailable", message),
                );
            }
            "statefulsets" => {
                status["replicas"] = json!(replicas);
                status["availableReplicas"] = json!(replicas);
                status["collisionCount"] = json!(0);
                match replicas {
                    0 => super::store::remove(status, "currentReplicas"),
                    some => status["currentReplicas"] = json!(some),
                }
                for revision in ["currentRevision", "updateRevision"] {
                    status[revision] = json!(format!("{}-1", key.name));
                }
            }
            _ => status["replicas"] = json!(replicas),
        }
    });
}

/// Gives up: the deadline for progress has passed.
pub fn fail(store: &mut Store, key: &Key) {
    store.controllers.waiting.remove(key);
    change(store, key, |object, status| {
        status["observedGeneration"] = object["metadata"]["generation"].clone();
        let message = format!("ReplicaSet \"{}-1\" has timed out progressing.", key.name);
        set_condition(
            status,
            condition("Progressing", "False", "ProgressDeadlineExceeded", &message),
        );
    });
}

fn change(store: &mut Store, key: &Key, edit: impl FnOnce(&Value, &mut Value)) {
    let Some(mut object) = store.get(key) else { return };
    let mut status = object.get("status").cloned().unwrap_or_else(|| json!({}));
    edit(&object, &mut status);
    object["status"] = status;
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    let writer = Writer::update(MANAGER, &api_version).of("status");
    store.update(key, object, &Write { writer, dry: false });
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastUpdateTime": now(), "lastTransitionTime": now(),
    })
}

fn set_condition(status: &mut Value, condition: Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|it| it["type"] == condition["type"]) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}
