//! Names in the archive that are promised to an intent and not yet used.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::ledger::ArchivePlan;
use crate::model::FileName;
use crate::spool::Shelf;

/// Archive names that are planned and not yet used, so that two intents never plan the same.
#[derive(Debug, Default)]
pub struct Names {
    planned: Mutex<HashSet<(Shelf, Vec<u8>)>>,
}

impl Names {
    /// Plans under which name a file will be archived; `in_use` tells what lies in the directory.
    pub fn plan(
        &self,
        shelf: Shelf,
        file: &FileName,
        in_use: impl FnOnce(&[u8]) -> bool,
    ) -> ArchivePlan {
        let safe = file.safe();
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (shelf, safe.clone().into_bytes());
        let taken = planned.contains(&name) || in_use(&name.1);
        if !taken {
            planned.insert(name);
        }
        ArchivePlan { safe, taken }
    }

    /// Lets go of a name: the document lies under it, where `in_use` sees it.
    pub fn used(&self, shelf: Shelf, name: &[u8]) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.remove(&(shelf, name.to_vec()));
    }
}
