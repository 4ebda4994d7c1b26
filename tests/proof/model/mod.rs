//! The model test: the program's own decisions in a simulated world, where one seed decides all.
//!
//! Real are `settle`, `sequence`, `batch`, `retry`, `Desk`, `Window`, `Names`, `Submission`,
//! `recovery` and the ledger's types; simulated are time, disk, ledger, targets, producers and the
//! order in which the stages get to run. No thread, file or clock takes part in a seed.

mod disk;
mod lanes;
mod leader;
mod ledger;
mod path;
mod producer;
mod sim;
mod take;
mod targets;
mod verdict;
mod world;

use std::time::Instant;

use crate::report::{Options, Row, Tally};
use world::Mutant;

pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "seeds", what: "the path from drop to archive, simulated by seed", run: seeds },
        Row { id: "one", what: "one simulated history alone, told when it fails", run: one },
        Row { id: "known", what: "simulated histories that once failed", run: known },
        Row {
            id: "caught",
            what: "the simulation sees each breakage of the protocol",
            run: caught,
        },
    ]
}

const SEEDS: u64 = 2_000;
const SEEDS_FULL: u64 = 1_000_000;

fn seeds(options: &Options) -> Tally {
    let count = if options.full { SEEDS_FULL } else { SEEDS };
    // Seeds know nothing of each other, so they may run side by side.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let start = Instant::now();
    let part = |thread: usize| {
        let mut tally = Tally::default();
        let mine = (options.seed..options.seed + count).skip(thread).step_by(threads);
        for seed in mine {
            tally.add(seed_alone(seed), &reproduction(seed));
        }
        tally
    };
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|thread| scope.spawn(move || part(thread))).collect();
        for part in parts {
            match part.join() {
                Ok(part) => {
                    tally.fired += part.fired;
                    tally.acked += part.acked;
                    tally.violations.extend(part.violations);
                }
                Err(_) => tally.violation("a thread panicked"),
            }
        }
    });
    let rate = count as f64 / start.elapsed().as_secs_f64();
    tally.notes.push(format!("{count} seeds from {} on, {rate:.0} seeds a second", options.seed));
    tally
}

fn reproduction(seed: u64) -> String {
    format!("cargo test --features failpoints --test proof -- model --only one --seed {seed}")
}

/// Runs a seed; a panic in the product's code is its violation.
fn seed_alone(seed: u64) -> Tally {
    let run = || sim::run(seed, None, false);
    match std::panic::catch_unwind(run) {
        Ok(log) => Tally {
            fired: log.fired,
            acked: log.acked.len() as u64,
            violations: log.violations,
            ..Tally::default()
        },
        Err(_) => Tally { violations: vec!["it panicked".to_owned()], ..Tally::default() },
    }
}

fn one(options: &Options) -> Tally {
    let log = sim::run(options.seed, None, true);
    let failed = !log.violations.is_empty();
    Tally {
        fired: log.fired,
        acked: log.acked.len() as u64,
        violations: log.violations,
        notes: if failed { log.trace.unwrap_or_default() } else { Vec::new() },
        skipped: None,
    }
}

/// Each with what was wrong when it failed.
const KNOWN: &[(u64, &str)] =
    &[(100_701, "a leader without a lock writes a status that is not synced")];

fn known(_: &Options) -> Tally {
    let mut tally = Tally::default();
    for (seed, what) in KNOWN {
        tally.add(seed_alone(*seed), what);
    }
    tally
}

const MUTANTS: &[Mutant] = &[
    Mutant::SkipClaimSync,
    Mutant::ArchiveBeforeCommit,
    Mutant::RereadClaimWithRow,
    Mutant::FreeTargetBeforeCommit,
    Mutant::ForgetProgress,
    Mutant::SupersedeStarted,
    Mutant::UnchangedBlind,
    Mutant::SkipNamesSync,
    Mutant::FlagBeforeSync,
    Mutant::SkipFence,
    Mutant::ForgetPlannedName,
    Mutant::TrustEvents,
];

/// Seeds within which a breakage has to be seen.
const PATIENCE: u64 = 500;

fn caught(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for mutant in MUTANTS {
        let seen = (options.seed..options.seed + PATIENCE).find_map(|seed| {
            let log = std::panic::catch_unwind(|| sim::run(seed, Some(*mutant), false));
            let text =
                log.map_or(Some("it panicked".to_owned()), |log| log.violations.into_iter().next());
            text.map(|text| (seed - options.seed + 1, text))
        });
        tally.fired += 1;
        match seen {
            Some((seeds, text)) => {
                tally.notes.push(format!("{mutant:?} within {seeds} seeds: {text}"))
            }
            None => tally.violation(format!("{mutant:?} is not seen in {PATIENCE} seeds")),
        }
    }
    tally
}
