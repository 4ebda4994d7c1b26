//! `diff`: what a document would change, told without a trace.

use serde_json::json;

use crate::support::{Finished, Site, scaling};

fn diff(site: &Site, text: &str, more: &[&str]) -> Finished {
    let document = site.root().join("intent-web.json");
    std::fs::write(&document, text).unwrap();
    let mut args = vec!["diff", document.to_str().unwrap()];
    args.extend(more);
    site.run(&args)
}

#[test]
fn a_new_package_is_shown_whole_and_nothing_is_made() {
    let site = Site::new();
    let found = diff(&site, &scaling("web", 3), &[]);
    assert_eq!(found.code, Some(1), "{}", found.stderr);
    assert!(found.stdout.contains("--- /dev/null\n+++ b/package/scale-default-web/Kptfile\n"));
    assert!(found.stdout.contains("\n+  replicas: 3\n"), "{}", found.stdout);
    assert!(!site.packages().exists() && !site.state().exists(), "diff leaves no trace");
}

#[test]
fn only_what_changes_is_shown_and_what_is_there_already_is_no_difference() {
    let site = Site::new();
    site.drop_file("intent-web.json", &scaling("web", 3));
    assert_eq!(site.run(&["batch", "--quiet"]).code, Some(0));

    let same = diff(&site, &scaling("web", 3), &[]);
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""), "{}", same.stderr);

    let other = diff(&site, &scaling("web", 5), &[]);
    assert_eq!(other.code, Some(1));
    assert!(other.stdout.contains("\n-  replicas: 3\n+  replicas: 5\n"), "{}", other.stdout);
    let told = diff(&site, &scaling("web", 5), &["-o", "jsonl"]).jsonl().remove(0);
    assert_eq!((&told["sink"], &told["result"]), (&json!("package"), &json!("different")));
    let changes = told["changes"].as_array().unwrap();
    let paths: Vec<&str> = changes.iter().filter_map(|change| change["path"].as_str()).collect();
    let names = ["Kptfile", "deployment.yaml", "intent.yaml"];
    assert_eq!(paths, names.map(|name| format!("scale-default-web/{name}")));
    assert_eq!(site.replicas("web"), Some(3), "diff changes nothing");
}

#[test]
fn what_a_delivery_would_meet_is_said() {
    let site = Site::new();
    std::fs::create_dir_all(site.packages().join("scale-default-web")).unwrap();
    let foreign = diff(&site, &scaling("web", 3), &["-o", "jsonl"]);
    assert_eq!(foreign.code, Some(1));
    assert_eq!(foreign.jsonl()[0]["code"], "PACKAGE_CONFLICT");

    let unknown = diff(&site, &scaling("web", 3), &["--sink", "stdout"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(0), ""));
    assert!(unknown.stderr.contains("only delivering to it would tell"), "{}", unknown.stderr);

    let rejected = diff(&site, "{}", &[]);
    assert_eq!((rejected.code, rejected.stdout.as_str()), (Some(1), ""));
    assert!(rejected.stderr.contains("SCHEMA_REQUIRED"), "{}", rejected.stderr);

    std::fs::remove_dir_all(site.packages()).unwrap();
    std::fs::write(site.packages(), "").unwrap();
    let unreachable = diff(&site, &scaling("web", 3), &[]);
    assert_eq!(unreachable.code, Some(69), "{}", unreachable.stderr);
}
