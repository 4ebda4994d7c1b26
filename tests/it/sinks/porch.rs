//! The porch sink against the fake Porch, and the same scenarios against a real one.

mod crash;
mod editing;
mod hands;
mod meanwhile;
mod scenarios;
mod tables;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use intentd::config::{ClusterAccess, PorchPolicy, PorchSettings};
use intentd::model::{Code, Seq};
use intentd::sink::cluster::Clusters;
use intentd::sink::porch::{Error, Porch};
use intentd::sink::{Answer, Context, Delivery, Fatal, Fence, Retry, Sink, Step, Term, Waker};
use serde_json::json;

use super::{
    Fencing, Job, PATIENCE, Steps, Subject, deliver, done, failed, holds_the_contract, job,
};
use crate::fake::porch::{Mishap, Porch as Server};
use crate::fake::{Cluster, Fault, Wrong};

const REPOSITORY: &str = "packages";

/// A server with one Repository.
pub struct Bench {
    pub cluster: Cluster,
    pub porch: Server,
    clusters: Clusters,
}

impl Bench {
    pub fn new() -> Self {
        let (cluster, porch) = (Cluster::start(), Server::new(REPOSITORY));
        cluster.route(Box::new(porch.clone()));
        Bench { cluster, porch, clusters: Clusters::new().unwrap() }
    }

    pub fn settings(&self, policy: PorchPolicy) -> PorchSettings {
        PorchSettings {
            access: ClusterAccess { kubeconfig: Some(self.cluster.kubeconfig()), context: None },
            namespace: "default".to_owned(),
            repository: REPOSITORY.to_owned(),
            policy,
            edit_package: None,
            kind: "Deployment".to_owned(),
            approval: None,
            timeout: PATIENCE,
        }
    }

    pub fn sink(&self, settings: &PorchSettings) -> Porch {
        Porch::new("porch".to_owned(), settings, &self.clusters).unwrap()
    }

    /// A sink that publishes.
    pub fn approving(&self) -> Porch {
        self.sink(&self.settings(PorchPolicy::Approve))
    }

    /// Requests that were sent to Porch since the last question, without what stands before names.
    pub fn requests(&self) -> Vec<String> {
        let lines = self.cluster.request_lines();
        self.cluster.forget_requests();
        let short = |line: &String| {
            assert!(!line.contains("dryRun"), "Porch carries dry-runs out: {line}");
            line.replace("/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevision", "")
                .replace("/apis/config.porch.kpt.dev/v1alpha1/namespaces/default/", "")
        };
        lines.iter().map(short).collect()
    }
}

/// A job of that seq.
pub fn numbered(seq: u64, target: &str, replicas: u32) -> Job {
    Job { seq: Seq(seq), ..job(target, replicas) }
}

/// The same for a target for which another intent has ended at the sink.
pub fn later(seq: u64, target: &str, replicas: u32) -> Job {
    let last = Some(job(target, 1).package.digest);
    Job { last, ..numbered(seq, target, replicas) }
}

/// The one answer to one job.
pub fn deliver_one(sink: &mut dyn Sink, job: &Job) -> Answer {
    deliver(sink, &[job]).remove(0)
}

/// Name, lifecycle and number that the answer confirms.
#[track_caller]
pub fn confirmed(answer: &Answer) -> String {
    let confirmation = done(answer);
    let further = |name: &str| confirmation.further.get(name).map(ToString::to_string);
    let parts = [
        Some(confirmation.location.clone()),
        further("lifecycle").map(|it| it.trim_matches('"').to_owned()),
        further("revision"),
        confirmation.unchanged.then(|| "unchanged".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_contract_holds() {
    for policy in [PorchPolicy::Draft, PorchPolicy::Propose, PorchPolicy::Approve] {
        holds_the_contract("porch", || {
            let bench = std::rc::Rc::new(Bench::new());
            let sink = Box::new(bench.sink(&bench.settings(policy)));
            let (seen, held) = (std::rc::Rc::clone(&bench), bench);
            Subject {
                sink,
                visible: Box::new(move || seen.porch.revisions()),
                stall: Box::new(move || {
                    held.cluster.fail(Fault::new(Wrong::Blackhole).always());
                    Box::new(Healing(std::rc::Rc::clone(&held)))
                }),
            }
        });
    }
}

struct Healing(std::rc::Rc<Bench>);

impl std::fmt::Debug for Healing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Healing")
    }
}

impl Drop for Healing {
    fn drop(&mut self) {
        self.0.cluster.heal();
    }
}

#[test]
fn each_policy_takes_a_revision_as_far_as_it_says() {
    for (policy, lifecycle) in [
        (PorchPolicy::Draft, "Draft"),
        (PorchPolicy::Propose, "Proposed"),
        (PorchPolicy::Approve, "Published 1"),
    ] {
        let bench = Bench::new();
        let mut sink = bench.sink(&bench.settings(policy));
        let name = "packages.scale-ran-a-web.i-3-e3b0c442";
        let answer = deliver_one(&mut sink, &job("web", 3));
        assert_eq!(confirmed(&answer), format!("{name} {lifecycle}"));
        assert_eq!(bench.porch.revisions(), [format!("{name} {lifecycle}")]);
        for file in &job("web", 3).package.files {
            assert_eq!(bench.porch.file(name, file.name).as_ref(), Some(&file.text));
        }
        assert!(bench.porch.file(name, "README.md").is_some(), "what Porch put there stays");
        let again = deliver_one(&mut sink, &numbered(4, "web", 3));
        assert_eq!(confirmed(&again), format!("{name} {lifecycle} unchanged"));
        assert_eq!(bench.porch.revisions().len(), 1, "the same makes no revision");
    }
}

#[test]
fn a_cycle_takes_no_more_requests_than_it_needs() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    let (old, new) =
        ("packages.scale-ran-a-web.i-1-e3b0c442", "packages.scale-ran-a-web.i-2-e3b0c442");
    assert_eq!(
        bench.requests(),
        [
            "GET repositories/packages".to_owned(),
            "GET s?fieldSelector=spec.repository=packages,spec.packageName=scale-ran-a-web"
                .to_owned(),
            "POST s".to_owned(),
            format!("PATCH resources/{old}"),
            format!("PATCH s/{old}"),
            "GET s?labelSelector=kpt.dev/latest-revision=true&fieldSelector=spec.repository=packages,\
             spec.packageName=scale-ran-a-web"
                .to_owned(),
            format!("PATCH s/{old}/approval"),
        ],
        "nothing can have been published before a creation that was not refused"
    );
    done(&deliver_one(&mut sink, &later(2, "web", 4)));
    let mut requests = bench.requests();
    // The two go at once.
    requests[3..5].sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(
        requests,
        [
            "GET s?labelSelector=kpt.dev/latest-revision=true&fieldSelector=spec.repository=packages,\
             spec.packageName=scale-ran-a-web"
                .to_owned(),
            format!("GET resources/{old}"),
            "POST s".to_owned(),
            format!("PATCH resources/{new}"),
            format!("GET s/{old}"),
            format!("PATCH s/{new}"),
            format!("GET s/{old}"),
            format!("PATCH s/{new}/approval"),
        ]
    );
}

#[test]
fn an_earlier_proposal_of_ours_is_superseded_and_others_are_left() {
    let bench = Bench::new();
    let mut sink = bench.sink(&bench.settings(PorchPolicy::Propose));
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    done(&deliver_one(&mut sink, &numbered(2, "other", 3)));
    let answer = deliver_one(&mut sink, &numbered(3, "web", 5));
    assert_eq!(confirmed(&answer), "packages.scale-ran-a-web.i-3-e3b0c442 Proposed");
    assert_eq!(
        bench.porch.revisions(),
        [
            "packages.scale-ran-a-other.i-2-e3b0c442 Proposed",
            "packages.scale-ran-a-web.i-3-e3b0c442 Proposed",
        ]
    );
}

#[test]
fn going_back_to_what_is_published_takes_the_proposal_back() {
    let bench = Bench::new();
    let mut approve = bench.approving();
    done(&deliver_one(&mut approve, &numbered(1, "web", 3)));
    let mut propose = bench.sink(&bench.settings(PorchPolicy::Propose));
    done(&deliver_one(&mut propose, &numbered(2, "web", 5)));
    let answer = deliver_one(&mut propose, &numbered(3, "web", 3));
    let published = "packages.scale-ran-a-web.i-1-e3b0c442 Published 1";
    assert_eq!(confirmed(&answer), published, "something was removed: not unchanged");
    assert_eq!(bench.porch.revisions(), [published]);
}

#[test]
fn nephios_annotation_comes_with_the_right_files() {
    for policy in [PorchPolicy::Draft, PorchPolicy::Propose] {
        let bench = Bench::new();
        let approval = Some("always".to_owned());
        let mut sink = bench.sink(&PorchSettings { approval, ..bench.settings(policy) });
        done(&deliver_one(&mut sink, &job("web", 3)));
        let annotated: Vec<String> = bench
            .cluster
            .requests()
            .iter()
            .filter(|request| request.text().contains("approval.nephio.org/policy"))
            .map(|request| request.text())
            .collect();
        let [body] = &annotated[..] else { panic!("{annotated:?}") };
        assert_eq!(body.contains("Proposed"), policy == PorchPolicy::Propose, "{body}");
    }
}

#[test]
fn files_of_others_are_kept_and_a_package_of_others_is_refused() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    bench.porch.set_file("packages.scale-ran-a-web.i-1-e3b0c442", "notes.txt", "mine\n");
    done(&deliver_one(&mut sink, &numbered(2, "web", 4)));
    let kept = bench.porch.file("packages.scale-ran-a-web.i-2-e3b0c442", "notes.txt");
    assert_eq!(kept.as_deref(), Some("mine\n"));

    bench.porch.publish(REPOSITORY, "scale-ran-a-db", &[("Kptfile", "kind: Kptfile\n")]);
    let answer = deliver_one(&mut sink, &numbered(3, "db", 4));
    assert_eq!(
        failed(&answer, Code::PackageConflict, Retry::Never),
        "package `scale-ran-a-db` is there already and has no intent.yaml; move it away, then retry"
    );
}

#[test]
fn a_setting_that_cannot_be_meant_so_is_refused() {
    let bench = Bench::new();
    let settings = bench.settings(PorchPolicy::Approve);
    let refused = |settings: PorchSettings| {
        Porch::new("porch".to_owned(), &settings, &bench.clusters).unwrap_err()
    };
    let wrong = PorchSettings { repository: "a/../b".to_owned(), ..settings.clone() };
    assert!(matches!(refused(wrong), Error::Label { key: "repository" }));
    let wrong = PorchSettings { namespace: "A".to_owned(), ..settings.clone() };
    assert!(matches!(refused(wrong), Error::Label { key: "namespace" }));
    let wrong = PorchSettings { edit_package: Some("a//b".to_owned()), ..settings };
    assert!(matches!(refused(wrong), Error::Package));
}

#[test]
fn two_sinks_of_one_repository_take_turns_and_those_of_two_do_not() {
    let bench = Bench::new();
    bench.porch.repository("edge", None, json!({}));
    let settings = bench.settings(PorchPolicy::Approve);
    let edge = PorchSettings { repository: "edge".to_owned(), ..settings.clone() };
    // The first one's creation is never answered; whoever shares its Repository has to wait for it.
    let hole = Fault::new(Wrong::Blackhole).on("POST");
    bench.cluster.fail(hole);
    let stuck = AtomicBool::new(true);
    let (mut first, mut second, mut other) =
        (bench.sink(&settings), bench.sink(&settings), bench.sink(&edge));
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let due = Instant::now() + Duration::from_secs(3);
            let answers =
                super::deliver_by(&mut first, &[&numbered(1, "a", 3)], &Fencing::holds(), due);
            stuck.store(false, Ordering::SeqCst);
            answers.unwrap().remove(0)
        });
        bench.cluster.wait_for_requests("the creation", |requests| {
            requests.iter().any(|request| request.method == "POST")
        });
        done(&deliver_one(&mut other, &numbered(2, "b", 3)));
        assert!(stuck.load(Ordering::SeqCst), "another Repository does not wait");
        done(&deliver_one(&mut second, &numbered(3, "c", 3)));
        assert!(!stuck.load(Ordering::SeqCst), "the same one does");
        assert!(matches!(slow.join().unwrap(), Answer::Failed(_)));
    });
}
