//! Whole files of the ledger are gone, older, or of another version.

use std::path::Path;

use super::template::{Template, copy_tree, sql};
use crate::check::{digest, tree};
use crate::report::{Options, Tally};
use crate::support::{Site, scaling};

/// What is done to the state directory, by name, and whether it can go unnoticed without harm.
type Loss = (&'static str, fn(&Path), bool);

const LOSSES: &[Loss] = &[
    ("-shm deleted", |state| remove(state, &["ledger.db-shm"]), true),
    ("-wal deleted", |state| remove(state, &["ledger.db-wal"]), false),
    ("-wal and -shm deleted", |state| remove(state, &["ledger.db-wal", "ledger.db-shm"]), false),
    ("ledger.db deleted", |state| remove(state, &["ledger.db"]), false),
    (
        "all of it deleted",
        |state| {
            remove(state, &["ledger.db", "ledger.db-wal", "ledger.db-shm"]);
        },
        false,
    ),
    (
        "ledger.db empty",
        |state| {
            remove(state, &["ledger.db-wal", "ledger.db-shm"]);
            std::fs::write(state.join("ledger.db"), "").unwrap();
        },
        false,
    ),
];

fn remove(state: &Path, names: &[&str]) {
    names.iter().for_each(|name| std::fs::remove_file(state.join(name)).unwrap());
}

/// Losses are refused with 74 and what to do, or change nothing.
pub fn lost(_: &Options) -> Tally {
    let mut tally = Tally::default();
    let template = Template::make(false);
    for (what, act, harmless) in LOSSES {
        template.restore();
        act(&template.site.state());
        let before = tree(&template.site.packages());
        let finished = template.finish();
        tally.fired += 1;
        if *harmless {
            let wrong = template.differs(&template.site.history(), true);
            tally.require(wrong.is_none(), || format!("{what}: {wrong:?}"));
            continue;
        }
        refused(&template.site, what, &finished, &mut tally);
        let after = tree(&template.site.packages());
        tally.require(before == after, || format!("{what}: packages changed"));
    }
    accepted(&template, &mut tally);
    tally.add(older_copies(), "a copy");
    tally
}

fn refused(site: &Site, what: &str, finished: &crate::support::Finished, tally: &mut Tally) {
    tally.require(finished.code == Some(74), || {
        format!("{what}: {:?} {}", finished.code, finished.stderr)
    });
    tally.require(finished.stderr.contains("--accept-restored-ledger"), || {
        format!("{what}: it does not say what to do: {}", finished.stderr)
    });
    let _ = site;
}

/// With the flag a site goes on without its ledger: everything new has its outcome.
fn accepted(template: &Template, tally: &mut Tally) {
    let site = &template.site;
    site.drop_file("intent-after.json", &scaling("after", 3));
    let finished = site.run(&["batch", "--quiet", "--accept-restored-ledger"]);
    tally.require(matches!(finished.code, Some(0 | 1)), || {
        format!("accepted: {:?} {}", finished.code, finished.stderr)
    });
    tally.require(site.replicas("after") == Some(3), || "accepted, and nothing works".to_owned());
    let again = site.run(&["batch", "--quiet"]);
    tally.require(again.code == Some(0), || format!("and again: {}", again.stderr));
}

/// Copies that were taken while the daemon ran: of an older epoch, and of the same one.
fn older_copies() -> Tally {
    let mut tally = Tally::default();
    for same_epoch in [false, true] {
        let site = Site::new();
        let copy = site.root().join("copy");
        let mut daemon = site.start();
        site.drop_file("intent-a.json", &scaling("web", 2));
        site.wait_for_records(1);
        copy_tree(&site.state(), &copy);
        if !same_epoch {
            daemon.kill();
            daemon = site.start();
        }
        site.drop_file("intent-b.json", &scaling("web", 3));
        site.wait_for_records(2);
        // The spool's marker follows with the sync of the archive, which is shared over 5 s.
        std::thread::sleep(std::time::Duration::from_secs(6));
        daemon.kill();
        std::fs::remove_dir_all(site.state()).unwrap();
        std::fs::rename(&copy, site.state()).unwrap();
        let what = if same_epoch { "of the same epoch" } else { "of an older epoch" };
        refused(&site, what, &site.run(&["batch"]), &mut tally);
        tally.require(site.replicas("web") == Some(3), || format!("{what}: a package changed"));
        tally.acked += 2;
        tally.fired += 1;
    }
    tally
}

/// A ledger that a newer program wrote is refused as it is, by readers and writers.
pub fn newer(_: &Options) -> Tally {
    let mut tally = Tally::default();
    let site = Site::new();
    site.drop_file("intent-a.json", &scaling("web", 2));
    site.run(&["batch", "--quiet"]);
    sql(&site, "PRAGMA user_version = 99");
    sql(&site, "PRAGMA wal_checkpoint(TRUNCATE)");
    let sum = || digest(&std::fs::read(site.state().join("ledger.db")).unwrap());
    let before = sum();
    for args in [&["batch"][..], &["run"], &["history"]] {
        let finished = site.run(args);
        tally.fired += 1;
        tally.require(finished.code == Some(74), || {
            format!("{args:?} ends with {:?}: {}", finished.code, finished.stderr)
        });
        let says = finished.stderr.contains("newer intentd");
        tally.require(says, || format!("{args:?} does not say why: {}", finished.stderr));
        tally.require(sum() == before, || format!("{args:?} changed the file"));
    }
    tally
}
