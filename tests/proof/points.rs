//! Kills at named points: before and after each step that makes something durable or visible.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::report::{Options, Random, Row, Tally};
use crate::workload::{Load, Work, memory};

/// There are at least so many points; fewer means that some have been lost.
const POINTS_MIN: usize = 80;

/// Steps of the package sink: fewer say that its second hand was not at work.
const POINTS_OF_HAND_MIN: usize = 14;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row { id: "kill", what: "killed at each point, started again", run: kill },
        Row {
            id: "hands",
            what: "killed at each point of the package sink's second hand",
            run: of_second_hand,
        },
        Row { id: "twice", what: "killed at a point, killed again while recovering", run: twice },
    ];
    rows.extend(crate::retried::rows());
    rows
}

/// How often a run without a kill passes each point, by `THREAD/POINT`.
fn passed(load: Load) -> BTreeMap<String, usize> {
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let work = Work::prepare(load, &[dir.path()], &dir.path().join("records"));
    let mut command = work.command("");
    command.env("FAILPOINTS_TRACE", &trace).stdin(Stdio::null());
    command.output().expect("the binary starts");
    let mut passed = BTreeMap::new();
    for point in std::fs::read_to_string(&trace).expect("points were passed").lines() {
        *passed.entry(point.to_owned()).or_default() += 1;
    }
    passed
}

/// The same of all threads together, by `POINT`.
fn passed_by_anybody() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for (point, count) in passed(Load::Few) {
        let (_, point) = point.rsplit_once('/').expect("a thread passed it");
        *all.entry(point.to_owned()).or_default() += count;
    }
    all
}

/// One passing of a point.
type Place<'a> = (&'a str, usize);

/// Kills at each place in turn, one start after the other, then finishes and checks.
pub fn killed_at(load: Load, places: &[Place<'_>], further: &str) -> Tally {
    let dir = memory();
    let mut work = Work::prepare(load, &[dir.path()], &dir.path().join("records"));
    let mut printed = String::new();
    let mut fired = 0;
    for (point, at) in places {
        let mut command = work.command(&format!("{point}=kill@{at};{further}"));
        let output = command.stdin(Stdio::null()).output().expect("the binary starts");
        printed += &String::from_utf8_lossy(&output.stdout);
        // A torn line does not continue in the next process's output.
        printed.push('\n');
        fired += u64::from(output.status.signal() == Some(libc::SIGKILL));
    }
    let mut tally = work.verdict(&printed);
    tally.fired = fired;
    tally
}

/// Up to `most` passings of each point: the first, the last and some between.
fn places(passed: &BTreeMap<String, usize>, most: usize) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (point, count) in passed {
        let steps = (*count).min(most);
        for step in 0..steps {
            let at = if steps == 1 { 1 } else { 1 + step * (count - 1) / (steps - 1) };
            places.push((point.as_str(), at));
        }
    }
    places
}

fn kill(options: &Options) -> Tally {
    let passed = passed_by_anybody();
    let mut tally = Tally::default();
    tally.require(passed.len() >= POINTS_MIN, || format!("only {} points", passed.len()));
    for place in places(&passed, if options.full { usize::MAX } else { 3 }) {
        let part = killed_at(Load::Few, &[place], "");
        // How often a point is passed depends on how the threads meet; that it is passed does not.
        tally.require(part.fired == 1 || place.1 > 1, || format!("{place:?} was not reached"));
        tally.add(part, &format!("{place:?}"));
    }
    tally.notes.push(format!("{} points", passed.len()));
    tally
}

fn of_second_hand(options: &Options) -> Tally {
    let mut passed = passed(Load::Backlog);
    passed.retain(|point, _| point.starts_with("sink-package-2/"));
    let mut tally = Tally::default();
    tally.require(passed.len() >= POINTS_OF_HAND_MIN, || format!("only {} points", passed.len()));
    for place in places(&passed, if options.full { usize::MAX } else { 3 }) {
        let part = killed_at(Load::Backlog, &[place], "");
        // How many batches it gets depends on how the threads meet; that it gets one does not.
        tally.require(part.fired == 1 || place.1 > 1, || format!("{place:?} was not reached"));
        tally.add(part, &format!("{place:?}"));
    }
    tally.notes.push(format!("{} points", passed.len()));
    tally
}

fn twice(options: &Options) -> Tally {
    let passed = passed_by_anybody();
    let all = places(&passed, 4);
    let mut random = Random::new(options.seed);
    let mut pick = || all[random.below(all.len() as u64) as usize];
    let mut tally = Tally::default();
    for _ in 0..if options.full { 5_000 } else { 60 } {
        let pair = [pick(), pick()];
        tally.add(killed_at(Load::Few, &pair, ""), &format!("{pair:?}"));
    }
    tally
}
