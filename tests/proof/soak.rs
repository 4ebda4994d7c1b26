//! Constant load for minutes, with mixed writers, faults, and a kill of the leader every minute.
//!
//! Ends in the checker, and in what leaks would show: memory, descriptors, threads, watches, temporary
//! files and the write-ahead log, within one leader's life and from one life to the next.

mod load;
mod measure;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::check;
use crate::io::disk::Disk;
use crate::report::{Options, Row, Tally, percentile};
use crate::support::{Daemon, Site, names, wait_until};
use crate::workload::effects;

use load::Load;
use measure::Life;

/// A leader lives so long.
const LIFE: Duration = Duration::from_secs(60);

/// Room for a run of hours, and still quickly filled.
const DISK_MIB: u32 = 512;

pub fn rows() -> Vec<Row> {
    vec![Row { id: "soak", what: "load, faults and a kill a minute for minutes", run: soak }]
}

fn config(records: &Path) -> String {
    // Every seventeenth intent fails once.
    let script = "printf '%s\\n' \"$(cat \"$1\")\" >> \"$0/effects\"; \
                  test $((INTENTD_SEQ % 17)) -ne 0 || test -e \"$0/$INTENTD_SEQ\" || \
                  { : > \"$0/$INTENTD_SEQ\"; exit 1; }";
    let command = serde_json::json!(["sh", "-c", script, records, "{intent}"]);
    format!(
        "sink = [\"package\", \"emit\"]\n[retry]\nfirst = \"10ms\"\nmax = \"100ms\"\n\
         [sinks.emit]\ntype = \"exec\"\ncommand = {command}\n"
    )
}

fn soak(options: &Options) -> Tally {
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("records");
    std::fs::create_dir_all(&records).unwrap();
    let mut tally = Tally::default();
    let disk = Disk::memory(&format!("size={DISK_MIB}m"));
    if disk.is_none() {
        tally.notes.push("no filesystem can be mounted here: it is never full".to_owned());
    }
    let place = disk.as_ref().map_or(dir.path(), Disk::path);
    let site = Site::at(&[place], &config(&records));
    let load = Load::start(&site, options.seed);
    let mut lives = Vec::new();
    let mut takeovers = Vec::new();
    let mut leader = site.start();
    for _ in 0..options.minutes {
        let standby = site.launch(&[]);
        standby.wait_for_message("standby");
        lives.push(live(&site, &leader, disk.is_some(), &mut tally));
        load.told_by_status(&site);
        let killed = Instant::now();
        leader.kill();
        tally.fired += 1;
        standby.wait_for_message("ready");
        takeovers.push(killed.elapsed().as_secs_f64() * 1e3);
        leader = standby;
    }
    let mut log = load.stop();
    wait_until("an empty inbox", || site.names("inbox").is_empty());
    log.told_by_status(&site);
    let (code, lines) = leader.stop();
    let last = lines.last().cloned().unwrap_or_default();
    tally.require(code == Some(0), || format!("the last leader ends with {code:?}: {last}"));
    // What SIGTERM left for a later retry is finished by one more start.
    let rest = site.run(&["batch", "--quiet"]);
    tally.require(rest.code == Some(0), || format!("the rest: {:?} {}", rest.code, rest.stderr));
    log.effects = Some(effects(&records));
    tally.acked = log.told.len() as u64;
    tally.violations.extend(check(&site, &log));
    for part in ["inbox", "work", "status", "failed", "processed"] {
        let left = hidden(&site.spool().join(part));
        tally.require(left.is_empty(), || format!("temporary files in {part}/: {left:?}"));
    }
    measure::judge(&lives, &mut tally);
    let (p50, p99) = (percentile(&mut takeovers, 50), percentile(&mut takeovers, 99));
    tally.notes.push(format!("kill to ready of the next leader: p50 {p50:.1} ms, p99 {p99:.1} ms"));
    tally
}

/// One minute under the same leader, with its faults; returns what was measured meanwhile.
fn live(site: &Site, leader: &Daemon, can_fill: bool, tally: &mut Tally) -> Life {
    let start = Instant::now();
    let mut life = Life::default();
    let mut due: Vec<(u64, Fault)> =
        vec![(10, Fault::Pause), (20, Fault::Reload), (30, Fault::FullDisk), (40, Fault::Nudge)];
    while start.elapsed() < LIFE {
        std::thread::sleep(Duration::from_millis(500));
        if due.first().is_some_and(|(at, _)| start.elapsed().as_secs() >= *at) {
            let (_, fault) = due.remove(0);
            tally.fired += u64::from(inject(fault, site, leader, can_fill));
        }
        life.sample(start.elapsed(), leader.pid(), site);
    }
    life
}

#[derive(Clone, Copy)]
enum Fault {
    /// The leader stands still for a second.
    Pause,
    /// The configuration is read again.
    Reload,
    /// The disk is full for two seconds.
    FullDisk,
    /// The inbox is looked at once more than needed.
    Nudge,
}

/// Injects a fault and takes it back; `false` when it cannot be had here.
fn inject(fault: Fault, site: &Site, leader: &Daemon, can_fill: bool) -> bool {
    match fault {
        Fault::Pause => {
            leader.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_secs(1));
            leader.signal(libc::SIGCONT);
        }
        Fault::Reload => leader.signal(libc::SIGHUP),
        Fault::Nudge => leader.signal(libc::SIGUSR1),
        Fault::FullDisk if !can_fill => return false,
        Fault::FullDisk => {
            let ballast = site.root().join("ballast");
            let mut file = std::fs::File::create(&ballast).unwrap();
            while std::io::Write::write_all(&mut file, &[0; 1 << 16]).is_ok() {}
            std::thread::sleep(Duration::from_secs(2));
            std::fs::remove_file(&ballast).unwrap();
        }
    }
    true
}

/// Dot-files in a directory.
fn hidden(directory: &Path) -> Vec<String> {
    let shown = names(directory);
    std::fs::read_dir(directory)
        .map(|all| {
            all.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|name| !shown.contains(name))
                .collect()
        })
        .unwrap_or_default()
}
