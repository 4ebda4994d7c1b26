//! A scripted slow sink: the contract carries journal, pending answers and wakes, and this is who
//! uses them until the remote sinks do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use intentd::model::Seq;
use intentd::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Sink, Step, Waker};

use super::{Fencing, PATIENCE, Shared, Steps, Subject, deliver, holds_the_contract, job};

/// Drafts, proposes, publishes: one step a call, kept in the journal before its effect.
#[derive(Debug, Default)]
struct Slow {
    published: Shared<BTreeMap<String, String>>,
    drafts: Shared<BTreeMap<String, usize>>,
    stalled: Shared<bool>,
}

impl Sink for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn probe(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        batch.iter().map(|delivery| self.step(delivery, context)).collect()
    }
}

impl Slow {
    fn step(&self, delivery: &Delivery<'_>, context: &Context<'_>) -> Result<Answer, Fatal> {
        let pending =
            |step: &Step| Answer::Pending { step: step.clone(), again: Duration::from_secs(1) };
        let name = &delivery.package.name;
        let wanted = delivery.package.digest.to_string();
        context.fence.check()?;
        match delivery.step.map(|step| step.0.as_str()) {
            None => {
                let step = Step("drafted".to_owned());
                context.journal.record(delivery.seq, &step)?;
                *self.drafts.lock().unwrap().entry(name.clone()).or_default() += 1;
                Ok(pending(&step))
            }
            Some("drafted") if *self.stalled.lock().unwrap() => {
                Ok(pending(&Step("drafted".to_owned())))
            }
            Some("drafted") => {
                self.published.lock().unwrap().insert(name.clone(), wanted);
                let location = format!("revisions/{name}");
                let further = BTreeMap::from([("revision".to_owned(), 1.into())]);
                Ok(Answer::Done(Confirmation { location, unchanged: false, further }))
            }
            Some(other) => panic!("a step that nobody asked for: {other}"),
        }
    }
}

#[test]
fn a_slow_sink_holds_the_contract() {
    holds_the_contract("slow", || {
        let sink = Slow::default();
        let (published, stalled) = (sink.published.clone(), sink.stalled.clone());
        Subject {
            sink: Box::new(sink),
            visible: Box::new(move || {
                let published = published.lock().unwrap();
                published.iter().map(|(name, digest)| format!("{name} {digest}")).collect()
            }),
            stall: Box::new(move || {
                *stalled.lock().unwrap() = true;
                Box::new(())
            }),
        }
    });
}

#[test]
fn a_pending_delivery_resumes_from_its_journalled_step_in_a_new_process() {
    let sink = Slow::default();
    let drafts = sink.drafts.clone();
    let published = sink.published.clone();
    let mut job = job("a", 3);
    let journal = Steps::default();
    let waker: Waker = Arc::new(|_| {});
    let fence = Fencing::holds();
    let deadline = Instant::now() + PATIENCE;
    let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
    let mut first: Box<dyn Sink> = Box::new(sink);
    let answers = first.deliver(&[job.delivery()], &context).unwrap();
    let step = Step("drafted".to_owned());
    let again = Duration::from_secs(1);
    assert_eq!(answers, [Answer::Pending { step: step.clone(), again }]);
    assert_eq!(journal.taken(), [(Seq(3), step.clone())]);
    assert!(published.lock().unwrap().is_empty());
    drop(first);

    let mut second = Slow { published: published.clone(), drafts, ..Slow::default() };
    job.step = journal.taken().pop().map(|(_, step)| step);
    let answers = deliver(&mut second, &[&job]);
    assert_eq!(
        answers,
        [Answer::Done(Confirmation {
            location: "revisions/scale-ran-a-a".to_owned(),
            unchanged: false,
            further: BTreeMap::from([("revision".to_owned(), 1.into())]),
        })]
    );
    assert_eq!(second.drafts.lock().unwrap()["scale-ran-a-a"], 1, "drafted once");
}

#[test]
fn a_sink_wakes_a_pending_delivery_from_a_thread_of_its_own() {
    let (sender, receiver) = bounded(1);
    let waker: Waker = Arc::new(move |seq| sender.send(seq).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| waker(Seq(7)));
    });
    assert_eq!(receiver.recv_timeout(PATIENCE), Ok(Seq(7)));
}
