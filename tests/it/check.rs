//! `check`: what it tells, what it ends with, and that it leaves no trace.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Finished, Site};

fn check(site: &Site) -> (Finished, Vec<Value>) {
    let finished = site.run(&["check", "-o", "jsonl"]);
    let findings = finished.jsonl();
    (finished, findings)
}

fn finding<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    findings
        .iter()
        .find(|finding| finding["what"] == what)
        .unwrap_or_else(|| panic!("nothing of {what} in {findings:#?}"))
}

/// Everything below a directory, with the time of its last change.
fn tree(root: &Path) -> Vec<(String, std::time::SystemTime)> {
    let mut all = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.path().symlink_metadata().unwrap();
            all.push((entry.path().display().to_string(), metadata.modified().unwrap()));
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

#[test]
fn a_new_site_is_fit_to_start_and_stays_untouched() {
    let site = Site::new();
    let before = tree(site.root());
    let (finished, findings) = check(&site);
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(tree(site.root()), before, "nothing is made");
    let failed: Vec<_> = findings.iter().filter(|it| it["state"] == "failed").collect();
    assert_eq!(failed, [] as [&Value; 0]);
    for what in ["configuration", "work", "one filesystem", "leases", "sink `package`"] {
        assert_eq!(finding(&findings, what)["state"], "ok", "{what}");
    }
    assert_eq!(finding(&findings, "lead")["message"], "nobody leads; a start would");
    let table = site.run(&["check"]);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines.len(), findings.len(), "one line each: {}", table.stdout);
    assert_eq!(lines[0], "[ok]     configuration: it is valid");
}

#[test]
fn the_leader_is_named_and_not_disturbed() {
    let site = Site::new();
    let daemon = site.start();
    let (finished, findings) = check(&site);
    assert_eq!(finished.code, Some(0), "{}", finished.stdout);
    let message = finding(&findings, "lead")["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("pid {} on ", daemon.pid())), "{message}");
    assert!(message.ends_with(" leads; a start would stand by"), "{message}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_sink_that_cannot_be_reached_ends_with_69_and_the_others_are_asked_as_well() {
    let site = Site::new();
    let missing = site.root().join("missing");
    site.configure(&format!(
        "sink = [\"emit\", \"git\", \"package\"]\n[sinks.emit]\ntype = \"exec\"\n\
         command = [{missing:?}]\n[sinks.git]\nremote = \"file://{}\"\n",
        missing.display()
    ));
    let before = tree(site.root());
    let (finished, findings) = check(&site);
    assert_eq!(finished.code, Some(69), "{}{}", finished.stdout, finished.stderr);
    assert_eq!(tree(site.root()), before, "no clone and no directory is made");
    for sink in ["sink `emit`", "sink `git`"] {
        let found = finding(&findings, sink);
        assert_eq!(
            (&found["state"], &found["code"]),
            (&"failed".into(), &"SINK_UNAVAILABLE".into())
        );
    }
    assert_eq!(finding(&findings, "sink `package`")["state"], "ok");
    let table = site.run(&["check", "--sink", "emit"]);
    assert_eq!(table.code, Some(69));
    assert!(table.stdout.contains("\n[failed] sink `emit`: the command `"), "{}", table.stdout);
}

#[test]
fn parts_on_two_filesystems_end_with_78_and_a_file_in_the_way_with_74() {
    // No test directory lies on the same filesystem as this one.
    let site = Site::with_config("processed = \"/proc\"\n");
    let (finished, findings) = check(&site);
    assert_eq!(finished.code, Some(78), "{}", finished.stdout);
    let message = finding(&findings, "one filesystem")["message"].as_str().unwrap();
    assert!(
        message.starts_with("`processed` (`/proc`) lies on another one than `work`"),
        "{message}"
    );

    let site = Site::new();
    fs::write(site.state(), "in the way").unwrap();
    let (finished, findings) = check(&site);
    assert_eq!(finished.code, Some(74), "{}", finished.stdout);
    let found = finding(&findings, "state_dir");
    let message = format!("`{}` is no directory", site.state().display());
    assert_eq!((&found["state"], &found["message"]), (&"failed".into(), &message.into()));
}

#[test]
fn a_refused_configuration_ends_with_78_before_anything_is_looked_at() {
    let site = Site::with_config("drain = \"never\"\n");
    let finished = site.run(&["check"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""));
    assert!(finished.stderr.contains("`drain` has to be"), "{}", finished.stderr);
}
