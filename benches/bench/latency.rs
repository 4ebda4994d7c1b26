//! From the producer's rename to the package and to the archived file, at 100 a second.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ground::{Ground, Medium};
use crate::site::{Site, document, file_name, wait_for};
use crate::table::{Goal, Row};
use crate::{Scale, pause, percentile};

const PACE: Duration = Duration::from_millis(10);

pub fn measure(scale: Scale) -> Vec<Row> {
    let (count, medium) = (scale.of(3, 500, 3_000), Medium::disk(scale));
    let ground = Ground::new(medium, count);
    let site = Site::new(&ground.path().join("spool"));
    let daemon = site.start(&[]);
    let (mut packages, mut archived, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..count {
        let next = Instant::now() + PACE;
        let name = file_name(index);
        let dropped = site.drop_file(&name, &document(index));
        // The package shows when it has been synced; its name is synced before the file is archived.
        wait_for(&site.package(index));
        packages.push(dropped.elapsed().as_secs_f64() * 1e3);
        wait_for(&site.processed(&name));
        archived.push(dropped.elapsed().as_secs_f64() * 1e3);
        syncs.push(one_sync(ground.path()).as_secs_f64() * 1e3);
        pause(next.saturating_duration_since(Instant::now()));
    }
    daemon.stop();
    let sync = percentile(&mut syncs, 50);
    let row = |what: &str, ours, goal| Row {
        name: format!("{what}, 100/s, {}", medium.name()),
        unit: "ms",
        ours,
        reference: Some((sync, "one fdatasync, p50")),
        goal,
    };
    let mut rows = vec![
        row("rename to package p50", percentile(&mut packages, 50), Goal::None),
        row("rename to package p99", percentile(&mut packages, 99), Goal::None),
        row("rename to archived p50", percentile(&mut archived, 50), Goal::Most(8.0)),
        row("rename to archived p99", percentile(&mut archived, 99), Goal::Value(10.0)),
    ];
    rows.push(Row {
        reference: None,
        ..row("fdatasync p99", percentile(&mut syncs, 99), Goal::None)
    });
    rows
}

/// Appends to a file of its own, as a ledger would.
fn one_sync(root: &Path) -> Duration {
    let path = root.join("probe");
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a file");
    file.write_all(&[b'x'; 400]).expect("a write");
    let start = Instant::now();
    file.sync_data().expect("a sync");
    start.elapsed()
}
