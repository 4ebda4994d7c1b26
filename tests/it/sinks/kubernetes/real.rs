//! What only a real API server with its controllers shows. Without one these say so aloud and pass.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::real;

/// A namespace of its own in the shared cluster.
struct Place {
    cluster: &'static real::Cluster,
    namespace: String,
}

impl Place {
    fn new() -> Option<Self> {
        let cluster = real::shared()?;
        Some(Place { namespace: cluster.namespace(), cluster })
    }

    /// kubectl in the namespace.
    #[track_caller]
    fn kubectl(&self, args: &[&str]) -> String {
        let all: Vec<&str> = [&["--namespace", &self.namespace], args].concat();
        self.cluster.kubectl(&all)
    }

    /// A Deployment whose pods have these annotations.
    fn deployment(&self, name: &str, replicas: u32, annotations: serde_json::Value) {
        let labels = json!({"app": name});
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": {"containers": [{"name": "main", "image": "any"}]},
                },
            },
        });
        self.cluster.apply(&object.to_string());
    }

    fn settled(&self, name: &str) {
        self.kubectl(&["rollout", "status", "--timeout=60s", &format!("deployment/{name}")]);
    }

    fn sink(&self, change: impl FnOnce(&mut KubernetesSettings)) -> Kubernetes {
        let mut settings = settings(self.cluster.kubeconfig());
        settings.delivered = Confirmed::Converged;
        change(&mut settings);
        sink(&settings)
    }

    fn job(&self, target: &str, replicas: u32) -> Job {
        super::super::job_in(&self.namespace, target, replicas)
    }

    fn field(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
    }
}

#[test]
fn ten_deployments_are_scaled_to_ready_and_again_unchanged() {
    let Some(place) = Place::new() else { return };
    let names: Vec<String> = (0..10).map(|at| format!("web-{at}")).collect();
    names.iter().for_each(|name| place.deployment(name, 1, json!({})));
    let mut sink = place.sink(|_| {});
    sink.probe().unwrap();
    let jobs: Vec<Job> = names
        .iter()
        .zip(2..)
        .map(|(name, count)| Job { seq: Seq(count.into()), ..place.job(name, count) })
        .collect();
    let jobs: Vec<&Job> = jobs.iter().collect();
    settle(&mut sink, &jobs).iter().for_each(|answer| assert!(!done(answer).unchanged));
    for (name, count) in names.iter().zip(2..) {
        let object = format!("deployment/{name}");
        assert_eq!(place.field(&object, ".status.readyReplicas"), count.to_string());
        let managers = place.field(&object, ".metadata.managedFields[*].manager");
        assert!(managers.contains("intentd"), "{managers}");
    }
    settle(&mut sink, &jobs).iter().for_each(|answer| assert!(done(answer).unchanged));
}

#[test]
fn pods_that_are_never_ready_are_a_timeout_that_says_how_many() {
    let Some(place) = Place::new() else { return };
    place.deployment("web", 0, json!({"kube-assets/never-ready": "true"}));
    let mut sink = place.sink(|it| it.verify_timeout = Duration::from_secs(4));
    let answer = settled(&mut sink, &place.job("web", 3));
    let said = failed(&answer, Code::VerifyTimeout, Retry::Never);
    assert!(said.ends_with("0 of 3 replicas ready; the change stands"), "{said}");
    assert_eq!(place.field("deployment/web", ".spec.replicas"), "3");
}

#[test]
fn a_quota_is_told_in_the_servers_words() {
    let Some(place) = Place::new() else { return };
    place.deployment("web", 1, json!({}));
    place.settled("web");
    place.kubectl(&["create", "quota", "few", "--hard=pods=2"]);
    place.cluster.kubectl(&[
        "--namespace",
        &place.namespace,
        "wait",
        "--for=jsonpath={.status.used.pods}=1",
        "--timeout=60s",
        "quota/few",
    ]);
    let answer = settled(&mut place.sink(|_| {}), &place.job("web", 5));
    let said = failed(&answer, Code::AdmissionDenied, Retry::Never);
    assert!(said.contains("exceeded quota: few") && said.ends_with("the change stands"), "{said}");
}

#[test]
fn an_autoscaler_is_refused_or_raised_and_follows() {
    let Some(place) = Place::new() else { return };
    place.deployment("web", 2, json!({}));
    place.settled("web");
    place.kubectl(&["autoscale", "deployment/web", "--name=guard", "--min=2", "--max=6"]);
    let refused = settled(&mut place.sink(|_| {}), &place.job("web", 4));
    let said = failed(&refused, Code::HpaConflict, Retry::Never);
    assert!(said.contains("`guard` scales Deployment `web` between 2 and 6"), "{said}");
    let raised = settled(&mut place.sink(|it| it.hpa = HpaRule::Floor), &place.job("web", 4));
    assert_eq!(done(&raised).further["hpa"], "guard");
    assert_eq!(place.field("hpa/guard", ".spec.minReplicas"), "4");
    assert_eq!(place.field("deployment/web", ".status.readyReplicas"), "4");
}

#[test]
fn ssa_meets_owners_as_a_real_server_reports_them() {
    let Some(place) = Place::new() else { return };
    place.deployment("web", 2, json!({}));
    let ssa = |force| {
        place.sink(|it| {
            it.mode = KubernetesMode::Ssa;
            it.force = force;
        })
    };
    let said =
        failed(&settled(&mut ssa(false), &place.job("web", 4)), Code::FieldConflict, Retry::Never);
    assert!(said.contains("kubectl-client-side-apply"), "{said}");
    done(&settled(&mut ssa(true), &place.job("web", 4)));
    assert_eq!(place.field("deployment/web", ".status.readyReplicas"), "4");
    failed(&settled(&mut ssa(true), &place.job("nobody", 4)), Code::TargetNotFound, Retry::Never);
}

#[test]
fn the_definition_that_is_printed_is_served_and_takes_intents() {
    let Some(place) = Place::new() else { return };
    let crd = crate::support::Site::new().run(&["schema", "crd"]);
    assert_eq!(crd.code, Some(0), "{}", crd.stderr);
    place.cluster.apply(&crd.stdout);
    let name = "customresourcedefinition/networkintents.intent.nephoran.com";
    place.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", name]);
    let mut sink = place.sink(|it| it.mode = KubernetesMode::NetworkIntent);
    let first = settled(&mut sink, &place.job("web", 4));
    let again = settled(&mut sink, &place.job("web", 4));
    assert_eq!((done(&first).unchanged, done(&again).unchanged), (false, true));
    assert_eq!(done(&first).location, done(&again).location);
    assert_eq!(place.field("ni", ".items[*].spec.replicas"), "4");
    let shown = place.kubectl(&["get", "ni"]);
    let head: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "PHASE", "TARGET", "REPLICAS", "AGE"]);
}

/// A kubeconfig of the service account that the README's manifest makes.
fn least_rights(place: &Place) -> PathBuf {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let manifest = readme.split("<!-- rbac-kubernetes:begin -->\n```yaml\n").nth(1).unwrap();
    let manifest = manifest.split("```").next().unwrap().replace("ran-a", &place.namespace);
    place.cluster.apply(&manifest);
    let token = place.kubectl(&["create", "token", "intentd"]);
    let config = place.cluster.kubectl(&["config", "view", "--raw", "-o", "json"]);
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let user = config["users"][0]["name"].clone();
    config["users"] = json!([{"name": user, "user": {"token": token.trim()}}]);
    let path = place.cluster.dir().join(format!("{}.kubeconfig", place.namespace));
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn the_rights_of_the_readme_suffice_and_are_the_only_ones() {
    let Some(place) = Place::new() else { return };
    place.deployment("web", 1, json!({}));
    let kubeconfig = least_rights(&place);
    let access = ClusterAccess { kubeconfig: Some(kubeconfig.clone()), context: None };
    let mut sink = place.sink(|it| it.access = access.clone());
    done(&settled(&mut sink, &place.job("web", 3)));
    sink.probe().unwrap();
    let config = format!("--kubeconfig={}", kubeconfig.display());
    let listed = place.kubectl(&[&config, "auth", "can-i", "--list", "--no-headers"]);
    let mut rights: Vec<String> = listed
        .lines()
        .filter(|line| !line.starts_with(' ') && !line.starts_with("selfsubject"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    rights.sort();
    assert_eq!(
        rights,
        [
            "deployments.apps [] [] [get list watch]",
            "deployments.apps/scale [] [] [get patch]",
            "horizontalpodautoscalers.autoscaling [] [] [list watch]",
        ]
    );

    // Taken away and given back.
    place.kubectl(&["delete", "rolebinding", "intentd"]);
    let mut fresh = place.sink(|it| it.access = access.clone());
    crate::support::wait_until("the rights to be gone", || {
        matches!(&call(&mut fresh, &place.job("web", 4)).answer,
            Answer::Failed(fault) if fault.code == Code::Forbidden)
    });
    least_rights(&place);
    crate::support::wait_until("the rights to be back", || {
        matches!(settled(&mut fresh, &place.job("web", 4)), Answer::Done(_))
    });
}

#[test]
fn a_namespace_that_is_deleted_meanwhile_is_told() {
    let Some(place) = Place::new() else { return };
    place.deployment("web", 0, json!({"kube-assets/never-ready": "true"}));
    let mut sink = place.sink(|_| {});
    let job = place.job("web", 3);
    let job = Job { step: Some(pending(call(&mut sink, &job).answer)), ..job };
    place.cluster.kubectl(&["delete", "namespace", &place.namespace, "--wait=false"]);
    match settled(&mut sink, &job) {
        Answer::Failed(fault) => assert!(
            matches!(fault.code, Code::TargetNotFound | Code::TargetTerminating),
            "{fault:?}"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_run_gets_every_intent_once() {
    let Some(cluster) = real::Cluster::start(1) else { return };
    let names: Vec<String> = (0..12).map(|at| format!("web-{at}")).collect();
    for name in &names {
        cluster.kubectl(&["create", "deployment", name, "--image=any", "--replicas=1"]);
    }
    let site = crate::support::Site::with_config(&format!(
        "sink = [\"kubernetes\"]\n[sinks.kubernetes]\nkubeconfig = \"{}\"\ndelivered = \
         \"converged\"\ntimeout = \"3s\"\n",
        cluster.kubeconfig().display()
    ));
    let daemon = site.start();
    for (at, name) in names.iter().enumerate() {
        if at == 6 {
            site.wait_for_records(2);
            cluster.kill("kube-apiserver");
        }
        site.drop_file(&format!("intent-{name}.json"), &crate::support::scaling(name, 3));
    }
    cluster.revive("kube-apiserver");
    let records = site.wait_for_records(names.len());
    for record in &records {
        assert_eq!(record["outcome"], "delivered", "{record:#}");
    }
    let path =
        "jsonpath={range .items[*]}{.metadata.generation} {.status.readyReplicas}{\"\\n\"}{end}";
    let shown = cluster.kubectl(&["get", "deployments", "-o", path]);
    assert_eq!(shown.lines().collect::<Vec<_>>(), vec!["2 3"; names.len()], "each scaled once");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log:#?}");
}
