//! A sink's own threads: it may be slow, and holds up nobody but its own queue.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::oneshot;

use crate::ledger::Progress;
use crate::limits::{DELIVERY_MAX, WAKES_MAX};
use crate::model::Seq;
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::{Error, Lead, ToLedger};
use crate::processor::{Answered, Job};
use crate::sink::{Context, Delivery, Fatal, Journal, Keeping, Sink, Step, Waker};

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
            let answered = beat.idle(|| self.deliver(&jobs, &waker))?;
            let _ = self.answers.send(Message::Answered(answered));
        }
        Ok(())
    }

    fn deliver(&mut self, jobs: &[Job], waker: &Waker) -> Result<Answered, Error> {
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
            begun: RefCell::default(),
        };
        let deadline = Instant::now() + DELIVERY_MAX;
        let context = Context { fence: &*self.lead, journal: &journal, waker, deadline };
        let answers = self
            .sink
            .deliver(&batch, &context)
            .map_err(|source| Error::Sink { sink: name.clone(), source })?;
        let answers = jobs.iter().map(|job| job.seq).zip(answers).collect();
        Ok(Answered { lane: self.lane, answers, steps: journal.begun.take() })
    }
}

/// Keeps steps in the ledger, through the thread that owns it.
struct LedgerJournal<'a> {
    sink: &'a str,
    jobs: HashMap<Seq, &'a Job>,
    to_ledger: &'a Sender<ToLedger>,
    /// The newest step of each intent that was given to the ledger, which keeps it or ends the process.
    begun: RefCell<HashMap<Seq, Step>>,
}

impl Journal for LedgerJournal<'_> {
    fn begin(&self, steps: &[(Seq, Step)]) -> Result<Keeping, Fatal> {
        let seq = steps.first().map_or(Seq(0), |(seq, _)| *seq);
        let progress = |(seq, step): &(Seq, Step)| {
            let job = self.jobs.get(seq);
            Progress {
                seq: *seq,
                sink: self.sink.to_owned(),
                attempts: job.map_or(0, |job| job.attempts),
                spent_ms: job.map_or(0, |job| job.spent_ms),
                step: Some(step.0.clone()),
                receipt: None,
            }
        };
        let (told, durable) = oneshot::channel();
        // One message is one commit, however many steps there are.
        self.to_ledger
            .send(ToLedger::Steps(steps.iter().map(progress).collect(), told))
            .map_err(|_| Fatal::Journal { seq, source: "the ledger's thread has ended".into() })?;
        self.begun.borrow_mut().extend(steps.iter().cloned());
        Ok(Keeping { seq, durable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_kept_together_are_one_message_to_the_ledger() {
        let (to_ledger, from) = bounded(8);
        let begun = RefCell::default();
        let journal =
            LedgerJournal { sink: "git", jobs: HashMap::new(), to_ledger: &to_ledger, begun };
        let step = |text: &str| Step(text.to_owned());
        let steps = [(Seq(1), step("a")), (Seq(2), step("b")), (Seq(1), step("c"))];
        std::thread::scope(|scope| {
            let ledger = scope.spawn(move || {
                let Ok(ToLedger::Steps(progress, durable)) = from.recv() else {
                    panic!("steps are what is sent")
                };
                durable.send(()).unwrap();
                (progress, from.try_recv().is_err())
            });
            journal.record_all(&steps).unwrap();
            let (progress, alone) = ledger.join().unwrap();
            let sent: Vec<_> =
                progress.iter().map(|kept| (kept.seq.0, kept.step.as_deref())).collect();
            assert_eq!(sent, [(1, Some("a")), (2, Some("b")), (1, Some("c"))]);
            assert!(alone);
        });
        journal.record_all(&[]).expect("nothing to keep is kept without the ledger");
        let newest = HashMap::from([(Seq(1), step("c")), (Seq(2), step("b"))]);
        assert_eq!(journal.begun.take(), newest, "handed back with the answers");
    }

    #[test]
    fn a_step_that_the_ledger_did_not_keep_is_not_handed_back() {
        let (to_ledger, from) = bounded(8);
        let begun = RefCell::default();
        let journal =
            LedgerJournal { sink: "git", jobs: HashMap::new(), to_ledger: &to_ledger, begun };
        drop(from);
        let lost = journal.record(Seq(7), &Step("a".to_owned()));
        assert!(matches!(lost, Err(Fatal::Journal { seq: Seq(7), .. })), "{lost:?}");
        assert!(journal.begun.take().is_empty());
    }
}
