//! Decides what happens to accepted intents: who goes out, what answers mean, who has ended.
//!
//! Invariants: one intent of a target is out at a time, at all sinks together; an intent that was
//! handed to any sink is never superseded; an intent ends once, when every sink has a final answer;
//! its target stays busy until that end is committed, also when it was superseded.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Room;
use crate::breaker::{self, Turn};
use crate::compose::{self, Package, compose};
use crate::ledger::{Finished, Progress};
use crate::model::{Code, Digest, Outcome, Receipt, Rejection, Seq, SeqMap, TargetKey, Timestamp};
use crate::processor::item::{Item, Job};
use crate::processor::lane::{Answered, Capacity, Lane};
use crate::retry;
use crate::sequence::{Sequence, Waiting};
use crate::sink::{Answer, Confirmation, Fault, Retry, Step};

/// In the receipt of a sink that gave up: it had announced a write, whose effect nobody has confirmed.
const MAY_HAVE_WRITTEN: &str = "may_have_written";

/// What the site's configuration says about delivering; swapped as a whole on a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    pub compose: compose::Settings,
    pub retry: retry::Policy,
    pub breaker: breaker::Policy,
    /// Whether time behind an open breaker counts towards an intent's budget: where the command has
    /// to end, it does.
    pub outages_count: bool,
}

/// A sink whose breaker has turned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    pub sink: String,
    pub turn: Turn,
    /// What the sink has said of its target.
    pub reason: String,
}

/// An intent that has ended and is to be committed as such.
#[derive(Debug)]
pub struct Ended {
    pub item: Item,
    /// All but the archived name, which depends on what lies in the archive.
    pub finished: Finished,
    pub reached: Vec<(Arc<str>, Arc<TargetKey>, Digest)>,
}

/// The state of everything between acceptance and end.
#[derive(Debug)]
pub struct Desk {
    sequence: Sequence,
    waiting: SeqMap<Item>,
    flights: SeqMap<Flight>,
    lanes: Vec<Lane>,
    ended: Vec<End>,
    progress: Vec<Progress>,
    turned: Vec<Turned>,
    /// Ended and handed out, not yet committed: the target waits for it.
    ending: SeqMap<Ending>,
}

#[derive(Debug)]
struct Flight {
    item: Item,
    package: Arc<Package>,
    states: Vec<State>,
}

/// Where one sink is with one intent.
#[derive(Debug)]
enum State {
    /// Not final: queued, out, waiting for a retry, or pending at `step`.
    Underway {
        attempts: u32,
        clock: Clock,
        step: Option<String>,
        /// Its last answer was that it goes on waiting.
        is_pending: bool,
    },
    /// Confirmed, or given up if the receipt carries a code.
    Final(Receipt),
}

/// How much of its budget an intent has spent at a sink.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Before it was taken up by this process.
    spent: Duration,
    since: Instant,
    /// How long the sink's breaker had been open in all by then.
    held: Duration,
}

impl Clock {
    fn start(lane: &Lane, spent: Duration, now: Instant) -> Self {
        Clock { spent, since: now, held: lane.held(now) }
    }

    /// What counts, without the time behind the breaker unless `outages_count`.
    fn spent(&self, lane: &Lane, outages_count: bool, now: Instant) -> Duration {
        let held = lane.held(now).saturating_sub(self.held);
        let passed = now.duration_since(self.since);
        let counted = if outages_count { passed } else { passed.saturating_sub(held) };
        self.spent + counted
    }
}

/// How an intent whose end is not durable yet keeps its target waiting.
#[derive(Debug)]
enum Ending {
    /// It was out.
    Out(Arc<TargetKey>),
    /// It never was: the one that superseded it waits.
    Superseded(Arc<TargetKey>),
}

#[derive(Debug)]
struct End {
    item: Item,
    package: Option<Arc<Package>>,
    outcome: Outcome,
    code: Code,
    message: String,
    superseded_by: Option<Seq>,
    receipts: Vec<Receipt>,
}

impl Desk {
    /// A desk for these sinks.
    pub fn new(sinks: impl IntoIterator<Item = Capacity>) -> Self {
        Desk {
            sequence: Sequence::default(),
            waiting: SeqMap::default(),
            flights: SeqMap::default(),
            lanes: sinks.into_iter().map(Lane::new).collect(),
            ended: Vec::new(),
            progress: Vec::new(),
            turned: Vec::new(),
            ending: SeqMap::default(),
        }
    }

    /// Takes in an accepted intent. Seqs of one target must rise: a retried intent is older than what has
    /// come since on other targets, and is refused where its own has something newer.
    pub fn admit(&mut self, item: Item) {
        let seq = item.record.seq;
        let superseded = self.sequence.push(Waiting {
            seq,
            key: Arc::clone(&item.key),
            priority: item.intent.priority(),
            bytes: item.document.len(),
            started: item.resumed,
        });
        self.waiting.insert(seq, item);
        for older in superseded {
            let item = self.waiting.remove(&older).expect("what waits is at the desk");
            self.ending.insert(older, Ending::Superseded(Arc::clone(&item.key)));
            self.ended.push(End {
                item,
                package: None,
                outcome: Outcome::Superseded,
                code: Code::Superseded,
                message: format!("intent {seq} for the same target came before this one started"),
                superseded_by: Some(seq),
                receipts: Vec::new(),
            });
        }
    }

    /// The next batch for a sink that has a hand free; empty when there is nothing for it now.
    pub fn next_batch(&mut self, lane: usize, settings: &Settings, now: Instant) -> Vec<Job> {
        self.lanes[lane].wake(&settings.breaker, now);
        self.expire(lane, settings, now);
        if !self.lanes[lane].is_open(self.sequence.ready(), now) {
            return Vec::new();
        }
        for seq in self.sequence.take(self.lanes[lane].room(now)) {
            self.start(seq, settings, now);
        }
        let flights = &self.flights;
        let batch = self.lanes[lane].take(now, |seq| flights[&seq].item.document.len());
        batch.into_iter().map(|seq| self.job(lane, seq, settings, now)).collect()
    }

    /// Takes in what a sink has answered; `random` gives the jitter of the next delay.
    pub fn answered(
        &mut self,
        answered: Answered,
        settings: &Settings,
        now: Instant,
        mut random: impl FnMut() -> u64,
    ) {
        let lane = answered.lane;
        self.lanes[lane].is_back();
        for (seq, step) in answered.steps {
            self.journalled(lane, seq, step);
        }
        for (seq, mut answer) in answered.answers {
            let woken = self.lanes[lane].returned(seq);
            if let Answer::Pending { again, .. } = &mut answer
                && woken
            {
                *again = Duration::ZERO;
            }
            self.count(lane, seq, &answer, settings, now);
            self.settle(lane, seq, answer, settings, now, random());
            self.end_if_final(seq);
        }
    }

    /// A sink says that a pending delivery is worth a look now.
    pub fn wake(&mut self, lane: usize, seq: Seq) {
        self.lanes[lane].wake_one(seq);
    }

    /// What has ended since the last call, to be committed.
    pub fn take_ended(&mut self, finished_at: Timestamp) -> Vec<Ended> {
        if self.ended.is_empty() {
            return Vec::new();
        }
        let names: Vec<Arc<str>> =
            self.lanes.iter().map(|lane| lane.name.as_str().into()).collect();
        let complete = |end: End| {
            let reached = match &end.package {
                Some(package) => {
                    let confirmed = names.iter().zip(&end.receipts);
                    let at = |name| (Arc::clone(name), Arc::clone(&end.item.key), package.digest);
                    confirmed
                        .filter(|(_, receipt)| receipt.code.is_none())
                        .map(|(name, _)| at(name))
                        .collect()
                }
                None => Vec::new(),
            };
            let finished = Finished {
                outcome: end.outcome,
                code: end.code,
                message: end.message,
                superseded_by: end.superseded_by,
                finished_at,
                archived_as: None,
                violations: Vec::new(),
                receipts: end.receipts,
            };
            Ended { item: end.item, finished, reached }
        };
        std::mem::take(&mut self.ended).into_iter().map(complete).collect()
    }

    /// What has to be kept of deliveries that are under way, since the last call.
    pub fn take_progress(&mut self) -> Vec<Progress> {
        std::mem::take(&mut self.progress)
    }

    /// Sinks whose breaker has turned since the last call.
    pub fn take_turned(&mut self) -> Vec<Turned> {
        std::mem::take(&mut self.turned)
    }

    /// The ends of these intents are durable: their targets are free.
    pub fn committed(&mut self, seqs: &[Seq]) {
        for seq in seqs {
            match self.ending.remove(seq) {
                Some(Ending::Out(key)) => self.sequence.release(&key),
                Some(Ending::Superseded(key)) => self.sequence.ended(&key),
                None => {}
            }
        }
    }

    /// When a retry, a pending delivery, a probe or a slower sink is due next.
    pub fn due(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::due).min()
    }

    /// Whether nothing is left at all.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty() && self.ending.is_empty()
    }

    /// Whether nothing moves: all that is left waits for a later time, for a target that cannot be
    /// reached, or for such an intent.
    pub fn is_resting(&self) -> bool {
        let nothing_starts = self.sequence.is_idle() || self.lanes.iter().all(Lane::is_shut);
        self.ending.is_empty() && nothing_starts && self.lanes.iter().all(Lane::is_idle)
    }

    /// How many intents have not ended.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.flights.len()
    }

    fn start(&mut self, seq: Seq, settings: &Settings, now: Instant) {
        let item = self.waiting.remove(&seq).expect("what the sequence holds is at the desk");
        match compose(&item.intent, &settings.compose) {
            Ok(package) => {
                let states = self.lanes.iter().map(|lane| resume(lane, &item, now)).collect();
                let flight = Flight { item, package: Arc::new(package), states };
                for (lane, state) in self.lanes.iter_mut().zip(&flight.states) {
                    if matches!(state, State::Underway { .. }) {
                        lane.push(seq);
                    }
                }
                self.flights.insert(seq, flight);
                self.end_if_final(seq);
            }
            Err(Rejection { code, message, .. }) => {
                self.ending.insert(seq, Ending::Out(Arc::clone(&item.key)));
                self.ended.push(End {
                    item,
                    package: None,
                    outcome: Outcome::Parked,
                    code,
                    message,
                    superseded_by: None,
                    receipts: Vec::new(),
                });
            }
        }
    }

    fn job(&self, lane: usize, seq: Seq, settings: &Settings, now: Instant) -> Job {
        let flight = &self.flights[&seq];
        let (step, attempts, spent) = match &flight.states[lane] {
            State::Underway { attempts, clock, step, .. } => {
                let spent = clock.spent(&self.lanes[lane], settings.outages_count, now);
                (step.clone(), *attempts, spent)
            }
            State::Final(receipt) => (None, receipt.attempts, Duration::ZERO),
        };
        Job {
            seq,
            intent: Arc::clone(&flight.item.intent),
            document: Arc::clone(&flight.item.document),
            file: flight.item.record.file.safe(),
            package: Arc::clone(&flight.package),
            step,
            attempts,
            spent_ms: spent.as_millis() as u64,
        }
    }

    /// Takes over a step that the ledger was given before, so that no older one is written over it.
    fn journalled(&mut self, lane: usize, seq: Seq, newest: Step) {
        let Some(flight) = self.flights.get_mut(&seq) else { return };
        if let State::Underway { step, .. } = &mut flight.states[lane] {
            *step = Some(newest.0);
        }
    }

    /// Tells the lane's breaker of an answer. What goes on waiting may not have asked its target at
    /// all, and says nothing.
    fn count(&mut self, lane: usize, seq: Seq, answer: &Answer, settings: &Settings, now: Instant) {
        let was_pending = self.flights.get(&seq).is_some_and(|flight| {
            matches!(flight.states[lane], State::Underway { is_pending: true, .. })
        });
        let unreachable = match answer {
            Answer::Pending { .. } if was_pending => return,
            Answer::Failed(fault) if fault.code == Code::SinkUnavailable => Some(&*fault.message),
            _ => None,
        };
        let lane = &mut self.lanes[lane];
        if let Some(turn) = lane.answered(unreachable, &settings.breaker, now) {
            let reason = lane.reason().to_owned();
            self.turned.push(Turned { sink: lane.name.clone(), turn, reason });
        }
    }

    /// Where time behind a breaker counts, gives up what has none left. Everything that has come is
    /// then on the clock, tried or not, so that the end does not take a budget for each batch.
    fn expire(&mut self, lane: usize, settings: &Settings, now: Instant) {
        if !settings.outages_count || !self.lanes[lane].is_held() {
            self.lanes[lane].keep();
            return;
        }
        for seq in self.sequence.take(Room::new(usize::MAX, usize::MAX)) {
            self.start(seq, settings, now);
        }
        let (at, flights) = (&self.lanes[lane], &self.flights);
        let left: SeqMap<Duration> = flights
            .iter()
            .filter_map(|(seq, flight)| match &flight.states[lane] {
                State::Underway { clock, .. } => {
                    Some((*seq, settings.retry.budget.saturating_sub(clock.spent(at, true, now))))
                }
                State::Final(_) => None,
            })
            .collect();
        let expired = self.lanes[lane].expire(now, |seq| left[&seq]);
        for seq in expired {
            let fault = Fault {
                code: Code::SinkUnavailable,
                message: self.lanes[lane].reason().to_owned(),
                retry: Retry::Never,
            };
            self.give_up(lane, seq, fault, now);
            self.end_if_final(seq);
        }
    }

    /// Ends what a sink has to do with an intent that is not with it now.
    fn give_up(&mut self, lane: usize, seq: Seq, fault: Fault, now: Instant) {
        let sink = self.lanes[lane].name.clone();
        let Some(flight) = self.flights.get_mut(&seq) else { return };
        let several = flight.states.len() > 1;
        let State::Underway { attempts, clock, step, .. } = &flight.states[lane] else {
            return;
        };
        let spent = clock.spent(&self.lanes[lane], true, now);
        let receipt = given_up(sink.clone(), *attempts, fault, step.is_some());
        if several {
            self.progress.push(Progress {
                seq,
                sink,
                attempts: *attempts,
                spent_ms: spent.as_millis() as u64,
                step: step.clone(),
                receipt: Some(receipt.clone()),
            });
        }
        flight.states[lane] = State::Final(receipt);
    }

    /// Moves one sink's state of one intent on by an answer.
    fn settle(
        &mut self,
        lane: usize,
        seq: Seq,
        answer: Answer,
        settings: &Settings,
        now: Instant,
        random: u64,
    ) {
        let sink = &self.lanes[lane].name;
        let Some(flight) = self.flights.get_mut(&seq) else { return };
        let several = flight.states.len() > 1;
        let State::Underway { attempts, clock, step, is_pending } = &mut flight.states[lane] else {
            return;
        };
        *is_pending = matches!(answer, Answer::Pending { .. });
        let elapsed = clock.spent(&self.lanes[lane], settings.outages_count, now);
        let kept = |attempts: u32, step: &Option<String>, receipt: Option<&Receipt>| Progress {
            seq,
            sink: sink.clone(),
            attempts,
            spent_ms: elapsed.as_millis() as u64,
            step: step.clone(),
            receipt: receipt.cloned(),
        };
        match answer {
            Answer::Pending { step: reached, again } => {
                *step = Some(reached.0);
                self.progress.push(kept(*attempts, step, None));
                self.lanes[lane].wait(seq, now + again);
            }
            Answer::Done(mut confirmation) => {
                confirmation.unchanged &= !has_begun(&flight.item, sink);
                let receipt = confirmed(sink.clone(), *attempts + 1, confirmation);
                if several {
                    // The others may take long: a restart must not deliver here again.
                    self.progress.push(kept(*attempts, step, Some(&receipt)));
                }
                flight.states[lane] = State::Final(receipt);
            }
            Answer::Failed(fault) => {
                *attempts += 1;
                match next_try(&fault, &settings.retry, *attempts, elapsed, random) {
                    Some(delay) => {
                        self.progress.push(kept(*attempts, step, None));
                        self.lanes[lane].wait(seq, now + delay);
                    }
                    None => {
                        let receipt = given_up(sink.clone(), *attempts, fault, step.is_some());
                        if several {
                            self.progress.push(kept(*attempts, step, Some(&receipt)));
                        }
                        flight.states[lane] = State::Final(receipt);
                    }
                }
            }
        }
    }

    fn end_if_final(&mut self, seq: Seq) {
        let is_final =
            |flight: &Flight| flight.states.iter().all(|state| matches!(state, State::Final(_)));
        if !self.flights.get(&seq).is_some_and(is_final) {
            return;
        }
        let Flight { item, package, states } =
            self.flights.remove(&seq).expect("it was looked up just now");
        let receipts: Vec<Receipt> = states
            .into_iter()
            .filter_map(|state| match state {
                State::Final(receipt) => Some(receipt),
                State::Underway { .. } => None,
            })
            .collect();
        // Nothing of a delivery that has ended is worth keeping: the end says it all.
        self.progress.retain(|progress| progress.seq != seq);
        let (outcome, code, message) = sum_up(&receipts);
        self.ending.insert(seq, Ending::Out(Arc::clone(&item.key)));
        self.ended.push(End {
            item,
            package: Some(package),
            outcome,
            code,
            message,
            superseded_by: None,
            receipts,
        });
    }
}

/// A sink's state of an intent as the ledger has it.
fn resume(lane: &Lane, item: &Item, now: Instant) -> State {
    let Some(kept) = item.progress.iter().find(|progress| progress.sink == lane.name) else {
        let clock = Clock::start(lane, Duration::ZERO, now);
        return State::Underway { attempts: 0, clock, step: None, is_pending: false };
    };
    match &kept.receipt {
        Some(receipt) => State::Final(receipt.clone()),
        None => State::Underway {
            attempts: kept.attempts,
            clock: Clock::start(lane, Duration::from_millis(kept.spent_ms), now),
            step: kept.step.clone(),
            is_pending: false,
        },
    }
}

fn next_try(
    fault: &Fault,
    policy: &retry::Policy,
    attempts: u32,
    spent: Duration,
    random: u64,
) -> Option<Duration> {
    match fault.retry {
        Retry::Never => None,
        Retry::Later => policy.delay(attempts, spent, random),
        Retry::After(least) => {
            let left = policy.budget.saturating_sub(spent);
            Some(policy.delay(attempts, spent, random)?.max(least.min(left)))
        }
    }
}

fn confirmed(sink: String, attempts: u32, confirmation: Confirmation) -> Receipt {
    Receipt {
        sink,
        location: Some(confirmation.location),
        unchanged: confirmation.unchanged,
        attempts,
        code: None,
        message: None,
        further: confirmation.further,
    }
}

/// Whether a try that was parked, before somebody asked for another one, may have had its effect.
fn has_begun(item: &Item, sink: &str) -> bool {
    let mut receipts = item.record.earlier.iter().flat_map(|earlier| &earlier.receipts);
    receipts.any(|receipt| receipt.sink == sink && receipt.further.contains_key(MAY_HAVE_WRITTEN))
}

fn given_up(sink: String, attempts: u32, fault: Fault, has_begun: bool) -> Receipt {
    let begun = has_begun.then(|| (MAY_HAVE_WRITTEN.to_owned(), true.into()));
    Receipt {
        sink,
        location: None,
        unchanged: false,
        attempts,
        code: Some(fault.code),
        message: Some(fault.message),
        further: begun.into_iter().collect(),
    }
}

/// The outcome of an intent from its sinks' receipts.
fn sum_up(receipts: &[Receipt]) -> (Outcome, Code, String) {
    if let Some(code) = receipts.iter().find_map(|receipt| receipt.code) {
        let parked = receipts.iter().filter(|receipt| receipt.code.is_some());
        return (Outcome::Parked, code, said("", parked));
    }
    if receipts.iter().all(|receipt| receipt.unchanged) {
        (Outcome::Unchanged, Code::Unchanged, said("already as wanted at ", receipts.iter()))
    } else {
        (Outcome::Delivered, Code::Delivered, said("delivered to ", receipts.iter()))
    }
}

/// What each sink said, after `before`.
fn said<'a>(before: &str, receipts: impl Iterator<Item = &'a Receipt>) -> String {
    let mut text = String::with_capacity(128);
    text.push_str(before);
    for (index, receipt) in receipts.enumerate() {
        let what = receipt.message.as_deref().or(receipt.location.as_deref()).unwrap_or_default();
        let between = if index == 0 { "" } else { "; " };
        [between, &receipt.sink, ": ", what].iter().for_each(|part| text.push_str(part));
    }
    text
}
