//! A batch of the modes that scale: look, keep in the ledger what will be written, write.

use std::cell::Cell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::config::Confirmed;
use crate::fault;
use crate::model::{Code, IntentType, Seq};
use crate::sink::kubernetes::schedule::{Schedule, Task};
use crate::sink::kubernetes::subject::{Subject, receipt};
use crate::sink::kubernetes::target::{Found, Site, Stored, Unwritten};
use crate::sink::kubernetes::unsupported;
use crate::sink::kubernetes::watches::{Key, Place, Watches};
use crate::sink::workload::autoscaler::Decision;
use crate::sink::workload::{Progress, Written, verdict};
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, Step, now};

/// Reads and conditional writes of one delivery; a rollout moves the version with each of its steps.
const TRIES: u32 = 5;

/// No answer of a server that is well takes longer.
const SLOW_MAX: Duration = Duration::from_secs(2);

/// One call of `deliver`.
pub struct Batch<'a> {
    pub site: &'a Site,
    watches: &'a Watches,
    pub context: &'a Context<'a>,
    /// Deliveries that met a server that does not answer.
    silent: Cell<usize>,
}

/// What is to be done about one delivery.
enum Plan {
    Answered(Answer),
    /// It stands there; `is_unseen` if nobody has looked at its rollout.
    Verify {
        place: Arc<Place>,
        written: Written,
        is_unseen: bool,
    },
    /// It is being verified already.
    Ask {
        place: Arc<Place>,
    },
    Write {
        place: Arc<Place>,
        found: Found,
        decision: Decision,
    },
}

/// What is done beside other such things.
enum Work {
    Announce(Vec<(Seq, Step)>),
    Task(Task<Plan>),
}

/// What has come of it.
enum Done {
    Announced(Result<(), Fatal>),
    Looked(usize, Plan),
    Acted(usize, Result<Answer, Fatal>),
}

impl<'a> Batch<'a> {
    pub fn new(site: &'a Site, watches: &'a Watches, context: &'a Context<'a>) -> Self {
        Batch { site, watches, context, silent: Cell::new(0) }
    }

    /// One answer a delivery, in their order.
    pub async fn deliver(&self, batch: &[Delivery<'_>]) -> Result<Vec<Answer>, Fatal> {
        let mut answers = Vec::with_capacity(batch.len());
        let namespaces: Vec<&str> = batch.iter().map(|it| it.intent.namespace.as_str()).collect();
        for wave in waves(&namespaces, self.watches.namespaces_max()) {
            answers.extend(self.wave(&batch[wave]).await?);
        }
        Ok(answers)
    }

    /// Delivers to no more namespaces than can be followed at a time.
    async fn wave(&self, batch: &[Delivery<'_>]) -> Result<Vec<Answer>, Fatal> {
        let mut schedule = Schedule::new(batch.len(), self.site.settings.concurrency);
        let (mut answers, mut running) = (Vec::new(), FuturesUnordered::new());
        loop {
            if let Some(plans) = schedule.announce() {
                running.push(self.work(batch, Work::Announce(announced(batch, plans))));
            }
            while let Some(task) = schedule.begin() {
                running.push(self.work(batch, Work::Task(task)));
            }
            match running.next().await {
                Some(Done::Announced(durable)) => {
                    durable?;
                    schedule.announced();
                }
                Some(Done::Looked(at, plan)) => {
                    let is_announced = matches!(plan, Plan::Write { .. });
                    schedule.looked(at, plan, is_announced);
                }
                Some(Done::Acted(at, answer)) => {
                    schedule.acted();
                    answers.push((at, answer?));
                }
                None => break,
            }
        }
        answers.sort_unstable_by_key(|(at, _)| *at);
        let mut answers: Vec<Answer> = answers.into_iter().map(|(_, answer)| answer).collect();
        // The others took their time, and the first of the batch may have followed in it.
        for (delivery, answer) in batch.iter().zip(&mut answers) {
            let key = key(delivery);
            let is_pending = matches!(answer, Answer::Pending { .. });
            // Its namespace may have had to make room for others: the step brings it back.
            if is_pending && let Some(place) = self.watches.followed(&key.0) {
                *answer = place.answer(&key).unwrap_or_else(|| answer.clone());
            }
        }
        Ok(answers)
    }

    async fn work(&self, batch: &[Delivery<'_>], work: Work) -> Done {
        match work {
            Work::Announce(steps) => Done::Announced(self.announce(&steps).await),
            Work::Task(Task::Look(at)) => Done::Looked(at, self.look(&batch[at]).await),
            Work::Task(Task::Act(at, plan)) => Done::Acted(at, self.act(&batch[at], plan).await),
        }
    }

    /// Keeps in the ledger what is about to be written.
    async fn announce(&self, steps: &[(Seq, Step)]) -> Result<(), Fatal> {
        self.context.fence.check()?;
        fault::step("kubernetes.journal", || self.context.journal.begin(steps))?.kept().await
    }

    async fn look(&self, delivery: &Delivery<'_>) -> Plan {
        if delivery.intent.intent_type != IntentType::Scaling {
            return Plan::Answered(Answer::Failed(unsupported(delivery.intent.intent_type)));
        }
        let began = Instant::now();
        self.plan(delivery).await.unwrap_or_else(|fault| {
            self.note(&fault, began);
            Plan::Answered(Answer::Failed(fault))
        })
    }

    async fn plan(&self, delivery: &Delivery<'_>) -> Result<Plan, Fault> {
        let deadline = self.context.deadline;
        let key = key(delivery);
        let place = self.watches.place(&key.0);
        let progress = Progress::read(delivery.step);
        if place.verifies(&key, delivery.seq) {
            return Ok(Plan::Ask { place });
        }
        self.is_worth_a_call()?;
        place.in_step(self.site.due(deadline)).await?;
        if let Some(Progress::Written(written)) = progress {
            return Ok(Plan::Verify { place, written, is_unseen: true });
        }
        let (found, decision) = self.find(&place, delivery, deadline).await?;
        Ok(match standing(&found, &decision, progress.is_none()) {
            Some(written) => Plan::Verify { place, written, is_unseen: true },
            None => Plan::Write { place, found, decision },
        })
    }

    /// What is there, and what may be written.
    async fn find(
        &self,
        place: &Place,
        delivery: &Delivery<'_>,
        deadline: Instant,
    ) -> Result<(Found, Decision), Fault> {
        let found = self.site.look(delivery.intent, deadline).await?;
        let key = key(delivery);
        if place.is_terminating(&key) {
            return Err(verdict::terminating(&self.site.location(delivery.intent)));
        }
        let decision = self.watches.decide(place, &key, delivery.intent.replicas)?;
        Ok((found, decision))
    }

    async fn act(&self, delivery: &Delivery<'_>, plan: Plan) -> Result<Answer, Fatal> {
        Ok(match plan {
            Plan::Answered(answer) => answer,
            Plan::Ask { place } => self.ask(&place, delivery),
            Plan::Verify { place, written, is_unseen } => {
                self.verify(&place, delivery, written, is_unseen).await
            }
            Plan::Write { place, found, decision } => {
                let began = Instant::now();
                match self.write(&place, delivery, found, decision).await? {
                    Ok((written, is_unseen)) => {
                        self.verify(&place, delivery, written, is_unseen).await
                    }
                    Err(fault) => {
                        place.forget(&key(delivery));
                        self.note(&fault, began);
                        Answer::Failed(fault)
                    }
                }
            }
        })
    }

    /// Writes, and looks again where somebody else was in between. Tells too whether the watch may
    /// have nothing to show of it.
    async fn write(
        &self,
        place: &Arc<Place>,
        delivery: &Delivery<'_>,
        mut found: Found,
        mut decision: Decision,
    ) -> Result<Result<(Written, bool), Fault>, Fatal> {
        let deadline = self.context.deadline;
        if let Err(fault) = self.is_worth_a_call() {
            return Ok(Err(fault));
        }
        // Before the write, so that nothing that the watch shows of it is missed.
        if self.site.settings.delivered != Confirmed::Accepted {
            self.keep(place, delivery);
        }
        for tried in 1.. {
            // The first is made on what was read before the lead was last confirmed, and the server
            // takes it on nothing newer; whatever is read from here on may be a later leader's.
            if tried > 1 || matches!(decision, Decision::RaiseFloor { .. }) {
                self.context.fence.check()?;
            }
            let answered = self.put(delivery, &found, &decision, deadline).await;
            match answered {
                Ok(stored) => return Ok(Ok((accepted(stored, &decision), false))),
                Err(Unwritten::Failed(fault)) => return Ok(Err(fault)),
                Err(Unwritten::Moved(fault)) if tried == TRIES => {
                    return Ok(Err(Fault { retry: Retry::Later, ..fault }));
                }
                Err(Unwritten::Moved(_)) => {}
            }
            (found, decision) = match self.find(place, delivery, deadline).await {
                Ok(both) => both,
                Err(fault) => return Ok(Err(fault)),
            };
            // Somebody else has set just this: it stands, and it was not there when we came.
            if let Some(written) = standing(&found, &decision, false) {
                return Ok(Ok((written, true)));
            }
        }
        unreachable!("the last try returns")
    }

    async fn put(
        &self,
        delivery: &Delivery<'_>,
        found: &Found,
        decision: &Decision,
        deadline: Instant,
    ) -> Result<Stored, Unwritten> {
        let intent = delivery.intent;
        fault::step("kubernetes.write", || ());
        let stored = match decision {
            Decision::Scale(replicas) => {
                self.site.scale(intent, found, *replicas, false, deadline).await
            }
            Decision::RaiseFloor { hpa, to, .. } => {
                // Its version moves with each look of its controller: the watch's may be behind.
                let read = self.site.autoscaler(&intent.namespace, hpa, deadline).await;
                let hpa = read.map_err(Unwritten::Failed)?;
                if *to > hpa.max || !hpa.targets(&self.site.settings.workload, &intent.target) {
                    return Err(Unwritten::Moved(moved(&hpa.name)));
                }
                self.site.floor(&intent.namespace, &hpa, *to, false, deadline).await
            }
        };
        fault::step("kubernetes.written", || ());
        stored
    }

    fn keep(&self, place: &Place, delivery: &Delivery<'_>) {
        let location = self.site.location(delivery.intent);
        let waker = Arc::clone(self.context.waker);
        let subject = Subject::new(delivery.seq, location, delivery.intent.replicas, waker);
        place.keep(&key(delivery), subject);
    }

    /// Answers for what stands at the target.
    async fn verify(
        &self,
        place: &Arc<Place>,
        delivery: &Delivery<'_>,
        written: Written,
        is_unseen: bool,
    ) -> Answer {
        let key = key(delivery);
        let delivered = self.site.settings.delivered;
        // What nobody has written nobody has to observe.
        if delivered == Confirmed::Accepted
            || (written.unchanged && delivered == Confirmed::Observed)
        {
            place.forget(&key);
            return Answer::Done(self.confirmed(delivery, &written));
        }
        if is_unseen {
            self.keep(place, delivery);
        }
        place.with(&key, |subject, rule| subject.begin(written.clone(), rule, now()));
        if is_unseen {
            match self.site.object(delivery.intent, self.context.deadline).await {
                Ok(object) => {
                    place.with(&key, |subject, rule| subject.see(object, rule, now()));
                }
                Err(fault) if fault.code == Code::TargetNotFound => {
                    place.with(&key, |subject, rule| subject.lose(rule, now()));
                }
                // The watch will show it.
                Err(_) => {}
            }
        }
        self.ask(place, delivery)
    }

    fn ask(&self, place: &Place, delivery: &Delivery<'_>) -> Answer {
        let answer = place.answer(&key(delivery));
        answer.unwrap_or_else(|| {
            let message =
                format!("{} is not followed any more", self.site.location(delivery.intent));
            Answer::Failed(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later })
        })
    }

    fn confirmed(&self, delivery: &Delivery<'_>, written: &Written) -> Confirmation {
        Confirmation {
            location: self.site.location(delivery.intent),
            unchanged: written.unchanged,
            further: receipt(written, delivery.intent.replicas, None),
        }
    }

    /// A server that does not answer holds up a batch by as many time-outs as there are calls at a
    /// time, and not by one for each delivery.
    pub fn is_worth_a_call(&self) -> Result<(), Fault> {
        if self.silent.get() < self.site.settings.concurrency
            && Instant::now() < self.context.deadline
        {
            return Ok(());
        }
        Err(Fault {
            code: Code::SinkUnavailable,
            message: "the API server does not answer others of the same batch".to_owned(),
            retry: Retry::Later,
        })
    }

    /// Counts what a server that does not answer, or asks for a pause, made of a delivery that began
    /// then. One that says no at once costs no time, and may mean that target alone.
    pub fn note(&self, fault: &Fault, began: Instant) {
        let is_slow = began.elapsed() >= SLOW_MAX.min(self.site.settings.timeout / 2);
        let is_busy = matches!(fault.retry, Retry::After(_));
        if fault.code == Code::SinkUnavailable && (is_slow || is_busy) {
            self.silent.set(self.silent.get() + 1);
        }
    }
}

/// The batch in parts that name so many namespaces at most.
fn waves(namespaces: &[&str], namespaces_max: usize) -> Vec<Range<usize>> {
    let (mut waves, mut from, mut named) = (Vec::new(), 0, HashSet::new());
    for (at, namespace) in namespaces.iter().enumerate() {
        if named.len() >= namespaces_max && !named.contains(namespace) {
            waves.push(from..at);
            from = at;
            named.clear();
        }
        named.insert(*namespace);
    }
    waves.push(from..namespaces.len());
    waves
}

/// The steps that go before the writes.
fn announced(batch: &[Delivery<'_>], plans: &[(usize, Plan)]) -> Vec<(Seq, Step)> {
    let step = |(at, plan): &(usize, Plan)| {
        let Plan::Write { found, decision, .. } = plan else { return None };
        let (Decision::Scale(wanted) | Decision::RaiseFloor { to: wanted, .. }) = *decision;
        let resource_version = found.resource_version.clone();
        Some((batch[*at].seq, Progress::Writing { wanted, resource_version }.step()))
    };
    plans.iter().filter_map(step).collect()
}

/// What stands there if nothing has to be written.
fn standing(found: &Found, decision: &Decision, unchanged: bool) -> Option<Written> {
    let stands = match decision {
        Decision::Scale(wanted) => *wanted == found.replicas,
        Decision::RaiseFloor { from, to, .. } => from == to,
    };
    stands.then(|| {
        let written = Written::by(decision, found.resource_version.clone(), now());
        Written { unchanged: unchanged && found.replicas >= written.wanted, ..written }
    })
}

fn accepted(stored: Stored, decision: &Decision) -> Written {
    let written = Written::by(decision, stored.resource_version, now());
    // Not that of an autoscaler, which is another object than the one that is verified.
    let generation = stored.generation.filter(|_| written.through.is_none());
    Written { generation, ..written }
}

fn moved(hpa: &str) -> Fault {
    Fault {
        code: Code::HpaConflict,
        message: format!("HorizontalPodAutoscaler `{hpa}` has changed while it was looked at"),
        retry: Retry::Later,
    }
}

fn key(delivery: &Delivery<'_>) -> Key {
    (delivery.intent.namespace.clone(), delivery.intent.target.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_parted_where_it_names_more_namespaces_than_are_followed() {
        let parted = |namespaces: &str, max| {
            let namespaces: Vec<&str> = namespaces.split(' ').collect();
            let ends: Vec<usize> = waves(&namespaces, max).iter().map(|wave| wave.end).collect();
            ends
        };
        assert_eq!(parted("a b a b", 2), [4]);
        assert_eq!(parted("a b a c b b", 2), [3, 6]);
        assert_eq!(parted("a b c", 1), [1, 2, 3]);
        assert_eq!(parted("a b c", usize::MAX), [3]);
    }
}
