//! `batch` as a script uses it.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Finished, Site, names, scaling, wait_until};

const IMAGE: &str = "[compose]\ndeployment_image = \"images.example/smf:1.0\"\n";
const GOOD: [&str; 4] = [
    "examples/intents/intent-configuration.json",
    "examples/intents/intent-deployment.json",
    "examples/intents/intent-scaling-full.json",
    "examples/intents/intent-scaling.json",
];

#[test]
fn the_examples_have_their_records() {
    let site = Site::with_config(IMAGE);
    let all = site.run(&["batch", "-o", "jsonl", "examples/intents"]);
    assert_eq!(all.code, Some(1), "one is wrong on purpose: {}", all.stderr);
    let mut told: Vec<_> = all
        .jsonl()
        .into_iter()
        .map(|r| {
            (r["file"].as_str().unwrap().to_owned(), r["outcome"].as_str().unwrap().to_owned())
        })
        .collect();
    told.sort();
    let mut expected: Vec<_> =
        GOOD.iter().map(|file| ((*file).to_owned(), "delivered".to_owned())).collect();
    expected.push(("examples/intents/intent-wrong.json".to_owned(), "rejected".to_owned()));
    expected.sort();
    assert_eq!(told, expected);

    let good = site.run(&[&["batch", "-o", "jsonl"], &GOOD[..]].concat());
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    assert!(good.jsonl().iter().all(|record| record["outcome"] == "unchanged"));
    assert_eq!(names(&site.spool().join("status")).len(), 9);
    assert_eq!(site.names("processed").len() + site.names("failed").len(), 0, "no archive");
    assert!(GOOD.iter().all(|file| Path::new(file).exists()), "originals are left alone");
}

#[test]
fn the_exit_code_speaks_of_this_run_only() {
    let site = Site::new();
    std::fs::write(site.root().join("bad"), "{").unwrap();
    std::fs::write(site.root().join("good"), scaling("web", 2)).unwrap();
    let path = |name: &str| site.root().join(name).to_string_lossy().into_owned();
    assert_eq!(site.run(&["batch", &path("bad")]).code, Some(1));
    assert_eq!(site.run(&["batch", &path("good")]).code, Some(0));
    assert_eq!(site.run(&["batch", &path("good"), &path("missing")]).code, Some(1));
    assert_eq!(site.history().len(), 4);
}

#[test]
fn what_an_earlier_run_left_is_finished_and_not_answered_for() {
    let site = Site::new();
    let script = site.root().join("emit.sh");
    std::fs::write(&script, "#!/bin/sh\n! grep -q left \"$2\"\n").unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    site.configure(&format!(
        "sink = [\"exec\"]\n[retry]\nbudget = \"300ms\"\nfirst = \"20ms\"\nmax = \"50ms\"\n\
         [sinks.exec]\ncommand = [{script:?}]\n"
    ));
    let daemon = site.start();
    site.drop_file("intent-left.json", &scaling("left", 2));
    wait_until("an accepted intent", || site.history().len() == 1);
    daemon.kill();
    let good = site.root().join("good");
    std::fs::write(&good, scaling("good", 2)).unwrap();
    let finished = site.run(&["batch", "-o", "jsonl", &good.to_string_lossy()]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let told: Vec<_> = finished.jsonl().iter().map(|record| record["seq"].clone()).collect();
    assert_eq!(told, [2]);
    let history = site.history();
    let outcomes: Vec<_> = history.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, ["parked", "delivered"]);
    assert_eq!(site.reason("intent-left.json")["code"], "COMMAND_FAILED");
    assert_eq!(site.names("work"), Vec::<String>::new());
}

#[test]
fn a_sink_with_a_rate_is_given_no_more_a_second() {
    let site = Site::with_config("[sinks.package]\nrate = 4\n");
    for target in ["a", "b", "c", "d", "e", "f"] {
        site.drop_file(&format!("intent-{target}.json"), &scaling(target, 2));
    }
    let started = Instant::now();
    assert_eq!(site.run(&["batch"]).code, Some(0));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(500), "four at once and two later ones: {took:?}");
    assert!(site.history().iter().all(|record| record["outcome"] == "delivered"));
}

#[test]
fn a_directory_gives_its_own_files_with_taken_names_and_a_file_may_have_any_name() {
    let site = Site::new();
    let directory = site.root().join("documents");
    std::fs::create_dir_all(directory.join("deeper")).unwrap();
    for name in
        ["intent-a.json", "b.intent.json", "notes.json", ".intent-x.json", "deeper/intent-c.json"]
    {
        std::fs::write(directory.join(name), scaling("web", 2)).unwrap();
    }
    let odd = site.root().join("a document\n");
    std::fs::write(&odd, scaling("odd", 2)).unwrap();
    let link = site.root().join("link");
    std::os::unix::fs::symlink(&odd, &link).unwrap();
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let operands = [path(&directory), path(&odd), path(&link)];
    let mut args = vec!["batch", "-o", "jsonl"];
    args.extend(operands.iter().map(String::as_str));
    let finished = site.run(&args);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let mut files: Vec<_> =
        finished.jsonl().iter().map(|it| it["file"].as_str().unwrap().to_owned()).collect();
    files.sort();
    let mut expected = vec![
        path(&directory.join("b.intent.json")),
        path(&directory.join("intent-a.json")),
        operands[1].clone(),
        operands[2].clone(),
    ];
    expected.sort();
    assert_eq!(files, expected);
    assert_eq!(std::fs::read_to_string(&odd).unwrap(), scaling("odd", 2), "it is left alone");
    assert!(link.is_symlink());
    assert_eq!(names(&directory).len(), 4);
    assert!(names(&site.spool().join("status")).iter().all(|name| name.len() <= 255));
    assert_eq!((site.names("processed"), site.names("work")), (vec![], vec![]));
    assert_eq!(["web", "odd"].map(|target| site.replicas(target)), [Some(2), Some(2)]);
}

#[test]
fn standard_input_is_a_document() {
    let site = Site::new();
    let mut child = site
        .command(&["batch", "-", "-o", "jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(scaling("web", 2).as_bytes()).unwrap();
    let finished = Finished::from(child.wait_with_output().unwrap());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_eq!(finished.jsonl()[0]["file"], "-");
    assert_eq!(site.names("status"), ["-.1.json"]);
}

#[test]
fn without_operands_the_inbox_is_drained_once() {
    let site = Site::new();
    site.drop_file("intent-a.json", &scaling("web", 2));
    site.drop_file("intent-b.json", "[]");
    std::fs::write(site.inbox().join("intent-empty.json"), "").unwrap();
    let mut writer = std::fs::File::create(site.inbox().join("intent-open.json")).unwrap();
    writer.write_all(b"{").unwrap();
    let finished = site.run(&["batch", "-o", "jsonl"]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    let mut codes: Vec<_> =
        finished.jsonl().iter().map(|record| record["code"].as_str().unwrap().to_owned()).collect();
    codes.sort();
    assert_eq!(codes, ["DELIVERED", "EMPTY", "NOT_OBJECT"]);
    assert!(finished.stderr.contains("intent-open.json"), "{}", finished.stderr);
    assert_eq!(site.names("inbox"), ["intent-open.json"]);
    assert_eq!(site.names("processed"), ["intent-a.json"]);
}

#[test]
fn a_held_lock_ends_with_75_and_says_who() {
    let site = Site::new();
    let daemon = site.start();
    let finished = site.run(&["batch"]);
    assert_eq!(finished.code, Some(75));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let holder = format!("pid {} on {host} since 20", daemon.pid());
    assert!(finished.stderr.contains(&holder), "{}", finished.stderr);
    assert_eq!(finished.stdout, "");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn the_sink_stdout_prints_resources_and_excludes_an_output_format() {
    let site = Site::new();
    let file = "examples/intents/intent-scaling.json";
    let finished = site.run(&["batch", "--sink", "stdout", file]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.starts_with("---\napiVersion: apps/v1\nkind: Deployment\n"));
    assert_eq!(site.run(&["batch", "--sink", "stdout", "-o", "json", file]).code, Some(2));
}

#[test]
fn a_dry_run_shows_the_package_and_leaves_no_trace() {
    let site = Site::new();
    let finished = site.run(&["batch", "--dry-run", "examples/intents/intent-scaling.json"]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("kind: Kptfile"), "{}", finished.stdout);
    assert!(!site.root().join("state").exists() && !site.packages().exists());
    assert_eq!(
        site.run(&["batch", "--dry-run", "examples/intents/intent-wrong.json"]).code,
        Some(1)
    );
}

#[test]
fn every_format_shows_the_record() {
    let site = Site::new();
    let file = "examples/intents/intent-scaling.json";
    let print = |format: &str| {
        let finished = site.run(&["batch", "-o", format, file]);
        assert_eq!(finished.code, Some(0), "{format}: {}", finished.stderr);
        finished.stdout
    };
    let list: serde_json::Value = serde_json::from_str(&print("json")).unwrap();
    assert_eq!(list["items"][0]["intent"]["target"], json!("nf-sim"));
    assert!(print("yaml").contains("target: nf-sim"));
    assert_eq!(print("name"), "intent/3\n");
    assert!(print("table").starts_with("SEQ "));
    assert!(print("wide").contains("MESSAGE"));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let site = Site::new();
    let mut child = site
        .command(&["batch", "-o", "jsonl", "examples/intents/intent-scaling.json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{stderr}");
    assert!(!stderr.contains("panic") && !stderr.contains("pipe"), "{stderr}");
}

#[test]
fn a_signal_ends_a_long_run_after_what_is_accepted_and_says_what_was_not_taken() {
    const OPERANDS: usize = 8_000;
    let site = Site::new();
    let mut command = site.command(&["batch", "--quiet", "-o", "jsonl"]);
    command.args(vec!["examples/intents/intent-scaling.json"; OPERANDS]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    lines.next().expect("a first record").unwrap();
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let told = 1 + lines.count();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let history = site.history();
    assert!(told < OPERANDS, "it was stopped");
    assert_eq!(history.len(), told, "every accepted one was told of");
    assert!(history.iter().all(|record| record["outcome"] != "pending"));
    // What is taken after the signal is at most the group that was being read.
    assert!(told <= intentd::limits::IN_FLIGHT_MAX + intentd::limits::GROUP_MAX, "{told}");
}
