//! The sinks' threads as actors: the package sink's protocol step by step, and a slow remote one.

use std::time::Duration;

use intentd::ledger::Progress;
use intentd::model::{Code, Digest, Seq};
use intentd::processor::{Answered, Job};
use intentd::sink::{Answer, Confirmation, Fault, Retry, Step};

use super::leader::{Leader, ToLedger};
use super::world::{Mutant, World};

pub const PACKAGE: &str = "package";
pub const REMOTE: &str = "remote";

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    Plan(usize),
    SyncStaged,
    Lock,
    Fence,
    Exchange(usize),
    SyncNames,
    Answer,
    /// The remote sink: look, keep a step, write.
    Call(usize),
    Journal(usize),
    Durable(usize),
    Write(usize, u64),
}

#[derive(Debug)]
enum Plan {
    Answered,
    Sync,
    Publish,
}

#[derive(Debug)]
pub struct Lane {
    pub name: &'static str,
    phase: Phase,
    jobs: Vec<Job>,
    last: Vec<Option<Digest>>,
    plans: Vec<Plan>,
    answers: Vec<(Seq, Answer)>,
    durable: bool,
    /// A slow answer comes at this time.
    due: u64,
}

impl Lane {
    pub fn new(name: &'static str) -> Self {
        let (jobs, last, plans, answers) = Default::default();
        Lane { name, phase: Phase::Idle, jobs, last, plans, answers, durable: false, due: 0 }
    }

    pub fn step_is_durable(&mut self) {
        self.durable = true;
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub fn due(&self) -> u64 {
        if self.is_idle() { u64::MAX } else { self.due }
    }
}

pub fn ready(leader: &Leader, lane: usize, world: &World) -> bool {
    let lane = &leader.lanes[lane];
    match lane.phase {
        Phase::Idle => false,
        Phase::Lock => world.packages.locked_by.is_none(),
        Phase::Journal(_) => leader.to_ledger.len() < world.swarm.queue,
        Phase::Durable(_) => lane.durable,
        _ => lane.due <= world.now,
    }
}

/// Takes a batch over from the desk, and checks what the desk may hand out.
pub fn hand(leader: &mut Leader, world: &mut World, lane: usize, jobs: Vec<Job>) {
    let sink = leader.lanes[lane].name;
    for job in &jobs {
        check_job(world, sink, job, leader.epoch);
    }
    if jobs.len() > world.swarm.batch_max {
        world.violation(format!("{sink} gets a batch of {}", jobs.len()));
    }
    let lane = &mut leader.lanes[lane];
    let last = |job: &Job| {
        let key = (sink.to_owned(), job.package.key.clone());
        world.ledger.targets.get(&key).map(|(_, digest)| *digest)
    };
    lane.last = jobs.iter().map(last).collect();
    lane.jobs = jobs;
    lane.phase = if sink == PACKAGE { Phase::Plan(0) } else { Phase::Call(0) };
    (lane.plans, lane.answers) = Default::default();
}

fn check_job(world: &mut World, sink: &str, job: &Job, epoch: u64) {
    let at = (job.seq, sink.to_owned());
    world.trace(|| {
        format!("hand {} to {sink}, attempt {}, step {:?}", job.seq, job.attempts, job.step)
    });
    world.log.handed.insert(job.seq);
    *world.log.calls.entry(at.clone()).or_default() += 1;
    if world.ledger.epoch != epoch {
        // A leader that does not know yet that it is none: the fence is asked before any effect.
        return;
    }
    let earlier = world
        .ledger
        .rows
        .range(..job.seq)
        .find(|(_, row)| row.finished.is_none() && row.key.as_ref() == Some(&job.package.key));
    if let Some((earlier, _)) = earlier {
        world.violation(format!(
            "{} is handed out before {earlier} of its target has ended",
            job.seq
        ));
    }
    if world.ledger.rows.get(&job.seq).is_none_or(|row| row.finished.is_some()) {
        world.violation(format!("{} is handed out and is not open", job.seq));
    }
    if let Some(kept) = world.ledger.deliveries.get(&at) {
        let forgot = job.attempts < kept.attempts
            || job.spent_ms < kept.spent_ms
            || (kept.step.is_some() && job.step.is_none())
            || kept.receipt.is_some();
        if forgot {
            world.violation(format!("{} at {sink} forgets its progress", job.seq));
        }
    }
    if u128::from(job.spent_ms) > world.settings.retry.budget.as_millis() {
        let calls = world.log.overtime.entry(at).or_default();
        *calls += 1;
        if job.step.is_none() && *calls > 1 + world.log.lives {
            world.violation(format!("{} at {sink} is tried after its budget", job.seq));
        }
    }
}

pub fn step(leader: &mut Leader, index: usize, world: &mut World) {
    let lane = &mut leader.lanes[index];
    let epoch = leader.epoch;
    lane.phase = match lane.phase {
        Phase::Idle => Phase::Idle,
        Phase::Plan(at) if at < lane.jobs.len() => {
            plan(lane, at, world);
            Phase::Plan(at + 1)
        }
        Phase::Plan(_) if lane.plans.iter().all(|plan| matches!(plan, Plan::Answered)) => {
            Phase::Answer
        }
        Phase::Plan(_) => Phase::SyncStaged,
        Phase::SyncStaged => {
            world.packages.sync_all();
            let publishes = lane.plans.iter().any(|plan| matches!(plan, Plan::Publish));
            if publishes { Phase::Lock } else { Phase::Exchange(0) }
        }
        Phase::Lock => {
            world.packages.locked_by = Some(epoch);
            Phase::Fence
        }
        Phase::Fence if world.ledger.epoch != epoch && !world.is(Mutant::SkipFence) => {
            world.packages.locked_by = None;
            leader.dead = true;
            return;
        }
        Phase::Fence => Phase::Exchange(0),
        Phase::Exchange(at) if at < lane.jobs.len() => {
            exchange(lane, at, world);
            Phase::Exchange(at + 1)
        }
        Phase::Exchange(_) => Phase::SyncNames,
        Phase::SyncNames => {
            if world.packages.locked_by == Some(epoch) {
                if !world.is(Mutant::SkipNamesSync) {
                    world.packages.sync_names();
                }
                world.packages.locked_by = None;
            }
            Phase::Answer
        }
        Phase::Answer => {
            let answers = std::mem::take(&mut lane.answers);
            let order = |seq: &Seq| lane.jobs.iter().position(|job| job.seq == *seq);
            let mut answers = answers;
            answers.sort_by_key(|(seq, _)| order(seq));
            leader.answers.push_back(Answered { lane: index, answers, steps: Default::default() });
            Phase::Idle
        }
        Phase::Call(at) if at < lane.jobs.len() => {
            leader.dead |= world.ledger.epoch != epoch;
            call(lane, at, world, epoch)
        }
        Phase::Call(_) => Phase::Answer,
        Phase::Journal(at) => {
            let job = &lane.jobs[at];
            lane.durable = false;
            let progress = Progress {
                seq: job.seq,
                sink: lane.name.to_owned(),
                attempts: job.attempts,
                spent_ms: job.spent_ms,
                step: Some("draft".to_owned()),
                receipt: None,
            };
            leader.to_ledger.push_back(ToLedger::Step(progress, index));
            Phase::Durable(at)
        }
        Phase::Durable(at) => {
            world.remote.drafts.insert(lane.jobs[at].seq);
            pending(lane, at, world);
            Phase::Call(at + 1)
        }
        Phase::Write(at, version) => write(lane, at, world, version),
    };
}

fn done(unchanged: bool) -> Answer {
    Answer::Done(Confirmation {
        location: "there".to_owned(),
        unchanged,
        further: Default::default(),
    })
}

fn failed(code: Code, retry: Retry) -> Answer {
    Answer::Failed(Fault { code, message: "not now".to_owned(), retry })
}

fn later(world: &mut World) -> Answer {
    world.log.fired += 1;
    let least = Duration::from_millis(world.dice.below(500));
    let retry = if world.one_in(3) { Retry::After(least) } else { Retry::Later };
    failed(Code::SinkUnavailable, retry)
}

fn plan(lane: &mut Lane, at: usize, world: &mut World) {
    let job = &lane.jobs[at];
    let standing = world.packages.standing(&job.package.key);
    let equal = standing.is_some_and(|standing| standing.digest == Some(job.package.digest));
    let last = lane.last[at] == Some(job.package.digest) || world.is(Mutant::UnchangedBlind);
    let fault = world.full || (!world.calm && world.dice.below(100) < world.swarm.faults / 2);
    lane.plans.push(if equal && last {
        lane.answers.push((job.seq, done(true)));
        Plan::Answered
    } else if equal {
        Plan::Sync
    } else if fault {
        let answer = later(world);
        lane.answers.push((job.seq, answer));
        Plan::Answered
    } else {
        Plan::Publish
    });
}

fn exchange(lane: &mut Lane, at: usize, world: &mut World) {
    let job = &lane.jobs[at];
    match lane.plans[at] {
        Plan::Answered => return,
        Plan::Sync => {}
        Plan::Publish => {
            world.packages.exchange(&job.package.key, job.package.digest, job.seq, true);
            world.effect(lane.name, &job.package.key, job.seq);
            world.trace(|| format!("exchange {}", job.seq));
        }
    }
    lane.answers.push((job.seq, done(false)));
}

fn pending(lane: &mut Lane, at: usize, world: &mut World) {
    let again = Duration::from_micros(world.dice.below(3_000_000));
    let answer = Answer::Pending { step: Step("draft".to_owned()), again };
    lane.answers.push((lane.jobs[at].seq, answer));
}

fn call(lane: &mut Lane, at: usize, world: &mut World, epoch: u64) -> Phase {
    let job = &lane.jobs[at];
    lane.due = world.now + world.dice.below(50_000);
    // Which state a write is based on is read before the fence is asked.
    let version = world.remote.versions.get(&job.package.key).copied().unwrap_or_default();
    if world.ledger.epoch != epoch {
        return Phase::Idle;
    }
    let poison = world.documents.iter().any(|document| {
        document.poison && document.intent.correlation_id == job.intent.correlation_id
    });
    if poison {
        lane.answers.push((job.seq, failed(Code::SinkUnavailable, Retry::Never)));
        return Phase::Call(at + 1);
    }
    if !world.calm && world.dice.below(100) < world.swarm.faults {
        let answer = later(world);
        lane.answers.push((job.seq, answer));
        return Phase::Call(at + 1);
    }
    if job.step.is_none() {
        if world.remote.drafts.contains(&job.seq) {
            world.violation(format!("{} is drafted again: its step was forgotten", job.seq));
        }
        return Phase::Journal(at);
    }
    if world.one_in(4) {
        pending(lane, at, world);
        return Phase::Call(at + 1);
    }
    Phase::Write(at, version)
}

fn write(lane: &mut Lane, at: usize, world: &mut World, version: u64) -> Phase {
    let (seq, key, digest) =
        (lane.jobs[at].seq, lane.jobs[at].package.key.clone(), lane.jobs[at].package.digest);
    let current = world.remote.versions.get(&key).copied().unwrap_or_default();
    let object = world.remote.objects.get(&key).copied();
    let same = object.is_some_and(|(standing, _)| standing == digest);
    let answer = if version != current {
        later(world)
    } else if same && lane.last[at] == Some(digest) {
        done(true)
    } else {
        if !same {
            world.remote.versions.insert(key.clone(), current + 1);
            world.remote.objects.insert(key.clone(), (digest, seq));
            world.effect(REMOTE, &key, seq);
        }
        // The answer may be lost although the write has happened.
        if !world.calm && world.dice.below(100) < world.swarm.faults {
            later(world)
        } else {
            done(false)
        }
    };
    lane.answers.push((seq, answer));
    Phase::Call(at + 1)
}
