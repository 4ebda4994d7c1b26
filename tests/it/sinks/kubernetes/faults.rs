//! What a server or a network can do to a delivery: nothing is lost, nothing is done twice, and each
//! has one sentence.

use super::*;

/// The delivery fails with this, and succeeds once the fault is over, with one effect.
#[track_caller]
fn recovers(fault: Fault, expected: (Code, Retry), words: &str) {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |it| it.timeout = Duration::from_millis(1500));
    // The watches are there before the fault.
    assert!(done(&settled(&mut sink, &job("web", 2))).unchanged);
    cluster.fail(fault);
    let first = call(&mut sink, &job("web", 5));
    let said = failed(&first.answer, expected.0, expected.1);
    assert!(said.contains(words), "{said}");
    cluster.heal();
    let step = first.journal.last().map(|(_, step)| step.clone());
    let answer = settled(&mut sink, &Job { step, ..job("web", 5) });
    assert!(!done(&answer).unchanged, "{words}");
    assert_eq!(replicas(&cluster, "web"), 5);
    let object = cluster.get("deployments", "ran-a", "web").unwrap();
    assert_eq!(object["metadata"]["generation"], 2, "one effect: {words}");
}

const LATER: (Code, Retry) = (Code::SinkUnavailable, Retry::Later);

#[test]
fn a_server_that_fails_before_or_after_the_effect_gets_the_write_once() {
    for (wrong, words) in [
        (Wrong::CloseBefore, "the API server"),
        (Wrong::CloseAfter, "the API server"),
        (Wrong::Truncate, "broke off"),
        (Wrong::Blackhole, "did not answer in time"),
        (Wrong::Drip(Duration::from_millis(200)), "did not answer in time"),
        (Wrong::Endless(1 << 30), "is longer than"),
    ] {
        recovers(Fault::new(wrong).on("PATCH"), LATER, words);
    }
}

#[test]
fn a_server_that_says_not_now_is_asked_again_when_it_says() {
    let after = (Code::SinkUnavailable, Retry::After(Duration::from_secs(7)));
    recovers(Fault::too_many(7).on("PATCH"), after, "Too many requests");
    recovers(Fault::status(500, "etcd is gone").on("PATCH"), LATER, "etcd is gone");
    recovers(Fault::status(500, "etcd is gone").on("GET").but_watches(), LATER, "etcd is gone");
    recovers(Fault::redirect("https://elsewhere.test/").on("PATCH"), LATER, "elsewhere.test");
}

/// Somebody else was in between.
fn conflict() -> Fault {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict",
        "message": "the object has been modified", "code": 409,
    });
    Fault::status(409, &body.to_string()).on("PATCH")
}

#[test]
fn a_target_that_moves_meanwhile_is_looked_at_again_and_not_for_ever() {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |_| {});
    cluster.fail(conflict().times(2));
    done(&settled(&mut sink, &job("web", 5)));
    assert_eq!(patches(&cluster), 3);
    cluster.fail(conflict().always());
    failed(&call(&mut sink, &job("web", 6)).answer, Code::FieldConflict, Retry::Later);
    assert_eq!(patches(&cluster), 3 + 5);
}

#[test]
fn a_server_that_was_killed_is_found_again() {
    let mut cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |it| it.timeout = Duration::from_secs(2));
    done(&settled(&mut sink, &job("web", 3)));
    cluster.stop();
    failed(&call(&mut sink, &job("web", 5)).answer, Code::SinkUnavailable, Retry::Later);
    cluster.restart();
    crate::support::wait_until("it to be believed again", || {
        matches!(settled(&mut sink, &job("web", 5)), Answer::Done(_))
    });
    assert_eq!(replicas(&cluster, "web"), 5);
}

#[test]
fn a_rotated_token_is_read_again_and_never_shown() {
    let cluster = with(&["web"]);
    cluster.expect_token("first-secret");
    let mut sink = sink_at(&cluster, |_| {});
    done(&settled(&mut sink, &job("web", 3)));
    cluster.rotate("second-secret");
    let said = failed(&call(&mut sink, &job("web", 5)).answer, Code::Forbidden, Retry::Later);
    assert!(!said.contains("secret") && !format!("{sink:?}").contains("secret"), "{said}");
    cluster.expect_token("second-secret");
    crate::support::wait_until("the new token to be used", || {
        matches!(settled(&mut sink, &job("web", 5)), Answer::Done(_))
    });
}

#[test]
fn a_server_that_answers_nobody_does_not_hold_up_a_batch_for_each_of_it() {
    let names: Vec<String> = (0..64).map(|at| format!("web-{at}")).collect();
    let cluster = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut sink = sink_at(&cluster, |it| it.timeout = Duration::from_millis(1500));
    assert!(done(&settled(&mut sink, &job("web-0", 2))).unchanged);
    cluster.forget_requests();
    cluster.fail(Fault::new(Wrong::Blackhole).but_watches().always());
    let jobs: Vec<Job> = names.iter().map(|name| job(name, 3)).collect();
    for answer in deliver(&mut sink, &jobs.iter().collect::<Vec<_>>()) {
        failed(&answer, Code::SinkUnavailable, Retry::Later);
    }
    let asked = calls(&cluster).len();
    assert!(asked < 2 * 8, "as many as at a time, and those that had begun: {asked}");
}

#[test]
fn targets_that_are_refused_at_once_do_not_hold_up_the_others_of_their_batch() {
    let names: Vec<String> = (0..12).map(|at| format!("bad-{at}")).collect();
    let names = [names, vec!["good".to_owned()]].concat();
    let cluster = with(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut sink = sink_at(&cluster, |_| {});
    let failing = "Internal error occurred: failed calling webhook \"w\"";
    for name in names.iter().take(12) {
        let path = format!("/apis/apps/v1/namespaces/ran-a/deployments/{name}/scale");
        cluster.fail(Fault::status(500, failing).on("PATCH").at(&path).always());
    }
    let jobs: Vec<Job> = names.iter().map(|name| job(name, 3)).collect();
    let answers = deliver(&mut sink, &jobs.iter().collect::<Vec<_>>());
    let (good, bad) = answers.split_last().unwrap();
    for answer in bad {
        let said = failed(answer, Code::SinkUnavailable, Retry::Later);
        assert!(said.contains("failed calling webhook"), "{said}");
    }
    assert!(!matches!(good, Answer::Failed(_)), "{good:?}");
    assert_eq!(replicas(&cluster, "good"), 3);
}

#[test]
fn a_list_without_an_end_is_not_read_to_its_end() {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |_| {});
    cluster.fail(Fault::new(Wrong::Endless(1 << 30)).always());
    let said = failed(&call(&mut sink, &job("web", 5)).answer, Code::SinkUnavailable, Retry::Later);
    assert!(said.contains("length limit exceeded"), "{said}");
    cluster.heal();
    crate::support::wait_until("it to be believed again", || {
        matches!(settled(&mut sink, &job("web", 5)), Answer::Done(_))
    });
}

#[test]
fn a_leader_that_was_overtaken_writes_nothing() {
    let cluster = with(&["web"]);
    let mut sink = sink_at(&cluster, |_| {});
    let deliver = |sink: &mut Kubernetes, holds| {
        let fence = Fencing::holds_for(holds);
        let due = Instant::now() + PATIENCE;
        super::super::deliver_by(sink, &[&job("web", 5)], &fence, due)
    };
    let fenced = |answer| assert!(matches!(answer, Err(Fatal::Fenced { .. })), "{answer:?}");
    // Not when the batch begins; when it begins, and not when the intention is kept.
    for holds in 0..2 {
        fenced(deliver(&mut sink, holds));
    }
    assert_eq!(patches(&cluster), 0);
    // It holds until somebody else has moved the target, who may be the next leader.
    cluster.fail(conflict().always());
    fenced(deliver(&mut sink, 2));
    assert_eq!((patches(&cluster), replicas(&cluster, "web")), (1, 2));
}

#[test]
fn a_leader_that_was_overtaken_raises_no_floor() {
    let cluster = with(&["web"]);
    cluster.autoscaler("ran-a", "web", 2, 6);
    let mut sink = sink_at(&cluster, |it| it.hpa = HpaRule::Floor);
    for holds in 0..3 {
        let fence = Fencing::holds_for(holds);
        let due = Instant::now() + PATIENCE;
        let answer = super::super::deliver_by(&mut sink, &[&job("web", 5)], &fence, due);
        assert!(matches!(answer, Err(Fatal::Fenced { .. })), "{holds}: {answer:?}");
    }
    assert_eq!(patches(&cluster), 0);
}

#[test]
fn a_certificate_that_does_not_hold_is_no_reason_to_send_credentials() {
    use crate::fake::Certificate;
    let mut cluster = Cluster::start_tls();
    cluster.deployment("ran-a", "web", 2);
    cluster.expect_token("first-secret");
    for certificate in [Certificate::Expired, Certificate::OtherHost, Certificate::UnknownAuthority]
    {
        cluster.present(certificate);
        let mut sink = sink_at(&cluster, |_| {});
        let said =
            failed(&call(&mut sink, &job("web", 5)).answer, Code::SinkUnavailable, Retry::Later);
        assert!(said.contains("certificate"), "{said}");
        assert_eq!(cluster.requests().len(), 0);
    }
    cluster.present(Certificate::Valid);
    done(&settled(&mut sink_at(&cluster, |_| {}), &job("web", 5)));
}
