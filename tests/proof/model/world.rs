//! What outlives a leader: the clock, the disk, the ledger, the targets, the producers, the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use intentd::compose;
use intentd::model::{Digest, FileName, Intent, Seq, TargetKey, Timestamp};
use intentd::processor::Settings;
use intentd::retry::Policy;

use super::disk::Disk;
use super::ledger::Ledger;
use super::producer::{Act, Drop};
use super::targets::{Packages, Remote};
use crate::report::Random;

/// Breakages that the checks must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    SkipClaimSync,
    ArchiveBeforeCommit,
    RereadClaimWithRow,
    FreeTargetBeforeCommit,
    ForgetProgress,
    SupersedeStarted,
    UnchangedBlind,
    SkipNamesSync,
    FlagBeforeSync,
    SkipFence,
    ForgetPlannedName,
    TrustEvents,
}

/// One document that producers drop.
#[derive(Debug)]
pub struct Document {
    pub intent: Intent,
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub valid: bool,
    /// The remote sink refuses it for good.
    pub poison: bool,
}

/// What this seed is like; drawn once, so that seeds differ in kind and not only in order.
#[derive(Debug)]
pub struct Swarm {
    pub leases: bool,
    pub quiet: Duration,
    pub rescan_us: u64,
    pub hint_loss: u64,
    pub crash_one_in: u64,
    pub power: bool,
    pub stale: bool,
    pub full: bool,
    pub clock_jumps: bool,
    pub remote: bool,
    pub faults: u64,
    pub queue: usize,
    pub step_us: u64,
    pub batch_max: usize,
    pub weights: [u64; 6],
    pub fault_steps: u64,
}

/// What happened, and what of it must not have.
#[derive(Debug, Default)]
pub struct Log {
    pub violations: Vec<String>,
    pub fired: u64,
    pub acked: BTreeMap<Seq, intentd::model::Outcome>,
    pub handed: BTreeSet<Seq>,
    pub overtime: BTreeMap<(Seq, String), u64>,
    pub calls: BTreeMap<(Seq, String), u64>,
    pub effects: BTreeMap<(String, TargetKey), Vec<Seq>>,
    pub lives: u64,
    /// There was a power cut after a leader had lost its lock and gone on.
    pub stale_and_cut: bool,
    pub trace: Option<Vec<String>>,
}

#[derive(Debug)]
pub struct World {
    pub dice: Random,
    /// Microseconds since the start; the clock that decisions see.
    pub now: u64,
    wall_ms: i64,
    pub swarm: Swarm,
    pub mutant: Option<Mutant>,
    pub documents: Vec<Document>,
    pub settings: Settings,
    pub disk: Disk,
    pub ledger: Ledger,
    pub packages: Packages,
    pub remote: Remote,
    pub drops: Vec<Drop>,
    pub acts: BTreeMap<(u64, u64), (usize, Act)>,
    pub hints: BTreeMap<(u64, u64), FileName>,
    pub calm: bool,
    pub full: bool,
    pub log: Log,
    pub next_id: u64,
}

/// The one reading of the real clock: a base for `Instant`s, of which only differences count.
fn base() -> Instant {
    static BASE: OnceLock<Instant> = OnceLock::new();
    *BASE.get_or_init(Instant::now)
}

pub fn instant(us: u64) -> Instant {
    base() + Duration::from_micros(us)
}

pub fn micros(instant: Instant) -> u64 {
    instant.saturating_duration_since(base()).as_micros() as u64
}

impl World {
    pub fn new(seed: u64, mutant: Option<Mutant>, trace: bool) -> Self {
        let mut dice = Random::new(seed);
        let swarm = swarm(&mut dice);
        let image = dice.below(2) == 0;
        let first = Duration::from_millis(1 + dice.below(200));
        let stride = [1, 40, 256][dice.below(3) as usize];
        World {
            now: 1_000_000,
            wall_ms: 1_700_000_000_000,
            mutant,
            documents: Vec::new(),
            settings: Settings {
                compose: compose::Settings {
                    deployment_image: image.then(|| "registry/image:1".to_owned()),
                    deployment_template: None,
                },
                retry: Policy {
                    budget: Duration::from_millis(200 + dice.below(20_000)),
                    first,
                    max: first * 8,
                },
                breaker: intentd::breaker::Policy {
                    window: dice.below(6) as usize,
                    failures_percent: 50,
                    pause: first * 2,
                    pause_max: first * 8,
                },
                outages_count: dice.below(2) == 0,
            },
            disk: Disk::default(),
            ledger: Ledger::new(stride),
            packages: Packages::default(),
            remote: Remote::default(),
            drops: Vec::new(),
            acts: BTreeMap::new(),
            hints: BTreeMap::new(),
            calm: false,
            full: false,
            log: Log { trace: trace.then(Vec::new), ..Log::default() },
            next_id: 0,
            swarm,
            dice,
        }
    }

    pub fn instant(&self) -> Instant {
        instant(self.now)
    }

    /// The wall clock: for records and file times only.
    pub fn wall(&self) -> Timestamp {
        Timestamp { unix_ms: self.wall_ms + (self.now / 1000) as i64 }
    }

    pub fn wall_ns(&self) -> i128 {
        i128::from(self.wall().unix_ms) * 1_000_000 + i128::from(self.now % 1000)
    }

    pub fn jump_clock(&mut self) {
        self.wall_ms += self.dice.below(7_200_000) as i64 - 3_600_000;
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.dice.below(n) == 0
    }

    pub fn violation(&mut self, text: String) {
        self.trace(|| format!("VIOLATION {text}"));
        self.log.violations.push(text);
    }

    pub fn trace(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.log.trace {
            trace.push(format!("{:>12} {}", self.now, text()));
        }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// An event for a name of the inbox: it may be lost, late or doubled.
    pub fn hint(&mut self, name: &[u8]) {
        while self.dice.below(100) >= self.swarm.hint_loss {
            let due = self.now + self.dice.below(200_000);
            self.next_id += 1;
            self.hints.insert((due, self.next_id), FileName::new(name));
            if self.dice.below(4) > 0 {
                break;
            }
        }
    }

    /// Notes that a target shows an intent. Older ones never come after newer ones.
    pub fn effect(&mut self, sink: &str, key: &TargetKey, seq: Seq) {
        let effects = self.log.effects.entry((sink.to_owned(), key.clone())).or_default();
        let before = effects.last().copied();
        effects.push(seq);
        if before.is_some_and(|before| before > seq) {
            self.violation(format!("{sink} shows {seq} of {key} after {before:?}"));
        }
    }
}

fn swarm(dice: &mut Random) -> Swarm {
    let mut weights = [1; 6];
    for weight in &mut weights {
        *weight = [1, 1, 4, 20][dice.below(4) as usize];
    }
    Swarm {
        leases: dice.below(4) > 0,
        quiet: Duration::from_millis(250),
        rescan_us: 1_000_000 * (1 + dice.below(10)),
        hint_loss: [0, 30, 100][dice.below(3) as usize],
        crash_one_in: [40, 150, 600][dice.below(3) as usize],
        power: dice.below(3) > 0,
        stale: dice.below(4) == 0,
        full: dice.below(3) == 0,
        clock_jumps: dice.below(3) == 0,
        remote: dice.below(3) > 0,
        faults: [0, 10, 40][dice.below(3) as usize],
        queue: [1, 3, 64][dice.below(3) as usize],
        step_us: [20, 2_000, 100_000][dice.below(3) as usize],
        batch_max: [1, 2, 8, 256][dice.below(4) as usize],
        weights,
        fault_steps: 100 + dice.below(900),
    }
}
