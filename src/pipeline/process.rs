//! The thread of the desk: carries answers and acceptances to it, and its decisions to the others.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use tracing::{debug, info, warn};

use crate::breaker::Turn;
use crate::ledger::{ArchivePlan, Finish, Finished, OpenIntent};
use crate::limits::IN_FLIGHT_MAX;
use crate::model::{Record, Seq};
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::{Error, Live, ToLedger, deliver, now, shelve};
use crate::processor::{
    Capacity, Desk, Ended, Item, Job, Names, Token, Turned, Window, archive, recovery,
};
use crate::spool::Spool;

/// What `record` tells us.
#[derive(Debug)]
pub enum Message {
    Accepted(Vec<Item>),
    /// The ends of these are durable.
    Committed(Vec<Seq>),
    /// Nothing new will be accepted.
    NoMore,
}

/// An end on its way into the ledger and then to the shelf.
#[derive(Debug)]
pub struct Ending {
    finish: Option<Finish>,
    record: Box<Record>,
    claim: Option<Vec<u8>>,
    token: Token,
}

impl Ending {
    pub fn take_finish(&mut self) -> Finish {
        self.finish.take().expect("an ending is committed once")
    }

    /// What is left to do once the end is committed.
    pub fn request(self, finished: Finished) -> archive::Request {
        archive::request(self.record, self.claim, finished, self.token)
    }
}

/// Holds two messages for each intent in flight (accepted, committed), so `record` never waits.
pub fn channel() -> (Sender<Message>, Receiver<Message>) {
    bounded(2 * IN_FLIGHT_MAX + 1)
}

#[derive(Debug)]
pub struct Stage {
    pub sinks: Vec<Capacity>,
    pub deliverers: Vec<Sender<Vec<Job>>>,
    pub spool: Arc<Spool>,
    pub names: Arc<Names>,
    pub live: Arc<Live>,
    pub to_ledger: Sender<ToLedger>,
}

impl Stage {
    /// Delivers again what was left, then what comes, until nothing more can come and nothing moves.
    /// Retries that are not due yet then stay in the ledger for the next start.
    pub fn run(
        self,
        left: Vec<OpenIntent>,
        window: &Window,
        inbox: &Receiver<Message>,
        answers: &Receiver<deliver::Message>,
        stopped: &Receiver<()>,
        beat: &Beat,
    ) -> Result<(), Error> {
        let mut desk = Desk::new(self.sinks.clone());
        for open in left {
            if let Some(item) = recovery::resumed(open, window).map_err(Error::Ledger)? {
                desk.admit(item);
            }
        }
        let mut random = Random::default();
        let mut open = true;
        let mut stopping = false;
        let mut lost = false;
        loop {
            // Before a sink is called again, which may write a newer step: the ledger takes them in order.
            self.keep_progress(&mut desk);
            self.dispatch(&mut desk);
            self.finish(&mut desk);
            desk.take_turned().iter().for_each(say);
            // After a stop, what waits for a later time is left to the next start; a batch run, which
            // ends by itself, waits for it.
            if !open && (desk.is_empty() || (stopping && desk.is_resting())) {
                break;
            }
            let due = desk.due().map_or_else(never, crossbeam_channel::at);
            let stop_now = if stopping { never() } else { stopped.clone() };
            beat.idle(|| {
                select! {
                    recv(inbox) -> message => match message {
                        Ok(message) => open &= take_in(&mut desk, message),
                        // It has ended early, and with it the process: nothing can be finished.
                        Err(_) => lost = true,
                    },
                    recv(answers) -> answer => match answer {
                        Ok(deliver::Message::Answered(answered)) => {
                            let settings = self.live.settings();
                            desk.answered(answered, &settings, Instant::now(), || random.next());
                        }
                        Ok(deliver::Message::Wake { lane, seq }) => desk.wake(lane, seq),
                        Err(_) => lost = true,
                    },
                    recv(stop_now) -> _ => stopping = true,
                    recv(due) -> _ => {}
                }
            });
            if lost {
                break;
            }
            // Take what else is there before deciding: batches grow under load.
            for message in inbox.try_iter() {
                open &= take_in(&mut desk, message);
            }
        }
        if !desk.is_empty() {
            debug!(intents = desk.len(), "left to the next start");
        }
        drop(self.deliverers);
        let _ = self.to_ledger.send(ToLedger::NoMoreFinishes);
        Ok(())
    }

    fn dispatch(&self, desk: &mut Desk) {
        let settings = self.live.settings();
        for (lane, to_sink) in self.deliverers.iter().enumerate() {
            loop {
                let batch = desk.next_batch(lane, &settings, Instant::now());
                if batch.is_empty() {
                    break;
                }
                // Never waits: no more batches are out than the sink has hands.
                let _ = to_sink.send(batch);
            }
        }
    }

    fn keep_progress(&self, desk: &mut Desk) {
        let progress = desk.take_progress();
        if !progress.is_empty() {
            let _ = self.to_ledger.send(ToLedger::Progress(progress));
        }
    }

    fn finish(&self, desk: &mut Desk) {
        let ended = desk.take_ended(now());
        if !ended.is_empty() {
            let endings = ended.into_iter().map(|ended| self.ending(ended)).collect();
            let _ = self.to_ledger.send(ToLedger::Finish(endings));
        }
    }

    fn ending(&self, ended: Ended) -> Ending {
        let Ended { item, mut finished, reached } = ended;
        let Item { record, claim, token, .. } = item;
        if claim.is_some() {
            let shelf = archive::shelf(finished.outcome);
            let plan: ArchivePlan = shelve::plan(&self.names, &self.spool, shelf, &record.file);
            finished.archived_as = Some(plan.name(record.seq));
        }
        let finish = Finish { seq: record.seq, finished, reached };
        Ending { finish: Some(finish), record, claim, token }
    }
}

/// Says once that a sink's breaker has turned; further pauses are for those who look closely.
fn say(turned: &Turned) {
    let Turned { sink, turn, reason } = turned;
    match turn {
        Turn::Opened => warn!(
            sink,
            reason,
            "the sink's target cannot be reached; its intents wait, and are tried now and then"
        ),
        Turn::Reopened { pause } => {
            debug!(sink, reason, pause_seconds = pause.as_secs_f64(), "still not reached");
        }
        Turn::Closed => info!(sink, "the sink's target can be reached again"),
    }
}

/// Takes in a message; `false` when nothing more will be accepted.
fn take_in(desk: &mut Desk, message: Message) -> bool {
    match message {
        Message::Accepted(items) => items.into_iter().for_each(|item| desk.admit(item)),
        Message::Committed(seqs) => desk.committed(&seqs),
        Message::NoMore => return false,
    }
    true
}

/// Jitter for retries: spread is all that is asked of it. xorshift64, seeded by the hasher's keys.
struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Random(RandomState::new().build_hasher().finish() | 1)
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
