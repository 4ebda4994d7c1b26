//! The mode `edit`, on a repository as a GitOps team has it.

use intentd::model::{Code, IntentType};
use intentd::sink::git::compare;
use intentd::sink::{Change, Comparison, Retry};

use super::super::{deliver, done, failed};
use super::{Bench, git, git_is_missing, numbered};

const DEPLOYMENT: &str = "\
# Owned by the RAN team. replicas: see the runbook!
apiVersion: apps/v1
kind: Deployment
metadata:
    name:      nf-sim   # not quoted, on purpose
    namespace: \"ran-a\"
    annotations: {note: \"replicas: 3\"}
spec:
    # scaled by hand until the autoscaler is there
    replicas:  3    # was 2
    selector: {matchLabels: {app: nf-sim}}
    template:
        metadata: {labels: {app: nf-sim}}
        spec:
            containers:
            - name: sim
              image: 'example.org/nf-sim:1.4'
              args: [\"--replicas\", \"3\"]
---
apiVersion: v1
kind: Service
metadata: {name: nf-sim, namespace: ran-a}
";

const OTHER: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: other\n  namespace: \
                     ran-a\nspec:\n  replicas: 1 # kpt-set: ${other-replicas}\n";

#[test]
fn one_number_is_changed_and_refusals_are_named() {
    if git_is_missing() {
        return;
    }
    let twice =
        OTHER.replace("name: other", "name: twice").replace(" # kpt-set: ${other-replicas}", "");
    let bench = Bench::with(&[
        ("clusters/edge/ran/nf-sim.yaml", DEPLOYMENT),
        ("clusters/edge/ran/other.yaml", OTHER),
        ("clusters/edge/ran/twice.yaml", &twice),
        ("clusters/edge/more/twice.yaml", &twice),
        ("elsewhere/nf-sim.yaml", DEPLOYMENT),
        ("clusters/edge/chart/templates/nf-sim.yaml", "{{- if .nf-sim }}\n{{ x }}\n"),
    ]);
    let mut sink = bench.sink_with(|settings| {
        settings.edits = true;
        settings.path = "clusters/edge".to_owned();
    });
    let mut deployment = numbered(5, "nf-sim", 9);
    deployment.intent.intent_type = IntentType::Deployment;
    let jobs = [
        numbered(1, "nf-sim", 7),
        numbered(2, "other", 7),
        numbered(3, "twice", 7),
        numbered(4, "missing", 7),
        deployment,
    ];
    let answers = deliver(&mut sink, &jobs.iter().collect::<Vec<_>>());
    assert_eq!(done(&answers[0]).location, bench.tip());
    let at = "branch `main`, path `clusters/edge`: ";
    assert_eq!(
        failed(&answers[1], Code::FieldConflict, Retry::Never),
        format!(
            "{at}`spec.replicas` of clusters/edge/ran/other.yaml (line 7) is owned by the kpt setter \
             `${{other-replicas}}`; change it there"
        )
    );
    assert_eq!(
        failed(&answers[2], Code::TargetAmbiguous, Retry::Never),
        format!(
            "{at}two manifests of Deployment ran-a/twice are there: clusters/edge/more/twice.yaml and \
             clusters/edge/ran/twice.yaml"
        )
    );
    assert_eq!(
        failed(&answers[3], Code::TargetNotFound, Retry::Never),
        format!("{at}no manifest of Deployment ran-a/missing is there")
    );
    failed(&answers[4], Code::UnsupportedIntent, Retry::Never);
    assert_eq!(bench.subjects(), ["Scale ran-a/nf-sim to 7", "Begin"]);
    let changed = git(&bench.remote(), &["diff", "-U0", "main~", "main"]);
    let lines: Vec<&str> = changed
        .lines()
        .filter(|line| line.starts_with(['+', '-']) && !line.starts_with("+++"))
        .filter(|line| !line.starts_with("---"))
        .collect();
    assert_eq!(lines, ["-    replicas:  3    # was 2", "+    replicas:  7    # was 2"]);
    assert_eq!(bench.text("elsewhere/nf-sim.yaml"), DEPLOYMENT);

    let mut settings = bench.settings();
    (settings.edits, settings.path) = (true, "clusters/edge".to_owned());
    let compared = |replicas| {
        let job = numbered(9, "nf-sim", replicas);
        compare(&settings, &job.intent, &job.package).unwrap()
    };
    assert_eq!(compared(7), Comparison::Same);
    let text = |count: &str| DEPLOYMENT.replace("replicas:  3 ", &format!("replicas:  {count} "));
    assert_eq!(
        compared(50),
        Comparison::Different(vec![Change {
            path: "clusters/edge/ran/nf-sim.yaml".to_owned(),
            before: text("7"),
            after: text("50"),
        }])
    );
    assert_eq!(bench.subjects().len(), 2, "a comparison changes nothing");

    let mut same = numbered(6, "nf-sim", 7);
    same.last = Some(same.package.digest);
    assert!(done(&deliver(&mut sink, &[&same])[0]).unchanged);
    let mut all = bench.sink_with(|settings| {
        settings.edits = true;
        settings.path = ".".to_owned();
    });
    let message = failed(
        &deliver(&mut all, &[&numbered(7, "nf-sim", 8)])[0],
        Code::TargetAmbiguous,
        Retry::Never,
    );
    assert!(message.contains("and elsewhere/nf-sim.yaml"), "{message}");
}

#[test]
fn two_edits_of_one_file_are_both_in_the_commit_and_modes_stay() {
    if git_is_missing() {
        return;
    }
    let one = |name: &str| {
        OTHER
            .replace("name: other", &format!("name: {name}"))
            .replace(" # kpt-set: ${other-replicas}", "")
    };
    let both = format!("{}---\n{}", one("a"), one("b"));
    let bench = Bench::with(&[("all.yaml", &both)]);
    git(&bench.path("other"), &["update-index", "--chmod=+x", "all.yaml"]);
    git(&bench.path("other"), &["commit", "--quiet", "-m", "Mode"]);
    git(&bench.path("other"), &["push", "--quiet", "origin", "HEAD:main"]);
    let mut sink = bench.sink_with(|settings| {
        settings.edits = true;
        settings.path = "all.yaml".to_owned();
    });
    let answers = deliver(&mut sink, &[&numbered(1, "a", 5), &numbered(2, "b", 6)]);
    assert_eq!(done(&answers[0]).location, done(&answers[1]).location);
    assert_eq!(bench.subjects(), ["Deliver 2 intents", "Mode", "Begin"]);
    let expected =
        both.replacen("replicas: 1", "replicas: 5", 1).replacen("replicas: 1", "replicas: 6", 1);
    assert_eq!(bench.text("all.yaml"), expected);
    assert!(git(&bench.remote(), &["ls-tree", "main"]).starts_with("100755 "));
}
