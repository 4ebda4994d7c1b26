//! Decides whether a sink is worth asking: a circuit breaker over the last answers of its target.
//!
//! Only answers about the target as a whole count ("cannot be reached"), never what is wrong with one
//! intent. While the breaker is open nothing goes out and nothing is lost: intents keep their place,
//! and the time does not count towards their retry budget. After a pause a few probes go out; when one
//! succeeds the breaker closes, when one fails the pause doubles.
//!
//! Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Deliveries that go out at once to try a target that was down.
pub const PROBES: usize = 1;

/// The settings under `[breaker]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Answers that are looked at: the newest so many. The breaker never opens on fewer, and there
    /// is none if this is 0.
    pub window: usize,
    /// It opens when so many per cent of them say that the target cannot be reached.
    pub failures_percent: usize,
    /// How long it stays open the first time; twice as long after each probe that fails.
    pub pause: Duration,
    /// It never stays open for longer than this without a probe.
    pub pause_max: Duration,
}

/// One target's breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Total of all times that it was open, without the current one.
    held: Duration,
}

#[derive(Debug)]
enum State {
    /// The newest answers, `true` for one that says the target cannot be reached.
    Closed {
        answers: VecDeque<bool>,
    },
    Open {
        since: Instant,
        until: Instant,
        pause: Duration,
    },
    /// Probes may be out; it counts as open for the budget.
    HalfOpen {
        since: Instant,
        pause: Duration,
    },
}

/// A change that people want to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Opened,
    /// A probe has failed: open for another, longer pause.
    Reopened {
        pause: Duration,
    },
    Closed,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { state: State::Closed { answers: VecDeque::new() }, held: Duration::ZERO }
    }
}

impl Breaker {
    /// How many deliveries may be out at once now.
    pub fn admits(&mut self, policy: &Policy, now: Instant) -> usize {
        if policy.window == 0 {
            self.close(now);
        }
        match self.state {
            State::Closed { .. } => usize::MAX,
            State::Open { until, .. } if now < until => 0,
            State::Open { since, pause, .. } => {
                self.state = State::HalfOpen { since, pause };
                PROBES
            }
            State::HalfOpen { .. } => PROBES,
        }
    }

    /// Whether it lets everything out.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// When probes may go out, if it is open.
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Takes in one answer; `unreachable` says that it was about the target and not about the intent.
    pub fn answered(&mut self, unreachable: bool, policy: &Policy, now: Instant) -> Option<Turn> {
        match &mut self.state {
            _ if policy.window == 0 => None,
            State::Closed { answers } => {
                answers.push_back(unreachable);
                let surplus = answers.len().saturating_sub(policy.window);
                answers.drain(..surplus);
                let failures = answers.iter().filter(|failed| **failed).count();
                // An answer that says otherwise is no reason to stop asking.
                let tripped = unreachable
                    && answers.len() >= policy.window
                    && failures * 100 >= policy.failures_percent * answers.len();
                tripped.then(|| {
                    self.open(now, now, policy.pause);
                    Turn::Opened
                })
            }
            // A straggler of before: the probe decides.
            State::Open { .. } => None,
            State::HalfOpen { since, pause } => {
                let (since, pause) = (*since, *pause);
                if unreachable {
                    let pause = (pause * 2).min(policy.pause_max);
                    self.open(since, now, pause);
                    return Some(Turn::Reopened { pause });
                }
                self.close(now);
                Some(Turn::Closed)
            }
        }
    }

    /// How long it has been open in all, up to now.
    pub fn held(&self, now: Instant) -> Duration {
        match self.state {
            State::Closed { .. } => self.held,
            State::Open { since, .. } | State::HalfOpen { since, .. } => {
                self.held + now.duration_since(since)
            }
        }
    }

    fn open(&mut self, since: Instant, now: Instant, pause: Duration) {
        self.state = State::Open { since, until: now + pause, pause };
    }

    fn close(&mut self, now: Instant) {
        self.held = self.held(now);
        if !self.is_closed() {
            self.state = State::Closed { answers: VecDeque::new() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        window: 4,
        failures_percent: 50,
        pause: Duration::from_secs(1),
        pause_max: Duration::from_secs(3),
    };

    struct Bench {
        breaker: Breaker,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Bench { breaker: Breaker::default(), start: Instant::now() }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn answer(&mut self, unreachable: bool, seconds: f64) -> Option<Turn> {
            let now = self.at(seconds);
            self.breaker.answered(unreachable, &POLICY, now)
        }

        fn admits(&mut self, seconds: f64) -> usize {
            let now = self.at(seconds);
            self.breaker.admits(&POLICY, now)
        }
    }

    #[test]
    fn it_opens_when_half_of_the_window_failed_and_not_on_fewer_answers() {
        let mut bench = Bench::new();
        for unreachable in [true, false, true] {
            assert_eq!(bench.answer(unreachable, 0.0), None, "three answers are no window");
        }
        assert_eq!(bench.answer(false, 0.0), None, "half failed, but not this one");
        assert_eq!(bench.answer(true, 0.0), Some(Turn::Opened));
        assert_eq!((bench.admits(0.5), bench.breaker.due()), (0, Some(bench.at(1.0))));
    }

    #[test]
    fn old_failures_leave_the_window() {
        let mut bench = Bench::new();
        assert_eq!([true, false, false, false].map(|failed| bench.answer(failed, 0.0)), [None; 4]);
        assert_eq!(bench.answer(true, 0.0), None, "the first failure has left");
        assert_eq!(bench.admits(0.0), usize::MAX);
    }

    #[test]
    fn a_probe_that_succeeds_closes_it_and_one_that_fails_doubles_the_pause_up_to_its_maximum() {
        let mut bench = Bench::new();
        (0..4).for_each(|_| {
            bench.answer(true, 0.0);
        });
        let mut now = 0.0;
        for pause in [1.0, 2.0, 3.0, 3.0] {
            assert_eq!(bench.admits(now + pause - 0.1), 0);
            now += pause;
            assert_eq!(bench.admits(now), PROBES);
            let next = Duration::from_secs_f64((pause * 2.0).min(3.0));
            assert_eq!(bench.answer(true, now), Some(Turn::Reopened { pause: next }));
        }
        assert_eq!(bench.admits(now + 3.0), PROBES);
        assert_eq!(bench.answer(false, now + 3.0), Some(Turn::Closed));
        assert_eq!(bench.admits(now + 3.0), usize::MAX);
        assert_eq!(bench.answer(true, now + 3.0), None, "it begins with an empty window");
    }

    #[test]
    fn without_a_window_there_is_none_and_an_open_one_closes() {
        let off = Policy { window: 0, ..POLICY };
        let mut bench = Bench::new();
        let now = bench.start;
        (0..99).for_each(|_| assert_eq!(bench.breaker.answered(true, &off, now), None));
        (0..4).for_each(|_| {
            bench.answer(true, 0.0);
        });
        let later = bench.at(0.5);
        assert_eq!((bench.admits(0.5), bench.breaker.admits(&off, later)), (0, usize::MAX));
        assert_eq!(bench.breaker.held(bench.at(9.0)), Duration::from_millis(500));
    }

    #[test]
    fn only_the_time_that_it_was_open_is_held_back() {
        let mut bench = Bench::new();
        (0..4).for_each(|_| {
            bench.answer(true, 5.0);
        });
        assert_eq!(bench.breaker.held(bench.at(5.5)), Duration::from_millis(500));
        bench.admits(6.0);
        bench.answer(false, 7.0);
        assert_eq!(bench.breaker.held(bench.at(99.0)), Duration::from_secs(2));
    }
}
