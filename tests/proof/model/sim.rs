//! One seed from its start to its end: who goes next, what breaks when, and when all is quiet.

use super::disk::Dir;
use super::leader::{Actor, Leader};
use super::producer;
use super::verdict;
use super::world::{Log, Mutant, World};

/// Far above what any seed needs; past it, something never ends.
const STEPS_MAX: u64 = 60_000;

struct Sim {
    world: World,
    leader: Option<Leader>,
    /// A leader that was stopped, lost its lock to another, and goes on.
    stale: Option<Leader>,
    had_stale: bool,
    start_at: u64,
    steps: u64,
}

/// Runs one seed.
pub fn run(seed: u64, mutant: Option<Mutant>, trace: bool) -> Log {
    let mut world = World::new(seed, mutant, trace);
    producer::plan(&mut world);
    let mut sim = Sim { world, leader: None, stale: None, had_stale: false, start_at: 0, steps: 0 };
    while sim.world.log.violations.is_empty() && !sim.turn() {
        sim.steps += 1;
        if sim.steps > STEPS_MAX {
            sim.world.violation("it never ends".to_owned());
        }
    }
    if sim.world.log.violations.is_empty() {
        verdict::check(&mut sim.world);
    }
    sim.world.log
}

impl Sim {
    /// One step of somebody; `true` when all has ended.
    fn turn(&mut self) -> bool {
        let world = &mut self.world;
        world.calm = self.steps >= world.swarm.fault_steps;
        world.full &= !world.calm;
        world.now += world.dice.below(world.swarm.step_us);
        if !world.calm {
            self.break_something();
        }
        self.outside();
        if self.leader.as_ref().is_some_and(|leader| leader.dead) {
            self.leader = None;
            self.start_at = self.world.now;
        }
        if self.stale.as_ref().is_some_and(|stale| stale.dead || self.world.calm) {
            self.forget_stale();
        }
        self.start();
        if self.world.calm && self.is_quiet() {
            return !self.restart_for_stale();
        }
        if self.world.one_in(4) && self.step_of(true) {
            return false;
        }
        if !self.step_of(false) {
            self.pass_time();
        }
        false
    }

    /// Lets one actor of the leader (or of the stale one) go on; `false` when none can.
    fn step_of(&mut self, stale: bool) -> bool {
        let Sim { world, leader, stale: other, .. } = self;
        let Some(leader) = (if stale { other } else { leader }) else { return false };
        let ready = leader.ready(world);
        let total: u64 = ready.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return false;
        }
        let mut at = world.dice.below(total);
        let chosen = ready.iter().find(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let actor = chosen.map_or(Actor::Take, |(actor, _)| *actor);
        leader.step(actor, world);
        true
    }

    /// Producers and events.
    fn outside(&mut self) {
        let world = &mut self.world;
        while let Some((&at, _)) = world.acts.first_key_value()
            && at.0 <= world.now
        {
            if let Some((drop, act)) = world.acts.remove(&at) {
                producer::act(world, drop, act);
            }
        }
        while let Some((&at, _)) = world.hints.first_key_value()
            && at.0 <= world.now
        {
            let Some(name) = world.hints.remove(&at) else { break };
            if let Some(stale) = &mut self.stale {
                stale.take.hints.insert(name.clone());
            }
            if let Some(leader) = &mut self.leader {
                leader.take.hints.insert(name);
            }
        }
    }

    fn break_something(&mut self) {
        let world = &mut self.world;
        // At least one crash a seed, the last thing before the calm.
        let last = self.steps + 1 == world.swarm.fault_steps;
        if world.one_in(world.swarm.crash_one_in) || last {
            world.log.fired += 1;
            if world.swarm.stale && self.stale.is_none() && world.one_in(2) {
                world.trace(|| "the leader is stopped and loses its lock".to_owned());
                self.stale = self.leader.take();
                self.had_stale = true;
                world.hints.clear();
            } else if world.swarm.power && world.one_in(2) {
                self.power_cut();
            } else {
                world.trace(|| "kill".to_owned());
                if let Some(killed) = self.leader.take()
                    && world.packages.locked_by == Some(killed.epoch)
                {
                    world.packages.locked_by = None;
                }
            }
            self.start_at = self.world.now + self.world.dice.below(2_000_000);
        }
        let world = &mut self.world;
        if world.swarm.full && world.one_in(60) {
            world.full = !world.full;
        }
        if world.swarm.clock_jumps && world.one_in(100) {
            world.jump_clock();
            world.log.fired += 1;
        }
    }

    fn power_cut(&mut self) {
        let world = &mut self.world;
        world.trace(|| "power cut".to_owned());
        world.log.stale_and_cut |= self.had_stale;
        (self.leader, self.stale) = (None, None);
        producer::power_cut(world);
        world.disk.power_cut(&mut world.dice);
        world.packages.power_cut(&mut world.dice);
        world.hints.clear();
        verdict::after_power_cut(world);
    }

    fn forget_stale(&mut self) {
        if let Some(stale) = self.stale.take()
            && self.world.packages.locked_by == Some(stale.epoch)
        {
            self.world.packages.locked_by = None;
        }
    }

    /// A new leader starts once nobody publishes: it waits for the seal.
    fn start(&mut self) {
        let free = self.world.packages.locked_by.is_none();
        if self.leader.is_none() && free && self.world.now >= self.start_at {
            self.leader = Some(Leader::start(&mut self.world));
        }
    }

    fn is_quiet(&self) -> bool {
        let world = &self.world;
        let taken = |ino: usize| world.drops.iter().any(|drop| drop.ino == Some(ino) && drop.done);
        self.leader.as_ref().is_some_and(Leader::is_idle)
            && world.acts.is_empty()
            && world.ledger.open.is_empty()
            && !world.disk.list(Dir::Inbox).any(|(_, ino)| taken(ino))
            && world.disk.list(Dir::Inbox).next().is_none()
            && (self.had_stale || world.disk.list(Dir::Work).next().is_none())
    }

    /// What a stale leader claimed after the new one had looked waits for the next start.
    fn restart_for_stale(&mut self) -> bool {
        if !self.had_stale || self.world.disk.list(Dir::Work).next().is_none() {
            return false;
        }
        self.had_stale = false;
        self.leader = None;
        self.start_at = self.world.now;
        true
    }

    /// Nobody can do anything now: the next thing happens by itself.
    fn pass_time(&mut self) {
        let world = &mut self.world;
        let due = |leader: &Option<Leader>| leader.as_ref().map_or(u64::MAX, |one| one.due(world));
        let mut next = due(&self.leader).min(due(&self.stale));
        if self.leader.is_none() && self.start_at > world.now {
            next = next.min(self.start_at);
        }
        let acts = world.acts.keys().next().map_or(u64::MAX, |at| at.0);
        let hints = world.hints.keys().next().map_or(u64::MAX, |at| at.0);
        next = next.min(acts).min(hints);
        if next == u64::MAX {
            if self.stale.is_none() {
                world.violation("nobody can go on".to_owned());
            }
            return;
        }
        world.now = world.now.max(next);
    }
}
