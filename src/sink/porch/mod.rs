//! Delivers packages as PackageRevisions of Porch (v1alpha1), which keeps them in git.
//!
//! One delivery is a cycle: a Draft is made, as the package's first revision or as a copy of the
//! newest published one; files are written; it is proposed, and approved where the policy says so.
//! `decide` picks each request from what was seen; `cycle` sends it. Each write is noted in the
//! ledger first, and what became of it is looked up under a name that follows from the intent, so a
//! crash, a timeout or a lost draft is continued from what the server shows.
//!
//! Invariants: `Done` is said of a lifecycle that was in an answer; every write carries the
//! resourceVersion that was read, but for the two that cannot (create, delete); no dry-run is ever
//! sent, since Porch carries it out; one writer a Repository in this process, since Porch's cache
//! drops drafts otherwise.
//! Not here: publishing what others have proposed, the newer API v1alpha2.

mod comparison;
mod cycle;
mod decide;
mod refusal;
mod seen;
mod site;
#[cfg(test)]
mod tests;
mod wanted;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{PorchPolicy, PorchSettings};
use crate::limits::DELIVERY_MAX;
use crate::model::{Code, TargetKey};
use crate::sink::cluster::{Cluster, Clusters, Trouble, Turn};
use crate::sink::{Answer, Context, Delivery, Fatal, Fault, Retry, Sink};

use cycle::{Cycle, Line};
use refusal::Meaning;
use seen::Note;
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
            is_checked: false,
            clean: HashSet::new(),
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
            .get(&self.site.repository())
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

    /// Waits until nobody else in this process writes to the Repository.
    fn turn(&self, deadline: Instant) -> Result<Turn, Fault> {
        let thing = format!("repository {}/{}", self.site.namespace, self.site.repository);
        self.cluster
            .block_on(self.cluster.turn(&thing, deadline))
            .map_err(|trouble| trouble.fault(&format!("write to {thing}")))
    }

    fn deliver_one(
        &mut self,
        delivery: &Delivery<'_>,
        context: &Context<'_>,
    ) -> Result<Answer, Fatal> {
        let term = context.fence.term();
        let Delivery { seq, intent, package, .. } = *delivery;
        let wanted = Wanted::new(seq, term.ledger, intent, package, &self.settings);
        if let Some(fault) = wanted.refusal(&self.site.repository) {
            return Ok(Answer::Failed(fault));
        }
        let _turn = match self.turn(context.deadline) {
            Ok(turn) => turn,
            Err(fault) => return Ok(Answer::Failed(fault)),
        };
        context.fence.check()?;
        if !self.is_checked
            && let Err(fault) = self.check(context.deadline)
        {
            return Ok(Answer::Failed(fault));
        }
        let note = delivery.step.and_then(|step| Note::read(&step.0));
        let is_clean = self.clean.contains(&package.key);
        let mut cycle = Cycle::new(self.line(context.deadline), wanted, context, note, is_clean);
        let answer = cycle.run()?;
        let is_smooth = cycle.is_smooth();
        self.remember(&answer, &package.key, is_smooth);
        Ok(answer)
    }

    fn remember(&mut self, answer: &Answer, key: &TargetKey, is_smooth: bool) {
        self.is_checked = !matches!(answer, Answer::Failed(_));
        let is_done = matches!(answer, Answer::Done(_)) && is_smooth;
        if !is_done || self.settings.policy != PorchPolicy::Approve {
            self.clean.remove(key);
            return;
        }
        if self.clean.len() >= CLEAN_MAX {
            self.clean.clear();
        }
        self.clean.insert(key.clone());
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

    fn probe(&mut self) -> Result<(), Fault> {
        let deadline = Instant::now() + DELIVERY_MAX;
        self.check(deadline)?;
        // No such revision is ever made; to be told so takes what a delivery takes.
        let path = self.site.revision(&self.site.name("probe", "none"));
        let asked: Result<PackageRevision, Trouble> = self.line(deadline).get(&path);
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
