//! What people and other programs do to a package while it is delivered to.

use intentd::sink::porch::compare;

use super::*;

#[test]
fn a_proposal_that_is_approved_while_it_is_taken_back_is_not_taken_for_the_older_one() {
    let bench = Bench::new();
    done(&deliver_one(&mut bench.approving(), &numbered(1, "web", 3)));
    let mut propose = bench.sink(&bench.settings(PorchPolicy::Propose));
    done(&deliver_one(&mut propose, &numbered(2, "web", 5)));
    // Back to 3, which is published until a person approves the 5.
    bench.porch.next("withdraw", Mishap::Approved);
    let answer = deliver_one(&mut propose, &numbered(3, "web", 3));
    assert_eq!(confirmed(&answer), "packages.scale-ran-a-web.i-3-e3b0c442 Proposed");
    assert_eq!(
        bench.porch.revisions(),
        [
            "packages.scale-ran-a-web.i-1-e3b0c442 Published 1",
            "packages.scale-ran-a-web.i-2-e3b0c442 Published 2",
            "packages.scale-ran-a-web.i-3-e3b0c442 Proposed",
        ]
    );
}

#[test]
fn a_draft_of_ours_that_a_person_publishes_before_it_is_written_is_not_taken_for_the_intent() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    bench.porch.next("write", Mishap::PublishedAsItIs);
    let answer = deliver_one(&mut sink, &numbered(2, "web", 5));
    let name = "packages.scale-ran-a-web.i-2-e3b0c442-1";
    assert_eq!(confirmed(&answer), format!("{name} Published 3"));
    let deployment = bench.porch.file(name, "deployment.yaml").unwrap();
    assert!(deployment.contains("replicas: 5"), "{deployment}");
}

#[test]
fn what_is_published_between_our_proposal_and_our_approval_is_not_undone() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    bench.porch.next("propose", Mishap::Overtaken);
    let answer = deliver_one(&mut sink, &numbered(2, "web", 4));
    assert_eq!(confirmed(&answer), "packages.scale-ran-a-web.i-2-e3b0c442 Published 3");
    let sources: Vec<String> = bench
        .cluster
        .requests()
        .iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.json()["spec"]["tasks"][0]["edit"]["sourceRef"]["name"].to_string())
        .collect();
    assert_eq!(sources[2..], ["\"packages.scale-ran-a-web.v2\""], "{sources:?}");
}

#[test]
fn a_draft_that_the_server_has_lost_is_looked_for_by_the_next_intent() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    let lists = |bench: &Bench| {
        bench.requests().iter().filter(|line| line.contains("labelSelector=intentd/target")).count()
    };
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    bench.porch.next("create", Mishap::LosesCreated);
    done(&deliver_one(&mut sink, &numbered(2, "web", 4)));
    bench.requests();
    done(&deliver_one(&mut sink, &numbered(3, "web", 5)));
    assert_eq!(lists(&bench), 2, "drafts, and proposals: it may have come back");
    done(&deliver_one(&mut sink, &numbered(4, "web", 6)));
    assert_eq!(lists(&bench), 0, "nothing was left");
}

#[test]
fn a_comparison_tells_of_the_owner_that_a_delivery_would_meet() {
    let bench = Bench::new();
    let settings = bench.settings(PorchPolicy::Approve);
    done(&deliver_one(&mut bench.sink(&settings), &numbered(1, "web", 3)));
    bench.porch.mark(
        "packages.scale-ran-a-web.i-1-e3b0c442",
        json!({"ownerReferences": [{"kind": "PackageVariant", "name": "v"}]}),
    );
    let job = numbered(2, "web", 4);
    let compared = compare(&settings, &bench.clusters, &job.intent, &job.package);
    let fault = compared.expect_err("a delivery is refused");
    assert_eq!((fault.code, fault.retry), (Code::PackageConflict, Retry::Never));
    assert!(fault.message.contains("is made by the PackageVariant `v`"), "{}", fault.message);
}
