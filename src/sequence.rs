//! Decides which accepted intents are delivered next.
//!
//! Intents of one target go strictly in ledger order, one at a time. Among targets the order is by
//! *rank*: the seq, moved forward by the priority. A rank never changes with time, and only the
//! next few thousand intents can ever get in front of one, so nothing starves. A newer scaling
//! intent takes the place of the older ones of its target that have not started.
//!
//! Invariants: at most one intent of a target is out at a time; none is while the end of one that it
//! superseded is not durable, since a restart would deliver that one after it.
//! Not here: sinks, retries, the ledger; superseded seqs are handed back for it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::batch::Room;
use crate::model::{IntentType, Seq, TargetKey};

/// How many intents accepted earlier one step of priority overtakes: one group.
const OVERTAKES: i64 = crate::limits::GROUP_MAX as i64;

/// An accepted intent that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub seq: Seq,
    pub key: Arc<TargetKey>,
    pub priority: u8,
    pub bytes: usize,
    /// It may have had an effect already (it comes from before a restart), so it is not superseded.
    pub started: bool,
}

/// Intents that wait, and targets that are busy.
#[derive(Debug, Default)]
pub struct Sequence {
    targets: HashMap<Arc<TargetKey>, Target>,
    /// Targets with something to do and nothing out, best rank first.
    ready: BTreeMap<(i64, Seq), Arc<TargetKey>>,
}

#[derive(Debug, Default)]
struct Target {
    queue: VecDeque<(i64, Waiting)>,
    /// The key under which it stands in `ready`.
    ready: Option<(i64, Seq)>,
    out: bool,
    /// Superseded intents whose end is not durable yet.
    ending: usize,
}

impl Sequence {
    /// Adds an intent and returns the seqs that it supersedes: it waits until each of them has
    /// [`ended`](Sequence::ended). Seqs of one target must rise.
    pub fn push(&mut self, waiting: Waiting) -> Vec<Seq> {
        let target = self.targets.entry(Arc::clone(&waiting.key)).or_default();
        let mut rank = waiting.seq.0 as i64 - i64::from(waiting.priority) * OVERTAKES;
        let mut superseded = Vec::new();
        if waiting.key.intent_type == IntentType::Scaling {
            target.queue.retain(|(older_rank, older)| {
                if !older.started {
                    // The place in the line is kept: a target that is updated all the time starves not.
                    rank = rank.min(*older_rank);
                    superseded.push(older.seq);
                }
                older.started
            });
        }
        target.queue.push_back((rank, waiting));
        target.ending += superseded.len();
        target.line_up(&mut self.ready);
        superseded
    }

    /// Takes the intents that go out next, best rank first, one of a target; their targets are busy
    /// until [`Sequence::release`].
    pub fn take(&mut self, mut room: Room) -> Vec<Seq> {
        let mut taken = Vec::new();
        while let Some(first) = self.ready.first_entry() {
            let target = self.targets.get_mut(&**first.get()).expect("a ready target exists");
            let (_, next) = target.queue.front().expect("a ready target has something to do");
            if !room.takes(next.bytes) {
                break;
            }
            taken.push(next.seq);
            target.queue.pop_front();
            target.out = true;
            target.ready = None;
            first.remove();
        }
        taken
    }

    /// Lets the next intent of the target go: the one that was out is finished.
    pub fn release(&mut self, key: &Arc<TargetKey>) {
        let Entry::Occupied(mut entry) = self.targets.entry(Arc::clone(key)) else { return };
        entry.get_mut().out = false;
        if entry.get().queue.is_empty() {
            entry.remove();
        } else {
            entry.get_mut().line_up(&mut self.ready);
        }
    }

    /// Says that the end of one superseded intent of the target is durable.
    pub fn ended(&mut self, key: &TargetKey) {
        let target = self.targets.get_mut(key).expect("what superseded it waits for this");
        target.ending -= 1;
        target.line_up(&mut self.ready);
    }

    /// How many intents could be taken now, if there were room for all.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Whether nothing could be taken now.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }
}

impl Target {
    /// Puts the target where its most urgent intent belongs: one that waits behind another of its
    /// target lends it its rank.
    fn line_up(&mut self, ready: &mut BTreeMap<(i64, Seq), Arc<TargetKey>>) {
        if let Some(old) = self.ready.take() {
            ready.remove(&old);
        }
        let best = self.queue.iter().map(|(rank, _)| *rank).min();
        let held = self.out || self.ending > 0;
        if let (false, Some(rank), Some((_, head))) = (held, best, self.queue.front()) {
            ready.insert((rank, head.seq), Arc::clone(&head.key));
            self.ready = Some((rank, head.seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting(seq: u64, intent_type: IntentType, target: &str, priority: u8) -> Waiting {
        let key = TargetKey { intent_type, namespace: "ns".into(), target: target.into() };
        Waiting { seq: Seq(seq), key: key.into(), priority, bytes: 1, started: false }
    }

    fn scaling(seq: u64, target: &str) -> Waiting {
        waiting(seq, IntentType::Scaling, target, 5)
    }

    const NOTHING: [u64; 0] = [];

    fn seqs(found: &[Seq]) -> Vec<u64> {
        found.iter().map(|seq| seq.0).collect()
    }

    #[test]
    fn one_intent_of_a_target_is_out_at_a_time() {
        let mut sequence = Sequence::default();
        for seq in 1..=3 {
            sequence.push(waiting(seq, IntentType::Deployment, "web", 5));
        }
        assert_eq!(seqs(&sequence.take(Room::default())), [1]);
        assert!(sequence.is_idle(), "the target is busy");
        sequence.release(&scaling(0, "web").key);
        assert!(sequence.is_idle(), "another kind of intent is another target");
        sequence.release(&waiting(0, IntentType::Deployment, "web", 5).key);
        assert_eq!(seqs(&sequence.take(Room::default())), [2]);
    }

    #[test]
    fn a_newer_scaling_intent_supersedes_what_has_not_started() {
        let mut sequence = Sequence::default();
        assert_eq!(seqs(&sequence.push(scaling(1, "web"))), NOTHING);
        assert_eq!(seqs(&sequence.take(Room::default())), [1]);
        assert_eq!(seqs(&sequence.push(scaling(2, "web"))), NOTHING, "1 has started");
        assert_eq!(seqs(&sequence.push(scaling(3, "db"))), NOTHING, "another target");
        assert_eq!(seqs(&sequence.push(scaling(4, "web"))), [2]);
        let resumed = Waiting { started: true, ..scaling(5, "web") };
        assert_eq!(seqs(&sequence.push(resumed)), [4]);
        assert_eq!(seqs(&sequence.push(scaling(6, "web"))), NOTHING, "5 may have had an effect");
        for _ in [2, 4] {
            sequence.ended(&scaling(0, "web").key);
        }
        sequence.release(&scaling(0, "web").key);
        assert_eq!(seqs(&sequence.take(Room::default())), [5, 3], "5 keeps the place of 2");
    }

    #[test]
    fn a_superseding_intent_waits_until_the_ends_of_the_superseded_are_durable() {
        let mut sequence = Sequence::default();
        for seq in 1..=3 {
            sequence.push(scaling(seq, "web"));
        }
        assert!(sequence.is_idle(), "a restart now would deliver 1 and 2");
        sequence.ended(&scaling(0, "web").key);
        assert_eq!(seqs(&sequence.take(Room::default())), NOTHING, "one of two has ended");
        sequence.ended(&scaling(0, "web").key);
        assert_eq!(seqs(&sequence.take(Room::default())), [3]);
    }

    #[test]
    fn other_kinds_of_intent_are_never_superseded() {
        let mut sequence = Sequence::default();
        for seq in 1..=3 {
            let superseded = sequence.push(waiting(seq, IntentType::Configuration, "web", 5));
            assert_eq!(seqs(&superseded), NOTHING);
        }
    }

    #[test]
    fn a_high_priority_overtakes_a_bounded_number_of_earlier_intents() {
        let mut sequence = Sequence::default();
        for seq in 1..=600 {
            sequence.push(scaling(seq, &format!("t{seq}")));
        }
        sequence.push(waiting(601, IntentType::Scaling, "urgent", 6));
        let order = seqs(&sequence.take(Room::new(1000, 1000)));
        let place = order.iter().position(|seq| *seq == 601).unwrap();
        assert_eq!(order[place + 1], 346, "one step of priority overtakes one group");
    }

    #[test]
    fn a_target_that_is_updated_all_the_time_keeps_its_place() {
        let mut sequence = Sequence::default();
        sequence.push(scaling(1, "busy"));
        for seq in 2..=9 {
            sequence.push(scaling(seq, &format!("t{seq}")));
        }
        sequence.push(scaling(10, "busy"));
        sequence.ended(&scaling(1, "busy").key);
        assert_eq!(sequence.take(Room::new(1, 9)), [Seq(10)]);
    }

    proptest! {
        #[test]
        fn every_intent_goes_out_once_or_is_superseded_once_and_targets_keep_their_order(
            script in proptest::collection::vec((0u8..4, 0u8..=10, any::<bool>()), 1..200)
        ) {
            let mut sequence = Sequence::default();
            let mut ends = HashMap::<Seq, &str>::new();
            let mut last = HashMap::<Arc<TargetKey>, Seq>::new();
            let mut keys = HashMap::<Seq, Arc<TargetKey>>::new();
            let mut drain = |sequence: &mut Sequence, keys: &HashMap<Seq, Arc<TargetKey>>, ends: &mut HashMap<Seq, &str>| {
                for seq in sequence.take(Room::new(3, 100)) {
                    assert!(ends.insert(seq, "out").is_none());
                    let key = &keys[&seq];
                    assert!(last.insert(key.clone(), seq).is_none_or(|before| before < seq));
                    sequence.release(key);
                }
            };
            for (index, (target, priority, take)) in script.iter().enumerate() {
                let kind = if target % 2 == 0 { IntentType::Scaling } else { IntentType::Deployment };
                let next = waiting(index as u64 + 1, kind, &target.to_string(), *priority);
                keys.insert(next.seq, next.key.clone());
                let key = next.key.clone();
                for seq in sequence.push(next) {
                    prop_assert!(ends.insert(seq, "superseded").is_none());
                    prop_assert!(sequence.ready.values().all(|ready| *ready != key));
                    sequence.ended(&key);
                }
                if *take {
                    drain(&mut sequence, &keys, &mut ends);
                }
            }
            while !sequence.is_idle() {
                drain(&mut sequence, &keys, &mut ends);
            }
            prop_assert_eq!(ends.len(), script.len());
            prop_assert!(sequence.targets.is_empty());
        }
    }
}
