//! Decides how many deliveries a second a sink is given: a bucket that fills evenly.
//!
//! Pure: time is an argument.

use std::time::{Duration, Instant};

/// One sink's bucket. It holds what may go out in one second: never more than that goes out at
/// once, and no more than the rate over any longer time.
#[derive(Debug)]
pub struct Bucket {
    /// What one delivery costs, and what a full bucket is worth.
    interval: Duration,
    capacity: Duration,
    /// When it was, or will be, full; each delivery moves it one interval on.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket; `per_second` is above 0.
    pub fn new(per_second: u32) -> Self {
        // Rounded up, so that it is never faster.
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(per_second)));
        Bucket { interval, capacity: interval * per_second, full_at: None }
    }

    /// How many deliveries may go out now.
    pub fn holds(&self, now: Instant) -> usize {
        let missing = self.missing(now);
        let left = self.capacity.saturating_sub(missing);
        (left.as_nanos() / self.interval.as_nanos()) as usize
    }

    /// Takes so many out of it.
    pub fn take(&mut self, count: usize, now: Instant) {
        let cost = self.interval.saturating_mul(count as u32);
        self.full_at = Some(now + self.missing(now) + cost);
    }

    /// When the next delivery may go out, if none may now.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let short = (self.missing(now) + self.interval).checked_sub(self.capacity)?;
        (!short.is_zero()).then(|| now + short)
    }

    fn missing(&self, now: Instant) -> Duration {
        self.full_at.map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_may_go_at_once_and_then_one_an_interval() {
        let start = Instant::now();
        let mut bucket = Bucket::new(4);
        assert_eq!((bucket.holds(start), bucket.due(start)), (4, None));
        bucket.take(4, start);
        let next = start + Duration::from_millis(250);
        assert_eq!((bucket.holds(start), bucket.due(start)), (0, Some(next)));
        assert_eq!((bucket.holds(next), bucket.due(next)), (1, None));
        let much_later = start + Duration::from_secs(60);
        assert_eq!(bucket.holds(much_later), 4, "it never holds more than a second's");
    }

    proptest! {
        #[test]
        fn no_time_sees_more_than_its_rate_and_one_bucket(
            rate in 1u32..500,
            pauses in proptest::collection::vec(0u64..700, 1..60),
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(rate);
            let (mut now, mut taken) = (start, 0);
            for pause in pauses {
                now += Duration::from_millis(pause);
                let count = bucket.holds(now);
                prop_assert_eq!(count == 0, bucket.due(now).is_some_and(|due| due > now));
                bucket.take(count, now);
                taken += count;
                let most = f64::from(rate) * (now - start).as_secs_f64() + f64::from(rate);
                prop_assert!(taken as f64 <= most + 1e-3, "{} of {}", taken, most);
            }
        }
    }
}
