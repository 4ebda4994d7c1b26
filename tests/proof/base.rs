//! The harness itself: a run without a fault passes, and the checker sees each kind of loss.

use std::path::Path;

use crate::check::check;
use crate::report::{Options, Row, Tally};
use crate::workload::{Load, Work};

pub fn rows() -> Vec<Row> {
    vec![Row { id: "seen", what: "the checker sees each kind of loss", run: seen }]
}

/// A way to spoil a finished site: what it is, what has to be said of it, and how it is done.
type Spoil = (&'static str, &'static str, fn(&mut Work));

/// Each is something that a broken protocol would leave behind.
const SPOILS: &[Spoil] = &[
    ("a processed document is gone", "processed/ lacks", |work| {
        remove(&work.site.spool().join("processed"));
    }),
    ("a failed document is gone", "failed/ lacks", |work| {
        std::fs::remove_file(work.site.spool().join("failed/intent-7.json")).unwrap();
    }),
    ("a reason is torn", "is torn", |work| {
        put(&work.site.spool().join("failed/intent-7.json.reason.json"), "{\"seq\":");
    }),
    ("a status file is gone", "no whole status file", |work| {
        remove(&work.site.spool().join("status"));
    }),
    ("a status says something else", "status says outcome", |work| {
        let status = work.site.spool().join("status");
        let path = status.join(crate::support::names(&status).remove(0));
        let text = std::fs::read_to_string(&path).unwrap();
        put(&path, &text.replace("\"outcome\":\"", "\"outcome\":\"un"));
    }),
    ("a claim is left", "left over in work/", |work| {
        put(&work.site.spool().join("work/1.1.intent-9.json"), "{}");
    }),
    ("a file is left", "left over in inbox/", |work| {
        put(&work.site.inbox().join("intent-9.json"), "{}");
    }),
    ("a package is half", "is not as composed", |work| {
        put(&work.site.packages().join("scale-default-web/deployment.yaml"), "replicas: 4");
    }),
    ("a package is gone", "is missing", |work| {
        std::fs::remove_dir_all(work.site.packages().join("scale-default-db")).unwrap();
    }),
    ("a package of nobody", "belongs to no record", |work| {
        put(&work.site.packages().join("scale-default-db/more.yaml"), "a: 1");
    }),
    ("a drop has no record", "has no record", |work| {
        work.log.dropped("intent-9.json", "{}", crate::check::Expect::Any);
    }),
    ("a record has no drop", "a record that nobody dropped", |work| drop(work.log.drops.pop())),
    ("a file has two records", "one record too many", |work| {
        let drop = work.log.drops.first_mut().expect("something was dropped");
        drop.bytes.push(b' ');
        drop.expect = crate::check::Expect::Any;
    }),
    ("a wish was not granted", "has no success", |work| {
        let drop = work.log.drops.iter_mut().find(|drop| drop.file == "intent-7.json");
        drop.expect("it was dropped").expect = crate::check::Expect::Admitted;
    }),
    ("an outcome was told otherwise", "outcome was told as", |work| {
        work.log.told[0]["outcome"] = "parked".into();
    }),
    ("an outcome that was told is lost", "is lost", |work| work.log.told[0]["seq"] = 99.into()),
    ("an effect came late", "took effect after", |work| {
        let effects = work.log.effects.as_mut().expect("there is a recorder");
        effects.extend(["c3".to_owned(), "c0".to_owned()]);
    }),
    ("nothing had an effect", "delivered without an effect", |work| {
        work.log.effects = Some(Vec::new());
    }),
];

fn seen(_: &Options) -> Tally {
    let mut tally = Tally::default();
    for (what, said, spoil) in SPOILS {
        let dir = tempfile::tempdir().unwrap();
        let mut work = Work::prepare(Load::Few, &[dir.path()], &dir.path().join("records"));
        let part = work.verdict("");
        tally.add(part, "without a fault");
        tally.acked += work.log.told.len() as u64;
        spoil(&mut work);
        tally.fired += 1;
        let found = check(&work.site, &work.log);
        tally.require(found.iter().any(|text| text.contains(said)), || {
            format!("{what}: not seen as `{said}`, but {found:?}")
        });
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
