//! Instructions of the pure core, counted by valgrind: the same on every run, so that a budget holds.

use std::hint::black_box;
use std::process::Command;

use intentd::compose::{Settings, compose};
use intentd::schema::{Policy, Schema};

use crate::Scale;
use crate::site::{document, has};
use crate::table::{Goal, Row};

/// The bench calls itself with this, what to do, and a number of rounds.
pub const CHILD: &str = "--count-instructions";

/// What is counted, and how many instructions it may take: measured, and 3 % for a new compiler.
const BUDGETS: [(&str, f64); 2] = [("judge", 16_000.0), ("compose", 51_600.0)];

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke || !has("valgrind") {
        return Vec::new();
    }
    let (few, many) = (100, 600);
    let row = |(what, budget): (&str, f64)| Row {
        name: format!("{what} one document, instructions"),
        unit: "",
        // What both have in common, such as compiling the schema, falls out.
        ours: (count(what, many) - count(what, few)) / (many - few) as f64,
        reference: None,
        goal: Goal::Budget(budget),
    };
    BUDGETS.into_iter().map(row).collect()
}

/// What is counted.
pub fn work(what: &str, rounds: usize) {
    let (schema, policy, text) = (Schema::builtin(), Policy::default(), document(7));
    let judged = || schema.judge(black_box(text.as_bytes()), &policy).expect("it is right");
    if what == "judge" {
        (0..rounds).for_each(|_| drop(black_box(judged())));
        return;
    }
    let intent = judged();
    let settings = Settings { deployment_image: None, deployment_template: None };
    for _ in 0..rounds {
        let composed = compose(black_box(&intent), &settings);
        black_box(composed).expect("it can be composed");
    }
}

fn count(what: &str, rounds: usize) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("a path"))
        .args([CHILD, what, &rounds.to_string()])
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split("Collected : ").nth(1));
    collected.and_then(|count| count.trim().parse().ok()).expect("valgrind says the count")
}
