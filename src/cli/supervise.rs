//! The main thread while stages run: it hears how they end, and decides when the process does.

use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::Sender;
use tracing::{info, warn};

use crate::pipeline::signals::Signal;
use crate::pipeline::{Error, Event, Heartbeats, Running};
use crate::watch::Collector;

/// The running stages and how far they are from their end.
#[derive(Debug)]
pub struct Supervisor {
    /// Dropped to stop.
    stop: Option<Sender<()>>,
    collector: Collector,
    pub heartbeats: Heartbeats,
    stages: usize,
    drain: Duration,
    /// Set by the first SIGTERM.
    deadline: Option<Instant>,
}

/// What an event means for the main thread.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Go,
    Ready,
    Reload,
    StillWritten(Vec<crate::model::FileName>),
    /// All stages have ended.
    End,
}

impl Supervisor {
    pub fn new(running: Running, drain: Duration) -> Self {
        let Running { stop, collector, heartbeats, stages } = running;
        Supervisor { stop: Some(stop), collector, heartbeats, stages, drain, deadline: None }
    }

    /// When to give up waiting for the stages.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the next drain may take.
    pub fn set_drain(&mut self, drain: Duration) {
        self.drain = drain;
    }

    /// Whether a signal has asked for the end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_none()
    }

    /// Takes in an event; `ends_by_itself` says that stages may end without being told to.
    ///
    /// # Errors
    ///
    /// A stage failed, or ended early: the process must end now.
    pub fn hear(&mut self, event: Event, ends_by_itself: bool) -> Result<Next> {
        match event {
            Event::Signal(Signal::Drain) => {
                info!("stopping: finishing what is accepted");
                self.stop = None;
                self.deadline = Some(Instant::now() + self.drain);
            }
            Event::Signal(Signal::Look) => self.collector.everything(),
            Event::Signal(Signal::Reload) => return Ok(Next::Reload),
            Event::Ready => return Ok(Next::Ready),
            Event::StillWritten(names) => return Ok(Next::StillWritten(names)),
            Event::Locked(_) => {}
            Event::Ended { result, .. } if result.is_err() => result?,
            Event::Ended { stage, .. } if !self.is_stopping() && !ends_by_itself => {
                return Err(Error::EndedEarly { stage }.into());
            }
            Event::Ended { .. } => {
                self.stages -= 1;
                if self.stages == 0 {
                    return Ok(Next::End);
                }
            }
        }
        Ok(Next::Go)
    }

    /// Says that the time for the drain is over.
    pub fn give_up(&self) {
        warn!(
            "not everything that is accepted was finished in time; the next start goes on with it"
        );
    }
}
