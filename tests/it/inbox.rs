//! What a producer sees: a file goes into the inbox, exactly one outcome comes out.

// A producer that is slow, and a kill at a random moment, are made of time.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cases::{Case, Verdict, cases};
use crate::support::{Daemon, Site, scaling, wait_until};
use intentd::model::{FileName, derived};

const IMAGE: &str = "[compose]\ndeployment_image = \"images.example/web:1\"\n";

fn outcomes(history: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    history.iter().map(|record| (text(&record["file"]), text(&record["outcome"]))).collect()
}

fn assert_at_rest(site: &Site) {
    assert_eq!((site.names("inbox"), site.names("work")), (vec![], vec![]));
}

#[test]
fn every_case_has_its_outcome() {
    for (limit, size) in [(1 << 20, "1MiB"), (5 << 20, "5MiB")] {
        let site = Site::with_config(&format!("{IMAGE}[intake]\nsize_bytes_max = \"{size}\"\n"));
        let _daemon = site.start();
        let mut taken = 0;
        for case in cases().into_iter().filter(|case| case.size_bytes_max == limit) {
            let temporary = site.inbox().join(".case.tmp");
            std::fs::write(&temporary, &case.bytes).unwrap();
            let name = OsStr::from_bytes(&case.name);
            std::fs::rename(&temporary, site.inbox().join(name)).unwrap();
            if matches!(case.verdict, Verdict::Ignore) {
                assert!(site.inbox().join(name).exists(), "{} is left alone", case.id);
                std::fs::remove_file(site.inbox().join(name)).unwrap();
                continue;
            }
            taken += 1;
            wait_until(case.id.as_str(), || {
                site.names("status").len() == taken && site.names("work").is_empty()
            });
            assert_outcome(&site, &case, taken);
        }
        assert_eq!(site.history().len(), taken, "one record for each file that was taken");
        assert_at_rest(&site);
    }
}

/// Looks at all that is to be seen of the newest file, and clears the archive for the next one.
fn assert_outcome(site: &Site, case: &Case, seq: usize) {
    let file = FileName::new(case.name.as_slice());
    let status = derived("", file.safe().as_bytes(), &format!(".{seq}.json"));
    let path = site.spool().join("status").join(OsStr::from_bytes(&status));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&status["seq"], &status["mode"]), (&json!(seq), &json!("run")), "{}", case.id);
    assert_eq!(status["file"], json!(file), "{}", case.id);
    let (processed, failed) = (site.names("processed"), site.names("failed"));
    if case.verdict == Verdict::Accept {
        let delivered = ["delivered", "unchanged"].iter().any(|it| status["outcome"] == *it);
        assert!(delivered && status["status"] == "success", "{}: {status}", case.id);
        assert_eq!((processed, failed.len()), (vec![file.safe()], 0), "{}", case.id);
    } else {
        assert_eq!(status["outcome"], "rejected", "{}: {status}", case.id);
        assert_eq!((processed.len(), failed.len()), (0, 2), "{}: {failed:?}", case.id);
        let reason = failed.iter().find(|name| name.ends_with(".reason.json")).unwrap();
        let reason = site.reason(reason.trim_end_matches(".reason.json"));
        for key in ["seq", "file", "code", "message"] {
            assert_eq!(reason[key], status[key], "{}: {key}", case.id);
        }
        assert!(reason["code"].is_string() && reason["message"].is_string(), "{reason}");
    }
    for archive in ["processed", "failed"] {
        for name in site.names(archive) {
            std::fs::remove_file(site.spool().join(archive).join(name)).unwrap();
        }
    }
}

/// Drops one valid file in each way that a producer may choose; returns how many.
fn drop_in_every_way(site: &Site) -> usize {
    let inbox = site.inbox();
    site.drop_file("intent-renamed.json", &scaling("renamed", 2));
    std::fs::write(inbox.join("intent-written.json"), scaling("written", 3)).unwrap();
    let first_name = site.root().join("first-name");
    std::fs::write(&first_name, scaling("linked", 4)).unwrap();
    std::fs::hard_link(&first_name, inbox.join("intent-linked.json")).unwrap();
    std::fs::remove_file(&first_name).unwrap();
    let mut unnamed = unnamed_file(&inbox);
    unnamed.write_all(scaling("unnamed", 7).as_bytes()).unwrap();
    let through = format!("/proc/self/fd/{}", unnamed.as_raw_fd());
    let (here, follow) = (rustix::fs::CWD, rustix::fs::AtFlags::SYMLINK_FOLLOW);
    rustix::fs::linkat(here, through, here, inbox.join("intent-unnamed.json"), follow).unwrap();
    drop(unnamed);
    let mut slow = File::create(inbox.join("intent-slow.json")).unwrap();
    for part in scaling("slow", 5).as_bytes().chunks(9) {
        slow.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(slow);
    let mapped = inbox.join("intent-mapped.json");
    let text = scaling("mapped", 6);
    let script = "import mmap,os,sys\nf=open(sys.argv[1],'w+b');t=sys.argv[2].encode()\n\
                  os.ftruncate(f.fileno(),len(t));m=mmap.mmap(f.fileno(),len(t));f.close()\n\
                  import time;time.sleep(0.1);m[:]=t;m.close()";
    match Command::new("python3").args(["-c", script]).arg(&mapped).arg(&text).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("SKIPPED the writer by mmap: python3 does not start: {error}");
            std::fs::write(&mapped, &text).unwrap();
        }
    }
    6
}

/// A file that has no name until it is linked.
fn unnamed_file(directory: &Path) -> File {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o644).custom_flags(libc::O_TMPFILE);
    options.open(directory).expect("the filesystem has unnamed files")
}

fn check_every_way(site: &Site) {
    let daemon = site.start();
    let count = drop_in_every_way(site);
    let history = site.wait_for_records(count);
    let delivered = |name: &str| (format!("intent-{name}.json"), "delivered".to_owned());
    let expected = ["linked", "mapped", "renamed", "slow", "unnamed", "written"].map(delivered);
    assert_eq!(outcomes(&history), BTreeMap::from(expected));
    let targets = ["renamed", "written", "linked", "slow", "mapped", "unnamed"];
    assert_eq!(targets.map(|it| site.replicas(it)), [2, 3, 4, 5, 6, 7].map(Some));
    assert_at_rest(site);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn files_written_in_any_way_are_read_whole() {
    check_every_way(&Site::new());
}

#[test]
fn without_leases_the_outcome_is_the_same() {
    check_every_way(&Site::with_config("[settle]\nlease = false\nquiet = \"150ms\"\n"));
}

#[test]
fn polling_has_the_same_outcomes_as_events() {
    check_every_way(&Site::with_config("[watch]\npoll = true\npoll_interval = \"20ms\"\n"));
}

#[test]
fn odd_files_have_their_outcome_and_block_nobody() {
    let site = Site::new();
    let _daemon = site.start();
    let inbox = site.inbox();
    let at = |name: &str| inbox.join(name);
    assert!(Command::new("mkfifo").arg(at("intent-fifo.json")).status().unwrap().success());
    let socket = std::os::unix::net::UnixListener::bind(at("intent-socket.json")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("intent-symlink.json")).unwrap();
    std::fs::create_dir(at("intent-directory.json")).unwrap();
    File::create(at("intent-sparse.json")).unwrap().set_len(1 << 40).unwrap();
    File::create(at("intent-empty.json")).unwrap();
    std::fs::write(at("intent-blank.json"), " \n\t").unwrap();
    let other = site.root().join("other");
    std::fs::write(&other, scaling("linked", 2)).unwrap();
    std::fs::hard_link(&other, at("intent-hard.json")).unwrap();
    for (index, name) in [&b"intent-a\nb.json"[..], b"intent-\x1b[2J.json", b"intent-\xff.json"]
        .into_iter()
        .enumerate()
    {
        std::fs::write(inbox.join(OsStr::from_bytes(name)), scaling(&format!("odd{index}"), 2))
            .unwrap();
    }
    let long = format!("intent-{}.json", "x".repeat(255 - 12));
    std::fs::write(at(&long), scaling("long", 2)).unwrap();

    let start = Instant::now();
    site.drop_file("intent-good.json", &scaling("good", 7));
    wait_until("the good file", || site.names("processed").contains(&"intent-good.json".into()));
    assert!(start.elapsed() < Duration::from_secs(2), "nobody is held up by the odd ones");

    let history = site.wait_for_records(12);
    drop(socket);
    let codes: BTreeMap<String, String> = history
        .iter()
        .map(|record| {
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            (text("file"), text("code"))
        })
        .collect();
    let expected = [
        ("intent-fifo.json", "NOT_A_FILE"),
        ("intent-socket.json", "NOT_A_FILE"),
        ("intent-symlink.json", "SYMLINK"),
        ("intent-sparse.json", "TOO_LARGE"),
        ("intent-empty.json", "EMPTY"),
        ("intent-blank.json", "EMPTY"),
        ("intent-hard.json", "HARD_LINK"),
        ("intent-a\nb.json", "BAD_NAME"),
        ("intent-\u{1b}[2J.json", "BAD_NAME"),
        ("intent-\\xff.json", "BAD_NAME"),
        (long.as_str(), "DELIVERED"),
        ("intent-good.json", "DELIVERED"),
    ];
    let expected = expected.map(|(file, code)| (file.to_owned(), code.to_owned()));
    assert_eq!(codes, BTreeMap::from(expected));
    assert_eq!(site.names("inbox"), ["intent-directory.json"], "directories are left alone");
    assert_eq!(site.names("work"), Vec::<String>::new());
    assert_eq!(site.reason("intent-a_b.json")["code"], "BAD_NAME");
    assert!(site.names("processed").contains(&long));
    assert!(site.names("status").iter().all(|name| name.len() <= 255));
}

/// An account that owns nothing, for a daemon that may not do everything.
const NOBODY: u32 = 65534;

#[test]
fn without_privileges_the_outcome_is_the_same_and_what_may_not_be_read_is_told() {
    let site = Site::new();
    let mut command = site.command(&["run", "--log-format", "json"]);
    if rustix::process::geteuid().is_root() {
        // Producers are somebody else, so leases are refused to the daemon for every file of theirs.
        std::os::unix::fs::chown(site.root(), Some(NOBODY), Some(NOBODY)).unwrap();
        std::os::unix::fs::chown(site.spool(), Some(NOBODY), Some(NOBODY)).unwrap();
        std::os::unix::fs::chown(site.inbox(), Some(NOBODY), Some(NOBODY)).unwrap();
        // The build may lie where nobody but root can reach it.
        let program = site.root().join("intentd");
        std::fs::copy(command.get_program(), &program).unwrap();
        let args: Vec<_> = command.get_args().map(OsStr::to_owned).collect();
        command = Command::new(program);
        command.env_clear().args(args).uid(NOBODY).gid(NOBODY);
    }
    let daemon = Daemon::from(command);
    daemon.wait_for_message("ready");
    let unreadable = site.root().join("unreadable");
    std::fs::write(&unreadable, scaling("secret", 2)).unwrap();
    std::fs::set_permissions(&unreadable, Permissions::from_mode(0o000)).unwrap();
    std::fs::rename(&unreadable, site.inbox().join("intent-unreadable.json")).unwrap();
    let count = drop_in_every_way(&site);
    let history = site.wait_for_records(count + 1);
    let codes: BTreeMap<_, _> = history
        .iter()
        .map(|record| (record["file"].as_str().unwrap(), record["code"].as_str().unwrap()))
        .collect();
    assert_eq!(codes["intent-unreadable.json"], "UNREADABLE", "{codes:?}");
    assert_eq!(codes.values().filter(|code| **code == "DELIVERED").count(), count, "{codes:?}");
    assert_at_rest(&site);
    assert_eq!(site.names("packages").len(), count, "no package of what could not be read");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn the_same_intent_again_is_unchanged() {
    let site = Site::new();
    let _daemon = site.start();
    for (count, name) in [(1, "intent-a.json"), (2, "intent-b.json"), (3, "intent-a.json")] {
        site.drop_file(name, &scaling("web", 3));
        site.wait_for_records(count);
    }
    let history = site.history();
    let found: Vec<_> = history.iter().map(|record| &record["outcome"]).collect();
    assert_eq!(found, ["delivered", "unchanged", "unchanged"]);
    assert_eq!(site.names("processed"), ["3.intent-a.json", "intent-a.json", "intent-b.json"]);
}

#[test]
fn a_name_that_is_taken_gets_the_seq_in_front() {
    let site = Site::new();
    let _daemon = site.start();
    for (count, text) in [(1, "{"), (2, "{"), (3, "[]")] {
        site.drop_file("intent-a.json", text);
        site.wait_for_records(count);
    }
    let archived = ["2.intent-a.json", "3.intent-a.json", "intent-a.json"];
    let all: Vec<String> = archived
        .iter()
        .flat_map(|name| [name.to_string(), format!("{name}.reason.json")])
        .collect();
    assert_eq!(site.names("failed"), all);
    for (seq, archived, code) in [
        (1, archived[2], "INCOMPLETE"),
        (2, archived[0], "INCOMPLETE"),
        (3, archived[1], "NOT_OBJECT"),
    ] {
        let reason = site.reason(archived);
        assert_eq!((&reason["seq"], &reason["code"]), (&json!(seq), &json!(code)), "{archived}");
        assert_eq!(reason["file"], "intent-a.json");
    }
    let status = ["1", "2", "3"].map(|seq| format!("intent-a.json.{seq}.json"));
    assert_eq!(site.names("status"), status);
}

#[test]
fn three_five_three_ends_at_three() {
    let site = Site::new();
    let _daemon = site.start();
    for (count, replicas) in [(1, 3), (2, 5), (3, 3)] {
        site.drop_file(&format!("intent-{count}.json"), &scaling("web", replicas));
        let history = site.wait_for_records(count);
        assert_eq!(history[count - 1]["outcome"], "delivered");
        assert_eq!(site.replicas("web"), Some(replicas));
    }
}

#[test]
fn newer_intents_of_a_target_supersede_older_ones() {
    let site = Site::new();
    for replicas in 1..=100 {
        site.drop_file(&format!("intent-{replicas:03}.json"), &scaling("web", replicas));
    }
    let _daemon = site.start();
    let history = site.wait_for_records(100);
    let mut counts = HashMap::new();
    for record in &history {
        *counts.entry(record["outcome"].as_str().unwrap()).or_insert(0) += 1;
        if record["outcome"] == "superseded" {
            assert!(record["superseded_by"].as_u64() > record["seq"].as_u64(), "{record}");
        }
    }
    assert_eq!(site.replicas("web"), Some(100), "the last one wins");
    assert_eq!(history[99]["outcome"], "delivered");
    assert!(counts["delivered"] <= 2 && counts["superseded"] >= 98, "{counts:?}");
}

#[test]
fn a_file_is_not_read_until_its_writer_lets_go() {
    let site = Site::new();
    let daemon = site.start();
    let mut writer = File::create(site.inbox().join("intent-open.json")).unwrap();
    let text = scaling("open", 4);
    writer.write_all(&text.as_bytes()[..20]).unwrap();
    daemon.signal(libc::SIGUSR1);
    site.drop_file("intent-other.json", &scaling("other", 2));
    site.wait_for_records(1);
    assert_eq!(site.names("inbox"), ["intent-open.json"]);
    writer.write_all(&text.as_bytes()[20..]).unwrap();
    drop(writer);
    let history = site.wait_for_records(2);
    assert_eq!(history[1]["outcome"], "delivered");
}

#[test]
fn half_a_document_of_a_dead_writer_is_reported_and_not_half_done() {
    let site = Site::new();
    let _daemon = site.start();
    std::fs::write(site.inbox().join("intent-half.json"), &scaling("half", 4)[..30]).unwrap();
    let history = site.wait_for_records(1);
    assert_eq!(history[0]["code"], "INCOMPLETE");
    let reason = site.reason("intent-half.json");
    assert_eq!((&reason["seq"], &reason["file"]), (&json!(1), &json!("intent-half.json")));
    assert_eq!(site.names("packages"), Vec::<String>::new());
}

#[test]
fn what_cannot_be_delivered_is_parked_with_its_reason() {
    let site = Site::new();
    std::fs::create_dir_all(site.packages().join("scale-default-taken")).unwrap();
    std::fs::write(site.packages().join("scale-default-taken/notes.txt"), "mine").unwrap();
    let _daemon = site.start();
    site.drop_file("intent-a.json", &scaling("taken", 2));
    let deployment = scaling("web", 2).replace("scaling", "deployment");
    site.drop_file("intent-b.json", &deployment);
    let mut history = site.wait_for_records(2);
    history.sort_by_key(|record| record["file"].to_string());
    let told: Vec<_> = history.iter().map(|r| (&r["outcome"], &r["code"])).collect();
    let parked = json!("parked");
    assert_eq!(told, [(&parked, &json!("PACKAGE_CONFLICT")), (&parked, &json!("NO_TEMPLATE"))]);
    assert_eq!(site.reason("intent-a.json")["code"], "PACKAGE_CONFLICT");
    let kept = std::fs::read_to_string(site.packages().join("scale-default-taken/notes.txt"));
    assert_eq!(kept.unwrap(), "mine");
}

#[test]
fn policy_and_site_schema_tighten_the_rules() {
    let site = Site::with_config("[policy]\nreplicas_max = 9\n");
    let daemon = site.start_with(&["--schema", "examples/site.schema.json"]);
    site.drop_file("intent-a.json", &scaling("web", 2));
    let refused = &site.wait_for_records(1)[0];
    assert_eq!(
        (&refused["outcome"], &refused["code"]),
        (&json!("rejected"), &json!("SCHEMA_REQUIRED"))
    );
    assert!(refused["message"].as_str().unwrap().contains("correlation_id"), "{refused}");
    drop(daemon);
    let _daemon = site.start();
    site.drop_file("intent-b.json", &scaling("web", 10));
    site.wait_for_records(2);
    site.drop_file("intent-c.json", &scaling("web", 9).replace("default", "kube-system"));
    site.wait_for_records(3);
    site.drop_file("intent-d.json", &scaling("web", 9));
    let history = site.wait_for_records(4);
    let codes: Vec<_> = history[1..].iter().map(|record| &record["code"]).collect();
    assert_eq!(codes, ["POLICY", "POLICY", "DELIVERED"]);
    assert_eq!(site.names("packages"), ["scale-default-web"], "what is refused has no package");
}

#[test]
fn an_inbox_that_was_replaced_is_found_again() {
    let site = Site::new();
    let daemon = site.start();
    std::fs::rename(site.inbox(), site.root().join("old")).unwrap();
    daemon.wait_for_message("the inbox is not where it was");
    std::fs::create_dir(site.inbox()).unwrap();
    daemon.wait_for_message("the inbox is back");
    site.drop_file("intent-a.json", &scaling("web", 2));
    assert_eq!(site.wait_for_records(1)[0]["outcome"], "delivered");
}

/// A daemon with a package sink and a command, whose script is `script`.
fn with_command(script: &str, budget: &str) -> (Site, Daemon) {
    let site = Site::new();
    let path = site.root().join("emit.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    site.configure(&format!(
        "sink = [\"package\", \"emit\"]\n[retry]\nbudget = \"{budget}\"\nfirst = \"20ms\"\n\
         max = \"50ms\"\n[sinks.emit]\ntype = \"exec\"\ncommand = [{path:?}]\n"
    ));
    let daemon = site.start();
    (site, daemon)
}

#[test]
fn several_sinks_have_a_receipt_each_and_one_failure_parks() {
    let (site, _daemon) = with_command("echo no luck >&2; exit 3", "200ms");
    site.drop_file("intent-a.json", &scaling("web", 2));
    let record = site.wait_for_records(1).remove(0);
    assert_eq!((&record["outcome"], &record["code"]), (&json!("parked"), &json!("COMMAND_FAILED")));
    let receipts = record["receipts"].as_array().unwrap();
    assert_eq!(receipts[0]["sink"], "package");
    assert_eq!(receipts[0]["attempts"], 1);
    assert!(receipts[0].get("code").is_none() && receipts[1]["attempts"].as_u64() > Some(1));
    assert!(record["message"].as_str().unwrap().contains("no luck"), "{record}");
}

#[test]
fn a_passing_failure_is_tried_again_until_it_passes() {
    let script = "n=$(cat \"$4/n\" 2>/dev/null || echo 0); echo $((n + 1)) >\"$4/n\"; [ $n -ge 2 ]";
    let (site, _daemon) = with_command(script, "1m");
    site.drop_file("intent-a.json", &scaling("web", 2));
    let record = site.wait_for_records(1).remove(0);
    assert_eq!(record["outcome"], "delivered");
    assert_eq!(record["receipts"][1]["attempts"], 3);
}

#[test]
fn a_rewrite_in_place_is_never_blended() {
    let site = Site::new();
    let _daemon = site.start();
    let path = site.inbox().join("intent-rewritten.json");
    let mut writer = OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
    for replicas in [11, 22, 33] {
        writer.set_len(0).unwrap();
        std::io::Seek::rewind(&mut writer).unwrap();
        writer.write_all(scaling("web", replicas).as_bytes()).unwrap();
        writer.sync_all().unwrap();
    }
    drop(writer);
    site.wait_for_records(1);
    assert_eq!(site.replicas("web"), Some(33));
}
