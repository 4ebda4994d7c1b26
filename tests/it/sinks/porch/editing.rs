//! Mode `edit`: one number in a package that is there.

use super::*;

const PACKAGE: &str = "edge/nf";

const KPTFILE: &str = "apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata:\n  name: nf\n";

const DEPLOYMENT: &str = "# The simulator.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # not the website
  namespace: ran-a
spec:
  replicas: 2 # at night
  template: {}
";

fn editing(bench: &Bench) -> PorchSettings {
    let edit_package = Some(PACKAGE.to_owned());
    PorchSettings { edit_package, ..bench.settings(PorchPolicy::Approve) }
}

fn with(files: &[(&str, &str)]) -> (Bench, String) {
    let bench = Bench::new();
    let name = bench.porch.publish(REPOSITORY, PACKAGE, files);
    (bench, name)
}

#[test]
fn one_number_changes_and_nothing_else() {
    let files = [("Kptfile", KPTFILE), ("nf.yaml", DEPLOYMENT), ("notes.txt", "a\r\nb")];
    let (bench, _) = with(&files);
    let mut sink = bench.sink(&editing(&bench));
    let answer = deliver_one(&mut sink, &numbered(1, "web", 5));
    let name = "packages.edge.nf.i-1-e3b0c442";
    assert_eq!(confirmed(&answer), format!("{name} Published 2"));
    let edited = DEPLOYMENT.replace("replicas: 2", "replicas: 5");
    assert_eq!(bench.porch.file(name, "nf.yaml"), Some(edited));
    assert_eq!(bench.porch.file(name, "notes.txt").as_deref(), Some("a\r\nb"));
    assert_eq!(bench.porch.file(name, "Kptfile").as_deref(), Some(KPTFILE));
    let again = deliver_one(&mut sink, &numbered(2, "web", 5));
    assert_eq!(confirmed(&again), format!("{name} Published 2 unchanged"));
}

#[test]
fn what_owns_the_number_is_named() {
    let setter = DEPLOYMENT.replace("# at night", "# kpt-set: ${count}");
    for (files, code, words) in [
        (vec![("a.yaml", setter.as_str())], Code::FieldConflict, "the kpt setter `${count}`"),
        (
            vec![("a.yaml", DEPLOYMENT), ("b.yaml", DEPLOYMENT)],
            Code::TargetAmbiguous,
            "two manifests of Deployment ran-a/web are there: a.yaml and b.yaml",
        ),
        (vec![("a.txt", DEPLOYMENT)], Code::TargetNotFound, "no manifest of Deployment ran-a/web"),
    ] {
        let (bench, name) = with(&files);
        let answer = deliver_one(&mut bench.sink(&editing(&bench)), &job("web", 5));
        let message = failed(&answer, code, Retry::Never);
        assert!(message.starts_with("package `edge/nf`: "), "{message}");
        assert!(message.contains(words), "{message}");
        assert_eq!(bench.porch.revisions(), [format!("{name} Published 1")]);
    }
}

#[test]
fn a_package_that_another_controller_makes_is_refused_by_its_name() {
    let (bench, name) = with(&[("nf.yaml", DEPLOYMENT)]);
    bench.porch.mark(&name, json!({"ownerReferences": [{"kind": "PackageVariant", "name": "v"}]}));
    let answer = deliver_one(&mut bench.sink(&editing(&bench)), &job("web", 5));
    assert_eq!(
        failed(&answer, Code::PackageConflict, Retry::Never),
        "package `edge/nf` is made by the PackageVariant `v`, which would undo the change; change \
         that instead"
    );
}

#[test]
fn a_package_that_is_not_there_and_an_intent_that_scales_nothing_are_refused() {
    let bench = Bench::new();
    let mut sink = bench.sink(&editing(&bench));
    let answer = deliver_one(&mut sink, &job("web", 5));
    assert_eq!(
        failed(&answer, Code::TargetNotFound, Retry::Never),
        "package `edge/nf` has no published revision"
    );
    let mut configuration = job("web", 5);
    configuration.intent.intent_type = intentd::model::IntentType::Configuration;
    let answer = deliver_one(&mut sink, &configuration);
    assert_eq!(
        failed(&answer, Code::UnsupportedIntent, Retry::Never),
        "the mode `edit` carries out scaling intents, and no configuration ones"
    );
}

#[test]
fn a_closed_readiness_gate_is_waited_for_and_then_named() {
    let gated = |status: &str| {
        format!(
            "{KPTFILE}info:\n  readinessGates:\n  - conditionType: nephio.org/ready\nstatus:\n  \
             conditions:\n  - type: nephio.org/ready\n    status: \"{status}\"\n"
        )
    };
    let (bench, _) = with(&[("Kptfile", &gated("False")), ("nf.yaml", DEPLOYMENT)]);
    let mut sink = bench.sink(&editing(&bench));
    let mut job = numbered(1, "web", 5);
    let mut waited = Duration::ZERO;
    let fault = loop {
        match deliver_one(&mut sink, &job) {
            Answer::Pending { step, again } => {
                job.step = Some(step);
                waited += again;
            }
            answer => break answer,
        }
    };
    assert_eq!(
        failed(&fault, Code::RepositoryNotReady, Retry::Never),
        format!(
            "the readiness gate `nephio.org/ready` of package `edge/nf` was still closed after {} s",
            waited.as_secs()
        )
    );
    let name = "packages.edge.nf.i-1-e3b0c442";
    bench.porch.set_file(name, "Kptfile", &gated("True"));
    let answer = deliver_one(&mut sink, &job);
    assert_eq!(confirmed(&answer), format!("{name} Published 2"));
}
