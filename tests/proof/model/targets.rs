//! The simulated targets: a packages directory that a power cut can spoil, and a remote service.

use std::collections::{BTreeMap, BTreeSet};

use intentd::model::{Digest, Seq, TargetKey};

use crate::report::Random;

/// A package as a reader of the directory finds it; without a digest it is torn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub digest: Option<Digest>,
    pub seq: Seq,
    staged: bool,
}

/// Packages by target, each with what it was since the last sync of the names; the first lasts.
#[derive(Debug, Default)]
pub struct Packages {
    names: BTreeMap<TargetKey, Vec<Option<Standing>>>,
    /// The epoch of the leader that holds the directory's lock.
    pub locked_by: Option<u64>,
}

impl Packages {
    pub fn standing(&self, key: &TargetKey) -> Option<Standing> {
        self.names.get(key).and_then(|states| *states.last()?)
    }

    /// Puts a package in place; `staged` says whether its bytes are on the disk.
    pub fn exchange(&mut self, key: &TargetKey, digest: Digest, seq: Seq, staged: bool) {
        let states = self.names.entry(key.clone()).or_insert_with(|| vec![None]);
        states.push(Some(Standing { digest: Some(digest), seq, staged }));
    }

    /// `syncfs`.
    pub fn sync_all(&mut self) {
        self.sync_names();
        for standing in self.names.values_mut().filter_map(|states| states[0].as_mut()) {
            standing.staged = true;
        }
    }

    /// `fsync` of the directory.
    pub fn sync_names(&mut self) {
        for states in self.names.values_mut() {
            let last = states.len() - 1;
            states.drain(..last);
        }
    }

    pub fn power_cut(&mut self, dice: &mut Random) {
        self.locked_by = None;
        for states in self.names.values_mut() {
            let chosen = dice.below(states.len() as u64) as usize;
            states.truncate(chosen + 1);
            states.drain(..chosen);
            for standing in states.iter_mut().flatten() {
                if !standing.staged && dice.below(2) == 0 {
                    standing.digest = None;
                }
                standing.staged = true;
            }
        }
    }
}

/// A service that forgets nothing and refuses a write that is based on an old state.
#[derive(Debug, Default)]
pub struct Remote {
    pub objects: BTreeMap<TargetKey, (Digest, Seq)>,
    pub drafts: BTreeSet<Seq>,
    /// Of each target; a write names the one that it has seen.
    pub versions: BTreeMap<TargetKey, u64>,
}
