//! Packages as the tools that consume them see them: the real kpt and kubectl, where they are there.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use intentd::compose::{self, Package, Settings, check_template, compose};
use intentd::model::{Code, Intent, IntentType};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

pub const TEMPLATE: &str = "\
# the site's
kind: Deployment
apiVersion: apps/v1
metadata:
  name: replaced
  labels: {team: ran, 'on': \"yes\"}
spec:
  selector:
    matchLabels:
      team: ran
  template:
    metadata:
      labels:
        team: ran
    spec:
      containers:
      - name: nf
        image: registry.example/nf:1.0
        args: ['--motd', \"two\\nlines\\tand 'quotes' #: é\"]
        resources: {limits: {cpu: 500m, memory: 1e3}}
        ports: [{containerPort: 38412, protocol: SCTP}]
";

fn intent(value: Value) -> Intent {
    serde_json::from_value(value).expect("the test's document is an intent")
}

fn kind(intent_type: &str) -> Intent {
    intent(json!({
        "intent_type": intent_type, "target": "nf-sim", "namespace": "ran-a", "replicas": 5,
    }))
}

fn with_image() -> Settings {
    Settings {
        deployment_image: Some("registry.example/nf-sim:1.0".to_owned()),
        ..Settings::default()
    }
}

fn with_template(text: &str) -> Settings {
    Settings { deployment_template: Some(text.to_owned()), ..Settings::default() }
}

#[track_caller]
fn check(intent: &Intent, settings: &Settings, name: &str, expected: &[(&str, &str)]) {
    let package = compose(intent, settings).unwrap();
    assert_eq!(package.name, name);
    assert_eq!(package.key, intent.key());
    let files: Vec<_> = package.files.iter().map(|file| (file.name, file.text.as_str())).collect();
    assert_eq!(files, expected);
}

#[test]
fn a_scaling_package_is_a_partial_deployment() {
    check(
        &kind("scaling"),
        &Settings::default(),
        "scale-ran-a-nf-sim",
        &[
            (
                "Kptfile",
                "\
apiVersion: kpt.dev/v1
kind: Kptfile
metadata:
  name: scale-ran-a-nf-sim
  annotations:
    config.kubernetes.io/local-config: \"true\"
info:
  description: Scale Deployment nf-sim in namespace ran-a to 5 replicas
",
            ),
            (
                "deployment.yaml",
                "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: nf-sim
  namespace: ran-a
  annotations:
    client.lifecycle.config.k8s.io/deletion: detach
spec:
  replicas: 5
",
            ),
            (
                "intent.yaml",
                r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: intent
  annotations:
    config.kubernetes.io/local-config: "true"
data:
  intent.json: '{"intent_type":"scaling","target":"nf-sim","namespace":"ran-a","replicas":5}'
"#,
            ),
        ],
    );
}

#[test]
fn a_deployment_package_is_a_whole_deployment_around_the_sites_image() {
    let package = compose(&kind("deployment"), &with_image()).unwrap();
    assert_eq!(package.name, "deployment-ran-a-nf-sim");
    assert_eq!(
        package.files[1].text,
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: nf-sim
  namespace: ran-a
  labels:
    app.kubernetes.io/name: nf-sim
    app.kubernetes.io/managed-by: intentd
  annotations:
    client.lifecycle.config.k8s.io/deletion: detach
spec:
  replicas: 5
  selector:
    matchLabels:
      app.kubernetes.io/name: nf-sim
  template:
    metadata:
      labels:
        app.kubernetes.io/name: nf-sim
    spec:
      containers:
      - name: nf-sim
        image: registry.example/nf-sim:1.0
"
    );
}

#[test]
fn a_template_wins_over_the_image_and_keeps_all_but_what_is_ours() {
    let mut settings = with_template(TEMPLATE);
    settings.deployment_image = Some("registry.example/unused".to_owned());
    let package = compose(&kind("deployment"), &settings).unwrap();
    let value: Value = serde_saphyr::from_str(&package.files[1].text).unwrap();
    let container = json!({
        "name": "nf",
        "image": "registry.example/nf:1.0",
        "args": ["--motd", "two\nlines\tand 'quotes' #: é"],
        "resources": {"limits": {"cpu": "500m", "memory": 1e3}},
        "ports": [{"containerPort": 38412, "protocol": "SCTP"}],
    });
    assert_eq!(
        value,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "nf-sim",
                "namespace": "ran-a",
                "labels": {
                    "team": "ran",
                    "on": "yes",
                    "app.kubernetes.io/name": "nf-sim",
                    "app.kubernetes.io/managed-by": "intentd",
                },
                "annotations": {"client.lifecycle.config.k8s.io/deletion": "detach"},
            },
            "spec": {
                "replicas": 5,
                "selector": {
                    "matchLabels": {"team": "ran", "app.kubernetes.io/name": "nf-sim"},
                },
                "template": {
                    "metadata": {"labels": {"team": "ran", "app.kubernetes.io/name": "nf-sim"}},
                    "spec": {"containers": [container]},
                },
            },
        })
    );
}

#[test]
fn a_bad_template_is_refused_with_the_field_to_mend() {
    check_template(TEMPLATE).unwrap();
    let without = |line: &str| {
        assert!(TEMPLATE.contains(line), "{line}");
        TEMPLATE.replace(line, "")
    };
    for (template, message) in [
        ("a: [".to_owned(), "parse the deployment template as one YAML document"),
        (format!("{TEMPLATE}---\na: 1\n"), "parse the deployment template as one YAML document"),
        ("- a\n".to_owned(), "has no `kind` that reads Deployment"),
        (without("kind: Deployment\n"), "has no `kind` that reads Deployment"),
        (without("apiVersion: apps/v1\n"), "has no `apiVersion` that reads apps/v1"),
        (without("        image: registry.example/nf:1.0\n"), "`spec.template.spec.containers`"),
        (without("      labels:\n        team: ran\n"), "`spec.template.metadata.labels`"),
        (TEMPLATE.replace("{team: ran, 'on': \"yes\"}", "[1]"), "`metadata.labels`"),
        (TEMPLATE.replace('é', "\u{1f600}"), "U+1F600"),
    ] {
        let error = check_template(&template).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        let parked = compose(&kind("deployment"), &with_template(&template)).unwrap_err();
        assert_eq!(parked.code, Code::NoTemplate, "{template}");
        assert!(parked.message.contains(message), "{parked:?}");
    }
}

#[test]
fn a_configuration_package_tells_the_wish_and_not_who_wished() {
    let intent = intent(json!({
        "intent_type": "configuration", "target": "nf-sim", "namespace": "ran-a", "replicas": 2,
        "reason": "never in the cluster", "correlation_id": "nor this",
        "target_resources": ["slice/é"], "nephio_context": {"workload_cluster": "edge-1"},
    }));
    let package = compose(&intent, &Settings::default()).unwrap();
    assert_eq!(package.name, "configuration-ran-a-nf-sim");
    assert_eq!(package.files[1].name, "configuration.yaml");
    assert_eq!(
        package.files[1].text,
        r#"apiVersion: v1
kind: ConfigMap
metadata:
  name: nf-sim-configuration
  namespace: ran-a
  labels:
    app.kubernetes.io/name: nf-sim
    app.kubernetes.io/managed-by: intentd
data:
  configuration.json: '{"target":"nf-sim","replicas":2,"target_resources":["slice/\u00e9"],"nephio_context":{"workload_cluster":"edge-1"}}'
"#
    );
}

#[test]
fn the_digest_follows_the_bytes() {
    let composed = |value| compose(&intent(value), &Settings::default()).unwrap().digest;
    let plain = json!({"intent_type": "scaling", "target": "a", "namespace": "b", "replicas": 1});
    let mut other = plain.clone();
    other["correlation_id"] = json!("x");
    assert_eq!(composed(plain.clone()), composed(plain.clone()));
    assert_ne!(composed(plain), composed(other));
}

/// Intents whose free text is as hostile as Unicode allows, some of each kind.
fn hostile_intents(count: usize) -> Vec<Intent> {
    let fixed = [
        "no",
        "0x1f",
        "1e3",
        "~",
        "<<",
        "&a",
        "!!python/object:x",
        "---\n",
        "%",
        "y",
        "=",
        "x\n# kpt-set: ${x}",
        "{{ .Values.x }}",
        "$(id)",
        "\tt\n",
        " lead",
        "trail ",
        "a: b #c",
        "\u{7f}\u{80}\u{85}\u{2028}\u{feff}\u{fffe}\u{ffff}",
        "\u{1f600}\u{10ffff}",
        "'\"\\\\'",
        "\r\n",
        "é",
        // What some YAML takes for another type, or for structure.
        "null",
        "true",
        "Yes",
        "off",
        "0o17",
        "0b1",
        "017",
        "1_000",
        "12:30:45",
        "2025-01-01",
        ".inf",
        "-.NaN",
        "!!binary aGk=",
        "!local x",
        "*a",
        "? x",
        "- x",
        "| x",
        "> x",
        "@x",
        "`x`",
        "#x",
        "{a: b}",
        "[a, b]",
        "...\n",
        "%YAML 1.1\n---\n",
        "a:",
        ": a",
        // What some templates and shells would fill in.
        "# {\"$kpt-set\":\"x\"}",
        "${x} $x %x% $$",
        "{{- range .Values }}",
        "<% x %> [[ x ]] #{x}",
        "`id` && $(id) | id; id",
    ];
    let texts = proptest::string::string_regex("(?s).{0,40}").unwrap();
    let mut runner = TestRunner::deterministic();
    let mut text = move |at: usize| match fixed.get(at) {
        Some(text) => (*text).to_owned(),
        None => texts.new_tree(&mut runner).unwrap().current(),
    };
    (0..count)
        .map(|at| {
            let kind = ["scaling", "deployment", "configuration"][at % 3];
            intent(json!({
                "intent_type": kind, "target": format!("t{at}"), "namespace": "1e3",
                "replicas": at % 100 + 1, "reason": text(at), "description": text(at),
                "correlation_id": text(at), "target_resources": [text(at)],
                "nephio_context": {"blueprint_name": text(at)},
                "constraints": {"kpt_package_name": text(at), (text(at)): [1.5, null, text(at)]},
            }))
        })
        .collect()
}

fn composed(intents: &[Intent]) -> Vec<Package> {
    let settings = with_template(TEMPLATE);
    intents
        .iter()
        .enumerate()
        .map(|(at, intent)| compose(intent, if at % 2 == 0 { &settings } else { &IMAGE }).unwrap())
        .collect()
}

static IMAGE: std::sync::LazyLock<Settings> = std::sync::LazyLock::new(with_image);

/// Whether the program is there; a skipped check is said aloud.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        skipped(&format!("{program} is not on PATH, so nothing was checked with it"));
    }
    found
}

/// Says that a test checks nothing, past the test harness, which keeps what passing tests print.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Renders every package below `dir` and tells what differs from `packages` afterwards.
pub fn assert_render_changes_nothing(dir: &Path, packages: &[Package]) {
    let rendered = Command::new("kpt").args(["fn", "render"]).arg(dir).output().unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    for package in packages {
        for file in &package.files {
            let text = std::fs::read_to_string(dir.join(&package.name).join(file.name)).unwrap();
            let text = match file.name {
                // From beta.62 on, render adds a status.
                "Kptfile" if compose::same_kptfile(&text, &file.text) => file.text.clone(),
                _ => text,
            };
            assert_eq!(text, file.text, "{}/{}", package.name, file.name);
        }
    }
}

#[test]
fn kpt_leaves_every_package_as_it_is() {
    if !have("kpt") {
        return;
    }
    let intents = hostile_intents(300);
    let packages = composed(&intents);
    let dir = tempfile::tempdir().unwrap();
    // One root, so that one call renders all of them.
    std::fs::write(
        dir.path().join("Kptfile"),
        "apiVersion: kpt.dev/v1\nkind: Kptfile\nmetadata:\n  name: root\n",
    )
    .unwrap();
    for package in &packages {
        let place = dir.path().join(&package.name);
        std::fs::create_dir(&place).unwrap();
        for file in &package.files {
            std::fs::write(place.join(file.name), &file.text).unwrap();
        }
    }
    assert_render_changes_nothing(dir.path(), &packages);
    // And what kpt hands to functions says the same.
    let read = Command::new("kpt").args(["fn", "source"]).arg(dir.path()).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let list: Value = serde_saphyr::from_str(std::str::from_utf8(&read.stdout).unwrap()).unwrap();
    let find = |package: &Package, name: &str| {
        let path = format!("{}/{name}", package.name);
        let path = json!(path);
        let of = |item: &&Value| {
            item["metadata"]["annotations"]["internal.config.kubernetes.io/path"] == path
        };
        list["items"].as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("no {path}"))
    };
    for (intent, package) in intents.iter().zip(&packages) {
        let resource = find(package, package.files[1].name);
        assert_says(intent, resource, find(package, compose::INTENT_FILE));
    }
}

#[test]
fn every_document_survives_a_reading_of_its_package() {
    let intents = hostile_intents(3_000);
    let packages = composed(&intents);
    for (intent, package) in intents.iter().zip(&packages) {
        let text = package.files.iter().map(|file| file.text.as_str());
        assert!(text.clone().all(|text| text.lines().all(|line| !line.contains('\r'))));
        assert!(package.files[2].text.is_ascii() && package.files[0].text.is_ascii());
        assert_eq!(compose::read_key(&package.files[2].text), Some(intent.key()));
    }
    if !have("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let all = dir.path().join("all.yaml");
    let resources = packages.iter().flat_map(|package| &package.files[1..]);
    let text: String = resources.map(|file| format!("---\n{}", file.text)).collect();
    std::fs::write(&all, text).unwrap();
    let read = Command::new("kubectl")
        .args(["label", "--local", "-o", "json", "a=b", "-f"])
        .arg(&all)
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let resources = serde_json::Deserializer::from_slice(&read.stdout).into_iter::<Value>();
    let resources: Vec<Value> = resources.map(Result::unwrap).collect();
    assert_eq!(resources.len(), 2 * intents.len());
    for (intent, pair) in intents.iter().zip(resources.chunks(2)) {
        assert_says(intent, &pair[0], &pair[1]);
    }
}

/// Checks that the resource of a package and its `intent.yaml`, as another program has read them,
/// say what the document says.
#[track_caller]
fn assert_says(intent: &Intent, resource: &Value, provenance: &Value) {
    let document = provenance["data"]["intent.json"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Intent>(document).unwrap(), *intent);
    let metadata = &resource["metadata"];
    assert_eq!(metadata["namespace"], intent.namespace.as_str());
    if intent.intent_type == IntentType::Configuration {
        let wish = resource["data"]["configuration.json"].as_str().unwrap();
        let wish: Value = serde_json::from_str(wish).unwrap();
        let whole = serde_json::to_value(intent).unwrap();
        for key in ["target", "replicas", "target_resources", "nephio_context"] {
            assert_eq!(wish[key], whole[key], "{key}");
        }
    } else {
        assert_eq!(metadata["name"], intent.target.as_str());
        assert_eq!(resource["spec"]["replicas"], intent.replicas);
    }
}
