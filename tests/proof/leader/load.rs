//! A constant load on a site, and a recorder of what its second sink did to the world.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::check::{Expect, Log, check};
use crate::report::Tally;
use crate::support::{Daemon, Site, names, wait_until};

/// The line that names the sinks.
const BOTH: &str = "sink = [\"package\", \"emit\"]";

/// What an overtaken leader claims too late is found by the next rescan: soon, here.
const RESCAN: &str = "[watch]\nrescan = \"1s\"\n";

/// Targets of the load: few, so that newer intents meet older ones.
const TARGETS: usize = 7;

/// A site under load. Producers drop files until [`Load::finish`].
pub struct Load {
    pub site: Arc<Site>,
    log: Arc<Mutex<Log>>,
    stopped: Arc<AtomicBool>,
    producer: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to drop a file every `pace`; each tenth is refused.
    pub fn start(pace: Duration) -> Self {
        let mut load = Load::without();
        let (site, log) = (Arc::clone(&load.site), Arc::clone(&load.log));
        let stopped = Arc::clone(&load.stopped);
        load.producer = Some(std::thread::spawn(move || {
            for index in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                drop_one(&site, &log, index);
                std::thread::sleep(pace);
            }
        }));
        load
    }

    /// The same site with nobody who drops anything but the caller.
    pub fn without() -> Self {
        let site = Arc::new(Site::new());
        std::fs::create_dir(records(&site)).unwrap();
        let load = Load { site, log: Arc::default(), stopped: Arc::default(), producer: None };
        load.configure();
        load
    }

    /// Configures the two sinks.
    fn configure(&self) {
        self.site.configure(&(config(&records(&self.site)) + RESCAN));
    }

    /// Configures one of the two sinks alone.
    pub fn configure_only(&self, sink: &str) {
        let both = config(&records(&self.site)) + RESCAN;
        self.site.configure(&both.replace(BOTH, &format!("sink = [{sink:?}]")));
    }

    /// Drops one file of the caller's.
    pub fn drop_file(&self, name: &str, target: &str, replicas: u64) {
        let text = intent(target, replicas, name);
        self.site.drop_file(name, &text);
        self.log.lock().unwrap().dropped(name, text, Expect::Admitted);
    }

    /// Whether the recorder is one of the sinks that are configured now.
    fn has_recorder(&self) -> bool {
        let text = std::fs::read_to_string(self.site.root().join("intentd.toml")).unwrap();
        text.lines().any(|line| line.starts_with("sink = ") && line.contains("emit"))
    }

    /// Writes a mark between the effects.
    pub fn mark(&self, mark: &str) {
        let path = records(&self.site).join("effects");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("#{mark}\n").as_bytes()).unwrap();
    }

    /// Kills a leader between two marks, so that a repeat that the kill explains is told from one
    /// that nothing explains.
    pub fn kill(&self, leader: Daemon) {
        self.mark("kill");
        self.log.lock().unwrap().told_by_status(&self.site);
        leader.kill();
        self.mark("killed");
    }

    /// How many effects there have been.
    pub fn effects(&self) -> usize {
        self.lines().iter().filter(|line| !line.starts_with('#')).count()
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(records(&self.site).join("effects")).unwrap_or_default();
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Ends the load, lets `leader` finish everything, stops it, and checks the site.
    pub fn finish(self, leader: Daemon) -> Tally {
        let mut tally = Tally::default();
        let mut log = self.rest();
        tally.acked = log.told.len() as u64;
        let (code, said) = leader.stop();
        tally.require(code == Some(0), || format!("the last leader ends with {code:?}: {said:#?}"));
        if self.has_recorder() {
            log.effects = Some(self.lines().iter().filter_map(|line| id(line)).collect());
        }
        tally.violations.extend(check(&self.site, &log));
        let (repeats, double) = doubles(&self.lines());
        for id in double {
            tally.violation(format!("a double effect without a kill between: {id}"));
        }
        if repeats > 0 {
            tally.notes.push(format!("{repeats} effects were repeated by the leader after a kill"));
        }
        tally
    }

    /// Ends the load and waits until everything that was dropped has its outcome.
    fn rest(&self) -> Log {
        self.stopped.store(true, Ordering::Relaxed);
        // The thread ends with the next file.
        let expected = || self.log.lock().unwrap().drops.len();
        wait_until("the outcome of each file", || {
            self.producer.as_ref().is_none_or(JoinHandle::is_finished)
                && self.site.names("status").len() >= expected()
                && names(&self.site.spool().join("work")).is_empty()
        });
        let mut log = self.log.lock().unwrap().clone();
        log.told_by_status(&self.site);
        log
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(producer) = self.producer.take() {
            let _ = producer.join();
        }
    }
}

fn drop_one(site: &Site, log: &Mutex<Log>, index: usize) {
    let name = format!("intent-{index:05}.json");
    let (text, expect) = if index % 10 == 9 {
        ("{\"intent_type\":".to_owned() + &" ".repeat(index), Expect::Rejected("INCOMPLETE"))
    } else {
        let replicas = 1 + index as u64 % 100;
        (intent(&format!("t{}", index % TARGETS), replicas, &format!("c{index}")), Expect::Admitted)
    };
    site.drop_file(&name, &text);
    log.lock().unwrap().dropped(&name, text, expect);
}

fn intent(target: &str, replicas: u64, id: &str) -> String {
    json!({
        "intent_type": "scaling", "target": target, "namespace": "default",
        "replicas": replicas, "correlation_id": id,
    })
    .to_string()
}

fn records(site: &Site) -> PathBuf {
    site.root().join("records")
}

/// Two sinks: packages, and a command that appends each intent to a file in one write.
fn config(records: &Path) -> String {
    let script = "printf '%s\\n' \"$(cat \"$1\")\" >> \"$0/effects\"";
    let command = json!(["sh", "-c", script, records, "{intent}"]);
    format!("{BOTH}\n[sinks.emit]\ntype = \"exec\"\ncommand = {command}\n")
}

fn id(line: &str) -> Option<String> {
    let intent: Value = serde_json::from_str(line).ok()?;
    Some(intent["correlation_id"].as_str()?.to_owned())
}

/// How many effects were repeated, and those repeats that no kill explains: two of one intent
/// between the same two marks, in a part in which one leader worked undisturbed.
fn doubles(lines: &[String]) -> (usize, Vec<String>) {
    let (mut part, mut dying) = (0, false);
    let mut last: HashMap<String, usize> = HashMap::new();
    let (mut repeats, mut double) = (0, Vec::new());
    for line in lines {
        if line.starts_with('#') {
            part += 1;
            dying = line == "#kill";
            continue;
        }
        let Some(id) = id(line) else { continue };
        if let Some(before) = last.insert(id.clone(), part) {
            repeats += 1;
            if before == part && !dying {
                double.push(id);
            }
        }
    }
    (repeats, double)
}
