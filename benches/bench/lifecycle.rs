//! Start, stop and rest: the daemon with nothing to do.

use std::fs;
use std::time::{Duration, Instant};

use crate::ground::{Ground, Medium};
use crate::site::{Daemon, Site, document, file_name, wait_for};
use crate::table::{Goal, Row};
use crate::{Scale, median, pause, percentile};

pub fn measure(scale: Scale) -> Vec<Row> {
    let medium = Medium::disk(scale);
    let successions = scale.of(1, 10, 100);
    let ground = Ground::new(medium, successions);
    let site = Site::new(&ground.path().join("spool"));
    let (mut ready, mut stop) = (Vec::new(), Vec::new());
    for _ in 0..scale.of(1, 5, 15) {
        let daemon = site.start(&[]);
        ready.push(daemon.ready.as_secs_f64() * 1e3);
        stop.push(daemon.stop().as_secs_f64() * 1e3);
    }
    let daemon = site.start(&[]);
    pause(scale.of(Duration::ZERO, Duration::from_secs(1), Duration::from_secs(2)));
    let resting = rest(
        &daemon,
        scale.of(Duration::from_millis(50), Duration::from_secs(5), Duration::from_secs(15)),
    );
    daemon.stop();
    let mut takeovers = takeovers(&site, successions);
    let row = |name: &str, unit, ours, most| Row {
        name: name.to_owned(),
        unit,
        ours,
        reference: None,
        goal: Goal::Value(most),
    };
    vec![
        row("start to ready, empty ledger", "ms", median(ready), 20.0),
        row("SIGTERM to exit when idle", "ms", median(stop), 50.0),
        row("takeover after kill -9, p50", "ms", percentile(&mut takeovers, 50), 100.0),
        row("takeover after kill -9, p99", "ms", percentile(&mut takeovers, 99), 100.0),
        row("idle processor time", "%", resting.percent, 0.1),
        row("idle wake-ups", "/s", resting.wakes, 2.0),
    ]
}

/// Milliseconds from the death of a leader to the next package, each beside a daemon that stood by.
fn takeovers(site: &Site, count: usize) -> Vec<f64> {
    let mut leader = site.start(&[]);
    let takeover = |index| {
        let next = site.stand_by();
        let died = Instant::now();
        drop(std::mem::replace(&mut leader, next));
        site.drop_file(&file_name(index), &document(index));
        wait_for(&site.package(index));
        died.elapsed().as_secs_f64() * 1e3
    };
    (0..count).map(takeover).collect()
}

struct Rest {
    percent: f64,
    wakes: f64,
}

fn rest(daemon: &Daemon, time: Duration) -> Rest {
    let start = Instant::now();
    let before = used(daemon.pid());
    pause(time);
    let after = used(daemon.pid());
    let seconds = start.elapsed().as_secs_f64();
    Rest {
        percent: (after.0 - before.0) / 1e9 / seconds * 100.0,
        wakes: (after.1 - before.1) / seconds,
    }
}

/// Nanoseconds on a processor, and times that a thread went to sleep, of all threads.
fn used(pid: u32) -> (f64, f64) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon is there");
    let (mut time, mut waits) = (0.0, 0.0);
    for thread in threads {
        let path = thread.expect("an entry").path();
        let schedule = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        time += schedule.split(' ').next().and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        waits += field(&status, "voluntary_ctxt_switches:");
    }
    (time, waits)
}

/// A number from `/proc/PID/status`.
pub fn field(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}
