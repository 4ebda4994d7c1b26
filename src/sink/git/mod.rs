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
//! Not here: the rounds (`round`), the clone (`clone`), running git (`program`), what a package may
//! replace (`own`).

mod clone;
mod commits;
mod comparison;
mod existing;
mod message;
mod objects;
mod own;
mod program;
mod round;
mod saying;
mod site;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use crate::config::GitSettings;
use crate::model::Code;
use crate::sink::{Answer, Context, Delivery, Fatal, Fault, Retry, Sink};

use program::Program;
use round::{fail, moving};
use site::Site;

pub use comparison::{compare, probe};
pub use site::Error;

/// Intents in one commit: a message that people still read, and a push that is soon done.
const BATCH_MAX: usize = 64;

/// Commits to one branch of one remote.
#[derive(Debug)]
pub struct Git {
    name: String,
    clone: clone::Clone,
    /// The kind that is edited; packages of our own if there is none.
    edits: Option<String>,
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
        let unasked = || Answer::Failed(moving(&self.clone.site));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(unasked)).collect())
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
