//! What a harness reports: what was fired, what was acknowledged, what was violated.

use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Violations of one row that are printed; the rest is counted.
const SHOWN: usize = 20;

/// How a run was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub full: bool,
    pub seed: u64,
    pub minutes: u64,
}

/// One line of the table: a kind of fault, and the function that injects it and checks the end.
pub struct Row {
    /// The row of the test matrix, as in `C9`, or a name of its own.
    pub id: &'static str,
    pub what: &'static str,
    pub run: fn(&Options) -> Tally,
}

/// The counts of one row. A row in which nothing fired shows nothing and fails, unless it says why
/// it cannot run here.
#[derive(Debug, Default)]
pub struct Tally {
    /// Faults that were injected and seen to happen.
    pub fired: u64,
    /// Intents whose outcome somebody was told.
    pub acked: u64,
    pub violations: Vec<String>,
    /// Why the row cannot run on this machine.
    pub skipped: Option<String>,
    /// Further figures worth a line, as in "takeover p99 31 ms".
    pub notes: Vec<String>,
}

impl Tally {
    pub fn skipped(why: &str) -> Self {
        Tally { skipped: Some(why.to_owned()), ..Tally::default() }
    }

    /// Adds the counts of a part, whose violations are marked with what reproduces it.
    pub fn add(&mut self, part: Tally, reproduction: &str) {
        self.fired += part.fired;
        self.acked += part.acked;
        self.notes.extend(part.notes);
        self.violations
            .extend(part.violations.iter().map(|text| format!("{reproduction}: {text}")));
    }

    pub fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// Notes a violation unless `holds`.
    pub fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(text());
        }
    }

    pub fn passed(&self) -> bool {
        self.violations.is_empty() && (self.fired > 0 || self.skipped.is_some())
    }
}

/// Runs a row and prints its line; `false` when it failed. A panic is a violation.
pub fn run(harness: &str, row: &Row, options: &Options) -> bool {
    let start = Instant::now();
    let tally = catch_unwind(AssertUnwindSafe(|| (row.run)(options))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Tally { violations: vec![format!("panicked: {text}")], ..Tally::default() }
    });
    let verdict = match (&tally.skipped, tally.passed()) {
        (Some(_), _) => "SKIPPED",
        (None, true) => "ok",
        (None, false) => "FAILED",
    };
    println!(
        "{harness:<8} {:<6} fired {:>6}  acked {:>6}  violations {:>4}  {:>6.1} s  {verdict:<7} {}",
        row.id,
        tally.fired,
        tally.acked,
        tally.violations.len(),
        start.elapsed().as_secs_f64(),
        row.what
    );
    if let Some(why) = &tally.skipped {
        println!("         SKIPPED: {why}");
    }
    for note in &tally.notes {
        println!("         {note}");
    }
    for violation in tally.violations.iter().take(SHOWN) {
        println!("         VIOLATION: {violation}");
    }
    if !tally.passed() {
        let Options { full, seed, .. } = options;
        let full = if *full { " --full" } else { "" };
        println!(
            "         again: cargo test --features failpoints --test proof -- {harness} --only '{}' --seed {seed}{full}",
            row.id
        );
        if tally.fired == 0 && tally.violations.is_empty() {
            println!("         no fault fired: the run shows nothing");
        }
    }
    tally.passed()
}

pub fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish() >> 16
}

/// Random numbers of a seed: xorshift64*, good enough to spread faults.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The value below which `percent` of the samples lie.
pub fn percentile(samples: &mut [f64], percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples
        .get((samples.len() * percent / 100).min(samples.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}
