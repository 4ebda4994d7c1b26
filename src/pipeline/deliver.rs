//! A sink's own threads: it may be slow, and holds up nobody but its own queue.

use std::cell::RefCell;
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
            kept: RefCell::default(),
        };
        let deadline = Instant::now() + DELIVERY_MAX;
        let context = Context { fence: &*self.lead, journal: &journal, waker, deadline };
        let answers = self
            .sink
            .deliver(&batch, &context)
            .map_err(|source| Error::Sink { sink: name.clone(), source })?;
        let answers = jobs.iter().map(|job| job.seq).zip(answers).collect();
        Ok(Answered { lane: self.lane, answers, steps: journal.kept.take() })
    }
}

/// Keeps steps in the ledger, through the thread that owns it.
struct LedgerJournal<'a> {
    sink: &'a str,
    jobs: HashMap<Seq, &'a Job>,
    to_ledger: &'a Sender<ToLedger>,
    /// The newest step of each intent that is in the ledger now, or will be before what comes next.
    kept: RefCell<HashMap<Seq, Step>>,
}

impl LedgerJournal<'_> {
    /// Hands steps to the ledger's thread; what is returned tells when they are durable. One message
    /// is one commit, however many steps there are.
    fn send(&self, steps: &[(Seq, Step)]) -> Result<Receiver<()>, Fatal> {
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
        let (durable, waits) = bounded(1);
        self.to_ledger
            .send(ToLedger::Steps(steps.iter().map(progress).collect(), durable))
            .map_err(|_| lost(steps, "the ledger's thread has ended"))?;
        Ok(waits)
    }
}

fn lost(
    steps: &[(Seq, Step)],
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Fatal {
    let seq = steps.first().map_or(Seq(0), |(seq, _)| *seq);
    Fatal::Journal { seq, source: source.into() }
}

impl Journal for LedgerJournal<'_> {
    fn record_all(&self, steps: &[(Seq, Step)]) -> Result<(), Fatal> {
        if steps.is_empty() {
            return Ok(());
        }
        self.send(steps)?.recv().map_err(|error| lost(steps, error))?;
        self.kept.borrow_mut().extend(steps.iter().cloned());
        Ok(())
    }

    fn record_soon(&self, seq: Seq, step: &Step) -> Result<(), Fatal> {
        // Nobody waits: that the ledger's thread cannot tell us is no fault of its.
        self.send(&[(seq, step.clone())])?;
        self.kept.borrow_mut().insert(seq, step.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_kept_together_are_one_message_to_the_ledger() {
        let (to_ledger, from) = bounded(8);
        let kept = RefCell::default();
        let journal =
            LedgerJournal { sink: "git", jobs: HashMap::new(), to_ledger: &to_ledger, kept };
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
        assert_eq!(journal.kept.take(), newest, "handed back with the answers");
    }

    #[test]
    fn a_step_that_nobody_waits_for_is_kept_before_the_next_one() {
        let (to_ledger, from) = bounded(8);
        let kept = RefCell::default();
        let journal =
            LedgerJournal { sink: "git", jobs: HashMap::new(), to_ledger: &to_ledger, kept };
        let step = Step("a".to_owned());
        journal.record_soon(Seq(1), &step).expect("nobody has to take it first");
        assert_eq!(journal.kept.borrow()[&Seq(1)], step);
        std::thread::scope(|scope| {
            let ledger = scope.spawn(move || {
                let mut sent = Vec::new();
                for _ in 0..2 {
                    let Ok(ToLedger::Steps(progress, durable)) = from.recv() else {
                        panic!("steps are what is sent")
                    };
                    sent.extend(progress.into_iter().filter_map(|kept| kept.step));
                    let _ = durable.send(());
                }
                sent
            });
            journal.record(Seq(1), &Step("b".to_owned())).unwrap();
            assert_eq!(ledger.join().unwrap(), ["a", "b"]);
        });
        let lost = journal.record_soon(Seq(1), &step);
        assert!(matches!(lost, Err(Fatal::Journal { seq: Seq(1), .. })), "{lost:?}");
    }

    #[test]
    fn a_step_that_the_ledger_did_not_keep_is_not_handed_back() {
        let (to_ledger, from) = bounded(8);
        let kept = RefCell::default();
        let journal =
            LedgerJournal { sink: "git", jobs: HashMap::new(), to_ledger: &to_ledger, kept };
        drop(from);
        let lost = journal.record(Seq(7), &Step("a".to_owned()));
        assert!(matches!(lost, Err(Fatal::Journal { seq: Seq(7), .. })), "{lost:?}");
        assert!(journal.kept.take().is_empty());
    }
}
