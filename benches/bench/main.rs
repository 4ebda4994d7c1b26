//! What an intent costs, beside what it must cost: `cargo bench`, or `cargo bench -- --quick`.
//!
//! ```text
//! cargo bench -- [--quick] [--save FILE] [--compare FILE] [MEASURE...]
//! ```
//! Absolute figures belong to the machine; ratios, counts of calls and counts of instructions are what
//! is judged. What is compared runs in one go, alternating, and the median of three is shown. Only a
//! broken budget (calls, syncs, instructions) ends with 1: times are shown, never judged.
//!
//! As root each run has a freshly made ext4 of its own: a long used one creates directories several
//! times slower. Otherwise the temporary directory is used, and the table says so. Without
//! `cargo bench` (that is, in `cargo test --benches`) everything runs once, tiny and unjudged.

mod backlog;
mod calls;
mod cluster;
mod drain;
mod floor;
mod ground;
mod instructions;
mod judge;
mod latency;
mod ledger;
mod lifecycle;
mod porch;
mod server;
mod site;
mod table;
mod validate;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use table::{Row, Saved};

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Only that everything works.
    Smoke,
    /// At most three minutes.
    Quick,
    Full,
}

impl Scale {
    /// The size of a measure at this scale.
    pub fn of<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Scale::Smoke => smoke,
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }
}

/// Makes some lines of the table.
type Measure = fn(Scale) -> Vec<Row>;

/// All measures by their names on the command line, those that need quiet first.
const MEASURES: [(&str, Measure); 12] = [
    ("judge", judge::measure),
    ("instructions", instructions::measure),
    ("calls", calls::measure),
    ("lifecycle", lifecycle::measure),
    ("latency", latency::measure),
    ("validate", validate::measure),
    ("drain", drain::measure),
    ("superseding", drain::measure_superseding),
    ("ledger", ledger::measure),
    ("cluster", cluster::measure),
    ("porch", porch::measure),
    ("waiting", backlog::measure),
];

#[derive(Debug)]
struct Options {
    scale: Scale,
    save: Option<PathBuf>,
    compare: Option<PathBuf>,
    measures: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [child, what, rounds] = words.as_slice()
        && child == instructions::CHILD
    {
        instructions::work(what, rounds.parse().expect("a number of rounds"));
        return ExitCode::SUCCESS;
    }
    let Some(options) = options(words.into_iter()) else {
        let names: Vec<&str> = MEASURES.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "usage: cargo bench -- [--quick] [--save FILE] [--compare FILE] [{}]...",
            names.join("|")
        );
        return ExitCode::from(2);
    };
    let before = options.compare.as_deref().map(Saved::read);
    let machine = ground::machine();
    let mut rows = Vec::new();
    for (name, measure) in MEASURES {
        if options.measures.is_empty() || options.measures.iter().any(|wanted| wanted == name) {
            eprintln!("measuring: {name}");
            rows.extend(measure(options.scale));
        }
    }
    println!("{machine}\n");
    table::print(&rows, before.as_ref());
    if let Some(path) = &options.save {
        Saved::write(path, &rows);
    }
    if options.scale != Scale::Smoke && rows.iter().any(Row::breaks_budget) {
        eprintln!("a budget is exceeded: mend it, or raise it in the bench with its reason");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// `None` for what is not understood.
fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options =
        Options { scale: Scale::Smoke, save: None, compare: None, measures: Vec::new() };
    let mut quick = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo says so when it benches, and does not when it tests.
            "--bench" => options.scale = Scale::Full,
            "--quick" => quick = true,
            "--save" => options.save = Some(arguments.next()?.into()),
            "--compare" => options.compare = Some(arguments.next()?.into()),
            name if MEASURES.iter().any(|(known, _)| *known == name) => {
                options.measures.push(argument);
            }
            _ => return None,
        }
    }
    if quick {
        options.scale = Scale::Quick;
    }
    Some(options)
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

/// The value that so many in a hundred do not exceed.
pub fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// Waits on the clock.
#[expect(clippy::disallowed_methods, reason = "pacing is what latencies are measured with")]
pub fn pause(time: std::time::Duration) {
    std::thread::sleep(time);
}
