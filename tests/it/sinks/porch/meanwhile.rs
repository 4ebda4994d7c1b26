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
    done(&deliver_one(&mut sink, &later(2, "web", 4)));
    bench.requests();
    done(&deliver_one(&mut sink, &later(3, "web", 5)));
    assert_eq!(lists(&bench), 2, "drafts, and proposals: it may have come back");
    done(&deliver_one(&mut sink, &later(4, "web", 6)));
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

#[test]
fn a_deletion_that_was_cut_off_is_finished() {
    let bench = Bench::new();
    let mut sink = bench.sink(&bench.settings(PorchPolicy::Propose));
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    bench.porch.next("delete", Mishap::HalfDeleted);
    let answer = deliver_one(&mut sink, &numbered(2, "web", 5));
    let name = "packages.scale-ran-a-web.i-2-e3b0c442";
    assert_eq!(confirmed(&answer), format!("{name} Proposed"));
    assert_eq!(bench.porch.revisions(), [format!("{name} Proposed")], "nothing is left behind");
}

#[test]
fn what_is_going_and_cannot_be_deleted_is_in_nobodys_way_and_never_taken_for_a_proposal() {
    let bench = Bench::new();
    let mut sink = bench.sink(&bench.settings(PorchPolicy::Propose));
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    let (first, second) =
        ("packages.scale-ran-a-web.i-1-e3b0c442", "packages.scale-ran-a-web.i-2-e3b0c442");
    bench.porch.mark(first, json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
    bench.cluster.fail(Fault::api(500, "InternalError", "no").on("DELETE"));
    let answer = deliver_one(&mut sink, &numbered(2, "web", 3));
    assert_eq!(confirmed(&answer), format!("{second} Proposed"));
}

#[test]
fn what_is_published_between_the_proposal_and_the_approval_of_a_first_revision_is_not_undone() {
    let bench = Bench::new();
    bench.porch.next("propose", Mishap::Overtaken);
    let answer = deliver_one(&mut bench.approving(), &numbered(1, "web", 4));
    // They have published just what we want, and ours is taken back.
    let published = "packages.scale-ran-a-web.v1 Published 1";
    assert_eq!(confirmed(&answer), published);
    assert_eq!(bench.porch.revisions(), [published]);
}

#[test]
fn a_slow_write_of_the_files_has_it_looked_again_what_is_published() {
    let bench = Bench::new();
    let checks = |bench: &Bench| {
        let lines = bench.requests();
        let at = |start: &str| lines.iter().rposition(|line| line.starts_with(start));
        let write = at("PATCH resources/").unwrap();
        let propose = at("PATCH s/").unwrap();
        lines[write + 1..propose].to_vec()
    };
    let mut sink = bench.sink(&bench.settings(PorchPolicy::Propose));
    // Its answer has two thousand bytes and more.
    let drip = Fault::new(Wrong::Drip(Duration::from_millis(2)));
    bench.cluster.fail(drip.on("PATCH").at("packages.scale-ran-a-web.i-1-e3b0c442"));
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    let checked = checks(&bench);
    assert!(matches!(&checked[..], [line] if line.contains("latest-revision=true")), "{checked:?}");
}

#[test]
fn a_first_intent_supersedes_what_earlier_ones_have_left_unfinished() {
    let bench = Bench::new();
    let mut draft = bench.sink(&bench.settings(PorchPolicy::Draft));
    done(&deliver_one(&mut draft, &numbered(1, "web", 3)));
    let name = "packages.scale-ran-a-web.i-2-e3b0c442";
    let answer = deliver_one(&mut bench.approving(), &numbered(2, "web", 4));
    assert_eq!(confirmed(&answer), format!("{name} Published 1"));
    assert_eq!(bench.porch.revisions(), [format!("{name} Published 1")]);
}

#[test]
fn a_history_that_is_too_long_to_be_listed_is_asked_for_what_matters() {
    let bench = Bench::new();
    done(&deliver_one(&mut bench.approving(), &numbered(1, "web", 3)));
    bench.requests();
    // More than is read of any answer.
    let endless = Fault::new(Wrong::Endless(64 << 20));
    bench.cluster.fail(endless.on("GET").at("packagerevisions"));
    let mut sink = bench.approving();
    let answer = deliver_one(&mut sink, &numbered(2, "web", 3));
    // The Repository is read first, by another path.
    let published = "packages.scale-ran-a-web.i-1-e3b0c442 Published 1";
    assert_eq!(confirmed(&answer), format!("{published} unchanged"));
    let lists = bench.requests().iter().filter(|line| line.starts_with("GET s?")).count();
    assert_eq!(lists, 4, "all of it in vain, then drafts, proposals and what is published");
}
