//! A scripted slow sink: the contract carries journal, pending answers and wakes, and this is who
//! uses them until the remote sinks do.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use intentd::intake::Rules;
use intentd::leader::Attempt;
use intentd::model::{Code, FileName, Layout, Seq};
use intentd::pipeline::{self, Claimant, Event, Live, Operand, Options, Source};
use intentd::processor::Settings;
use intentd::schema::{NameRule, Policy, Schema};
use intentd::sink::{
    Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, Sink, Step, Waker,
};
use intentd::{breaker, compose, retry};

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

/// Journals a step and then meets a fault, until it finds a step to go on from.
#[derive(Debug)]
struct Fickle {
    /// The step that each call found.
    calls: Sender<Option<String>>,
}

impl Sink for Fickle {
    fn name(&self) -> &str {
        "fickle"
    }

    fn probe(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        let answer = |delivery: &Delivery<'_>| {
            let found = delivery.step.map(|step| step.0.clone());
            self.calls.send(found.clone()).unwrap();
            match found {
                Some(step) => Ok(Answer::Done(Confirmation {
                    location: step,
                    unchanged: false,
                    further: BTreeMap::new(),
                })),
                None => {
                    context.journal.record_all(&[(delivery.seq, Step("written".to_owned()))])?;
                    let message = "the answer was cut".to_owned();
                    let (code, retry) = (Code::CommandFailed, Retry::Later);
                    Ok(Answer::Failed(Fault { code, message, retry }))
                }
            }
        };
        batch.iter().map(answer).collect()
    }
}

/// Runs the stages over `operands` with one sink until they have ended; they are told to stop once
/// `until` returns.
fn run_stages(root: &Path, sink: Fickle, operands: Vec<Operand>, until: impl FnOnce()) {
    let part = |name: &str| root.join("spool").join(name);
    let layout = Layout {
        inbox: part("inbox"),
        work: part("work"),
        processed: part("processed"),
        failed: part("failed"),
        status: part("status"),
        marker: part(".intentd"),
    };
    let claimant = Claimant {
        state_dir: root.join("state"),
        layout,
        sinks: vec![Box::new(sink)],
        accept_restored_ledger: false,
        allow_network_filesystem: true,
    };
    claimant.prepare().unwrap();
    let Attempt::Held(lock) = claimant.attempt(pipeline::now()).unwrap() else {
        panic!("nobody else leads here")
    };
    let rules = Rules {
        schema: Schema::builtin(),
        policy: Policy::default(),
        names: NameRule::new(&["intent-*.json".to_owned()]).unwrap(),
        owners: Vec::new(),
        size_bytes_max: 1 << 20,
    };
    let hours = |count: u64| Duration::from_secs(3600 * count);
    let retry = retry::Policy { budget: hours(24), first: hours(1), max: hours(1) };
    let breaker =
        breaker::Policy { window: 0, failures_percent: 50, pause: hours(1), pause_max: hours(1) };
    let compose = compose::Settings::default();
    let settings = Settings { compose, retry, breaker, outages_count: false };
    let live = Arc::new(Live::new(rules, settings));
    let options = Options {
        workers: 1,
        leases: false,
        quiet: Duration::from_millis(10),
        rates: BTreeMap::new(),
        records: None,
    };
    let (events, heard) = pipeline::events();
    let leadership = claimant.lead(lock).unwrap();
    let running =
        pipeline::start(leadership, Source::Operands(operands), live, options, &events).unwrap();
    until();
    drop(running.stop);
    for _ in 0..running.stages {
        loop {
            match heard.recv_timeout(PATIENCE).unwrap() {
                Event::Ended { stage, result } => {
                    result.unwrap_or_else(|error| panic!("{stage}: {error:?}"));
                    break;
                }
                _ => continue,
            }
        }
    }
}

#[test]
fn a_step_that_was_journalled_before_a_fault_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json");
    std::fs::write(&path, job("a", 3).document).unwrap();
    let operands = vec![Operand::File { file: FileName::new("a.json"), path }];
    let (calls, called) = bounded(16);
    let wait = || called.recv_timeout(PATIENCE).unwrap();
    run_stages(dir.path(), Fickle { calls: calls.clone() }, operands, || {
        assert_eq!(wait(), None);
    });
    run_stages(dir.path(), Fickle { calls }, Vec::new(), || {
        assert_eq!(wait().as_deref(), Some("written"));
    });
    assert!(called.try_recv().is_err(), "it was called once in each process");
}
