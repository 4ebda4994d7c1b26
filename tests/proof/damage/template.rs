//! A site that was killed amid its work, to be put back and damaged as often as is wanted.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::check::tree;
use crate::support::{Finished, Site, wait_until};

/// Finished and archived by a run that ended well, so that they are in the database file.
const OLD: usize = 60;
/// Finished by the run that was killed, so that they are in the write-ahead log.
const NEW: usize = 12;
/// Delivered to the first sink and not to the second one.
const OPEN: usize = 5;

type Tree = BTreeMap<String, Vec<u8>>;

/// The site and how it is without damage.
pub struct Template {
    pub site: Site,
    /// What `history` shows before anything goes on.
    pub history: Vec<Value>,
    /// The same after everything is finished, but for the times of the open ones.
    pub finished: Vec<Value>,
    pub packages_before: Tree,
    pub packages_after: Tree,
    /// Effects that the end needs, by `correlation_id`.
    pub effects: Vec<String>,
    copy: tempfile::TempDir,
}

impl Template {
    /// Makes it. Its ledger lies in the write-ahead log, or all in the database file.
    pub fn make(checkpointed: bool) -> Self {
        let site = Site::new();
        let records = site.root().join("records");
        std::fs::create_dir(&records).unwrap();
        site.configure(&config(&records));
        for index in 0..OLD {
            drop_one(&site, index);
        }
        assert!(matches!(site.run(&["batch", "--quiet"]).code, Some(0 | 1)));
        let daemon = site.start();
        (OLD..OLD + NEW).for_each(|index| drop_one(&site, index));
        site.wait_for_records(OLD + NEW);
        // The marker in the spool follows with the sync of the archive, which is shared over 5 s.
        let marked = || std::fs::read_to_string(site.spool().join(".intentd")).unwrap();
        let before = marked();
        wait_until("the spool's marker", || marked() != before);
        std::fs::write(records.join("block"), "").unwrap();
        (OLD + NEW..OLD + NEW + OPEN).for_each(|index| drop_one(&site, index));
        wait_until("open intents that one sink has", || {
            site.history().len() == OLD + NEW + OPEN && site.names("packages").len() >= 7 + OPEN
        });
        // The progress of the first sink is in the ledger a commit later.
        std::thread::sleep(std::time::Duration::from_millis(100));
        daemon.kill();
        std::fs::remove_file(records.join("block")).unwrap();
        std::fs::remove_file(records.join("effects")).unwrap();
        if checkpointed {
            sql(&site, "PRAGMA wal_checkpoint(TRUNCATE)");
        }
        let copy = tempfile::tempdir().unwrap();
        copy_tree(site.root(), copy.path());
        let mut template = Template {
            history: site.history(),
            packages_before: tree(&site.packages()),
            packages_after: Tree::new(),
            finished: Vec::new(),
            effects: Vec::new(),
            site,
            copy,
        };
        assert!(matches!(template.finish().code, Some(0 | 1)));
        template.finished = template.site.history();
        template.packages_after = tree(&template.site.packages());
        template.effects = template.effects_now();
        template
    }

    /// Puts everything back as it was when the daemon was killed.
    pub fn restore(&self) {
        self.put_back(&["spool", "state", "records"]);
    }

    /// Puts only the ledger back: enough after a run that was refused before it did anything.
    pub fn restore_ledger(&self) {
        self.put_back(&["state"]);
    }

    fn put_back(&self, parts: &[&str]) {
        for part in parts {
            std::fs::remove_dir_all(self.site.root().join(part)).unwrap();
            copy_tree(&self.copy.path().join(part), &self.site.root().join(part));
        }
    }

    /// Goes on with what is open and ends.
    pub fn finish(&self) -> Finished {
        self.site.run(&["batch", "-o", "jsonl"])
    }

    pub fn effects_now(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.site.root().join("records/effects"));
        let text = text.unwrap_or_default();
        let id = |line: &str| {
            let intent: Value = serde_json::from_str(line).ok()?;
            Some(intent["correlation_id"].as_str()?.to_owned())
        };
        text.lines().filter(|line| !line.is_empty()).map(|l| id(l).unwrap_or(l.into())).collect()
    }

    /// What is wrong with the history of a ledger that has lost its newest commits, if anything:
    /// what it shows was so at some time.
    pub fn differs_from_earlier(&self, shown: &[Value], after: bool) -> Option<String> {
        if after && shown.len() != self.finished.len() {
            return Some(format!("{} records of {}", shown.len(), self.finished.len()));
        }
        shown.iter().zip(&self.finished).find_map(|(a, b)| {
            let was = |key: &str| a[key] == b[key];
            let outcome = was("outcome")
                || (!after && a["outcome"] == "pending")
                || (a["outcome"] == "unchanged" && b["outcome"] == "delivered");
            (!(outcome && ["seq", "file", "digest"].iter().all(|key| was(key))))
                .then(|| format!("{a} instead of {b}"))
        })
    }

    /// What is wrong with a history that was shown as whole, if anything. The times of what was
    /// open differ from run to run.
    pub fn differs(&self, shown: &[Value], after: bool) -> Option<String> {
        let expected = if after { &self.finished } else { &self.history };
        if shown.len() != expected.len() {
            return Some(format!("{} records of {}", shown.len(), expected.len()));
        }
        let open = |seq: &Value| {
            self.history.iter().any(|it| it["seq"] == *seq && it["outcome"] == "pending")
        };
        shown.iter().zip(expected).find_map(|(shown, expected)| {
            let (mut a, mut b) = (shown.clone(), expected.clone());
            if after && open(&b["seq"]) {
                for record in [&mut a, &mut b] {
                    let record = record.as_object_mut().unwrap();
                    record.retain(|key, _| !key.starts_with("finished") && key != "receipts");
                    record.remove("end_to_end_seconds");
                }
            }
            (a != b).then(|| format!("{a} instead of {b}"))
        })
    }
}

/// Runs SQL on the ledger by another program than ours.
pub fn sql(site: &Site, statement: &str) {
    let script = "import sqlite3, sys\n\
                  c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                  c.execute(sys.argv[2]).fetchall()\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(site.state().join("ledger.db")).arg(statement);
    assert!(command.status().expect("python3 starts").success());
}

fn drop_one(site: &Site, index: usize) {
    let text = if index % 10 == 9 {
        format!("{{\"intent_type\":{}", " ".repeat(index))
    } else {
        let target =
            if index < OLD + NEW { format!("t{}", index % 7) } else { format!("open{index}") };
        json!({
            "intent_type": "scaling", "target": target, "namespace": "default",
            "replicas": 1 + index, "correlation_id": format!("c{index}"), "reason": "x".repeat(80),
        })
        .to_string()
    };
    site.drop_file(&format!("intent-{index:03}.json"), &text);
}

fn config(records: &Path) -> String {
    let script =
        "test -e \"$0/block\" && exit 1; printf '%s\\n' \"$(cat \"$1\")\" >> \"$0/effects\"";
    let command = json!(["sh", "-c", script, records, "{intent}"]);
    format!(
        "sink = [\"package\", \"emit\"]\n[retry]\nfirst = \"200ms\"\nmax = \"200ms\"\n\
         [sinks.emit]\ntype = \"exec\"\ncommand = {command}\n"
    )
}

/// Copies a tree as `cp -a` does.
pub fn copy_tree(from: &Path, to: &Path) {
    let mut source = from.to_owned().into_os_string();
    source.push("/.");
    std::fs::create_dir_all(to).unwrap();
    assert!(Command::new("cp").arg("-a").arg(source).arg(to).status().unwrap().success());
}
