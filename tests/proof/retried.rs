//! Kills while parked intents are retried: of a command alone, of the leader that it asks, of the
//! command that asks. In the end each intent has one outcome and one earlier one, each file one place.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::check::{Expect, Log, check};
use crate::report::{Options, Row, Tally};
use crate::support::{Daemon, Site, names, wait_until};
use crate::workload::{effects, memory};

/// There are at least so many points on each way; fewer means that some have been lost.
const POINTS_MIN: [usize; 3] = [45, 35, 7];

/// Intents that are parked and retried; one further is delivered at once.
const PARKED: usize = 2;

pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "retry-alone", what: "`retry` killed at each point, nobody leads", run: alone },
        Row { id: "retry-led", what: "the leader killed at each point after a retry", run: led },
        Row {
            id: "retry-asked",
            what: "`retry` killed at each point, the leader goes on",
            run: asked,
        },
    ]
}

/// A site with parked intents, whose sink has been mended since.
struct Parked {
    site: Site,
    log: Log,
    records: PathBuf,
    _dir: TempDir,
}

impl Parked {
    fn prepare() -> Self {
        let dir = memory();
        let records = dir.path().join("records");
        std::fs::create_dir_all(&records).unwrap();
        let site = Site::at(&[dir.path()], &config(&records));
        let mut log = Log::default();
        for index in 0..=PARKED {
            let target = if index == PARKED { "well".to_owned() } else { format!("sick{index}") };
            let text = json!({
                "intent_type": "scaling", "target": target, "namespace": "default",
                "replicas": index + 1, "correlation_id": format!("c{index}"),
            });
            let name = format!("intent-{index}.json");
            site.drop_file(&name, &text.to_string());
            log.dropped(&name, text.to_string(), Expect::Admitted);
        }
        std::fs::write(records.join("broken"), "").unwrap();
        assert_eq!(site.run(&["batch", "-q"]).code, Some(1), "some are parked");
        std::fs::remove_file(records.join("broken")).unwrap();
        assert_eq!(site.names("failed").len(), 2 * PARKED);
        Parked { site, log, records, _dir: dir }
    }

    fn retry(&self, plan: &str) -> Command {
        let mut command = self.site.command(&["retry", "--parked", "-o", "jsonl"]);
        command.env("FAILPOINTS", plan).stdin(Stdio::null());
        command
    }

    fn leader(&self, plan: &str, trace: Option<&Path>) -> Daemon {
        let mut command = self.site.command(&["run", "--log-format", "json"]);
        command.env("FAILPOINTS", plan);
        if let Some(trace) = trace {
            command.env("FAILPOINTS_TRACE", trace);
        }
        let daemon = Daemon::from(command);
        daemon.wait_for_message("ready");
        daemon
    }

    /// Retries what is still parked, delivers, and checks everything.
    fn verdict(mut self) -> Tally {
        let mut tally = Tally::default();
        let again = self.retry("").output().expect("the binary starts");
        // What a killed command asked for comes first; then there is nothing left to retry.
        tally.require(matches!(again.status.code(), Some(0 | 1)), || {
            format!("retry ends with {}: {}", again.status, String::from_utf8_lossy(&again.stderr))
        });
        // The second one removes what the first one has answered for a command that was killed.
        for _ in 0..2 {
            let batch = self.site.run(&["batch", "-o", "jsonl"]);
            tally.require(batch.code == Some(0), || format!("batch: {:?}", batch.code));
            self.log.told_by_output(&batch.stdout);
        }
        self.log.effects = Some(effects(&self.records));
        tally.violations.extend(check(&self.site, &self.log));
        for record in self.site.history() {
            let (seq, outcome) = (&record["seq"], &record["outcome"]);
            tally.require(outcome == "delivered", || format!("seq {seq} is {outcome}"));
            let sick = record["intent"]["target"] != "well";
            let earlier = record["earlier"].as_array().map_or(0, Vec::len);
            tally.require(earlier == usize::from(sick), || {
                format!("seq {seq} has {earlier} earlier outcomes")
            });
        }
        let left = names(&self.site.state().join("requests"));
        tally.require(left.is_empty(), || format!("requests are left: {left:?}"));
        tally.acked = self.log.told.len() as u64;
        tally
    }
}

/// What is delivered is written down; while `broken` is there, nothing on a sick target is.
fn config(records: &Path) -> String {
    let script = "IFS= read -r intent <\"$1\"; case $intent in *sick*) test ! -e \"$0/broken\" || exit 1;; \
                  esac; printf '%s\\n' \"$intent\" >>\"$0/effects\"";
    let command = json!(["sh", "-c", script, records, "{intent}"]);
    format!(
        "sink = [\"package\", \"emit\"]\n[retry]\nbudget = \"0s\"\n[sinks.emit]\ntype = \"exec\"\n\
         command = {command}\n"
    )
}

/// How often each point is in the lines of a trace from `from` on, after how many before.
fn places(trace: &Path, from: usize, full: bool) -> (usize, Vec<(String, usize)>) {
    let text = std::fs::read_to_string(trace).expect("points were passed");
    let mut before = BTreeMap::<&str, usize>::new();
    let mut after = BTreeMap::<&str, Vec<usize>>::new();
    for (index, line) in text.lines().enumerate() {
        let (_, point) = line.rsplit_once('/').expect("a thread passed it");
        let count = before.entry(point).or_default();
        *count += 1;
        if index >= from {
            after.entry(point).or_default().push(*count);
        }
    }
    let points = after.len();
    let most = if full { usize::MAX } else { 2 };
    let places = after.into_iter().flat_map(|(point, mut counts)| {
        if counts.len() > most {
            counts = vec![counts[0], counts[counts.len() - 1]];
        }
        counts.into_iter().map(move |count| (point.to_owned(), count))
    });
    (points, places.collect())
}

fn each(
    which: usize,
    (points, places): (usize, Vec<(String, usize)>),
    run: impl Fn(&Parked, &str) -> bool,
) -> Tally {
    let mut tally = Tally::default();
    let least = POINTS_MIN[which];
    tally.require(points >= least, || format!("only {points} points"));
    for (point, at) in places {
        let parked = Parked::prepare();
        let fired = run(&parked, &format!("{point}=kill@{at}"));
        let mut part = parked.verdict();
        part.fired = u64::from(fired);
        tally.add(part, &format!("{point}@{at}"));
    }
    tally.notes.push(format!("{points} points"));
    tally
}

fn was_killed(command: &mut Command) -> bool {
    let output = command.output().expect("the binary starts");
    output.status.signal() == Some(libc::SIGKILL)
}

fn alone(options: &Options) -> Tally {
    let traced = Parked::prepare();
    let trace = traced.records.join("trace");
    let output = traced.retry("").env("FAILPOINTS_TRACE", &trace).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    each(0, places(&trace, 0, options.full), |parked, plan| was_killed(&mut parked.retry(plan)))
}

fn led(options: &Options) -> Tally {
    let traced = Parked::prepare();
    let trace = traced.records.join("trace");
    let daemon = traced.leader("", Some(&trace));
    let lines = || std::fs::read_to_string(&trace).map_or(0, |text| text.lines().count());
    let from = lines();
    let output = traced.retry("").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_until("the archive", || traced.site.names("processed").len() == PARKED + 1);
    daemon.stop();
    each(1, places(&trace, from, options.full), |parked, plan| {
        let mut daemon = parked.leader(plan, None);
        let asking = parked.retry("").output().expect("the binary starts");
        let told = String::from_utf8_lossy(&asking.stdout);
        let retried = |line: &str| serde_json::from_str::<Value>(line).unwrap()["retried"] == true;
        // Whether by the leader before it died, or by the command itself: it is answered.
        assert!(told.lines().count() == PARKED && told.lines().all(retried), "{plan}: {told}");
        if !daemon.has_ended() {
            daemon.signal(libc::SIGTERM);
        }
        daemon.wait().signal() == Some(libc::SIGKILL)
    })
}

fn asked(options: &Options) -> Tally {
    let traced = Parked::prepare();
    let trace = traced.records.join("trace");
    let daemon = traced.leader("", None);
    let output = traced.retry("").env("FAILPOINTS_TRACE", &trace).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    daemon.stop();
    each(2, places(&trace, 0, options.full), |parked, plan| {
        let daemon = parked.leader("", None);
        let killed = was_killed(&mut parked.retry(plan));
        assert_eq!(daemon.stop().0, Some(0));
        killed
    })
}
