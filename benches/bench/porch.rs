//! Making package revisions in a real Porch, beside a script that sends the requests of a cycle and
//! nothing else: create, write the files, propose, and approve where the policy says so.
//!
//! Each round is a cycle for each of some new packages, by either in turn in a new Repository: Porch is
//! slower the more revisions one has. Shown is the round with the middle ratio. `PORCH_CACHE=DB` measures
//! on Porch's SQL cache instead of the cache of objects.

use std::ffi::OsStr;
use std::fs;
use std::ops::Range;
use std::process::Stdio;
use std::time::{Duration, Instant};

use intentd::compose::{self, Package};
use intentd::schema::{Policy, Schema};
use serde_json::{Map, Value, json};

use crate::Scale;
use crate::ground::{Ground, Medium};
use crate::server::{ApiServer, Servers, used};
use crate::site::{Site, file_name};
use crate::table::{Goal, Row};
use crate::wire::Wire;

const REVISIONS: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisions";
const RESOURCES: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisionresources";

/// How far revisions are taken.
struct Way {
    /// Of the sink.
    policy: &'static str,
    lifecycle: &'static str,
    /// Cycles of a round.
    count: usize,
}

impl Way {
    /// The Repository of that round.
    fn repository(&self, round: usize) -> String {
        format!("{}-{round}", self.policy)
    }
}

fn ways(scale: Scale) -> [Way; 2] {
    [
        Way { policy: "propose", lifecycle: "Proposed", count: scale.of(1, 20, 30) },
        // Porch takes several times as long for these.
        Way { policy: "approve", lifecycle: "Published", count: scale.of(1, 8, 16) },
    ]
}

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke {
        return Vec::new();
    }
    let ways = ways(scale);
    let rounds = scale.of(1, 3, 3);
    let Some(bench) = Bench::start(&ways, rounds) else { return Vec::new() };
    let intents = rounds * ways.iter().map(|way| way.count).sum::<usize>();
    let ground = Ground::new(Medium::disk(scale), 16 * intents);
    ways.iter().flat_map(|way| bench.compare(way, rounds, &ground)).collect()
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

impl Round {
    fn ratio(&self) -> f64 {
        self.ours / self.reference
    }
}

impl Bench {
    fn start(ways: &[Way; 2], rounds: usize) -> Option<Self> {
        let server = ApiServer::start()?;
        let kubeconfig = server.servers.path("kubeconfig");
        let variables = [("KUBECONFIG", kubeconfig.as_os_str())];
        let of = |way: &Way| (0..rounds).map(|round| way.repository(round)).collect::<Vec<_>>();
        let repositories = ways.iter().flat_map(of);
        let porch = Servers::start("porch", "PORCH_ASSETS", repositories, &variables)?;
        let cache = std::env::var_os("PORCH_CACHE").unwrap_or_else(|| OsStr::new("CR").to_owned());
        Some(Bench { porch, server, cache: cache.to_string_lossy().into_owned() })
    }

    fn compare(&self, way: &Way, rounds: usize, ground: &Ground) -> [Row; 2] {
        let mut all: Vec<Round> = (0..rounds).map(|round| self.round(way, round, ground)).collect();
        all.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let middle = &all[rounds / 2];
        let what = format!("{} new packages to {}, cache {}", way.count, way.lifecycle, self.cache);
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

    /// Half of the script goes before ours and half after, since a Repository is slower the more
    /// revisions it has.
    fn round(&self, way: &Way, number: usize, ground: &Ground) -> Round {
        let half = way.count / 2;
        let mut spent = self.script(way, number, 0..half);
        let site = Site::new(&ground.path().join(format!("{}-{number}", way.policy)));
        let before = (used().1, self.used());
        let ours = self.drain(&site, way, number);
        let share = (used().1 - before.0) / (self.used() - before.1);
        spent += self.script(way, number, half..way.count);
        let reference = way.count as f64 / spent.as_secs_f64();
        let round = Round { ours, reference, share };
        eprintln!(
            "  {}: {ours:.2} and {reference:.2} cycles/s, ratio {:.2}",
            way.policy,
            round.ratio()
        );
        round
    }

    fn used(&self) -> f64 {
        self.server.servers.used() + self.porch.used()
    }

    /// Takes a package each as far with bare requests.
    fn script(&self, way: &Way, round: usize, indices: Range<usize>) -> Duration {
        let package = |index| package(&target("raw", round, index));
        let packages: Vec<Package> = indices.map(package).collect();
        let started = Instant::now();
        let mut wire = self.server.connect();
        for package in &packages {
            cycle(&mut wire, &way.repository(round), way.lifecycle, package);
        }
        started.elapsed()
    }

    /// Takes a package each as far with the real binary; cycles a second.
    fn drain(&self, site: &Site, way: &Way, round: usize) -> f64 {
        let (kubeconfig, repository) = (self.server.kubeconfig(), way.repository(round));
        let settings = format!(
            "[sinks.porch]\nkubeconfig = \"{}\"\nrepository = \"{repository}\"\npolicy = \"{}\"\n",
            kubeconfig.display(),
            way.policy
        );
        fs::write(site.root.join("intentd.toml"), settings).expect("a file");
        for index in 0..way.count {
            let text = document(&target("web", round, index));
            fs::write(site.root.join("inbox").join(file_name(index)), text).expect("a file");
        }
        rustix::fs::sync();
        let mut command = site.command(&[], &["batch", "--quiet", "--sink", "porch"]);
        let started = Instant::now();
        let status = command.stdout(Stdio::null()).status();
        let taken = started.elapsed();
        assert!(status.is_ok_and(|status| status.success()), "every intent is delivered");
        self.assert_reached(way, round);
        way.count as f64 / taken.as_secs_f64()
    }

    /// What the receipts say is what Porch shows.
    fn assert_reached(&self, way: &Way, round: usize) {
        let path = format!(
            "{REVISIONS}?fieldSelector=spec.repository%3D{},spec.lifecycle%3D{}",
            way.repository(round),
            way.lifecycle
        );
        let listed = self.server.connect().must("GET", &path, &Value::Null);
        let revisions = listed["items"].as_array().expect("a list").iter();
        let text = |revision: &Value, key| revision["spec"][key].as_str().unwrap_or("").to_owned();
        let names: Vec<String> = revisions
            // `i-<seq>-<ledger>`: with a fourth part it is what was made after Porch had lost another.
            .filter(|it| matches!(text(it, "workspaceName").split('-').count(), 3))
            .map(|it| text(it, "packageName"))
            .collect();
        for index in 0..way.count {
            let package = package(&target("web", round, index));
            assert!(names.contains(&package.name), "{} is {}", package.name, way.lifecycle);
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
fn cycle(wire: &mut Wire, repository: &str, lifecycle: &str, package: &Package) {
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
