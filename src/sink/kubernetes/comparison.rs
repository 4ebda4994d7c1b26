//! What a delivery would change at the cluster, told by a write that the server only rehearses.

use std::sync::Arc;
use std::time::Instant;

use kube::core::ObjectList;

use crate::config::{KubernetesMode, KubernetesSettings};
use crate::limits::DELIVERY_MAX;
use crate::model::{Intent, IntentType};
use crate::sink::cluster::Cluster;
use crate::sink::kubernetes::network;
use crate::sink::kubernetes::target::{Site, Unwritten, path};
use crate::sink::kubernetes::unsupported;
use crate::sink::workload::autoscaler::{self, Autoscaler, Decision, decide};
use crate::sink::workload::verdict;
use crate::sink::{Change, Comparison, Fault};

/// Asks the server and changes nothing there.
///
/// # Errors
///
/// The fault that the delivery would meet.
pub fn compare(
    settings: &KubernetesSettings,
    cluster: Arc<Cluster>,
    intent: &Intent,
) -> Result<Comparison, Fault> {
    let site = Site { cluster, settings: settings.clone() };
    let due = Instant::now() + DELIVERY_MAX;
    match settings.mode {
        KubernetesMode::NetworkIntent => {
            let change = site.cluster.block_on(network::rehearse(&site, intent, due))?;
            Ok(Comparison::Different(vec![change]))
        }
        KubernetesMode::Scale | KubernetesMode::Ssa => {
            if intent.intent_type != IntentType::Scaling {
                return Err(unsupported(intent.intent_type));
            }
            site.cluster.block_on(rehearse(&site, intent, due))
        }
    }
}

async fn rehearse(site: &Site, intent: &Intent, due: Instant) -> Result<Comparison, Fault> {
    let found = site.look(intent, due).await?;
    let object = site.object(intent, due).await?;
    if object.metadata.deletion_timestamp.is_some() {
        return Err(verdict::terminating(&site.location(intent)));
    }
    let at = path("autoscaling/v2", &intent.namespace, "horizontalpodautoscalers", "");
    let listed: ObjectList<autoscaler::Wire> = site
        .read(at.trim_end_matches('/'), || "list horizontalpodautoscalers".to_owned(), due)
        .await?;
    let hpas: Vec<Autoscaler> = listed.items.into_iter().map(Autoscaler::from).collect();
    let settings = &site.settings;
    let decision =
        decide(&hpas, &settings.workload, &intent.target, intent.replicas, settings.hpa)?;
    let (path, field, before, after, rehearsed) = match &decision {
        Decision::Scale(wanted) if *wanted == found.replicas => return Ok(Comparison::Same),
        Decision::Scale(wanted) => {
            let rehearsed = site.scale(intent, &found, *wanted, true, due).await;
            (site.location(intent), "spec.replicas", found.replicas, *wanted, rehearsed)
        }
        Decision::RaiseFloor { from, to, .. } if from == to => return Ok(Comparison::Same),
        Decision::RaiseFloor { hpa, from, to, .. } => {
            let location = format!("horizontalpodautoscalers/{}/{hpa}", intent.namespace);
            let hpa = site.autoscaler(&intent.namespace, hpa, due).await?;
            let rehearsed = site.floor(&intent.namespace, &hpa, *to, true, due).await;
            (location, "spec.minReplicas", *from, *to, rehearsed)
        }
    };
    match rehearsed {
        // Somebody was in between; what differs is the same.
        Ok(_) | Err(Unwritten::Moved(_)) => {}
        Err(Unwritten::Failed(fault)) => return Err(fault),
    }
    Ok(Comparison::Different(vec![Change {
        path,
        before: format!("{field}: {before}\n"),
        after: format!("{field}: {after}\n"),
    }]))
}
