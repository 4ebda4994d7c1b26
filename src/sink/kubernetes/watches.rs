//! What is followed at the server: autoscalers and workloads, of one namespace or of all.
//!
//! A watch is started when its namespace is first needed and ends when others are needed more, or
//! with the sink. Kept are the autoscalers' bounds, the names of what is being deleted, and the
//! workloads that are being verified.
//!
//! Invariant: what is known of a namespace is only told while both of its watches are in step with
//! the server; after any trouble everything is listed anew.

mod follow;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::{HpaRule, KubernetesSettings};
use crate::model::{Code, Seq};
use crate::sink::cluster::Cluster;
use crate::sink::kubernetes::subject::{Rule, Subject};
use crate::sink::now;
use crate::sink::workload::autoscaler::{Autoscaler, Decision, decide};
use crate::sink::{Answer, Fault, Retry};

use follow::{follow, resource};

/// Connections that a sink may hold: one for each call at a time and one for each watch.
const CONNECTIONS_MAX: usize = 50;

/// Namespaces that are followed at a time, two watches each, unless calls need the connections.
const PLACES_MAX: usize = 16;

/// Namespace and name.
pub type Key = (String, String);

/// All watches of a sink.
#[derive(Debug)]
pub struct Watches {
    cluster: Arc<Cluster>,
    rule: Rule,
    hpa: HpaRule,
    whole_cluster: bool,
    places_max: usize,
    /// The one that was used last is the last.
    open: Mutex<Vec<Arc<Place>>>,
}

/// One namespace that is followed, or all of them.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    /// `None` for all.
    namespace: Option<String>,
    rule: Rule,
    state: Mutex<State>,
    /// Something has become of a watch.
    changed: Notify,
    /// A failed watch is wanted now.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    hpas: Side<HashMap<Key, Autoscaler>>,
    workloads: Side<HashSet<Key>>,
    subjects: HashMap<Key, Subject>,
    /// Subjects that a list in progress has not shown.
    unlisted: HashSet<Key>,
}

/// What one watch says.
#[derive(Debug, Default)]
struct Side<T> {
    stage: Stage,
    /// How often it has come to something, good or bad.
    turns: u64,
    known: T,
    /// Filled by a list that is not complete.
    fresh: T,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Starting,
    InStep,
    Failed(Fault),
}

/// The two watches of a place.
#[derive(Clone, Copy, Debug)]
enum Which {
    Hpas,
    Workloads,
}

impl Watches {
    /// Nothing is followed yet.
    pub fn new(cluster: Arc<Cluster>, settings: &KubernetesSettings) -> Self {
        let rule = Rule {
            kind: settings.workload.clone(),
            delivered: settings.delivered,
            verify_timeout: settings.verify_timeout,
        };
        let spare = CONNECTIONS_MAX.saturating_sub(settings.concurrency) / 2;
        Watches {
            cluster,
            rule,
            hpa: settings.hpa,
            whole_cluster: settings.whole_cluster,
            places_max: spare.clamp(1, PLACES_MAX),
            open: Mutex::default(),
        }
    }

    /// Most namespaces that may be needed at a time.
    pub fn namespaces_max(&self) -> usize {
        if self.whole_cluster { usize::MAX } else { self.places_max }
    }

    /// The namespaces that are followed; none where all are.
    pub fn namespaces(&self) -> Vec<String> {
        locked(&self.open).iter().filter_map(|place| place.inner.namespace.clone()).collect()
    }

    /// The namespace's place if it is followed.
    pub fn followed(&self, namespace: &str) -> Option<Arc<Place>> {
        let is_its = |place: &&Arc<Place>| {
            place.inner.namespace.as_deref().is_none_or(|followed| followed == namespace)
        };
        locked(&self.open).iter().find(is_its).cloned()
    }

    /// The namespace's place, followed from now on.
    pub fn place(&self, namespace: &str) -> Arc<Place> {
        let wanted = (!self.whole_cluster).then(|| namespace.to_owned());
        let mut open = locked(&self.open);
        let place = match open.iter().position(|place| place.inner.namespace == wanted) {
            Some(at) => open.remove(at),
            None => {
                if open.len() >= self.places_max {
                    // One with nothing to verify, if there is any, and none that a delivery uses now.
                    let is_free = |it: &&Arc<Place>| Arc::strong_count(it) == 1;
                    let is_idle = |it: &&Arc<Place>| locked(&it.inner.state).subjects.is_empty();
                    let idle = open.iter().position(|it| is_free(&it) && is_idle(&it));
                    let free = || open.iter().position(|it| is_free(&it));
                    let oldest = idle.or_else(free).unwrap_or(0);
                    open.remove(oldest);
                }
                Arc::new(self.follow(wanted))
            }
        };
        open.push(Arc::clone(&place));
        place
    }

    fn follow(&self, namespace: Option<String>) -> Place {
        let inner = Arc::new(Inner {
            namespace,
            rule: self.rule.clone(),
            state: Mutex::default(),
            changed: Notify::new(),
            wanted: Notify::new(),
        });
        let hpas =
            resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers");
        let kind = &self.rule.kind;
        let workloads = resource(&kind.api_version, &kind.kind, &kind.plural);
        let cluster = || Arc::clone(&self.cluster);
        let tasks = vec![
            self.cluster.spawn(follow(
                cluster(),
                Arc::clone(&inner),
                hpas,
                Inner::take_hpa,
                Which::Hpas,
            )),
            self.cluster.spawn(follow(
                cluster(),
                Arc::clone(&inner),
                workloads,
                Inner::take_workload,
                Which::Workloads,
            )),
        ];
        Place { inner, tasks }
    }

    /// Decides what may be written on a target of a place that is in step.
    pub fn decide(&self, place: &Place, key: &Key, wanted: u32) -> Result<Decision, Fault> {
        let state = locked(&place.inner.state);
        let its = state.hpas.known.iter().filter(|(at, _)| at.0 == key.0).map(|(_, hpa)| hpa);
        decide(its, &self.rule.kind, &key.1, wanted, self.hpa)
    }
}

impl Place {
    /// Waits until both watches are in step with the server.
    pub async fn in_step(&self, due: Instant) -> Result<(), Fault> {
        let turns = {
            let state = locked(&self.inner.state);
            if let (Stage::InStep, Stage::InStep) = (&state.hpas.stage, &state.workloads.stage) {
                return Ok(());
            }
            (state.hpas.turns, state.workloads.turns)
        };
        loop {
            let mut changed = pin!(self.inner.changed.notified());
            changed.as_mut().enable();
            let wait = {
                let state = locked(&self.inner.state);
                let hpas = waits(&state.hpas.stage, state.hpas.turns > turns.0)?;
                hpas | waits(&state.workloads.stage, state.workloads.turns > turns.1)?
            };
            if !wait {
                return Ok(());
            }
            self.inner.wanted.notify_waiters();
            if tokio::time::timeout_at(due.into(), changed).await.is_err() {
                return Err(self.trouble().unwrap_or_else(|| Fault {
                    code: Code::SinkUnavailable,
                    message: format!(
                        "the API server has not listed the autoscalers and workloads {} in time",
                        self.inner.place()
                    ),
                    retry: Retry::Later,
                }));
            }
        }
    }

    /// Why the workloads are not followed at the moment, if so.
    fn trouble(&self) -> Option<Fault> {
        let state = locked(&self.inner.state);
        [&state.hpas.stage, &state.workloads.stage].into_iter().find_map(|stage| match stage {
            Stage::Failed(fault) => Some(fault.clone()),
            Stage::Starting | Stage::InStep => None,
        })
    }

    /// Whether the target is being deleted.
    pub fn is_terminating(&self, key: &Key) -> bool {
        locked(&self.inner.state).workloads.known.contains(key)
    }

    /// Whether this very delivery is being verified.
    pub fn verifies(&self, key: &Key, seq: Seq) -> bool {
        let state = locked(&self.inner.state);
        state.subjects.get(key).is_some_and(|it| it.seq == seq && it.written.is_some())
    }

    /// Keeps what is seen of a target from now on.
    pub fn keep(&self, key: &Key, subject: Subject) {
        locked(&self.inner.state).subjects.insert(key.clone(), subject);
    }

    /// Calls `change` with the target's subject, if there is one.
    pub fn with<T>(&self, key: &Key, change: impl FnOnce(&mut Subject, &Rule) -> T) -> Option<T> {
        let mut state = locked(&self.inner.state);
        state.subjects.get_mut(key).map(|subject| change(subject, &self.inner.rule))
    }

    /// The answer for a target; what is final is forgotten.
    pub fn answer(&self, key: &Key) -> Option<Answer> {
        let trouble = self.trouble();
        let answer = self.with(key, |it, rule| it.answer(rule, trouble.as_ref(), now()))?;
        if !matches!(answer, Answer::Pending { .. }) {
            self.forget(key);
        }
        Some(answer)
    }

    /// The target is not verified any more.
    pub fn forget(&self, key: &Key) {
        locked(&self.inner.state).subjects.remove(key);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Inner {
    fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(
            || "of the cluster".to_owned(),
            |namespace| format!("in namespace `{namespace}`"),
        )
    }

    fn set(&self, which: Which, stage: Stage) {
        let mut state = locked(&self.state);
        match which {
            Which::Hpas => state.hpas.set(stage),
            Which::Workloads => state.workloads.set(stage),
        }
    }
}

impl<T: Default> Side<T> {
    /// The list is complete.
    fn begin(&mut self) {
        self.known = std::mem::take(&mut self.fresh);
        self.set(Stage::InStep);
    }

    fn set(&mut self, stage: Stage) {
        self.turns += u64::from(!matches!(stage, Stage::Starting));
        self.stage = stage;
    }
}

/// Whether to wait for a watch; a failure counts if it is news.
fn waits(stage: &Stage, is_news: bool) -> Result<bool, Fault> {
    match stage {
        Stage::InStep => Ok(false),
        Stage::Failed(fault) if is_news => Err(fault.clone()),
        Stage::Starting | Stage::Failed(_) => Ok(true),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ClusterAccess, Confirmed, KubernetesMode, Workload};
    use crate::sink::cluster::Clusters;

    #[test]
    fn a_namespace_makes_room_that_no_delivery_of_the_batch_needs() {
        let workload = Workload {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        };
        let settings = KubernetesSettings {
            access: ClusterAccess { kubeconfig: Some("/nonexistent".into()), context: None },
            mode: KubernetesMode::Scale,
            workload,
            field_manager: "intentd".to_owned(),
            force: false,
            hpa: HpaRule::Refuse,
            delivered: Confirmed::Converged,
            verify_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            concurrency: CONNECTIONS_MAX - 4,
            whole_cluster: false,
        };
        let watches = Watches::new(Clusters::new().unwrap().at(settings.access.clone()), &settings);
        assert_eq!(watches.namespaces_max(), 2);
        for namespace in ["old", "older"] {
            let waker: crate::sink::Waker = Arc::new(|_| {});
            let subject = Subject::new(Seq(1), String::new(), 1, waker);
            watches.place(namespace).keep(&(namespace.to_owned(), "web".to_owned()), subject);
        }
        let _held = watches.place("new");
        let _other = watches.place("newer");
        assert!(watches.followed("new").is_some(), "its delivery is under way");
        assert!(watches.followed("old").is_none() && watches.followed("older").is_none());
    }
}
