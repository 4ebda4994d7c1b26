//! Follows one resource: lists it, watches it, and begins anew after any trouble.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::Api;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta, Resource};
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;

use crate::sink::cluster::{Cluster, Trouble};
use crate::sink::kubernetes::subject::Subject;
use crate::sink::kubernetes::watches::{Inner, Key, Stage, State, Which, locked};
use crate::sink::now;
use crate::sink::workload::{autoscaler, rollout};

/// A watch is asked for anew after so long. A connection that has died without a word is noticed a
/// few seconds later, and until then nothing that happened at the server is known.
const WATCH_SECONDS: u32 = 60;

/// How long a watch waits for its credentials before that is told.
const CREDENTIALS_MAX: Duration = Duration::from_secs(10);

/// Pause after a watch has failed, doubled each time; a delivery that needs it does not wait for it.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Follows one resource until it is aborted.
pub async fn follow<K>(
    cluster: Arc<Cluster>,
    inner: Arc<Inner>,
    resource: ApiResource,
    take: fn(&Inner, Event<K>),
    which: Which,
) where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let what = format!(
        "follow {} {}, which takes the rights `list` and `watch`",
        resource.plural,
        inner.place()
    );
    let mut pause = PAUSE_FIRST;
    loop {
        let mut has_listed = false;
        let trouble = watch_once(&cluster, &inner, &resource, |event| {
            let is_listed = matches!(event, Event::InitDone);
            has_listed |= is_listed;
            if matches!(event, Event::Init) {
                inner.set(which, Stage::Starting);
            }
            take(&inner, event);
            if is_listed {
                inner.changed.notify_waiters();
            }
        })
        .await;
        // What it met in passing is no reason to stop believing; what it met at once is.
        let wanted = inner.wanted.notified();
        if has_listed {
            pause = PAUSE_FIRST;
        }
        inner.set(which, Stage::Failed(trouble.fault(&what)));
        inner.changed.notify_waiters();
        let _ = tokio::time::timeout(pause, wanted).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lists and watches until something is wrong.
async fn watch_once<K>(
    cluster: &Cluster,
    inner: &Inner,
    resource: &ApiResource,
    mut take: impl FnMut(Event<K>),
) -> Trouble
where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let (client, made) = match cluster.watching(Instant::now() + CREDENTIALS_MAX).await {
        Ok(client) => client,
        Err(trouble) => return trouble,
    };
    let api: Api<K> = match &inner.namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    };
    let mut events = pin!(watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)));
    while let Some(event) = events.next().await {
        let trouble = match event {
            Ok(event) => {
                take(event);
                continue;
            }
            Err(watcher::Error::WatchError(status)) => Trouble::of_status(&status),
            Err(
                watcher::Error::InitialListFailed(error)
                | watcher::Error::WatchStartFailed(error)
                | watcher::Error::WatchFailed(error),
            ) => Trouble::of(&error),
            Err(watcher::Error::NoResourceVersion) => {
                Trouble::lost("it gives lists without a version".to_owned())
            }
        };
        if trouble.status() == 401 || trouble.status() == 0 {
            cluster.forget(made);
        }
        return trouble;
    }
    Trouble::lost("it has ended the watch".to_owned())
}

/// A resource as the client names it.
pub fn resource(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

impl Inner {
    /// Takes an autoscaler.
    pub fn take_hpa(&self, event: Event<autoscaler::Wire>) {
        let mut state = locked(&self.state);
        let hpas = &mut state.hpas;
        match event {
            Event::Init => hpas.fresh = HashMap::new(),
            Event::InitApply(hpa) => drop(hpas.fresh.insert(key(&hpa.metadata), hpa.into())),
            Event::InitDone => hpas.begin(),
            Event::Apply(hpa) => drop(hpas.known.insert(key(&hpa.metadata), hpa.into())),
            Event::Delete(hpa) => drop(hpas.known.remove(&key(&hpa.metadata))),
        }
    }

    /// Takes a workload.
    pub fn take_workload(&self, event: Event<rollout::Wire>) {
        let mut state = locked(&self.state);
        let State { workloads, subjects, unlisted, .. } = &mut *state;
        let see = |subjects: &mut HashMap<Key, Subject>, key: &Key, object| {
            if let Some(subject) = subjects.get_mut(key) {
                subject.see(object, &self.rule, now());
            }
        };
        let is_ending = |object: &rollout::Wire| object.metadata.deletion_timestamp.is_some();
        match event {
            Event::Init => {
                workloads.fresh = HashSet::new();
                *unlisted = subjects.keys().cloned().collect();
            }
            Event::InitApply(object) => {
                let key = key(&object.metadata);
                if is_ending(&object) {
                    workloads.fresh.insert(key.clone());
                }
                unlisted.remove(&key);
                see(subjects, &key, object);
            }
            Event::InitDone => {
                workloads.begin();
                for key in unlisted.drain() {
                    if let Some(subject) = subjects.get_mut(&key) {
                        subject.lose(&self.rule, now());
                    }
                }
            }
            Event::Apply(object) => {
                let key = key(&object.metadata);
                match is_ending(&object) {
                    true => workloads.known.insert(key.clone()),
                    false => workloads.known.remove(&key),
                };
                see(subjects, &key, object);
            }
            Event::Delete(object) => {
                let key = key(&object.metadata);
                workloads.known.remove(&key);
                if let Some(subject) = subjects.get_mut(&key) {
                    subject.lose(&self.rule, now());
                }
            }
        }
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}
