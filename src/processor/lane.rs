//! One sink's queue: what is ready for it, what waits for a time, what is out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;

use crate::batch::Room;
use crate::limits::GROUP_BYTES_MAX;
use crate::model::Seq;
use crate::sink::{Answer, Step};

/// The answers to one batch, in its order.
#[derive(Debug)]
pub struct Answered {
    /// The sink's place in the configuration.
    pub lane: usize,
    pub answers: Vec<(Seq, Answer)>,
    /// What the sink has put into the journal meanwhile, by intent; the newest counts.
    pub steps: HashMap<Seq, Step>,
}

/// What a sink can take.
#[derive(Clone, Debug)]
pub struct Capacity {
    pub name: String,
    /// Most deliveries that it takes at once.
    pub batch_max: usize,
    /// How many batches it works on at a time.
    pub hands: usize,
}

#[derive(Debug)]
pub struct Lane {
    pub name: String,
    batch_max: usize,
    hands: usize,
    ready: VecDeque<Seq>,
    /// Retries and pending deliveries, by the time at which they are looked at again.
    timers: BinaryHeap<Reverse<(Instant, Seq)>>,
    /// Batches that are with the sink's threads.
    out: usize,
}

impl Lane {
    pub fn new(capacity: Capacity) -> Self {
        let Capacity { name, batch_max, hands } = capacity;
        let (ready, timers) = (VecDeque::new(), BinaryHeap::new());
        Lane { name, batch_max, hands, ready, timers, out: 0 }
    }

    /// Whether a batch may go out, if so many intents beyond the queue could go with it. A free sink
    /// takes what there is; a second batch goes beside the first only when it is full, so that two
    /// hands do not share what one sync would have covered, and what waits can still be superseded.
    pub fn is_open(&self, further: usize) -> bool {
        let is_full = self.ready.len() + further >= self.batch_max;
        self.out == 0 || (self.out < self.hands && is_full)
    }

    /// One of the batches that were out has its answers.
    pub fn is_back(&mut self) {
        self.out -= 1;
    }

    pub fn push(&mut self, seq: Seq) {
        self.ready.push_back(seq);
    }

    pub fn wait(&mut self, seq: Seq, until: Instant) {
        self.timers.push(Reverse((until, seq)));
    }

    /// Moves what is due into the queue, in front: it has waited longest.
    pub fn wake(&mut self, now: Instant) {
        while let Some(Reverse((until, seq))) = self.timers.peek().copied() {
            if until > now {
                break;
            }
            self.timers.pop();
            self.ready.push_front(seq);
        }
    }

    /// Moves one pending delivery into the queue before its time.
    pub fn wake_one(&mut self, seq: Seq) {
        let before = self.timers.len();
        self.timers.retain(|Reverse((_, waiting))| *waiting != seq);
        if self.timers.len() < before {
            self.ready.push_front(seq);
        }
    }

    /// When a timer is worth a look: one that ends while a batch is out waits for its answers.
    pub fn due(&self) -> Option<Instant> {
        let first = self.timers.peek().map(|Reverse((until, _))| *until);
        first.filter(|_| self.out == 0)
    }

    pub fn is_idle(&self) -> bool {
        self.out == 0 && self.ready.is_empty()
    }

    /// Room for what could go out beyond what is ready.
    pub fn room(&self) -> Room {
        Room::new(self.batch_max.saturating_sub(self.ready.len()), GROUP_BYTES_MAX)
    }

    /// Takes the next batch; `bytes_of` tells the size of an intent's document.
    pub fn take(&mut self, bytes_of: impl Fn(Seq) -> usize) -> Vec<Seq> {
        let mut room = Room::new(self.batch_max, GROUP_BYTES_MAX);
        let mut batch = Vec::new();
        while let Some(seq) = self.ready.front().copied() {
            if !room.takes(bytes_of(seq)) {
                break;
            }
            self.ready.pop_front();
            batch.push(seq);
        }
        self.out += usize::from(!batch.is_empty());
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_hand_is_given_full_batches_only_and_a_free_sink_what_there_is() {
        let capacity = |hands| Capacity { name: "package".to_owned(), batch_max: 4, hands };
        let mut lane = Lane::new(capacity(2));
        let take = |lane: &mut Lane, count| {
            (0..count).for_each(|seq| lane.push(Seq(seq)));
            lane.take(|_| 1).len()
        };
        assert!(lane.is_open(0));
        assert_eq!(take(&mut lane, 1), 1);
        assert!(!lane.is_open(3), "what waits may grow, or be superseded");
        assert!(lane.is_open(4));
        assert_eq!(take(&mut lane, 5), 4);
        assert!(!lane.is_open(99), "each hand has a batch");
        lane.is_back();
        assert!(!lane.is_open(2));
        assert!(lane.is_open(3), "one is ready already");
        lane.is_back();
        assert!(lane.is_open(0) && !lane.is_idle());

        let mut lane = Lane::new(capacity(1));
        assert_eq!(take(&mut lane, 9), 4);
        assert!(!lane.is_open(99));
    }
}
