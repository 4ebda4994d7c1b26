//! Commits to a branch of a remote repository, which a GitOps tool takes from there.
//!
//! One commit a batch, on top of what the branch holds now, pushed without force: where somebody
//! else was first, the batch is made anew on top of that. `Done` is said of what the branch is known
//! to hold: the push was accepted, or a fetch shows our commit or the very content.
//!
//! A crash or a cut line leaves open whether a push arrived. Each commit therefore names its intents
//! in trailers, and an intent that the last commits name is not delivered twice, whatever others
//! have made of its files since.
//!
//! Invariant: the fence is asked between the last look and the push, and a push only ever adds to
//! the branch.
//! Not here: the clone (`clone`), running git (`program`), what a package may replace (`own`).

mod clone;
mod comparison;
mod existing;
mod message;
mod own;
mod program;
mod saying;
mod site;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::GitSettings;
use crate::fault;
use crate::model::Code;
use crate::sink::{Answer, Confirmation, Context, Delivery, Fatal, Fault, Retry, Sink, Step};

use clone::{Change, Commit, Pushed};
use existing::Existing;
use program::Program;
use site::Site;

pub use comparison::compare;
pub use site::Error;

/// Intents in one commit: a message that people still read, and a push that is soon done.
const BATCH_MAX: usize = 64;

/// How often a batch is made anew because others were faster; then the delay of a retry helps more.
const ROUNDS_MAX: usize = 8;

/// Commits to one branch of one remote.
#[derive(Debug)]
pub struct Git {
    name: String,
    clone: clone::Clone,
    /// The kind that is edited; packages of our own if there is none.
    edits: Option<String>,
}

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
    /// `dir` belongs to this sink alone; it is made when it is first needed.
    ///
    /// # Errors
    ///
    /// A setting cannot be meant so.
    pub fn new(name: String, settings: &GitSettings, dir: &Path) -> Result<Self, Error> {
        let site = Site::new(settings)?;
        let dir = std::path::absolute(dir).map_err(|source| Error::Absolute { source })?;
        let program = Program::new(&site, settings, &dir);
        let is_signed = settings.signing_key.is_some();
        let clone = clone::Clone::new(program, site, settings.token_file.clone(), is_signed);
        Ok(Git { name, clone, edits: settings.edits.then(|| settings.kind.clone()) })
    }
}

impl Sink for Git {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn probe(&mut self) -> Result<(), Fault> {
        let due = Instant::now() + crate::limits::DELIVERY_MAX;
        self.clone.program.prepare().map_err(|error| Fault {
            code: Code::SinkUnavailable,
            message: format!(
                "the directory `{}` cannot be used: {error}",
                self.clone.program.dir().display()
            ),
            retry: Retry::Later,
        })?;
        let asked = self.clone.program.run(&["--version"], b"", 1 << 10, due);
        let version = asked
            .map_err(|trouble| self.clone.fault("the version cannot be asked for", trouble))?;
        check_version(&String::from_utf8_lossy(&version))?;
        self.clone.look(due)
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        // Before the clone is touched: it is the leader's.
        context.fence.check()?;
        let mut answers: Vec<Option<Answer>> = batch.iter().map(|_| None).collect();
        let mut groups = VecDeque::from([(0..batch.len()).collect::<Vec<_>>()]);
        while let Some(group) = groups.pop_front() {
            match self.settle(&group, batch, context, &mut answers)? {
                // One of them is at fault, and the others are not to wait for it.
                Some((open, _)) if open.len() > 1 => {
                    groups.extend(open.into_iter().map(|at| vec![at]))
                }
                Some((open, fault)) => fail(&open, &fault, &mut answers),
                None => {}
            }
        }
        // No time was left for these, or the branch never stood still.
        let unasked = || Answer::Failed(moving(self.clone.site()));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(unasked)).collect())
    }
}

impl Git {
    /// Goes round until each of the group has its answer; what the remote declines is given back.
    fn settle(
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
    fn plan(
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
        let dir = self.clone.site().path(package);
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
        for delivery in deliveries {
            context.journal.record(delivery.seq, &step)?;
        }
        context.fence.check()?;
        match fault::step("git.push", || self.clone.push(&commit, due))? {
            Pushed::Accepted => {
                for at in open {
                    answers[at] = Some(self.done(&commit, false));
                }
                Ok(Round::Settled)
            }
            Pushed::Moved if Instant::now() < due => Ok(Round::Again),
            Pushed::Moved => Err(moving(self.clone.site()).into()),
            Pushed::Declined(fault) => Ok(Round::Declined(open, fault)),
        }
    }

    fn done(&self, commit: &str, unchanged: bool) -> Answer {
        let branch = self.clone.site().branch.clone().into();
        let further = BTreeMap::from([("branch".to_owned(), branch)]);
        Answer::Done(Confirmation { location: commit.to_owned(), unchanged, further })
    }
}

/// Older ones know no configuration file for one call.
const VERSION_MIN: (u32, u32) = (2, 32);

fn check_version(said: &str) -> Result<(), Fault> {
    let mut numbers = said.trim().trim_start_matches("git version ").split('.');
    let mut number = || numbers.next()?.parse::<u32>().ok();
    if number().zip(number()).is_some_and(|version| version >= VERSION_MIN) {
        return Ok(());
    }
    let (major, minor) = VERSION_MIN;
    let message = format!("`{}` is no git {major}.{minor} or newer", saying::telling(said));
    Err(Fault { code: Code::SinkUnavailable, message, retry: Retry::Later })
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

fn fail(open: &[usize], fault: &Fault, answers: &mut [Option<Answer>]) {
    for at in open {
        answers[*at] = Some(Answer::Failed(fault.clone()));
    }
}

fn moving(site: &Site) -> Fault {
    Fault {
        code: Code::SinkUnavailable,
        message: format!(
            "branch `{}` of `{}` did not take the commit in time: others were faster, or it is slow",
            site.branch, site.remote
        ),
        retry: Retry::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_git_and_what_is_no_git_are_told() {
        for said in ["git version 2.32.0", "git version 2.39.5\n", "git version 3.0.rc1"] {
            check_version(said).unwrap();
        }
        for said in ["git version 2.31.9", "git version 1.99", "hello", "", "git version x.y"] {
            check_version(said).unwrap_err();
        }
        let message = check_version("git version 2.17.1\n").unwrap_err().message;
        assert_eq!(message, "`git version 2.17.1` is no git 2.32 or newer");
    }
}
