//! The workload of the crash harnesses: accepts, rejects, supersedes and a retry, by two sinks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::check::{Expect, Log};
use crate::report::Tally;
use crate::support::{Finished, PATIENCE, Site};

/// How much there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Seven documents, which go to the sinks one batch after the other.
    Few,
    /// The same, by a ledger that was made by an earlier run.
    Later,
    /// More targets than both hands of the package sink take at once, so that both are at work.
    Backlog,
}

/// Targets of a backlog beside those of the few: six full batches.
const FURTHER: usize = 12;

impl Load {
    /// What the program has to be told besides a plan: with batches this small, a backlog that a
    /// harness can afford takes the way that otherwise begins at 512 intents.
    fn failpoints(self, plan: &str) -> String {
        match self {
            Load::Few | Load::Later => plan.to_owned(),
            Load::Backlog => format!("package.batch=bound@2;{plan}"),
        }
    }
}

/// A site that records each effect of its second sink, which fails the first time it is called.
///
/// `records` is outside of what a power cut forgets: it is what the world saw.
pub struct Work {
    pub site: Site,
    pub log: Log,
    load: Load,
    records: PathBuf,
}

impl Work {
    /// Makes the site and drops the files, all of it on the disk before anything is broken.
    pub fn prepare(load: Load, roots: &[&Path], records: &Path) -> Self {
        std::fs::create_dir_all(records).unwrap();
        let site = Site::at(roots, &config(records));
        let mut work = Work { site, log: Log::default(), load, records: records.to_owned() };
        if load == Load::Later {
            assert_eq!(work.run_bounded().code, Some(0), "there is nothing to do");
        }
        work.drop_all();
        work
    }

    fn drop_all(&mut self) {
        for (index, (target, replicas)) in
            [("web", 3), ("web", 5), ("db", 2), ("web", 4), ("smf", 7)].into_iter().enumerate()
        {
            self.drop_admitted(index, target, replicas);
        }
        let unknown = json!({
            "intent_type": "scaling", "target": "web", "namespace": "default", "replicas": 3,
            "replcas": 4,
        });
        self.drop("intent-6.json", &unknown.to_string(), Expect::Rejected("SCHEMA_UNKNOWN_FIELD"));
        self.drop("intent-7.json", "{\"intent_type\":", Expect::Rejected("INCOMPLETE"));
        let further = if self.load == Load::Backlog { FURTHER } else { 0 };
        for index in 8..8 + further {
            self.drop_admitted(index, &format!("t{index}"), 3);
        }
        for directory in [self.site.inbox(), self.site.root().to_owned()] {
            std::fs::File::open(directory).and_then(|directory| directory.sync_all()).unwrap();
        }
    }

    fn drop_admitted(&mut self, index: usize, target: &str, replicas: u64) {
        let text = json!({
            "intent_type": "scaling", "target": target, "namespace": "default",
            "replicas": replicas, "correlation_id": format!("c{index}"),
        });
        self.drop(&format!("intent-{index}.json"), &text.to_string(), Expect::Admitted);
    }

    fn drop(&mut self, name: &str, text: &str, expect: Expect) {
        self.site.drop_file(name, text);
        let file = std::fs::File::open(self.site.inbox().join(name)).unwrap();
        file.sync_all().unwrap();
        self.log.dropped(name, text, expect);
    }

    /// The command that does the work once and ends, under a plan as in `FAILPOINTS`.
    pub fn command(&self, plan: &str) -> Command {
        let mut command = self.site.command(&["batch", "-o", "jsonl"]);
        command.env("FAILPOINTS", self.load.failpoints(plan));
        command
    }

    /// Runs it to its end without any fault. Exit code 1 says that some were rejected.
    pub fn finish(&mut self) -> Finished {
        let finished = self.run_bounded();
        self.log.told_by_output(&finished.stdout);
        finished
    }

    /// Like [`Site::run`]; one that does not end is killed and has no exit code.
    fn run_bounded(&self) -> Finished {
        let mut command = self.command("");
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary starts");
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What it prints fits into its pipes.
        child.kill().unwrap();
        Finished::from(child.wait_with_output().unwrap())
    }

    /// Finishes after a fault and checks everything; `before` is what the killed process printed.
    pub fn verdict(&mut self, before: &str) -> Tally {
        let mut tally = Tally::default();
        self.log.told_by_output(before);
        tally.acked = self.log.told.len() as u64;
        let finished = self.finish();
        if !matches!(finished.code, Some(0 | 1)) {
            tally.violation(format!("recovery ends with {:?}: {}", finished.code, finished.stderr));
            return tally;
        }
        self.log.effects = Some(effects(&self.records));
        tally.violations = crate::check::check(&self.site, &self.log);
        tally
    }
}

/// What a recorder has written, by `correlation_id`.
///
/// A command that read its document while the disk went away has written a torn line, which is no
/// effect; one that was killed before its newline leaves two documents on one.
pub fn effects(records: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(records.join("effects")).unwrap_or_default();
    text.lines()
        .flat_map(|line| serde_json::Deserializer::from_str(line).into_iter().map_while(Result::ok))
        .filter_map(|intent: serde_json::Value| Some(intent["correlation_id"].as_str()?.to_owned()))
        .collect()
}

/// A temporary directory in memory where there is such a place.
pub fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

fn config(records: &Path) -> String {
    // One write an effect and no process below the shell, so that whoever dies leaves it whole or
    // not at all; what cannot be read has no effect.
    let script = "IFS= read -r intent <\"$1\"; test -n \"$intent\" || exit 1; \
                  printf '%s\\n' \"$intent\" >>\"$0/effects\"; \
                  test -e \"$0/failed-once\" || { : >\"$0/failed-once\"; exit 1; }";
    let command = json!(["sh", "-c", script, records, "{intent}"]);
    format!(
        "sink = [\"package\", \"emit\"]\n[retry]\nfirst = \"1ms\"\nmax = \"2ms\"\n\
         [sinks.emit]\ntype = \"exec\"\ncommand = {command}\n"
    )
}
