//! Scales workloads with the kubectl program, for sites where only kubectl has the credentials.
//!
//! A batch costs a read of what it names and of the autoscalers there, by namespace; then one
//! `kubectl scale` an intent, conditional on the version that was read; then another read, which
//! shows what has come of it. `Done` is said of what such a read shows. What is not there yet is
//! followed by a watch, and looked at again.
//!
//! A crash or a lost answer leaves open whether a write happened. The journal says that it was about
//! to, and the next look tells: nothing is written that is there already.
//!
//! Invariant: the fence is asked before each write, and each write holds only for the version of the
//! object that was looked at.
//! Not here: what may be written and how far it has come (`sink::workload`), what kubectl says
//! (`saying`, `looks`), running it (`program`, `calls`), following (`watch`), the deliveries of one
//! namespace (`round`).

mod calls;
mod comparison;
mod looks;
mod program;
mod round;
mod saying;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::config::{Confirmed, HpaRule, KubectlSettings, Workload};
use crate::limits::{DELIVERY_MAX, IN_FLIGHT_MAX};
use crate::model::{Code, Intent, IntentType, Seq};
use crate::sink::{Answer, Context, Delivery, Fatal, Fault, Retry, Sink};

use calls::Calls;
use program::Program;
use watch::Watches;

pub use comparison::compare;

/// Intents in one batch: a `kubectl scale` each takes a tenth of a second and more, and the others
/// of the batch wait for their answers meanwhile.
const BATCH_MAX: usize = 16;

/// Why a kubectl sink cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`api_version` is to be a group and a version, such as `apps/v1`")]
    ApiVersion,
    #[error("`plural` is to be a kind's name in addresses, such as `deployments`")]
    Plural,
}

/// Scales workloads with kubectl.
#[derive(Debug)]
pub struct Kubectl {
    name: String,
    calls: Calls,
    workload: Workload,
    hpa: HpaRule,
    delivered: Confirmed,
    verify_timeout: Duration,
    watches: Watches,
    /// When this process last looked how far a write has come: that time counts.
    looked: HashMap<Seq, Instant>,
    /// The program is one that can be used.
    is_known: bool,
}

impl Kubectl {
    /// `cache` is where kubectl keeps what it finds out about the server, unless `$KUBECACHEDIR`
    /// says otherwise.
    ///
    /// # Errors
    ///
    /// A setting cannot be meant so.
    pub fn new(
        name: String,
        settings: &KubectlSettings,
        cache: Option<PathBuf>,
    ) -> Result<Self, Error> {
        Ok(Kubectl {
            name,
            calls: Calls::new(Program::new(settings, cache), &settings.workload)?,
            workload: settings.workload.clone(),
            hpa: settings.hpa,
            delivered: settings.delivered,
            verify_timeout: settings.verify_timeout,
            watches: Watches::default(),
            looked: HashMap::new(),
            is_known: false,
        })
    }

    /// Asks for the version, until it was one that will do.
    fn know(&mut self, due: Instant) -> Result<(), Fault> {
        if !self.is_known {
            let version = self.calls.version(due);
            check_version(&version.map_err(|trouble| trouble.fault("ask kubectl its version"))?)?;
            self.is_known = true;
        }
        Ok(())
    }

    /// Keeps only what may still be asked for: the desk does not say when it gives up.
    fn forget_old(&mut self) {
        while self.looked.len() > IN_FLIGHT_MAX {
            let Some(oldest) = self.looked.keys().min().copied() else { return };
            self.forget(oldest);
        }
    }

    fn forget(&mut self, seq: Seq) {
        self.looked.remove(&seq);
        self.watches.leave(seq);
    }
}

impl Sink for Kubectl {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn probe(&mut self) -> Result<(), Fault> {
        let due = Instant::now() + DELIVERY_MAX;
        self.is_known = false;
        self.know(due)?;
        self.calls.ask_for_rights(due).map_err(|trouble| trouble.fault("ask the API server"))
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let mut namespaces = BTreeMap::<&str, Vec<usize>>::new();
        for (at, delivery) in batch.iter().enumerate() {
            match delivery.intent.intent_type {
                IntentType::Scaling => {
                    namespaces.entry(&delivery.intent.namespace).or_default().push(at);
                }
                IntentType::Deployment | IntentType::Configuration => {
                    answers[at] = Some(Answer::Failed(unsupported(delivery.intent)));
                }
            }
        }
        if !namespaces.is_empty() {
            let known = self.know(context.deadline);
            for (namespace, open) in namespaces {
                match &known {
                    Ok(()) => self.round(namespace, open, batch, context, &mut answers)?,
                    Err(fault) => {
                        open.iter()
                            .for_each(|at| answers[*at] = Some(Answer::Failed(fault.clone())));
                    }
                }
            }
        }
        self.forget_old();
        Ok(answers
            .into_iter()
            .map(|answer| answer.expect("each delivery is in one namespace"))
            .collect())
    }
}

fn unsupported(intent: &Intent) -> Fault {
    let message =
        format!("kubectl only scales what is there, and this is a {} intent", intent.intent_type);
    Fault { code: Code::UnsupportedIntent, message, retry: Retry::Never }
}

/// The first with `kubectl scale --dry-run=server`; what an older one makes of it, it does.
const VERSION_MIN: (u64, u64) = (1, 19);

fn check_version(said: &Value) -> Result<(), Fault> {
    let version = &said["clientVersion"];
    let git = version["gitVersion"].as_str().unwrap_or_default();
    let mut numbers = git.trim_start_matches('v').split('.');
    let mut number = || numbers.next()?.parse::<u64>().ok();
    if number().zip(number()).is_some_and(|version| version >= VERSION_MIN) {
        return Ok(());
    }
    let shown = crate::sink::child::shown(git.as_bytes());
    let shown = if shown.is_empty() { "the program".to_owned() } else { format!("`{shown}`") };
    let (major, minor) = VERSION_MIN;
    let message = format!("{shown} is no kubectl {major}.{minor} or newer");
    Err(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kubectl_and_what_is_no_kubectl_are_told() {
        let said = |version: &str| serde_json::json!({"clientVersion": {"gitVersion": version}});
        for version in ["v1.19.0", "v1.36.3", "v1.30.2-eks-1552ad0", "v2.0.0"] {
            check_version(&said(version)).unwrap();
        }
        for version in ["v1.18.20", "v0.20.0", "hello", "v1"] {
            let message = check_version(&said(version)).unwrap_err().message;
            assert_eq!(message, format!("`{version}` is no kubectl 1.19 or newer"));
        }
        let message = check_version(&serde_json::json!({})).unwrap_err().message;
        assert_eq!(message, "the program is no kubectl 1.19 or newer");
    }
}
