//! Taking from the inbox: when to look, what to claim, what to wait for.
//!
//! The directory is the truth. Hints only say which names to look at before the next rescan; with
//! all of them lost the outcome is the same, later.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{at, never, select};
use tracing::{debug, info, warn};

use crate::batch::Room;
use crate::fault;
use crate::intake::{Rules, Taken};
use crate::limits::{LOOK_MAX, WAITING_MAX};
use crate::model::{Code, FileName, Mode, Sighting};
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::take::line::Line;
use crate::pipeline::take::requested::Requested;
use crate::pipeline::take::{Held, Stage};
use crate::pipeline::{Error, Event};
use crate::settle::{Decision, Settle};
use crate::spool::{self, Claimed, Inbox, claim_order, sort_by_arrival};
use crate::telemetry::Chain;
use crate::watch::Watch;

/// How often it is checked that the inbox's path still leads to the inbox and the lock to our lock.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A name that could not be looked at or claimed is tried again after this.
const RETRY: Duration = Duration::from_millis(500);

/// How to take from the inbox.
#[derive(Clone, Debug)]
pub struct InboxOptions {
    pub path: PathBuf,
    /// How often the whole inbox is listed even though no event came.
    pub rescan: Duration,
    /// The same where there are no events.
    pub poll_interval: Duration,
    /// Do without events.
    pub poll: bool,
    pub until: Until,
}

/// When to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When told to stop.
    Stopped,
    /// When all that is there has been taken, graces waited out; what is being written stays.
    Drained,
}

struct Taker<'a> {
    stage: &'a Stage,
    options: InboxOptions,
    inbox: Option<Inbox>,
    watch: Option<Watch>,
    /// It has been said that there are no events, and not yet that there are again.
    without_events: bool,
    settle: Settle,
    candidates: Line,
    /// The inbox has been listed.
    looked: bool,
    /// The last look found more than it could hold.
    more: bool,
    /// Names that are looked at again at a time, and the same as a set.
    timers: BinaryHeap<Reverse<(Instant, FileName)>>,
    timed: HashSet<FileName>,
    /// Names that somebody was writing to when last looked at.
    writing: HashSet<FileName>,
    held: VecDeque<Held>,
    requested: Requested,
    /// Claims of older epochs that were there at the start, or were taken up since.
    seen: HashSet<Vec<u8>>,
    /// Number of the next claim in this epoch.
    next_claim: u64,
    rescan_at: Instant,
    check_at: Instant,
    /// The window was full when last asked.
    crowded: bool,
}

/// Runs until stopped or drained.
pub fn run(
    stage: Stage,
    options: InboxOptions,
    held: VecDeque<Held>,
    seen: HashSet<Vec<u8>>,
    beat: &Beat,
) -> Result<(), Error> {
    let now = Instant::now();
    let mut taker = Taker {
        inbox: Some(Inbox::open(&options.path, &stage.spool).map_err(Error::Spool)?),
        watch: None,
        without_events: false,
        settle: Settle::new(stage.settle_quiet),
        candidates: Line::default(),
        looked: false,
        more: false,
        timers: BinaryHeap::new(),
        timed: HashSet::new(),
        writing: HashSet::new(),
        held,
        requested: Requested::default(),
        seen,
        next_claim: 0,
        rescan_at: now,
        check_at: now + CHECK_EVERY,
        crowded: false,
        stage: &stage,
        options,
    };
    taker.arm();
    taker.take_held()?;
    let _ = stage.events.send(Event::Ready);
    while taker.turn(beat)? {}
    if taker.options.until == Until::Drained && !taker.writing.is_empty() {
        let left = taker.writing.into_iter().collect();
        let _ = stage.events.send(Event::StillWritten(left));
    }
    Ok(())
}

impl Taker<'_> {
    /// Looks, takes what can be taken, and waits for a reason to go on; `false` to end.
    fn turn(&mut self, beat: &Beat) -> Result<bool, Error> {
        let now = Instant::now();
        if now >= self.check_at {
            self.check(now)?;
        }
        self.gather(now);
        self.requested.carry_out(self.stage, &mut self.seen, now, beat)?;
        self.take_held()?;
        let took = self.take_group()?;
        beat.work();
        if self.stage.is_stopped() {
            return Ok(false);
        }
        if took || (!self.candidates.is_empty() && !self.crowded) {
            return Ok(true);
        }
        if !self.until_stopped() && self.is_drained() {
            return Ok(false);
        }
        let freed = if self.crowded { self.stage.window.freed().clone() } else { never() };
        let due = at(self.due());
        Ok(beat.idle(|| {
            select! {
                recv(self.stage.stopped) -> _ => false,
                recv(self.stage.woken) -> _ => true,
                recv(self.requested.woken()) -> _ => true,
                recv(freed) -> _ => true,
                recv(due) -> _ => true,
            }
        }))
    }

    fn until_stopped(&self) -> bool {
        self.options.until == Until::Stopped
    }

    fn is_drained(&self) -> bool {
        let waits_for_a_grace = self.timed.iter().any(|name| !self.writing.contains(name));
        self.looked
            && self.candidates.is_empty()
            && !self.more
            && self.held.is_empty()
            && self.requested.due().is_none()
            && !waits_for_a_grace
    }

    fn due(&self) -> Instant {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let held = self.held.iter().map(|held| held.due).min();
        let regular = match self.options.until {
            Until::Stopped => [Some(self.rescan_at), Some(self.check_at)],
            Until::Drained => [Some(self.check_at), None],
        };
        let requested = self.requested.due();
        let all = regular.into_iter().flatten().chain(timer).chain(held).chain(requested);
        all.min().unwrap_or(self.check_at)
    }

    /// Starts to watch, if that is wanted and possible; without it the inbox is listed more often.
    fn arm(&mut self) {
        if self.options.poll || self.options.until == Until::Drained {
            return;
        }
        self.requested.arm(&self.stage.requests);
        if self.watch.is_some() {
            return;
        }
        match Watch::start(&self.options.path, &self.stage.collector) {
            Ok(watch) => {
                self.watch = Some(watch);
                if std::mem::take(&mut self.without_events) {
                    info!("watching the inbox again");
                    // What came between the last listing and now gave no event.
                    self.stage.collector.everything();
                }
            }
            // An inbox that is lost is said to be lost, and that is what ends this.
            Err(_) if self.without_events || self.inbox.is_none() => {}
            Err(error) => {
                self.without_events = true;
                warn!(error = %Chain(&error), "no events; listing the inbox instead until there are");
            }
        }
    }

    /// Collects what is worth a look: hints, names whose time has come, everything now and then.
    fn gather(&mut self, now: Instant) {
        let hints = self.stage.collector.take();
        // A drain looks once, and again only for what did not fit into that look.
        let is_time = now >= self.rescan_at && (self.until_stopped() || !self.looked);
        let rescan = hints.everything || is_time || (self.more && self.candidates.is_empty());
        let mut names: Vec<FileName> = hints.names.into_iter().collect();
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((_, name))) = self.timers.pop() else { break };
            self.timed.remove(&name);
            names.push(name);
        }
        if rescan {
            self.rescan(now);
        } else if !names.is_empty() {
            self.look_at(names);
        }
    }

    fn rescan(&mut self, now: Instant) {
        self.arm();
        self.requested.look(now);
        let every =
            if self.watch.is_some() { self.options.rescan } else { self.options.poll_interval };
        self.rescan_at = now + every;
        self.take_up_strays(now);
        let Some(inbox) = &self.inbox else { return };
        if fault::is_mutant("look.list") {
            self.looked = true;
            return;
        }
        let rules = self.stage.live.rules();
        match inbox.look(|name| rules.names.takes(name), LOOK_MAX) {
            Ok(look) => {
                self.looked = true;
                self.candidates.clear();
                self.candidates.extend(look.sightings, now);
                self.more = look.more;
                let names = self.candidates.iter().map(|sighting| &sighting.name);
                let there: HashSet<&FileName> = names.collect();
                self.writing.retain(|name| there.contains(name));
                for name in look.unseen {
                    warn!(file = %name, "not looked at yet; trying again");
                    self.look_again(name, now + RETRY);
                }
            }
            Err(error) => {
                warn!(error = %Chain(&error), "the inbox cannot be listed; trying again");
                self.rescan_at = now + RETRY;
            }
        }
    }

    /// The claim is not behind the fence: a leader that was overtaken may still move files into
    /// `work/`, where it can no longer accept them. They are read anew like those that it left.
    fn take_up_strays(&mut self, now: Instant) {
        let names = match self.stage.spool.claimed_names() {
            Ok(names) => names,
            Err(error) => {
                debug!(error = %Chain(&error), "work/ not listed; left to the next rescan");
                return;
            }
        };
        for name in names {
            let is_older =
                claim_order(&name).is_some_and(|(epoch, _)| epoch < self.stage.lead.epoch);
            if is_older && self.seen.insert(name.clone()) {
                info!(claim = %FileName::new(name.as_slice()), "taking up the claim of a leader that was overtaken");
                self.held.push_back(Held { claimed_as: name, seen: None, due: now, looks: 0 });
            }
        }
    }

    fn look_at(&mut self, names: Vec<FileName>) {
        let Some(inbox) = &self.inbox else { return };
        let rules = self.stage.live.rules();
        let mut sightings = Vec::new();
        let mut unseen = Vec::new();
        for name in names {
            if !rules.names.takes(name.as_bytes()) {
                continue;
            }
            match inbox.sight(&name) {
                Ok(Some(sighting)) => sightings.push(sighting),
                Ok(None) => {
                    self.settle.forget(&name);
                    self.writing.remove(&name);
                }
                Err(error) => {
                    warn!(file = %name, error = %Chain(&error), "not looked at yet; trying again");
                    unseen.push(name);
                }
            }
        }
        for name in unseen {
            self.look_again(name, Instant::now() + RETRY);
        }
        sort_by_arrival(&mut sightings);
        self.candidates.extend(sightings, Instant::now());
        // A backlog that grows by hints faster than it is taken is held on disk instead.
        if self.candidates.len() > LOOK_MAX {
            self.candidates.truncate(LOOK_MAX);
            self.more = true;
        }
    }

    /// Claims a group and submits it; `false` when there was nothing to claim.
    fn take_group(&mut self) -> Result<bool, Error> {
        let rules = self.stage.live.rules();
        let now = Instant::now();
        let mut room = Room::default();
        let mut group = Vec::new();
        self.crowded = false;
        while let Some(sighting) = self.candidates.peek() {
            let bytes = sighting.print.len.min(rules.size_bytes_max) as usize;
            if !room.takes(bytes) {
                break;
            }
            let Some(token) = self.stage.window.admit(bytes, self.candidates.moving_max()) else {
                self.crowded = true;
                break;
            };
            let Some(sighting) = self.candidates.pop() else { break };
            if let Some(taken) = self.consider(sighting, &rules, now) {
                group.push((taken, token));
            }
        }
        let took = !group.is_empty();
        self.stage.submit(group, self.mode(), &mut self.held)?;
        Ok(took)
    }

    fn take_held(&mut self) -> Result<(), Error> {
        let group = self.stage.held_group(&mut self.held, Instant::now());
        self.stage.submit(group, self.mode(), &mut self.held)
    }

    fn mode(&self) -> Mode {
        match self.options.until {
            Until::Stopped => Mode::Run,
            Until::Drained => Mode::Batch,
        }
    }

    /// Claims a file if it is finished or hopeless; else sees to it that it is looked at again.
    fn consider(&mut self, sighting: Sighting, rules: &Rules, now: Instant) -> Option<Taken> {
        let name = sighting.name.clone();
        match self.try_claim(&sighting, rules, now) {
            Ok(taken) => taken,
            Err(error) => {
                warn!(file = %name, error = %Chain(&error), "not taken yet; trying again");
                self.look_again(name, now + RETRY);
                None
            }
        }
    }

    fn try_claim(
        &mut self,
        sighting: &Sighting,
        rules: &Rules,
        now: Instant,
    ) -> Result<Option<Taken>, spool::Error> {
        let Some(inbox) = &self.inbox else { return Ok(None) };
        let (spool, epoch, n) = (&*self.stage.spool, self.stage.lead.epoch, self.next_claim);
        let unopened = |code| {
            let claimed = inbox.claim_unopened(sighting, spool, epoch, n)?;
            Ok((claimed, sighting.owner, Some(code)))
        };
        let (claimed, owner, refused) = match Settle::unopened(sighting.kind) {
            Some(Decision::Refuse(code)) => unopened(code)?,
            Some(_) => return Ok(None),
            None => match inbox.open_candidate(&sighting.name, self.stage.leases) {
                Err(spool::Error::Look { source, .. })
                    if source.kind() == std::io::ErrorKind::PermissionDenied =>
                {
                    unopened(Code::Unreadable)?
                }
                Err(error) => return Err(error),
                Ok(None) => {
                    self.settle.forget(&sighting.name);
                    self.writing.remove(&sighting.name);
                    return Ok(None);
                }
                Ok(Some(candidate)) => {
                    let seen = &candidate.sighting;
                    let decided =
                        self.settle.opened(seen, candidate.peek, rules.size_bytes_max, now);
                    let refused = match decided {
                        Decision::Claim => None,
                        Decision::Refuse(code) => Some(code),
                        Decision::Leave => return Ok(None),
                        Decision::Wait { again, writing } => {
                            let name = sighting.name.clone();
                            if writing {
                                self.writing.insert(name.clone());
                            } else {
                                self.writing.remove(&name);
                            }
                            self.look_again(name, now + again);
                            return Ok(None);
                        }
                    };
                    self.writing.remove(&sighting.name);
                    let owner = candidate.sighting.owner;
                    (inbox.claim(candidate, spool, epoch, n)?, owner, refused)
                }
            },
        };
        self.next_claim += 1;
        Ok(match claimed {
            Claimed::Taken(claim) => Some(Taken { claim, owner, refused }),
            Claimed::Left => None,
            Claimed::Other(claimed_as) => {
                self.held.push_back(Held { claimed_as, seen: None, due: now, looks: 0 });
                None
            }
        })
    }

    /// Past the bound a name is left to the next rescan.
    fn look_again(&mut self, name: FileName, at: Instant) {
        if self.timed.len() < WAITING_MAX && self.timed.insert(name.clone()) {
            self.timers.push(Reverse((at, name)));
        }
    }

    /// Checks that lock and inbox are where they were; an inbox that was replaced is opened anew.
    fn check(&mut self, now: Instant) -> Result<(), Error> {
        self.check_at = now + CHECK_EVERY;
        self.stage.lead.check_lock()?;
        if self.inbox.as_ref().is_some_and(Inbox::is_in_place) {
            return Ok(());
        }
        if self.inbox.take().is_some() {
            warn!(path = %self.options.path.display(), "the inbox is not where it was");
        }
        self.watch = None;
        self.candidates.clear();
        match Inbox::reopen(&self.options.path, &self.stage.spool) {
            Ok(inbox) => {
                info!(path = %self.options.path.display(), "the inbox is back");
                self.inbox = Some(inbox);
                self.arm();
                self.stage.collector.everything();
            }
            Err(error @ spool::Error::Moved { .. }) => return Err(Error::Spool(error)),
            Err(error) => debug!(error = %Chain(&error), "no inbox yet"),
        }
        Ok(())
    }
}
