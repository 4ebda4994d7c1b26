//! The calls on one target: what it is now, and the one conditional write.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use serde_json::json;

use crate::config::{KubernetesMode, KubernetesSettings};
use crate::model::Intent;
use crate::sink::cluster::{Call, Cluster, Content, Reply, Trouble, escaped};
use crate::sink::workload::{autoscaler, rollout, verdict};
use crate::sink::{Fault, Retry};

/// A cluster with the settings of a sink.
#[derive(Debug)]
pub struct Site {
    pub cluster: Arc<Cluster>,
    pub settings: KubernetesSettings,
}

/// What is known of a target before anything is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub replicas: u32,
    pub resource_version: String,
    /// Where the object itself was read.
    pub uid: Option<String>,
    /// Its count belongs to an autoscaler, by what the object says of its owners.
    pub is_autoscaled: bool,
}

/// What the server answered to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub resource_version: String,
    pub generation: Option<i64>,
}

/// Why a write was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The object has changed since it was looked at.
    Moved(Fault),
    Failed(Fault),
}

#[derive(Deserialize)]
struct Scale {
    metadata: Meta,
    #[serde(default)]
    spec: Count,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    resource_version: String,
    generation: Option<i64>,
}

/// A count of nothing is left out by the server.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Count {
    replicas: u32,
}

#[derive(Deserialize)]
struct Bare {
    metadata: Meta,
}

impl Site {
    /// When one call that begins now is given up.
    pub fn due(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.settings.timeout)
    }

    /// The path of the target's object.
    pub fn path(&self, intent: &Intent) -> String {
        let kind = &self.settings.workload;
        path(&kind.api_version, &intent.namespace, &kind.plural, &intent.target)
    }

    /// The name of the target for people, as in `deployments/ran-a/web`.
    pub fn location(&self, intent: &Intent) -> String {
        crate::sink::workload::location(&self.settings.workload, &intent.namespace, &intent.target)
    }

    /// Looks at the target, without changing it.
    pub async fn look(&self, intent: &Intent, deadline: Instant) -> Result<Found, Fault> {
        match self.settings.mode {
            KubernetesMode::Ssa => {
                let object = self.object(intent, deadline).await?;
                if object.metadata.deletion_timestamp.is_some() {
                    return Err(verdict::terminating(&self.location(intent)));
                }
                let (manager, subresource) = rollout::owner(&object).unwrap_or_default();
                Ok(Found {
                    // What every kind of the API takes where nothing is written.
                    replicas: object.spec.replicas.and_then(|it| it.try_into().ok()).unwrap_or(1),
                    resource_version: object.metadata.resource_version.clone().unwrap_or_default(),
                    uid: object.metadata.uid.clone(),
                    is_autoscaled: manager == "kube-controller-manager" && subresource == "scale",
                })
            }
            _ => {
                let path = format!("{}/scale", self.path(intent));
                let what = || format!("read {}", self.location(intent));
                let scale: Scale = self.read(&path, what, deadline).await?;
                Ok(Found {
                    replicas: scale.spec.replicas,
                    resource_version: scale.metadata.resource_version,
                    uid: None,
                    is_autoscaled: false,
                })
            }
        }
    }

    /// The target's object as it is now.
    pub async fn object(&self, intent: &Intent, deadline: Instant) -> Result<rollout::Wire, Fault> {
        let what = || format!("read {}", self.location(intent));
        self.read(&self.path(intent), what, deadline).await
    }

    /// Writes the count of a target that still is as it was found. `dry` changes nothing.
    pub async fn scale(
        &self,
        intent: &Intent,
        found: &Found,
        replicas: u32,
        dry: bool,
        deadline: Instant,
    ) -> Result<Stored, Unwritten> {
        let path = self.path(intent);
        let (path, content, force) = match self.settings.mode {
            KubernetesMode::Ssa => {
                let kind = &self.settings.workload;
                let body = json!({
                    "apiVersion": kind.api_version, "kind": kind.kind,
                    "metadata": {
                        "name": intent.target, "uid": found.uid,
                        "resourceVersion": found.resource_version,
                    },
                    "spec": {"replicas": replicas},
                });
                let force = self.settings.force && !found.is_autoscaled;
                let content = Content::Apply(body.to_string().into_bytes());
                (path, content, Some(if force { "true" } else { "false" }))
            }
            _ => {
                let body = json!({
                    "metadata": {"resourceVersion": found.resource_version},
                    "spec": {"replicas": replicas},
                });
                (format!("{path}/scale"), Content::Merge(body.to_string().into_bytes()), None)
            }
        };
        let mut query = vec![("fieldManager", self.settings.field_manager.as_str())];
        query.extend(force.map(|force| ("force", force)));
        if force.is_some() {
            query.push(("fieldValidation", "Strict"));
        }
        if dry {
            query.push(("dryRun", "All"));
        }
        let call = Call { method: http::Method::PATCH, path: &path, query: &query, content };
        let answered = self.cluster.call(&call, self.due(deadline)).await;
        stored(answered, || format!("scale {} to {replicas}", self.location(intent)))
    }

    /// An autoscaler as it is now.
    pub async fn autoscaler(
        &self,
        namespace: &str,
        name: &str,
        deadline: Instant,
    ) -> Result<autoscaler::Autoscaler, Fault> {
        let path = path("autoscaling/v2", namespace, "horizontalpodautoscalers", name);
        let what = || format!("read horizontalpodautoscalers/{namespace}/{name}");
        let read: autoscaler::Wire = self.read(&path, what, deadline).await?;
        Ok(read.into())
    }

    /// Writes the minimum of an autoscaler that still is as it was read.
    pub async fn floor(
        &self,
        namespace: &str,
        hpa: &autoscaler::Autoscaler,
        min: u32,
        dry: bool,
        deadline: Instant,
    ) -> Result<Stored, Unwritten> {
        let path = path("autoscaling/v2", namespace, "horizontalpodautoscalers", &hpa.name);
        let body = json!({
            "metadata": {"resourceVersion": hpa.resource_version}, "spec": {"minReplicas": min},
        });
        let mut query = vec![("fieldManager", self.settings.field_manager.as_str())];
        if dry {
            query.push(("dryRun", "All"));
        }
        let content = Content::Merge(body.to_string().into_bytes());
        let call = Call { method: http::Method::PATCH, path: &path, query: &query, content };
        let answered = self.cluster.call(&call, self.due(deadline)).await;
        let hpa = &hpa.name;
        stored(answered, || {
            format!("raise minReplicas of horizontalpodautoscalers/{namespace}/{hpa} to {min}")
        })
    }

    /// Reads an object; `what` says of what could not be done that it was to read this.
    pub async fn read<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        what: impl FnOnce() -> String,
        deadline: Instant,
    ) -> Result<T, Fault> {
        let answered = self.cluster.call(&Call::get(path), self.due(deadline)).await;
        answered.and_then(|reply| reply.object()).map_err(|trouble| trouble.fault(&what()))
    }
}

/// The address of an object.
pub fn path(api_version: &str, namespace: &str, plural: &str, name: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let (namespace, plural, name) = (escaped(namespace), escaped(plural), escaped(name));
    format!("/{root}/{api_version}/namespaces/{namespace}/{plural}/{name}")
}

fn stored(
    answered: Result<Reply, Trouble>,
    what: impl FnOnce() -> String,
) -> Result<Stored, Unwritten> {
    let answered = answered.and_then(|reply| reply.object::<Bare>());
    let Bare { metadata } = match answered {
        Ok(bare) => bare,
        Err(trouble) => {
            let fault = trouble.fault(&what());
            return Err(match &trouble {
                Trouble::Refused(refusal) if refusal.status == 409 => {
                    let owned = refusal.causes.iter().any(|it| it.reason == "FieldManagerConflict");
                    match owned {
                        true => Unwritten::Failed(Fault { retry: Retry::Never, ..fault }),
                        false => Unwritten::Moved(fault),
                    }
                }
                _ => Unwritten::Failed(fault),
            });
        }
    };
    let Meta { resource_version, generation } = metadata;
    Ok(Stored { resource_version, generation })
}
