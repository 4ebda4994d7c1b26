//! Mode `networkintent`: makes a NetworkIntent of each intent, under a name of its own.
//!
//! The name is derived from the intent's place in the ledger, so that a repeat finds what it made.
//! Stored is delivered: what becomes of the resource is its controller's to tell.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use kube::core::ObjectMeta;

use crate::fault;
use crate::model::{Code, Digest, Intent, Seq, Source};
use crate::sink::cluster::{Call, Content, Trouble};
use crate::sink::kubernetes::batch::Batch;
use crate::sink::kubernetes::resource::{NetworkIntent, NetworkIntentSpec};
use crate::sink::kubernetes::target::{Site, path};
use crate::sink::now;
use crate::sink::workload::{Progress, Written};
use crate::sink::{Answer, Change, Confirmation, Delivery, Fatal, Fault, Retry, Term};

pub const API_VERSION: &str = "intent.nephoran.com/v1alpha1";
pub const PLURAL: &str = "networkintents";

/// Characters of the target in a name, and of a label's value.
const TARGET_CHARS_MAX: usize = 40;

const EPOCH: &str = "intentd.io/epoch";

/// One answer a delivery, in their order.
pub async fn deliver(work: &Batch<'_>, batch: &[Delivery<'_>]) -> Result<Vec<Answer>, Fatal> {
    let steps: Vec<_> = batch
        .iter()
        .filter(|delivery| delivery.step.is_none())
        .map(|delivery| {
            let wanted = delivery.intent.replicas;
            let step = Progress::Writing { wanted, resource_version: String::new() }.step();
            (delivery.seq, step)
        })
        .collect();
    if !steps.is_empty() {
        fault::step("kubernetes.journal", || work.context.journal.begin(&steps))?.kept().await?;
    }
    let made = batch.iter().map(|delivery| make(work, delivery));
    stream::iter(made).buffered(work.site.settings.concurrency).try_collect().await
}

async fn make(work: &Batch<'_>, delivery: &Delivery<'_>) -> Result<Answer, Fatal> {
    if let Err(fault) = work.is_worth_a_call() {
        return Ok(Answer::Failed(fault));
    }
    work.context.fence.check()?;
    let began = Instant::now();
    Ok(match create(work, delivery).await {
        Ok(confirmation) => Answer::Done(confirmation),
        Err(fault) => {
            work.note(&fault, began);
            Answer::Failed(fault)
        }
    })
}

async fn create(work: &Batch<'_>, delivery: &Delivery<'_>) -> Result<Confirmation, Fault> {
    let (site, deadline) = (work.site, work.context.deadline);
    let wanted = resource(delivery.intent, delivery.seq, work.context.fence.term());
    let (location, address) = place(&wanted);
    fault::step("kubernetes.write", || ());
    let answered = post(site, &wanted, false, deadline).await;
    fault::step("kubernetes.written", || ());
    let (stored, unchanged) = match answered {
        Ok(stored) => (stored, false),
        Err(Trouble::Refused(refusal)) if refusal.reason == "AlreadyExists" => {
            let there: NetworkIntent =
                site.read(&address, || format!("read {location}"), deadline).await?;
            if !is_same(&there, &wanted) {
                return Err(other(&location));
            }
            (there, delivery.step.is_none())
        }
        Err(trouble) => return Err(refused(&trouble, &format!("create {location}"))),
    };
    let written = Written {
        resource_version: stored.metadata.resource_version.unwrap_or_default(),
        generation: stored.metadata.generation,
        wanted: delivery.intent.replicas,
        through: None,
        unchanged,
        accepted_at: now(),
        observed_at: None,
        spent_ms: 0,
    };
    Ok(Confirmation { location, unchanged, further: written.receipt(None) })
}

/// What a delivery would make, as the server would store it.
pub async fn rehearse(site: &Site, intent: &Intent, deadline: Instant) -> Result<Change, Fault> {
    let wanted = resource(intent, Seq(0), Term::default());
    let answered = post(site, &wanted, true, deadline).await;
    let what = format!("rehearse a NetworkIntent in namespace `{}`", intent.namespace);
    let stored = answered.map_err(|trouble| refused(&trouble, &what))?;
    let after = serde_saphyr::to_string(&stored.spec).unwrap_or_default();
    // The name of the real one depends on its place in the ledger.
    let path = format!("{PLURAL}/{}/intent-{}", intent.namespace, intent.target);
    Ok(Change { path, before: String::new(), after })
}

/// For people, and for the server.
fn place(resource: &NetworkIntent) -> (String, String) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (text(&resource.metadata.namespace), text(&resource.metadata.name));
    (format!("{PLURAL}/{namespace}/{name}"), path(API_VERSION, &namespace, PLURAL, &name))
}

async fn post(
    site: &Site,
    wanted: &NetworkIntent,
    dry: bool,
    deadline: Instant,
) -> Result<NetworkIntent, Trouble> {
    let namespace = wanted.metadata.namespace.as_deref().unwrap_or_default();
    let collection = path(API_VERSION, namespace, PLURAL, "");
    let body = serde_json::to_vec(wanted).map_err(|error| Trouble::lost(error.to_string()))?;
    let mut query = vec![("fieldManager", site.settings.field_manager.as_str())];
    if dry {
        query.push(("dryRun", "All"));
    }
    let call = Call {
        method: Method::POST,
        path: collection.trim_end_matches('/'),
        query: &query,
        content: Content::Json(body),
    };
    let reply = site.cluster.call(&call, site.due(deadline)).await?;
    reply.object()
}

/// A path that the server does not know is told apart from a namespace that it does not have.
pub fn refused(trouble: &Trouble, what: &str) -> Fault {
    let fault = trouble.fault(what);
    match trouble {
        Trouble::Refused(refusal)
            if refusal.status == 404 && !refusal.message.starts_with("namespaces ") =>
        {
            let message = format!(
                "{}: the cluster does not know NetworkIntents; run `intentd schema crd | kubectl \
                 apply -f -` there",
                fault.message
            );
            Fault { message, ..fault }
        }
        _ => fault,
    }
}

fn other(location: &str) -> Fault {
    let message = format!("{location} is there already and says something else");
    Fault { code: Code::PackageConflict, message, retry: Retry::Never }
}

/// The resource of an intent, as it is made.
pub fn resource(intent: &Intent, seq: Seq, term: Term<'_>) -> NetworkIntent {
    let identity = format!("{seq}@{}", term.ledger);
    let target: String = intent.target.chars().take(TARGET_CHARS_MAX).collect();
    let name = format!(
        "intent-{}-{}",
        target.trim_end_matches('-'),
        Digest::of(identity.as_bytes()).short()
    );
    let text = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let labels = BTreeMap::from([
        text("app.kubernetes.io/managed-by", "intentd"),
        text("nephoran.com/intent-type", intent.intent_type.as_str()),
        text("nephoran.com/target", &intent.target),
    ]);
    let mut annotations = BTreeMap::from([(EPOCH.to_owned(), term.epoch.to_string())]);
    let said = [
        ("nephoran.com/reason", &intent.reason),
        ("nephoran.com/correlation-id", &intent.correlation_id),
    ];
    annotations.extend(said.iter().filter_map(|(key, said)| Some(text(key, said.as_deref()?))));
    let source = intent.source.filter(|source| *source != Source::Unsaid);
    let spec = NetworkIntentSpec {
        source: source.map_or("conductor-loop", Source::as_str).to_owned(),
        intent_type: intent.intent_type.as_str().to_owned(),
        target: intent.target.clone(),
        namespace: intent.namespace.clone(),
        replicas: i32::try_from(intent.replicas).unwrap_or(i32::MAX),
        scaling_parameters: None,
        network_parameters: None,
    };
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(intent.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    NetworkIntent { metadata, spec, status: None }
}

/// Whether what stands there is what we would make. The epoch may be an earlier one of ours, and
/// others may have added labels and annotations.
fn is_same(there: &NetworkIntent, wanted: &NetworkIntent) -> bool {
    let said = |it: &Option<BTreeMap<String, String>>, key: &str| {
        it.as_ref().and_then(|it| it.get(key)).cloned()
    };
    let has = |there: &Option<_>, wanted: &Option<BTreeMap<String, String>>| {
        let keys = wanted.iter().flat_map(BTreeMap::keys).filter(|key| *key != EPOCH);
        keys.into_iter().all(|key| said(there, key) == said(wanted, key))
    };
    there.spec == wanted.spec
        && has(&there.metadata.labels, &wanted.metadata.labels)
        && has(&there.metadata.annotations, &wanted.metadata.annotations)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resource_says_what_the_document_says_under_a_name_of_the_drop() {
        let intent: Intent = serde_json::from_value(json!({
            "intent_type": "scaling", "target": format!("{}-b", "a".repeat(39)),
            "namespace": "ran-a", "replicas": 3, "reason": "more\nload", "correlation_id": "c-1",
        }))
        .unwrap();
        let term = Term { ledger: "L", epoch: 7 };
        let made = serde_json::to_value(resource(&intent, Seq(12), term)).unwrap();
        let name = made["metadata"]["name"].as_str().unwrap();
        assert_eq!(name, format!("intent-{}-{}", "a".repeat(39), Digest::of(b"12@L").short()));
        assert_eq!(
            made,
            json!({
                "apiVersion": "intent.nephoran.com/v1alpha1", "kind": "NetworkIntent",
                "metadata": {
                    "name": name, "namespace": "ran-a",
                    "labels": {
                        "app.kubernetes.io/managed-by": "intentd",
                        "nephoran.com/intent-type": "scaling",
                        "nephoran.com/target": intent.target,
                    },
                    "annotations": {
                        "intentd.io/epoch": "7", "nephoran.com/reason": "more\nload",
                        "nephoran.com/correlation-id": "c-1",
                    },
                },
                "spec": {
                    "source": "conductor-loop", "intentType": "scaling", "target": intent.target,
                    "namespace": "ran-a", "replicas": 3,
                },
            })
        );
    }

    #[test]
    fn a_repeat_is_the_same_under_a_later_epoch_and_with_what_others_added() {
        let intent: Intent = serde_json::from_value(json!({
            "intent_type": "scaling", "target": "web", "namespace": "ran-a", "replicas": 3,
        }))
        .unwrap();
        let made = |epoch| resource(&intent, Seq(1), Term { ledger: "L", epoch });
        let mut there = made(1);
        there.metadata.labels.as_mut().unwrap().insert("team".to_owned(), "ran".to_owned());
        assert!(is_same(&there, &made(2)));
        there.spec.replicas = 4;
        assert!(!is_same(&there, &made(2)));
    }
}
