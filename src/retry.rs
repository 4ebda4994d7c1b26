//! Decides whether and when a failed delivery is tried again: full jitter inside a budget.
//!
//! Pure: the time spent and the randomness are arguments. Neither is a clock time, so a clock that
//! jumps neither parks nor delays an intent.

use std::time::Duration;

/// The settings under `[retry]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Time that one intent may spend at one sink before it is parked.
    pub budget: Duration,
    /// Upper bound of the first delay; it doubles with each try.
    pub first: Duration,
    /// Upper bound of every delay.
    pub max: Duration,
}

impl Policy {
    /// The delay before the next try, after `attempts` failed ones that took `spent` with their
    /// waits; `None` when the budget is used up. `random` is any number, the more even the better.
    pub fn delay(&self, attempts: u32, spent: Duration, random: u64) -> Option<Duration> {
        let left = self.budget.checked_sub(spent).filter(|left| !left.is_zero())?;
        let doublings = attempts.saturating_sub(1).min(31);
        let bound = self.first.saturating_mul(1 << doublings).min(self.max);
        let jittered = bound.mul_f64(random as f64 / u64::MAX as f64);
        Some(jittered.min(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        budget: Duration::from_secs(60),
        first: Duration::from_millis(200),
        max: Duration::from_secs(10),
    };

    #[test]
    fn the_bound_of_the_delay_doubles_up_to_the_maximum() {
        let longest =
            |attempts| POLICY.delay(attempts, Duration::ZERO, u64::MAX).unwrap().as_millis();
        assert_eq!(
            [1, 2, 3, 6, 7, 8, 400].map(longest),
            [200, 400, 800, 6400, 10_000, 10_000, 10_000]
        );
        assert_eq!(POLICY.delay(3, Duration::ZERO, 0), Some(Duration::ZERO), "jitter is full");
    }

    #[test]
    fn the_last_try_comes_when_the_budget_ends_and_none_after_it() {
        let after = |spent| POLICY.delay(9, Duration::from_secs(spent), u64::MAX);
        assert_eq!(after(58), Some(Duration::from_secs(2)));
        assert_eq!(after(60), None);
        assert_eq!(after(61), None);
    }
}
