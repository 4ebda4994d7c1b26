//! One target that is being verified: what was written, what was seen of it since, and what to
//! answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::config::{Confirmed, Workload};
use crate::model::{Code, Seq, Timestamp};
use crate::sink::workload::rollout::{self, Standing, judge};
use crate::sink::workload::{Progress, Written, is_at_least, verdict};
use crate::sink::{Answer, Confirmation, Fault, Retry, Waker};

/// How long a pending delivery waits for a wake: as long as it has taken so far, within these.
/// Wakes are hints, and a full queue drops them. The longest is also how often the time spent is kept,
/// and so what a crash may add to the time allowed.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// What a receipt says besides the location.
pub type Receipt = BTreeMap<String, serde_json::Value>;

/// What a delivery is held to.
#[derive(Clone, Debug)]
pub struct Rule {
    pub kind: Workload,
    pub delivered: Confirmed,
    pub verify_timeout: Duration,
}

/// A target under verification.
pub struct Subject {
    pub seq: Seq,
    pub location: String,
    /// What the intent asks for; an autoscaler's bounds may have made it another count.
    asked: u32,
    /// `None` while the write is on its way.
    pub written: Option<Written>,
    /// When this process began.
    since: Instant,
    seen: Option<rollout::Wire>,
    gone: bool,
    converged_at: Option<Timestamp>,
    waker: Waker,
    woken: bool,
}

/// What a subject has come to.
enum Verdict {
    Reached,
    Waiting { missing: String },
    Failed(Fault),
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("seq", &self.seq).finish_non_exhaustive()
    }
}

impl Subject {
    /// One that is about to be written.
    pub fn new(seq: Seq, location: String, asked: u32, waker: Waker) -> Self {
        Subject {
            seq,
            location,
            asked,
            written: None,
            since: Instant::now(),
            seen: None,
            gone: false,
            converged_at: None,
            waker,
            woken: false,
        }
    }

    /// Takes what a watch or a read shows, and asks for a look if that settles it.
    pub fn see(&mut self, object: rollout::Wire, rule: &Rule, now: Timestamp) {
        let version = |it: &rollout::Wire| it.metadata.resource_version.clone().unwrap_or_default();
        let is_older = self
            .seen
            .as_ref()
            .is_some_and(|seen| is_at_least(&version(&object), &version(seen)) == Some(false));
        if is_older {
            return;
        }
        self.seen = Some(object);
        self.gone = false;
        self.look(rule, now);
    }

    /// It is not there any more.
    pub fn lose(&mut self, rule: &Rule, now: Timestamp) {
        self.gone = true;
        self.look(rule, now);
    }

    /// The write is stored.
    pub fn begin(&mut self, written: Written, rule: &Rule, now: Timestamp) {
        self.written = Some(written);
        self.since = Instant::now();
        // Who begins asks for the answer next.
        self.woken = true;
        self.look(rule, now);
    }

    /// The answer now; `trouble` is why nothing new may have been seen.
    pub fn answer(&mut self, rule: &Rule, trouble: Option<&Fault>, now: Timestamp) -> Answer {
        self.woken = false;
        let verdict = self.look_quietly(rule, now);
        let (Some(written), location) = (&self.written, self.location.clone()) else {
            // Never asked before `begin`; a wait is right in any case.
            let message = "nothing is written".to_owned();
            let code = Code::SinkUnavailable;
            return Answer::Failed(Fault { code, message, retry: Retry::Later });
        };
        match verdict {
            Verdict::Reached => Answer::Done(Confirmation {
                location,
                unchanged: written.unchanged,
                further: receipt(written, self.asked, self.converged_at),
            }),
            Verdict::Failed(fault) => Answer::Failed(fault),
            Verdict::Waiting { missing } => {
                let spent = spent(written, self.since);
                let Some(left) = rule.verify_timeout.checked_sub(spent).filter(|it| !it.is_zero())
                else {
                    let blind = trouble.map_or_else(String::new, |it| format!(" ({})", it.message));
                    let (wanted, missing) = (written.wanted, format!("{missing}{blind}"));
                    let allowed = rule.verify_timeout;
                    let fault = verdict::timed_out(&location, wanted, allowed, &missing);
                    return Answer::Failed(fault);
                };
                let spent_ms = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
                let written = Written { spent_ms, ..written.clone() };
                let again = left.min(spent.clamp(AGAIN_MIN, AGAIN_MAX));
                Answer::Pending { step: Progress::Written(written).step(), again }
            }
        }
    }

    fn look(&mut self, rule: &Rule, now: Timestamp) {
        let is_settled = !matches!(self.look_quietly(rule, now), Verdict::Waiting { .. });
        if is_settled && !self.woken {
            self.woken = true;
            (self.waker)(self.seq);
        }
    }

    fn look_quietly(&mut self, rule: &Rule, now: Timestamp) -> Verdict {
        let waiting = |missing: &str| Verdict::Waiting { missing: missing.to_owned() };
        let Some(written) = &mut self.written else { return waiting("it has not been written") };
        if self.gone {
            return Verdict::Failed(verdict::deleted(&self.location));
        }
        let Some(seen) = &self.seen else {
            return waiting("the server has shown nothing of it yet");
        };
        let standing = judge(&rule.kind, seen, written, spent(written, self.since));
        if standing.is_observed() {
            written.observed_at.get_or_insert(now);
        }
        if standing == Standing::Converged {
            self.converged_at.get_or_insert(now);
        }
        // What was observed once has been: a later change by somebody else does not undo it.
        let reached = match rule.delivered {
            Confirmed::Accepted => true,
            Confirmed::Observed => written.observed_at.is_some(),
            Confirmed::Converged => self.converged_at.is_some(),
        };
        if reached {
            return Verdict::Reached;
        }
        match verdict::missing(&self.location, written.wanted, standing) {
            Ok(missing) => Verdict::Waiting { missing },
            Err(fault) => Verdict::Failed(fault),
        }
    }
}

/// What goes into the receipt, with the count where it is not the one that was asked for.
pub fn receipt(written: &Written, asked: u32, converged_at: Option<Timestamp>) -> Receipt {
    let mut receipt = written.receipt(converged_at);
    if written.wanted != asked {
        receipt.insert("replicas".to_owned(), written.wanted.into());
    }
    receipt
}

fn spent(written: &Written, since: Instant) -> Duration {
    Duration::from_millis(written.spent_ms).saturating_add(since.elapsed())
}
