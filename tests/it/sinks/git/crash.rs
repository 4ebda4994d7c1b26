//! The daemon is killed in the middle of a push, and started again.

use std::fs;

use serde_json::Value;

use super::{Bench, git, git_is_missing};
use crate::support::{Site, scaling, wait_until};

/// Kills the daemon while this hook of the remote holds the push, and starts it again.
#[track_caller]
fn killed_in(hook: &str, others_go_on: bool) {
    let bench = Bench::with(&[("theirs", "x\n")]);
    let (entered, go) = (bench.path("entered"), bench.path("go"));
    bench.hook(
        hook,
        &format!(
            "touch '{}'; while [ ! -e '{}' ]; do sleep 0.02; done",
            entered.display(),
            go.display()
        ),
    );
    let remote = format!("file://{}", bench.remote().display());
    let site =
        Site::with_config(&format!("sink = [\"git\"]\n[sinks.git]\nremote = \"{remote}\"\n"));
    let daemon = site.start();
    site.drop_file("intent-a.json", &scaling("a", 3));
    wait_until("the hook to run", || entered.exists());
    daemon.kill();
    fs::write(&go, "").unwrap();
    if others_go_on {
        bench.commit("Theirs", &[("scale-default-a/deployment.yaml", "theirs\n")]);
    }

    let daemon = site.start();
    let records = site.wait_for_records(1);
    let receipt = &records[0]["receipts"][0];
    assert_eq!(records[0]["outcome"], "delivered", "{records:?}");
    assert_eq!(receipt["branch"], "main");
    let ids =
        git(&bench.remote(), &["log", "--format=%H %(trailers:key=Intent-Id,valueonly)", "main"]);
    let ours: Vec<&str> = ids.lines().filter(|line| line.contains(" 1@")).collect();
    assert_eq!(ours.len(), 1, "one commit: {ids}");
    let (commit, id) = ours[0].split_once(' ').unwrap();
    assert_eq!(receipt["location"], Value::from(commit));
    assert!(id.len() > "1@".len(), "the ledger has a name: {id}");
    let text = bench.text("scale-default-a/deployment.yaml");
    assert!(text.contains(if others_go_on { "theirs" } else { "replicas: 3" }), "{text}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_push_that_was_cut_before_the_branch_moved_happens_once() {
    if !git_is_missing() {
        // What is left of the push may still arrive, or not: it is one commit all the same.
        killed_in("pre-receive", false);
    }
}

#[test]
fn a_push_that_was_cut_after_the_branch_moved_is_not_repeated() {
    if !git_is_missing() {
        killed_in("post-receive", true);
    }
}

#[test]
fn a_remote_that_runs_a_program_is_refused_before_anything_starts() {
    let site =
        Site::with_config("sink = [\"git\"]\n[sinks.git]\nremote = \"ext::sh -c 'touch pwned'\"\n");
    let finished = site.run(&["batch"]);
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
    assert!(
        finished.stderr.contains("`remote` is to be an https, ssh or file address"),
        "{}",
        finished.stderr
    );
}
