//! The proof that nothing is lost: harnesses that break things on purpose, and one checker for all.
//!
//! `cargo test --features failpoints --test proof -- HARNESS [--full] [--seed N] [--only TEXT]`;
//! without a harness all of them run as CI does. `tests/README.md` says what each shows.

// Another process's state can only be looked at again and again, with a pause in between.
#![allow(clippy::disallowed_methods)]

mod base;
mod check;
mod crash;
mod damage;
mod docs;
mod drops;
mod io;
mod leader;
mod model;
mod mutants;
mod points;
mod report;
mod retried;
mod soak;
#[path = "../it/support.rs"]
mod support;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use report::{Options, Row};

#[derive(Parser)]
#[command(about = "Breaks intentd on purpose and checks that nothing was lost")]
struct Args {
    /// Harnesses to run; all of them when none is named.
    #[arg(value_name = "HARNESS")]
    harnesses: Vec<String>,
    /// The long mode: tens of thousands of states instead of what fits into a CI run.
    #[arg(long)]
    full: bool,
    /// Seed of everything random; printed by each run.
    #[arg(long)]
    seed: Option<u64>,
    /// Only rows whose id or description contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Duration of a soak.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
}

/// A named list of rows.
type Harness = (&'static str, fn() -> Vec<Row>);

/// All harnesses, in the order in which CI runs them.
const HARNESSES: &[Harness] = &[
    ("base", base::rows),
    ("points", points::rows),
    ("kill", crash::kills),
    ("cut", crash::cuts),
    ("mutants", mutants::rows),
    ("io", io::rows),
    ("drops", drops::rows),
    ("docs", docs::rows),
    ("leader", leader::rows),
    ("damage", damage::rows),
    ("model", model::rows),
    ("soak", soak::rows),
];

fn main() -> ExitCode {
    let args = Args::parse();
    let unknown = |name: &&String| !HARNESSES.iter().any(|(known, _)| known == &name.as_str());
    if let Some(name) = args.harnesses.iter().find(unknown) {
        let known: Vec<_> = HARNESSES.iter().map(|(name, _)| *name).collect();
        eprintln!("no harness `{name}`; there are: {}", known.join(" "));
        return ExitCode::from(2);
    }
    let seed = args.seed.unwrap_or_else(report::random_seed);
    let options = Options { full: args.full, seed, minutes: args.minutes };
    let (mut failed, mut ran) = (false, false);
    for (name, rows) in HARNESSES {
        if !args.harnesses.is_empty() && !args.harnesses.iter().any(|wanted| wanted == name) {
            continue;
        }
        for row in rows() {
            if row.id.contains(&args.only) || row.what.contains(&args.only) {
                ran = true;
                failed |= !report::run(name, &row, &options);
            }
        }
    }
    if !ran {
        eprintln!("no row is called or described like `{}`", args.only);
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(failed))
}
