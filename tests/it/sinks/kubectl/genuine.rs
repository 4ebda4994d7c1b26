//! What only the real kubectl and a real API server can show.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use intentd::config::{Confirmed, HpaRule, KubectlSettings};
use intentd::model::Code;
use intentd::sink::kubectl::{Kubectl, compare};
use intentd::sink::{Answer, Comparison, Context, Retry, Sink, Waker};
use serde_json::json;

use super::super::settle;
use super::fake::settings;
use super::{Fencing, PATIENCE, Steps, deliver, done, failed, job_in};
use crate::real::{self, Cluster};
use crate::support::wait_until;

fn genuine(cluster: &Cluster, kubeconfig: PathBuf) -> KubectlSettings {
    let mut settings = settings(&cluster.command(&[]).get_program().to_string_lossy());
    settings.access.kubeconfig = Some(kubeconfig);
    settings.delivered = Confirmed::Converged;
    settings
}

fn sink(settings: &KubectlSettings) -> Kubectl {
    Kubectl::new("kubectl".to_owned(), settings, None).unwrap()
}

/// A deployment whose pods take some time.
fn slow_deployment(cluster: &Cluster, namespace: &str, name: &str, ready_after: &str) {
    let manifest = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {
                    "labels": {"app": name},
                    "annotations": {"kube-assets/ready-after": ready_after},
                },
                "spec": {"containers": [{"name": "main", "image": "any"}]},
            },
        },
    });
    cluster.apply(&manifest.to_string());
    let (target, namespace) = (format!("deployment/{name}"), format!("-n{namespace}"));
    cluster.kubectl(&["rollout", "status", &target, &namespace, "--timeout=60s"]);
}

#[test]
fn a_real_rollout_wakes_whoever_waits_for_it() {
    let Some(cluster) = real::shared() else { return };
    let namespace = cluster.namespace();
    slow_deployment(cluster, &namespace, "slow", "2s");
    let mut sink = sink(&genuine(cluster, cluster.kubeconfig()));
    let (woken, wakes) = bounded(8);
    let waker: Waker = Arc::new(move |seq| woken.send(seq).unwrap());
    let (journal, fence) = (Steps::default(), Fencing::holds());
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let mut job = job_in(&namespace, "slow", 3);
    let answer = sink.deliver(&[job.delivery()], &context).unwrap().remove(0);
    let Answer::Pending { step, again } = answer else { panic!("{answer:?}") };
    assert_eq!(again, Duration::from_secs(30));
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(job.seq));
    job.step = Some(step);
    let answers = deliver(&mut sink, &[&job]);
    assert!(done(&answers[0]).further.contains_key("converged_at"), "{answers:?}");
}

/// The manifest of the README, for another namespace.
fn rights(namespace: &str, hpa: bool) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let manifests = readme.split("```yaml\n").skip(1).filter_map(|part| part.split("```").next());
    let ours: Vec<&str> = manifests.filter(|it| it.contains("name: intentd-kubectl\n")).collect();
    let [manifest] = ours[..] else { panic!("the README has one manifest for this sink") };
    let verbs = if hpa { "verbs: [list, get, patch]" } else { "verbs: [list] " };
    manifest.replace("ran-a", namespace).replace("verbs: [list] ", verbs)
}

#[test]
fn the_rights_that_the_readme_names_are_enough_and_no_more_and_may_come_and_go() {
    let Some(cluster) = real::shared() else { return };
    let namespace = cluster.namespace();
    let in_namespace = format!("-n{namespace}");
    slow_deployment(cluster, &namespace, "web", "0s");
    cluster.kubectl(&["create", "serviceaccount", "intentd", &in_namespace]);
    cluster.apply(&rights(&namespace, false));
    let bind = || {
        let account = format!("--serviceaccount={namespace}:intentd");
        let role = "--role=intentd-kubectl";
        cluster.kubectl(&["create", "rolebinding", "ours", role, &account, &in_namespace]);
    };
    bind();
    let token = cluster.kubectl(&["create", "token", "intentd", &in_namespace]);
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let of_administrator = fs::read_to_string(cluster.token_kubeconfig()).unwrap();
    let (before, after) = of_administrator.split_once("token: ").unwrap();
    let after = after.split_once('\n').map_or("", |(_, after)| after);
    fs::write(&kubeconfig, format!("{before}token: {}\n{after}", token.trim())).unwrap();
    fs::set_permissions(&kubeconfig, fs::Permissions::from_mode(0o600)).unwrap();
    let mut settings = genuine(cluster, kubeconfig.clone());

    let option = format!("--kubeconfig={}", kubeconfig.display());
    let may = || cluster.kubectl(&[&option, "auth", "can-i", "--list", &in_namespace]);
    wait_until("the rights to hold", || may().contains("deployments.apps/scale"));
    let listed = may();
    let mut given: Vec<String> = listed
        .lines()
        .filter(|line| line.contains(".apps") || line.contains(".autoscaling"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    given.sort();
    assert_eq!(
        given,
        [
            "deployments.apps [] [] [get watch]",
            "deployments.apps/scale [] [] [get update]",
            "horizontalpodautoscalers.autoscaling [] [] [list]",
        ]
    );
    let mut sink = sink(&settings);
    sink.probe().unwrap();
    let wanted = job_in(&namespace, "web", 3);
    assert!(matches!(compare(&settings, &wanted.intent), Ok(Comparison::Different(_))));
    done(&settle(&mut sink, &[&wanted])[0]);
    let elsewhere = job_in("default", "web", 3);
    failed(&deliver(&mut sink, &[&elsewhere])[0], Code::Forbidden, Retry::Later);

    cluster.kubectl(&["delete", "rolebinding", "ours", &in_namespace]);
    wait_until("the rights to be gone", || !may().contains("deployments.apps/scale"));
    let message = failed(
        &deliver(&mut sink, &[&job_in(&namespace, "web", 4)])[0],
        Code::Forbidden,
        Retry::Later,
    );
    assert!(message.contains("cannot get resource \"deployments\""), "{message}");
    assert!(!message.contains(token.trim()), "the token is in no message");
    bind();
    wait_until("the rights to be back", || may().contains("deployments.apps/scale"));
    done(&settle(&mut sink, &[&job_in(&namespace, "web", 4)])[0]);

    cluster.apply(&rights(&namespace, true));
    wait_until("the right to patch", || may().contains("[list get patch]"));
    cluster.kubectl(&["autoscale", "deployment", "web", "--min=1", "--max=9", &in_namespace]);
    settings.hpa = HpaRule::Floor;
    let mut flooring = Kubectl::new("kubectl".to_owned(), &settings, None).unwrap();
    done(&settle(&mut flooring, &[&job_in(&namespace, "web", 6)])[0]);
    let path = "-ojsonpath={.spec.replicas}";
    assert_eq!(cluster.kubectl(&["get", "deployment", "web", &in_namespace, path]), "6");
}
