//! The taker as an actor: looks, settles, claims, syncs, reads and submits, one step at a time.
//!
//! Mirrors `pipeline::take`; what it decides, `Settle`, `Room`, `Window` and `Names` decide.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use intentd::batch::Room;
use intentd::intake::{Admitted, Judged};
use intentd::limits::{GROUP_MAX, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};
use intentd::model::{Code, FileKind, FileName, Fingerprint, Mode, Rejection, Sighting, derived};
use intentd::processor::{Submission, Token};
use intentd::settle::{Decision, Peek, Settle, Writers};
use intentd::spool::{Shelf, sort_by_arrival};

use super::disk::{Dir, Refused, Text};
use super::leader::{Leader, ToLedger};
use super::world::{Mutant, World, instant};

const SIZE_MAX: u64 = 11 << 20;

#[derive(Debug)]
struct Held {
    claim: Vec<u8>,
    seen: Option<Fingerprint>,
    due: u64,
}

#[derive(Debug)]
struct Taken {
    claim: Vec<u8>,
    file: FileName,
    ino: usize,
    refused: Option<Code>,
    token: Token,
}

#[derive(Debug)]
enum Phase {
    Look,
    Held,
    Claim {
        room: Room,
        group: Vec<Taken>,
    },
    Rename {
        room: Room,
        group: Vec<Taken>,
        seen: Sighting,
        refused: Option<Code>,
        token: (Token, u64),
    },
    Sync {
        group: Vec<Taken>,
        ours: bool,
    },
    Read {
        group: VecDeque<Taken>,
        done: Vec<Submission>,
        ours: bool,
    },
    Send {
        done: Vec<Submission>,
        ours: bool,
    },
}

#[derive(Debug)]
pub struct Take {
    phase: Phase,
    settle: Settle,
    candidates: VecDeque<Sighting>,
    timers: BTreeMap<FileName, u64>,
    held: VecDeque<Held>,
    next_claim: u64,
    rescan_at: u64,
    crowded: bool,
    took: bool,
    /// What the window let in of each claim; those that were held count beside it.
    admitted: BTreeMap<Vec<u8>, u64>,
    pub hints: BTreeSet<FileName>,
}

impl Take {
    pub fn new(quiet: Duration, unread: Vec<Vec<u8>>, now: u64) -> Self {
        let held = unread.into_iter().map(|claim| Held { claim, seen: None, due: now });
        Take {
            phase: Phase::Held,
            settle: Settle::new(quiet),
            candidates: VecDeque::new(),
            timers: BTreeMap::new(),
            held: held.collect(),
            next_claim: 0,
            rescan_at: now,
            crowded: false,
            took: false,
            admitted: BTreeMap::new(),
            hints: BTreeSet::new(),
        }
    }

    /// As with the real one the backing off starts anew each time that a claim is read.
    fn again(&mut self, claim: Vec<u8>, now: u64) {
        let due = now + Duration::from_millis(5).as_micros() as u64;
        self.held.push_back(Held { claim, seen: None, due });
    }

    pub fn due(&self, world: &World) -> u64 {
        let held = self.held.iter().map(|held| held.due);
        let rescan = if world.is(Mutant::TrustEvents) { u64::MAX } else { self.rescan_at };
        held.chain(self.timers.values().copied()).chain([rescan]).min().unwrap_or(u64::MAX)
    }
}

pub fn ready(leader: &Leader, world: &World) -> bool {
    let take = &leader.take;
    match &take.phase {
        Phase::Look => {
            let freed = take.crowded && !leader.window.freed().is_empty();
            let candidates = !take.candidates.is_empty() && !take.crowded;
            !take.hints.is_empty()
                || candidates
                || take.took
                || freed
                || take.due(world) <= world.now
        }
        Phase::Send { .. } => leader.to_ledger.len() < world.swarm.queue,
        _ => true,
    }
}

pub fn step(leader: &mut Leader, world: &mut World) {
    let phase = std::mem::replace(&mut leader.take.phase, Phase::Look);
    leader.take.phase = match phase {
        Phase::Look => {
            let _ = leader.window.freed().try_recv();
            gather(&mut leader.take, world);
            Phase::Held
        }
        Phase::Held => {
            let group = held_group(leader, world);
            submit(group, false)
        }
        Phase::Claim { room, group } => consider(leader, world, room, group),
        Phase::Rename { room, mut group, seen, refused, token } => {
            group.extend(claim(leader, world, &seen, refused, token));
            Phase::Claim { room, group }
        }
        Phase::Sync { group, ours } => {
            if !world.is(Mutant::SkipClaimSync) {
                world.disk.sync_dir(Dir::Work);
            }
            Phase::Read { group: group.into(), done: Vec::new(), ours }
        }
        Phase::Read { mut group, mut done, ours } => match group.pop_front() {
            Some(taken) => {
                done.extend(read(leader, world, taken));
                Phase::Read { group, done, ours }
            }
            None => Phase::Send { done, ours },
        },
        Phase::Send { done, ours } => {
            if !done.is_empty() {
                leader.to_ledger.push_back(ToLedger::Accept(done));
            }
            if ours { Phase::Look } else { claiming(leader) }
        }
    };
}

fn submit(group: Vec<Taken>, ours: bool) -> Phase {
    if group.is_empty() {
        return Phase::Send { done: Vec::new(), ours };
    }
    Phase::Sync { group, ours }
}

fn claiming(leader: &mut Leader) -> Phase {
    (leader.take.crowded, leader.take.took) = (false, false);
    Phase::Claim { room: Room::default(), group: Vec::new() }
}

fn gather(take: &mut Take, world: &mut World) {
    let mut names = std::mem::take(&mut take.hints);
    let due: Vec<_> = take.timers.iter().filter(|(_, at)| **at <= world.now).collect();
    names.extend(due.into_iter().map(|(name, _)| name.clone()));
    take.timers.retain(|_, at| *at > world.now);
    if world.now >= take.rescan_at && !(world.is(Mutant::TrustEvents) && take.next_claim > 0) {
        take.rescan_at = world.now + world.swarm.rescan_us;
        let listed = world.disk.list(Dir::Inbox);
        let mut seen: Vec<_> = listed.map(|(name, ino)| world.disk.sighting(ino, name)).collect();
        sort_by_arrival(&mut seen);
        take.candidates = seen.into();
        return;
    }
    let mut seen = Vec::new();
    for name in names {
        match world.disk.at(&(Dir::Inbox, name.as_bytes().to_vec())) {
            Some(ino) => seen.push(world.disk.sighting(ino, name.as_bytes())),
            None => take.settle.forget(&name),
        }
    }
    sort_by_arrival(&mut seen);
    take.candidates.extend(seen);
}

fn consider(leader: &mut Leader, world: &mut World, mut room: Room, group: Vec<Taken>) -> Phase {
    let end = |leader: &mut Leader, group: Vec<Taken>| {
        leader.take.took = !group.is_empty();
        submit(group, true)
    };
    let Some(sighting) = leader.take.candidates.front() else { return end(leader, group) };
    let bytes = sighting.print.len.min(SIZE_MAX) as usize;
    if !room.takes(bytes) {
        return end(leader, group);
    }
    let Some(token) = leader.window.admit(bytes, IN_FLIGHT_MAX) else {
        leader.take.crowded = true;
        return end(leader, group);
    };
    let Some(sighting) = leader.take.candidates.pop_front() else { return end(leader, group) };
    let token = (token, bytes as u64);
    let decided = match Settle::unopened(sighting.kind) {
        Some(decision) => Some((sighting.clone(), decision)),
        None => open(&mut leader.take, world, &sighting),
    };
    match decided {
        Some((seen, Decision::Claim)) => Phase::Rename { room, group, seen, refused: None, token },
        Some((seen, Decision::Refuse(code))) => {
            Phase::Rename { room, group, seen, refused: Some(code), token }
        }
        Some((_, Decision::Wait { again, .. })) => {
            let at = world.now + again.as_micros() as u64;
            leader.take.timers.entry(sighting.name).or_insert(at);
            Phase::Claim { room, group }
        }
        _ => Phase::Claim { room, group },
    }
}

fn open(take: &mut Take, world: &World, sighting: &Sighting) -> Option<(Sighting, Decision)> {
    let name = sighting.name.as_bytes();
    let Some(ino) = world.disk.at(&(Dir::Inbox, name.to_vec())) else {
        take.settle.forget(&sighting.name);
        return None;
    };
    let inode = &world.disk.inodes[ino];
    if inode.kind != FileKind::Regular {
        return None;
    }
    let writers = match (world.swarm.leases, inode.writers) {
        (false, _) => Writers::Unknown,
        (true, 0) => Writers::None,
        (true, _) => Writers::Some,
    };
    let seen = world.disk.sighting(ino, name);
    let peek = Peek { writers, blank: inode.text == Text::Blank };
    let decision = take.settle.opened(&seen, peek, SIZE_MAX, instant(world.now));
    Some((seen, decision))
}

fn claim(
    leader: &mut Leader,
    world: &mut World,
    seen: &Sighting,
    refused: Option<Code>,
    (token, admitted): (Token, u64),
) -> Option<Taken> {
    let file = seen.name.clone();
    let n = leader.take.next_claim;
    let claim = derived(&format!("{}.{n}.", leader.epoch), file.as_bytes(), "");
    let inbox = (Dir::Inbox, file.as_bytes().to_vec());
    let work = (Dir::Work, claim.clone());
    let ns = world.wall_ns();
    let ino = world.disk.rename(&inbox, work.clone(), ns).ok()?;
    leader.take.next_claim += 1;
    world.trace(|| format!("claim {} (file {ino})", String::from_utf8_lossy(&claim)));
    if ino as u64 != seen.print.inode && world.disk.rename(&work, inbox, ns) != Err(Refused::Taken)
    {
        return None;
    }
    leader.take.admitted.insert(claim.clone(), admitted);
    let there = |claim: &Vec<u8>| world.disk.at(&(Dir::Work, claim.clone())).is_some();
    leader.take.admitted.retain(|claim, _| there(claim));
    let bytes = leader.take.admitted.values().sum::<u64>();
    if bytes > IN_FLIGHT_BYTES_MAX as u64 && bytes > admitted {
        world.violation(format!("the window let in {bytes} bytes"));
    }
    Some(Taken { claim, file, ino, refused, token })
}

/// Reads a claim: a submission, or a claim that is held.
fn read(leader: &mut Leader, world: &mut World, taken: Taken) -> Option<Submission> {
    let inode = &world.disk.inodes[taken.ino];
    if taken.refused.is_none() && world.swarm.leases && inode.writers > 0 {
        leader.take.admitted.remove(&taken.claim);
        leader.take.again(taken.claim, world.now);
        return None;
    }
    let code = taken.refused.or((inode.len > SIZE_MAX).then_some(Code::TooLarge));
    let judged = judge(world, code, inode.text);
    let plan = judged.verdict.is_err().then(|| {
        leader.names.plan(Shelf::Failed, &taken.file, |name| {
            world.disk.at(&(Dir::Failed, name.to_vec())).is_some()
        })
    });
    let at = world.wall();
    let claim = Some(taken.claim);
    Some(Submission::new(taken.file, claim, judged, plan, Mode::Run, at, taken.token))
}

/// What intake says of a text; documents were judged when they were drawn.
fn judge(world: &World, refused: Option<Code>, text: Text) -> Judged {
    let code = match (refused, text) {
        (Some(code), _) => code,
        (None, Text::Whole(index)) if world.documents[index].valid => {
            let document = &world.documents[index];
            let (intent, bytes) = (document.intent.clone(), document.bytes.clone());
            let admitted = Admitted { document: bytes.into(), intent: intent.into() };
            return Judged { digest: Some(document.digest), verdict: Ok(admitted) };
        }
        (None, Text::Whole(_)) => Code::SchemaType,
        (None, Text::Blank) => Code::Empty,
        (None, Text::Part) => Code::Incomplete,
        (None, Text::Zeroes | Text::Told(..)) => Code::NotJson,
    };
    Judged { digest: None, verdict: Err(Rejection::of_file(code, code.title())) }
}

fn held_group(leader: &mut Leader, world: &mut World) -> Vec<Taken> {
    let mut group = Vec::new();
    for _ in 0..leader.take.held.len().min(GROUP_MAX) {
        let Some(next) = leader.take.held.pop_front() else { break };
        if next.due > world.now {
            leader.take.held.push_back(next);
            continue;
        }
        let Some(ino) = world.disk.at(&(Dir::Work, next.claim.clone())) else { continue };
        let file =
            next.claim.splitn(3, |byte| *byte == b'.').nth(2).unwrap_or(&next.claim).to_vec();
        let seen = world.disk.sighting(ino, &file);
        if !world.swarm.leases && next.seen != Some(seen.print) {
            let due = world.now + world.swarm.quiet.as_micros() as u64;
            leader.take.held.push_back(Held { seen: Some(seen.print), due, ..next });
            continue;
        }
        let refused = match seen.kind {
            FileKind::Symlink => Some(Code::Symlink),
            FileKind::Special | FileKind::Directory => Some(Code::NotAFile),
            FileKind::Regular if seen.links > 1 => Some(Code::HardLink),
            FileKind::Regular => None,
        };
        let token = leader.window.force(seen.print.len as usize);
        group.push(Taken { claim: next.claim, file: seen.name, ino, refused, token });
    }
    group
}
