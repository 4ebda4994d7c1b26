//! System calls and syncs an intent, counted with strace: the same on every machine, so budgets hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Scale;
use crate::ground::{Ground, Medium};
use crate::site::{Site, document, file_name, has, wait_for};
use crate::table::{Goal, Row};

/// A lone intent: claim, accept, stage, publish, finish.
const LONE_SYNCS: f64 = 5.0;

/// Calls of an intent in a backlog, measured, and 3 % of room.
const BACKLOG_CALLS: f64 = 32.3;

/// The same for its syncs, which are shared by a batch.
const BACKLOG_SYNCS: f64 = 0.03;

/// They depend on how threads happen to meet.
const UNCOUNTED: [&str; 4] = ["futex", "sched_yield", "poll", "restart_syscall"];

const SYNCS: [&str; 5] = ["fsync", "fdatasync", "syncfs", "sync_file_range", "msync"];

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke || !has("strace") {
        return Vec::new();
    }
    let mut rows = vec![lone(scale)];
    rows.extend(backlog(scale));
    rows
}

/// The most syncs that any of a few lone intents made until it was archived.
fn lone(scale: Scale) -> Row {
    let ground = Ground::new(Medium::disk(scale), 10);
    let site = Site::new(&ground.path().join("spool"));
    let outside = tempfile::tempdir().expect("a temporary directory");
    let trace = outside.path().join("trace");
    let traced = format!("trace={}", SYNCS.join(","));
    let path = trace.to_str().expect("a path of ours");
    let daemon = site.start(&["strace", "-D", "-f", "-qq", "-e", &traced, "-o", path]);
    // `-D`: the process that was started, and is ended, is the daemon.
    // The first intent makes what a daemon makes once.
    let count = |index: usize| {
        let before = lines(&trace);
        let name = file_name(index);
        site.drop_file(&name, &document(index));
        wait_for(&site.processed(&name));
        lines(&trace) - before
    };
    let most = (0..5).map(count).skip(1).max().unwrap_or_default();
    daemon.stop();
    Row {
        name: "syncs of a lone intent until it is archived".to_owned(),
        unit: "syncs",
        ours: most as f64,
        reference: None,
        goal: Goal::Budget(LONE_SYNCS),
    }
}

/// A call that was interrupted by another thread's is on two lines.
fn lines(trace: &Path) -> usize {
    let text = fs::read_to_string(trace).unwrap_or_default();
    text.lines().filter(|line| line.contains("sync") && !line.contains("resumed>")).count()
}

fn backlog(scale: Scale) -> Vec<Row> {
    let (few, many) = (512, 2_560);
    let (start, end) = (counted(scale, few), counted(scale, many));
    let each = |name: &str| {
        let at = |counts: &BTreeMap<String, f64>| counts.get(name).copied().unwrap_or_default();
        (at(&end) - at(&start)) / (many - few) as f64
    };
    let counted = end.keys().filter(|name| !UNCOUNTED.contains(&name.as_str()));
    let mut calls: Vec<(&str, f64)> = counted.map(|name| (name.as_str(), each(name))).collect();
    calls.sort_by(|one, other| other.1.total_cmp(&one.1));
    for (name, count) in calls.iter().filter(|(_, count)| *count >= 0.05) {
        eprintln!("  {count:6.2} {name}");
    }
    let row = |name: &str, unit, ours, goal| Row {
        name: format!("{name} an intent in a backlog"),
        unit,
        ours,
        reference: None,
        goal,
    };
    let all = calls.iter().map(|(_, count)| count).sum();
    let syncs = SYNCS.iter().map(|name| each(name)).sum();
    vec![
        row("system calls", "calls", all, Goal::Budget(BACKLOG_CALLS)),
        row("syncs", "syncs", syncs, Goal::Budget(BACKLOG_SYNCS)),
    ]
}

/// How often each call was made to drain so many intents.
fn counted(scale: Scale, count: usize) -> BTreeMap<String, f64> {
    let ground = Ground::new(Medium::disk(scale), count);
    let site = Site::new(&ground.path().join("spool"));
    site.fill(count, count);
    let outside = tempfile::tempdir().expect("a temporary directory");
    let summary = outside.path().join("summary");
    let path = summary.to_str().expect("a path of ours");
    site.drain(&["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", path], count);
    let text = fs::read_to_string(&summary).expect("a summary");
    let row = |line: &str| {
        let (calls, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), calls.parse().ok()?))
    };
    text.lines().filter_map(row).filter(|(name, _)| name != "total").collect()
}
