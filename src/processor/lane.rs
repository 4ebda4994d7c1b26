//! One sink's queue: what is ready for it, what waits for a time, what is out.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::batch::Room;
use crate::breaker::{self, Breaker, Turn};
use crate::limits::GROUP_BYTES_MAX;
use crate::model::{Seq, SeqMap};
use crate::rate::Bucket;
use crate::sink::{Answer, Step};

/// The answers to one batch, in its order.
#[derive(Debug)]
pub struct Answered {
    /// The sink's place in the configuration.
    pub lane: usize,
    pub answers: Vec<(Seq, Answer)>,
    /// What the sink has put into the journal meanwhile, by intent; the newest counts.
    pub steps: SeqMap<Step>,
}

/// What a sink can take.
#[derive(Clone, Debug)]
pub struct Capacity {
    pub name: String,
    /// Most deliveries that it takes at once.
    pub batch_max: usize,
    /// How many batches it works on at a time.
    pub hands: usize,
    /// Most deliveries a second, if there is such a bound.
    pub rate: Option<u32>,
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
    /// The intents in them, and whether a wake has come for one since.
    away: SeqMap<bool>,
    breaker: Breaker,
    /// How many the breaker lets out now.
    admitted: usize,
    /// What the newest answer that counted against the target has said.
    reason: String,
    /// The intent that was the last probe: the next one is another, so that one that fails for a
    /// reason of its own does not keep the breaker open.
    probed: Option<Seq>,
    bucket: Option<Bucket>,
    /// When the bucket holds something again.
    refilled: Option<Instant>,
    /// When the next of those that wait behind the breaker has used up its budget.
    expires: Option<Instant>,
}

impl Lane {
    pub fn new(capacity: Capacity) -> Self {
        let Capacity { name, batch_max, hands, rate } = capacity;
        Lane {
            name,
            batch_max,
            hands,
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            out: 0,
            away: SeqMap::default(),
            breaker: Breaker::default(),
            admitted: usize::MAX,
            reason: String::new(),
            probed: None,
            bucket: rate.map(Bucket::new),
            refilled: None,
            expires: None,
        }
    }

    /// Whether a batch may go out, if so many intents beyond the queue could go with it. A free sink
    /// takes what there is; a second batch goes beside the first only when it is full, so that two
    /// hands do not share what one sync would have covered, and what waits can still be superseded.
    /// A probe goes alone.
    pub fn is_open(&self, further: usize, now: Instant) -> bool {
        if self.most(now) == 0 {
            return false;
        }
        let is_full = self.ready.len() + further >= self.batch_max;
        self.out == 0 || (self.breaker.is_closed() && self.out < self.hands && is_full)
    }

    /// Most intents in the next batch.
    fn most(&self, now: Instant) -> usize {
        let allowed = self.bucket.as_ref().map_or(usize::MAX, |bucket| bucket.holds(now));
        self.batch_max.min(self.admitted).min(allowed)
    }

    /// One of the batches that were out has its answers.
    pub fn is_back(&mut self) {
        self.out -= 1;
    }

    /// Tells the breaker what came back; `unreachable` is what was said if it is about the target.
    pub fn answered(
        &mut self,
        unreachable: Option<&str>,
        policy: &breaker::Policy,
        now: Instant,
    ) -> Option<Turn> {
        if let Some(reason) = unreachable {
            reason.clone_into(&mut self.reason);
        }
        let turn = self.breaker.answered(unreachable.is_some(), policy, now);
        if turn == Some(Turn::Closed) {
            self.probed = None;
        }
        turn
    }

    /// What the target's state was taken from.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// How long the breaker has been open in all.
    pub fn held(&self, now: Instant) -> Duration {
        self.breaker.held(now)
    }

    /// Whether the breaker keeps something back.
    pub fn is_held(&self) -> bool {
        !self.breaker.is_closed()
    }

    pub fn push(&mut self, seq: Seq) {
        self.ready.push_back(seq);
    }

    pub fn wait(&mut self, seq: Seq, until: Instant) {
        self.timers.push(Reverse((until, seq)));
    }

    /// Moves what is due into the queue, in front of all that was accepted later.
    pub fn wake(&mut self, policy: &breaker::Policy, now: Instant) {
        // The answers of what went out before it opened are not a probe's: they are waited for.
        if self.out == 0 || self.breaker.is_closed() {
            self.admitted = self.breaker.admits(policy, now);
        }
        self.refilled = self.bucket.as_ref().and_then(|bucket| bucket.due(now));
        let mut due = Vec::new();
        while let Some(Reverse((until, seq))) = self.timers.peek().copied() {
            if until > now {
                break;
            }
            self.timers.pop();
            due.push(seq);
        }
        if due.is_empty() {
            return;
        }
        due.sort_unstable();
        let mut due = due.into_iter().peekable();
        for seq in std::mem::take(&mut self.ready) {
            while let Some(older) = due.next_if(|older| *older < seq) {
                self.ready.push_back(older);
            }
            self.ready.push_back(seq);
        }
        self.ready.extend(due);
    }

    /// One intent of a batch has its answer; whether a wake has come for it meanwhile.
    pub fn returned(&mut self, seq: Seq) -> bool {
        self.away.remove(&seq).unwrap_or_default()
    }

    /// Moves one pending delivery into the queue before its time. One that is out may have missed
    /// what the wake is about, and is looked at again when it is back.
    pub fn wake_one(&mut self, seq: Seq) {
        if let Some(woken) = self.away.get_mut(&seq) {
            *woken = true;
            return;
        }
        let before = self.timers.len();
        self.timers.retain(|Reverse((_, waiting))| *waiting != seq);
        if self.timers.len() < before {
            self.ready.push_front(seq);
        }
    }

    /// When it is worth a look by itself: a time that ends while a batch is out waits for its answers.
    pub fn due(&self) -> Option<Instant> {
        if self.out > 0 {
            return None;
        }
        let timer = self.timers.peek().map(|Reverse((until, _))| *until);
        let next = self.breaker.due().or(self.refilled).or(timer);
        next.into_iter().chain(self.expires).min()
    }

    /// Whether nothing moves: what is ready can only wait behind the breaker.
    pub fn is_idle(&self) -> bool {
        self.out == 0 && (self.ready.is_empty() || self.admitted == 0)
    }

    /// Whether the breaker lets nothing out.
    pub fn is_shut(&self) -> bool {
        self.out == 0 && self.admitted == 0
    }

    /// Room for what could go out beyond what is ready.
    pub fn room(&self, now: Instant) -> Room {
        Room::new(self.most(now).saturating_sub(self.ready.len()), GROUP_BYTES_MAX)
    }

    /// Takes the next batch; `bytes_of` tells the size of an intent's document.
    pub fn take(&mut self, now: Instant, bytes_of: impl Fn(Seq) -> usize) -> Vec<Seq> {
        let most = self.most(now);
        let mut room = Room::new(most, GROUP_BYTES_MAX);
        let mut batch = Vec::new();
        if self.breaker.is_closed() {
            while let Some(seq) = self.ready.front().copied() {
                if !room.takes(bytes_of(seq)) {
                    break;
                }
                self.ready.pop_front();
                batch.push(seq);
            }
        } else if most > 0 {
            batch.extend(self.take_probe());
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.take(batch.len(), now);
        }
        self.out += usize::from(!batch.is_empty());
        self.away.extend(batch.iter().map(|seq| (*seq, false)));
        batch
    }

    /// The oldest that came after the last probe, or else the oldest; the others keep their places.
    fn take_probe(&mut self) -> Option<Seq> {
        let probed = self.probed;
        let later = self.ready.iter().copied().filter(|seq| Some(*seq) > probed).min();
        let probe = later.or_else(|| self.ready.iter().copied().min())?;
        self.ready.retain(|seq| *seq != probe);
        self.probed = Some(probe);
        Some(probe)
    }

    /// Takes out what waits and has no time left; `left` tells how much an intent has.
    pub fn expire(&mut self, now: Instant, left: impl Fn(Seq) -> Duration) -> Vec<Seq> {
        let waiting = self.timers.iter().map(|Reverse((_, seq))| *seq);
        let waiting: Vec<Seq> = self.ready.iter().copied().chain(waiting).collect();
        let (mut expired, mut next) = (Vec::new(), None::<Duration>);
        for seq in waiting {
            match left(seq) {
                left if left.is_zero() => expired.push(seq),
                left => next = Some(next.map_or(left, |next| next.min(left))),
            }
        }
        self.expires = next.map(|left| now + left);
        if !expired.is_empty() {
            let gone: HashSet<Seq> = expired.iter().copied().collect();
            self.ready.retain(|seq| !gone.contains(seq));
            self.timers.retain(|Reverse((_, seq))| !gone.contains(seq));
        }
        expired.sort_unstable();
        expired
    }

    /// Nothing that waits is running out of time.
    pub fn keep(&mut self) {
        self.expires = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_hand_is_given_full_batches_only_and_a_free_sink_what_there_is() {
        let capacity =
            |hands| Capacity { name: "package".to_owned(), batch_max: 4, hands, rate: None };
        let now = Instant::now();
        let mut lane = Lane::new(capacity(2));
        let take = |lane: &mut Lane, count| {
            (0..count).for_each(|seq| lane.push(Seq(seq)));
            lane.take(now, |_| 1).len()
        };
        assert!(lane.is_open(0, now));
        assert_eq!(take(&mut lane, 1), 1);
        assert!(!lane.is_open(3, now), "what waits may grow, or be superseded");
        assert!(lane.is_open(4, now));
        assert_eq!(take(&mut lane, 5), 4);
        assert!(!lane.is_open(99, now), "each hand has a batch");
        lane.is_back();
        assert!(!lane.is_open(2, now));
        assert!(lane.is_open(3, now), "one is ready already");
        lane.is_back();
        assert!(lane.is_open(0, now) && !lane.is_idle());

        let mut lane = Lane::new(capacity(1));
        assert_eq!(take(&mut lane, 9), 4);
        assert!(!lane.is_open(99, now));
    }
}
