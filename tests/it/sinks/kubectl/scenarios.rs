//! One list of scenarios over the script and over the real kubectl with a real API server: what the
//! sink answers and leaves behind is the same.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use intentd::config::{Confirmed, HpaRule, KubectlSettings};
use intentd::sink::kubectl::{Kubectl, compare};
use intentd::sink::{Answer, Comparison, Context, Fatal, Fence, Sink, Waker};

use super::super::{Job, PATIENCE, Steps, job_in, settle};
use super::fake::{Bench, settings};
use crate::real::{self, Cluster};

/// A namespace with deployments and autoscalers, simulated or real.
trait World {
    fn namespace(&self) -> &str;
    fn settings(&self) -> KubectlSettings;
    fn deployment(&self, name: &str, replicas: u32);
    fn autoscaler(&self, name: &str, target: &str, min: u32, max: u32);
    fn replicas(&self, name: &str) -> String;
    fn minimum(&self, autoscaler: &str) -> String;
    /// Changes something of a deployment that is not its replicas.
    fn touch(&self, name: &str);
}

impl World for Bench {
    fn namespace(&self) -> &str {
        "ran-a"
    }

    fn settings(&self) -> KubectlSettings {
        settings(&self.program())
    }

    fn deployment(&self, name: &str, replicas: u32) {
        self.put("ran-a", name, replicas);
    }

    fn autoscaler(&self, name: &str, target: &str, min: u32, max: u32) {
        self.write(
            &format!("hpa/ran-a.{name}"),
            &format!("target={target} min={min} max={max} rv=1\n"),
        );
    }

    fn replicas(&self, name: &str) -> String {
        let name = format!("ran-a.{name} ");
        let all = self.visible();
        all.iter().find_map(|line| line.strip_prefix(&name)).unwrap_or_default().to_owned()
    }

    fn minimum(&self, autoscaler: &str) -> String {
        let text = self.text(&format!("hpa/ran-a.{autoscaler}"));
        let mut words = text.split_whitespace();
        words.find_map(|word| word.strip_prefix("min=")).unwrap_or_default().to_owned()
    }

    fn touch(&self, name: &str) {
        let name = format!("state/ran-a.{name}");
        self.write(&name, &self.text(&name).replacen("rv=", "rv=9", 1));
    }
}

struct Real {
    cluster: &'static Cluster,
    namespace: String,
    kubectl: String,
}

impl World for Real {
    fn namespace(&self) -> &str {
        &self.namespace
    }

    fn settings(&self) -> KubectlSettings {
        let mut settings = settings(&self.kubectl);
        settings.access.kubeconfig = Some(self.cluster.kubeconfig());
        settings
    }

    fn deployment(&self, name: &str, replicas: u32) {
        let (namespace, replicas) =
            (format!("-n{}", self.namespace), format!("--replicas={replicas}"));
        self.cluster.kubectl(&["create", "deployment", name, &namespace, "--image=any", &replicas]);
        let target = format!("deployment/{name}");
        self.cluster.kubectl(&["rollout", "status", &target, &namespace, "--timeout=60s"]);
    }

    fn autoscaler(&self, name: &str, target: &str, min: u32, max: u32) {
        let namespace = &self.namespace;
        self.cluster.apply(
            &serde_json::json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"minReplicas": min, "maxReplicas": max, "scaleTargetRef": {
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": target}},
            })
            .to_string(),
        );
    }

    fn replicas(&self, name: &str) -> String {
        let (namespace, path) = (format!("-n{}", self.namespace), "-ojsonpath={.spec.replicas}");
        self.cluster.kubectl(&["get", "deployment", name, &namespace, path])
    }

    fn minimum(&self, autoscaler: &str) -> String {
        let (namespace, path) = (format!("-n{}", self.namespace), "-ojsonpath={.spec.minReplicas}");
        self.cluster.kubectl(&["get", "hpa", autoscaler, &namespace, path])
    }

    fn touch(&self, name: &str) {
        let namespace = format!("-n{}", self.namespace);
        self.cluster.kubectl(&["annotate", "deployment", name, &namespace, "touched=yes"]);
    }
}

/// What the sink makes of an intent, in one line.
fn tell(world: &dyn World, change: impl FnOnce(&mut KubectlSettings), job: &Job) -> String {
    let mut settings = world.settings();
    change(&mut settings);
    let mut sink = Kubectl::new("kubectl".to_owned(), &settings, None).unwrap();
    let compared = match compare(&settings, &job.intent) {
        Ok(Comparison::Same) => "same".to_owned(),
        Ok(Comparison::Different(changes)) => {
            let told = |it: &intentd::sink::Change| {
                format!("{}: {} to {}", it.path, it.before.trim(), it.after.trim())
            };
            changes.iter().map(told).collect::<Vec<_>>().join(", ")
        }
        Ok(Comparison::Unknown) => "unknown".to_owned(),
        Err(fault) => fault.code.to_string(),
    };
    let answer = settle(&mut sink, &[job]).remove(0);
    let told = match answer {
        Answer::Done(confirmed) => {
            let names: Vec<&str> = confirmed.further.keys().map(String::as_str).collect();
            let outcome = if confirmed.unchanged { "unchanged" } else { "delivered" };
            format!("{outcome} {} ({})", confirmed.location, names.join(" "))
        }
        Answer::Failed(fault) => format!("{} {:?}: {}", fault.code, fault.retry, fault.message),
        Answer::Pending { .. } => unreachable!("it is settled"),
    };
    format!("{compared}; {told}").replace(world.namespace(), "NS")
}

/// Holds, and meddles with a deployment when it is asked first: after the look, before the write.
struct Meddling<'a>(&'a dyn World, &'a str, Cell<u32>);

impl Fence for Meddling<'_> {
    fn check(&self) -> Result<(), Fatal> {
        self.2.set(self.2.get() + 1);
        if self.2.get() == 1 {
            self.0.touch(self.1);
        }
        Ok(())
    }
}

fn meddled(world: &dyn World, job: &Job) -> String {
    let fence = Meddling(world, &job.intent.target, Cell::new(0));
    let (journal, waker): (_, Waker) = (Steps::default(), Arc::new(|_| {}));
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let mut settings = world.settings();
    settings.delivered = Confirmed::Accepted;
    let mut sink = Kubectl::new("kubectl".to_owned(), &settings, None).unwrap();
    match sink.deliver(&[job.delivery()], &context).unwrap().remove(0) {
        Answer::Done(_) => format!("delivered after {} questions to the fence", fence.2.get()),
        other => format!("{other:?}"),
    }
}

fn transcript(world: &dyn World) -> Vec<String> {
    let job = |target: &str, replicas: u32| job_in(world.namespace(), target, replicas);
    let plain = |_: &mut KubectlSettings| {};
    let converged = |settings: &mut KubectlSettings| settings.delivered = Confirmed::Converged;
    let mut sink = Kubectl::new("kubectl".to_owned(), &world.settings(), None).unwrap();
    sink.probe().unwrap();
    world.deployment("web", 1);
    let mut told = vec![
        tell(world, plain, &job("web", 3)),
        tell(world, plain, &job("web", 3)),
        tell(world, converged, &job("web", 5)),
        tell(world, plain, &job("none", 5)),
    ];
    told.push(format!("web has {}", world.replicas("web")));
    told.push(format!("meddled with: {}", meddled(world, &job("web", 2))));
    told.push(format!("web has {}", world.replicas("web")));
    for name in ["held", "raised", "kept"] {
        world.deployment(name, 2);
        world.autoscaler(&format!("{name}-hpa"), name, 2, 5);
    }
    let with = |rule| move |settings: &mut KubectlSettings| settings.hpa = rule;
    told.extend([
        tell(world, plain, &job("held", 3)),
        tell(world, with(HpaRule::Floor), &job("raised", 4)),
        tell(world, with(HpaRule::Floor), &job("raised", 9)),
        tell(world, with(HpaRule::Clamp), &job("kept", 9)),
    ]);
    told.push(format!("held has {}", world.replicas("held")));
    told.push(format!("raised has {}", world.replicas("raised")));
    told.push(format!("raised-hpa has {}", world.minimum("raised-hpa")));
    told.push(format!("kept has {}", world.replicas("kept")));
    let unknown = |settings: &mut KubectlSettings| settings.workload.plural = "cells".to_owned();
    told.push(tell(world, unknown, &job("web", 5)));
    told
}

/// What both say.
const EXPECTED: &[&str] = &[
    "deployments/NS/web: replicas: 1 to replicas: 3; delivered deployments/NS/web (accepted_at \
     observed_at resource_version)",
    "same; unchanged deployments/NS/web (accepted_at observed_at resource_version)",
    "deployments/NS/web: replicas: 3 to replicas: 5; delivered deployments/NS/web (accepted_at \
     observed_at resource_version)",
    "TARGET_NOT_FOUND; TARGET_NOT_FOUND Never: cannot read deployments/NS/none: deployments.apps \
     \"none\" not found",
    "web has 5",
    "meddled with: delivered after 2 questions to the fence",
    "web has 2",
    "HPA_CONFLICT; HPA_CONFLICT Never: HorizontalPodAutoscaler `held-hpa` scales Deployment `held` \
     between 2 and 5 replicas and would undo 3: change its bounds, or set `hpa` to \"floor\" or \
     \"clamp\"",
    "horizontalpodautoscalers/NS/raised-hpa: minReplicas: 2 to minReplicas: 4; delivered \
     deployments/NS/raised (accepted_at hpa observed_at resource_version)",
    "HPA_CONFLICT; HPA_CONFLICT Never: HorizontalPodAutoscaler `raised-hpa` keeps Deployment \
     `raised` at no more than 5 replicas, and 9 are wanted: raise its maxReplicas first",
    "deployments/NS/kept: replicas: 2 to replicas: 5; delivered deployments/NS/kept (accepted_at \
     observed_at replicas resource_version)",
    "held has 2",
    "raised has 4",
    "raised-hpa has 4",
    "kept has 5",
    "TARGET_NOT_FOUND; TARGET_NOT_FOUND Never: cannot read cells/NS/web: the server doesn't have a \
     resource type \"cells\"",
];

/// Whether all were ready at the look that was enough is a matter of luck.
fn without_luck(told: Vec<String>) -> Vec<String> {
    told.into_iter().map(|line| line.replace(" converged_at", "")).collect()
}

#[test]
fn the_script_and_the_real_kubectl_say_and_do_the_same() {
    let simulated = without_luck(transcript(&Bench::with(&[])));
    assert_eq!(simulated, EXPECTED);
    let Some(cluster) = real::shared() else { return };
    let namespace = cluster.namespace();
    let kubectl = cluster.command(&[]).get_program().to_string_lossy().into_owned();
    let real = transcript(&Real { cluster, namespace, kubectl });
    assert_eq!(without_luck(real), EXPECTED);
}
