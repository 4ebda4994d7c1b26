//! The harness itself: a run without a fault passes, and the checker sees each kind of loss.

use std::path::Path;

use crate::check::check;
use crate::report::{Options, Row, Tally};
use crate::workload::Work;

pub fn rows() -> Vec<Row> {
    vec![Row { id: "seen", what: "the checker sees each kind of loss", run: seen }]
}

/// A way to spoil a finished site, by name.
type Spoil = (&'static str, fn(&mut Work));

/// Each is something that a broken protocol would leave behind.
const SPOILS: &[Spoil] = &[
    ("a processed document is gone", |work| remove(&work.site.spool().join("processed"))),
    ("a failed document is gone", |work| remove(&work.site.spool().join("failed"))),
    ("a status file is gone", |work| remove(&work.site.spool().join("status"))),
    ("a claim is left", |work| put(&work.site.spool().join("work/1.1.intent-9.json"), "{}")),
    ("a file is left", |work| put(&work.site.inbox().join("intent-9.json"), "{}")),
    ("a package is half", |work| {
        put(&work.site.packages().join("scale-default-web/deployment.yaml"), "replicas: 4");
    }),
    ("a package is gone", |work| {
        std::fs::remove_dir_all(work.site.packages().join("scale-default-db")).unwrap();
    }),
    ("a package of nobody", |work| {
        put(&work.site.packages().join("scale-default-db/more.yaml"), "a: 1");
    }),
    ("a drop has no record", |work| {
        work.log.dropped("intent-9.json", "{}", crate::check::Expect::Any);
    }),
    ("a record has no drop", |work| drop(work.log.drops.pop())),
    ("an outcome was told otherwise", |work| {
        work.log.told[0]["outcome"] = "parked".into();
    }),
    ("an outcome that was told is lost", |work| work.log.told[0]["seq"] = 99.into()),
    ("an effect came twice and late", |work| work.log.effects = vec!["c3".into(), "c0".into()]),
];

fn seen(_: &Options) -> Tally {
    let mut tally = Tally::default();
    for (what, spoil) in SPOILS {
        let dir = tempfile::tempdir().unwrap();
        let mut work = Work::prepare(&[dir.path()], &dir.path().join("records"));
        let part = work.verdict("");
        tally.add(part, "without a fault");
        tally.acked += work.log.told.len() as u64;
        spoil(&mut work);
        tally.fired += 1;
        let found = check(&work.site, &work.log);
        tally.require(!found.is_empty(), || format!("not seen: {what}"));
    }
    tally
}

fn remove(directory: &Path) {
    let name = crate::support::names(directory).remove(0);
    std::fs::remove_file(directory.join(name)).unwrap();
}

fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
