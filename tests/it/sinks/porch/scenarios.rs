//! One list over the fake Porch and over real ones, with either cache: what the client saw is
//! compared, for plain requests and for deliveries. Where they differ, the fake is wrong.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::*;
use crate::compose::skipped;
use crate::fake::client::{self, JSON, MERGE};
use crate::real;
use crate::support::Finished;

/// Ends Porch before its cluster when our end of its input closes, however this process dies.
const GUARD: &str = r#"cat >/dev/null; "$1" "$2"; rm -rf "$2""#;

/// A real Porch behind a real API server of its own.
struct RealPorch {
    cluster: real::Cluster,
    guard: Child,
}

impl RealPorch {
    fn start(cache: &str) -> Option<Self> {
        let Some(assets) = std::env::var_os("PORCH_ASSETS").map(PathBuf::from) else {
            skipped("no real Porch: set PORCH_ASSETS to a directory with porch and gitserver");
            return None;
        };
        if cache == "DB" && !has_postgresql() {
            skipped("no Porch with its SQL cache: that needs PostgreSQL");
            return None;
        }
        let (up, down) = (real::tool("porch/up")?, real::tool("porch/down")?);
        let cluster = real::Cluster::start(1)?;
        let dir = tempfile::tempdir().expect("a temporary directory").keep();
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(down).arg(&dir);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guard = guard.spawn().expect("sh is there");
        let mut command = Command::new(up);
        command.arg(&dir).arg(REPOSITORY).env("PORCH_ASSETS", assets).env("PORCH_CACHE", cache);
        command.env("KUBECONFIG", cluster.kubeconfig()).stdin(Stdio::null());
        let started = Finished::from(command.output().expect("bash is there"));
        assert_eq!(started.code, Some(0), "{}", started.stderr);
        Some(RealPorch { cluster, guard })
    }
}

impl Drop for RealPorch {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn has_postgresql() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin/initdb")).any(|initdb| initdb.is_file())
}

/// A server, and how a client gets there.
struct Side {
    url: String,
    kubeconfig: PathBuf,
}

impl Side {
    fn sink(&self, clusters: &Clusters, policy: PorchPolicy, edits: Option<&str>) -> Porch {
        let settings = PorchSettings {
            access: ClusterAccess { kubeconfig: Some(self.kubeconfig.clone()), context: None },
            namespace: "default".to_owned(),
            repository: REPOSITORY.to_owned(),
            policy,
            edit_package: edits.map(str::to_owned),
            kind: "Deployment".to_owned(),
            approval: None,
            timeout: Duration::from_secs(60),
        };
        Porch::new("porch".to_owned(), &settings, clusters).unwrap()
    }

    /// Sends each request in turn, and tells what came back.
    fn requests(&self) -> Vec<String> {
        let mut version = String::new();
        let mut seen = Vec::new();
        for (method, path, body) in list() {
            let path = format!("{BASE}/{path}");
            let asked = format!("{method} {path} {body}");
            let body = body.to_string().replace("$RV", &version);
            let kind = if method == "POST" { JSON } else { MERGE };
            let content = (method != "GET" && method != "DELETE").then_some((kind, body.as_str()));
            let answer = client::send(&self.url, method, &path, content).unwrap();
            let object = answer.json();
            if let Some(fresh) = object["metadata"]["resourceVersion"].as_str() {
                version = fresh.to_owned();
            }
            seen.push(format!("{asked} -> {}", told(answer.status, &object)));
        }
        seen
    }

    /// Delivers one after the other, by new sinks, and tells what was answered.
    fn deliveries(&self) -> Vec<String> {
        let clusters = Clusters::new().unwrap();
        let (draft, propose, approve) =
            (PorchPolicy::Draft, PorchPolicy::Propose, PorchPolicy::Approve);
        let steps = [
            (approve, None, numbered(1, "web", 3)),
            (approve, None, numbered(2, "web", 3)),
            (approve, None, numbered(3, "web", 4)),
            (draft, None, numbered(4, "web", 5)),
            (draft, None, numbered(5, "web", 5)),
            (propose, None, numbered(6, "web", 6)),
            (propose, None, numbered(7, "web", 6)),
            (propose, None, numbered(8, "web", 4)),
            (propose, None, numbered(9, "db", 2)),
            (approve, None, numbered(10, "db", 3)),
            (approve, None, numbered(11, "web", 7)),
            (approve, Some("scale-ran-a-web"), numbered(12, "web", 8)),
            (approve, Some("scale-ran-a-web"), numbered(13, "web", 8)),
            (approve, Some("scale-ran-a-web"), numbered(14, "db", 8)),
            (approve, Some("none"), numbered(15, "web", 8)),
        ];
        let mut seen = Vec::new();
        for (policy, edits, job) in steps {
            let mut sink = self.sink(&clusters, policy, edits);
            seen.push(match at_rest(&mut sink, &job) {
                Answer::Failed(fault) => format!("{} {}", fault.code, fault.message),
                done => confirmed(&done),
            });
        }
        seen
    }
}

/// The answer of a Repository that is not being looked through by Porch just now, as it is every ten
/// minutes: then it is not ready for a moment, and a delivery is tried again.
fn at_rest(sink: &mut Porch, job: &Job) -> Answer {
    let is_moment = |answer: &Answer| {
        matches!(answer, Answer::Failed(fault) if fault.code == Code::RepositoryNotReady
            && fault.message.ends_with("Repository reconciliation in progress"))
    };
    let mut answer = deliver_one(sink, job);
    crate::support::wait_until("a Repository at rest", || {
        if is_moment(&answer) {
            answer = deliver_one(sink, job);
        }
        !is_moment(&answer)
    });
    answer
}

const BASE: &str = "/apis/porch.kpt.dev/v1alpha1/namespaces/default";

/// What a client decides by, of an answer.
fn told(status: u16, object: &Value) -> String {
    let items = object["items"].as_array();
    if let Some(items) = items {
        let name = |item: &Value| item["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut names: Vec<String> = items.iter().map(name).collect();
        names.sort();
        return format!("{status} {}", names.join(" "));
    }
    if let Some(message) = object["message"].as_str() {
        return format!("{status} {} {message}", object["reason"].as_str().unwrap_or_default());
    }
    let files = object["spec"]["resources"].as_object();
    let files = files.map(|files| files.keys().cloned().collect::<Vec<_>>().join(" "));
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    format!(
        "{status} {} {} {} {} {} {}",
        metadata["name"],
        spec["lifecycle"],
        spec["revision"],
        metadata["labels"],
        metadata["annotations"],
        files.unwrap_or_default()
    )
}

/// The requests of a client, with right and wrong ones.
fn list() -> Vec<(&'static str, &'static str, Value)> {
    let revision = |workspace: &str, repository: &str, task: Value| {
        json!({"apiVersion": "porch.kpt.dev/v1alpha1", "kind": "PackageRevision",
            "metadata": {"labels": {"intentd/target": "t"}, "annotations": {"intentd/digest": "d"}},
            "spec": {"packageName": "p", "repository": repository, "workspaceName": workspace,
                "lifecycle": "Draft", "tasks": [task]}})
    };
    let init = || json!({"type": "init", "init": {"description": "x"}});
    let edit = |name: &str| json!({"type": "edit", "edit": {"sourceRef": {"name": name}}});
    let lifecycle = |version: &str, lifecycle: &str| json!({"metadata": {"resourceVersion": version}, "spec": {"lifecycle": lifecycle}});
    let files = |version: &str, path: &str, text: &str| json!({"metadata": {"resourceVersion": version}, "spec": {"resources": {path: text}}});
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n";
    let latest = "packagerevisions?labelSelector=kpt.dev/latest-revision%3Dtrue&fieldSelector=\
                  spec.repository%3Dpackages,spec.packageName%3Dp";
    let drafts = "packagerevisions?labelSelector=intentd/target%3Dt&fieldSelector=\
                  spec.repository%3Dpackages,spec.packageName%3Dp,spec.lifecycle%3DDraft";
    let numberless = "packagerevisions?labelSelector=intentd/target%3Dt&fieldSelector=\
                      spec.repository%3Dpackages,spec.packageName%3Dp,spec.revision%3D0";
    let all = "packagerevisions?fieldSelector=spec.repository%3Dpackages,spec.packageName%3Dp";
    let none = Value::Null;
    vec![
        ("GET", "packagerevisions/packages.p.one", none.clone()),
        ("GET", latest, none.clone()),
        ("GET", all, none.clone()),
        ("POST", "packagerevisions", revision("one", "packages", init())),
        ("POST", "packagerevisions", revision("one", "packages", init())),
        ("GET", drafts, none.clone()),
        ("GET", "packagerevisionresources/packages.p.one", none.clone()),
        ("PATCH", "packagerevisionresources/packages.p.one", files("stale", "a.yaml", map)),
        ("PATCH", "packagerevisionresources/packages.p.one", files("$RV", "a.yaml", map)),
        ("PATCH", "packagerevisionresources/packages.p.one", files("$RV", "bad.yaml", "a: b\n")),
        ("POST", "packagerevisions", revision("two", "packages", edit("packages.p.one"))),
        ("PATCH", "packagerevisions/packages.p.one/approval", lifecycle("$RV", "Published")),
        ("PATCH", "packagerevisions/packages.p.one", lifecycle("stale", "Proposed")),
        ("PATCH", "packagerevisions/packages.p.one", lifecycle("$RV", "Proposed")),
        ("PATCH", "packagerevisions/packages.p.one", lifecycle("$RV", "Draft")),
        ("PATCH", "packagerevisions/packages.p.one", lifecycle("$RV", "Proposed")),
        ("PATCH", "packagerevisionresources/packages.p.one", files("$RV", "b.yaml", map)),
        ("PATCH", "packagerevisions/packages.p.one/approval", lifecycle("stale", "Published")),
        ("PATCH", "packagerevisions/packages.p.one/approval", lifecycle("$RV", "Published")),
        ("GET", latest, none.clone()),
        ("GET", all, none.clone()),
        ("GET", "packagerevisions/packages.p.main", none.clone()),
        ("PATCH", "packagerevisions/packages.p.one/approval", lifecycle("$RV", "Published")),
        ("POST", "packagerevisions", revision("two", "packages", init())),
        ("POST", "packagerevisions", revision("two", "packages", edit("packages.p.none"))),
        ("POST", "packagerevisions", revision("two", "packages", edit("packages.p.one"))),
        ("GET", drafts, none.clone()),
        ("GET", all, none.clone()),
        ("GET", numberless, none.clone()),
        ("DELETE", "packagerevisions/packages.p.two", none.clone()),
        ("GET", "packagerevisions/packages.p.two", none.clone()),
        ("DELETE", "packagerevisions/packages.p.two", none.clone()),
        ("POST", "packagerevisions", revision("two", "packages", edit("packages.p.main"))),
        ("GET", "packagerevisions/nowhere.p.one", none.clone()),
        ("POST", "packagerevisions", revision("one", "nowhere", init())),
    ]
}

#[track_caller]
fn compare(what: &str, fake: &[String], real: &[String]) {
    let differing: Vec<String> = fake
        .iter()
        .zip(real)
        .filter(|(fake, real)| fake != real)
        .map(|(fake, real)| format!("fake: {fake}\nreal: {real}\n"))
        .collect();
    assert!(differing.is_empty(), "{what}:\n{}", differing.join("\n"));
    assert_eq!(fake.len(), real.len());
}

fn holds_against(cache: &str) {
    let Some(running) = RealPorch::start(cache) else { return };
    let bench = Bench::new();
    let fake = Side { url: bench.cluster.url(), kubeconfig: bench.cluster.kubeconfig() };
    let real =
        &Side { url: running.cluster.url().to_owned(), kubeconfig: running.cluster.kubeconfig() };
    compare("deliveries", &fake.deliveries(), &real.deliveries());
    compare("requests", &fake.requests(), &real.requests());
}

#[test]
fn the_fake_answers_as_porch_does_with_its_cache_of_objects() {
    holds_against("CR");
}

#[test]
fn the_fake_answers_as_porch_does_with_its_cache_in_sql() {
    holds_against("DB");
}
