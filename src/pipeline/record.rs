//! The thread that owns the ledger: gathers what is at hand into one commit, then tells the others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, after, bounded};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::batch::Room;
use crate::ledger::{self, Changes, Revival, Writer};
use crate::limits::{GROUP_BYTES_MAX, GROUP_MAX};
use crate::model::Seq;
use crate::pipeline::heartbeat::Beat;
use crate::pipeline::{Error, Lead, ToLedger, now, process};
use crate::processor::{Admission, Item, Submission, archive};
use crate::request::Request;
use crate::telemetry::Chain;

/// Messages that may wait; a stage that sends more waits itself, which is the backpressure.
const QUEUE: usize = 64;

/// How often a full disk is tried again.
const ROOM_RETRY: Duration = Duration::from_millis(500);

pub fn channel() -> (Sender<ToLedger>, Receiver<ToLedger>) {
    bounded(QUEUE)
}

#[derive(Debug)]
pub struct Stage {
    pub writer: Writer,
    pub lead: Arc<Lead>,
    pub to_process: Sender<process::Message>,
    /// Closed when nothing more can come, so that the shelf ends.
    pub to_shelf: Option<Sender<Vec<archive::Request>>>,
}

/// What is told to whom once a commit is durable.
#[derive(Debug, Default)]
struct Owed {
    submissions: Vec<Submission>,
    endings: Vec<process::Ending>,
    steps: Vec<oneshot::Sender<()>>,
    /// Admitted before what is accepted in the same commit, which is newer.
    resumed: Vec<Item>,
    /// Decided once all that came before is committed.
    requests: Vec<(Request, Sender<Option<Revival>>)>,
    no_more_accepts: bool,
    no_more_finishes: bool,
}

impl Stage {
    /// Runs until every sender is gone, then closes the ledger.
    pub fn run(mut self, from: &Receiver<ToLedger>, beat: &Beat) -> Result<(), Error> {
        let mut held = VecDeque::new();
        while let Some(first) = held.pop_front().or_else(|| beat.idle(|| from.recv().ok())) {
            held.push_front(first);
            held.extend(from.try_iter().take(QUEUE));
            let (mut changes, mut owed) = gather(&mut held);
            let seqs = self.commit(&changes, beat)?;
            self.tell(&mut changes, &mut owed, seqs);
            self.revive(&mut owed, beat)?;
            self.writer.tidy().map_err(Error::Ledger)?;
        }
        self.writer.close().map_err(Error::Ledger)
    }

    /// Commits; waits for room on a full disk, which refuses new work and keeps old promises.
    fn commit(&mut self, changes: &Changes, beat: &Beat) -> Result<Vec<Seq>, Error> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        self.write(|writer| writer.commit(changes), beat)
    }

    /// Decides what was asked for, and tells who asks. Nobody accepts or admits anything meanwhile that
    /// is not in the ledger: `take`, which does both, waits for the answer.
    fn revive(&mut self, owed: &mut Owed, beat: &Beat) -> Result<(), Error> {
        for (Request { id, seqs }, answer) in owed.requests.drain(..) {
            let revival = self.write(|writer| writer.revive(&id, &seqs, now()), beat)?;
            let _ = answer.send(revival);
        }
        Ok(())
    }

    fn write<T>(
        &mut self,
        mut write: impl FnMut(&mut Writer) -> Result<T, ledger::Error>,
        beat: &Beat,
    ) -> Result<T, Error> {
        let mut paused = false;
        loop {
            match write(&mut self.writer) {
                Ok(written) => {
                    self.lead.committed(self.writer.commits());
                    if paused {
                        info!("there is room in the ledger again");
                    }
                    return Ok(written);
                }
                Err(error) if error.is_full() => {
                    if !paused {
                        warn!(
                            error = %Chain(&error), "the ledger cannot be written; nothing new is accepted until it can, which takes room on its disk"
                        );
                    }
                    paused = true;
                    let _ = beat.idle(|| after(ROOM_RETRY).recv());
                }
                Err(error) => return Err(Error::Ledger(error)),
            }
        }
    }

    fn tell(&mut self, changes: &mut Changes, owed: &mut Owed, seqs: Vec<Seq>) {
        let epoch = self.writer.epoch();
        let accepted = std::mem::take(&mut changes.accept);
        let mut items = Vec::new();
        let mut requests = Vec::new();
        for ((acceptance, submission), seq) in
            accepted.into_iter().zip(owed.submissions.drain(..)).zip(seqs)
        {
            match submission.admit(acceptance, seq, epoch) {
                Admission::Item(item) => items.push(item),
                Admission::Refused(request) => requests.push(request),
            }
        }
        let resumed = std::mem::take(&mut owed.resumed);
        if !resumed.is_empty() {
            self.pass(process::Message::Accepted(resumed));
        }
        if !items.is_empty() {
            self.pass(process::Message::Accepted(items));
        }
        let mut committed = Vec::new();
        for ending in owed.endings.drain(..) {
            committed.push(ending.request.record.seq);
            requests.push(ending.request);
        }
        self.shelve(requests);
        if !committed.is_empty() {
            self.pass(process::Message::Committed(committed));
        }
        for step in owed.steps.drain(..) {
            let _ = step.send(());
        }
        if owed.no_more_accepts {
            self.pass(process::Message::NoMore);
        }
        if owed.no_more_finishes {
            self.to_shelf = None;
        }
    }

    /// Never waits: the channel holds as much as there can be in flight. A receiver that is gone has
    /// ended early, which ends the process.
    fn pass(&self, message: process::Message) {
        let _ = self.to_process.send(message);
    }

    fn shelve(&self, requests: Vec<archive::Request>) {
        if let (Some(to_shelf), false) = (&self.to_shelf, requests.is_empty()) {
            let _ = to_shelf.send(requests);
        }
    }
}

/// Takes from `held` what fits into one commit.
fn gather(held: &mut VecDeque<ToLedger>) -> (Changes, Owed) {
    let mut changes = Changes::default();
    let mut owed = Owed::default();
    // Twice the group: a group that is being accepted and one that is being finished go together.
    let mut room = Room::new(2 * GROUP_MAX, 2 * GROUP_BYTES_MAX);
    while let Some(message) = held.front() {
        let fits = match message {
            ToLedger::Accept(group) => {
                group.iter().all(|submission| room.takes(submission.bytes()))
            }
            ToLedger::Finish(endings) => endings.iter().all(|_| room.takes(0)),
            _ => true,
        };
        if !fits && !changes.is_empty() {
            break;
        }
        match held.pop_front().expect("it was looked at just now") {
            ToLedger::Accept(group) => {
                for mut submission in group {
                    changes.accept.push(submission.take_acceptance());
                    owed.submissions.push(submission);
                }
            }
            ToLedger::Finish(endings) => {
                for mut ending in endings {
                    changes.finish.push(ending.take_finish());
                    owed.endings.push(ending);
                }
            }
            ToLedger::Progress(progress) => changes.progress.extend(progress),
            ToLedger::Steps(progress, durable) => {
                changes.progress.extend(progress);
                owed.steps.push(durable);
            }
            ToLedger::Archived(seqs) => changes.archived.extend(seqs),
            ToLedger::Retry(request, answer) => owed.requests.push((request, answer)),
            ToLedger::Resumed(items) => owed.resumed.extend(items),
            ToLedger::NoMoreAccepts => owed.no_more_accepts = true,
            ToLedger::NoMoreFinishes => owed.no_more_finishes = true,
        }
    }
    (changes, owed)
}
