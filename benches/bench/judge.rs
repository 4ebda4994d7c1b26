//! Parse, schema, conversion and policy of one document, beside parsing it alone.

use std::hint::black_box;
use std::time::Instant;

use intentd::schema::{Policy, Schema};

use crate::{Line, document, median};

pub fn measure(rounds: usize) -> Line {
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
    let (all, alone) = (median(all), median(alone));
    Line {
        measure: "judge one document (reference: serde_json to a value)".to_owned(),
        ours: format!("{all:.0} ns"),
        reference: format!("{alone:.0} ns"),
        ratio: format!("{:.2}", alone / all),
        target: "",
    }
}

fn nanoseconds(rounds: usize, work: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..rounds).for_each(|_| work());
    start.elapsed().as_nanos() as f64 / rounds as f64
}
