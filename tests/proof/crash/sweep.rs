//! Takes many sites through crashes and recoveries, several at a time, and adds up what came of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::calls;
use super::ground::{Ground, Layout, Plot};
use super::point::{Fault, Point, parsed, shown};
use super::trace::{Reached, Traced};
use crate::report::{Options, Random, Tally};
use crate::workload::{Load, Work};

/// One state by name, as a violation tells it; it is tried so often, since threads interleave.
const ONLY_STATE: &str = "PROOF_CRASH";
const TRIES: usize = 25;

/// The crashes of one state, one a run; after the last one it recovers and is checked.
pub type Crashes = Vec<Point>;

/// What all states of a sweep have in common.
pub struct Sweep<'a> {
    /// Harness and row, for the line that reproduces a violation.
    pub harness: &'static str,
    pub row: &'static str,
    pub layout: Layout,
    pub load: Load,
    /// The only calls at which to crash, by their name; all where there is none.
    pub only: Option<&'static str>,
    /// Failpoints of the runs that are crashed; recoveries have none of them.
    pub plan: &'a str,
    pub stop_at_first: bool,
}

/// What came of one or more states.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    states: u64,
    /// Runs that ended before they came to their point.
    ended: u64,
    struck: BTreeMap<(&'static str, &'static str), u64>,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        self.tally.fired += other.tally.fired;
        self.tally.acked += other.tally.acked;
        self.tally.violations.extend(other.tally.violations);
        self.states += other.states;
        self.ended += other.ended;
        for (call, count) in other.struck {
            *self.struck.entry(call).or_default() += count;
        }
    }
}

impl<'a> Sweep<'a> {
    pub fn of(harness: &'static str, row: &'static str, layout: Layout) -> Self {
        Sweep { harness, row, layout, load: Load::Few, only: None, plan: "", stop_at_first: false }
    }

    /// Before and after every call, `rounds` times.
    pub fn every(&self, options: &Options, fault: Fault, rounds: usize) -> Tally {
        self.states(options, |points, _| {
            // Some runs take a few calls more than the one that was counted: go on to where even
            // those have ended.
            let end = points + points / 8 + 8;
            let points = (1..=end)
                .flat_map(|number| [false, true].map(|after| vec![Point { number, after, fault }]));
            let points: Vec<_> = points.collect();
            std::iter::repeat_n(points, rounds).flatten().collect()
        })
    }

    /// Before and after each of few calls, `rounds` times, since the threads meet in many ways.
    pub fn each(&self, options: &Options, fault: Fault, rounds: usize) -> Tally {
        self.states(options, |points, _| {
            let both = |number| [false, true].map(|after| vec![Point { number, after, fault }]);
            let points: Vec<_> = (1..=points).flat_map(both).collect();
            std::iter::repeat_n(points, rounds).flatten().collect()
        })
    }

    /// Before or after `count` calls that are spread evenly, in no order.
    pub fn sample(&self, options: &Options, fault: Fault, count: usize) -> Tally {
        self.states(options, |points, random| {
            let moments = spread(points, count, random).into_iter();
            let mut states: Vec<_> =
                moments.map(|(number, after)| vec![Point { number, after, fault }]).collect();
            for last in (1..states.len()).rev() {
                states.swap(last, random.below(last as u64 + 1) as usize);
            }
            states
        })
    }

    /// `count` chains of `length` crashes: the first ones are spread evenly, the others hit the
    /// recoveries anywhere, each with one of the faults.
    pub fn chains(
        &self,
        options: &Options,
        faults: &[Fault],
        length: usize,
        count: usize,
    ) -> Tally {
        self.states(options, |points, random| {
            let first = spread(points, count, random);
            let chain = |first| {
                let mut moment = first;
                let crashes = (0..length).map(|_| {
                    let (number, after) = moment;
                    // A recovery makes fewer calls than a first run: early ones are hit more often.
                    let end = 1 + random.below(points);
                    moment = (1 + random.below(end), random.below(2) == 1);
                    let fault = faults[random.below(faults.len() as u64) as usize];
                    Point { number, after, fault }
                });
                crashes.collect()
            };
            first.into_iter().map(chain).collect()
        })
    }

    /// Counts the points of a run without a crash, has states made of them, and tries them all.
    fn states(
        &self,
        options: &Options,
        make: impl FnOnce(u64, &mut Random) -> Vec<Crashes>,
    ) -> Tally {
        if !calls::KNOWN {
            return Tally::skipped("calls are told apart on x86_64 and aarch64 only");
        }
        let mut grounds = Vec::new();
        let workers = thread::available_parallelism().map_or(1, usize::from).min(4);
        for _ in 0..workers {
            match Ground::make(self.layout) {
                Ok(ground) => grounds.push(ground),
                Err(why) => return Tally::skipped(&format!("{:?}: {why}", self.layout)),
            }
        }
        let points = self.count(&mut grounds[0]);
        let only = std::env::var(ONLY_STATE).ok();
        let states = match &only {
            Some(text) => vec![parsed(text).expect(ONLY_STATE); TRIES],
            None => make(points, &mut Random::new(options.seed)),
        };
        let outcome = self.work_off(options, grounds, &states);
        let mut tally = outcome.tally;
        tally.notes.push(format!(
            "{:?}: {points} points; {} states, {} crashes, {} runs ended before",
            self.layout, outcome.states, tally.fired, outcome.ended
        ));
        let calls = outcome.struck.iter();
        let calls: Vec<_> = calls.map(|((name, when), n)| format!("{when} {name} {n}")).collect();
        tally.notes.push(format!("{} kinds of moments: {}", calls.len(), calls.join(", ")));
        tally
    }

    fn work_off(&self, options: &Options, grounds: Vec<Ground>, states: &[Crashes]) -> Outcome {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let worker = |mut ground: Ground| {
            let mut all = Outcome::default();
            while let Some(crashes) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let again = self.again(options, crashes);
                let state = catch_unwind(AssertUnwindSafe(|| self.state(&mut ground, crashes)));
                let Ok(mut outcome) = state else {
                    // What it said stands above; the ground is no longer known.
                    all.tally.violation(format!("{again}: panicked"));
                    break;
                };
                if self.stop_at_first && !outcome.tally.violations.is_empty() {
                    stop.store(true, Ordering::Relaxed);
                }
                for violation in &mut outcome.tally.violations {
                    *violation = format!("{again}: {violation}");
                }
                all.add(outcome);
            }
            all
        };
        let mut all = Outcome::default();
        thread::scope(|scope| {
            let workers: Vec<_> =
                grounds.into_iter().map(|ground| scope.spawn(|| worker(ground))).collect();
            for worker in workers {
                all.add(worker.join().expect("panics are caught inside"));
            }
        });
        all
    }

    /// The line that does this state again.
    fn again(&self, options: &Options, crashes: &[Point]) -> String {
        let plan = match self.plan {
            "" => String::new(),
            plan => format!(" (FAILPOINTS='{plan}')"),
        };
        format!(
            "{ONLY_STATE}={} cargo test --features failpoints --test proof -- {} --only {} --seed {}{plan}",
            shown(crashes),
            self.harness,
            self.row,
            options.seed
        )
    }

    /// How many calls that change something a run makes that nobody crashes.
    fn count(&self, ground: &mut Ground) -> u64 {
        let plot = ground.plot();
        let work = self.prepare(ground, &plot);
        let Reached::End { code, calls } = self.start(&work, &plot).until(0, false) else {
            unreachable!("no call has the number 0");
        };
        assert_eq!(code, Some(1), "some are rejected, and the rest goes well");
        plot.clear();
        calls
    }

    /// A site with everything dropped, all of it on the disk.
    fn prepare(&self, ground: &Ground, plot: &Plot) -> Work {
        let roots: Vec<&Path> = plot.roots.iter().map(|root| root.as_path()).collect();
        let work = Work::prepare(self.load, &roots, &plot.outside.join("records"));
        ground.sync();
        work
    }

    fn start(&self, work: &Work, plot: &Plot) -> Traced {
        let command = work.command(self.plan);
        let output = ["stdout", "stderr"]
            .map(|name| File::create(plot.outside.join(name)).expect("there is room"));
        Traced::start(&command, self.only, output)
    }

    /// One state: prepares a site, crashes it, restarts it, and so on, and checks the end.
    fn state(&self, ground: &mut Ground, crashes: &[Point]) -> Outcome {
        let plot = ground.plot();
        let mut work = self.prepare(ground, &plot);
        let mut outcome = Outcome { states: 1, ..Outcome::default() };
        for point in crashes {
            let mut traced = self.start(&work, &plot);
            match traced.until(point.number, point.after) {
                Reached::Point(name) => {
                    traced.freeze();
                    ground.strike(point.fault);
                    traced.kill();
                    ground.restart(point.fault);
                    outcome.tally.fired += 1;
                    *outcome.struck.entry((name, point.when())).or_default() += 1;
                }
                Reached::End { code, .. } => {
                    outcome.ended += 1;
                    let told = std::fs::read_to_string(plot.outside.join("stderr"));
                    outcome.tally.require(matches!(code, Some(0 | 1)), || {
                        format!("a run that nobody crashed ends with {code:?}: {told:?}")
                    });
                }
            }
            let told = std::fs::read(plot.outside.join("stdout")).expect("it was made");
            work.log.told_by_output(&String::from_utf8_lossy(&told));
        }
        let verdict = work.verdict("");
        outcome.tally.acked += verdict.acked;
        outcome.tally.violations.extend(verdict.violations);
        plot.clear();
        outcome
    }
}

/// `count` of the moments before and after `points` calls: one at random out of each equal share.
fn spread(points: u64, count: usize, random: &mut Random) -> Vec<(u64, bool)> {
    let moments = 2 * points;
    let count = (count as u64).min(moments);
    (0..count)
        .map(|index| {
            let (from, to) = (index * moments / count, (index + 1) * moments / count);
            let moment = from + random.below(to - from);
            (moment / 2 + 1, moment % 2 == 1)
        })
        .collect()
}
