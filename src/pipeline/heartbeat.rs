//! Whether each thread gets on: read by the watchdog, so that a hung stage is noticed.
//!
//! A stage that waits for work is healthy for ever and is not woken to say so; one that has work
//! must come back for more before the watchdog looks twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All threads' beats, and what they were when somebody last looked.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    all: Arc<Mutex<Vec<Watched>>>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    count: Arc<AtomicU64>,
    seen: Option<u64>,
}

/// One thread's beat. The count is even while it waits and odd while it works.
#[derive(Clone, Debug)]
pub struct Beat {
    count: Arc<AtomicU64>,
}

impl Beat {
    /// Waits by `wait` and is healthy meanwhile.
    pub fn idle<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.count.fetch_add(1, Ordering::Relaxed);
        let waited = wait();
        self.count.fetch_add(1, Ordering::Relaxed);
        waited
    }

    /// Says that the work gets on.
    pub fn work(&self) {
        self.count.fetch_add(2, Ordering::Relaxed);
    }
}

impl Heartbeats {
    /// A beat for a thread that starts now, working.
    pub fn add(&self, name: &str) -> Beat {
        let count = Arc::new(AtomicU64::new(1));
        let watched = Watched { name: name.to_owned(), count: Arc::clone(&count), seen: None };
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
        Beat { count }
    }

    /// The threads that have worked on the same thing since the last call.
    pub fn stuck(&self) -> Vec<String> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stuck = Vec::new();
        for watched in all.iter_mut() {
            let count = watched.count.load(Ordering::Relaxed);
            if count % 2 == 1 && watched.seen == Some(count) {
                stuck.push(watched.name.clone());
            }
            watched.seen = Some(count);
        }
        stuck
    }

    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_works_on_one_thing_between_two_looks_is_stuck() {
        let heartbeats = Heartbeats::default();
        let (idle, busy, hung) =
            (heartbeats.add("idle"), heartbeats.add("busy"), heartbeats.add("hung"));
        assert!(heartbeats.stuck().is_empty(), "one look proves nothing");
        busy.work();
        hung.idle(|| ());
        idle.idle(|| {
            assert_eq!(heartbeats.stuck(), Vec::<String>::new());
            busy.work();
            assert_eq!(heartbeats.stuck(), ["hung"]);
        });
    }
}
