//! Parse, schema, conversion and policy of one document, beside parsing it alone.

use std::hint::black_box;
use std::time::Instant;

use intentd::schema::{Policy, Schema};

use crate::site::document;
use crate::table::{Goal, Row};
use crate::{Scale, median};

pub fn measure(scale: Scale) -> Vec<Row> {
    let rounds = scale.of(10, 20_000, 200_000);
    let (schema, policy, text) = (Schema::builtin(), Policy::default(), document(7));
    let ours = || {
        assert!(black_box(schema.judge(black_box(text.as_bytes()), &policy)).is_ok());
    };
    let parse = || {
        let value: serde_json::Value =
            serde_json::from_str(black_box(&text)).expect("the document is JSON");
        black_box(value);
    };
    let (mut all, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        all.push(nanoseconds(rounds, ours));
        alone.push(nanoseconds(rounds, parse));
    }
    vec![Row {
        name: "judge one document".to_owned(),
        unit: "ns",
        ours: median(all),
        reference: Some((median(alone), "serde_json alone")),
        goal: Goal::None,
    }]
}

fn nanoseconds(rounds: usize, work: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..rounds).for_each(|_| work());
    start.elapsed().as_nanos() as f64 / rounds as f64
}
