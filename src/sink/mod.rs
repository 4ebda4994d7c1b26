//! Places that packages are delivered to.
//!
//! The trait carries quick local sinks and slow, remote, resumable ones alike. Each hand of a
//! sink is owned by one thread; sinks know nothing of each other, of the ledger or of the inbox.

mod child;
pub mod cluster;
pub mod exec;
pub mod git;
pub mod kubectl;
pub mod kubernetes;
mod lock;
pub mod package;
pub mod porch;
pub mod stdout;
pub mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::compose::Package;
use crate::model::{Code, Digest, Intent, Seq, Timestamp};

/// A place that packages are delivered to.
///
/// Contract, checked for every implementation by `tests/it/sinks.rs`:
/// - idempotent by intent: delivering it twice leaves what delivering it once leaves;
/// - atomic per package: a reader who takes less than ten seconds never sees half of one;
/// - one answer per delivery, in the order given, at the latest at `Context::deadline`;
/// - nothing becomes visible at the target unless the fence held just before, or since the read on
///   which the target makes the write depend.
pub trait Sink: Send + fmt::Debug {
    /// The name under `[sinks.NAME]`.
    fn name(&self) -> &str;

    /// Most deliveries that are handed over at once; small where each takes long.
    fn batch_max(&self) -> usize {
        crate::limits::GROUP_MAX
    }

    /// A second hand for the same target directory or server: while one waits for a sync or writes, the
    /// other makes the next batch ready. Their batches never share a target. `None` where a batch is
    /// better done after the other.
    fn second_hand(&self) -> Option<Box<dyn Sink>> {
        None
    }

    /// Tells whether the target can be reached and written, and changes nothing there.
    ///
    /// # Errors
    ///
    /// The fault that a delivery would meet now.
    fn probe(&mut self) -> Result<(), Fault>;

    /// Keeps an older leader from publishing while the epoch is raised, for as long as the seal
    /// lives; `None` where the target itself refuses a stale write.
    ///
    /// # Errors
    ///
    /// The target is still held when `wait` is over, or cannot be locked.
    fn seal(&self, wait: Duration) -> Result<Option<Seal>, Fatal> {
        let _ = wait;
        Ok(None)
    }

    /// Delivers a batch in which each target occurs once.
    ///
    /// # Errors
    ///
    /// [`Fatal`] says that this process must not go on; the batch is delivered again by whoever
    /// leads next.
    fn deliver(
        &mut self,
        batch: &[Delivery<'_>],
        context: &Context<'_>,
    ) -> Result<Vec<Answer>, Fatal>;
}

/// One package on its way to one sink.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub seq: Seq,
    pub intent: &'a Intent,
    /// The document as it was accepted.
    pub document: &'a [u8],
    /// The name of the dropped file, safe to use as a file name.
    pub file: &'a str,
    pub package: &'a Package,
    /// What the sink last asked to be kept for this intent; it resumes from there.
    pub step: Option<&'a Step>,
    /// Digest of the package that was last finished for this target at this sink.
    pub last: Option<Digest>,
}

/// What a sink may use while it delivers.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub fence: &'a dyn Fence,
    pub journal: &'a dyn Journal,
    /// Wakes a pending delivery before its time, from a thread of the sink's own.
    pub waker: &'a Waker,
    /// When an answer is due for all of the batch.
    pub deadline: Instant,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Knows whether this process still leads.
pub trait Fence {
    /// # Errors
    ///
    /// [`Fatal::Fenced`] once another leader has raised the epoch.
    fn check(&self) -> Result<(), Fatal>;

    /// In whose name and under which epoch this process leads.
    fn term(&self) -> Term<'_> {
        Term::default()
    }
}

/// What effects are signed with where the target has a place for it. The default stands for no
/// ledger at all, as in tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term<'a> {
    pub ledger: &'a str,
    pub epoch: u64,
}

/// Keeps the steps that deliveries have reached.
pub trait Journal {
    /// Begins to make these steps durable; together they cost one commit. The last one that is given for
    /// an intent is the one that holds.
    ///
    /// # Errors
    ///
    /// [`Fatal`] when they cannot be made durable.
    fn begin(&self, steps: &[(Seq, Step)]) -> Result<Keeping, Fatal>;

    /// Returns once all of these steps are durable. Not to be used inside of a future.
    ///
    /// # Errors
    ///
    /// [`Fatal`] when they could not be made durable.
    fn record_all(&self, steps: &[(Seq, Step)]) -> Result<(), Fatal> {
        if steps.is_empty() {
            return Ok(());
        }
        self.begin(steps)?.wait()
    }

    /// [`Journal::record_all`] for one step.
    ///
    /// # Errors
    ///
    /// [`Fatal`] when it could not be made durable.
    fn record(&self, seq: Seq, step: &Step) -> Result<(), Fatal> {
        self.record_all(&[(seq, step.clone())])
    }
}

/// Steps on their way into the ledger.
#[derive(Debug)]
#[must_use = "a step is durable once this has been waited for"]
pub struct Keeping {
    /// The first of those that they are of.
    pub seq: Seq,
    /// Hears once they are durable, and is closed where they never will be.
    pub durable: oneshot::Receiver<()>,
}

impl Keeping {
    /// Ends once the steps are durable.
    ///
    /// # Errors
    ///
    /// [`Fatal`] when they could not be made durable.
    pub async fn kept(self) -> Result<(), Fatal> {
        heard(self.seq, self.durable.await)
    }

    fn wait(self) -> Result<(), Fatal> {
        heard(self.seq, self.durable.blocking_recv())
    }
}

fn heard(seq: Seq, durable: Result<(), oneshot::error::RecvError>) -> Result<(), Fatal> {
    durable.map_err(|error| Fatal::Journal { seq, source: error.into() })
}

/// A sink's own note of how far a delivery has come; opaque to everyone else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step(pub String);

/// Asks for a pending delivery to be looked at again now; a clone of it may outlive the call.
pub type Waker = Arc<dyn Fn(Seq) + Send + Sync>;

/// An exclusive hold on a target, let go on drop.
#[derive(Debug)]
pub struct Seal {
    /// The locked directory; closing it unlocks.
    pub _directory: std::fs::File,
}

/// What has become of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The target confirmed it.
    Done(Confirmation),
    /// It has reached `step`; call again after `again`, or when the waker says so.
    Pending { step: Step, again: Duration },
    /// It has not happened, or nobody knows whether it has.
    Failed(Fault),
}

/// What the target confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// Where the effect is to be found.
    pub location: String,
    /// Nothing had to change, and the last finished intent of the target wanted just this.
    pub unchanged: bool,
    /// What else goes into the receipt, by name.
    pub further: BTreeMap<String, serde_json::Value>,
}

/// Why a delivery failed, as data: it ends in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// One sentence that a person can act on.
    pub message: String,
    pub retry: Retry,
}

/// What a delivery would change at a target, told without changing anything there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    Different(Vec<Change>),
    /// Only delivering would tell.
    Unknown,
}

/// One thing that a delivery would change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// What it is, by the name that the target knows it under.
    pub path: String,
    /// Its text now; empty where there is none.
    pub before: String,
    /// Its text afterwards.
    pub after: String,
}

/// Whether the same call may succeed later with nobody changing the intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    Later,
    /// Later, and not before this time has passed.
    After(Duration),
    Never,
}

/// Why this process must stop delivering.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("another instance has taken the lead (epoch {current}, ours is {ours})")]
    Fenced { ours: u64, current: u64 },
    #[error("sync `{path}`")]
    Sync { path: PathBuf, source: io::Error },
    #[error("lock `{path}`")]
    Lock { path: PathBuf, source: io::Error },
    #[error("keep the step of intent {seq} in the ledger")]
    Journal { seq: Seq, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("check that this instance still leads")]
    Epoch { source: Box<dyn std::error::Error + Send + Sync> },
}

/// The wall clock, for receipts only.
fn now() -> Timestamp {
    Timestamp { unix_ms: jiff::Timestamp::now().as_millisecond() }
}
