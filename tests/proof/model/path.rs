//! `record`, `process` and `shelve` as actors. They mirror the loops of `pipeline`.

use std::collections::VecDeque;

use intentd::batch::Room;
use intentd::ledger::{Changes, Finish};
use intentd::limits::{GROUP_BYTES_MAX, GROUP_MAX};
use intentd::model::{Seq, derived};
use intentd::processor::{Admission, Desk, Ended, Item, Submission, archive};
use intentd::spool::Shelf;

use super::disk::{Dir, Refused, Text};
use super::lanes;
use super::leader::{Ending, Leader, ToLedger, ToProcess};
use super::world::{Mutant, World, micros};

const FULL_RETRY_US: u64 = 500_000;

#[derive(Debug, Default)]
pub struct Recorder {
    held: VecDeque<ToLedger>,
    gathered: Option<Gathered>,
    paused_until: u64,
}

#[derive(Debug, Default)]
struct Gathered {
    changes: Changes,
    submissions: Vec<Submission>,
    endings: Vec<archive::Request>,
    steps: Vec<usize>,
}

impl Recorder {
    pub fn is_idle(&self) -> bool {
        self.held.is_empty() && self.gathered.is_none()
    }
}

pub fn record_ready(leader: &Leader, world: &World) -> bool {
    let waits = leader.record.paused_until > world.now;
    !waits && (!leader.record.is_idle() || !leader.to_ledger.is_empty())
}

pub fn record_due(leader: &Leader) -> u64 {
    if leader.record.gathered.is_some() { leader.record.paused_until } else { u64::MAX }
}

pub fn record(leader: &mut Leader, world: &mut World) {
    let Some(mut gathered) = leader.record.gathered.take() else {
        // At least one, and how many more are at hand is a matter of timing.
        let more = 1 + world.dice.below(8) as usize;
        let count = leader.to_ledger.len().min(more);
        leader.record.held.extend(leader.to_ledger.drain(..count));
        leader.record.gathered = Some(gather(&mut leader.record.held));
        return;
    };
    if world.ledger.epoch != leader.epoch && !world.is(Mutant::SkipFence) {
        leader.dead = true;
        return;
    }
    if world.full && !gathered.changes.is_empty() {
        world.log.fired += 1;
        leader.record.paused_until = world.now + FULL_RETRY_US;
        leader.record.gathered = Some(gathered);
        return;
    }
    let World { disk, ledger, log, .. } = world;
    let ino_of = |claim: &[u8]| disk.at(&(Dir::Work, claim.to_vec()));
    let seqs = ledger.commit(leader.epoch, &gathered.changes, ino_of, &mut log.violations);
    world.trace(|| {
        format!(
            "commit {seqs:?} ends {:?}",
            gathered.changes.finish.iter().map(|f| (f.seq, f.finished.outcome)).collect::<Vec<_>>()
        )
    });
    tell(leader, world, &mut gathered, seqs);
}

fn tell(leader: &mut Leader, world: &mut World, gathered: &mut Gathered, seqs: Vec<Seq>) {
    let accepted = std::mem::take(&mut gathered.changes.accept);
    let mut items = Vec::new();
    for ((acceptance, submission), seq) in
        accepted.into_iter().zip(gathered.submissions.drain(..)).zip(seqs)
    {
        match submission.admit(acceptance, seq, leader.epoch) {
            Admission::Item(item) => items.push(item),
            Admission::Refused(request) => leader.to_shelf.push_back(request),
        }
    }
    if !items.is_empty() {
        leader.to_process.push_back(ToProcess::Accepted(items));
    }
    let committed: Vec<_> = gathered.changes.finish.iter().map(|finish| finish.seq).collect();
    for finish in &gathered.changes.finish {
        if finish.finished.superseded_by.is_some() && world.log.handed.contains(&finish.seq) {
            world.violation(format!("{} is superseded and was handed to a sink", finish.seq));
        }
    }
    leader.to_shelf.extend(gathered.endings.drain(..));
    if !committed.is_empty() {
        leader.to_process.push_back(ToProcess::Committed(committed));
    }
    for lane in gathered.steps.drain(..) {
        leader.lanes[lane].step_is_durable();
    }
}

fn gather(held: &mut VecDeque<ToLedger>) -> Gathered {
    let mut gathered = Gathered::default();
    let mut room = Room::new(2 * GROUP_MAX, 2 * GROUP_BYTES_MAX);
    while let Some(message) = held.front() {
        let fits = match message {
            ToLedger::Accept(group) => group.iter().all(|one| room.takes(one.bytes())),
            ToLedger::Finish(endings) => endings.iter().all(|_| room.takes(0)),
            _ => true,
        };
        if !fits && !gathered.changes.is_empty() {
            break;
        }
        match held.pop_front() {
            Some(ToLedger::Accept(group)) => {
                for mut submission in group {
                    gathered.changes.accept.push(submission.take_acceptance());
                    gathered.submissions.push(submission);
                }
            }
            Some(ToLedger::Finish(endings)) => {
                for Ending { finish, request } in endings {
                    gathered.changes.finish.push(finish);
                    gathered.endings.extend(request);
                }
            }
            Some(ToLedger::Progress(progress)) => gathered.changes.progress.extend(progress),
            Some(ToLedger::Step(progress, lane)) => {
                gathered.changes.progress.push(progress);
                gathered.steps.push(lane);
            }
            Some(ToLedger::Archived(seqs)) => gathered.changes.archived.extend(seqs),
            None => break,
        }
    }
    gathered
}

/// Messages of the desk that found the ledger's queue full.
#[derive(Debug)]
pub struct Process {
    pub desk: Desk,
    outbox: VecDeque<ToLedger>,
    woken: bool,
}

impl Process {
    pub fn new(desk: Desk) -> Self {
        Process { desk, outbox: VecDeque::new(), woken: true }
    }

    pub fn is_idle(&self) -> bool {
        self.desk.is_empty() && self.outbox.is_empty()
    }

    pub fn due(&self) -> u64 {
        self.desk.due().map_or(u64::MAX, micros)
    }
}

pub fn process_ready(leader: &Leader, world: &World) -> bool {
    if !leader.process.outbox.is_empty() {
        return leader.to_ledger.len() < world.swarm.queue;
    }
    let messages = !leader.to_process.is_empty() || !leader.answers.is_empty();
    messages || leader.process.woken || leader.process.due() <= world.now
}

pub fn process(leader: &mut Leader, world: &mut World) {
    if let Some(message) = leader.process.outbox.pop_front() {
        leader.to_ledger.push_back(message);
        return;
    }
    leader.process.woken = false;
    let taken = leader.to_process.len().min(1 + world.dice.below(4) as usize);
    for message in leader.to_process.drain(..taken) {
        match message {
            ToProcess::Accepted(items) => {
                items.into_iter().for_each(|item| leader.process.desk.admit(item))
            }
            ToProcess::Committed(seqs) => leader.process.desk.committed(&seqs),
        }
    }
    if let Some(answered) = leader.answers.pop_front() {
        let now = world.instant();
        let World { settings, dice, .. } = world;
        leader.process.desk.answered(answered, settings, now, || dice.next());
    }
    for lane in 0..leader.lanes.len() {
        let batch = leader.process.desk.next_batch(lane, &world.settings, world.instant());
        if !batch.is_empty() {
            lanes::hand(leader, world, lane, batch);
        }
    }
    let progress = leader.process.desk.take_progress();
    if !progress.is_empty() {
        leader.process.outbox.push_back(ToLedger::Progress(progress));
    }
    let ended = leader.process.desk.take_ended(world.wall());
    if ended.is_empty() {
        return;
    }
    let seqs: Vec<_> = ended.iter().map(|ended| ended.item.record.seq).collect();
    let endings = ended.into_iter().map(|ended| ending(leader, world, ended)).collect();
    leader.process.outbox.push_back(ToLedger::Finish(endings));
    if world.is(Mutant::FreeTargetBeforeCommit) {
        leader.process.desk.committed(&seqs);
        leader.process.woken = true;
    }
}

fn ending(leader: &mut Leader, world: &World, ended: Ended) -> Ending {
    let Ended { item, mut finished, reached } = ended;
    let Item { record, claim, token, .. } = item;
    let shelf = archive::shelf(finished.outcome);
    let taken = |name: &[u8]| world.disk.at(&(dir(shelf), name.to_vec())).is_some();
    finished.archived_as = Some(leader.names.plan(shelf, &record.file, taken).name(record.seq));
    let seq = record.seq;
    let mut request = Some(archive::request(record, claim, finished.clone(), token));
    if world.is(Mutant::ArchiveBeforeCommit) {
        leader.to_shelf.extend(request.take());
    }
    Ending { finish: Finish { seq, finished, reached }, request }
}

pub fn dir(shelf: Shelf) -> Dir {
    match shelf {
        Shelf::Processed => Dir::Processed,
        Shelf::Failed => Dir::Failed,
    }
}

#[derive(Debug, Default)]
pub struct Shelver {
    current: Option<(archive::Request, u8)>,
    paused_until: u64,
    unsynced: Vec<Seq>,
    since: Option<u64>,
    synced: Vec<Seq>,
}

const SYNC_EVERY_US: u64 = 5_000_000;

impl Shelver {
    pub fn is_idle(&self) -> bool {
        self.current.is_none() && self.unsynced.is_empty() && self.synced.is_empty()
    }

    pub fn due(&self) -> u64 {
        let sync = self.since.map_or(u64::MAX, |since| since + SYNC_EVERY_US);
        if self.current.is_some() { self.paused_until } else { sync }
    }
}

pub fn shelve_ready(leader: &Leader, world: &World) -> bool {
    let shelf = &leader.shelf;
    if !shelf.synced.is_empty() {
        return leader.to_ledger.len() < world.swarm.queue;
    }
    shelf.due() <= world.now || (shelf.current.is_none() && !leader.to_shelf.is_empty())
}

pub fn shelve(leader: &mut Leader, world: &mut World) {
    let shelf = &mut leader.shelf;
    if !shelf.synced.is_empty() {
        let seqs = std::mem::take(&mut shelf.synced);
        leader.to_ledger.push_back(ToLedger::Archived(seqs));
    } else if let Some((request, done)) = shelf.current.take() {
        archive_step(leader, world, request, done);
    } else if shelf.due() <= world.now {
        if !world.is(Mutant::FlagBeforeSync) {
            world.disk.sync_all();
        }
        shelf.since = None;
        shelf.synced = std::mem::take(&mut shelf.unsynced);
    } else if let Some(request) = leader.to_shelf.pop_front() {
        shelf.current = Some((request, 0));
    }
}

pub fn reason_name(archived_as: &[u8]) -> Vec<u8> {
    derived("", archived_as, ".reason.json")
}

/// Reason, status, the document itself, and the reason once more where its name was taken.
fn archive_step(leader: &mut Leader, world: &mut World, mut request: archive::Request, done: u8) {
    let record = &request.record;
    let shelf = archive::shelf(record.outcome);
    let text = Text::Told(record.seq, record.outcome);
    let spare = derived(&format!("{}.", record.seq), record.file.safe().as_bytes(), "");
    let (Some(claim), Some(planned)) = (request.claim.clone(), request.archived_as.clone()) else {
        return world.violation(format!("{} has no place in the archive", record.seq));
    };
    if world.full && done != 2 {
        world.log.fired += 1;
        leader.shelf.paused_until = world.now + FULL_RETRY_US;
        leader.shelf.current = Some((request, 0));
        return;
    }
    let ns = world.wall_ns();
    let mut write = |place| {
        world.disk.create(place, text, 100, ns);
    };
    let next = match done {
        0 => {
            if shelf == Shelf::Failed {
                write((Dir::Failed, reason_name(&planned)));
            }
            1
        }
        1 => {
            let name = derived("", record.file.safe().as_bytes(), &format!(".{}.json", record.seq));
            write((Dir::Status, name));
            2
        }
        2 => {
            if world.ledger.rows.get(&record.seq).is_none_or(|row| row.finished.is_none()) {
                world.violation(format!("{} is archived and has no outcome", record.seq));
            }
            let work = (Dir::Work, claim);
            match world.disk.rename(&work, (dir(shelf), planned.clone()), ns) {
                Err(Refused::Taken) => {
                    match world.disk.rename(&work, (dir(shelf), spare.clone()), ns) {
                        Ok(_) => {
                            leader.names.used(shelf, [&planned[..]]);
                            request.archived_as = Some(spare);
                            3
                        }
                        Err(_) => {
                            world.violation(format!("{} finds no name in the archive", record.seq));
                            4
                        }
                    }
                }
                _ => 4,
            }
        }
        _ => {
            if shelf == Shelf::Failed {
                write((Dir::Failed, reason_name(&planned)));
            }
            4
        }
    };
    if next < 4 {
        leader.shelf.current = Some((request, next));
        return;
    }
    leader.names.used(shelf, [&planned[..]]);
    world.log.acked.entry(request.record.seq).or_insert(request.record.outcome);
    leader.shelf.unsynced.push(request.record.seq);
    leader.shelf.since.get_or_insert(world.now);
}
