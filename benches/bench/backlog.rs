//! Memory while a great many files wait: they are to wait on disk.

use std::fs;
use std::time::Duration;

use crate::ground::{Ground, Medium};
use crate::lifecycle::field;
use crate::site::{Site, wait_until};
use crate::table::{Goal, Row};
use crate::{Scale, pause};

pub fn measure(scale: Scale) -> Vec<Row> {
    let (count, medium) = (scale.of(20, 50_000, 1_000_000), Medium::disk(scale));
    // They wait: hardly any is taken before the daemon is killed.
    let ground = Ground::new(medium, count / 4);
    let site = Site::new(&ground.path().join("spool"));
    site.fill(count, count);
    let daemon = site.start(&[]);
    let status = || fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let processed = site.root.join("processed");
    wait_until(
        || fs::read_dir(&processed).is_ok_and(|mut entries| entries.next().is_some()),
        "the first archived file",
    );
    pause(scale.of(Duration::ZERO, Duration::from_secs(2), Duration::from_secs(10)));
    let peak = field(&status().expect("the daemon is there"), "VmHWM:") / 1024.0;
    vec![Row {
        name: format!("peak memory with {count} files waiting"),
        unit: "MiB",
        ours: peak,
        reference: None,
        goal: Goal::Value(64.0),
    }]
}
