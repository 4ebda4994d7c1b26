//! Producers that write in every way that is proper, and some junk.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::check::{Dropped, Expect, Log};
use crate::report::Random;
use crate::support::Site;

/// Each producer pauses so long after a file: together some fifty files a second.
const PAUSE: Duration = Duration::from_millis(80);

/// Targets that are updated again and again.
const TARGETS: u64 = 25;

/// How a producer writes.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Rename,
    Plain,
    /// In pieces, with pauses.
    Slow,
    Link,
}

/// Running producers.
pub struct Load {
    stopping: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    producers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts one producer of each kind.
    pub fn start(site: &Site, seed: u64) -> Self {
        let (stopping, log) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Log>>::default());
        let ways = [Way::Rename, Way::Plain, Way::Slow, Way::Link];
        let producers = ways.into_iter().enumerate().map(|(number, way)| {
            let producer = Producer {
                number,
                way,
                inbox: site.inbox(),
                random: Random::new(seed + number as u64),
                log: Arc::clone(&log),
            };
            let stopping = Arc::clone(&stopping);
            std::thread::spawn(move || producer.run(&stopping))
        });
        let producers = producers.collect();
        Load { stopping, log, producers }
    }

    /// Notes what is told now.
    pub fn told_by_status(&self, site: &Site) {
        self.log.lock().unwrap().told_by_status(site);
    }

    /// Lets every producer finish its file, and says what was dropped.
    pub fn stop(self) -> Log {
        self.stopping.store(true, Ordering::Relaxed);
        self.producers.into_iter().for_each(|producer| producer.join().expect("a producer works"));
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

struct Producer {
    number: usize,
    way: Way,
    inbox: PathBuf,
    random: Random,
    log: Arc<Mutex<Log>>,
}

impl Producer {
    fn run(mut self, stopping: &AtomicBool) {
        for count in 0u64.. {
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            let file = format!("intent-{}-{count}.json", self.number);
            let (text, expect) = self.document(&file);
            // A full disk may have let half of it be seen.
            let whole = self.write(&file, text.as_bytes()).is_ok();
            let expect = if whole { expect } else { Expect::Any };
            let bytes = text.into_bytes();
            let drop = Dropped { file, bytes, expect, durable: whole, operand: false };
            self.log.lock().unwrap().drops.push(drop);
            std::thread::sleep(PAUSE);
        }
    }

    fn document(&mut self, file: &str) -> (String, Expect) {
        let replicas = 1 + self.random.below(100);
        let target = format!("t{}", self.random.below(TARGETS));
        let mut intent = json!({
            "intent_type": "scaling", "target": target, "namespace": "default",
            "replicas": replicas, "correlation_id": file,
        });
        if self.random.below(10) != 0 {
            return (intent.to_string(), Expect::Admitted);
        }
        intent["replicas"] = 1000.into();
        (intent.to_string(), Expect::Rejected("SCHEMA_MAXIMUM"))
    }

    fn write(&self, file: &str, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.inbox.join(file);
        let temporary = self.inbox.join(format!(".{file}.tmp"));
        let written = match self.way {
            Way::Rename => {
                std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path))
            }
            Way::Plain => std::fs::write(&path, bytes),
            Way::Slow => File::create(&path).and_then(|mut file| {
                for piece in bytes.chunks(50) {
                    file.write_all(piece)?;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            }),
            Way::Link => std::fs::write(&temporary, bytes)
                .and_then(|()| std::fs::hard_link(&temporary, &path))
                .and_then(|()| std::fs::remove_file(&temporary)),
        };
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
            let _ = std::fs::remove_file(&path);
        }
        written
    }
}
