//! Sends a list of requests to both servers, and holds the answers against what is recorded.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::seen::{Known, Seen};
use super::super::{Cluster, client, rules};
use super::steps::Step;
use crate::real;
use crate::support::wait_until;

/// Who asks where rights are tried; both servers know it by this name.
const USER: &str = rules::USER;

/// Set, with a real server at hand, to write down anew what it answers.
const RECORD: &str = "INTENTD_RECORD";

/// A server and what is needed to compare it.
pub struct Side<'a> {
    pub url: &'a str,
    pub known: Known,
}

impl<'a> Side<'a> {
    pub fn new(url: &'a str, namespace: &str) -> Self {
        Side { url, known: Known::new(namespace) }
    }

    fn run(&mut self, steps: &[Step]) -> Vec<Seen> {
        steps.iter().map(|step| self.send(step)).collect()
    }

    pub fn send(&mut self, step: &Step) -> Seen {
        if !step.settled.is_empty() {
            self.wait_for_rollout(step.settled);
        }
        let path = self.known.fill(&step.path);
        let body = step.body.as_ref().map(|(kind, body)| (*kind, self.known.fill(body)));
        let body = body.as_ref().map(|(kind, body)| (*kind, body.as_str()));
        let user = if step.ordinary { &[("Impersonate-User", USER)][..] } else { &[] };
        let answer = client::send_with(self.url, step.method, &path, body, user)
            .unwrap_or_else(|error| panic!("{} {path}: {error}", step.method));
        self.known.see(&answer)
    }

    /// Until the controllers have nothing left to do for it.
    pub fn wait_for_rollout(&self, workload: &str) {
        let path = format!("/apis/apps/v1/namespaces/{}/{workload}", self.known.namespace);
        wait_until("a finished rollout", || {
            let object = client::get(self.url, &path).unwrap().json();
            let (spec, status) = (&object["spec"], &object["status"]);
            let replicas = spec["replicas"].as_i64().unwrap_or(0);
            let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
            let all = counts.iter().all(|it| status[*it].as_i64().unwrap_or(0) == replicas);
            let left = status["terminatingReplicas"].as_i64().unwrap_or(0);
            status["observedGeneration"] == object["metadata"]["generation"] && all && left == 0
        });
    }
}

/// A real server and a namespace on it, where there is one.
pub type Real<'a> = Option<(&'a real::Cluster, &'a str)>;

/// Sends a list to the fake, which has to answer what a real server of the version that it plays
/// has answered when it was recorded, and to the real server where there is one: it still does.
#[track_caller]
pub fn compare(name: &str, fake: &Cluster, real: Real, steps: &[Step]) {
    fake.namespace("it");
    let ours = Side::new(&fake.url(), "it").run(steps);
    // Some of the requests are wrong on purpose.
    fake.take_violations();
    let mut recorded = read(name);
    if let Some((real, namespace)) = real {
        let theirs = Side::new(real.url(), namespace).run(steps);
        if std::env::var_os(RECORD).is_some() {
            write(name, steps, &theirs);
            recorded = read(name);
        }
        let theirs = lines(steps, &theirs);
        assert_same(&recorded, &theirs, "recorded", "real");
    }
    assert_same(&lines(steps, &ours), &recorded, "fake", "recorded");
}

fn lines(steps: &[Step], seen: &[Seen]) -> Vec<Value> {
    let line = |(step, seen): (&Step, &Seen)| {
        let Step { method, path, body, .. } = step;
        let body = body.as_ref().map_or("", |(_, body)| body);
        json!({
            "asked": format!("{method} {path} {body}"), "status": seen.status,
            "type": seen.content_type, "body": seen.body,
        })
    };
    steps.iter().zip(seen).map(line).collect()
}

#[track_caller]
fn assert_same(left: &[Value], right: &[Value], its_name: &str, other_name: &str) {
    let mut differences = String::new();
    let none = Value::Null;
    for at in 0..left.len().max(right.len()) {
        let (left, right) = (left.get(at).unwrap_or(&none), right.get(at).unwrap_or(&none));
        if left != right {
            differences += &format!("\nstep {at}\n{its_name} {left}\n{other_name} {right}\n");
        }
    }
    assert!(differences.is_empty(), "{its_name} and {other_name} answers differ:\n{differences}");
}

fn path(name: &str) -> PathBuf {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake/recorded");
    recorded.join(format!("{name}.jsonl"))
}

fn read(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path(name)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write(name: &str, steps: &[Step], seen: &[Seen]) {
    let text: String = lines(steps, seen).iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(path(name), text).unwrap();
}
