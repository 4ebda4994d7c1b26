//! Many producers at once: nothing is taken for a duplicate, and each target keeps its order.

use std::collections::HashMap;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use crate::check::Expect;
use crate::drops::scene::{Scene, intent};
use crate::report::{Options, Random, Row, Tally};

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "C19",
            what: "the same id, name and bytes ten times by eight droppers",
            run: copies,
        },
        Row { id: "C20", what: "the same id with other bytes", run: conflicts },
        Row { id: "C21", what: "three, five, three again, without ids", run: back_and_forth },
        Row { id: "C22", what: "eight producers, fifty targets, random pauses", run: ordered },
    ]
}

/// Drops a file under a name that others use, too: as soon as the name is free.
fn drop_when_free(scene: &Scene, scratch: &str, name: &str, text: &str) {
    let (from, to) = (scene.at_inbox(scratch), scene.at_inbox(name));
    std::fs::write(&from, text).unwrap();
    while renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE).is_err() {
        std::thread::yield_now();
    }
}

fn copies(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    let ids = if options.full { 1_000 } else { 200 };
    let file = |id: u64| {
        let text = intent(&format!("t{}", id % 50), 1 + id % 100, &format!("id-{id}"));
        (format!("intent-{id}.json"), text)
    };
    std::thread::scope(|scope| {
        for dropper in 0..8 {
            let scene = &scene;
            scope.spawn(move || {
                for copy in (dropper..ids * 10).step_by(8) {
                    let (name, text) = file(copy / 10);
                    drop_when_free(scene, &format!(".{dropper}"), &name, &text);
                }
            });
        }
    });
    for copy in 0..ids * 10 {
        let (name, text) = file(copy / 10);
        scene.log.dropped(&name, text, Expect::Admitted);
    }
    scene.fired = ids * 10;
    scene.verdict()
}

fn conflicts(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    for index in 0..if options.full { 1_000 } else { 100 } {
        for replicas in [1, 2] {
            let text = intent(&format!("t{}", index % 50), replicas, &format!("id-{index}"));
            scene.drop(&format!("intent-{index}-{replicas}.json"), &text, Expect::Admitted);
        }
        scene.fired += 1;
    }
    scene.verdict()
}

fn back_and_forth(_: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    for (round, replicas) in [3, 5, 3].into_iter().enumerate() {
        for target in 0..100 {
            let text = crate::support::scaling(&format!("t{target}"), replicas);
            scene.drop(&format!("intent-{target}-{round}.json"), &text, Expect::Admitted);
            scene.fired += 1;
        }
        // Each has had its effect before the next comes; otherwise it would be superseded.
        scene.rest();
    }
    let history = scene.site.history();
    let mut tally = scene.verdict();
    for record in history.iter().filter(|record| record["outcome"] != "delivered") {
        tally.violation(format!("an effect was left out: {record}"));
    }
    tally
}

fn ordered(options: &Options) -> Tally {
    // The inbox is listed all the time as well, so that listings and events overlap.
    let mut scene = Scene::in_memory("[watch]\nrescan = \"1s\"\n");
    scene.start();
    let count = if options.full { 10_000 } else { 3_000 };
    let seed = options.seed;
    let file = |index: u64| {
        let text = intent(&format!("t{}", index % 50), 1 + index % 100, &format!("{index:06}"));
        // Files of one tick of the clock are taken in the order of their names.
        (format!("intent-{index:06}.json"), text)
    };
    std::thread::scope(|scope| {
        for producer in 0..8 {
            let scene = &scene;
            scope.spawn(move || {
                let mut random = Random::new(seed + producer);
                // A target belongs to one producer, whose order is therefore known.
                for index in (0..count).filter(|index| index % 50 % 8 == producer) {
                    let (name, text) = file(index);
                    drop_when_free(scene, &format!(".{producer}"), &name, &text);
                    if random.below(8) == 0 {
                        std::thread::sleep(Duration::from_micros(random.below(4_000)));
                    }
                    if producer == 0 && random.below(8) == 0 {
                        scene.daemon().signal(libc::SIGUSR1);
                    }
                }
            });
        }
    });
    for index in 0..count {
        let (name, text) = file(index);
        scene.log.dropped(&name, text, Expect::Admitted);
    }
    scene.fired = count;
    scene.rest();
    let history = scene.site.history();
    let mut tally = scene.verdict();
    let mut last = HashMap::<&str, &str>::new();
    for record in &history {
        let text = |value: &'_ Value| value.as_str().map(str::to_owned);
        let intent = &record["intent"];
        let (Some(target), Some(id)) =
            (intent["target"].as_str(), intent["correlation_id"].as_str())
        else {
            tally.violation(format!("a record without its intent: {record}"));
            continue;
        };
        if let Some(before) = last.insert(target, id).filter(|before| *before > id) {
            let file = text(&record["file"]);
            tally.violation(format!("{target}: {id} ({file:?}) came after {before}"));
        }
    }
    tally
}
