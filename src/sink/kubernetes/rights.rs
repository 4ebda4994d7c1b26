//! Whether the server is there and would let us work, asked without changing anything.

use std::time::Instant;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::config::{HpaRule, KubernetesMode, KubernetesSettings};
use crate::model::Code;
use crate::sink::cluster::{Call, Content};
use crate::sink::kubernetes::network;
use crate::sink::kubernetes::target::Site;
use crate::sink::workload::autoscaler::group;
use crate::sink::{Fault, Retry};

/// One right, as RBAC names it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Right {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: &'static str,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Verdict,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Verdict {
    allowed: bool,
}

/// Asks for the server's version, and for our rights in these namespaces; in all of them if the
/// sink follows the whole cluster. Which namespaces intents will name is not known beforehand.
///
/// # Errors
///
/// The server cannot be reached, or a right is missing.
pub async fn check(site: &Site, namespaces: &[String], due: Instant) -> Result<(), Fault> {
    let answered = site.cluster.call(&Call::get("/version"), due).await;
    answered.map_err(|trouble| trouble.fault("reach the API server"))?;
    let places: Vec<Option<&str>> = match site.settings.whole_cluster {
        true => vec![None],
        false => namespaces.iter().map(|it| Some(it.as_str())).collect(),
    };
    let rights = rights(&site.settings);
    let asked = places.iter().flat_map(|place| rights.iter().map(move |right| (*place, right)));
    let answers: Vec<Option<String>> = stream::iter(asked)
        .map(|(place, right)| is_missing(site, place, right, due))
        .buffered(site.settings.concurrency)
        .try_collect()
        .await?;
    let missing: Vec<String> = answers.into_iter().flatten().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("these rights are missing at the API server: {}", missing.join(", "));
    Err(Fault { code: Code::Forbidden, message, retry: Retry::Later })
}

/// What a sink of these settings needs.
fn rights(settings: &KubernetesSettings) -> Vec<Right> {
    let own = &settings.workload;
    let right = |verb, group: &str, resource: &str, subresource| Right {
        verb,
        group: group.to_owned(),
        resource: resource.to_owned(),
        subresource,
    };
    let workload =
        |verb, subresource| right(verb, group(&own.api_version), &own.plural, subresource);
    let hpa = |verb| right(verb, "autoscaling", "horizontalpodautoscalers", "");
    let mut rights = match settings.mode {
        KubernetesMode::NetworkIntent => {
            let group = group(network::API_VERSION);
            return ["create", "get"].map(|it| right(it, group, network::PLURAL, "")).to_vec();
        }
        KubernetesMode::Scale => vec![workload("get", "scale"), workload("patch", "scale")],
        KubernetesMode::Ssa => vec![workload("patch", "")],
    };
    rights.extend(["get", "list", "watch"].map(|verb| workload(verb, "")));
    rights.extend(["list", "watch"].map(hpa));
    if settings.hpa == HpaRule::Floor {
        rights.extend(["get", "patch"].map(hpa));
    }
    rights
}

/// The right in words if we do not have it.
async fn is_missing(
    site: &Site,
    place: Option<&str>,
    right: &Right,
    due: Instant,
) -> Result<Option<String>, Fault> {
    let Right { verb, group, resource, subresource } = right;
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": place.unwrap_or_default(), "verb": verb, "group": group,
            "resource": resource, "subresource": subresource,
        }},
    });
    let call = Call {
        method: Method::POST,
        path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        query: &[("fieldManager", &site.settings.field_manager)],
        content: Content::Json(body.to_string().into_bytes()),
    };
    let answered = site.cluster.call(&call, due).await.and_then(|reply| reply.object::<Review>());
    let review = answered.map_err(|trouble| trouble.fault("ask for our rights"))?;
    let slash = if subresource.is_empty() { "" } else { "/" };
    let at = place.map_or_else(|| "all namespaces".to_owned(), |it| format!("`{it}`"));
    Ok((!review.status.allowed).then(|| format!("{verb} {resource}{slash}{subresource} in {at}")))
}
