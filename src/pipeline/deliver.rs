//! A sink's own threads: it may be slow, and holds up nobody but its own queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ledger::Progress;
use crate::limits::{DELIVERY_MAX, WAKES_MAX};
use crate::model::Seq;
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::{Error, Lead, ToLedger};
use crate::processor::{Answered, Job};
use crate::sink::{Context, Delivery, Fatal, Journal, Sink, Step, Waker};

/// What a sink's thread tells the desk.
#[derive(Debug)]
pub enum Message {
    Answered(Answered),
    /// A pending delivery is worth a look now.
    Wake {
        lane: usize,
        seq: Seq,
    },
}

/// Answers are at most one a sink; the rest is for wakes, which are hints: a full channel drops
/// them and the delivery is looked at when its time comes.
pub fn channel() -> (Sender<Message>, Receiver<Message>) {
    bounded(WAKES_MAX)
}

/// One batch for each hand.
pub fn batches(hands: usize) -> (Sender<Vec<Job>>, Receiver<Vec<Job>>) {
    bounded(hands)
}

#[derive(Debug)]
pub struct Stage {
    /// The sink's place in the configuration.
    pub lane: usize,
    pub sink: Box<dyn Sink>,
    pub lead: Arc<Lead>,
    pub answers: Sender<Message>,
    pub to_ledger: Sender<ToLedger>,
}

impl Stage {
    /// Delivers batch after batch until the desk hangs up.
    pub fn run(mut self, batches: &Receiver<Vec<Job>>, beat: &Beat) -> Result<(), Error> {
        let (lane, wakes) = (self.lane, self.answers.clone());
        let waker: Waker = Arc::new(move |seq| {
            let _ = wakes.try_send(Message::Wake { lane, seq });
        });
        while let Ok(jobs) = beat.idle(|| batches.recv()) {
            // A sink may take long and has a deadline of its own: the watchdog is not to judge it.
            let answers = beat.idle(|| self.deliver(&jobs, &waker))?;
            let answers = jobs.iter().map(|job| job.seq).zip(answers).collect();
            let answered = Answered { lane, answers };
            let _ = self.answers.send(Message::Answered(answered));
        }
        Ok(())
    }

    fn deliver(&mut self, jobs: &[Job], waker: &Waker) -> Result<Vec<crate::sink::Answer>, Error> {
        let name = self.sink.name().to_owned();
        let steps: Vec<_> = jobs.iter().map(|job| job.step.clone().map(Step)).collect();
        let keys = jobs.iter().map(|job| &job.package.key);
        let last = self.lead.read(|reader| reader.last_digests(&name, keys));
        let last = last.map_err(Error::Ledger)?;
        let all = jobs.iter().zip(&steps).zip(last).map(|((job, step), last)| Delivery {
            seq: job.seq,
            intent: &job.intent,
            document: &job.document,
            file: &job.file,
            package: &job.package,
            step: step.as_ref(),
            last,
        });
        let batch: Vec<Delivery<'_>> = all.collect();
        let journal = LedgerJournal {
            sink: &name,
            jobs: jobs.iter().map(|job| (job.seq, job)).collect(),
            to_ledger: &self.to_ledger,
        };
        let deadline = Instant::now() + DELIVERY_MAX;
        let context = Context { fence: &*self.lead, journal: &journal, waker, deadline };
        self.sink
            .deliver(&batch, &context)
            .map_err(|source| Error::Sink { sink: name.clone(), source })
    }
}

/// Keeps steps in the ledger, through the thread that owns it.
struct LedgerJournal<'a> {
    sink: &'a str,
    jobs: HashMap<Seq, &'a Job>,
    to_ledger: &'a Sender<ToLedger>,
}

impl Journal for LedgerJournal<'_> {
    fn record(&self, seq: Seq, step: &Step) -> Result<(), Fatal> {
        let job = self.jobs.get(&seq);
        let progress = Progress {
            seq,
            sink: self.sink.to_owned(),
            attempts: job.map_or(0, |job| job.attempts),
            spent_ms: job.map_or(0, |job| job.spent_ms),
            step: Some(step.0.clone()),
            receipt: None,
        };
        let (durable, waits) = bounded(1);
        let lost =
            |source: Box<dyn std::error::Error + Send + Sync>| Fatal::Journal { seq, source };
        self.to_ledger
            .send(ToLedger::Step(progress, durable))
            .map_err(|_| lost("the ledger's thread has ended".into()))?;
        waits.recv().map_err(|error| lost(error.into()))
    }
}
