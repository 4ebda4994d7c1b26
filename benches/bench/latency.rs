//! From the producer's rename to the durable package and to the archived file, at 100 a second.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Line, document};

const PACE: Duration = Duration::from_millis(10);

pub fn measure(count: usize) -> Vec<Line> {
    let root = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(root.path().join("inbox")).expect("a directory");
    let log = File::create(root.path().join("log")).expect("a file");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_intentd"))
        .args(["run", "--log-level", "info", "--log-format", "json", "--spool"])
        .arg(root.path())
        .arg("--state-dir")
        .arg(root.path().join("state"))
        .stderr(log)
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    wait_for(&root.path().join("packages"));
    pause(Duration::from_millis(300));
    let mut latencies = Vec::new();
    let mut syncs = Vec::new();
    for index in 0..count {
        let next = Instant::now() + PACE;
        let inbox = root.path().join("inbox");
        let name = format!("intent-{index:06}.json");
        fs::write(inbox.join(".new"), document(index)).expect("a file");
        let start = Instant::now();
        fs::rename(inbox.join(".new"), inbox.join(&name)).expect("a rename");
        wait_for(&root.path().join("processed").join(&name));
        latencies.push(start.elapsed());
        syncs.push(one_sync(root.path()));
        pause(next.saturating_duration_since(Instant::now()));
    }
    daemon.kill().expect("the daemon is there");
    daemon.wait().expect("the daemon ends");
    let (sync, p50, p99) = (
        percentile(&mut syncs, 50),
        percentile(&mut latencies, 50),
        percentile(&mut latencies, 99),
    );
    let line = |name: &str, ours: Duration, target| Line {
        measure: format!(
            "rename to archived file at 100/s, {name} (reference: one fdatasync, p50)"
        ),
        ours: format!("{:.2} ms", ours.as_secs_f64() * 1e3),
        reference: format!("{:.2} ms", sync.as_secs_f64() * 1e3),
        ratio: format!("{:.1}", ours.as_secs_f64() / sync.as_secs_f64()),
        target,
    };
    vec![line("p50", p50, "<= 8 syncs"), line("p99", p99, "<= 25 ms")]
}

fn one_sync(root: &Path) -> Duration {
    let mut file = File::create(root.join("probe")).expect("a file");
    file.write_all(&[b'x'; 400]).expect("a write");
    let start = Instant::now();
    file.sync_data().expect("a sync");
    start.elapsed()
}

/// Looks often, with pauses that leave the processor to the daemon.
fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "{} comes", path.display());
        pause(Duration::from_micros(100));
    }
}

#[expect(clippy::disallowed_methods, reason = "pacing is what this measure is made of")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
