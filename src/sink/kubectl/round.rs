//! The deliveries of one namespace: look, write what is to be written, look again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::Confirmed;
use crate::model::Code;
use crate::sink::kubectl::Kubectl;
use crate::sink::kubectl::note::{Kept, Note, Written, now_ms};
use crate::sink::kubectl::object::{Reached, Seen, autoscalers};
use crate::sink::kubectl::plan::{Plan, plan};
use crate::sink::kubectl::saying::Trouble;
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry};

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

/// What a namespace shows: its objects by name, or why that one could not be read.
type Objects = HashMap<String, Result<Value, Trouble>>;

/// All that the steps of one namespace look at.
struct Round<'a> {
    namespace: &'a str,
    context: &'a Context<'a>,
    /// Read when the first write is thought of, for all of them.
    autoscalers: Option<Result<Value, Trouble>>,
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
            let is_followed = matches!(self.note(delivery), Some(Note::Written(_)));
            let object = objects.remove(&delivery.intent.target);
            let looked = match is_followed {
                true => Ok(object),
                false => self.write(delivery, object, &mut round),
            };
            match looked {
                // With the object as it is: it says what has become of it.
                Ok(Some(object)) => answers[at] = Some(self.judge(delivery, Some(object), context)),
                Ok(None) if is_followed => {
                    answers[at] = Some(self.judge(delivery, None, context));
                }
                Ok(None) => stored.push(at),
                Err(Stop::Fault(fault)) => answers[at] = Some(self.give_up(delivery, fault)),
                Err(Stop::Fatal(fatal)) => return Err(fatal),
            }
        }
        if self.delivered > Confirmed::Accepted && !stored.is_empty() {
            objects = self.objects(namespace, &names(&stored), context.deadline);
        }
        for at in stored {
            let delivery = &batch[at];
            let object = objects.remove(&delivery.intent.target);
            answers[at] = Some(self.judge(delivery, object, context));
        }
        Ok(())
    }

    /// Reads the objects in one call; where that fails, each alone, so that one that may not be read
    /// does not hide the others.
    fn objects(&self, namespace: &str, names: &[&str], due: Instant) -> Objects {
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

    fn what(&self, delivery: &Delivery<'_>) -> String {
        let intent = delivery.intent;
        format!("{} {}/{}", self.calls.shown, intent.namespace, intent.target)
    }

    fn seen(
        &self,
        delivery: &Delivery<'_>,
        object: Option<&Result<Value, Trouble>>,
    ) -> Result<Seen, Fault> {
        let what = self.what(delivery);
        let parked = |code, message| Fault { code, message, retry: Retry::Never };
        match object {
            None => Err(parked(Code::TargetNotFound, format!("there is no {what}"))),
            Some(Err(trouble)) => Err(trouble.fault(&format!("read {what}"))),
            Some(Ok(object)) => Seen::read(object).ok_or_else(|| {
                parked(Code::UnsupportedIntent, format!("{what} has no `spec.replicas`"))
            }),
        }
    }

    /// Writes what the intent asks for. Gives the object where nothing was written since it was read.
    fn write(
        &mut self,
        delivery: &Delivery<'_>,
        mut object: Option<Result<Value, Trouble>>,
        round: &mut Round<'_>,
    ) -> Result<Option<Result<Value, Trouble>>, Stop> {
        let what = self.what(delivery);
        let Context { fence, deadline: due, .. } = *round.context;
        let (namespace, name) = (round.namespace, delivery.intent.target.as_str());
        let mut stale = None;
        for _ in 0..LOOKS_MAX {
            let seen = self.seen(delivery, object.as_ref())?;
            let planned = self.plan(delivery, &seen, round)?;
            let before = match self.note(delivery) {
                Some(Note::Writing(before)) => Some(before),
                Some(Note::Written(_)) | None => None,
            };
            let written = Written {
                from: before.as_ref().map_or(seen.replicas, |before| before.from),
                to: planned.to,
                unchanged: before.is_none() && planned.is_nothing(&seen),
                generation: seen.generation,
                floor_of: planned.floor_of.clone(),
                clamped_by: planned.clamped_by.clone(),
                ..before.clone().unwrap_or_default()
            };
            if planned.is_nothing(&seen) {
                self.keep(delivery, Note::Written(accepted(written)));
                return Ok(object);
            }
            let writing = Note::Writing(Written { generation: 0, ..written.clone() });
            round.context.journal.record(delivery.seq, &writing.step())?;
            self.keep(delivery, writing);
            if let Some(floor) = &planned.floor {
                fence.check()?;
                self.calls
                    .floor(namespace, floor, false, due)
                    .map_err(|trouble| self.unwritten(&what, delivery, &trouble))?;
                round.autoscalers = None;
            }
            if planned.to != seen.replicas {
                fence.check()?;
                let scaled = self.calls.scale(
                    namespace,
                    name,
                    planned.to,
                    &seen.resource_version,
                    false,
                    due,
                );
                match scaled {
                    Ok(_) => {}
                    Err(Trouble::Stale(said)) => {
                        stale = Some(said);
                        object = self.objects(namespace, &[name], due).remove(name);
                        round.autoscalers = None;
                        continue;
                    }
                    Err(trouble) => return Err(self.unwritten(&what, delivery, &trouble).into()),
                }
            }
            self.keep(delivery, Note::Written(accepted(Written { generation: 0, ..written })));
            return Ok(None);
        }
        let said = stale.unwrap_or_default();
        let message = format!("cannot scale {what}: others changed it at each try: {said}");
        Err(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later }.into())
    }

    fn plan(
        &self,
        delivery: &Delivery<'_>,
        seen: &Seen,
        round: &mut Round<'_>,
    ) -> Result<Plan, Fault> {
        let (namespace, due) = (round.namespace, round.context.deadline);
        let list = round
            .autoscalers
            .get_or_insert_with(|| self.calls.autoscalers(namespace, due))
            .as_ref()
            .map_err(|trouble| trouble.fault(&format!("read the autoscalers of {namespace}")))?;
        let ours = autoscalers(list, &self.workload, &delivery.intent.target);
        plan(&self.what(delivery), seen, &ours, delivery.intent.replicas, self.hpa)
    }

    /// A write that has failed; if it surely has not happened, nothing is to be remembered of it.
    fn unwritten(&mut self, what: &str, delivery: &Delivery<'_>, trouble: &Trouble) -> Fault {
        if !trouble.leaves_open() {
            // But for a floor that may have been set before: it stays, and is no `unchanged` later.
            let had_floor = self.kept.get(&delivery.seq).is_some_and(
                |kept| matches!(&kept.note, Note::Writing(writing) if writing.floor_of.is_some()),
            );
            if !had_floor {
                self.kept.remove(&delivery.seq);
            }
        }
        trouble.fault(&format!("scale {what}"))
    }

    fn keep(&mut self, delivery: &Delivery<'_>, note: Note) {
        let since = Instant::now();
        let kept = self.kept.entry(delivery.seq);
        kept.and_modify(|kept| kept.note = note.clone()).or_insert(Kept { note, since });
    }

    /// What an intent is told whose write is stored.
    fn judge(
        &mut self,
        delivery: &Delivery<'_>,
        object: Option<Result<Value, Trouble>>,
        context: &Context<'_>,
    ) -> Answer {
        let Some(Note::Written(mut written)) = self.note(delivery) else {
            unreachable!("only what is written is judged");
        };
        if self.delivered == Confirmed::Accepted {
            return self.done(delivery, &written);
        }
        let seen = match self.seen(delivery, object.as_ref()) {
            Ok(seen) => seen,
            // Nobody answers: it stays written, and is looked at later.
            Err(fault) if fault.retry != Retry::Never => {
                return self.wait(delivery, written, &fault.message, AGAIN);
            }
            Err(fault) => return self.give_up(delivery, fault),
        };
        if written.generation == 0 {
            written.generation = seen.generation;
        }
        let reached = seen.reached(written.generation);
        let is_ours =
            seen.replicas == written.to || written.floor_of.is_some() && seen.replicas > written.to;
        if reached >= Reached::Observed {
            written.observed_ms.get_or_insert_with(now_ms);
        }
        if reached == Reached::Converged && is_ours {
            written.converged_ms.get_or_insert_with(now_ms);
        }
        let wanted = match self.delivered {
            Confirmed::Accepted => Reached::Accepted,
            Confirmed::Observed => Reached::Observed,
            Confirmed::Converged => Reached::Converged,
        };
        if wanted == Reached::Converged && !is_ours {
            let what = self.what(delivery);
            let message = format!(
                "somebody else has set the replicas of {what} to {} before all of {} were ready",
                seen.replicas, written.to
            );
            let fault = Fault { code: Code::FieldConflict, message, retry: Retry::Never };
            return self.give_up(delivery, fault);
        }
        if reached >= wanted {
            return self.done(delivery, &written);
        }
        let generation = written.generation;
        let looked_at = Box::new(move |object: &Value| {
            Seen::read(object)
                .is_none_or(|seen| seen.reached(generation) >= wanted || seen.is_terminating)
        });
        let arguments = self.calls.watching(&delivery.intent.namespace, &delivery.intent.target);
        let (program, waker) = (&self.calls.program, context.waker);
        let is_watched = self.watches.follow(delivery.seq, program, arguments, looked_at, waker);
        let again = if is_watched { AGAIN_WATCHED } else { AGAIN };
        self.wait(delivery, written, &seen.lacks(generation), again)
    }

    /// Pending, unless the time for that is over.
    fn wait(
        &mut self,
        delivery: &Delivery<'_>,
        written: Written,
        lacks: &str,
        again: Duration,
    ) -> Answer {
        let note = Note::Written(written);
        let step = note.step();
        self.keep(delivery, note);
        let since = self.kept[&delivery.seq].since;
        let left = self.verify_timeout.saturating_sub(since.elapsed());
        if left.is_zero() {
            let message = format!(
                "{} was scaled, and {:.0} s later {lacks}",
                self.what(delivery),
                self.verify_timeout.as_secs_f64()
            );
            let fault = Fault { code: Code::VerifyTimeout, message, retry: Retry::Never };
            return self.give_up(delivery, fault);
        }
        Answer::Pending { step, again: again.min(left) }
    }

    fn done(&mut self, delivery: &Delivery<'_>, written: &Written) -> Answer {
        self.forget(delivery.seq);
        let intent = delivery.intent;
        Answer::Done(Confirmation {
            location: format!("{}/{}/{}", self.calls.shown, intent.namespace, intent.target),
            unchanged: written.unchanged,
            further: written.receipt(intent.replicas),
        })
    }

    fn give_up(&mut self, delivery: &Delivery<'_>, fault: Fault) -> Answer {
        if fault.retry == Retry::Never {
            self.forget(delivery.seq);
        }
        Answer::Failed(fault)
    }
}

fn accepted(written: Written) -> Written {
    Written { accepted_ms: Some(now_ms()), ..written }
}
