//! What an intent costs, beside what it must cost: `cargo bench`, or `cargo bench -- --quick`.
//!
//! Absolute figures belong to the machine; the ratios are what counts. Every pair is measured in
//! one run, alternating, and the median of three is shown. Measure on a quiet machine, and point
//! `TMPDIR` at a fresh filesystem: a long used ext4 creates directories several times slower.

mod drain;
mod floor;
mod judge;
mod latency;

use std::path::PathBuf;

/// One line of the table.
pub struct Line {
    pub measure: String,
    pub ours: String,
    pub reference: String,
    pub ratio: String,
    pub target: &'static str,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let count = if quick { 2_000 } else { 20_000 };
    let mut lines = vec![judge::measure(if quick { 20_000 } else { 200_000 })];
    lines.extend(drain::measure("disk", &std::env::temp_dir(), count));
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        lines.extend(drain::measure("tmpfs", &memory, count));
    } else {
        eprintln!("SKIPPED tmpfs: there is no /dev/shm");
    }
    lines.extend(latency::measure(if quick { 200 } else { 1_000 }));
    println!("| measure | ours | reference | ratio | target |\n|---|---|---|---|---|");
    for Line { measure, ours, reference, ratio, target } in lines {
        println!("| {measure} | {ours} | {reference} | {ratio} | {target} |");
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The text of one intent for a target of its own.
pub fn document(index: usize) -> String {
    format!(
        r#"{{"intent_type":"scaling","target":"web-{index}","namespace":"ran-a","replicas":{},"reason":"load","source":"test","correlation_id":"c-{index}"}}"#,
        1 + index % 100
    )
}

/// Fills an inbox.
pub fn fill(inbox: &std::path::Path, count: usize) {
    std::fs::create_dir_all(inbox).expect("a directory");
    for index in 0..count {
        std::fs::write(inbox.join(format!("intent-{index:06}.json")), document(index))
            .expect("a file");
    }
}
