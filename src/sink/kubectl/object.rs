//! What kubectl shows of a workload and of autoscalers, and how far a write has come by it. Pure.

use serde_json::Value;

use crate::config::Workload;

/// How much of a write is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    Accepted,
    Observed,
    Converged,
}

/// What decisions are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub resource_version: String,
    pub generation: i64,
    pub replicas: u32,
    pub is_terminating: bool,
    /// None where its controller keeps no count of what it has seen.
    pub observed: Option<i64>,
    /// How many pods there are, are of the newest template, are ready, are available; none where
    /// the kind does not say.
    pub there: Option<u32>,
    pub updated: Option<u32>,
    pub ready: Option<u32>,
    pub available: Option<u32>,
    /// What a condition says is wrong.
    pub wrong: Option<String>,
}

/// An autoscaler of some workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Autoscaler {
    pub name: String,
    pub resource_version: String,
    pub min: u32,
    pub max: u32,
}

impl Seen {
    /// `None` where this is no object with replicas at their usual place.
    pub fn read(object: &Value) -> Option<Self> {
        let (metadata, status) = (&object["metadata"], &object["status"]);
        // The server leaves zeros of these out.
        let kind = object["kind"].as_str().unwrap_or_default();
        let is_known = object["apiVersion"].as_str().is_some_and(|it| it.starts_with("apps/"));
        let count = |name: &str, kinds: &[&str]| {
            let zero = (is_known && kinds.contains(&kind)).then_some(0);
            number(&status[name]).or(zero)
        };
        let all = ["Deployment", "StatefulSet", "ReplicaSet"];
        Some(Seen {
            resource_version: metadata["resourceVersion"].as_str()?.to_owned(),
            generation: metadata["generation"].as_i64().unwrap_or(0),
            replicas: number(&object["spec"]["replicas"])?,
            is_terminating: !metadata["deletionTimestamp"].is_null(),
            observed: status["observedGeneration"].as_i64().or(is_known.then_some(0)),
            there: count("replicas", &all),
            updated: count("updatedReplicas", &all[..2]),
            ready: count("readyReplicas", &all),
            available: count("availableReplicas", &[all[0], all[2]]),
            wrong: wrong(&status["conditions"]),
        })
    }

    /// How much is seen of what was generation `generation` when it was written. A controller that
    /// keeps no count has, as far as anybody can tell, seen it.
    pub fn reached(&self, generation: i64) -> Reached {
        if self.observed.is_some_and(|observed| observed < generation) {
            return Reached::Accepted;
        }
        let is = |count: Option<u32>| count.is_none_or(|count| count == self.replicas);
        let is_current = self.observed.is_none_or(|observed| observed >= self.generation);
        match is_current
            && [self.there, self.updated, self.ready, self.available].map(is) == [true; 4]
        {
            true => Reached::Converged,
            false => Reached::Observed,
        }
    }

    /// What it is waiting for, in words.
    pub fn lacks(&self, generation: i64) -> String {
        if self.reached(generation) == Reached::Accepted {
            return "its controller has not seen the change".to_owned();
        }
        let wanted = self.replicas;
        let ready = self.ready.or(self.there).unwrap_or(0);
        let why = self.wrong.as_ref().map_or_else(String::new, |wrong| format!(": {wrong}"));
        match self.there {
            Some(there) if there > wanted => {
                format!("{there} replicas are there instead of {wanted}{why}")
            }
            _ => format!("{ready} of {wanted} replicas are ready{why}"),
        }
    }
}

/// The autoscalers in a list that target this one.
pub fn autoscalers(list: &Value, workload: &Workload, name: &str) -> Vec<Autoscaler> {
    let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let none = Vec::new();
    let items = list["items"].as_array().unwrap_or(&none).iter();
    let ours = items.filter(|item| {
        let target = &item["spec"]["scaleTargetRef"];
        target["kind"] == workload.kind.as_str()
            && target["name"] == name
            && group(target["apiVersion"].as_str().unwrap_or_default())
                == group(&workload.api_version)
            && item["metadata"]["deletionTimestamp"].is_null()
    });
    ours.filter_map(|item| {
        let (metadata, spec) = (&item["metadata"], &item["spec"]);
        Some(Autoscaler {
            name: metadata["name"].as_str()?.to_owned(),
            resource_version: metadata["resourceVersion"].as_str()?.to_owned(),
            min: number(&spec["minReplicas"]).unwrap_or(1),
            max: number(&spec["maxReplicas"])?,
        })
    })
    .collect()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn wrong(conditions: &Value) -> Option<String> {
    let is = |condition: &Value, kind: &str, status: &str| {
        condition["type"] == kind && condition["status"] == status
    };
    let all = conditions.as_array()?;
    let failing = all.iter().find(|it| is(it, "ReplicaFailure", "True"));
    let found = failing.or_else(|| all.iter().find(|it| is(it, "Progressing", "False")))?;
    Some(found["message"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(observed: i64, there: u32, updated: u32, ready: u32) -> Seen {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"resourceVersion": "9", "generation": 4},
            "spec": {"replicas": 3},
            "status": {"observedGeneration": observed, "replicas": there, "updatedReplicas": updated,
                       "readyReplicas": ready, "availableReplicas": ready},
        });
        Seen::read(&object).unwrap()
    }

    #[test]
    fn a_deployment_has_converged_when_all_its_pods_are_new_and_ready_and_no_others_are_left() {
        for (seen, reached, lacks) in [
            (deployment(3, 3, 3, 3), Reached::Accepted, "its controller has not seen the change"),
            (deployment(4, 2, 2, 2), Reached::Observed, "2 of 3 replicas are ready"),
            (deployment(4, 5, 3, 3), Reached::Observed, "5 replicas are there instead of 3"),
            (deployment(4, 3, 2, 3), Reached::Observed, "3 of 3 replicas are ready"),
            (deployment(4, 3, 3, 3), Reached::Converged, "3 of 3 replicas are ready"),
            (deployment(9, 3, 3, 3), Reached::Converged, "3 of 3 replicas are ready"),
        ] {
            assert_eq!((seen.reached(4), seen.lacks(4).as_str()), (reached, lacks), "{seen:?}");
        }
    }

    #[test]
    fn a_fresh_deployment_is_not_taken_for_one_that_was_seen() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 1}, "status": {},
            "metadata": {"resourceVersion": "9", "generation": 1},
        });
        assert_eq!(Seen::read(&object).unwrap().reached(1), Reached::Accepted);
    }

    #[test]
    fn a_kind_that_counts_little_is_judged_by_what_it_counts() {
        let mut object = json!({
            "apiVersion": "x.io/v1", "kind": "Cell", "spec": {"replicas": 2},
            "metadata": {"resourceVersion": "9"}, "status": {"replicas": 1},
        });
        assert_eq!(Seen::read(&object).unwrap().reached(0), Reached::Observed);
        object["status"]["replicas"] = 2.into();
        assert_eq!(Seen::read(&object).unwrap().reached(0), Reached::Converged);
        object["spec"] = json!({"size": 2});
        assert_eq!(Seen::read(&object), None);
    }

    #[test]
    fn a_condition_tells_what_is_wrong() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2},
            "metadata": {"resourceVersion": "9", "generation": 1, "deletionTimestamp": "now"},
            "status": {"observedGeneration": 1, "conditions": [
                {"type": "Progressing", "status": "False", "message": "late"},
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"},
            ]},
        });
        let seen = Seen::read(&object).unwrap();
        assert!(seen.is_terminating);
        assert_eq!(seen.lacks(1), "0 of 2 replicas are ready: exceeded quota: q");
    }

    #[test]
    fn an_autoscaler_is_known_by_group_kind_and_name() {
        let item = |name: &str, version: &str, kind: &str, target: &str| {
            json!({
                "metadata": {"name": name, "resourceVersion": "7"},
                "spec": {"maxReplicas": 5, "scaleTargetRef": {
                    "apiVersion": version, "kind": kind, "name": target}},
            })
        };
        let list = json!({"items": [
            item("other-kind", "apps/v1", "StatefulSet", "web"),
            item("other-group", "x.io/v1", "Deployment", "web"),
            item("other-name", "apps/v1", "Deployment", "web2"),
            item("ours", "apps/v1beta1", "Deployment", "web"),
        ]});
        let workload = Workload {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            plural: "deployments".to_owned(),
        };
        let ours = Autoscaler {
            name: "ours".to_owned(),
            resource_version: "7".to_owned(),
            min: 1,
            max: 5,
        };
        assert_eq!(autoscalers(&list, &workload, "web"), [ours]);
    }
}
