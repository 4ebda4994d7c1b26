//! The deliveries of one namespace: look, write what is to be written, look again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::Confirmed;
use crate::model::{Code, Timestamp};
use crate::sink::kubectl::Kubectl;
use crate::sink::kubectl::looks::{autoscalers, check_stays, workload};
use crate::sink::kubectl::saying::Trouble;
use crate::sink::workload::autoscaler::{Autoscaler, Decision, decide};
use crate::sink::workload::rollout::{self, Standing, judge};
use crate::sink::workload::{Progress, Written, location, verdict};
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, now};

/// Looks at an object before it is left to a later try: whoever changes it that often goes on.
const LOOKS_MAX: usize = 5;

/// When a delivery that is watched is looked at all the same.
const AGAIN_WATCHED: Duration = Duration::from_secs(30);

/// When one is looked at that is not: a look takes kubectl a tenth of a second and more.
const AGAIN: Duration = Duration::from_secs(3);

/// Why a delivery goes no further: for this intent alone, or for the process.
enum Stop {
    Fault(Fault),
    Fatal(Fatal),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Stop::Fatal(fatal)
    }
}

/// What was read of an object: itself, why it could not be read, or that it is not there.
type Found = Option<Result<Value, Trouble>>;

/// What the steps of one namespace share.
struct Round<'a> {
    namespace: &'a str,
    context: &'a Context<'a>,
    /// Read when the first write is thought of, for all of them.
    autoscalers: Option<Result<Vec<Autoscaler>, Trouble>>,
}

impl Kubectl {
    /// Delivers those of the batch that are open, which are all of this namespace.
    pub(super) fn round(
        &mut self,
        namespace: &str,
        open: Vec<usize>,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
        answers: &mut [Option<Answer>],
    ) -> Result<(), Fatal> {
        let names = |all: &[usize]| -> Vec<&str> {
            all.iter().map(|at| batch[*at].intent.target.as_str()).collect()
        };
        let mut objects = self.objects(namespace, &names(&open), context.deadline);
        let mut round = Round { namespace, context, autoscalers: None };
        let mut stored = Vec::new();
        for at in open {
            let delivery = &batch[at];
            let found = objects.remove(&delivery.intent.target);
            if let Some(Progress::Written(written)) = Progress::read(delivery.step) {
                answers[at] = Some(self.look(delivery, written, found, context));
                continue;
            }
            match self.write(delivery, found, &mut round) {
                Ok(written) => stored.push((at, written)),
                Err(Stop::Fault(fault)) => answers[at] = Some(self.give_up(delivery, fault)),
                Err(Stop::Fatal(fatal)) => return Err(fatal),
            }
        }
        let all: Vec<usize> = stored.iter().map(|(at, _)| *at).collect();
        if !all.is_empty() {
            objects = self.objects(namespace, &names(&all), context.deadline);
        }
        for (at, written) in stored {
            let found = objects.remove(&batch[at].intent.target);
            answers[at] = Some(self.look(&batch[at], written, found, context));
        }
        Ok(())
    }

    /// Reads the objects in one call; where that is refused, each alone, so that one that may not be
    /// read does not hide the others.
    fn objects(
        &self,
        namespace: &str,
        names: &[&str],
        due: Instant,
    ) -> HashMap<String, Result<Value, Trouble>> {
        let read = |names: &[&str]| self.calls.read(namespace, names, due);
        let failed = match read(names) {
            Ok(found) => return found.into_iter().map(|(name, it)| (name, Ok(it))).collect(),
            Err(trouble) => trouble,
        };
        let is_common = names.len() == 1 || !matches!(failed, Trouble::Refused(_));
        let one = |name: &&str| {
            let found = if is_common { Err(failed.clone()) } else { read(&[name]) };
            let found = found.map(|mut found| found.remove(*name)).transpose()?;
            Some(((*name).to_owned(), found))
        };
        names.iter().filter_map(one).collect()
    }

    fn location(&self, delivery: &Delivery<'_>) -> String {
        location(&self.workload, &delivery.intent.namespace, &delivery.intent.target)
    }

    fn seen(&self, delivery: &Delivery<'_>, found: &Found) -> Result<rollout::Wire, Fault> {
        let place = self.location(delivery);
        let object = match found {
            Some(Ok(object)) => object,
            Some(Err(trouble)) => return Err(trouble.fault(&format!("read {place}"))),
            None => {
                return Err(self
                    .calls
                    .not_found(&delivery.intent.target)
                    .fault(&format!("read {place}")));
            }
        };
        workload(object, &place)
    }

    /// Writes what the intent asks for, unless it is so already, and tells what is stored now.
    fn write(
        &mut self,
        delivery: &Delivery<'_>,
        mut found: Found,
        round: &mut Round<'_>,
    ) -> Result<Written, Stop> {
        let what = format!("scale {}", self.location(delivery));
        let (namespace, name) = (round.namespace, delivery.intent.target.as_str());
        let due = round.context.deadline;
        let mut stale = String::new();
        for _ in 0..LOOKS_MAX {
            let seen = self.seen(delivery, &found)?;
            check_stays(&seen, &self.location(delivery))?;
            let decision = self.decide(delivery, round)?;
            let mut written = stored(&seen, &decision);
            if is_so(&seen, &decision) {
                // What we were about to write and find is ours, as far as anybody can tell.
                written.unchanged = Progress::read(delivery.step).is_none() && stale.is_empty();
                return Ok(written);
            }
            let (wanted, resource_version) = (written.wanted, written.resource_version.clone());
            let writing = Progress::Writing { wanted, resource_version: resource_version.clone() };
            round.context.journal.record(delivery.seq, &writing.step())?;
            round.context.fence.check()?;
            let done = match &decision {
                Decision::Scale(to) => {
                    let scaled =
                        self.calls.scale(namespace, name, *to, &resource_version, false, due);
                    scaled.map(|_| resource_version)
                }
                Decision::RaiseFloor { hpa, resource_version, to, .. } => {
                    self.calls.floor(namespace, hpa, *to, resource_version, false, due)
                }
            };
            match done {
                Ok(resource_version) => return Ok(Written { resource_version, ..written }),
                Err(trouble) if trouble.is_stale() => {
                    stale = trouble.fault(&what).message;
                    found = self.objects(namespace, &[name], due).remove(name);
                    round.autoscalers = None;
                }
                Err(trouble) => return Err(trouble.fault(&what).into()),
            }
        }
        let message = format!("others changed it at each of {LOOKS_MAX} tries: {stale}");
        Err(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later }.into())
    }

    fn decide(&self, delivery: &Delivery<'_>, round: &mut Round<'_>) -> Result<Decision, Fault> {
        let (namespace, due) = (round.namespace, round.context.deadline);
        let read = || self.calls.autoscalers(namespace, due).map(|list| autoscalers(&list));
        let all = round.autoscalers.get_or_insert_with(read).as_ref();
        let all = all.map_err(|trouble| {
            trouble.fault(&format!("read horizontalpodautoscalers/{namespace}"))
        })?;
        let intent = delivery.intent;
        decide(all, &self.workload, &intent.target, intent.replicas, self.hpa)
    }

    /// What an intent is told whose write is stored.
    fn look(
        &mut self,
        delivery: &Delivery<'_>,
        mut written: Written,
        found: Found,
        context: &Context<'_>,
    ) -> Answer {
        let seen = match self.seen(delivery, &found) {
            Ok(seen) => seen,
            Err(_) if self.delivered == Confirmed::Accepted => {
                return self.done(delivery, &written, None);
            }
            // Nobody answers: it stays written, and is looked at later.
            Err(fault) if fault.retry != Retry::Never => {
                return self.wait(delivery, written, &fault.message, AGAIN);
            }
            Err(_) if found.is_none() => {
                return self.give_up(delivery, verdict::deleted(&self.location(delivery)));
            }
            Err(fault) => return self.give_up(delivery, fault),
        };
        if written.through.is_none() && written.generation.is_none() {
            written.generation = seen.metadata.generation;
            let version = seen.metadata.resource_version.clone();
            written.resource_version = version.unwrap_or_default();
        }
        let after = self.spend(delivery, &mut written);
        let standing = judge(&self.workload, &seen, &written, after);
        match standing {
            Standing::Observed { .. } | Standing::Failed { .. } | Standing::Converged => {
                written.observed_at.get_or_insert_with(now);
            }
            Standing::Accepted { .. } | Standing::Terminating | Standing::Changed { .. } => {}
        }
        let converged_at = (standing == Standing::Converged).then(now);
        // What was observed once has been: a later change by somebody else does not undo it.
        let was_observed = self.delivered == Confirmed::Observed && written.observed_at.is_some();
        if was_observed || is_enough(&standing, self.delivered) {
            return self.done(delivery, &written, converged_at);
        }
        match verdict::missing(&self.location(delivery), written.wanted, standing) {
            Ok(missing) => {
                let again = self.follow(delivery, &written, context);
                self.wait(delivery, written, &missing, again)
            }
            Err(fault) => self.give_up(delivery, fault),
        }
    }

    /// Has the object watched, if that can be; when it is to be looked at in any case.
    fn follow(
        &mut self,
        delivery: &Delivery<'_>,
        written: &Written,
        context: &Context<'_>,
    ) -> Duration {
        let (kind, delivered) = (self.workload.clone(), self.delivered);
        let (place, written) = (self.location(delivery), written.clone());
        let wanted = Box::new(move |object: &Value| {
            // Without the time that would tell a failure: that one is found by the look in between.
            let worth = |seen| match judge(&kind, &seen, &written, Duration::ZERO) {
                Standing::Terminating | Standing::Changed { .. } => true,
                standing => is_enough(&standing, delivered),
            };
            workload(object, &place).is_ok_and(worth)
        });
        let arguments = self.calls.watching(&delivery.intent.namespace, &delivery.intent.target);
        let (program, waker) = (&self.calls.program, context.waker);
        match self.watches.follow(delivery.seq, program, arguments, wanted, waker) {
            true => AGAIN_WATCHED,
            false => AGAIN,
        }
    }

    /// Pending, unless the time for that is over.
    fn wait(
        &mut self,
        delivery: &Delivery<'_>,
        mut written: Written,
        missing: &str,
        again: Duration,
    ) -> Answer {
        let spent = self.spend(delivery, &mut written);
        let left = self.verify_timeout.saturating_sub(spent);
        if left.is_zero() {
            let (place, wanted) = (self.location(delivery), written.wanted);
            let fault = verdict::timed_out(&place, wanted, self.verify_timeout, missing);
            return self.give_up(delivery, fault);
        }
        let step = Progress::Written(written).step();
        Answer::Pending { step, again: again.min(left) }
    }

    /// Adds the time since this process looked last, and gives the sum.
    fn spend(&mut self, delivery: &Delivery<'_>, written: &mut Written) -> Duration {
        let now = Instant::now();
        if let Some(looked) = self.looked.insert(delivery.seq, now) {
            written.spent_ms += (now - looked).as_millis() as u64;
        }
        Duration::from_millis(written.spent_ms)
    }

    fn done(
        &mut self,
        delivery: &Delivery<'_>,
        written: &Written,
        converged_at: Option<Timestamp>,
    ) -> Answer {
        self.forget(delivery.seq);
        let mut further = written.receipt(converged_at);
        if written.wanted != delivery.intent.replicas {
            further.insert("replicas".to_owned(), written.wanted.into());
        }
        let (location, unchanged) = (self.location(delivery), written.unchanged);
        Answer::Done(Confirmation { location, unchanged, further })
    }

    fn give_up(&mut self, delivery: &Delivery<'_>, fault: Fault) -> Answer {
        if fault.retry == Retry::Never {
            self.forget(delivery.seq);
        }
        Answer::Failed(fault)
    }
}

/// What is stored once the decision is carried out. kubectl does not show the object of after the
/// write: its version is at least the one of before, and the next look tells the rest.
fn stored(seen: &rollout::Wire, decision: &Decision) -> Written {
    let version = match decision {
        Decision::Scale(_) => seen.metadata.resource_version.clone(),
        Decision::RaiseFloor { resource_version, .. } => Some(resource_version.clone()),
    };
    Written::by(decision, version.unwrap_or_default(), now())
}

/// Whether there is nothing to write.
fn is_so(seen: &rollout::Wire, decision: &Decision) -> bool {
    match decision {
        Decision::Scale(to) => seen.spec.replicas == Some(i64::from(*to)),
        Decision::RaiseFloor { from, to, .. } => from == to,
    }
}

fn is_enough(standing: &Standing, delivered: Confirmed) -> bool {
    match delivered {
        Confirmed::Accepted => true,
        Confirmed::Observed => standing.is_observed(),
        Confirmed::Converged => matches!(standing, Standing::Converged),
    }
}
