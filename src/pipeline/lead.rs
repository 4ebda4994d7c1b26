//! Taking the lead: lock, ledger, seals, epoch, marker, in an order that a crash cannot spoil.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::warn;

use crate::fault;
use crate::ledger::{self, Reader, Writer};
use crate::model::{Layout, Timestamp};
use crate::pipeline::Error;
use crate::processor::archive;
use crate::processor::recovery::{self, Left};
use crate::request::Requests;
use crate::sink::{Fatal, Fence, Sink, Term};
use crate::spool::{Marker, Spool};
use crate::telemetry::Chain;
use crate::{leader, spool};

/// How long an older leader that is in the middle of publishing is waited for.
const SEAL_WAIT: Duration = Duration::from_secs(10);

/// What is needed to take the lead.
#[derive(Debug)]
pub struct Claimant {
    pub state_dir: PathBuf,
    pub layout: Layout,
    pub sinks: Vec<Box<dyn Sink>>,
    pub accept_restored_ledger: bool,
    pub allow_network_filesystem: bool,
}

/// What only the leader has.
#[derive(Debug)]
pub struct Leadership {
    pub lead: Arc<Lead>,
    pub writer: Writer,
    pub left: Left,
    pub spool: Spool,
    pub sinks: Vec<Box<dyn Sink>>,
    pub requests: Requests,
}

/// The proof of leading, asked before each effect.
#[derive(Debug)]
pub struct Lead {
    pub epoch: u64,
    /// Commits that are known to be durable.
    commits: AtomicU64,
    /// As it was written when the lead was taken.
    marker: Marker,
    path: PathBuf,
    lock: leader::Lock,
    /// The epoch that stands in the ledger is read through a connection of its own.
    reader: Mutex<Reader>,
}

impl Claimant {
    /// The path of the lock.
    pub fn lock_path(&self) -> PathBuf {
        self.state_dir.join("leader.lock")
    }

    /// The path of the ledger.
    pub fn ledger_path(&self) -> PathBuf {
        self.state_dir.join("ledger.db")
    }

    /// Takes the lead with the lock held.
    ///
    /// # Errors
    ///
    /// The ledger or the spool cannot be used; nothing has changed but perhaps the epoch.
    pub fn lead(self, lock: leader::Lock) -> Result<Leadership, Error> {
        let spool =
            Spool::open(&self.layout, self.allow_network_filesystem).map_err(Error::Spool)?;
        let mut writer = Writer::open(&self.ledger_path()).map_err(Error::Ledger)?;
        let marker = Marker::read(&self.layout.marker).map_err(Error::Spool)?;
        if let Some(marker) = &marker
            && !self.accept_restored_ledger
        {
            check_marker(marker, &writer)?;
        }
        // An older leader may be between its look at the epoch and its rename: it has to let go first.
        let mut seals = Vec::new();
        for sink in &self.sinks {
            let sealed = fault::step("lead.seal", || sink.seal(SEAL_WAIT));
            seals.push(sealed.map_err(|source| Error::Sink { sink: sink.name().into(), source })?);
        }
        let floor = marker.map_or(0, |marker| marker.epoch);
        let older = writer.epoch();
        let epoch = writer.raise_epoch(floor).map_err(Error::Ledger)?;
        drop(seals);
        let (ledger_id, commits) = (writer.id().to_owned(), writer.commits());
        let marker = Marker { ledger_id, epoch, commits };
        marker.write(&self.layout.marker).map_err(Error::Spool)?;
        Marker::tidy(&self.layout.marker, older);

        let open = writer.open_intents().map_err(Error::Ledger)?;
        // Before work/ is listed, so that a document that comes back is known as a claim of the ledger's.
        for retried in &open {
            archive::restore(&spool, retried).map_err(Error::Spool)?;
        }
        let claimed = spool.claimed_names().map_err(Error::Spool)?;
        let left = recovery::sort(open, claimed);
        let requests = Requests::open(&self.state_dir).map_err(Error::Requests)?;
        let reader = Mutex::new(Reader::open(&self.ledger_path()).map_err(Error::Ledger)?);
        let commits = AtomicU64::new(commits);
        let path = self.layout.marker;
        let lead = Arc::new(Lead { epoch, commits, marker, path, lock, reader });
        Ok(Leadership { lead, writer, left, spool, sinks: self.sinks, requests })
    }

    /// Makes the state directory when it is missing.
    ///
    /// # Errors
    ///
    /// It cannot be made, or lies on a network filesystem where locks and syncs mean little.
    pub fn prepare(&self) -> Result<(), Error> {
        use std::os::unix::fs::DirBuilderExt;
        let path = &self.state_dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(path)
            .map_err(|source| Error::Spool(spool::Error::Create { path: path.clone(), source }))?;
        let opened = std::fs::File::open(path)
            .map_err(|source| Error::Spool(spool::Error::Open { path: path.clone(), source }))?;
        if !self.allow_network_filesystem && spool::is_network(&opened) {
            return Err(Error::Spool(spool::Error::NetworkFilesystem { path: path.clone() }));
        }
        Ok(())
    }

    /// Tries to take the lock.
    ///
    /// # Errors
    ///
    /// The lock is broken.
    pub fn attempt(&self, since: Timestamp) -> Result<leader::Attempt, Error> {
        leader::Lock::attempt(&self.lock_path(), since).map_err(Error::Lock)
    }
}

/// Refuses a ledger that is not the one that the spool was last led by, or an older copy of it.
fn check_marker(marker: &Marker, writer: &Writer) -> Result<(), Error> {
    if marker.ledger_id == writer.id()
        && marker.epoch <= writer.epoch()
        && marker.commits <= writer.commits()
    {
        return Ok(());
    }
    Err(Error::RestoredLedger {
        marker_id: marker.ledger_id.clone(),
        marker_epoch: marker.epoch,
        marker_commits: marker.commits,
        ledger_id: writer.id().to_owned(),
        ledger_epoch: writer.epoch(),
        ledger_commits: writer.commits(),
    })
}

impl Lead {
    /// Checks that the lock's path still leads to our lock.
    ///
    /// # Errors
    ///
    /// It was replaced: another instance may lead.
    pub fn check_lock(&self) -> Result<(), Error> {
        self.lock.check().map_err(Error::Lock)
    }

    /// Checks that nobody else has taken the lead.
    ///
    /// # Errors
    ///
    /// The lock was replaced, or the ledger has another epoch.
    pub fn check_lead(&self) -> Result<(), Error> {
        self.check_lock()?;
        let current = self.read(Reader::epoch).map_err(Error::Ledger)?;
        if current != self.epoch {
            let fenced = ledger::Error::Fenced { ours: self.epoch, current };
            return Err(Error::Ledger(fenced));
        }
        Ok(())
    }

    /// Notes how many commits are durable.
    pub fn committed(&self, commits: u64) {
        self.commits.store(commits, Ordering::Relaxed);
    }

    /// Writes into the spool how far the ledger is, so that an older copy of it is noticed.
    ///
    /// # Errors
    ///
    /// The lock was lost, or the marker cannot be synced.
    pub fn mark(&self) -> Result<(), Error> {
        self.check_lead()?;
        let commits = self.commits.load(Ordering::Relaxed);
        let marker = Marker { commits, ..self.marker.clone() };
        match marker.write(&self.path) {
            // On a full disk the older one goes on to be right; the next sync tries again.
            Err(error @ spool::Error::Write { .. }) => {
                warn!(error = %Chain(&error), "the spool's marker stays behind the ledger");
                Ok(())
            }
            written => written.map_err(Error::Spool),
        }
    }

    /// Reads from the ledger through the connection that is not the writer's.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, ledger::Error>,
    ) -> Result<T, ledger::Error> {
        read(&self.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Fence for Lead {
    fn check(&self) -> Result<(), Fatal> {
        fault::guard("fence.check", || {
            let epoch = |source: Box<dyn std::error::Error + Send + Sync>| Fatal::Epoch { source };
            self.lock.check().map_err(|error| epoch(error.into()))?;
            let current = self.read(Reader::epoch).map_err(|error| epoch(error.into()))?;
            if current == self.epoch {
                return Ok(());
            }
            Err(Fatal::Fenced { ours: self.epoch, current })
        })
    }

    fn term(&self) -> Term<'_> {
        Term { ledger: &self.marker.ledger_id, epoch: self.epoch }
    }
}
