//! One round after the other: fetch, compare, commit, push, until each delivery has its answer.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::fault;
use crate::model::Code;
use crate::sink::git::commits::{Change, Pushed};
use crate::sink::git::existing::Existing;
use crate::sink::git::objects::Commit;
use crate::sink::git::site::Site;
use crate::sink::git::{Git, message, own};
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, Step};

/// How often a batch is made anew because others were faster; then the delay of a retry helps more.
const ROUNDS_MAX: usize = 8;

/// What is kept of a push before it happens.
#[derive(Debug, Serialize, Deserialize)]
struct Offered {
    commit: String,
}

/// How one round with a group ended.
enum Round {
    /// Each has its answer.
    Settled,
    /// The branch has moved on: once more.
    Again,
    /// The remote declines what these hold.
    Declined(Vec<usize>, Fault),
}

impl Git {
    /// Goes round until each of the group has its answer; what the remote declines is given back.
    pub fn settle(
        &mut self,
        group: &[usize],
        batch: &[Delivery<'_>],
        context: &Context<'_>,
        answers: &mut [Option<Answer>],
    ) -> Result<Option<(Vec<usize>, Fault)>, Fatal> {
        for _ in 0..ROUNDS_MAX {
            if Instant::now() >= context.deadline {
                break;
            }
            let open: Vec<usize> =
                group.iter().copied().filter(|at| answers[*at].is_none()).collect();
            if open.is_empty() {
                return Ok(None);
            }
            match self.round(&open, batch, context, answers) {
                Ok(Round::Settled) => return Ok(None),
                Ok(Round::Again) => {}
                Ok(Round::Declined(declined, fault)) => return Ok(Some((declined, fault))),
                Err(Stop::Fatal(fatal)) => return Err(fatal),
                Err(Stop::Fault(fault)) => {
                    let unanswered = open.into_iter().filter(|at| answers[*at].is_none());
                    fail(&unanswered.collect::<Vec<_>>(), &fault, answers);
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Fetches, compares, and offers one commit with all that differs.
    fn round(
        &mut self,
        open: &[usize],
        batch: &[Delivery<'_>],
        context: &Context<'_>,
        answers: &mut [Option<Answer>],
    ) -> Result<Round, Stop> {
        let due = context.deadline;
        let term = context.fence.term();
        fault::step("git.fetch", || self.clone.prepare(due))?;
        let base = self.clone.fetch(due)?;
        let commits = match &base {
            Some(base) => self.clone.commits(base, due)?,
            None => Vec::new(),
        };
        let mut wanted: Vec<(usize, Vec<Change>)> = Vec::new();
        let mut existing = Existing::default();
        let mut names = HashSet::new();
        for at in open {
            let delivery = &batch[*at];
            let id = message::intent_id(delivery.seq, term);
            if let Some(commit) = delivered(&commits, delivery, &id) {
                answers[*at] = Some(self.done(commit, false));
                continue;
            }
            let fresh = names.insert(delivery.package.name.as_str());
            let planned = self.plan(delivery, base.as_deref(), fresh, &mut existing, due);
            match (planned, &base) {
                (Ok(changes), Some(base)) if changes.is_empty() => {
                    let unchanged = delivery.last == Some(delivery.package.digest);
                    answers[*at] = Some(self.done(base, unchanged));
                }
                (Ok(changes), _) => wanted.push((*at, changes)),
                // What concerns the clone concerns all; the rest is about this one.
                (Err(fault), _) if fault.retry == Retry::Never => {
                    answers[*at] = Some(Answer::Failed(fault));
                }
                (Err(fault), _) => return Err(fault.into()),
            }
        }
        if wanted.is_empty() {
            return Ok(Round::Settled);
        }
        self.offer(base.as_deref(), wanted, batch, context, answers)
    }

    /// What the delivery needs to be written; empty if it stands there.
    pub fn plan(
        &mut self,
        delivery: &Delivery<'_>,
        base: Option<&str>,
        fresh: bool,
        existing: &mut Existing,
        due: Instant,
    ) -> Result<Vec<Change>, Fault> {
        if let Some(kind) = &self.edits {
            return existing.plan(&mut self.clone, base, kind, delivery, due);
        }
        let package = delivery.package;
        let dir = self.clone.site.path(package);
        let conflict = |what: &str| Fault {
            code: Code::PackageConflict,
            message: format!("`{dir}` {what}; move it away, then retry"),
            retry: Retry::Never,
        };
        if !fresh {
            return Err(conflict("is the package of another intent delivered at the same time"));
        }
        let objects = match base {
            Some(base) => self.clone.read(&own::names(base, &dir, package), due)?,
            None => package.files.iter().map(|_| None).collect(),
        };
        own::compare(&dir, package, &objects).map_err(|what| conflict(&what))
    }

    /// Commits the changes and pushes, under the fence.
    fn offer(
        &mut self,
        base: Option<&str>,
        wanted: Vec<(usize, Vec<Change>)>,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
        answers: &mut [Option<Answer>],
    ) -> Result<Round, Stop> {
        let due = context.deadline;
        let deliveries: Vec<&Delivery<'_>> = wanted.iter().map(|(at, _)| &batch[*at]).collect();
        let text = message::message(&deliveries, context.fence.term());
        let (open, changes): (Vec<usize>, Vec<Vec<Change>>) = wanted.into_iter().unzip();
        let changes = changes.concat();
        let commit = fault::step("git.commit", || self.clone.commit(base, &changes, &text, due))?;
        let offered = Offered { commit: commit.clone() };
        let step = Step(serde_json::to_string(&offered).expect("a text becomes JSON"));
        let steps: Vec<_> =
            deliveries.iter().map(|delivery| (delivery.seq, step.clone())).collect();
        context.journal.record_all(&steps)?;
        context.fence.check()?;
        match fault::step("git.push", || self.clone.push(&commit, due))? {
            Pushed::Accepted => {
                for at in open {
                    answers[at] = Some(self.done(&commit, false));
                }
                Ok(Round::Settled)
            }
            Pushed::Moved if Instant::now() < due => Ok(Round::Again),
            Pushed::Moved => Err(moving(&self.clone.site).into()),
            Pushed::Declined(fault) => Ok(Round::Declined(open, fault)),
        }
    }

    fn done(&self, commit: &str, unchanged: bool) -> Answer {
        let branch = self.clone.site.branch.clone().into();
        let further = BTreeMap::from([("branch".to_owned(), branch)]);
        Answer::Done(Confirmation { location: commit.to_owned(), unchanged, further })
    }
}

/// Why a round ended without a result.
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

/// The commit in which the branch already has this intent: by its trailer, or as it was journalled.
fn delivered<'a>(commits: &'a [Commit], delivery: &Delivery<'_>, id: &str) -> Option<&'a str> {
    let offered = delivery.step.and_then(|step| serde_json::from_str::<Offered>(&step.0).ok());
    let is_it = |commit: &&Commit| {
        commit.intents.iter().any(|intent| intent == id)
            || offered.as_ref().is_some_and(|offered| offered.commit == commit.id)
    };
    commits.iter().find(is_it).map(|commit| commit.id.as_str())
}

pub fn fail(open: &[usize], fault: &Fault, answers: &mut [Option<Answer>]) {
    for at in open {
        answers[*at] = Some(Answer::Failed(fault.clone()));
    }
}

pub fn moving(site: &Site) -> Fault {
    Fault {
        code: Code::SinkUnavailable,
        message: format!(
            "branch `{}` of `{}` did not take the commit in time: others were faster, or it is slow",
            site.branch, site.remote
        ),
        retry: Retry::Later,
    }
}
