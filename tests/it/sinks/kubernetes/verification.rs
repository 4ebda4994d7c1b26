//! From accepted over observed to converged, and what can come in between.

use super::*;
use crate::fake::Pace;

fn held(delivered: Confirmed) -> (Cluster, Kubernetes) {
    let cluster = with(&["web"]);
    cluster.pace(Pace::Held);
    let sink = sink_at(&cluster, |it| it.delivered = delivered);
    (cluster, sink)
}

#[test]
fn each_rule_of_delivery_is_met_by_its_own_event_and_woken_by_it() {
    let (cluster, mut sink) = held(Confirmed::Converged);
    let job = job("web", 5);
    let first = call(&mut sink, &job);
    let job = Job { step: Some(pending(first.answer)), ..job };
    assert_eq!(first.wakes.try_recv(), Err(crossbeam_channel::TryRecvError::Empty));
    cluster.release("web");
    assert_eq!(first.wakes.recv_timeout(PATIENCE), Ok(job.seq));
    assert!(done(&call(&mut sink, &job).answer).further.contains_key("converged_at"));
    assert_eq!(patches(&cluster), 1);

    let (cluster, mut sink) = held(Confirmed::Observed);
    let first = call(&mut sink, &Job { step: None, ..job });
    let job = Job { step: Some(pending(first.answer)), ..super::job("web", 5) };
    cluster.observe("web");
    assert_eq!(first.wakes.recv_timeout(PATIENCE), Ok(job.seq));
    let answer = call(&mut sink, &job).answer;
    let told: Vec<&str> = done(&answer).further.keys().map(String::as_str).collect();
    assert_eq!(told, ["accepted_at", "observed_at", "resource_version"]);

    let (cluster, mut sink) = held(Confirmed::Accepted);
    done(&call(&mut sink, &job_anew()).answer);
    assert_eq!(replicas(&cluster, "web"), 5);
}

fn job_anew() -> Job {
    job("web", 5)
}

#[test]
fn a_rollout_holds_up_no_other_target() {
    let (cluster, mut sink) = held(Confirmed::Converged);
    pending(call(&mut sink, &job("web", 5)).answer);
    cluster.pace(Pace::Prompt);
    cluster.deployment("ran-a", "other", 2);
    done(&settled(&mut sink, &Job { seq: Seq(6), ..job("other", 5) }));
}

#[test]
fn a_verification_goes_on_in_the_next_process_without_a_second_write() {
    let (cluster, mut sink) = held(Confirmed::Converged);
    let step = pending(call(&mut sink, &job_anew()).answer);
    drop(sink);
    let mut sink = sink_at(&cluster, |it| it.delivered = Confirmed::Converged);
    let job = Job { step: Some(step), ..job_anew() };
    let second = call(&mut sink, &job);
    let job = Job { step: Some(pending(second.answer)), ..job };
    cluster.release("web");
    assert_eq!(second.wakes.recv_timeout(PATIENCE), Ok(job.seq));
    assert!(!done(&call(&mut sink, &job).answer).unchanged);
    assert_eq!(patches(&cluster), 1);
}

#[test]
fn a_crash_between_the_effect_and_its_receipt_is_no_second_effect() {
    let cluster = with(&["web"]);
    let first = call(&mut sink_at(&cluster, |it| it.delivered = Confirmed::Accepted), &job_anew());
    assert_eq!(first.journal.len(), 1, "the intention is kept before the write");
    let job = Job { step: Some(first.journal[0].1.clone()), ..job_anew() };
    let answer = settled(&mut sink_at(&cluster, |_| {}), &job);
    assert!(!done(&answer).unchanged, "it was ours");
    assert_eq!(patches(&cluster), 1);
    // A step of another version is none.
    let job = Job { step: Some(Step("elsewhere".to_owned())), ..job };
    assert!(done(&settled(&mut sink_at(&cluster, |_| {}), &job)).unchanged);
}

#[test]
fn what_does_not_follow_in_time_is_told_with_what_is_missing_and_the_change_stands() {
    let cluster = with(&["web"]);
    cluster.pace(Pace::Held);
    let mut sink = sink_at(&cluster, |it| {
        it.delivered = Confirmed::Converged;
        it.verify_timeout = Duration::from_millis(400);
    });
    let first = call(&mut sink, &job_anew());
    cluster.observe("web");
    let job = Job { step: Some(pending(first.answer)), ..job_anew() };
    let said = failed(&settled(&mut sink, &job), Code::VerifyTimeout, Retry::Never);
    assert_eq!(
        said,
        "deployments/ran-a/web was set to 5 and has not followed within 0.4 s: 2 of 5 replicas \
         made; the change stands"
    );
    assert_eq!(replicas(&cluster, "web"), 5);
}

#[test]
fn time_that_another_process_has_spent_counts() {
    let (cluster, mut sink) = held(Confirmed::Converged);
    let step = pending(call(&mut sink, &job_anew()).answer).0;
    let mut step: serde_json::Value = serde_json::from_str(&step).unwrap();
    step["spent_ms"] = json!(PATIENCE.as_millis() as u64);
    let job = Job { step: Some(Step(step.to_string())), ..job_anew() };
    let mut sink = sink_at(&cluster, |it| it.delivered = Confirmed::Converged);
    failed(&call(&mut sink, &job).answer, Code::VerifyTimeout, Retry::Never);
}

#[test]
fn somebody_who_changes_or_deletes_the_target_meanwhile_is_named() {
    let (cluster, mut sink) = held(Confirmed::Converged);
    let first = call(&mut sink, &job_anew());
    let job = Job { step: Some(pending(first.answer)), ..job_anew() };
    let mut object = cluster.get("deployments", "ran-a", "web").unwrap();
    object["spec"]["replicas"] = json!(1);
    cluster.put_as("operator", object);
    let said = failed(&settled(&mut sink, &job), Code::FieldConflict, Retry::Never);
    assert_eq!(said, "deployments/ran-a/web was set to 5, and then `operator` set it to 1");

    let (cluster, mut sink) = held(Confirmed::Converged);
    let first = call(&mut sink, &job_anew());
    let job = Job { step: Some(pending(first.answer)), ..job_anew() };
    cluster.delete_namespace("ran-a");
    let said = failed(&settled(&mut sink, &job), Code::TargetNotFound, Retry::Never);
    assert_eq!(said, "deployments/ran-a/web was deleted after it was written");
}

#[test]
fn a_watch_that_the_server_ends_begins_anew() {
    let (cluster, mut sink) = held(Confirmed::Converged);
    let first = call(&mut sink, &job_anew());
    let job = Job { step: Some(pending(first.answer)), ..job_anew() };
    cluster.forget_history();
    cluster.expire_watches();
    cluster.release("web");
    done(&settled(&mut sink, &job));
    assert_eq!(patches(&cluster), 1);
}

#[test]
fn intents_for_more_namespaces_than_are_followed_at_a_time_all_come_through() {
    let cluster = Cluster::start();
    let spaces: Vec<String> = (0..24).map(|at| format!("ran-{at}")).collect();
    spaces.iter().for_each(|namespace| cluster.deployment(namespace, "web", 2));
    let mut sink = sink_at(&cluster, |it| {
        it.delivered = Confirmed::Converged;
        // Room for five namespaces.
        it.concurrency = 40;
    });
    let jobs: Vec<Job> =
        spaces.iter().map(|namespace| super::super::job_in(namespace, "web", 3)).collect();
    let answers = settle(&mut sink, &jobs.iter().collect::<Vec<_>>());
    for (answer, namespace) in answers.iter().zip(&spaces) {
        assert_eq!(done(answer).location, format!("deployments/{namespace}/web"));
        assert_eq!(cluster.replicas("deployments", namespace, "web"), 3);
    }
    assert_eq!(patches(&cluster), spaces.len(), "each once");
}
