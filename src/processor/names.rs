//! Names in the archive that are promised to an intent and not yet used.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ledger::{ArchivePlan, OpenIntent};
use crate::model::FileName;
use crate::processor::archive;
use crate::spool::Shelf;

/// Archive names that are planned and not yet used, so that two intents never plan the same.
#[derive(Debug, Default)]
pub struct Names {
    planned: Mutex<Planned>,
}

#[derive(Debug, Default)]
struct Planned {
    processed: HashSet<Vec<u8>>,
    failed: HashSet<Vec<u8>>,
}

impl Planned {
    fn of(&mut self, shelf: Shelf) -> &mut HashSet<Vec<u8>> {
        match shelf {
            Shelf::Processed => &mut self.processed,
            Shelf::Failed => &mut self.failed,
        }
    }
}

impl Names {
    /// The names that an earlier leader planned for what it finished and perhaps did not archive.
    pub fn promised(unarchived: &[OpenIntent]) -> Self {
        let mut planned = Planned::default();
        for finished in unarchived.iter().filter_map(|open| open.finished.as_ref()) {
            planned.of(archive::shelf(finished.outcome)).extend(finished.archived_as.clone());
        }
        Names { planned: Mutex::new(planned) }
    }

    /// Plans under which name a file will be archived; `in_use` tells what lies in the directory.
    pub fn plan(
        &self,
        shelf: Shelf,
        file: &FileName,
        in_use: impl FnOnce(&[u8]) -> bool,
    ) -> ArchivePlan {
        let safe = file.safe();
        let planned_already = !self.lock().of(shelf).insert(safe.clone().into_bytes());
        // Asked with the name planned, so that nobody has to wait for the directory with us.
        let taken = planned_already || in_use(safe.as_bytes());
        if taken && !planned_already {
            self.used(shelf, [safe.as_bytes()]);
        }
        ArchivePlan { safe, taken }
    }

    /// Lets go of names: the documents lie under them, where `in_use` sees them.
    pub fn used<'a>(&self, shelf: Shelf, names: impl IntoIterator<Item = &'a [u8]>) {
        let mut planned = self.lock();
        for name in names {
            planned.of(shelf).remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Planned> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Finished;
    use crate::model::{Code, Mode, Outcome, Record, Rejection, Seq, Timestamp};

    #[test]
    fn a_planned_name_is_not_planned_again_until_it_is_seen_in_the_directory() {
        let names = Names::default();
        let file = FileName::new("intent-a.json");
        let plan = |seq| names.plan(Shelf::Failed, &file, |_| false).name(Seq(seq));
        assert_eq!(plan(1), b"intent-a.json");
        assert_eq!(plan(2), b"2.intent-a.json");
        names.used(Shelf::Failed, [&b"intent-a.json"[..]]);
        assert_eq!(names.plan(Shelf::Failed, &file, |_| true).name(Seq(3)), b"3.intent-a.json");
    }

    #[test]
    fn what_an_earlier_leader_promised_is_not_planned_for_another() {
        let file = FileName::new("intent-a.json");
        let at = Timestamp { unix_ms: 0 };
        let plan = ArchivePlan { safe: file.safe(), taken: false };
        let rejection = Rejection::of_file(Code::Empty, "empty");
        let open = OpenIntent {
            record: Record {
                seq: Seq(1),
                file: file.clone(),
                digest: None,
                source: None,
                received_at: at,
                finished_at: None,
                epoch: 1,
                mode: Mode::Run,
                intent: None,
                outcome: Outcome::Pending,
                code: None,
                message: None,
                superseded_by: None,
                violations: Vec::new(),
                receipts: Vec::new(),
                end_to_end_seconds: None,
                earlier: Vec::new(),
            },
            claim: Some(b"1.0.intent-a.json".to_vec()),
            document: None,
            finished: Some(Finished::rejected(Seq(1), &rejection, Some(&plan), at)),
            progress: Vec::new(),
        };
        let names = Names::promised(&[open]);
        assert!(names.plan(Shelf::Failed, &file, |_| false).taken);
        assert!(!names.plan(Shelf::Processed, &file, |_| false).taken);
    }
}
