//! The decisions, without a server: what is asked for next, whatever was seen before.

use std::sync::LazyLock;

use super::decide::{Decision, decide};
use super::seen::{Lifecycle, Look, Note, Origin, Revision, Seen, Stage, Texts};
use super::wanted::{Content, Plan, Wanted, closed_gate};
use crate::compose::edit::Files;
use crate::compose::{Package, Settings, compose};
use crate::config::PorchPolicy;
use crate::model::{Code, Intent, Seq};

const SOURCE: &str = "r.p.old";

static INTENT: LazyLock<Intent> = LazyLock::new(|| {
    let text = r#"{"intent_type":"scaling","target":"a","namespace":"n","replicas":5}"#;
    serde_json::from_str(text).unwrap()
});
static PACKAGE: LazyLock<Package> =
    LazyLock::new(|| compose(&INTENT, &Settings::default()).unwrap());

fn wanted(policy: PorchPolicy) -> Wanted<'static> {
    Wanted {
        seq: Seq(7),
        ledger: "x",
        intent: &INTENT,
        package: "p",
        policy,
        approval: None,
        content: Content::Own(&PACKAGE),
        is_first: false,
    }
}

fn editing() -> Wanted<'static> {
    let content = Content::Edit { kind: "Deployment", key: &PACKAGE.key };
    Wanted { content, ..wanted(PorchPolicy::Approve) }
}

/// A published revision that we made long ago.
fn latest() -> Revision {
    Revision {
        name: SOURCE.to_owned(),
        version: "1".to_owned(),
        lifecycle: Lifecycle::Published,
        number: 3,
        is_latest: true,
        is_going: false,
        owner: None,
        target: None,
        intent: Some("2@x".to_owned()),
        digest: None,
        source: None,
        approval: None,
        origin: None,
    }
}

/// A revision for an intent of ours.
fn ours(seq: u64, lifecycle: Lifecycle) -> Revision {
    Revision {
        name: format!("r.p.i-{seq}"),
        lifecycle,
        number: 0,
        is_latest: false,
        intent: Some(format!("{seq}@x")),
        digest: Some(PACKAGE.digest.to_string()),
        source: Some(SOURCE.to_owned()),
        ..latest()
    }
}

fn texts(files: Files) -> Texts {
    Texts { version: "1".to_owned(), files, ..Texts::default() }
}

/// Just what is wanted.
fn right() -> Texts {
    let files = PACKAGE.files.iter().map(|file| (file.name.to_owned(), file.text.clone()));
    texts(files.collect())
}

/// A package of ours with another number.
fn old() -> Texts {
    let mut texts = right();
    let text = texts.files["deployment.yaml"].replace("replicas: 5", "replicas: 4");
    texts.files.insert("deployment.yaml".to_owned(), text);
    texts
}

fn note(step: Stage) -> Note {
    Note { step, round: 0, source: Some(SOURCE.to_owned()), waited_seconds: 0 }
}

fn seen_with_latest(files: Texts) -> Seen {
    Seen {
        unpublished: Some(Vec::new()),
        latest: Look::Found(latest()),
        latest_files: Some(files),
        ..Seen::default()
    }
}

fn seen_with_own(lifecycle: Lifecycle, files: Option<Texts>) -> Seen {
    let own = Look::Found(ours(7, lifecycle));
    Seen { own, own_files: files, ..seen_with_latest(old()) }
}

#[track_caller]
fn refused(decision: Decision, code: Code) -> String {
    match decision {
        Decision::Refuse(fault) => {
            assert_eq!(fault.code, code, "{}", fault.message);
            fault.message
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_first_delivery_looks_before_it_creates() {
    let wanted = wanted(PorchPolicy::Approve);
    let mut seen = Seen::default();
    assert_eq!(decide(&seen, &wanted, None), Decision::ListOurs);
    seen.unpublished = Some(Vec::new());
    assert_eq!(decide(&seen, &wanted, None), Decision::FindLatest);
    seen.latest = Look::Absent;
    assert_eq!(decide(&seen, &wanted, None), Decision::Create { round: 0, source: None });
    seen.latest = Look::Found(latest());
    assert_eq!(decide(&seen, &wanted, None), Decision::ReadLatest { name: SOURCE.to_owned() });
    seen.latest_files = Some(old());
    assert_eq!(
        decide(&seen, &wanted, None),
        Decision::Create { round: 0, source: Some(SOURCE.to_owned()) }
    );
}

#[test]
fn the_first_intent_of_a_target_looks_at_everything_at_once() {
    let first = Wanted { is_first: true, ..wanted(PorchPolicy::Approve) };
    let mut seen = Seen::default();
    assert_eq!(decide(&seen, &first, None), Decision::Survey);
    // A part of it that did not hold is looked at by itself.
    seen.unpublished = Some(Vec::new());
    assert_eq!(decide(&seen, &first, None), Decision::FindLatest);
    (seen.unpublished, seen.latest) = (None, Look::Absent);
    assert_eq!(decide(&seen, &first, None), Decision::ListOurs);
}

#[test]
fn what_is_published_already_makes_no_revision() {
    let wanted = wanted(PorchPolicy::Approve);
    let seen = seen_with_latest(right());
    let done = |unchanged| Decision::Done { revision: Box::new(latest()), unchanged };
    assert_eq!(decide(&seen, &wanted, None), done(true));
    let kept = note(Stage::Clear);
    assert_eq!(decide(&seen, &wanted, Some(&kept)), done(false), "something was removed for it");
}

#[test]
fn a_noted_write_is_looked_up_and_never_repeated_blindly() {
    let wanted = wanted(PorchPolicy::Approve);
    for step in [
        Stage::Create,
        Stage::Adopt,
        Stage::Write,
        Stage::Annotate,
        Stage::Wait,
        Stage::Propose,
        Stage::Approve,
        Stage::Restart,
    ] {
        let kept = Note { round: 2, ..note(step) };
        let next = decide(&Seen::default(), &wanted, Some(&kept));
        assert_eq!(next, Decision::Get { round: 2 }, "{step:?}");
    }
}

#[test]
fn a_cycle_goes_from_draft_to_published() {
    let wanted = wanted(PorchPolicy::Approve);
    let kept = note(Stage::Create);
    let mut seen = seen_with_own(Lifecycle::Draft, Some(old()));
    let draft = || Box::new(ours(7, Lifecycle::Draft));
    let changes =
        Files::from([("deployment.yaml".to_owned(), right().files["deployment.yaml"].clone())]);
    let next = decide(&seen, &wanted, Some(&kept));
    assert_eq!(next, Decision::Write { revision: draft(), changes, checks: true });

    (seen.own_files, seen.has_written) = (Some(right()), true);
    let kept = note(Stage::Write);
    let next = decide(&seen, &wanted, Some(&kept));
    assert_eq!(next, Decision::CheckSource { source: Some(SOURCE.to_owned()) });
    seen.is_source_latest = Some(true);
    let next = decide(&seen, &wanted, Some(&kept));
    assert_eq!(next, Decision::Propose { revision: draft() });

    seen.own = Look::Found(ours(7, Lifecycle::Proposed));
    let next = decide(&seen, &wanted, Some(&note(Stage::Propose)));
    assert_eq!(next, Decision::Approve { revision: Box::new(ours(7, Lifecycle::Proposed)) });
    seen.own = Look::Found(ours(7, Lifecycle::Published));
    let next = decide(&seen, &wanted, Some(&note(Stage::Approve)));
    let revision = Box::new(ours(7, Lifecycle::Published));
    assert_eq!(next, Decision::Done { revision, unchanged: false });
}

#[test]
fn each_policy_stops_where_it_says() {
    for (policy, lifecycle) in
        [(PorchPolicy::Draft, Lifecycle::Draft), (PorchPolicy::Propose, Lifecycle::Proposed)]
    {
        let seen = seen_with_own(lifecycle, Some(right()));
        let next = decide(&seen, &wanted(policy), Some(&note(Stage::Write)));
        let revision = Box::new(ours(7, lifecycle));
        assert_eq!(next, Decision::Done { revision, unchanged: false }, "{policy:?}");
    }
}

#[test]
fn an_approval_annotation_is_put_on_when_the_files_are_right() {
    let wanted = Wanted { approval: Some("always"), ..wanted(PorchPolicy::Draft) };
    let mut seen = seen_with_own(Lifecycle::Draft, Some(old()));
    let next = decide(&seen, &wanted, Some(&note(Stage::Create)));
    assert!(matches!(next, Decision::Write { .. }), "{next:?}");
    seen.own_files = Some(right());
    let next = decide(&seen, &wanted, Some(&note(Stage::Write)));
    assert!(matches!(next, Decision::Annotate { .. }), "{next:?}");
    let annotated = Revision { approval: Some("always".to_owned()), ..ours(7, Lifecycle::Draft) };
    seen.own = Look::Found(annotated);
    let next = decide(&seen, &wanted, Some(&note(Stage::Annotate)));
    assert!(matches!(next, Decision::Done { .. }), "{next:?}");
}

#[test]
fn a_lost_draft_is_made_again_under_another_name() {
    let wanted = wanted(PorchPolicy::Approve);
    let create = |round| Decision::Create { round, source: Some(SOURCE.to_owned()) };
    let mut seen = Seen { own: Look::Absent, ..seen_with_latest(old()) };
    assert_eq!(decide(&seen, &wanted, Some(&note(Stage::Create))), create(0), "it never was");
    assert_eq!(decide(&seen, &wanted, Some(&note(Stage::Restart))), create(0), "we deleted it");
    assert_eq!(decide(&seen, &wanted, Some(&note(Stage::Propose))), create(1));
    seen.is_lost = true;
    assert_eq!(decide(&seen, &wanted, Some(&note(Stage::Create))), create(1));
    assert_ne!(wanted.workspace(0), wanted.workspace(1));
}

#[test]
fn a_published_revision_that_porch_does_not_show_any_more_is_still_found_by_its_files() {
    let seen = Seen { own: Look::Absent, ..seen_with_latest(right()) };
    let next = decide(&seen, &wanted(PorchPolicy::Approve), Some(&note(Stage::Approve)));
    assert_eq!(next, Decision::Done { revision: Box::new(latest()), unchanged: false });
}

#[test]
fn a_draft_of_what_is_not_the_newest_is_deleted_and_made_anew() {
    let wanted = wanted(PorchPolicy::Approve);
    let mut seen = seen_with_own(Lifecycle::Proposed, Some(right()));
    seen.is_source_latest = Some(false);
    let kept = note(Stage::Propose);
    let next = decide(&seen, &wanted, Some(&kept));
    let revision = Box::new(ours(7, Lifecycle::Proposed));
    assert_eq!(next.stage(&wanted), Some(Stage::Restart));
    assert_eq!(next, Decision::Withdraw { revision }, "nobody is to publish it meanwhile");
    seen.own = Look::Found(ours(7, Lifecycle::Draft));
    let next = decide(&seen, &wanted, Some(&note(Stage::Restart)));
    assert_eq!(next, Decision::Delete { revision: Box::new(ours(7, Lifecycle::Draft)) });
}

#[test]
fn what_others_proposed_of_ours_with_other_files_is_taken_back_first() {
    let seen = seen_with_own(Lifecycle::Proposed, Some(old()));
    let next = decide(&seen, &wanted(PorchPolicy::Propose), Some(&note(Stage::Create)));
    assert_eq!(next, Decision::Withdraw { revision: Box::new(ours(7, Lifecycle::Proposed)) });
    let unread = seen_with_own(Lifecycle::Proposed, None);
    let next = decide(&unread, &wanted(PorchPolicy::Propose), Some(&note(Stage::Create)));
    assert!(matches!(next, Decision::ReadOwn { .. }), "{next:?}");
}

#[test]
fn superseded_revisions_of_ours_go_and_those_of_others_stay() {
    let wanted = wanted(PorchPolicy::Propose);
    let mut seen = seen_with_latest(old());
    let stale = |lifecycle| Revision { digest: None, ..ours(5, lifecycle) };
    seen.unpublished = Some(vec![stale(Lifecycle::Proposed)]);
    let next = decide(&seen, &wanted, None);
    assert_eq!(next.stage(&wanted), Some(Stage::Clear));
    assert_eq!(next, Decision::Withdraw { revision: Box::new(stale(Lifecycle::Proposed)) });
    seen.unpublished = Some(vec![stale(Lifecycle::Draft)]);
    let next = decide(&seen, &wanted, None);
    assert_eq!(next, Decision::Delete { revision: Box::new(stale(Lifecycle::Draft)) });
    let foreign =
        |intent: &str| Revision { intent: Some(intent.to_owned()), ..stale(Lifecycle::Draft) };
    seen.unpublished = Some(vec![foreign("5@other"), foreign("8@x"), foreign("odd")]);
    let next = decide(&seen, &wanted, None);
    assert!(matches!(next, Decision::Create { .. }), "{next:?}");
}

#[test]
fn an_earlier_proposal_that_wants_the_same_counts_where_the_policy_stops_there() {
    let mut seen = seen_with_latest(old());
    let earlier = ours(5, Lifecycle::Proposed);
    seen.unpublished = Some(vec![earlier.clone()]);
    let propose = wanted(PorchPolicy::Propose);
    let next = decide(&seen, &propose, None);
    assert_eq!(next, Decision::ReadCandidate { name: earlier.name.clone() });
    seen.candidate = Some((earlier.name.clone(), right()));
    let next = decide(&seen, &propose, None);
    assert_eq!(next, Decision::Done { revision: Box::new(earlier.clone()), unchanged: true });

    seen.candidate = Some((earlier.name.clone(), old()));
    let next = decide(&seen, &propose, None);
    assert!(matches!(next, Decision::Withdraw { .. }), "its files were changed: {next:?}");
    let next = decide(&seen, &wanted(PorchPolicy::Approve), None);
    assert!(matches!(next, Decision::Withdraw { .. }), "it is to be published: {next:?}");
    let outdated = Revision { source: Some("r.p.older".to_owned()), ..earlier };
    seen.unpublished = Some(vec![outdated]);
    let next = decide(&seen, &propose, None);
    assert!(matches!(next, Decision::Withdraw { .. }), "it would undo another: {next:?}");
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    let approve = wanted(PorchPolicy::Approve);
    let foreign = Revision { intent: None, ..ours(7, Lifecycle::Draft) };
    let seen = Seen { own: Look::Found(foreign), ..Seen::default() };
    let message =
        refused(decide(&seen, &approve, Some(&note(Stage::Create))), Code::PackageConflict);
    assert_eq!(message, "revision `r.p.i-7` is not ours; remove it, then retry");

    let mut bare = old();
    bare.files.remove("intent.yaml");
    let message = refused(decide(&seen_with_latest(bare), &approve, None), Code::PackageConflict);
    assert!(message.contains("is there already and has no intent.yaml"), "{message}");

    let mut other = old();
    let text = other.files["intent.yaml"].replace(r#""target":"a""#, r#""target":"b""#);
    other.files.insert("intent.yaml".to_owned(), text);
    let message = refused(decide(&seen_with_latest(other), &approve, None), Code::PackageConflict);
    assert!(message.contains("is the package of scaling n/b"), "{message}");

    let mut seen = seen_with_latest(old());
    let made = Revision { owner: Some("PackageVariant `v`".to_owned()), ..latest() };
    seen.latest = Look::Found(made);
    for wanted in [approve, editing()] {
        let message = refused(decide(&seen, &wanted, None), Code::PackageConflict);
        assert_eq!(
            message,
            "package `p` is made by the PackageVariant `v`, which would undo the change; change \
             that instead"
        );
    }
}

#[test]
fn what_a_creation_that_was_cut_off_has_left_is_taken_up() {
    let wanted = wanted(PorchPolicy::Approve);
    let copy = |source: &str| Some(Origin::Copy { source: source.to_owned() });
    let bare = |origin| Revision { intent: None, origin, ..ours(7, Lifecycle::Draft) };
    let decided = |revision: &Revision, note: Option<&Note>| {
        let seen = Seen { own: Look::Found(revision.clone()), ..Seen::default() };
        decide(&seen, &wanted, note)
    };
    let kept = note(Stage::Create);
    let half = bare(copy(SOURCE));
    let adopt = Decision::Adopt { revision: Box::new(half.clone()), source: kept.source.clone() };
    assert_eq!(decided(&half, Some(&kept)), adopt);
    let first = Note { source: None, ..kept.clone() };
    let description = "scaling of n/a (intent 7@x)".to_owned();
    let half = bare(Some(Origin::New { description }));
    let adopt = Decision::Adopt { revision: Box::new(half.clone()), source: None };
    assert_eq!(decided(&half, Some(&first)), adopt);

    refused(decided(&bare(copy("r.p.other")), Some(&kept)), Code::PackageConflict);
    refused(decided(&bare(None), Some(&kept)), Code::PackageConflict);
    refused(decided(&bare(copy(SOURCE)), None), Code::PackageConflict);
    let marked = Revision { intent: Some("7@y".to_owned()), ..bare(copy(SOURCE)) };
    refused(decided(&marked, Some(&kept)), Code::PackageConflict);
}

#[test]
fn what_cannot_be_rendered_is_refused_and_not_written_twice() {
    let wanted = wanted(PorchPolicy::Approve);
    let mut seen = seen_with_own(Lifecycle::Draft, Some(old()));
    seen.has_written = true;
    let message = refused(decide(&seen, &wanted, Some(&note(Stage::Write))), Code::RenderFailed);
    assert_eq!(message, "Porch renders `r.p.i-7`: it makes something else of deployment.yaml");
    seen.own_files = Some(Texts { render_error: Some("no".to_owned()), ..right() });
    let message = refused(decide(&seen, &wanted, Some(&note(Stage::Write))), Code::RenderFailed);
    assert_eq!(message, "Porch renders `r.p.i-7`: no");
    seen.has_written = false;
    seen.own_files = Some(Texts { render_error: Some("no".to_owned()), ..old() });
    let next = decide(&seen, &wanted, Some(&note(Stage::Create)));
    assert!(matches!(next, Decision::Write { .. }), "it may be mended by our files: {next:?}");
}

#[test]
fn a_closed_gate_is_waited_for_before_proposing() {
    let kptfile = |status: &str| {
        Files::from([(
            "Kptfile".to_owned(),
            format!(
                "kind: Kptfile\ninfo:\n  readinessGates:\n  - conditionType: a.b\n  - conditionType: \
                 c.d\nstatus:\n  conditions:\n  - type: a.b\n    status: \"True\"\n  - type: c.d\n    \
                 status: \"{status}\"\n"
            ),
        )])
    };
    assert_eq!(closed_gate(&kptfile("False")).as_deref(), Some("c.d"));
    assert_eq!(closed_gate(&kptfile("True")), None);
    assert_eq!(closed_gate(&right().files), None);

    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\n  namespace: \
                      n\nspec:\n  replicas: 5\n";
    let gated = |status| {
        let mut files = kptfile(status);
        files.insert("deployment.yaml".to_owned(), deployment.to_owned());
        texts(files)
    };
    let mut seen = seen_with_own(Lifecycle::Draft, Some(gated("False")));
    seen.is_source_latest = Some(true);
    let next = decide(&seen, &editing(), Some(&note(Stage::Write)));
    assert_eq!(next, Decision::Wait { gate: "c.d".to_owned() });
    seen.own_files = Some(gated("True"));
    let next = decide(&seen, &editing(), Some(&note(Stage::Wait)));
    assert!(matches!(next, Decision::Propose { .. }), "{next:?}");
    let draft = Wanted { policy: PorchPolicy::Draft, ..editing() };
    seen.own_files = Some(gated("False"));
    let next = decide(&seen, &draft, Some(&note(Stage::Write)));
    assert!(matches!(next, Decision::Done { .. }), "a draft needs no gate: {next:?}");
}

#[test]
fn an_edit_needs_a_package_with_the_manifest() {
    let seen = Seen { unpublished: Some(Vec::new()), latest: Look::Absent, ..Seen::default() };
    let message = refused(decide(&seen, &editing(), None), Code::TargetNotFound);
    assert_eq!(message, "package `p` has no published revision");
    let empty = seen_with_latest(texts(Files::new()));
    let message = refused(decide(&empty, &editing(), None), Code::TargetNotFound);
    assert_eq!(message, "package `p`: no manifest of Deployment n/a is there");
}

#[test]
fn files_of_others_and_the_status_of_a_kptfile_do_not_count() {
    let mut texts = right();
    texts.files.insert("README.md".to_owned(), "x".to_owned());
    let rendered = format!("{}status:\n  conditions: []\n", texts.files["Kptfile"]);
    texts.files.insert("Kptfile".to_owned(), rendered);
    assert_eq!(wanted(PorchPolicy::Approve).plan(&texts.files, false), Plan::Same);
}

#[test]
fn names_and_labels_are_stable_and_fit() {
    let long = Wanted {
        seq: Seq(u64::MAX),
        ledger: "0190f4b5-5e00-7b53-8f3e-000000000000",
        ..wanted(PorchPolicy::Approve)
    };
    assert_eq!(long.workspace(u32::MAX), long.workspace(u32::MAX));
    assert!(long.workspace(u32::MAX).len() <= 63, "{}", long.workspace(u32::MAX));
    assert_eq!(wanted(PorchPolicy::Approve).workspace(0), "i-7-2d711642");
    assert_ne!(long.target(), wanted(PorchPolicy::Approve).target(), "another ledger");
    assert_eq!(long.target().len(), 16);
}

#[test]
fn a_document_that_names_another_repository_or_package_is_refused() {
    let text = r#"{"intent_type":"scaling","target":"a","namespace":"n","replicas":5,
        "constraints":{"porch_repository":"edge","kpt_package_name":"nf"}}"#;
    let intent: Intent = serde_json::from_str(text).unwrap();
    let own = Wanted { intent: &intent, ..wanted(PorchPolicy::Approve) };
    assert_eq!(own.refusal("edge"), None);
    let fault = own.refusal("core").unwrap();
    assert_eq!(fault.code, Code::Constraint);
    assert_eq!(
        fault.message,
        "`constraints.porch_repository` is `edge`, and this sink writes to `core`"
    );
    let edit = Wanted { intent: &intent, ..editing() };
    let fault = edit.refusal("edge").unwrap();
    assert_eq!(fault.message, "`constraints.kpt_package_name` is `nf`, and this sink edits `p`");
    assert_eq!(Wanted { package: "nf", ..edit }.refusal("edge"), None);
}
