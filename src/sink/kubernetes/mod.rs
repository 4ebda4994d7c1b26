//! Writes intents to a cluster through its API.
//!
//! Each delivery of a batch passes through three turns, many at a time: look at the target, keep in the
//! ledger what is about to be written, write. What is written is then verified from a watch, and until
//! it has come far enough the answer is `Pending`: nobody waits for a rollout.
//!
//! Invariants: nothing is written on a target whose autoscalers are not known for certain; every
//! write is conditional on the version that was looked at, or makes an object of a name of its own;
//! what had no answer is read again before it is repeated.
//! Not here: what a rollout or an autoscaler means (`sink::workload`), the calls (`target`), their
//! order (`schedule`), the watches (`watches`), verification (`subject`).

mod batch;
mod comparison;
mod network;
mod resource;
mod rights;
mod schedule;
mod subject;
mod target;
mod watches;

use std::sync::Arc;
use std::time::Instant;

use crate::config::{KubernetesMode, KubernetesSettings};
use crate::model::{Code, IntentType};
use crate::sink::cluster::Cluster;
use crate::sink::{Answer, Context, Delivery, Fatal, Fault, Retry, Sink};

use batch::Batch;
use target::Site;
use watches::Watches;

pub use comparison::compare;
pub use resource::{NetworkIntent, NetworkIntentSpec, NetworkIntentStatus, crd};

/// A cluster that intents are written to.
#[derive(Debug)]
pub struct Kubernetes {
    name: String,
    site: Site,
    watches: Watches,
}

impl Kubernetes {
    /// Calls nobody yet.
    pub fn new(name: String, settings: &KubernetesSettings, cluster: Arc<Cluster>) -> Self {
        let watches = Watches::new(Arc::clone(&cluster), settings);
        Kubernetes { name, site: Site { cluster, settings: settings.clone() }, watches }
    }
}

impl Sink for Kubernetes {
    fn name(&self) -> &str {
        &self.name
    }

    fn probe(&mut self) -> Result<(), Fault> {
        let due = Instant::now() + self.site.settings.timeout;
        let namespaces = self.watches.namespaces();
        self.site.cluster.block_on(rights::check(&self.site, &namespaces, due))
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        context.fence.check()?;
        let Kubernetes { site, watches, .. } = self;
        let work = Batch::new(site, watches, context);
        site.cluster.block_on(async {
            match site.settings.mode {
                KubernetesMode::NetworkIntent => network::deliver(&work, batch).await,
                KubernetesMode::Scale | KubernetesMode::Ssa => work.deliver(batch).await,
            }
        })
    }
}

/// Why the modes that scale do not take this type of intent.
fn unsupported(intent_type: IntentType) -> Fault {
    let message = format!(
        "the modes `scale` and `ssa` carry out scaling intents, and no {intent_type} ones; \
         `networkintent` takes all"
    );
    Fault { code: Code::UnsupportedIntent, message, retry: Retry::Never }
}
