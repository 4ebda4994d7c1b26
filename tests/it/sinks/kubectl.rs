//! The kubectl sink over a script that stands for kubectl and, where there is one, over the real
//! kubectl and a real API server.

mod crash;
mod fake;
mod genuine;
mod misbehaving;
mod scenarios;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use intentd::config::Confirmed;
use intentd::model::{Code, Seq};
use intentd::sink::{Answer, Context, Fatal, Retry, Sink, Step, Waker};
use serde_json::Value;

use super::{
    Fencing, Job, PATIENCE, Steps, Subject, deliver, deliver_by, done, failed, holds_the_contract,
    job, job_in,
};
use fake::Bench;

/// Delivers once, with what the sink asks to be kept.
fn deliver_kept(sink: &mut dyn Sink, job: &Job) -> (Answer, Vec<Step>) {
    let (journal, waker): (_, Waker) = (Steps::default(), Arc::new(|_| {}));
    let deadline = Instant::now() + PATIENCE;
    let fence = Fencing::holds();
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let answer = sink.deliver(&[job.delivery()], &context).unwrap().remove(0);
    (answer, journal.taken().into_iter().map(|(_, step)| step).collect())
}

#[test]
fn deployments_scaled_by_kubectl_hold_the_contract() {
    holds_the_contract("kubectl", || {
        let bench = Bench::with(&[("a", 1), ("b", 1), ("c", 1)]);
        let hang = bench.path("hang");
        bench.hook(&format!("while [ -e {} ]; do sleep 0.02; done", hang.display()));
        let (sink, state) = (bench.sink(), bench.path("state"));
        Subject {
            sink: Box::new(sink),
            visible: Box::new(move || {
                let _kept = &bench;
                bench.visible()
            }),
            stall: Box::new(move || {
                let _state = &state;
                std::fs::write(&hang, "").unwrap();
                Box::new(Hanging(hang.clone()))
            }),
        }
    });
}

#[derive(Debug)]
struct Hanging(std::path::PathBuf);

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_batch_is_read_in_one_call_each_write_is_conditional_and_the_environment_is_what_is_needed() {
    let bench = Bench::with(&[("a", 1), ("b", 2)]);
    let mut sink = bench.sink_with(|settings| {
        settings.access.kubeconfig = Some("/etc/a b".into());
        settings.access.context = Some("--token=x".to_owned());
    });
    let answers = deliver(&mut sink, &[&job("a", 3), &job("b", 4)]);
    let confirmed = done(&answers[0]);
    assert_eq!(confirmed.location, "deployments/ran-a/a");
    assert!(!confirmed.unchanged);
    assert_eq!(confirmed.further["resource_version"], Value::from("2"));
    let names: Vec<&str> = confirmed.further.keys().map(String::as_str).collect();
    assert_eq!(names, ["accepted_at", "converged_at", "observed_at", "resource_version"]);
    done(&answers[1]);
    let access = "--kubeconfig=/etc/a b --context=--token=x";
    let get = "get deployments.v1.apps a b --namespace=ran-a --ignore-not-found --output=json";
    let scale = |name: &str, replicas: u32| {
        format!(
            "{access} scale deployments.v1.apps/{name} --namespace=ran-a --replicas={replicas} \
             --resource-version=1 --dry-run=none --timeout=0 --output=json"
        )
    };
    assert_eq!(
        bench.calls(),
        [
            format!("{access} version --client --output=json"),
            format!("{access} {get}"),
            format!(
                "{access} get horizontalpodautoscalers.v2.autoscaling --namespace=ran-a --output=json"
            ),
            scale("a", 3),
            scale("b", 4),
            format!("{access} {get}"),
        ]
    );
    let environment = bench.text("environment");
    let names: Vec<&str> =
        environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let known = [
        "PATH",
        "HOME",
        "KUBECONFIG",
        "KUBECACHEDIR",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "LC_ALL",
        // Of the shell that runs the script.
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    ];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    assert!(environment.contains("LC_ALL=C\n"), "{environment}");
}

#[test]
fn what_is_as_wanted_is_not_written_and_what_is_no_scaling_intent_is_not_looked_at() {
    let bench = Bench::with(&[("a", 3)]);
    let mut sink = bench.sink();
    assert!(done(&deliver(&mut sink, &[&job("a", 3)])[0]).unchanged);
    assert!(!bench.calls().iter().any(|call| call.starts_with("scale")), "{:?}", bench.calls());

    let mut other = job("a", 5);
    other.intent.intent_type = intentd::model::IntentType::Configuration;
    let calls = bench.calls().len();
    let answers = deliver(&mut sink, &[&other]);
    let message = failed(&answers[0], Code::UnsupportedIntent, Retry::Never);
    assert_eq!(message, "kubectl only scales what is there, and this is a configuration intent");
    assert_eq!(bench.calls().len(), calls);
}

#[test]
fn one_that_may_not_be_read_does_not_hide_the_others() {
    let bench = Bench::with(&[("a", 1), ("b", 1)]);
    bench.hook(
        "case \"$verb$names\" in 'get deployments'*' b'*)\n\
         echo 'Error from server (Forbidden): deployments.apps \"b\" is forbidden: no' >&2; exit 1;;\n\
         esac",
    );
    let answers = deliver(&mut bench.sink(), &[&job("a", 3), &job("b", 4), &job("c", 5)]);
    done(&answers[0]);
    let message = failed(&answers[1], Code::Forbidden, Retry::Later);
    assert_eq!(message, "cannot read deployments/ran-a/b: deployments.apps \"b\" is forbidden: no");
    failed(&answers[2], Code::TargetNotFound, Retry::Never);
    assert_eq!(bench.visible(), ["ran-a.a 3", "ran-a.b 1"]);
}

#[test]
fn an_object_that_others_change_is_looked_at_again_a_few_times_and_then_left_to_later() {
    let bench = Bench::with(&[("a", 1)]);
    let meddle = "[ $verb = scale ] && [ \"$(grep -c ^scale \"$dir/calls\")\" -le TIMES ] && \
                  sed -i 's/^rv=/rv=9/' \"$dir/state/ran-a.a\"";
    bench.hook(&meddle.replace("TIMES", "4"));
    assert!(!done(&deliver(&mut bench.sink(), &[&job("a", 3)])[0]).unchanged);
    assert_eq!(bench.visible(), ["ran-a.a 3"]);

    bench.hook(&meddle.replace("TIMES", "99"));
    let message = failed(
        &deliver(&mut bench.sink(), &[&job("a", 5)])[0],
        Code::SinkUnavailable,
        Retry::Later,
    );
    let begin = "others changed it at each of 5 tries: cannot scale deployments/ran-a/a: Expected";
    assert!(message.starts_with(begin), "{message}");
    assert_eq!(bench.visible(), ["ran-a.a 3"]);
}

#[test]
fn the_fence_is_asked_between_the_look_and_each_write() {
    let bench = Bench::with(&[("a", 1), ("b", 1)]);
    let due = Instant::now() + PATIENCE;
    let jobs = [&job("a", 3), &job("b", 4)];
    let fenced = deliver_by(&mut bench.sink(), &jobs, &Fencing::holds_for(1), due);
    assert!(matches!(fenced, Err(Fatal::Fenced { .. })), "{fenced:?}");
    assert_eq!(bench.visible(), ["ran-a.a 3", "ran-a.b 1"]);
}

#[test]
fn a_rollout_is_followed_by_a_watch_that_wakes_and_a_new_process_goes_on_from_the_step() {
    let bench = Bench::with(&[("a", 1)]);
    bench.write("asleep", "");
    let converged = |settings: &mut intentd::config::KubectlSettings| {
        settings.delivered = Confirmed::Converged;
    };
    let mut sink = bench.sink_with(converged);
    let (woken, wakes) = bounded(8);
    let waker: Waker = Arc::new(move |seq| woken.send(seq).unwrap());
    let (journal, fence) = (Steps::default(), Fencing::holds());
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let mut job = job("a", 3);
    let answer = sink.deliver(&[job.delivery()], &context).unwrap().remove(0);
    let Answer::Pending { step, again } = answer else { panic!("{answer:?}") };
    assert_eq!(again, Duration::from_secs(30), "watched");
    assert_eq!(journal.taken().len(), 1);

    bench.set("a", 3, 2, 2, 2);
    bench.set("a", 3, 2, 2, 3);
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(Seq(3)));
    drop(sink);

    job.step = Some(step);
    let mut second = bench.sink_with(converged);
    let answer = deliver(&mut second, &[&job]).remove(0);
    assert!(!done(&answer).unchanged);
    assert!(done(&answer).further.contains_key("converged_at"), "{answer:?}");
    let scales = bench.calls().iter().filter(|call| call.starts_with("scale")).count();
    assert_eq!(scales, 1, "written once: {:?}", bench.calls());
}

#[test]
fn no_more_than_four_are_watched_and_no_watch_outlives_the_sink() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let bench = Bench::with(&names.map(|name| (name, 1)));
    bench.write("asleep", "");
    let mut sink = bench.sink();
    let jobs: Vec<Job> = names
        .iter()
        .enumerate()
        .map(|(at, name)| Job { seq: Seq(at as u64 + 1), ..job(name, 3) })
        .collect();
    let answers = deliver(&mut sink, &jobs.iter().collect::<Vec<_>>());
    let agains: Vec<u64> = answers
        .iter()
        .map(|answer| match answer {
            Answer::Pending { again, .. } => again.as_secs(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(agains, [30, 30, 30, 30, 3, 3]);
    drop(sink);
    assert_eq!(bench.running(), Vec::<i32>::new());
}

#[test]
fn what_does_not_follow_in_time_or_is_changed_by_others_is_told_and_stands() {
    let bench = Bench::with(&[("a", 1), ("b", 1)]);
    bench.write("asleep", "");
    let mut sink = bench.sink_with(|settings| settings.verify_timeout = Duration::ZERO);
    let message =
        failed(&deliver(&mut sink, &[&job("a", 3)])[0], Code::VerifyTimeout, Retry::Never);
    assert_eq!(
        message,
        "deployments/ran-a/a was set to 3 and has not followed within 0 s: its controller has seen \
         generation 1, and the write made 2; the change stands"
    );
    assert_eq!(bench.visible()[0], "ran-a.a 3");

    let mut sink = bench.sink_with(|settings| settings.delivered = Confirmed::Converged);
    let mut wanted = job("b", 4);
    let (answer, _) = deliver_kept(&mut sink, &wanted);
    let Answer::Pending { step, .. } = answer else { panic!("{answer:?}") };
    wanted.step = Some(step);
    bench.set("b", 2, 3, 3, 2);
    let message = failed(&deliver(&mut sink, &[&wanted])[0], Code::FieldConflict, Retry::Never);
    assert_eq!(message, "deployments/ran-a/b was set to 4, and then somebody set it to 2");
}

#[test]
fn accepted_needs_no_controller_and_no_second_look_that_succeeds() {
    let bench = Bench::with(&[("a", 1)]);
    bench.write("asleep", "");
    let accepted = |settings: &mut intentd::config::KubectlSettings| {
        settings.delivered = Confirmed::Accepted;
    };
    let answers = deliver(&mut bench.sink_with(accepted), &[&job("a", 3)]);
    let names: Vec<&str> = done(&answers[0]).further.keys().map(String::as_str).collect();
    assert_eq!(names, ["accepted_at", "resource_version"]);
    bench.write("after", "[ $verb != scale ] || rm \"$dir\"/state/*\n");
    done(&deliver(&mut bench.sink_with(accepted), &[&job("a", 4)])[0]);
}

#[test]
fn namespaces_of_a_batch_do_not_hold_up_each_other() {
    let bench = Bench::with(&[("a", 1)]);
    let answers = deliver(&mut bench.sink(), &[&job_in("nowhere", "a", 3), &job("a", 4)]);
    let message = failed(&answers[0], Code::TargetNotFound, Retry::Never);
    assert_eq!(message, "cannot read deployments/nowhere/a: deployments.apps \"a\" not found");
    done(&answers[1]);
}
