//! Instructions of the pure core, counted by valgrind: the same on every run, so that a budget holds.

use std::hint::black_box;
use std::process::Command;

use intentd::compose::{Settings, compose};
use intentd::schema::{Policy, Schema};

use crate::Scale;
use crate::site::{document, has};
use crate::table::{Goal, Row};

/// The bench calls itself with this and a number of rounds.
pub const CHILD: &str = "--count-instructions";

/// Judging and composing one document; measured, and 3 % for a new compiler.
const BUDGET: f64 = 80_000.0;

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke || !has("valgrind") {
        return Vec::new();
    }
    let (few, many) = (100, 600);
    // What both have in common, such as compiling the schema, falls out.
    let each = (count(many) - count(few)) / (many - few) as f64;
    vec![Row {
        name: "judge and compose one document".to_owned(),
        unit: "instructions",
        ours: each,
        reference: None,
        goal: Goal::Budget(BUDGET),
    }]
}

/// What is counted.
pub fn work(rounds: usize) {
    let (schema, policy, text) = (Schema::builtin(), Policy::default(), document(7));
    let settings = Settings { deployment_image: None, deployment_template: None };
    for _ in 0..rounds {
        let judged = schema.judge(black_box(text.as_bytes()), &policy);
        let intent = judged.expect("the document is right");
        black_box(compose(&intent, &settings)).expect("it can be composed");
    }
}

fn count(rounds: usize) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().expect("a path"))
        .args([CHILD, &rounds.to_string()])
        .output()
        .expect("valgrind starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split("Collected : ").nth(1));
    collected.and_then(|count| count.trim().parse().ok()).expect("valgrind says the count")
}
