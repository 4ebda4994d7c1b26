//! `validate DIR`, beside a loop that opens, reads and closes the same files.

use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::ground::{Ground, Medium};
use crate::site::{BINARY, Site};
use crate::table::{Goal, Row};
use crate::{Scale, median};

pub fn measure(scale: Scale) -> Vec<Row> {
    let (count, medium) = (scale.of(20, 5_000, 20_000), Medium::disk(scale));
    let ground = Ground::new(medium, count);
    let site = Site::new(ground.path());
    site.fill(count, count);
    let (mut ours, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(rate(count, || read_all(&site)));
        ours.push(rate(count, || {
            let inbox = site.root.join("inbox");
            let mut command = Command::new(BINARY);
            command.args(["validate", "--quiet"]).arg(inbox).stdout(Stdio::null());
            assert!(command.status().is_ok_and(|status| status.success()), "all are right");
        }));
    }
    vec![Row {
        name: format!("validate {count} files, {}", medium.name()),
        unit: "/s",
        ours: median(ours),
        reference: Some((median(alone), "open, read, close")),
        goal: Goal::Least(0.7),
    }]
}

fn read_all(site: &Site) {
    for entry in fs::read_dir(site.root.join("inbox")).expect("an inbox") {
        let path = entry.expect("an entry").path();
        black_box(fs::read(path).expect("a file"));
    }
}

fn rate(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    count as f64 / start.elapsed().as_secs_f64()
}
