//! A backlog drained by the real binary: beside the floor, with one core, and for few targets.

use crate::floor::{self, Threads};
use crate::ground::{Ground, Medium};
use crate::site::{Site, has};
use crate::table::{Goal, Row};
use crate::{Scale, median};

/// Only the first core.
const ONE_CORE: [&str; 3] = ["taskset", "-c", "0"];

/// Targets of the superseding measure.
const TARGETS: usize = 100;

fn count(scale: Scale) -> usize {
    scale.of(20, 5_000, 100_000)
}

fn rounds(scale: Scale) -> usize {
    // A long drain is its own average.
    scale.of(1, 3, 1)
}

pub fn measure(scale: Scale) -> Vec<Row> {
    Medium::all(scale).into_iter().flat_map(|medium| on(medium, scale)).collect()
}

fn on(medium: Medium, scale: Scale) -> Vec<Row> {
    let count = count(scale);
    let (mut ours, mut single) = (Vec::new(), Vec::new());
    let (mut one, mut halves, mut stages) = (Vec::new(), Vec::new(), Vec::new());
    let pins = has(ONE_CORE[0]);
    for _ in 0..rounds(scale) {
        ours.push(fresh(medium, count, count, |site| site.drain(&[], count)));
        one.push(fresh(medium, count, count, |site| floor::run(&site.root, Threads::One)));
        halves.push(fresh(medium, count, count, |site| floor::run(&site.root, Threads::Halves)));
        stages.push(fresh(medium, count, count, |site| floor::run(&site.root, Threads::Stages)));
        if pins {
            single.push(fresh(medium, count, count, |site| site.drain(&ONE_CORE, count)));
        }
    }
    let (ours, one) = (median(ours), median(one));
    let two = median(halves).max(median(stages));
    let row = |what: &str, reference, goal| Row {
        name: format!("drain {count} intents, {}, {what}", medium.name()),
        unit: "/s",
        ours,
        reference: Some(reference),
        goal,
    };
    let mut rows = vec![
        row("floor of one thread", (one, "floor"), Goal::None),
        row("best floor", (one.max(two), "floor"), Goal::Least(0.7)),
    ];
    if pins {
        rows.push(row("two cores", (median(single), "ours on one core"), Goal::Least(1.7)));
    }
    rows
}

pub fn measure_superseding(scale: Scale) -> Vec<Row> {
    let (count, medium) = (count(scale), Medium::disk(scale));
    let (mut few, mut many) = (Vec::new(), Vec::new());
    for _ in 0..rounds(scale) {
        many.push(fresh(medium, count, count, |site| site.drain(&[], count)));
        few.push(fresh(medium, count, TARGETS, |site| site.drain(&[], count)));
    }
    vec![Row {
        name: format!("drain {count} intents for {TARGETS} targets, {}", medium.name()),
        unit: "/s",
        ours: median(few),
        reference: Some((median(many), "a target each")),
        goal: Goal::Least(2.0),
    }]
}

fn fresh(medium: Medium, count: usize, targets: usize, run: impl FnOnce(&Site) -> f64) -> f64 {
    let ground = Ground::new(medium, count);
    let site = Site::new(&ground.path().join("spool"));
    site.fill(count, targets);
    run(&site)
}
