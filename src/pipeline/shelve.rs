//! The thread that archives: directories show what the ledger already has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, after, bounded};
use tracing::{Level, enabled, info, warn};

use crate::ledger::{ArchivePlan, OpenIntent};
use crate::limits::IN_FLIGHT_MAX;
use crate::model::{FileName, Record, Seq};
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::{Error, Lead, ToLedger};
use crate::processor::{Names, Window, archive, recovery};
use crate::spool::{Shelf, Spool};
use crate::telemetry::Chain;

/// One sync makes all that was archived since the last one durable. Until then the ledger keeps the
/// intents open, so all that waiting costs is repeated work after a crash.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// So many intents are not left open for longer, however fast they come.
const SYNC_AT: usize = 4096;

/// So many are archived after a look at the lock: a leader that stood still and was succeeded shows no
/// more than these again.
const LOOK_EVERY: usize = 32;

/// How often an archive step that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Holds a group for each intent in flight, so `record` never waits.
pub fn channel() -> (Sender<Vec<archive::Request>>, Receiver<Vec<archive::Request>>) {
    bounded(IN_FLIGHT_MAX)
}

/// Plans under which name a file will be archived, by what lies in the directory now.
pub fn plan(names: &Names, spool: &Spool, shelf: Shelf, file: &FileName) -> ArchivePlan {
    // If the directory cannot be asked, the name with the seq is right in any case.
    names.plan(shelf, file, |name| spool.is_taken(shelf, name).unwrap_or(true))
}

#[derive(Debug)]
pub struct Stage {
    pub spool: Arc<Spool>,
    pub names: Arc<Names>,
    pub lead: Arc<Lead>,
    pub to_ledger: Sender<ToLedger>,
    /// Gets the final records; its reader drains it.
    pub records: Option<Sender<Vec<Record>>>,
}

impl Stage {
    /// Archives what was left, then what comes, until `record` closes the shelf; then syncs.
    pub fn run(
        self,
        left: Vec<OpenIntent>,
        window: &Window,
        requests: &Receiver<Vec<archive::Request>>,
        beat: &Beat,
    ) -> Result<(), Error> {
        let mut unsynced = Unsynced::default();
        let left = left.into_iter().filter_map(|open| recovery::repeated(open, window)).collect();
        self.archive(left, &mut unsynced, beat)?;
        loop {
            let message = match unsynced.due() {
                Some(due) => beat.idle(|| requests.recv_deadline(due)),
                None => beat.idle(|| requests.recv().map_err(RecvTimeoutError::from)),
            };
            match message {
                Ok(group) => self.archive(group, &mut unsynced, beat)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if unsynced.is_due(Instant::now()) {
                self.sync(&mut unsynced)?;
            }
        }
        self.sync(&mut unsynced)
    }

    /// Archives a group, however long it takes: its outcomes are in the ledger and only shown here.
    fn archive(
        &self,
        group: Vec<archive::Request>,
        unsynced: &mut Unsynced,
        beat: &Beat,
    ) -> Result<(), Error> {
        for (index, request) in group.iter().enumerate() {
            // Where the lock has gone another one may have archived them, and synced what it wrote.
            if index % LOOK_EVERY == 0 {
                self.lead.check_lock()?;
            }
            self.archive_one(request, beat)?;
            unsynced.add(request.record.seq);
            if enabled!(Level::INFO) {
                tell(&request.record);
            }
            beat.work();
        }
        for shelf in [Shelf::Processed, Shelf::Failed] {
            let there =
                group.iter().filter(|request| archive::shelf(request.record.outcome) == shelf);
            self.names.used(shelf, there.filter_map(|request| request.archived_as.as_deref()));
        }
        // The window opens with the last of the group: `take` is woken for a group, not for each.
        let (records, tokens): (Vec<_>, Vec<_>) =
            group.into_iter().map(|request| (*request.record, request.token)).unzip();
        if let (Some(to_reader), false) = (&self.records, records.is_empty()) {
            let _ = to_reader.send(records);
        }
        drop(tokens);
        Ok(())
    }

    fn archive_one(&self, request: &archive::Request, beat: &Beat) -> Result<(), Error> {
        let mut failed = false;
        while let Err(error) = archive::archive(&self.spool, request) {
            if !failed {
                warn!(seq = request.record.seq.0, error = %Chain(&error), "not archived yet; trying again");
            }
            failed = true;
            if error.is_of_the_device() {
                // A disk that is gone fails its sync too; then there is nothing to wait for.
                self.spool.sync_archive().map_err(Error::Spool)?;
            }
            let _ = beat.idle(|| after(RETRY).recv());
            self.lead.check_lock()?;
        }
        Ok(())
    }

    fn sync(&self, unsynced: &mut Unsynced) -> Result<(), Error> {
        let seqs = unsynced.take();
        if seqs.is_empty() {
            return Ok(());
        }
        self.spool.sync_archive().map_err(Error::Spool)?;
        self.lead.mark()?;
        let _ = self.to_ledger.send(ToLedger::Archived(seqs));
        Ok(())
    }
}

/// Archived intents that no sync covers yet.
#[derive(Debug, Default)]
struct Unsynced {
    seqs: Vec<Seq>,
    since: Option<Instant>,
}

impl Unsynced {
    fn add(&mut self, seq: Seq) {
        self.seqs.push(seq);
        self.since.get_or_insert_with(Instant::now);
    }

    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + SYNC_EVERY)
    }

    fn is_due(&self, now: Instant) -> bool {
        self.seqs.len() >= SYNC_AT || self.due().is_some_and(|due| due <= now)
    }

    fn take(&mut self) -> Vec<Seq> {
        self.since = None;
        std::mem::take(&mut self.seqs)
    }
}

/// One line an intent.
fn tell(record: &Record) {
    let target =
        record.intent.as_ref().map(|intent| format!("{}/{}", intent.namespace, intent.target));
    let seq = record.seq.0;
    let outcome = record.outcome.as_str();
    let code = record.code.map(|code| code.as_str());
    let seconds = record.end_to_end_seconds;
    let file = record.file.to_string();
    let reason = if record.outcome.is_success() { None } else { record.message.as_deref() };
    info!(seq, file, target, outcome, code, reason, duration_seconds = seconds, "intent finished");
}
