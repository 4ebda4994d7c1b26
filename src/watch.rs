//! Tells when the inbox is worth a look. An event is only a hint: it may be lost, doubled or late.
//!
//! Hints are a set of names, bounded; past the bound, and whenever the kernel's queue ran over, the
//! set is just "everything". So nothing a producer does can make us hold more or block the reader
//! of the kernel's queue, and a lost event costs time until the next rescan, never a file.
//!
//! Not here: what a name stands for (`spool`), when to look anyway (`pipeline`).

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use notify::{Config, Event, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::warn;

use crate::limits::HINTS_MAX;
use crate::model::FileName;
use crate::telemetry::Chain;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start a watcher")]
    Start { source: notify::Error },
    #[error("watch `{path}`")]
    Watch { path: PathBuf, source: notify::Error },
}

/// Names that are worth a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub names: HashSet<FileName>,
    /// Look at everything; `names` says nothing then.
    pub everything: bool,
}

/// Collects hints from the watcher's thread for the one thread that looks.
#[derive(Clone, Debug)]
pub struct Collector {
    hints: Arc<Mutex<Hints>>,
    wake: Sender<()>,
}

impl Collector {
    /// A collector, and the channel that has a message whenever there are new hints. One message
    /// suffices, since the set keeps what it stands for.
    pub fn new() -> (Self, Receiver<()>) {
        let (wake, woken) = bounded(1);
        (Collector { hints: Arc::default(), wake }, woken)
    }

    /// Asks for a look at everything.
    pub fn everything(&self) {
        self.add(|hints| {
            hints.everything = true;
            hints.names = HashSet::new();
        });
    }

    /// Asks for a look at one name.
    pub fn name(&self, name: FileName) {
        self.add(|hints| {
            if hints.everything {
                return;
            }
            hints.names.insert(name);
            if hints.names.len() > HINTS_MAX {
                hints.everything = true;
                hints.names = HashSet::new();
            }
        });
    }

    /// Takes what has gathered.
    pub fn take(&self) -> Hints {
        std::mem::take(&mut self.hints.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, change: impl FnOnce(&mut Hints)) {
        change(&mut self.hints.lock().unwrap_or_else(PoisonError::into_inner));
        // Full means that a message is under way already.
        let _ = self.wake.try_send(());
    }
}

/// Watches one directory for as long as it lives.
#[derive(Debug)]
pub struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Starts to watch; call it before the first look, and look after it.
    ///
    /// # Errors
    ///
    /// The kernel's limits on watchers or watches are exhausted, or the directory is not there.
    pub fn start(directory: &Path, collector: &Collector) -> Result<Self, Error> {
        // Rename-in needs both CREATE and MODIFY_NAME; all else would only fill the kernel's queue.
        let mask = EventKindMask::CREATE | EventKindMask::MODIFY_NAME | EventKindMask::ACCESS_CLOSE;
        let config = Config::default().with_event_kinds(mask).with_follow_symlinks(false);
        let to = collector.clone();
        let mut watcher = RecommendedWatcher::new(move |event| hint(event, &to), config)
            .map_err(|source| Error::Start { source })?;
        watcher
            .watch(directory, RecursiveMode::NonRecursive)
            .map_err(|source| Error::Watch { path: directory.to_owned(), source })?;
        Ok(Watch { _watcher: watcher })
    }
}

/// Runs on the watcher's thread, which must never wait: no I/O, no channel that can be full.
fn hint(event: notify::Result<Event>, to: &Collector) {
    match event {
        Ok(event) if event.need_rescan() => {
            warn!("the kernel's event queue ran over; looking at the whole inbox");
            to.everything();
        }
        // The watched directory was unmounted or removed; the next check of its place heals that.
        Ok(Event { kind: EventKind::Remove(_), .. }) => to.everything(),
        Ok(event) => {
            for name in event.paths.iter().filter_map(|path| path.file_name()) {
                to.name(FileName::new(name.as_bytes()));
            }
        }
        Err(error) => {
            warn!(
                error = %Chain(&error),
                "watching failed; looking at the whole inbox"
            );
            to.everything();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_hints_is_one_message_and_one_set() {
        let (collector, woken) = Collector::new();
        for index in 0..100 {
            collector.name(FileName::new(format!("intent-{}.json", index % 10)));
        }
        assert_eq!(woken.try_iter().count(), 1);
        let hints = collector.take();
        assert_eq!((hints.names.len(), hints.everything), (10, false));
        assert_eq!(collector.take(), Hints::default());
    }

    #[test]
    fn too_many_names_become_everything_and_take_no_memory() {
        let (collector, _woken) = Collector::new();
        for index in 0..=HINTS_MAX + 10 {
            collector.name(FileName::new(index.to_string()));
        }
        assert_eq!(collector.take(), Hints { names: HashSet::new(), everything: true });
    }

    #[test]
    fn every_proper_way_to_drop_a_file_gives_a_hint() {
        let directory = tempfile::tempdir().unwrap();
        let inbox = directory.path().join("inbox");
        std::fs::create_dir(&inbox).unwrap();
        let (collector, woken) = Collector::new();
        let _watch = Watch::start(&inbox, &collector).unwrap();
        let outside = directory.path().join("outside");
        std::fs::write(&outside, "{}").unwrap();
        std::fs::hard_link(&outside, inbox.join("linked")).unwrap();
        std::fs::write(inbox.join("written"), "{}").unwrap();
        std::fs::rename(&outside, inbox.join("renamed")).unwrap();
        let mut seen = HashSet::new();
        while seen.len() < 3 {
            woken.recv_timeout(std::time::Duration::from_secs(10)).expect("a hint within 10 s");
            seen.extend(collector.take().names);
        }
        let expected = ["linked", "written", "renamed"].map(FileName::new);
        assert_eq!(seen, HashSet::from(expected));
    }
}
