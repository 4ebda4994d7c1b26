//! One sink's queue: what is ready for it, what waits for a time, what is out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use crate::batch::Room;
use crate::limits::GROUP_BYTES_MAX;
use crate::model::Seq;
use crate::sink::Answer;

/// The answers to one batch, in its order.
#[derive(Debug)]
pub struct Answered {
    /// The sink's place in the configuration.
    pub lane: usize,
    pub answers: Vec<(Seq, Answer)>,
}

#[derive(Debug)]
pub struct Lane {
    pub name: String,
    /// Most deliveries that the sink takes at once.
    batch_max: usize,
    ready: VecDeque<Seq>,
    /// Retries and pending deliveries, by the time at which they are looked at again.
    timers: BinaryHeap<Reverse<(Instant, Seq)>>,
    /// A batch is with the sink's thread.
    pub out: bool,
}

impl Lane {
    pub fn new(name: String, batch_max: usize) -> Self {
        Lane { name, batch_max, ready: VecDeque::new(), timers: BinaryHeap::new(), out: false }
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

    pub fn due(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((until, _))| *until)
    }

    pub fn is_idle(&self) -> bool {
        !self.out && self.ready.is_empty()
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
        self.out = !batch.is_empty();
        batch
    }
}
