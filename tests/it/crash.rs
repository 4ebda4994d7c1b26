//! Killed at any moment, started again: the end is the same as without the kill.

// A producer that is slow, and a kill at a random moment, are made of time.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Site, scaling, wait_until};

const VALID: usize = 300;
const INVALID: usize = 30;

/// Whether all that has been dropped up to this round is archived.
fn is_archived(site: &Site, round: usize) -> bool {
    site.names("processed").len() == (round + 1) * VALID / 10
        && site.names("failed").len() == 2 * (round + 1) * INVALID / 10
}

#[test]
fn killing_at_any_moment_changes_nothing_in_the_end() {
    let mut seed = std::hash::RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed}");
    let site = Site::new();
    let mut kills_under_load = 0;
    for round in 0..10 {
        for index in (round..VALID).step_by(10) {
            let name = format!("intent-v{index:03}.json");
            site.drop_file(&name, &scaling(&format!("t{}", index % 50), 1 + index as u64 % 100));
        }
        for index in (round..INVALID).step_by(10) {
            site.drop_file(&format!("intent-x{index:02}.json"), "{\"intent_type\":");
        }
        let daemon = site.launch(&[]);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Every other kill is counted from the first claim, so that it hits the path and not the
        // start, however slow the machine is.
        if round % 2 == 1 {
            wait_until("a claim", || !site.names("work").is_empty() || is_archived(&site, round));
        }
        std::thread::sleep(Duration::from_micros(
            seed % if round % 2 == 1 { 15_000 } else { 60_000 },
        ));
        kills_under_load += usize::from(!is_archived(&site, round));
        daemon.kill();
    }
    println!("{kills_under_load} of 10 kills came while there was work");
    assert!(kills_under_load > 0, "no kill came while there was work: the test shows nothing");
    let daemon = site.start();
    wait_until("an empty inbox", || site.names("inbox").is_empty());
    let history = site.wait_for_records(VALID + INVALID);

    let mut files = BTreeMap::<&str, usize>::new();
    for record in &history {
        *files.entry(record["file"].as_str().unwrap()).or_default() += 1;
        assert_ne!(record["outcome"], "pending", "{record}");
    }
    assert_eq!(files.len(), VALID + INVALID, "one outcome for each file");
    assert!(files.values().all(|count| *count == 1), "{files:?}");
    assert_eq!(site.names("processed").len(), VALID);
    let reasons = |name: &&String| name.ends_with(".reason.json");
    assert_eq!(site.names("failed").iter().filter(reasons).count(), INVALID);
    assert_eq!(site.names("failed").len(), 2 * INVALID);
    assert_eq!(site.names("status").len(), VALID + INVALID);
    assert_eq!((site.names("inbox"), site.names("work")), (vec![], vec![]));
    for name in site.names("status") {
        let text = std::fs::read_to_string(site.spool().join("status").join(&name)).unwrap();
        let status: Value = serde_json::from_str(&text).unwrap();
        let record = history.iter().find(|record| record["seq"] == status["seq"]).unwrap();
        for key in ["file", "outcome", "code", "digest"] {
            assert_eq!(status[key], record[key], "{name}: {key}");
        }
    }
    assert_eq!(site.names("packages").len(), 50);
    for target in 0..50 {
        let name = format!("t{target}");
        let wanted = Value::from(name.clone());
        let last =
            history.iter().rev().find(|record| record["intent"]["target"] == wanted).unwrap();
        assert_ne!(last["outcome"], "superseded");
        assert_eq!(site.replicas(&name), last["intent"]["replicas"].as_u64(), "{name}");
    }
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_claim_without_a_row_is_read_anew() {
    let site = Site::new();
    std::fs::create_dir_all(site.spool().join("work")).unwrap();
    std::fs::write(site.spool().join("work/7.3.intent-a.json"), scaling("web", 4)).unwrap();
    let _daemon = site.start();
    let history = site.wait_for_records(1);
    assert_eq!(history[0]["file"], "intent-a.json");
    assert_eq!(history[0]["outcome"], "delivered");
    assert_eq!(site.names("processed"), ["intent-a.json"]);
}

#[test]
fn a_claim_that_was_left_unread_is_synced_before_it_is_accepted() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("SKIPPED: strace is not installed");
        return;
    }
    let site = Site::new();
    std::fs::create_dir_all(site.spool().join("work")).unwrap();
    std::fs::write(site.spool().join("work/7.3.intent-a.json"), scaling("web", 4)).unwrap();
    let trace = site.root().join("trace");
    let batch = site.command(&["batch", "--quiet"]);
    let mut command = Command::new("strace");
    // A killed leader's rename may be on no disk yet: once the row is final, a power cut would put the
    // file back into the inbox.
    command.args(["-f", "-y", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(&trace);
    let status = command.arg(batch.get_program()).args(batch.get_args()).status().unwrap();
    assert!(status.success());
    let trace = std::fs::read_to_string(&trace).unwrap();
    let place = |part: &str| trace.lines().position(|line| line.contains(part));
    let packages = place("/packages>").expect("the package was published");
    let work = place("/work>").expect("the claim was synced");
    let accepted = trace.lines().skip(work).position(|line| line.contains("ledger.db-wal>"));
    assert!(accepted.is_some_and(|after| work + after < packages), "{trace}");
}

#[test]
fn an_accepted_intent_is_delivered_by_the_next_start_and_keeps_its_attempts() {
    let site = Site::new();
    let flag = site.root().join("works");
    let config = format!(
        "sink = [\"emit\"]\n[retry]\nfirst = \"10ms\"\nmax = \"50ms\"\n[sinks.emit]\ntype = \"exec\"\n\
         command = [\"test\", \"-e\", {flag:?}, \"-o\", \"{{intent}}\", \"=\", \"\"]\n"
    );
    site.configure(&config);
    let daemon = site.start();
    site.drop_file("intent-a.json", &scaling("web", 4));
    wait_until("an accepted intent", || site.history().len() == 1);
    let pending = site.history().remove(0);
    assert_eq!(pending["outcome"], "pending");
    std::thread::sleep(Duration::from_millis(100));
    daemon.kill();
    std::fs::write(&flag, "").unwrap();
    let _daemon = site.start();
    let record = site.wait_for_records(1).remove(0);
    assert_eq!(record["outcome"], "delivered");
    assert_eq!((&record["seq"], &record["epoch"]), (&pending["seq"], &pending["epoch"]));
    assert!(record["receipts"][0]["attempts"].as_u64() > Some(1), "{record}");
}

#[test]
fn a_document_is_not_forgotten_when_the_directory_it_should_go_to_is_gone() {
    let site = Site::new();
    let daemon = site.start();
    std::fs::remove_dir_all(site.spool().join("processed")).unwrap();
    site.drop_file("intent-1.json", &scaling("web", 3));
    daemon.wait_for_message("not archived yet; trying again");
    assert_eq!(site.names("work").len(), 1);
    daemon.kill();
    let daemon = site.start();
    let history = site.wait_for_records(1);
    assert_eq!((history.len(), &history[0]["outcome"]), (1, &"delivered".into()));
    assert_eq!(site.names("processed"), ["intent-1.json"]);
    daemon.stop();
}

/// A small filesystem of its own for a site, where that may be mounted.
struct SmallDisk {
    site: Site,
}

impl SmallDisk {
    fn mount(kib: u32) -> Option<Self> {
        let site = Site::new();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(site.root())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("SKIPPED: a small filesystem cannot be mounted here (needs root)");
            return None;
        }
        std::fs::create_dir_all(site.inbox()).unwrap();
        site.configure("");
        Some(SmallDisk { site })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.site.root()).status();
    }
}

#[test]
fn a_full_disk_refuses_new_work_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(3 << 10) else { return };
    let site = &disk.site;
    let daemon = site.start();
    let ballast = site.root().join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // Make room for the documents alone.
    file.set_len(file.metadata().unwrap().len() - (300 << 10)).unwrap();
    let mut dropped = 0;
    for index in 0..60 {
        let path = site.inbox().join(format!("intent-{index}.json"));
        match std::fs::write(&path, scaling(&format!("t{index}"), 2)) {
            Ok(()) => dropped += 1,
            Err(_) => drop(std::fs::remove_file(&path)),
        }
    }
    assert!(dropped > 0, "there was room for some documents");
    std::thread::sleep(Duration::from_millis(700));
    assert!(site.names("processed").len() < dropped, "the disk was full: the test shows nothing");
    std::fs::remove_file(&ballast).unwrap();
    drop(file);
    wait_until("an empty inbox", || site.names("inbox").is_empty());
    wait_until("an empty work directory", || site.names("work").is_empty());
    assert_eq!(daemon.stop().0, Some(0));
    let history = site.history();
    let delivered = history.iter().filter(|record| record["outcome"] == "delivered").count();
    let half = history.iter().filter(|r| r["code"] == "EMPTY" || r["code"] == "INCOMPLETE").count();
    assert!(history.len() >= dropped && delivered + half == history.len(), "{history:#?}");
    assert!(delivered >= dropped, "{delivered} of {dropped}");
}
