//! Delivers packages as PackageRevisions of Porch (v1alpha1), which keeps them in git.
//!
//! One delivery is a cycle: a Draft is made, as the package's first revision or as a copy of the
//! newest published one; files are written; it is proposed, and approved where the policy says so.
//! `decide` picks each request from what was seen; `cycle` sends it along the `line`. Each write is
//! noted in the ledger, and what became of it is looked up under a name that follows from the intent,
//! so a crash, a timeout or a lost draft is continued from what the server shows.
//!
//! The sink has two hands: what one reads for its package costs no time while the other one writes.
//!
//! Invariants: `Done` is said of a lifecycle that was in an answer; every write carries the
//! resourceVersion that was read, but for the two that cannot (create, delete); no dry-run is ever
//! sent, since Porch carries it out; one writer a Repository in this process, since Porch's cache
//! drops drafts otherwise.
//! Not here: publishing what others have proposed, the newer API v1alpha2.

mod comparison;
mod cycle;
mod decide;
mod line;
mod refusal;
mod seen;
mod site;
#[cfg(test)]
mod tests;
mod wanted;
mod wire;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::{PorchPolicy, PorchSettings};
use crate::limits::DELIVERY_MAX;
use crate::model::{Code, TargetKey};
use crate::sink::cluster::{Cluster, Clusters, Trouble};
use crate::sink::{Answer, Context, Delivery, Fatal, Fault, Retry, Sink};

use cycle::Cycle;
use line::Line;
use refusal::Meaning;
use seen::{Note, Seen};
use site::Site;
use wanted::Wanted;
use wire::{PackageRevision, Repository};

pub use comparison::compare;
pub use site::Error;

/// Targets that are known to have no draft of ours; past this they are looked up again (some 1 MiB).
const CLEAN_MAX: usize = 4_096;

/// One Repository of a Porch.
#[derive(Debug)]
pub struct Porch {
    name: String,
    cluster: Arc<Cluster>,
    site: Site,
    settings: PorchSettings,
    known: Arc<Mutex<Known>>,
}

/// What both hands know from earlier deliveries.
#[derive(Debug, Default)]
struct Known {
    /// The Repository was ready, and nothing has failed since.
    is_checked: bool,
    /// Targets whose last delivery was published without trouble, so that it left nothing to clean up.
    clean: HashSet<TargetKey>,
}

impl Porch {
    /// # Errors
    ///
    /// A setting cannot be meant so.
    pub fn new(name: String, settings: &PorchSettings, clusters: &Clusters) -> Result<Self, Error> {
        Ok(Porch {
            name,
            cluster: clusters.at(settings.access.clone()),
            site: Site::new(settings)?,
            settings: settings.clone(),
            known: Arc::default(),
        })
    }

    fn line(&self, deadline: Instant) -> Line<'_> {
        Line { cluster: &self.cluster, site: &self.site, timeout: self.settings.timeout, deadline }
    }

    /// Whether the Repository is there, ready, and of the version that we speak.
    fn check(&self, deadline: Instant) -> Result<(), Fault> {
        let (line, name) = (self.line(deadline), &self.site.repository);
        let what = format!("read repository `{name}`");
        let repository: Repository = line
            .wait(line.get(&self.site.repository()))
            .map_err(|trouble| refusal::fault(&what, name, &trouble))?;
        if repository.is_of_v1alpha2() {
            return Err(refusal::newer(name));
        }
        match repository.unready() {
            None => Ok(()),
            Some(why) => Err(Fault {
                code: Code::RepositoryNotReady,
                message: format!("repository `{name}` is not ready: {why}"),
                retry: Retry::Later,
            }),
        }
    }

    fn deliver_one(
        &mut self,
        delivery: &Delivery<'_>,
        context: &Context<'_>,
    ) -> Result<Answer, Fatal> {
        let term = context.fence.term();
        let Delivery { seq, intent, package, .. } = *delivery;
        let mut wanted = Wanted::new(seq, term.ledger, intent, package, &self.settings);
        if let Some(fault) = wanted.refusal(&self.site.repository) {
            return Ok(Answer::Failed(fault));
        }
        wanted.is_first = delivery.last.is_none() && !self.edits();
        let line = self.line(context.deadline);
        // What is read of a shared package holds until somebody writes to it.
        let turn = match self.edits().then(|| line.turn()).transpose() {
            Ok(turn) => turn,
            Err(fault) => return Ok(Answer::Failed(fault)),
        };
        context.fence.check()?;
        let is_checked = self.known().is_checked;
        if !is_checked && let Err(fault) = self.check(context.deadline) {
            return Ok(Answer::Failed(fault));
        }
        let note = delivery.step.and_then(|step| Note::read(&step.0));
        let is_clean = self.known().clean.contains(&package.key);
        let seen = Seen { unpublished: is_clean.then(Vec::new), ..Seen::default() };
        let mut cycle = Cycle::new(line, wanted, context, note, seen, turn);
        let answer = cycle.run()?;
        let is_smooth = cycle.is_smooth();
        self.remember(&answer, &package.key, is_smooth);
        Ok(answer)
    }

    fn edits(&self) -> bool {
        self.settings.edit_package.is_some()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, answer: &Answer, key: &TargetKey, is_smooth: bool) {
        let mut known = self.known();
        known.is_checked = !matches!(answer, Answer::Failed(_));
        let is_done = matches!(answer, Answer::Done(_)) && is_smooth;
        if !is_done || self.settings.policy != PorchPolicy::Approve {
            known.clean.remove(key);
            return;
        }
        if known.clean.len() >= CLEAN_MAX {
            known.clean.clear();
        }
        known.clean.insert(key.clone());
    }
}

impl Sink for Porch {
    fn name(&self) -> &str {
        &self.name
    }

    /// One takes a second or so, and its answer is not to wait for those of others.
    fn batch_max(&self) -> usize {
        1
    }

    /// Looks around for one target while the other hand writes for another. Where all targets share a
    /// package, what it sees would not hold.
    fn second_hand(&self) -> Option<Box<dyn Sink>> {
        let beside = || Porch {
            name: self.name.clone(),
            cluster: Arc::clone(&self.cluster),
            site: self.site.clone(),
            settings: self.settings.clone(),
            known: Arc::clone(&self.known),
        };
        (!self.edits()).then(|| Box::new(beside()) as Box<dyn Sink>)
    }

    fn probe(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + DELIVERY_MAX;
        self.check(deadline)?;
        // No such revision is ever made; to be told so takes what a delivery takes.
        let path = self.site.revision(&self.site.name("probe", "none"));
        let line = self.line(deadline);
        let asked: Result<PackageRevision, Trouble> = line.wait(line.get(&path));
        match asked {
            Err(trouble) if refusal::meaning(&trouble) != Meaning::Gone => {
                Err(refusal::fault("read revisions", &self.site.repository, &trouble))
            }
            _ => Ok(()),
        }
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        batch.iter().map(|delivery| self.deliver_one(delivery, context)).collect()
    }
}
