//! The thread that takes documents in: from the inbox, or from the operands of `batch`.

mod inbox;
mod line;
mod operand;
mod requested;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use tracing::warn;

pub use inbox::{InboxOptions, Until};
pub use operand::Operand;

use crate::fault;
use crate::intake::{Intake, Judged, Reading, Taken};
use crate::model::{Code, FileKind, Mode};
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::{Error, Event, Lead, Live, ToLedger, now, shelve};
use crate::processor::{Names, Submission, Token, Window};
use crate::request::Requests;
use crate::spool::{Claim, Shelf, Spool};
use crate::telemetry::Chain;
use crate::watch::Collector;

/// A claim that could not be read is looked at again this soon, and less and less often.
const HELD_FIRST: Duration = Duration::from_millis(5);
const HELD_MAX: Duration = Duration::from_secs(1);

/// Where documents come from.
#[derive(Debug)]
pub enum Source {
    Inbox(InboxOptions),
    Operands(Vec<Operand>),
}

#[derive(Debug)]
pub struct Stage {
    pub spool: Arc<Spool>,
    pub names: Arc<Names>,
    pub intake: Intake,
    pub live: Arc<Live>,
    pub window: Arc<Window>,
    pub to_ledger: Sender<ToLedger>,
    pub lead: Arc<Lead>,
    pub collector: Collector,
    pub woken: Receiver<()>,
    pub stopped: Receiver<()>,
    pub events: Sender<Event>,
    pub settle_quiet: Duration,
    pub leases: bool,
    pub requests: Requests,
}

/// A claim in `work/` that has to be looked at again.
#[derive(Debug)]
struct Held {
    claimed_as: Vec<u8>,
    /// What was seen last; without leases it must be the same twice.
    seen: Option<crate::model::Fingerprint>,
    due: Instant,
    looks: u32,
}

impl Held {
    fn wait(mut self, now: Instant) -> Self {
        self.due = now + HELD_FIRST.saturating_mul(1 << self.looks.min(16)).min(HELD_MAX);
        self.looks += 1;
        self
    }
}

impl Stage {
    /// Takes in until told to stop, or until the source is exhausted. First come the claims that an
    /// earlier leader left unread.
    pub fn run(
        self,
        source: Source,
        unread: Vec<Vec<u8>>,
        seen: HashSet<Vec<u8>>,
        beat: &Beat,
    ) -> Result<(), Error> {
        let now = Instant::now();
        let held = unread
            .into_iter()
            .map(|claimed_as| Held { claimed_as, seen: None, due: now, looks: 0 })
            .collect();
        let to_ledger = self.to_ledger.clone();
        match source {
            Source::Inbox(options) => inbox::run(self, options, held, seen, beat)?,
            Source::Operands(operands) => operand::run(&self, operands, held, beat)?,
        }
        let _ = to_ledger.send(ToLedger::NoMoreAccepts);
        Ok(())
    }

    /// Whether the stages were told to stop.
    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Syncs claims, reads and judges them and hands them to the ledger, in their order; those that
    /// are not settled after all are put to `held`. Claims of a killed leader are synced like our
    /// own: its rename may be on no disk yet.
    fn submit(
        &self,
        group: Vec<(Taken, Token)>,
        mode: Mode,
        held: &mut VecDeque<Held>,
    ) -> Result<(), Error> {
        if group.is_empty() {
            return Ok(());
        }
        self.spool.sync_claims().map_err(Error::Spool)?;
        if fault::is_mutant("archive.early") {
            for (taken, _) in &group {
                let name = taken.claim.file.as_bytes();
                let moved =
                    self.spool
                        .archive(&taken.claim.claimed_as, Shelf::Processed, name, || name.to_vec());
                moved.map_err(Error::Spool)?;
            }
        }
        let (takens, tokens): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let rules = self.live.rules();
        let readings = self.intake.read(&self.spool, &rules, &takens);
        let mut submissions = Vec::with_capacity(takens.len());
        for ((taken, reading), token) in takens.into_iter().zip(readings).zip(tokens) {
            match reading {
                Reading::Judged(judged) => {
                    submissions.push(self.submission(taken.claim, *judged, mode, token));
                }
                Reading::Unsettled => held.push_back(again(taken.claim)),
                Reading::Failed(error) => {
                    warn!(file = %taken.claim.file, error = %Chain(&error), "claim not read yet; trying again");
                    held.push_back(again(taken.claim));
                }
            }
        }
        if !submissions.is_empty() {
            let _ = self.to_ledger.send(ToLedger::Accept(submissions));
        }
        Ok(())
    }

    fn submission(&self, claim: Claim, judged: Judged, mode: Mode, token: Token) -> Submission {
        let plan = |shelf| shelve::plan(&self.names, &self.spool, shelf, &claim.file);
        let archive = judged.verdict.is_err().then(|| plan(Shelf::Failed));
        let file = claim.file.clone();
        Submission::new(file, Some(claim.claimed_as), judged, archive, mode, now(), token)
    }

    /// Takes up held claims that are due, as far as there is room for them.
    fn held_group(&self, held: &mut VecDeque<Held>, now: Instant) -> Vec<(Taken, Token)> {
        let mut group = Vec::new();
        for _ in 0..held.len().min(crate::limits::GROUP_MAX) {
            let Some(next) = held.pop_front() else { break };
            if next.due > now {
                held.push_back(next);
                continue;
            }
            match self.spool.reclaim(&next.claimed_as) {
                Ok(None) => {}
                Ok(Some((claim, sighting))) => {
                    if !self.leases && next.seen != Some(claim.print) {
                        let due = now + self.settle_quiet;
                        held.push_back(Held { seen: Some(claim.print), due, ..next });
                        continue;
                    }
                    let refused = match sighting.kind {
                        FileKind::Symlink => Some(Code::Symlink),
                        FileKind::Special | FileKind::Directory => Some(Code::NotAFile),
                        FileKind::Regular if sighting.links > 1 => Some(Code::HardLink),
                        FileKind::Regular => None,
                    };
                    // It is in flight already, whatever the window says.
                    let token = self.window.force(claim.print.len as usize);
                    group.push((Taken { claim, owner: sighting.owner, refused }, token));
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "claim not taken up yet; trying again");
                    held.push_back(next.wait(now));
                }
            }
        }
        group
    }
}

fn again(claim: Claim) -> Held {
    let now = Instant::now();
    Held { claimed_as: claim.claimed_as, seen: None, due: now, looks: 0 }.wait(now)
}
