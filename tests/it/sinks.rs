//! The contract of `intentd::sink::Sink`, held against every implementation, and what is particular
//! to each.

mod double;
mod exec;
mod git;
mod kubectl;
mod kubernetes;
mod package;
mod porch;
mod stdout;

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use intentd::compose::{self, Settings, compose};
use intentd::model::{Code, Digest, Intent, Seq};
use intentd::sink::{
    Answer, Confirmation, Context, Delivery, Fatal, Fault, Fence, Journal, Keeping, Retry, Sink,
    Step, Waker,
};
use serde_json::json;

/// Far above what any step takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An intent with its package, as the processor holds them.
pub struct Job {
    pub seq: Seq,
    pub intent: Intent,
    pub document: Vec<u8>,
    pub file: String,
    pub package: compose::Package,
    pub step: Option<Step>,
    pub last: Option<Digest>,
}

impl Job {
    pub fn delivery(&self) -> Delivery<'_> {
        Delivery {
            seq: self.seq,
            intent: &self.intent,
            document: &self.document,
            file: &self.file,
            package: &self.package,
            step: self.step.as_ref(),
            last: self.last,
        }
    }
}

/// A scaling intent on `namespace`/`target`.
pub fn job_in(namespace: &str, target: &str, replicas: u32) -> Job {
    let value = json!({
        "intent_type": "scaling", "target": target, "namespace": namespace, "replicas": replicas,
        "reason": "no: \u{1f600} # 'x' \"y\"\n---\n$(id) {{ x }}",
    });
    let intent: Intent = serde_json::from_value(value.clone()).unwrap();
    let package = compose(&intent, &Settings::default()).unwrap();
    Job {
        seq: Seq(u64::from(replicas)),
        intent,
        document: value.to_string().into_bytes(),
        file: format!("intent-{target}.json"),
        package,
        step: None,
        last: None,
    }
}

pub fn job(target: &str, replicas: u32) -> Job {
    job_in("ran-a", target, replicas)
}

/// A fence that holds for a number of questions.
pub struct Fencing(Cell<u32>);

impl Fencing {
    pub fn holds() -> Self {
        Fencing(Cell::new(u32::MAX))
    }

    pub fn fallen() -> Self {
        Fencing(Cell::new(0))
    }

    pub fn holds_for(questions: u32) -> Self {
        Fencing(Cell::new(questions))
    }
}

impl Fence for Fencing {
    fn check(&self) -> Result<(), Fatal> {
        match self.0.get().checked_sub(1) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(Fatal::Fenced { ours: 1, current: 2 }),
        }
    }
}

/// Keeps steps in memory.
#[derive(Default)]
pub struct Steps(Mutex<Vec<(Seq, Step)>>);

impl Steps {
    pub fn taken(&self) -> Vec<(Seq, Step)> {
        self.0.lock().unwrap().clone()
    }
}

impl Journal for Steps {
    fn begin(&self, steps: &[(Seq, Step)]) -> Result<Keeping, Fatal> {
        self.0.lock().unwrap().extend_from_slice(steps);
        let (told, durable) = tokio::sync::oneshot::channel();
        told.send(()).unwrap();
        Ok(Keeping { seq: steps[0].0, durable })
    }
}

/// Delivers with a fence and a deadline.
pub fn deliver_by(
    sink: &mut dyn Sink,
    jobs: &[&Job],
    fence: &Fencing,
    deadline: Instant,
) -> Result<Vec<Answer>, Fatal> {
    let (journal, waker): (_, Waker) = (Steps::default(), Arc::new(|_| {}));
    let batch: Vec<_> = jobs.iter().map(|job| job.delivery()).collect();
    sink.deliver(&batch, &Context { fence, journal: &journal, waker: &waker, deadline })
}

/// Delivers with all the time in the world.
pub fn deliver(sink: &mut dyn Sink, jobs: &[&Job]) -> Vec<Answer> {
    deliver_by(sink, jobs, &Fencing::holds(), Instant::now() + PATIENCE).unwrap()
}

#[track_caller]
pub fn done(answer: &Answer) -> &Confirmation {
    match answer {
        Answer::Done(confirmation) => confirmation,
        other => panic!("not done: {other:?}"),
    }
}

#[track_caller]
pub fn failed(answer: &Answer, code: Code, retry: Retry) -> String {
    match answer {
        Answer::Failed(fault) => {
            assert_eq!((fault.code, fault.retry), (code, retry), "{fault:?}");
            fault.message.clone()
        }
        other => panic!("not failed: {other:?}"),
    }
}

/// What has to live on for a sink to be stalled.
pub type Stalled = Box<dyn fmt::Debug>;

/// A sink with a way to see what its target shows.
pub struct Subject {
    pub sink: Box<dyn Sink>,
    /// Everything visible at the target, in a form that is equal when the effect is equal.
    pub visible: Box<dyn Fn() -> Vec<String>>,
    /// Something that keeps the sink from finishing until it is dropped.
    pub stall: Box<dyn Fn() -> Stalled>,
}

/// What every sink promises.
pub fn holds_the_contract(name: &str, make: impl Fn() -> Subject) {
    let Subject { mut sink, visible, .. } = make();
    assert_eq!(sink.name(), name);
    assert!(sink.batch_max() > 0);
    let before = visible();
    sink.probe().unwrap();
    assert_eq!(visible(), before, "{name}: a probe changes nothing");
    assert!(deliver(&mut *sink, &[]).is_empty());

    let fenced =
        deliver_by(&mut *sink, &[&job("a", 3)], &Fencing::fallen(), Instant::now() + PATIENCE);
    assert!(matches!(fenced, Err(Fatal::Fenced { ours: 1, current: 2 })), "{name}: {fenced:?}");
    assert_eq!(visible(), before, "{name}: nothing is visible behind a fallen fence");

    let Subject { mut sink, visible, stall } = make();
    let jobs = [job("a", 3), job("b", 4), job("c", 5)];
    let jobs: Vec<&Job> = jobs.iter().collect();
    let answers = settle(&mut *sink, &jobs);
    assert_eq!(answers.len(), 3, "{name}: one answer a delivery");
    let locations: Vec<_> = answers.iter().map(|answer| done(answer).location.clone()).collect();
    let once = visible();
    assert_ne!(once, before, "{name}");
    let again = settle(&mut *sink, &jobs);
    for (answer, location) in again.iter().zip(&locations) {
        assert_eq!(&done(answer).location, location, "{name}: answers keep the order");
    }
    assert_eq!(visible(), once, "{name}: twice leaves what once leaves");

    let stalled = stall();
    let started = Instant::now();
    let due = started + Duration::from_millis(300);
    let late = deliver_by(&mut *sink, &[&job("a", 9), &job("b", 9)], &Fencing::holds(), due);
    let took = started.elapsed();
    for answer in late.unwrap() {
        assert!(
            matches!(
                answer,
                Answer::Failed(Fault { retry: Retry::Later, .. }) | Answer::Pending { .. }
            ),
            "{name}: {answer:?}"
        );
    }
    assert!(took < Duration::from_secs(20), "{name}: the deadline was 0.3 s, it took {took:?}");
    drop(stalled);
}

/// Delivers until nothing is pending, as the processor does, from the steps that were asked for.
pub fn settle(sink: &mut dyn Sink, jobs: &[&Job]) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = jobs.iter().map(|_| None).collect();
    let mut steps: Vec<Option<Step>> = jobs.iter().map(|job| job.step.clone()).collect();
    for _ in 0..100 {
        let open: Vec<usize> = (0..jobs.len()).filter(|at| answers[*at].is_none()).collect();
        if open.is_empty() {
            break;
        }
        let (wakes, woken) = crossbeam_channel::bounded(jobs.len());
        let (journal, waker): (_, Waker) = (
            Steps::default(),
            Arc::new(move |seq| {
                let _ = wakes.try_send(seq);
            }),
        );
        let batch: Vec<_> = open
            .iter()
            .map(|at| Delivery { step: steps[*at].as_ref(), ..jobs[*at].delivery() })
            .collect();
        let fence = Fencing::holds();
        let deadline = Instant::now() + PATIENCE;
        let context = Context { fence: &fence, journal: &journal, waker: &waker, deadline };
        let got = sink.deliver(&batch, &context).unwrap();
        assert_eq!(got.len(), open.len());
        let mut wait = None;
        for (at, answer) in open.into_iter().zip(got) {
            match answer {
                Answer::Pending { step, again } => {
                    steps[at] = Some(step);
                    wait = Some(wait.map_or(again, |wait: Duration| wait.min(again)));
                }
                other => answers[at] = Some(other),
            }
        }
        if let Some(wait) = wait {
            let _ = woken.recv_timeout(wait);
        }
    }
    answers.into_iter().map(|answer| answer.expect("still pending after 100 calls")).collect()
}

/// What a test and the sink it owns both look at.
pub type Shared<T> = Arc<Mutex<T>>;
