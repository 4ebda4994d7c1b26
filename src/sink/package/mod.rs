//! Keeps one kpt package a target below a directory: the default sink, which needs nothing else.
//!
//! A package is staged as a whole directory, made durable, and put in place by one rename under the
//! fence, so that a reader finds the old one or the new one. What stands there and is not ours is
//! never touched.
//!
//! Invariant: a rename happens only while the packages directory is locked and the fence holds; a
//! `Done` is given only after the syncs that make it last.
//! Not here: what is ours (`standing`), staging and retirement (`slots`), waiting (`lock`).

mod slots;
mod standing;
mod tree;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{
    Access, AtFlags, RenameFlags, StatVfsMountFlags, accessat, fstatvfs, renameat_with,
};
use rustix::io::Errno;

use crate::compose;
use crate::fault;
use crate::limits::GROUP_MAX;
use crate::model::Code;
use crate::sink::lock::{self, Lock};
use crate::sink::{
    Answer, Change, Comparison, Confirmation, Context, Delivery, Fatal, Fault, Retry, Seal, Sink,
};

use slots::{Slot, Slots};
use standing::{Identity, Standing, look};
use tree::Tree;

pub use tree::Error;

/// Keeps packages below one directory.
#[derive(Debug)]
pub struct Package {
    name: String,
    tree: Tree,
    slots: Slots,
    lock: Lock,
    /// Of all hands one publishes at a time, so that none meets another's lock on the directory.
    turn: Arc<Mutex<()>>,
}

/// What one delivery needs.
enum Plan {
    Answered(Answer),
    /// It stands there already, but nobody has seen to it that it lasts.
    Sync,
    Publish {
        slot: Slot,
        replaces: Option<Identity>,
    },
}

/// How an attempt to publish ended.
enum Published {
    /// The slot is the package now, and holds what it replaced, if anything.
    Yes,
    /// Nothing has changed for good, and the slot is as it was.
    No(Fault),
    /// The slot was visible for a moment.
    TakenBack(Fault),
}

impl Package {
    /// Opens the directory and creates what is missing.
    ///
    /// # Errors
    ///
    /// [`Error`] says which directory cannot be used.
    pub fn open(name: String, dir: &Path) -> Result<Self, Error> {
        let tree = Tree::open(dir)?;
        Ok(Package { name, tree, slots: Slots::new(), lock: Lock::default(), turn: Arc::default() })
    }
}

/// What a delivery of the package to `dir` would change. Nothing is made, not even the directory.
///
/// # Errors
///
/// The fault that the delivery would meet.
pub fn compare(dir: &Path, package: &compose::Package) -> Result<Comparison, Fault> {
    let at = |what: &str| format!("the packages directory `{}` {what}", dir.display());
    let unavailable = |error: io::Error| Fault {
        code: Code::SinkUnavailable,
        message: at(&format!("cannot be read: {error}")),
        retry: Retry::Later,
    };
    let mut options = std::fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC).open(dir);
    let standing = match opened {
        Ok(packages) => look(&packages, package).map_err(unavailable)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Standing::Nothing,
        Err(error) => return Err(unavailable(error)),
    };
    let ours = match standing {
        Standing::Ours(ours) if ours.equal => return Ok(Comparison::Same),
        Standing::Ours(ours) => Some(ours),
        Standing::Nothing => None,
        Standing::Foreign(what) => {
            let message = at(&format!("holds `{}`, which {what}", package.name));
            return Err(Fault { code: Code::PackageConflict, message, retry: Retry::Never });
        }
    };
    let mut changes = Vec::new();
    for file in &package.files {
        let before = match &ours {
            Some(ours) => standing::text(ours, file.name).map_err(unavailable)?,
            None => String::new(),
        };
        if before != file.text {
            let path = format!("{}/{}", package.name, file.name);
            changes.push(Change { path, before, after: file.text.clone() });
        }
    }
    Ok(Comparison::Different(changes))
}

impl Sink for Package {
    fn name(&self) -> &str {
        &self.name
    }

    fn batch_max(&self) -> usize {
        fault::bounded("package.batch", GROUP_MAX)
    }

    fn second_hand(&self) -> Option<Box<dyn Sink>> {
        let tree = Tree::open(&self.tree.path).ok()?;
        let (name, slots, turn) = (self.name.clone(), self.slots.beside(), Arc::clone(&self.turn));
        Some(Box::new(Package { name, tree, slots, lock: Lock::default(), turn }))
    }

    fn probe(&mut self) -> Result<(), Fault> {
        if !self.tree.is_in_place() {
            return Err(self.unavailable("is not there any more"));
        }
        let need = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        accessat(&self.tree.dir, c".", need, AtFlags::EACCESS)
            .map_err(|error| self.unavailable(&format!("cannot be written: {error}")))?;
        let about = fstatvfs(&self.tree.dir)
            .map_err(|error| self.unavailable(&format!("cannot be asked for room: {error}")))?;
        if about.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(self.unavailable("lies on a filesystem that is mounted read-only"));
        }
        if about.f_bavail == 0 {
            return Err(self.unavailable("lies on a filesystem that is full"));
        }
        Ok(())
    }

    fn seal(&self, wait: Duration) -> Result<Option<Seal>, Fatal> {
        lock::seal(&self.tree.dir, &self.tree.path, wait).map(Some)
    }

    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        if let Err(fault) = self.settle_in() {
            return Ok(batch.iter().map(|_| Answer::Failed(fault.clone())).collect());
        }
        self.slots.sweep(&self.tree.staging, Instant::now());
        let mut names = HashSet::with_capacity(batch.len());
        let mut plans: Vec<Plan> = Vec::with_capacity(batch.len());
        for delivery in batch {
            let fresh = names.insert(delivery.package.name.as_str());
            plans.push(match self.plan(delivery, fresh, context.deadline) {
                Ok(plan) => plan,
                Err(fault) => Plan::Answered(Answer::Failed(fault)),
            });
        }
        if plans.iter().any(|plan| !matches!(plan, Plan::Answered(_))) {
            self.tree.sync_staged()?;
        }
        self.publish(batch, plans, context)
    }
}

impl Package {
    /// Follows the path when the directory was replaced by the operator.
    fn settle_in(&mut self) -> Result<(), Fault> {
        if !self.tree.is_in_place() {
            self.tree = Tree::open(&self.tree.path)
                .map_err(|error| self.unavailable(&format!("cannot be used: {error}")))?;
            self.slots = self.slots.emptied();
            self.lock = Lock::default();
        }
        Ok(())
    }

    fn plan(
        &mut self,
        delivery: &Delivery<'_>,
        fresh: bool,
        deadline: Instant,
    ) -> Result<Plan, Fault> {
        let package = delivery.package;
        if !fresh {
            let what = "is the package of another intent delivered at the same time";
            return Err(self.conflict(&package.name, what, Retry::Never));
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(self.unavailable("took too long to write"));
        }
        let place = |error: io::Error| {
            self.unavailable(&format!("cannot take `{}`: {error}", package.name))
        };
        let old = match look(&self.tree.dir, package).map_err(place)? {
            Standing::Nothing => None,
            Standing::Foreign(what) => {
                return Err(self.conflict(&package.name, &what, Retry::Never));
            }
            Standing::Ours(ours) if ours.equal => {
                if delivery.last == Some(package.digest) {
                    return Ok(Plan::Answered(self.done(&package.name, true)));
                }
                return Ok(Plan::Sync);
            }
            Standing::Ours(ours) => Some(ours),
        };
        let staged = fault::step("stage.package", || {
            self.slots.stage(&self.tree.staging, &package.files, old.as_ref(), now)
        });
        let slot = staged.map_err(|error| {
            self.unavailable(&format!("cannot take `{}`: {error}", package.name))
        })?;
        Ok(Plan::Publish { slot, replaces: old.map(|old| old.identity) })
    }

    /// Puts in place what is staged, under lock and fence, and answers.
    fn publish(
        &mut self,
        batch: &[Delivery<'_>],
        plans: Vec<Plan>,
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal> {
        let turn = Arc::clone(&self.turn);
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = plans.iter().any(|plan| matches!(plan, Plan::Publish { .. }));
        // Nothing is visible yet: without the lock (no descriptor left, say) it is tried again.
        let mut lock =
            || fault::step("publish.lock", || self.lock.acquire(&self.tree.dir, context.deadline));
        let (locked, unlocked) = match needed {
            true => match lock() {
                Ok(locked) => (locked, "was locked by another process all the time".to_owned()),
                Err(error) => (None, format!("cannot be locked: {error}")),
            },
            false => (None, String::new()),
        };
        if locked.is_some() {
            context.fence.check()?;
        }
        let mut answers = Vec::with_capacity(plans.len());
        let mut retiring = Vec::new();
        for (delivery, plan) in batch.iter().zip(plans) {
            let name = delivery.package.name.as_str();
            answers.push(match plan {
                Plan::Answered(answer) => answer,
                Plan::Sync => self.done(name, false),
                Plan::Publish { slot, .. } if locked.is_none() => {
                    self.slots.discard(slot, Instant::now());
                    Answer::Failed(self.unavailable(&unlocked))
                }
                Plan::Publish { slot, replaces } => {
                    match self.exchange(name, &slot, replaces.as_ref())? {
                        Published::Yes => {
                            retiring.extend(replaces.map(|_| slot));
                            self.done(name, false)
                        }
                        Published::No(fault) => {
                            self.slots.discard(slot, Instant::now());
                            Answer::Failed(fault)
                        }
                        Published::TakenBack(fault) => {
                            retiring.push(slot);
                            Answer::Failed(fault)
                        }
                    }
                }
            });
        }
        if locked.is_some() {
            self.tree.sync_names()?;
        }
        let now = Instant::now();
        retiring.into_iter().for_each(|slot| self.slots.retire(slot, now));
        Ok(answers)
    }

    fn exchange(
        &self,
        name: &str,
        slot: &Slot,
        replaces: Option<&Identity>,
    ) -> Result<Published, Fatal> {
        let Tree { dir, staging, .. } = &self.tree;
        let rename = |flags| {
            fault::guard("publish.rename", || {
                renameat_with(staging, slot.name.as_str(), dir, name, flags)
            })
        };
        let flags = if replaces.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        // Looked at anew the next time: it may be ours as well.
        let moved = || self.conflict(name, "was changed while it was being replaced", Retry::Later);
        match rename(flags) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOENT) => return Ok(Published::No(moved())),
            Err(error) => {
                let what = format!("cannot take `{name}`: {error}");
                return Ok(Published::No(self.unavailable(&what)));
            }
        }
        let Some(replaces) = replaces else { return Ok(Published::Yes) };
        if replaces.is_at(staging, &slot.name).unwrap_or(false) {
            return Ok(Published::Yes);
        }
        // What we hold is not ours to keep; without a way back nobody may go on from here.
        rename(RenameFlags::EXCHANGE).map_err(|source| Fatal::Sync {
            path: self.tree.path.join(name),
            source: source.into(),
        })?;
        Ok(Published::TakenBack(moved()))
    }

    fn done(&self, name: &str, unchanged: bool) -> Answer {
        let dir = self.tree.path.to_string_lossy();
        let location = [dir.trim_end_matches('/'), "/", name].concat();
        Answer::Done(Confirmation { location, unchanged, further: Default::default() })
    }

    fn unavailable(&self, what: &str) -> Fault {
        Fault {
            code: Code::SinkUnavailable,
            message: format!("the packages directory `{}` {what}", self.tree.path.display()),
            retry: Retry::Later,
        }
    }

    fn conflict(&self, name: &str, what: &str, retry: Retry) -> Fault {
        let path = self.tree.path.join(name);
        Fault {
            code: Code::PackageConflict,
            message: format!("`{}` {what}; move it away, then retry", path.display()),
            retry,
        }
    }
}
