//! Carrying out what `retry` asks for: between two groups, so that nothing is accepted between the
//! decision and the moment the retried intent is with the desk.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, after, bounded};
use tracing::{info, warn};

use crate::ledger::OpenIntent;
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::take::Stage;
use crate::pipeline::{Error, ToLedger};
use crate::processor::{archive, recovery};
use crate::request::{Request, Requests};
use crate::telemetry::Chain;
use crate::watch::{Collector, Watch};

/// How soon a request that cannot be carried out yet is looked at again.
const RETRY: Duration = Duration::from_millis(500);

/// When to look for requests.
#[derive(Debug)]
pub struct Requested {
    collector: Collector,
    woken: Receiver<()>,
    watch: Option<Watch>,
    due: Option<Instant>,
}

impl Default for Requested {
    fn default() -> Self {
        let (collector, woken) = Collector::new();
        Requested { collector, woken, watch: None, due: None }
    }
}

impl Requested {
    /// Starts to watch. Without events requests are found when the inbox is listed.
    pub fn arm(&mut self, requests: &Requests) {
        if self.watch.is_none() {
            self.watch = Watch::start(requests.path(), &self.collector).ok();
        }
    }

    /// Asks for a look.
    pub fn look(&mut self, now: Instant) {
        self.due = Some(now);
    }

    /// Has a message when there may be a new request.
    pub fn woken(&self) -> &Receiver<()> {
        &self.woken
    }

    /// When to look again, if that is known.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Carries out the requests that are there, if it is time to look for them. What is moved back into
    /// `work/` is added to `seen`: it is no stray.
    pub fn carry_out(
        &mut self,
        stage: &Stage,
        seen: &mut HashSet<Vec<u8>>,
        now: Instant,
        beat: &Beat,
    ) -> Result<(), Error> {
        let hints = self.collector.take();
        let hinted = hints.everything || !hints.names.is_empty();
        if !hinted && self.due.is_none_or(|due| due > now) {
            return Ok(());
        }
        self.due = None;
        let waiting = match stage.requests.waiting() {
            Ok(waiting) => waiting,
            Err(error) => {
                warn!(error = %Chain(&error), "requests not looked at; left to the next rescan");
                return Ok(());
            }
        };
        for request in waiting {
            // With no more in flight than there may be, `record` has room for what it sends.
            let done = stage.window.has_room(request.seqs.len())
                && self.carry_out_one(stage, request, seen, beat)?;
            if !done {
                self.due = Some(now + RETRY);
            }
        }
        Ok(())
    }

    /// `false` when the request has to wait.
    fn carry_out_one(
        &self,
        stage: &Stage,
        request: Request,
        seen: &mut HashSet<Vec<u8>>,
        beat: &Beat,
    ) -> Result<bool, Error> {
        let id = request.id.clone();
        let (reply, answered) = bounded(1);
        let _ = stage.to_ledger.send(ToLedger::Retry(request, reply));
        // Where `record` has ended, the process does.
        let Ok(Some(revival)) = beat.idle(|| answered.recv()) else { return Ok(false) };
        seen.extend(revival.revived.iter().filter_map(|open| open.claim.clone()));
        if !revival.revived.is_empty() {
            for open in &revival.revived {
                if !restore(stage, open, beat)? {
                    // Told to stop: the next start restores and admits it.
                    return Ok(true);
                }
                info!(seq = open.record.seq.0, "retried: the intent is pending again");
            }
            // Before it can end: a power cut must not leave in `failed/` what is final elsewhere.
            stage.spool.sync_claims().map_err(Error::Spool)?;
            let mut items = Vec::new();
            for open in revival.revived {
                items.extend(recovery::resumed(open, &stage.window).map_err(Error::Ledger)?);
            }
            let _ = stage.to_ledger.send(ToLedger::Resumed(items));
        }
        match stage.requests.answer(&id, revival.answers) {
            Ok(()) => Ok(true),
            // Carried out again, it changes nothing.
            Err(error) => {
                warn!(error = %Chain(&error), "a request not answered yet; trying again");
                Ok(false)
            }
        }
    }
}

/// Undoes the archive, however long it takes; `false` when told to stop meanwhile. Each try is behind
/// the fence: a newer leader may have finished the intent since.
fn restore(stage: &Stage, open: &OpenIntent, beat: &Beat) -> Result<bool, Error> {
    let mut failed = false;
    loop {
        stage.lead.check_lead()?;
        let Err(error) = archive::restore(&stage.spool, open) else { return Ok(true) };
        if !failed {
            warn!(seq = open.record.seq.0, error = %Chain(&error), "not back in work/ yet; trying again");
        }
        failed = true;
        if stage.is_stopped() {
            return Ok(false);
        }
        let _ = beat.idle(|| after(RETRY).recv());
    }
}
