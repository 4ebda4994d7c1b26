//! Making package revisions in a real Porch, beside a script that sends the requests of a cycle and
//! nothing else: create, write the files, propose, and approve where the policy says so.
//!
//! Each round is a cycle for each of some new packages of one Repository, by either in turn; shown is
//! the round with the middle ratio. `PORCH_CACHE=DB` measures on Porch's SQL cache instead of the
//! cache of objects.

use std::ffi::OsStr;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use intentd::compose::{self, Package};
use intentd::schema::{Policy, Schema};
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::ground::{Ground, Medium};
use crate::server::{ApiServer, Servers, children};
use crate::site::{Site, file_name};
use crate::table::{Goal, Row};
use crate::wire::Wire;

const REVISIONS: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisions";
const RESOURCES: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisionresources";

/// A policy of the sink, and the lifecycle in which it leaves a revision.
const POLICIES: [(&str, &str); 2] = [("propose", "Proposed"), ("approve", "Published")];

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke {
        return Vec::new();
    }
    let Some(bench) = Bench::start() else { return Vec::new() };
    let (count, rounds) = (scale.of(1, 10, 30), scale.of(1, 3, 5));
    let ground = Ground::new(Medium::disk(scale), 16 * count * rounds);
    POLICIES.into_iter().flat_map(|policy| bench.compare(policy, count, rounds, &ground)).collect()
}

struct Bench {
    porch: Servers,
    server: ApiServer,
    cache: String,
}

/// What one round has shown.
struct Round {
    ours: f64,
    reference: f64,
    /// Our processor time, of the servers'.
    share: f64,
}

impl Bench {
    fn start() -> Option<Self> {
        let server = ApiServer::start()?;
        let kubeconfig = server.kubeconfig();
        let variables = [("KUBECONFIG", kubeconfig.as_os_str())];
        let repositories = POLICIES.map(|(policy, _)| policy);
        let porch = Servers::start("porch", "PORCH_ASSETS", &repositories, &variables)?;
        let cache = std::env::var_os("PORCH_CACHE").unwrap_or_else(|| OsStr::new("CR").to_owned());
        Some(Bench { porch, server, cache: cache.to_string_lossy().into_owned() })
    }

    fn compare(
        &self,
        (policy, lifecycle): (&str, &str),
        count: usize,
        rounds: usize,
        ground: &Ground,
    ) -> [Row; 2] {
        let round = |round: usize| {
            // Porch is slower the more revisions there are: who goes first changes.
            let mut reference = 0.0;
            if round % 2 == 0 {
                reference = self.script(policy, lifecycle, count, round);
            }
            let site = Site::new(&ground.path().join(format!("{policy}-{round}")));
            let before = (children(), self.used());
            let ours = self.drain(&site, policy, lifecycle, count, round);
            let share = (children() - before.0) / (self.used() - before.1);
            if round % 2 != 0 {
                reference = self.script(policy, lifecycle, count, round);
            }
            Round { ours, reference, share }
        };
        let mut all: Vec<Round> = (0..rounds).map(round).collect();
        all.sort_by(|a, b| (a.ours / a.reference).total_cmp(&(b.ours / b.reference)));
        let middle = &all[rounds / 2];
        let what = format!("{count} new packages to {lifecycle}, cache {}", self.cache);
        [
            Row {
                name: what.clone(),
                unit: "cycles/s",
                ours: middle.ours,
                reference: Some((middle.reference, "the writes alone")),
                goal: Goal::Least(0.9),
            },
            Row {
                name: format!("{what}, processor time, of the servers'"),
                unit: "x",
                ours: middle.share,
                reference: None,
                goal: Goal::Value(0.1),
            },
        ]
    }

    fn used(&self) -> f64 {
        self.server.servers.used() + self.porch.used()
    }

    /// Takes a package each as far with bare requests; cycles a second.
    fn script(&self, repository: &str, lifecycle: &str, count: usize, round: usize) -> f64 {
        let packages: Vec<Package> =
            (0..count).map(|at| package(&target("raw", round, at))).collect();
        let started = Instant::now();
        let mut wire = self.server.connect();
        for package in &packages {
            cycle(&mut wire, repository, package, lifecycle);
        }
        count as f64 / started.elapsed().as_secs_f64()
    }

    /// Takes a package each as far with the real binary; cycles a second.
    fn drain(&self, site: &Site, policy: &str, lifecycle: &str, count: usize, round: usize) -> f64 {
        let kubeconfig = self.server.kubeconfig();
        let settings = format!(
            "[sinks.porch]\nkubeconfig = \"{}\"\nrepository = \"{policy}\"\npolicy = \"{policy}\"\n",
            kubeconfig.display()
        );
        fs::write(site.root.join("intentd.toml"), settings).expect("a file");
        for index in 0..count {
            let text = document(&target("web", round, index));
            fs::write(site.root.join("inbox").join(file_name(index)), text).expect("a file");
        }
        rustix::fs::sync();
        let mut command = site.command(&[], &["batch", "--quiet", "--sink", "porch"]);
        let started = Instant::now();
        let status = command.stdout(Stdio::null()).status();
        let taken = started.elapsed();
        assert!(status.is_ok_and(|status| status.success()), "every intent is delivered");
        self.assert_reached(policy, lifecycle, count, round);
        count as f64 / taken.as_secs_f64()
    }

    /// What the receipts say is what Porch shows.
    fn assert_reached(&self, repository: &str, lifecycle: &str, count: usize, round: usize) {
        let path = format!(
            "{REVISIONS}?fieldSelector=spec.repository%3D{repository},spec.lifecycle%3D{lifecycle}"
        );
        let listed = self.server.connect().must("GET", &path, &Value::Null);
        let names: Vec<&str> = listed["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|revision| revision["spec"]["packageName"].as_str())
            .collect();
        for index in 0..count {
            let package = package(&target("web", round, index));
            assert!(names.contains(&package.name.as_str()), "{} is {lifecycle}", package.name);
        }
    }
}

/// A target that nobody has had before.
fn target(whose: &str, round: usize, index: usize) -> String {
    format!("{whose}-{round}-{index}")
}

fn document(target: &str) -> String {
    let document = json!({
        "intent_type": "scaling", "target": target, "namespace": "ran-a", "replicas": 3,
    });
    document.to_string()
}

/// What the sink writes for that target.
fn package(target: &str) -> Package {
    let intent = Schema::builtin().judge(document(target).as_bytes(), &Policy::default());
    let settings = compose::Settings { deployment_image: None, deployment_template: None };
    compose::compose(&intent.expect("it is right"), &settings).expect("it can be composed")
}

/// The writes of one delivery: each on the condition of what the one before has answered.
fn cycle(wire: &mut Wire, repository: &str, package: &Package, lifecycle: &str) {
    let creation = json!({
        "apiVersion": "porch.kpt.dev/v1alpha1",
        "kind": "PackageRevision",
        "metadata": {
            "labels": {"bench/target": "0123456789abcdef"},
            "annotations": {"bench/intent": "1@0123456789", "bench/digest": package.digest.to_string()},
        },
        "spec": {
            "packageName": package.name, "repository": repository, "workspaceName": "i-1",
            "lifecycle": "Draft", "tasks": [{"type": "init", "init": {"description": "Scale"}}],
        },
    });
    let created = wire.must("POST", REVISIONS, &creation);
    let name = created["metadata"]["name"].as_str().expect("a name");
    let files: Map<String, Value> = package
        .files
        .iter()
        .map(|file| (file.name.to_owned(), Value::from(file.text.as_str())))
        .collect();
    let on = |answer: &Value, spec: Value| {
        let version = &answer["metadata"]["resourceVersion"];
        json!({"metadata": {"resourceVersion": version}, "spec": spec})
    };
    let write = on(&created, json!({"resources": files}));
    let written = wire.must("PATCH", &format!("{RESOURCES}/{name}"), &write);
    let propose = on(&written, json!({"lifecycle": "Proposed"}));
    let mut last = wire.must("PATCH", &format!("{REVISIONS}/{name}"), &propose);
    if lifecycle == "Published" {
        let approve = on(&last, json!({"lifecycle": "Published"}));
        last = wire.must("PATCH", &format!("{REVISIONS}/{name}/approval"), &approve);
    }
    assert_eq!(last["spec"]["lifecycle"], lifecycle, "{last}");
}
