//! Disks that are full, read-only or gone under a running daemon.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::check::{Expect, Log, check};
use crate::io::disk::{Disk, done, fill, fill_with_names};
use crate::report::{Options, Tally};
use crate::support::{Site, scaling, wait_until};

const NO_MOUNT: &str = "nothing can be mounted here (needs root)";

/// Drops `count` intents from number `from` on; each has a target of its own.
pub fn drop_some(site: &Site, log: &mut Log, from: usize, count: usize) {
    for index in from..from + count {
        let (name, text) = (format!("intent-{index}.json"), scaling(&format!("t{index}"), 2));
        site.drop_file(&name, &text);
        log.dropped(&name, text, Expect::Admitted);
    }
}

/// What has to hold once the fault is over and nothing runs.
pub fn settled(site: &Site, log: &mut Log) -> Tally {
    let told: BTreeSet<Option<u64>> = log.told.iter().map(|told| told["seq"].as_u64()).collect();
    let mut tally = Tally { acked: told.len() as u64, ..Tally::default() };
    let finished = site.run(&["batch", "-o", "jsonl"]);
    log.told_by_output(&finished.stdout);
    tally.require(matches!(finished.code, Some(0 | 1)), || {
        format!("the next start ends with {:?}: {}", finished.code, finished.stderr)
    });
    tally.violations.extend(check(site, log));
    tally
}

/// Waits until so many have been archived.
pub fn wait_for(site: &Site, count: usize) {
    wait_until(&format!("{count} archived"), || site.names("processed").len() >= count);
}

/// B5: no byte is left, again and again.
pub fn bytes(options: &Options) -> Tally {
    let Some(disk) = Disk::memory("size=4m") else { return Tally::skipped(NO_MOUNT) };
    cycles(&disk, fill, |path| std::fs::remove_file(path).unwrap(), options)
}

/// B6: no inode is left, again and again.
pub fn inodes(options: &Options) -> Tally {
    let Some(disk) = Disk::memory("nr_inodes=700") else { return Tally::skipped(NO_MOUNT) };
    cycles(&disk, fill_with_names, |path| std::fs::remove_dir_all(path).unwrap(), options)
}

fn cycles(disk: &Disk, fill: fn(&Path) -> PathBuf, free: fn(&Path), options: &Options) -> Tally {
    let mut tally = Tally::default();
    let (site, mut log) = (Site::at(&[disk.path()], ""), Log::default());
    let mut daemon = site.start();
    let mut slowest = Duration::ZERO;
    let mut dropped = 0;
    for _ in 0..if options.full { 20 } else { 4 } {
        // They lie there already when the last room goes: the producers are not what is tested.
        daemon.signal(libc::SIGSTOP);
        drop_some(&site, &mut log, dropped, 10);
        dropped += 10;
        let ballast = fill(disk.path());
        daemon.signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(800));
        tally.require(!daemon.has_ended(), || format!("it ended: {:?}", daemon.log().last()));
        if site.names("processed").len() < dropped {
            tally.fired += 1;
        }
        log.told_by_status(&site);
        free(&ballast);
        let freed = Instant::now();
        wait_for(&site, dropped);
        slowest = slowest.max(freed.elapsed());
    }
    tally.notes.push(format!("goes on after at most {:.1} s", slowest.as_secs_f64()));
    let code = daemon.stop().0;
    tally.require(code == Some(0), || format!("it ends with {code:?}"));
    tally.add(settled(&site, &mut log), "afterwards");
    tally
}

/// B8: the spool and the packages become read-only and writable again.
pub fn read_only(options: &Options) -> Tally {
    let (Some(spool), Some(packages)) = (Disk::memory("size=16m"), Disk::memory("size=16m")) else {
        return Tally::skipped(NO_MOUNT);
    };
    let state = tempfile::tempdir().unwrap();
    let mut tally = Tally::default();
    let site = Site::at(
        &[spool.path(), state.path(), packages.path()],
        "[retry]\nfirst = \"10ms\"\nmax = \"100ms\"",
    );
    let (mut log, mut dropped) = (Log::default(), 0);
    let mut daemon = site.start();
    for round in 0..if options.full { 20 } else { 4 } {
        let disk = if round % 2 == 0 { &packages } else { &spool };
        daemon.signal(libc::SIGSTOP);
        drop_some(&site, &mut log, dropped, 5);
        dropped += 5;
        let set = disk.remount("ro");
        daemon.signal(libc::SIGCONT);
        if !set {
            tally.notes.push("busy: not set to read-only".to_owned());
        }
        std::thread::sleep(Duration::from_millis(500));
        if set && site.names("processed").len() < dropped {
            tally.fired += 1;
        }
        tally.require(!daemon.has_ended(), || format!("it ended: {:?}", daemon.log().last()));
        log.told_by_status(&site);
        assert!(disk.remount("rw"), "it can be written again");
        wait_for(&site, dropped);
    }
    let code = daemon.stop().0;
    tally.require(code == Some(0), || format!("it ends with {code:?}"));
    tally.add(settled(&site, &mut log), "afterwards");
    tally
}

/// B9: the filesystem goes down under a running daemon.
pub fn down(options: &Options) -> Tally {
    if !super::has("xfs_io") {
        return Tally::skipped("xfs_io is not installed");
    }
    let mut tally = Tally::default();
    for round in 0..if options.full { 30 } else { 3 } {
        let Some(disk) = Disk::ext4("96m") else { return Tally::skipped(NO_MOUNT) };
        let path = disk.path().to_owned();
        let break_it = move || done("xfs_io", &["-x", "-c", "shutdown", &path.to_string_lossy()]);
        let part = broken(&disk, break_it, Duration::from_millis(20 * round));
        tally.add(part, &format!("round {round}"));
    }
    tally
}

/// B2: the real thing. The image has no room, a sync fails and drops what it did not write, and
/// later ones succeed.
pub fn fsyncgate(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for round in 0..if options.full { 50 } else { 2 } {
        let Some(disk) = Disk::ext4("12m") else { return Tally::skipped(NO_MOUNT) };
        let path = disk.path().to_owned();
        let mut told = Vec::new();
        let break_it = || {
            let Ok(mut file) = std::fs::File::create(path.join("ballast")) else { return false };
            // It may already be the write that is refused, when syncs of ours have failed before.
            let _ = file.write_all(&vec![1; 30 << 20]);
            told.extend((0..3).map(|_| file.sync_all().is_ok()));
            !told[0]
        };
        let part = broken(&disk, break_it, Duration::from_millis(10 * round));
        tally.add(part, &format!("round {round}"));
        tally.notes.push(format!("three syncs of another file in a row are told ok: {told:?}"));
    }
    tally
}

/// Breaks a disk under load; the daemon has to end with 74, and after a reboot nothing is missing
/// that anybody was told.
fn broken(disk: &Disk, break_it: impl FnOnce() -> bool, after: Duration) -> Tally {
    let mut tally = Tally::default();
    let (site, mut log) = (Site::at(&[disk.path()], ""), Log::default());
    let mut daemon = site.start();
    drop_some(&site, &mut log, 0, 20);
    wait_for(&site, 20);
    done("sync", &["-f", &site.inbox().to_string_lossy()]);
    log.told_by_status(&site);
    drop_late(&site, &mut log, 20..60);
    std::thread::sleep(after);
    tally.require(break_it(), || "the disk did not break".to_owned());
    let start = Instant::now();
    let mut next = 60;
    while !daemon.has_ended() && start.elapsed() < Duration::from_secs(15) {
        log.told_by_status(&site);
        drop_late(&site, &mut log, next..next + 1);
        next += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    log.told_by_status(&site);
    if daemon.has_ended() {
        let code = daemon.wait_code();
        tally.fired += 1;
        tally.notes.push(format!("ends after {:.1} s", start.elapsed().as_secs_f64()));
        tally.require(code == 74, || format!("it ends with {code}: {:?}", daemon.log().last()));
    } else {
        tally.violation(format!("it goes on: {:?}", daemon.log().last()));
        daemon.kill();
    }
    disk.reboot();
    let _ = std::fs::remove_file(disk.path().join("ballast"));
    tally.add(settled(&site, &mut log), "after the reboot");
    tally
}

/// Drops of which nobody knows whether they reach the disk.
fn drop_late(site: &Site, log: &mut Log, numbers: std::ops::Range<usize>) {
    for index in numbers {
        let (name, text) = (format!("intent-{index}.json"), scaling(&format!("t{index}"), 2));
        let temporary = site.inbox().join(format!(".{name}.tmp"));
        let written = std::fs::File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        if written.and_then(|()| std::fs::rename(&temporary, site.inbox().join(&name))).is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        log.dropped(&name, text, Expect::Any);
        log.drops.last_mut().expect("it was added just now").durable = false;
    }
}
