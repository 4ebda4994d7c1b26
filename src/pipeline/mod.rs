//! Wiring: which threads there are, what they tell each other, and how they stop.
//!
//! ```text
//! take ──Accept──> record ──Accepted──> process ──Batch──> deliver (one a sink)
//!                  ^  ^  └──archive::Request──> shelve          │ Answered
//!                  │  └── Finish, Progress ── process <─────────┘
//!                  └───── Archived ── shelve
//! ```
//! A request of `retry` goes from `take` to `record` and back, then the retried intents to `process`.
//! `record` owns the ledger and never waits for the others: what it sends is bounded by the window
//! of intents in flight, and its channels hold as much. So everybody may wait for `record`, and no
//! circle of waiting can form. Stopping runs along the arrows: `take` ends, `record` passes that
//! on, `process` ends when its desk rests, `record` closes the shelf, and what is left is committed.

mod deliver;
mod heartbeat;
mod lead;
mod process;
mod record;
mod retry;
mod shelve;
pub mod signals;
mod take;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::oneshot;

pub use heartbeat::Heartbeats;
pub use lead::{Claimant, Lead, Leadership};
pub use retry::alone as retry_alone;
pub use take::{InboxOptions, Operand, Source, Until};

use crate::model::{FileName, Record, Seq};
use crate::processor::recovery::Left;
use crate::processor::{Capacity, Item, Job, Names, Settings, Submission, Window};
use crate::watch::Collector;
use crate::{intake, leader, ledger, request, sink, spool};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the spool failed")]
    Spool(#[source] spool::Error),
    #[error("the ledger failed")]
    Ledger(#[source] ledger::Error),
    #[error("the leader's lock failed")]
    Lock(#[source] leader::Error),
    #[error("the intake failed")]
    Intake(#[source] intake::Error),
    #[error("the directory of requests failed")]
    Requests(#[source] request::Error),
    #[error("sink `{sink}` failed")]
    Sink { sink: String, source: sink::Fatal },
    #[error(
        "the spool was last led by ledger {marker_id} at epoch {marker_epoch} with {marker_commits} \
         commits, and this is ledger {ledger_id} at epoch {ledger_epoch} with {ledger_commits}: an older copy would repeat and forget intents; put the \
         right ledger back, or accept this one with --accept-restored-ledger"
    )]
    RestoredLedger {
        marker_id: String,
        marker_epoch: u64,
        marker_commits: u64,
        ledger_id: String,
        ledger_epoch: u64,
        ledger_commits: u64,
    },
    #[error("start thread `{name}`")]
    Thread { name: String, source: std::io::Error },
    #[error("thread `{stage}` ended before it was told to")]
    EndedEarly { stage: String },
    #[error("thread `{stage}` panicked")]
    Panicked { stage: String },
}

/// What the stages tell the thread that runs them.
#[derive(Debug)]
pub enum Event {
    Signal(signals::Signal),
    /// A standby has got the lock.
    Locked(Result<std::fs::File, leader::Error>),
    /// The leader has recovered and watches.
    Ready,
    /// The inbox is drained but for these, which are still being written.
    StillWritten(Vec<FileName>),
    /// A stage has ended.
    Ended {
        stage: String,
        result: Result<(), Error>,
    },
}

/// Events that may wait for the main thread: a few a stage, and it does nothing else.
const EVENTS: usize = 64;

/// The way from the stages to the main thread.
pub fn events() -> (Sender<Event>, Receiver<Event>) {
    crossbeam_channel::bounded(EVENTS)
}

/// What may change while the daemon runs.
#[derive(Debug)]
pub struct Live {
    rules: RwLock<Arc<intake::Rules>>,
    settings: RwLock<Arc<Settings>>,
}

impl Live {
    pub fn new(rules: intake::Rules, settings: Settings) -> Self {
        Live { rules: RwLock::new(Arc::new(rules)), settings: RwLock::new(Arc::new(settings)) }
    }

    /// Puts new rules and settings in force, from the next group and batch on.
    pub fn swap(&self, rules: intake::Rules, settings: Settings) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<intake::Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts all stages under a leadership. The returned sender stops them when it is dropped: what is
/// accepted is finished, then each stage sends its [`Event::Ended`].
///
/// # Errors
///
/// A thread could not be started or the intake not be set up; the process must end.
pub fn start(
    leadership: Leadership,
    source: Source,
    live: Arc<Live>,
    options: Options,
    events: &Sender<Event>,
) -> Result<Running, Error> {
    let Leadership { lead, writer, left, spool, sinks, requests } = leadership;
    let heartbeats = Heartbeats::default();
    let window = Arc::new(Window::default());
    let spool = Arc::new(spool);
    let (collector, woken) = Collector::new();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    let stages = Stages { events: events.clone(), heartbeats: heartbeats.clone() };
    let (to_ledger, from_stages) = record::channel();
    let (to_process, process_inbox) = process::channel();
    let (to_shelf, shelf_inbox) = shelve::channel();
    let Left { unread, seen, undelivered, unarchived } = left;
    let (answers, answered) = deliver::channel();
    let (capacities, deliverers) =
        start_sinks(&stages, sinks, &options.rates, answers, &lead, &to_ledger)?;
    let (of_record, to_shelf) = (Arc::clone(&lead), Some(to_shelf));
    let stage = record::Stage { writer, lead: of_record, to_process, to_shelf };
    stages.spawn("record", move |beat| stage.run(&from_stages, &beat))?;

    let names = Arc::new(Names::promised(&unarchived));
    let stage = shelve::Stage {
        spool: Arc::clone(&spool),
        names: Arc::clone(&names),
        lead: Arc::clone(&lead),
        to_ledger: to_ledger.clone(),
        records: options.records,
    };
    let of_shelf = Arc::clone(&window);
    stages.spawn("shelve", move |beat| stage.run(unarchived, &of_shelf, &shelf_inbox, &beat))?;

    let stage = process::Stage {
        sinks: capacities,
        deliverers,
        spool: Arc::clone(&spool),
        names: Arc::clone(&names),
        live: Arc::clone(&live),
        to_ledger: to_ledger.clone(),
    };
    let (window_of_process, drained) = (Arc::clone(&window), stopped.clone());
    stages.spawn("process", move |beat| {
        stage.run(undelivered, &window_of_process, &process_inbox, &answered, &drained, &beat)
    })?;

    let intake = intake::Intake::start(options.workers, options.leases).map_err(Error::Intake)?;
    let stage = take::Stage {
        spool,
        names,
        intake,
        live,
        window,
        to_ledger,
        lead: Arc::clone(&lead),
        collector: collector.clone(),
        woken,
        stopped,
        events: events.clone(),
        settle_quiet: options.quiet,
        leases: options.leases,
        requests,
    };
    stages.spawn("take", move |beat| stage.run(source, unread, seen, &beat))?;
    Ok(Running { stop, collector, heartbeats, stages: stages.count() })
}

/// The way to each sink, for batches.
type Deliverers = Vec<Sender<Vec<Job>>>;

/// Starts a thread for each hand of each sink, which sends to `answers`; returns what each sink can
/// take, and the way to it.
fn start_sinks(
    stages: &Stages,
    sinks: Vec<Box<dyn sink::Sink>>,
    rates: &BTreeMap<String, u32>,
    answers: Sender<deliver::Message>,
    lead: &Arc<Lead>,
    to_ledger: &Sender<ToLedger>,
) -> Result<(Vec<Capacity>, Deliverers), Error> {
    let (mut capacities, mut deliverers) = (Vec::new(), Vec::new());
    for (lane, sink) in sinks.into_iter().enumerate() {
        let (name, batch_max) = (sink.name().to_owned(), sink.batch_max());
        let rate = rates.get(&name).copied();
        let second = sink.second_hand();
        let hands: Vec<_> = [Some(sink), second].into_iter().flatten().collect();
        let (to_sink, batches) = deliver::batches(hands.len());
        deliverers.push(to_sink);
        capacities.push(Capacity { name: name.clone(), batch_max, hands: hands.len(), rate });
        for (hand, sink) in (1..).zip(hands) {
            let (lead, answers, to_ledger) = (Arc::clone(lead), answers.clone(), to_ledger.clone());
            let stage = deliver::Stage { lane, sink, lead, answers, to_ledger };
            let batches = batches.clone();
            let thread =
                if hand == 1 { format!("sink-{name}") } else { format!("sink-{name}-{hand}") };
            stages.spawn(&thread, move |beat| stage.run(&batches, &beat))?;
        }
    }
    Ok((capacities, deliverers))
}

/// What a start needs besides the leadership.
#[derive(Debug)]
pub struct Options {
    /// Reading threads.
    pub workers: usize,
    /// Ask the kernel about writers; else wait until a file is quiet.
    pub leases: bool,
    pub quiet: std::time::Duration,
    /// Most deliveries a second, by sink; one that is not named has no such bound.
    pub rates: BTreeMap<String, u32>,
    /// Gets every final record once it is archived, a group at a time. Must be drained.
    pub records: Option<Sender<Vec<Record>>>,
}

/// The running stages.
#[derive(Debug)]
pub struct Running {
    /// Dropped to stop.
    pub stop: Sender<()>,
    /// Asks for a look at the inbox.
    pub collector: Collector,
    pub heartbeats: Heartbeats,
    /// How many [`Event::Ended`] there will be.
    pub stages: usize,
}

/// Starts threads so that each tells how it ended.
#[derive(Debug)]
struct Stages {
    events: Sender<Event>,
    heartbeats: Heartbeats,
}

impl Stages {
    fn spawn(
        &self,
        name: &str,
        run: impl FnOnce(heartbeat::Beat) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let (stage, events) = (name.to_owned(), self.events.clone());
        let beat = self.heartbeats.add(name);
        let thread = move || {
            let run = std::panic::AssertUnwindSafe(move || run(beat));
            let result = std::panic::catch_unwind(run)
                .unwrap_or_else(|_| Err(Error::Panicked { stage: stage.clone() }));
            // Nobody listens any more when the process is ending anyway.
            let _ = events.send(Event::Ended { stage, result });
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(thread)
            .map(drop)
            .map_err(|source| Error::Thread { name: name.to_owned(), source })
    }

    fn count(&self) -> usize {
        self.heartbeats.count()
    }
}

/// The wall clock, for records only.
pub fn now() -> crate::model::Timestamp {
    crate::model::Timestamp { unix_ms: jiff::Timestamp::now().as_millisecond() }
}

/// What stages send to `record`.
#[derive(Debug)]
enum ToLedger {
    Accept(Vec<Submission>),
    Finish(Vec<process::Ending>),
    Progress(Vec<ledger::Progress>),
    /// Progress of which a sink may want to hear that it is durable.
    Steps(Vec<ledger::Progress>, oneshot::Sender<()>),
    Archived(Vec<Seq>),
    /// A request of `retry`, and where its answer goes; `None` says that it has to wait.
    Retry(request::Request, Sender<Option<ledger::Revival>>),
    /// Retried intents whose documents are back in `work/`.
    Resumed(Vec<Item>),
    /// `take` has ended.
    NoMoreAccepts,
    /// `process` has ended.
    NoMoreFinishes,
}
