//! Every row of Porch's tables of errors that a delivery can meet.

use super::*;

/// A `Status` of Porch's server.
fn said(code: u16, message: &str) -> Fault {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": if code == 500 { "InternalError" } else { "" }});
    Fault::status(code, &body.to_string())
}

/// Delivers a second revision while something goes wrong.
fn second(bench: &Bench, wrong: impl FnOnce(&Bench)) -> Answer {
    let mut sink = bench.approving();
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    wrong(bench);
    deliver_one(&mut sink, &numbered(2, "web", 4))
}

#[test]
fn what_passes_is_mended_within_the_delivery() {
    for (verb, mishap, round) in [
        ("create", Mishap::TimesOut, ""),
        ("write", Mishap::TimesOut, ""),
        ("propose", Mishap::TimesOut, ""),
        ("approve", Mishap::TimesOut, ""),
        ("create", Mishap::HalfCreated, ""),
        ("write", Mishap::Stale, ""),
        ("propose", Mishap::Stale, ""),
        ("approve", Mishap::Stale, ""),
        ("create", Mishap::SourceForgotten, ""),
        ("create", Mishap::LosesCreated, "-1"),
        ("propose", Mishap::LosesProposed, "-1"),
    ] {
        let bench = Bench::new();
        let answer = second(&bench, |bench| bench.porch.next(verb, mishap));
        let name = format!("packages.scale-ran-a-web.i-2-e3b0c442{round}");
        assert_eq!(confirmed(&answer), format!("{name} Published 2"), "{verb} {mishap:?}");
        let first = "packages.scale-ran-a-web.i-1-e3b0c442 Published 1".to_owned();
        assert_eq!(
            bench.porch.revisions(),
            [first, format!("{name} Published 2")],
            "{verb} {mishap:?}"
        );
    }
}

#[test]
fn a_busy_object_is_tried_again_later_and_goes_on_from_there() {
    for verb in ["create", "write", "propose", "approve"] {
        let bench = Bench::new();
        let mut sink = bench.approving();
        bench.porch.next(verb, Mishap::Busy);
        let job = numbered(1, "web", 3);
        let answer = deliver_one(&mut sink, &job);
        let message = failed(&answer, Code::SinkUnavailable, Retry::Later);
        assert!(message.contains("another request is already in progress"), "{message}");
        let again = deliver_one(&mut sink, &job);
        assert_eq!(
            confirmed(&again).split(' ').nth(1),
            Some("Published"),
            "{verb}: {:?}",
            bench.porch.revisions()
        );
        assert_eq!(bench.porch.revisions().len(), 1, "{verb}");
    }
}

#[test]
fn a_revision_that_was_overtaken_is_made_anew_from_the_newest() {
    let bench = Bench::new();
    // Somebody publishes between our creation and our proposal.
    let answer = second(&bench, |bench| bench.porch.next("write", Mishap::Overtaken));
    assert_eq!(confirmed(&answer), "packages.scale-ran-a-web.i-2-e3b0c442 Published 3");
    let created: Vec<String> = bench
        .cluster
        .requests()
        .iter()
        .filter(|request| request.method == "POST")
        .map(|request| request.json()["spec"]["tasks"][0]["edit"]["sourceRef"]["name"].to_string())
        .collect();
    assert_eq!(
        created,
        ["null", "\"packages.scale-ran-a-web.i-1-e3b0c442\"", "\"packages.scale-ran-a-web.v2\""]
    );
}

#[test]
fn each_refusal_of_a_creation_has_its_code() {
    for (status, message, code, retry) in [
        (
            500,
            "Internal error occurred: package path \"P/x\" conflicts with existing package \"P\": packages cannot be nested",
            Code::PackageConflict,
            Retry::Never,
        ),
        (
            500,
            "Internal error occurred: failed to close package revision draft: command error on refs/heads/drafts/P/W: pre-receive hook declined",
            Code::SinkUnavailable,
            Retry::Later,
        ),
        (
            500,
            "Internal error occurred: fetch of remote repository default:R::main with retry failed: connection refused",
            Code::SinkUnavailable,
            Retry::Later,
        ),
        (
            403,
            "packagerevisions.porch.kpt.dev is forbidden: User \"bob\" cannot create resource \"packagerevisions\"",
            Code::Forbidden,
            Retry::Later,
        ),
        (
            404,
            "repositories.config.porch.kpt.dev \"packages\" not found",
            Code::RepositoryNotReady,
            Retry::Later,
        ),
        (404, "namespaces \"default\" not found", Code::RepositoryNotReady, Retry::Later),
        (
            422,
            "PackageRevision.porch.kpt.dev \"\" is invalid: spec.packageName: Invalid value",
            Code::AdmissionDenied,
            Retry::Never,
        ),
        (413, "Request entity too large: limit is 6291456", Code::AdmissionDenied, Retry::Never),
        (
            410,
            "repository \"packages\" is managed by v1alpha2; use the v1alpha2 API",
            Code::RepositoryNotReady,
            Retry::Never,
        ),
    ] {
        let bench = Bench::new();
        let answer = second(&bench, |bench| bench.cluster.fail(said(status, message).on("POST")));
        failed(&answer, code, retry);
        assert_eq!(bench.porch.revisions().len(), 1, "{message}");
    }
}

#[test]
fn what_is_no_status_is_told_in_its_own_words() {
    let bench = Bench::new();
    let answer = second(&bench, |bench| {
        bench.cluster.fail(Fault::status(503, "service unavailable\n").on("POST"));
    });
    assert_eq!(
        failed(&answer, Code::SinkUnavailable, Retry::Later),
        "cannot create a revision of package `scale-ran-a-web`: service unavailable"
    );
    let bench = Bench::new();
    bench.cluster.fail(Fault::status(404, "404 page not found\n"));
    let answer = deliver_one(&mut bench.approving(), &job("web", 3));
    assert_eq!(
        failed(&answer, Code::RepositoryNotReady, Retry::Later),
        "cannot read repository `packages`: the server has no Porch (porch.kpt.dev/v1alpha1)"
    );
}

#[test]
fn what_cannot_be_rendered_is_parked_with_porchs_words() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    done(&deliver_one(&mut sink, &numbered(1, "web", 3)));
    bench.porch.set_file("packages.scale-ran-a-web.i-1-e3b0c442", "bad.yaml", "a: b\n");
    let answer = deliver_one(&mut sink, &numbered(2, "web", 4));
    let message = failed(&answer, Code::RenderFailed, Retry::Never);
    assert!(message.contains("bad.yaml: resource must have `apiVersion`"), "{message}");

    let bench = Bench::new();
    bench.porch.pipeline(|files| {
        if let Some(text) = files.get_mut("deployment.yaml") {
            *text = text.replace("replicas: 4", "replicas: 2");
        }
    });
    let answer = second(&bench, |_| {});
    assert_eq!(
        failed(&answer, Code::RenderFailed, Retry::Never),
        "Porch renders `packages.scale-ran-a-web.i-2-e3b0c442`: it makes something else of \
         deployment.yaml"
    );
}

#[test]
fn a_repository_that_is_not_ready_or_not_for_us_is_named_by_probe_and_delivery() {
    let bench = Bench::new();
    let mut sink = bench.approving();
    sink.probe().unwrap();
    let migrated = json!({"porch.kpt.dev/v1alpha2-migration": "true"});
    for (unready, annotations, retry, message) in [
        (
            Some("cannot fetch"),
            json!({}),
            Retry::Later,
            "repository `packages` is not ready: cannot fetch",
        ),
        (
            None,
            migrated,
            Retry::Never,
            "repository `packages` is served as v1alpha2 only, which is not supported; remove its \
             annotation `porch.kpt.dev/v1alpha2-migration`, or use another repository",
        ),
    ] {
        bench.porch.repository(REPOSITORY, unready, annotations);
        let fault = sink.probe().unwrap_err();
        assert_eq!((fault.code, fault.message.as_str()), (Code::RepositoryNotReady, message));
        let answer = deliver_one(&mut bench.approving(), &job("web", 3));
        assert_eq!(failed(&answer, Code::RepositoryNotReady, retry), message);
    }
    bench.porch.remove_repository(REPOSITORY);
    let fault = sink.probe().unwrap_err();
    assert_eq!((fault.code, fault.retry), (Code::RepositoryNotReady, Retry::Later));
    assert!(bench.porch.revisions().is_empty());
}

#[test]
fn a_draft_of_somebody_else_is_refused_and_left() {
    let bench = Bench::new();
    let words = "Internal error occurred: package \"P\" already exists in repository \"R\"";
    bench.cluster.fail(said(500, words).on("POST").times(2));
    let answer = deliver_one(&mut bench.approving(), &job("web", 3));
    assert_eq!(
        failed(&answer, Code::PackageConflict, Retry::Later),
        "package `scale-ran-a-web` is there as a draft of somebody else; publish or remove it"
    );
}

#[test]
fn a_package_that_stands_on_the_branch_without_a_revision_is_copied_from_there() {
    let bench = Bench::new();
    let package = job("web", 3).package;
    let files: Vec<(&str, &str)> =
        package.files.iter().map(|file| (file.name, file.text.as_str())).collect();
    let published = bench.porch.publish(REPOSITORY, "scale-ran-a-web", &files);
    bench.porch.forget(&published);
    let same = deliver_one(&mut bench.approving(), &numbered(2, "web", 3));
    assert_eq!(confirmed(&same), "packages.scale-ran-a-web.main Published unchanged");
    let answer = deliver_one(&mut bench.approving(), &numbered(3, "web", 4));
    assert_eq!(confirmed(&answer), "packages.scale-ran-a-web.i-3-e3b0c442 Published 1");
}
