//! Events that are lost, late, or not to be had at all: the directory is the truth.

use std::time::Duration;

use crate::check::Expect;
use crate::drops::scene::{Scene, intent, is_installed};
use crate::report::{Options, Row, Tally};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "C13-16", what: "a kernel queue of 16 events and a flood", run: small_queue },
        Row { id: "C13-st", what: "the same while the daemon is stopped", run: stopped },
        Row {
            id: "C13-no",
            what: "the same while there is no daemon, which is killed before",
            run: absent,
        },
        Row { id: "C14", what: "no inotify instance, no watch, and both again", run: exhausted },
    ]
}

const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";

/// The kernel's queue made short for instances that are created meanwhile; restored when dropped.
struct ShortQueue(String);

impl ShortQueue {
    fn set() -> Option<Self> {
        let before = std::fs::read_to_string(QUEUE).ok()?;
        std::fs::write(QUEUE, "16").ok()?;
        Some(ShortQueue(before))
    }
}

impl Drop for ShortQueue {
    fn drop(&mut self) {
        let _ = std::fs::write(QUEUE, &self.0);
    }
}

const RAN_OVER: &str = "the kernel's event queue ran over; looking at the whole inbox";

/// Drops files over few targets, so that what is composed at the end stays small.
fn flood(scene: &mut Scene, from: usize, count: usize) {
    for index in from..from + count {
        let text = intent(&format!("t{}", index % 100), 1 + index as u64 % 100, &index.to_string());
        scene.drop(&format!("intent-{index}.json"), &text, Expect::Admitted);
    }
}

fn short_start(scene: &mut Scene) -> Result<(), Tally> {
    let Some(short) = ShortQueue::set() else {
        return Err(Tally::skipped("only root can make the kernel's event queue short"));
    };
    scene.start();
    // Instances keep what was in force when they were made; others should not get it.
    drop(short);
    Ok(())
}

fn overruns(scene: &Scene) -> u64 {
    scene.daemon().log().iter().filter(|line| line.contains(RAN_OVER)).count() as u64
}

/// Without events the next listing would come after an hour.
const NO_RESCAN: &str = "[watch]\nrescan = \"1h\"\n";

fn small_queue(options: &Options) -> Tally {
    let mut scene = Scene::in_memory(NO_RESCAN);
    if let Err(skipped) = short_start(&mut scene) {
        return skipped;
    }
    flood(&mut scene, 0, if options.full { 20_000 } else { 3_000 });
    scene.rest();
    scene.fired = overruns(&scene);
    scene.verdict()
}

fn stopped(_: &Options) -> Tally {
    let mut scene = Scene::in_memory(NO_RESCAN);
    if let Err(skipped) = short_start(&mut scene) {
        return skipped;
    }
    flood(&mut scene, 0, 50);
    scene.daemon().signal(libc::SIGSTOP);
    flood(&mut scene, 50, 20_000);
    scene.daemon().signal(libc::SIGCONT);
    scene.rest();
    scene.fired = overruns(&scene);
    scene.verdict()
}

fn absent(options: &Options) -> Tally {
    let mut scene = Scene::in_memory(NO_RESCAN);
    let count = if options.full { 20_000 } else { 3_000 };
    scene.start();
    flood(&mut scene, 0, 500);
    scene.take_daemon().kill();
    flood(&mut scene, 500, count);
    scene.start();
    scene.fired = count as u64;
    scene.verdict()
}

const NO_EVENTS: &str = "no events; listing the inbox instead until there are";

fn exhausted(_: &Options) -> Tally {
    if !is_installed("strace") {
        return Tally::skipped("strace is not installed");
    }
    let mut tally = Tally::default();
    // For ever, and for the first two times only. Watches are added by a thread of each instance,
    // and the tracer counts by thread, so that those cannot come back.
    for (inject, comes_back) in [
        ("inotify_init1:error=EMFILE", false),
        ("inotify_init1:error=EMFILE:when=1..2", true),
        ("inotify_add_watch:error=ENOSPC", false),
    ] {
        tally.add(without_events(inject, comes_back), inject);
    }
    tally
}

fn without_events(inject: &str, comes_back: bool) -> Tally {
    let mut scene = Scene::new("[watch]\npoll_interval = \"200ms\"\n");
    let inject = format!("inject={inject}");
    scene.start_behind(&["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject], &[]);
    let mut tally = Tally::default();
    let degraded = |scene: &Scene| {
        scene.daemon().log().iter().filter(|line| line.contains(NO_EVENTS)).count() as u64
    };
    scene.fired = degraded(&scene);
    for index in 0..20 {
        let name = format!("intent-{index}.json");
        scene.drop(&name, &intent(&format!("t{index}"), 2, &name), Expect::Admitted);
        std::thread::sleep(Duration::from_millis(50));
    }
    scene.rest();
    if comes_back {
        wait_until("events again", || scene.daemon().has_logged("watching the inbox again"));
    }
    // Said once, not at each listing.
    let said = degraded(&scene);
    tally.require(said == 1, || format!("said {said} times that there are no events"));
    tally.add(scene.verdict(), "polling");
    tally
}
