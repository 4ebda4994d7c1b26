//! What a process holds, sampled over its life, and whether it holds ever more.

use std::time::Duration;

use crate::report::Tally;
use crate::support::Site;

/// Caches, pools and the first faults are behind it by then.
const WARM: Duration = Duration::from_secs(15);

/// Memory may move by so much between the first and the last third of a minute.
const RSS_ROOM_KIB: u64 = 6 << 10;

/// `journal_size_limit`, and what one more group adds.
const WAL_MAX: u64 = 72 << 20;

/// What is staged or retired at fifty packages a second for ten seconds, what is kept for reuse, and
/// what killed leaders have left.
const STAGED_MAX: u64 = 4_096;

/// One look at a process, and at what it left lying.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    age: Duration,
    rss_kib: u64,
    fds: u64,
    threads: u64,
    watches: u64,
    wal_bytes: u64,
    staged: u64,
}

/// All looks at one process, once it was warm.
#[derive(Debug, Default)]
pub struct Life {
    samples: Vec<Sample>,
}

impl Life {
    /// Looks at the process.
    pub fn sample(&mut self, age: Duration, pid: i32, site: &Site) {
        if age < WARM {
            return;
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let fds: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .map(|all| all.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        let watches = fds.iter().filter_map(|path| std::fs::read_to_string(path).ok());
        let watches = watches.map(|text| text.matches("inotify wd:").count() as u64).sum();
        let wal = std::fs::metadata(site.state().join("ledger.db-wal"));
        let staging = std::fs::read_dir(site.packages().join(".intentd"));
        self.samples.push(Sample {
            age,
            rss_kib: field("VmRSS:"),
            fds: fds.len() as u64,
            threads: field("Threads:"),
            watches,
            wal_bytes: wal.map_or(0, |metadata| metadata.len()),
            staged: staging.map_or(0, |all| all.count() as u64),
        });
    }

    /// The least of a figure in the first and in the last third: what is held all the time.
    fn held(&self, figure: impl Fn(&Sample) -> u64) -> (u64, u64) {
        let third = self.samples.len() / 3;
        let least = |part: &[Sample]| part.iter().map(&figure).min().unwrap_or_default();
        (least(&self.samples[..third]), least(&self.samples[self.samples.len() - third..]))
    }
}

/// The slope of a figure over time, in its unit a minute: least squares over all samples.
fn slope(samples: &[Sample], figure: impl Fn(&Sample) -> u64) -> f64 {
    let points: Vec<(f64, f64)> = samples
        .iter()
        .map(|sample| (sample.age.as_secs_f64() / 60.0, figure(sample) as f64))
        .collect();
    let count = points.len().max(1) as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let over = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
    let under = points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    if under == 0.0 { 0.0 } else { over / under }
}

/// A figure by its name.
type Figure = (&'static str, fn(&Sample) -> u64);

const FIGURES: [Figure; 3] = [
    ("descriptors", |sample| sample.fds),
    ("threads", |sample| sample.threads),
    ("watches", |sample| sample.watches),
];

/// Nothing may grow within a life, nor from the first life to the last.
pub fn judge(lives: &[Life], tally: &mut Tally) {
    for (number, life) in lives.iter().enumerate() {
        for (name, figure) in FIGURES {
            let (first, last) = life.held(figure);
            tally.require(last <= first && first > 0, || {
                format!("life {number}: {name} grow from {first} to {last}")
            });
        }
        let (first, last) = life.held(|sample| sample.rss_kib);
        tally.require(last <= first + RSS_ROOM_KIB && first > 0, || {
            format!("life {number}: memory grows from {first} to {last} KiB")
        });
        let wal = life.samples.iter().map(|sample| sample.wal_bytes).max().unwrap_or_default();
        tally.require(wal <= WAL_MAX, || format!("life {number}: a log of {wal} bytes"));
        let (fds, threads) = (life.held(FIGURES[0].1).1, life.held(FIGURES[1].1).1);
        tally.notes.push(format!(
            "life {number}: {first} to {last} KiB, {fds} descriptors, {threads} threads, log at most {} KiB",
            wal >> 10
        ));
        let slope = |figure: fn(&Sample) -> u64| slope(&life.samples, figure);
        tally.notes.push(format!(
            "        a minute: memory {:+.0} KiB, descriptors {:+.1}, threads {:+.1}, watches {:+.1}, \
             staged directories {:+.1}, log {:+.0} KiB",
            slope(|sample| sample.rss_kib),
            slope(|sample| sample.fds),
            slope(|sample| sample.threads),
            slope(|sample| sample.watches),
            slope(|sample| sample.staged),
            slope(|sample| sample.wal_bytes >> 10),
        ));
        let staged = life.samples.iter().map(|sample| sample.staged).max().unwrap_or_default();
        tally.require(staged <= STAGED_MAX, || {
            format!("life {number}: {staged} staged directories")
        });
    }
    if let [first, .., last] = lives {
        for (name, figure) in FIGURES {
            let (first, last) = (first.held(figure).1, last.held(figure).1);
            tally.require(last <= first, || format!("{name} grow over lives: {first} to {last}"));
        }
        let (first, last) = (first.held(|s| s.rss_kib).1, last.held(|s| s.rss_kib).1);
        tally.require(last <= first + RSS_ROOM_KIB, || {
            format!("memory grows over lives: {first} to {last} KiB")
        });
    }
}
