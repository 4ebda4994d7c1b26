//! Decides what may be written where a HorizontalPodAutoscaler targets the workload.

use kube::core::{NotUsed, Object};
use serde::{Deserialize, Serialize};

use crate::config::{HpaRule, Workload};
use crate::model::Code;
use crate::sink::{Fault, Retry};

/// A HorizontalPodAutoscaler of `autoscaling/v2` or `v1`, as far as it matters here.
pub type Wire = Object<Spec, NotUsed>;

/// The `spec` of an autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub scale_target_ref: Target,
    pub min_replicas: Option<u32>,
    pub max_replicas: u32,
}

/// What an autoscaler scales.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

/// What is kept of an autoscaler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    pub name: String,
    pub resource_version: String,
    pub target: Target,
    pub min: u32,
    pub max: u32,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// So many replicas, to the workload.
    Scale(u32),
    /// So many as the minimum, to that autoscaler; it has that already where the two are equal.
    RaiseFloor { hpa: String, resource_version: String, from: u32, to: u32 },
}

impl From<Wire> for Autoscaler {
    fn from(wire: Wire) -> Self {
        Autoscaler {
            name: wire.metadata.name.unwrap_or_default(),
            resource_version: wire.metadata.resource_version.unwrap_or_default(),
            target: wire.spec.scale_target_ref,
            min: wire.spec.min_replicas.unwrap_or(1),
            max: wire.spec.max_replicas,
        }
    }
}

impl Autoscaler {
    /// Whether it scales the workload of that kind and name. The version of its group is left out:
    /// one kind may be named under several.
    pub fn targets(&self, kind: &Workload, name: &str) -> bool {
        let is_named = self.target.kind == kind.kind && self.target.name == name;
        is_named && group(&self.target.api_version) == group(&kind.api_version)
    }
}

/// Decides from all autoscalers of the workload's namespace.
///
/// # Errors
///
/// `HPA_CONFLICT`, with the names and bounds.
pub fn decide<'a>(
    autoscalers: impl IntoIterator<Item = &'a Autoscaler>,
    kind: &Workload,
    name: &str,
    wanted: u32,
    rule: HpaRule,
) -> Result<Decision, Fault> {
    let mut its: Vec<_> = autoscalers.into_iter().filter(|it| it.targets(kind, name)).collect();
    its.sort_by(|one, other| one.name.cmp(&other.name));
    let (hpa, rule) = match its.as_slice() {
        [] => return Ok(Decision::Scale(wanted)),
        [hpa] => (*hpa, rule),
        _ => {
            let names: Vec<_> = its.iter().map(|it| format!("`{}`", it.name)).collect();
            let names = names.join(", ");
            return Err(conflict(format!(
                "several HorizontalPodAutoscalers scale {kind} `{name}` ({names}): leave one of them",
                kind = kind.kind
            )));
        }
    };
    let Autoscaler { name: own, resource_version, min, max, .. } = hpa;
    match rule {
        HpaRule::Clamp => Ok(Decision::Scale(wanted.clamp(*min, (*max).max(*min)))),
        HpaRule::Floor if wanted <= *max => Ok(Decision::RaiseFloor {
            hpa: own.clone(),
            resource_version: resource_version.clone(),
            from: *min,
            to: wanted,
        }),
        HpaRule::Floor => Err(conflict(format!(
            "HorizontalPodAutoscaler `{own}` keeps {kind} `{name}` at no more than {max} replicas, \
             and {wanted} are wanted: raise its maxReplicas first",
            kind = kind.kind
        ))),
        HpaRule::Refuse => Err(conflict(format!(
            "HorizontalPodAutoscaler `{own}` scales {kind} `{name}` between {min} and {max} \
             replicas and would undo {wanted}: change its bounds, or set `hpa` to \"floor\" or \
             \"clamp\"",
            kind = kind.kind
        ))),
    }
}

/// The group of an `apiVersion`; empty for the core group.
pub fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn conflict(message: String) -> Fault {
    Fault { code: Code::HpaConflict, message, retry: Retry::Never }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployments() -> Workload {
        Workload {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        }
    }

    fn hpa(name: &str, target: (&str, &str, &str), min: Option<u32>, max: u32) -> Autoscaler {
        let wire: Wire = serde_json::from_value(json!({
            "metadata": {"name": name, "resourceVersion": "7"},
            "spec": {
                "scaleTargetRef": {"apiVersion": target.0, "kind": target.1, "name": target.2},
                "minReplicas": min, "maxReplicas": max, "metrics": [],
            },
            "status": {"desiredReplicas": 3},
        }))
        .unwrap();
        wire.into()
    }

    fn decided(hpas: &[Autoscaler], wanted: u32, rule: HpaRule) -> Result<Decision, Fault> {
        decide(hpas, &deployments(), "web", wanted, rule)
    }

    const WEB: (&str, &str, &str) = ("apps/v1", "Deployment", "web");

    #[test]
    fn an_autoscaler_of_something_else_decides_nothing() {
        let others = [
            hpa("a", ("apps/v1", "Deployment", "web2"), None, 4),
            hpa("b", ("apps/v1", "StatefulSet", "web"), None, 4),
            hpa("c", ("example.com/v1", "Deployment", "web"), None, 4),
        ];
        assert_eq!(decided(&others, 9, HpaRule::Refuse), Ok(Decision::Scale(9)));
        let older = [hpa("a", ("apps/v1beta1", "Deployment", "web"), None, 4)];
        assert!(decided(&older, 9, HpaRule::Refuse).is_err(), "versions of one group are one kind");
    }

    #[test]
    fn refuse_names_the_autoscaler_and_its_bounds_inside_of_them_too() {
        let fault = decided(&[hpa("web-hpa", WEB, Some(2), 6)], 4, HpaRule::Refuse).unwrap_err();
        assert_eq!((fault.code, fault.retry), (Code::HpaConflict, Retry::Never));
        assert_eq!(
            fault.message,
            "HorizontalPodAutoscaler `web-hpa` scales Deployment `web` between 2 and 6 replicas \
             and would undo 4: change its bounds, or set `hpa` to \"floor\" or \"clamp\""
        );
    }

    #[test]
    fn floor_moves_the_minimum_up_to_the_maximum_and_no_further() {
        let hpas = [hpa("web-hpa", WEB, None, 6)];
        let raised = |to| Decision::RaiseFloor {
            hpa: "web-hpa".to_owned(),
            resource_version: "7".to_owned(),
            from: 1,
            to,
        };
        assert_eq!(decided(&hpas, 6, HpaRule::Floor), Ok(raised(6)));
        assert_eq!(decided(&hpas, 1, HpaRule::Floor), Ok(raised(1)));
        let fault = decided(&hpas, 7, HpaRule::Floor).unwrap_err();
        assert_eq!(
            fault.message,
            "HorizontalPodAutoscaler `web-hpa` keeps Deployment `web` at no more than 6 replicas, \
             and 7 are wanted: raise its maxReplicas first"
        );
    }

    #[test]
    fn clamp_keeps_what_is_wanted_within_the_bounds() {
        let hpas = [hpa("web-hpa", WEB, Some(2), 6)];
        let cases = [(1, 2), (2, 2), (4, 4), (6, 6), (9, 6)];
        for (wanted, given) in cases {
            assert_eq!(decided(&hpas, wanted, HpaRule::Clamp), Ok(Decision::Scale(given)));
        }
    }

    #[test]
    fn two_autoscalers_of_one_workload_are_refused_under_every_rule() {
        let hpas = [hpa("b", WEB, None, 4), hpa("a", WEB, None, 6)];
        for rule in [HpaRule::Refuse, HpaRule::Floor, HpaRule::Clamp] {
            assert_eq!(
                decided(&hpas, 3, rule).unwrap_err().message,
                "several HorizontalPodAutoscalers scale Deployment `web` (`a`, `b`): leave one of \
                 them"
            );
        }
    }
}
