//! Very many files: what waits costs little memory, and a flood of one producer is felt by others.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::check::Expect;
use crate::drops::scene::{Scene, intent, memory_peak};
use crate::report::{Options, Row, Tally, percentile};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "C17",
            what: "100,000 files wait at start: memory stays small, none is lost",
            run: backlog,
        },
        Row {
            id: "C25",
            what: "a flood of junk by one producer, a good one at ten a second",
            run: flood,
        },
    ]
}

/// What a backlog may add to the memory of the idle daemon.
const MEMORY_MAX: u64 = 64 << 20;

/// Files that wait when the daemon starts.
const WAITING: u64 = 100_000;

/// The memory is that of 100,000 waiting files in each mode. In CI the daemon is stopped after the
/// first thousands of them and the rest must still wait; the long mode sees all to their end.
fn backlog(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    let idle = memory_peak(scene.daemon().pid());
    scene.take_daemon().stop();
    let file = |index: u64| {
        let text = intent(&format!("t{}", index % 200), 1 + index % 100, &format!("{index:06}"));
        (format!("intent-{index:06}.json"), text)
    };
    for index in 0..WAITING {
        let (name, text) = file(index);
        scene.site.drop_file(&name, &text);
    }
    let start = Instant::now();
    scene.start();
    if !options.full {
        wait_until("the first thousands", || scene.site.names("status").len() > 4_000);
    } else {
        (0..WAITING).map(file).for_each(|(name, text)| {
            scene.log.dropped(&name, text, Expect::Admitted);
        });
        scene.rest();
    }
    let (took, peak) = (start.elapsed(), memory_peak(scene.daemon().pid()));
    let mut tally = Tally::default();
    if !options.full {
        scene.take_daemon().stop();
        let left: HashSet<String> = scene.site.names("inbox").into_iter().collect();
        for (name, text) in (0..WAITING).map(file) {
            if left.contains(&name) {
                std::fs::remove_file(scene.at_inbox(&name)).unwrap();
            } else {
                scene.log.dropped(&name, text, Expect::Admitted);
            }
        }
        tally.require(!left.is_empty(), || "nothing waited any more".to_owned());
        scene.start();
    }
    scene.fired = WAITING;
    tally.add(scene.verdict(), "backlog");
    let more = peak.saturating_sub(idle);
    tally.require(more <= MEMORY_MAX, || format!("{} MiB more than idle", more >> 20));
    tally.notes.push(format!(
        "idle {} MiB, peak {} MiB, {} done in {:.1} s",
        idle >> 20,
        peak >> 20,
        scene.log.drops.len(),
        took.as_secs_f64()
    ));
    tally
}

/// Latency is looked at beside a stream of junk that the daemon keeps up with, and beside a flood that
/// it does not: there a good file must not wait behind the backlog.
fn flood(options: &Options) -> Tally {
    if !rustix::process::geteuid().is_root() {
        return Tally::skipped("files of another user can only be made by root");
    }
    let mut scene = Scene::in_memory("");
    scene.start();
    let (rounds, most) = if options.full { (20, 100_000) } else { (4, 8_000) };
    let [mut idle, mut steady, mut flooded] = [const { Vec::new() }; 3];
    let mut backlog = Duration::MAX;
    // By turns, so that what else the machine does is in all.
    for round in 0..rounds {
        idle.extend(latencies(&mut scene, &format!("idle-{round}"), 10));
        let stream = Junk { what: format!("steady-{round}"), pause: PAUSE, most: u64::MAX };
        steady.extend(stream.beside(&mut scene).0);
        let all = Junk { what: format!("flood-{round}"), pause: Duration::ZERO, most };
        let (found, took) = all.beside(&mut scene);
        flooded.extend(found);
        backlog = backlog.min(took);
    }
    let junk = scene.fired;
    let mut tally = scene.verdict();
    let [idle, steady, flooded] = [&mut idle, &mut steady, &mut flooded]
        .map(|samples| (percentile(samples, 50), percentile(samples, 99)));
    let line = |(p50, p99): (f64, f64)| format!("p50 {p50:.1} and p99 {p99:.1} ms");
    tally.notes.push(format!("idle: {}", line(idle)));
    tally.notes.push(format!("beside a junk file each {PAUSE:?}: {}", line(steady)));
    tally.notes.push(format!("beside {most} at once, which took {backlog:.1?}: {}", line(flooded)));
    tally.notes.push(format!("{junk} junk files, all of another user"));
    tally.require(steady.0 <= 2.0 * idle.0, || {
        format!("the median rose from {:.1} to {:.1} ms", idle.0, steady.0)
    });
    tally.require(flooded.1 <= backlog.as_secs_f64() * 1e3 / 4.0, || {
        format!("good files wait behind the backlog: {:.1} ms of {backlog:?}", flooded.1)
    });
    tally
}

/// A user that is not the good one: nobody.
const JUNK_OWNER: u32 = 65_534;

/// From one junk file to the next of a stream that the daemon keeps up with.
const PAUSE: Duration = Duration::from_millis(10);

/// What another user drops.
struct Junk {
    what: String,
    pause: Duration,
    most: u64,
}

impl Junk {
    /// Latencies of good files meanwhile; and how long it takes until all of the junk is archived.
    fn beside(&self, scene: &mut Scene) -> (Vec<f64>, Duration) {
        let (done, junk) = (AtomicBool::new(false), AtomicU64::new(0));
        let (inbox, start) = (scene.site.inbox(), Instant::now());
        let found = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) && junk.load(Ordering::Relaxed) < self.most {
                    let index = junk.fetch_add(1, Ordering::Relaxed);
                    let temporary = inbox.join(".junk");
                    std::fs::write(&temporary, JUNK).unwrap();
                    std::os::unix::fs::chown(&temporary, Some(JUNK_OWNER), None).unwrap();
                    std::fs::rename(temporary, inbox.join(self.name(index))).unwrap();
                    if !self.pause.is_zero() {
                        std::thread::sleep(self.pause);
                    }
                }
            });
            let found = latencies(scene, &self.what, 10);
            done.store(true, Ordering::Relaxed);
            found
        });
        for index in 0..junk.into_inner() {
            scene.log.dropped(&self.name(index), JUNK, Expect::Rejected("NOT_JSON"));
            scene.fired += 1;
        }
        scene.rest();
        (found, start.elapsed())
    }

    fn name(&self, index: u64) -> String {
        format!("intent-junk-{}-{index}.json", self.what)
    }
}

const JUNK: &str = "{\"intent_type\" \"scaling\"";

/// Drops good files at ten a second; milliseconds until each is archived.
fn latencies(scene: &mut Scene, what: &str, samples: usize) -> Vec<f64> {
    let mut found = Vec::new();
    for index in 0..samples {
        let name = format!("intent-good-{what}-{index}.json");
        let text = intent(&format!("good{}", index % 10), 1 + index as u64 % 100, &name);
        let start = Instant::now();
        scene.drop(&name, &text, Expect::Admitted);
        let archived = scene.site.spool().join("processed").join(&name);
        while !archived.exists() && start.elapsed() < crate::support::PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        found.push(start.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(100).saturating_sub(start.elapsed()));
    }
    found
}
