//! A sink whose target is away: it costs no intent its place, and no command its end.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Daemon, Site, scaling, wait_until};

const AWAY: &str =
    "the sink's target cannot be reached; its intents wait, and are tried now and then";
const BACK: &str = "the sink's target can be reached again";

/// A site whose only sink runs a program that is not there yet.
fn site(breaker: &str) -> Site {
    let site = Site::new();
    let program = site.root().join("emit.sh");
    site.configure(&format!(
        "sink = [\"emit\"]\n[retry]\nbudget = \"300ms\"\nfirst = \"10ms\"\nmax = \"20ms\"\n\
         [breaker]\n{breaker}\n[sinks.emit]\ntype = \"exec\"\ncommand = [{program:?}, \"{{intent}}\"]\n"
    ));
    site
}

/// Puts the program there; it notes the targets in the order in which they come.
fn repair(site: &Site) {
    let (made, program) = (site.root().join("made.sh"), site.root().join("emit.sh"));
    let notes = site.root().join("notes");
    // The documents end without a newline, and so does what `sed` makes of them.
    let take = r#"sed 's/.*"target":"\([a-z]*\)".*/\1/' "$1""#;
    let script = format!("#!/bin/sh\necho \"$({take})\" >> {notes:?}\n");
    std::fs::write(&made, script).unwrap();
    std::fs::set_permissions(&made, Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&made, &program).unwrap();
}

fn notes(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(site.root().join("notes")).unwrap_or_default();
    text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

fn times(daemon: &Daemon, message: &str) -> usize {
    let is_it = |line: &&String| line.contains(&format!("\"message\":\"{message}\""));
    daemon.log().iter().filter(is_it).count()
}

fn outcomes(site: &Site) -> Vec<String> {
    let history = site.history();
    history.iter().map(|record| record["outcome"].as_str().unwrap().to_owned()).collect()
}

const TARGETS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn drop_all(site: &Site) {
    for target in TARGETS {
        site.drop_file(&format!("intent-{target}.json"), &scaling(target, 2));
    }
}

#[test]
fn a_dead_target_costs_no_intent_its_place_and_all_follow_in_order_once_it_is_back() {
    let site = site("window = 2\npause = \"50ms\"\npause_max = \"100ms\"");
    drop_all(&site);
    let daemon = site.start_with(&["-v"]);
    // Together the pauses are longer than the budget.
    wait_until("six probes", || times(&daemon, "still not reached") >= 6);
    assert_eq!(outcomes(&site), ["pending"; 6]);
    repair(&site);
    let history = site.wait_for_records(6);
    assert!(history.iter().all(|record| record["outcome"] == "delivered"), "{history:#?}");
    let mut order = notes(&site);
    let probe = order.remove(0);
    let mut others = TARGETS.to_vec();
    others.retain(|target| *target != probe);
    assert_eq!(order, others, "after the probe `{probe}`");
    wait_until("the turn in the log", || times(&daemon, BACK) == 1);
    assert_eq!(times(&daemon, AWAY), 1);
}

#[test]
fn a_stop_behind_an_open_breaker_leaves_what_waits_to_the_next_start() {
    let site = site("window = 1\npause = \"1h\"\npause_max = \"1h\"");
    drop_all(&site);
    let daemon = site.start();
    daemon.wait_for_message(AWAY);
    wait_until("all accepted", || site.history().len() == 6);
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("was finished in time")), "{log:#?}");
    assert_eq!(outcomes(&site), ["pending"; 6]);
    repair(&site);
    let _daemon = site.start();
    assert!(site.wait_for_records(6).iter().all(|record| record["outcome"] == "delivered"));
    assert_eq!(notes(&site), TARGETS, "it starts closed");
}

#[test]
fn a_batch_ends_although_its_target_stays_away() {
    let site = site("window = 1\npause = \"1h\"\npause_max = \"1h\"");
    drop_all(&site);
    let finished = site.run(&["batch", "-o", "jsonl"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let records = finished.jsonl();
    assert_eq!(records.len(), 6);
    for record in records {
        assert_eq!(
            (&record["outcome"], &record["code"]),
            (&"parked".into(), &"SINK_UNAVAILABLE".into())
        );
        let message = record["message"].as_str().unwrap();
        assert!(message.starts_with("emit: ") && message.contains("emit.sh"), "{message}");
    }
}
