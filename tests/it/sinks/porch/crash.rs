//! Crashes between any two requests, and steps that an older or newer program has kept.

use super::*;

/// A fence that falls after a number of questions: the process dies before the write that follows. The
/// last step that was kept.
fn steps_until(bench: &Bench, writes: u32, job: &Job, policy: PorchPolicy) -> Option<Step> {
    all_steps_until(bench, writes, job, policy).pop()
}

fn all_steps_until(bench: &Bench, writes: u32, job: &Job, policy: PorchPolicy) -> Vec<Step> {
    let journal = Steps::default();
    let waker: Waker = std::sync::Arc::new(|_| {});
    // One question is asked before the first request.
    let fence = Fencing::holds_for(writes + 1);
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let mut sink = bench.sink(&bench.settings(policy));
    let died = sink.deliver(&[job.delivery()], &context);
    assert!(matches!(died, Err(Fatal::Fenced { .. })), "{died:?}");
    journal.taken().into_iter().map(|(_, step)| step).collect()
}

fn resumed(bench: &Bench, job: &Job, step: Option<&Step>) -> Answer {
    let (journal, fence) = (Steps::default(), Fencing::holds());
    let waker: Waker = std::sync::Arc::new(|_| {});
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let mut sink = bench.approving();
    sink.deliver(&[Delivery { step, ..job.delivery() }], &context).unwrap().remove(0)
}

#[test]
fn a_crash_before_each_write_leaves_one_revision_in_the_end() {
    // Of a first revision, and of one that follows another.
    for earlier in [0, 1] {
        for writes in 0..4 {
            let bench = Bench::new();
            if earlier == 1 {
                done(&deliver_one(&mut bench.approving(), &numbered(1, "web", 3)));
            }
            let job = numbered(2, "web", 4);
            let step = steps_until(&bench, writes, &job, PorchPolicy::Approve);
            assert!(step.is_some(), "what was about to happen is kept");
            let answer = resumed(&bench, &job, step.as_ref());
            let (name, number) = ("packages.scale-ran-a-web.i-2-e3b0c442", earlier + 1);
            assert_eq!(confirmed(&answer), format!("{name} Published {number}"), "{writes}");
            assert_eq!(bench.porch.revisions().len(), earlier + 1, "{writes}");
        }
    }
}

#[test]
fn steps_that_nobody_waited_for_may_be_missing_after_a_crash() {
    let name = "packages.scale-ran-a-web.i-2-e3b0c442";
    // The files are about to be written, or are; the approval is about to be given.
    for (writes, kept, step) in [(1, 0, "create"), (2, 0, "create"), (3, 2, "propose")] {
        let bench = Bench::new();
        done(&deliver_one(&mut bench.approving(), &numbered(1, "web", 3)));
        let job = numbered(2, "web", 4);
        let steps = all_steps_until(&bench, writes, &job, PorchPolicy::Approve);
        assert!(steps[kept].0.contains(step), "{steps:?}");
        let answer = resumed(&bench, &job, Some(&steps[kept]));
        assert_eq!(confirmed(&answer), format!("{name} Published 2"), "{writes}");
        assert_eq!(bench.porch.revisions().len(), 2, "{writes}");
        if writes == 3 {
            // It was given, and the answer was lost.
            let answer = resumed(&bench, &job, Some(&steps[kept]));
            assert_eq!(confirmed(&answer), format!("{name} Published 2"));
            assert_eq!(bench.porch.revisions().len(), 2);
        }
    }
}

#[test]
fn a_write_that_had_its_effect_without_an_answer_is_not_repeated() {
    for (method, path) in
        [("POST", "packagerevisions"), ("PATCH", "web.i-2-e3b0c442"), ("PATCH", "approval")]
    {
        let bench = Bench::new();
        done(&deliver_one(&mut bench.approving(), &numbered(1, "web", 3)));
        bench.cluster.fail(Fault::new(Wrong::CloseAfter).on(method).at(path));
        let answer = deliver_one(&mut bench.approving(), &numbered(2, "web", 4));
        assert_eq!(
            confirmed(&answer),
            "packages.scale-ran-a-web.i-2-e3b0c442 Published 2",
            "{path}"
        );
        assert_eq!(bench.porch.revisions().len(), 2, "{path}");
    }
}

#[test]
fn a_creation_that_was_cut_off_is_taken_up_with_its_marks() {
    let bench = Bench::new();
    bench.porch.next("create", Mishap::HalfCreated);
    let answer = deliver_one(&mut bench.approving(), &numbered(1, "web", 3));
    let name = "packages.scale-ran-a-web.i-1-e3b0c442";
    assert_eq!(confirmed(&answer), format!("{name} Published 1"));
    let path = format!("/apis/porch.kpt.dev/v1alpha1/namespaces/default/packagerevisions/{name}");
    let object = crate::fake::client::get(&bench.cluster.url(), &path).unwrap().json();
    assert_eq!(object["metadata"]["annotations"]["intentd/intent-id"], "1@");
    assert!(object["metadata"]["labels"]["intentd/target"].is_string());
}

#[test]
fn a_strange_step_is_none_and_what_stands_there_is_found_all_the_same() {
    for writes in [1, 2, 3] {
        let bench = Bench::new();
        let job = numbered(2, "web", 4);
        steps_until(&bench, writes, &job, PorchPolicy::Approve);
        let strange = Step(r#"{"step":"fly","height":3}"#.to_owned());
        let answer = resumed(&bench, &job, Some(&strange));
        let name = "packages.scale-ran-a-web.i-2-e3b0c442 Published 1";
        assert_eq!(confirmed(&answer), name, "{writes}");
        assert_eq!(bench.porch.revisions(), [name], "{writes}");
    }
}

#[test]
fn a_leader_that_was_overtaken_writes_nothing_more() {
    for writes in 0..4 {
        let bench = Bench::new();
        steps_until(&bench, writes, &numbered(1, "web", 3), PorchPolicy::Approve);
        let sent = bench.requests().iter().filter(|line| !line.starts_with("GET")).count();
        assert_eq!(sent, writes as usize);
    }
}

#[test]
fn the_ledgers_name_is_in_each_revision() {
    struct Signed;
    impl Fence for Signed {
        fn check(&self) -> Result<(), Fatal> {
            Ok(())
        }
        fn term(&self) -> Term<'_> {
            Term { ledger: "ledger-1", epoch: 3 }
        }
    }
    let bench = Bench::new();
    let (journal, waker): (_, Waker) = (Steps::default(), std::sync::Arc::new(|_| {}));
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &Signed, journal: &journal, waker: &waker, deadline };
    let answer = bench.approving().deliver(&[numbered(9, "web", 3).delivery()], &context);
    let created = bench.cluster.requests().into_iter().find(|request| request.method == "POST");
    let body = created.unwrap().json();
    assert_eq!(body["metadata"]["annotations"]["intentd/intent-id"], "9@ledger-1");
    let steps: Vec<String> = journal.taken().into_iter().map(|(_, step)| step.0).collect();
    assert_eq!(
        steps,
        ["create", "write", "propose", "approve"]
            .map(|step| format!(r#"{{"step":"{step}","round":0}}"#))
    );
    done(&answer.unwrap()[0]);
}
