//! One leader: its queues and its actors. All of it is memory and gone after a crash.

use std::collections::VecDeque;

use intentd::ledger::{Finish, Progress};
use intentd::model::Seq;
use intentd::processor::recovery::{self, Left};
use intentd::processor::{Answered, Capacity, Desk, Item, Names, Submission, Window, archive};

use super::disk::Dir;
use super::lanes::{self, Lane, PACKAGE, REMOTE};
use super::path::{self, Process, Recorder, Shelver};
use super::take::{self, Take};
use super::world::{Mutant, World};

#[derive(Debug)]
pub enum ToLedger {
    Accept(Vec<Submission>),
    Finish(Vec<Ending>),
    Progress(Vec<Progress>),
    Step(Progress, usize),
    Archived(Vec<Seq>),
}

#[derive(Debug)]
pub enum ToProcess {
    Accepted(Vec<Item>),
    Committed(Vec<Seq>),
}

#[derive(Debug)]
pub struct Ending {
    pub finish: Finish,
    pub request: Option<archive::Request>,
}

#[derive(Debug)]
pub struct Leader {
    pub epoch: u64,
    pub dead: bool,
    pub window: Window,
    pub names: Names,
    pub to_ledger: VecDeque<ToLedger>,
    pub to_process: VecDeque<ToProcess>,
    pub to_shelf: VecDeque<archive::Request>,
    pub answers: VecDeque<Answered>,
    pub take: Take,
    pub record: Recorder,
    pub process: Process,
    pub lanes: Vec<Lane>,
    pub shelf: Shelver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    Take,
    Record,
    Process,
    Shelve,
    Lane(usize),
}

impl Leader {
    /// Takes the lead, as `pipeline::lead` does, and sorts what an earlier leader left. The seal on
    /// the packages directory was had before.
    pub fn start(world: &mut World) -> Self {
        world.ledger.epoch += 1;
        world.log.lives += 1;
        let epoch = world.ledger.epoch;
        world.trace(|| format!("leader {epoch} starts"));
        let claimed: Vec<_> = world.disk.list(Dir::Work).map(|(name, _)| name.clone()).collect();
        let mut left = recovery::sort(world.ledger.open_intents(), claimed.clone());
        if world.is(Mutant::RereadClaimWithRow) {
            left.unread = claimed;
        }
        // What an overtaken leader claims late is left to the restart in the end.
        let Left { unread, undelivered, unarchived, seen: _ } = left;
        let mut lanes = vec![Lane::new(PACKAGE)];
        if world.swarm.remote {
            lanes.push(Lane::new(REMOTE));
        }
        let (window, names) = (Window::default(), Names::promised(&unarchived));
        let sinks = lanes.iter().map(|lane| Capacity {
            name: lane.name.to_owned(),
            batch_max: world.swarm.batch_max,
            hands: 1,
            rate: None,
        });
        let mut desk = Desk::new(sinks.collect::<Vec<_>>());
        for open in undelivered {
            match recovery::resumed(open, &window) {
                Ok(Some(mut item)) => {
                    item.resumed &= !world.is(Mutant::SupersedeStarted);
                    if world.is(Mutant::ForgetProgress) {
                        item.progress.clear();
                    }
                    desk.admit(item);
                }
                found => world.violation(format!("an open intent is not resumed: {found:?}")),
            }
        }
        let mut to_shelf: VecDeque<_> =
            unarchived.into_iter().filter_map(|open| recovery::repeated(open, &window)).collect();
        if world.is(Mutant::ForgetPlannedName) {
            for request in &mut to_shelf {
                let shelf = archive::shelf(request.record.outcome);
                let in_use =
                    |name: &[u8]| world.disk.at(&(path::dir(shelf), name.to_vec())).is_some();
                let plan = names.plan(shelf, &request.record.file, in_use);
                request.archived_as = Some(plan.name(request.record.seq));
            }
        }
        Leader {
            epoch,
            dead: false,
            window,
            names,
            to_ledger: VecDeque::new(),
            to_process: VecDeque::new(),
            to_shelf,
            answers: VecDeque::new(),
            take: Take::new(world.swarm.quiet, unread, world.now),
            record: Recorder::default(),
            process: Process::new(desk),
            lanes,
            shelf: Shelver::default(),
        }
    }

    pub fn ready(&self, world: &World) -> Vec<(Actor, u64)> {
        let weights = world.swarm.weights;
        let mut ready = Vec::with_capacity(6);
        let mut add = |is_ready: bool, actor, weight| {
            if is_ready {
                ready.push((actor, weight));
            }
        };
        add(take::ready(self, world), Actor::Take, weights[0]);
        add(path::record_ready(self, world), Actor::Record, weights[1]);
        add(path::process_ready(self, world), Actor::Process, weights[2]);
        add(path::shelve_ready(self, world), Actor::Shelve, weights[3]);
        for lane in 0..self.lanes.len() {
            add(lanes::ready(self, lane, world), Actor::Lane(lane), weights[4 + lane]);
        }
        ready
    }

    pub fn step(&mut self, actor: Actor, world: &mut World) {
        match actor {
            Actor::Take => take::step(self, world),
            Actor::Record => path::record(self, world),
            Actor::Process => path::process(self, world),
            Actor::Shelve => path::shelve(self, world),
            Actor::Lane(lane) => lanes::step(self, lane, world),
        }
    }

    /// When something happens by itself.
    pub fn due(&self, world: &World) -> u64 {
        let lanes = self.lanes.iter().map(Lane::due).min().unwrap_or(u64::MAX);
        let stages = [path::record_due(self), self.process.due(), self.shelf.due(), lanes];
        let due = stages.into_iter().chain([self.take.due(world)]);
        due.filter(|due| *due > world.now).min().unwrap_or(u64::MAX)
    }

    /// Whether nothing is in its hands.
    pub fn is_idle(&self) -> bool {
        let queues = self.to_ledger.is_empty()
            && self.to_process.is_empty()
            && self.to_shelf.is_empty()
            && self.answers.is_empty();
        queues
            && self.record.is_idle()
            && self.process.is_idle()
            && self.shelf.is_idle()
            && self.lanes.iter().all(Lane::is_idle)
    }
}
