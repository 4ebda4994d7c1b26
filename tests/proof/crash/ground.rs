//! What sites stand on: memory, or filesystems that can lose power.

use std::path::PathBuf;

use tempfile::TempDir;

use super::disk::{Disk, Kind};
use super::point::Fault;

/// How spool, state and packages lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In memory, where only a kill does anything.
    Memory,
    /// All on one filesystem.
    One(Kind),
    /// Each on one of its own.
    Three(Kind),
}

/// A place for sites, one after the other, used by one thread.
pub struct Ground {
    disks: Vec<Disk>,
    /// Images and mount points, and what the world saw; not touched by a cut.
    dir: TempDir,
    sites: u64,
}

/// The directories of one site.
pub struct Plot {
    pub roots: Vec<PathBuf>,
    /// Outside of what a power cut forgets.
    pub outside: PathBuf,
}

impl Ground {
    /// # Errors
    ///
    /// Why such filesystems cannot be had here, for a person.
    pub fn make(layout: Layout) -> Result<Self, String> {
        let dir = crate::workload::memory();
        let (kind, count) = match layout {
            Layout::Memory => (Kind::Ext4, 0),
            Layout::One(kind) => (kind, 1),
            Layout::Three(kind) => (kind, 3),
        };
        let disks = (0..count)
            .map(|index| Disk::make(kind, &dir.path().join(format!("disk-{index}"))))
            .collect::<Result<_, _>>()?;
        Ok(Ground { disks, dir, sites: 0 })
    }

    /// Empty directories for another site.
    pub fn plot(&mut self) -> Plot {
        self.sites += 1;
        let name = format!("site-{}", self.sites);
        let outside = self.dir.path().join(format!("outside-{}", self.sites));
        let roots: Vec<PathBuf> = match self.disks.as_slice() {
            [] => vec![self.dir.path().join(name)],
            disks => disks.iter().map(|disk| disk.root().join(&name)).collect(),
        };
        for directory in roots.iter().chain([&outside]) {
            std::fs::create_dir_all(directory).expect("there is room");
        }
        Plot { roots, outside }
    }

    pub fn sync(&self) {
        self.disks.iter().for_each(Disk::sync);
    }

    /// What the fault does to the ground; the process must stand still.
    pub fn strike(&self, fault: Fault) {
        if let Some(how) = fault.shutdown() {
            assert!(!self.disks.is_empty(), "memory has no power to cut");
            self.disks.iter().for_each(|disk| disk.cut(how));
        }
    }

    /// The boot after [`strike`](Self::strike); nothing may run on it.
    pub fn restart(&self, fault: Fault) {
        if fault.shutdown().is_some() {
            self.disks.iter().for_each(Disk::remount);
        }
    }
}

impl Plot {
    pub fn clear(self) {
        for directory in self.roots.iter().chain([&self.outside]) {
            std::fs::remove_dir_all(directory).expect("it is ours");
        }
    }
}
