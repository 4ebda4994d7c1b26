//! Wall-clock times as the records carry them. Decisions never use these: see `Instant` there.

use std::fmt;

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Serialize, Serializer};

/// A moment in UTC with milliseconds, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: i64,
}

impl Timestamp {
    /// Seconds from `earlier` to `self`; zero when the clock was set back in between.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        (self.unix_ms - earlier.unix_ms).max(0) as f64 / 1000.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounded = jiff::Timestamp::from_millisecond(self.unix_ms)
            .unwrap_or(if self.unix_ms < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX });
        let printer = DateTimePrinter::new().precision(Some(3));
        f.write_str(&printer.timestamp_to_string(&bounded))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
