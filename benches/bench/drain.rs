//! A backlog of intents for different targets, drained by the real binary, beside the floor.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Line, fill, floor, median};

pub fn measure(medium: &str, directory: &Path, count: usize) -> Vec<Line> {
    let (mut ours, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    // What was made is kept until all is measured: mass deletion would slow the next round down.
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut fresh = || {
            let root = tempfile::tempdir_in(directory).expect("a temporary directory");
            fill(&root.path().join("inbox"), count);
            rustix::fs::sync();
            kept.push(root);
            kept.last().expect("it was pushed just now").path().to_owned()
        };
        ours.push(drain(&fresh(), count));
        one.push(floor::run(&fresh(), 1));
        two.push(floor::run(&fresh(), 2));
    }
    let (ours, one, two) = (median(ours), median(one), median(two));
    let line = |name: &str, floor: f64| Line {
        measure: format!("drain {count} intents, {medium} (reference: {name})"),
        ours: format!("{ours:.0}/s"),
        reference: format!("{floor:.0}/s"),
        ratio: format!("{:.2}", ours / floor),
        target: ">= 0.4",
    };
    vec![line("floor, one thread", one), line("floor, two threads", two)]
}

fn drain(root: &Path, count: usize) -> f64 {
    let start = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_intentd"))
        .args(["batch", "--quiet", "--spool"])
        .arg(root)
        .arg("--state-dir")
        .arg(root.join("state"))
        .stdout(Stdio::null())
        .status()
        .expect("the binary starts");
    assert!(status.success(), "every intent is delivered");
    count as f64 / start.elapsed().as_secs_f64()
}
