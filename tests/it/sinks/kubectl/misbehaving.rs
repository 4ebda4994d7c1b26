//! A kubectl that is missing, hangs, talks without end, dies, or is none.

use std::time::{Duration, Instant};

use intentd::model::Code;
use intentd::sink::kubectl::Error;
use intentd::sink::{Retry, Sink};

use super::fake::{Bench, settings};
use super::{Fencing, PATIENCE, deliver, deliver_by, done, failed, job};
use crate::support::{Site, scaling};

/// One fault that says this, and nothing has changed; then all is well again.
#[track_caller]
fn told(hook: &str, code: Code, said: &str) {
    let bench = Bench::with(&[("a", 1)]);
    let mut sink = bench.sink();
    bench.hook(hook);
    let answers = deliver(&mut sink, &[&job("a", 3)]);
    let message = failed(&answers[0], code, Retry::Later);
    assert_eq!(message, said, "{hook}");
    assert_eq!(bench.visible(), ["ran-a.a 1"], "{hook}");
    bench.hook("");
    done(&deliver(&mut sink, &[&job("a", 3)])[0]);
    assert_eq!(bench.running(), Vec::<i32>::new());
}

#[test]
fn a_kubectl_that_dies_talks_without_end_or_talks_nonsense_is_one_clear_fault() {
    let unavailable = Code::SinkUnavailable;
    told(
        "kill -9 $$",
        unavailable,
        "cannot ask kubectl its version: kubectl was killed by SIGKILL",
    );
    told(
        "[ $verb = version ] || kill -15 $$",
        unavailable,
        "cannot read deployments/ran-a/a: kubectl was killed by SIGTERM",
    );
    told(
        "[ $verb != scale ] || exec head -c 1000000000 /dev/zero",
        unavailable,
        "cannot scale deployments/ran-a/a: kubectl gave more than 8388608 bytes",
    );
    told(
        "[ $verb != scale ] || { head -c 1000000000 /dev/zero >&2; exit 1; }",
        unavailable,
        &format!("cannot scale deployments/ran-a/a: {}...", "\\u{0}".repeat(600)),
    );
    told(
        "[ $verb != get ] || { echo NAME READY; exit 0; }",
        unavailable,
        "cannot read deployments/ran-a/a: what `kubectl get` printed is no JSON object",
    );
    told(
        "[ $verb != version ] || { echo '{\"clientVersion\":{\"gitVersion\":\"v1.18.9\"}}'; exit; }",
        unavailable,
        "`v1.18.9` is no kubectl 1.19 or newer",
    );
    told(
        "[ $verb != scale ] || { echo 'error: You must be logged in to the server (Unauthorized)' >&2; exit 1; }",
        Code::Forbidden,
        "cannot scale deployments/ran-a/a: You must be logged in to the server (Unauthorized)",
    );
}

#[test]
fn a_kubectl_that_is_missing_or_hangs_is_told_by_probe_and_delivery_alike() {
    let bench = Bench::with(&[("a", 1)]);
    let mut missing = bench.sink_with(|settings| settings.program = "/nonexistent/k".to_owned());
    let answers = deliver(&mut missing, &[&job("a", 3)]);
    let message = failed(&answers[0], Code::SinkUnavailable, Retry::Later);
    assert_eq!(
        message,
        "cannot ask kubectl its version: `/nonexistent/k` cannot be run: No such file or directory \
         (os error 2)"
    );
    assert_eq!(missing.probe().unwrap_err().message, message);

    bench.hook("[ $verb = version ] || { sleep 600 & wait; }");
    let mut hanging = bench.sink_with(|settings| settings.timeout = Duration::from_millis(300));
    let answers = deliver(&mut hanging, &[&job("a", 3)]);
    let message = failed(&answers[0], Code::SinkUnavailable, Retry::Later);
    assert_eq!(
        message,
        "cannot read deployments/ran-a/a: kubectl had not ended after 0.3 s and was killed"
    );
    let fault = hanging.probe().unwrap_err();
    assert_eq!(
        fault.message,
        "cannot ask the API server: kubectl had not ended after 0.3 s and was killed"
    );
    assert_eq!(bench.running(), Vec::<i32>::new());
}

#[test]
fn the_deadline_holds_for_a_whole_batch_of_a_kubectl_that_hangs() {
    let bench = Bench::with(&[("a", 1), ("b", 1)]);
    let mut sink = bench.sink();
    done(&deliver(&mut sink, &[&job("a", 2)])[0]);
    bench.hook("[ $verb != scale ] || { sleep 600 & wait; }");
    let due = Instant::now() + Duration::from_secs(1);
    let answers = deliver_by(&mut sink, &[&job("a", 3), &job("b", 4)], &Fencing::holds(), due);
    for answer in answers.unwrap() {
        failed(&answer, Code::SinkUnavailable, Retry::Later);
    }
    assert!(due.elapsed() < PATIENCE / 2);
    assert_eq!(bench.running(), Vec::<i32>::new());
}

#[test]
fn settings_that_could_be_taken_for_something_else_are_refused() {
    let refused = |api_version: &str, plural: &str| {
        let mut settings = settings("kubectl");
        settings.workload.api_version = api_version.to_owned();
        settings.workload.plural = plural.to_owned();
        intentd::sink::kubectl::Kubectl::new("kubectl".to_owned(), &settings, None).err()
    };
    assert!(refused("apps/v1", "statefulsets").is_none());
    assert!(refused("v1", "replicationcontrollers").is_none());
    for api_version in ["", "apps/", "-x/v1", "a/b/c", "apps/v1 --all"] {
        assert!(matches!(refused(api_version, "x"), Some(Error::ApiVersion)), "{api_version}");
    }
    for plural in ["", "--all", "a,b", "a/b", "a b", "a.b"] {
        assert!(matches!(refused("apps/v1", plural), Some(Error::Plural)), "{plural}");
    }
}

#[test]
fn a_plural_that_would_be_an_option_is_refused_before_anything_starts() {
    let site = Site::with_config("sink = [\"kubectl\"]\n[sinks.kubectl]\nplural = \"--all\"\n");
    let finished = site.run(&["batch"]);
    assert_eq!(finished.code, Some(78), "{}", finished.stderr);
    let told = "`sinks.kubectl.plural` has to be a kind's name in addresses";
    assert!(finished.stderr.contains(told), "{}", finished.stderr);
}

#[test]
fn diff_has_the_server_run_the_write_dry_and_changes_nothing() {
    let bench = Bench::with(&[]);
    bench.put("default", "a", 1);
    let config =
        format!("sink = [\"kubectl\"]\n[sinks.kubectl]\nprogram = \"{}\"\n", bench.program());
    let site = Site::with_config(&config);
    let document = site.root().join("intent-a.json");
    let diff = |replicas| {
        std::fs::write(&document, scaling("a", replicas)).unwrap();
        site.run(&["diff", document.to_str().unwrap()])
    };
    let found = diff(3);
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    let name = "kubectl/deployments/default/a";
    assert_eq!(
        found.stdout,
        format!("--- a/{name}\n+++ b/{name}\n@@ -1 +1 @@\n-replicas: 1\n+replicas: 3\n")
    );
    assert_eq!(diff(1).code, Some(0));
    let denied = diff(100);
    assert_eq!(denied.code, Some(1));
    assert!(denied.stderr.contains("denied request: at most 90"), "{}", denied.stderr);
    bench.hook("echo 'Unable to connect to the server: EOF' >&2; exit 1");
    assert_eq!(diff(3).code, Some(69));
    assert_eq!(bench.visible(), ["default.a 1"]);
}
