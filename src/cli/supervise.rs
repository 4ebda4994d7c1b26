//! The main thread while stages run: it hears how they end, and decides when the process does.

use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::Sender;
use tracing::{info, warn};

use crate::pipeline::signals::Signal;
use crate::pipeline::{Error, Event, Heartbeats, Running};
use crate::watch::Collector;

/// A stage that fails hangs up on its neighbours before it tells why, so that theirs may be the first
/// end that is heard. The cause is waited for so long.
const CAUSE_WAIT: Duration = Duration::from_secs(1);

/// The running stages and how far they are from their end.
#[derive(Debug)]
pub struct Supervisor {
    /// Dropped to stop.
    stop: Option<Sender<()>>,
    collector: Collector,
    pub heartbeats: Heartbeats,
    stages: usize,
    drain: Duration,
    /// Set by the first SIGTERM, and by a stage that ended early.
    deadline: Option<Instant>,
    /// The first stage that ended without being told to and without saying why.
    ended_early: Option<String>,
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
        let (stop, deadline, ended_early) = (Some(stop), None, None);
        Supervisor { stop, collector, heartbeats, stages, drain, deadline, ended_early }
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
    /// A stage failed, or all have ended and one of them early: the process must end now.
    pub fn hear(&mut self, event: Event, ends_by_itself: bool) -> Result<Next> {
        match event {
            Event::Signal(Signal::Drain) => {
                info!("stopping: finishing what is accepted");
                if self.ended_early.is_none() {
                    self.stop_within(self.drain);
                }
            }
            Event::Signal(Signal::Look) => self.collector.everything(),
            Event::Signal(Signal::Reload) => return Ok(Next::Reload),
            Event::Ready => return Ok(Next::Ready),
            Event::StillWritten(names) => return Ok(Next::StillWritten(names)),
            Event::Locked(_) => {}
            Event::Ended { result, .. } if result.is_err() => result?,
            Event::Ended { stage, .. } => {
                self.stages -= 1;
                if !self.is_stopping() && !ends_by_itself {
                    self.ended_early = Some(stage);
                    self.stop_within(CAUSE_WAIT);
                }
                if self.stages == 0 {
                    return self.blame().map(|()| Next::End);
                }
            }
        }
        Ok(Next::Go)
    }

    fn stop_within(&mut self, time: Duration) {
        self.stop = None;
        self.deadline = Some(Instant::now() + time);
    }

    /// Gives up the stages that have not ended by the deadline.
    ///
    /// # Errors
    ///
    /// It was no drain: a stage had ended early, and none has told why.
    pub fn give_up(&mut self) -> Result<()> {
        self.blame()?;
        warn!(
            "not everything that is accepted was finished in time; the next start goes on with it"
        );
        Ok(())
    }

    fn blame(&mut self) -> Result<()> {
        match self.ended_early.take() {
            Some(stage) => Err(Error::EndedEarly { stage }.into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::cli::exit::{self, Exit};
    use crate::ledger;

    fn supervisor(stages: usize) -> Supervisor {
        let (stop, _) = bounded(0);
        let (collector, _) = Collector::new();
        let running = Running { stop, collector, heartbeats: Heartbeats::default(), stages };
        Supervisor::new(running, Duration::from_secs(25))
    }

    fn ended(stage: &str, result: Result<(), Error>) -> Event {
        Event::Ended { stage: stage.to_owned(), result }
    }

    #[test]
    fn the_cause_counts_and_not_the_neighbour_that_ended_first() {
        let mut supervisor = supervisor(3);
        assert_eq!(supervisor.hear(ended("process", Ok(())), false).unwrap(), Next::Go);
        assert!(supervisor.is_stopping() && supervisor.deadline().is_some());
        // Nobody asked for a drain that would put the end off.
        let before = supervisor.deadline();
        supervisor.hear(Event::Signal(Signal::Drain), false).unwrap();
        assert_eq!(supervisor.deadline(), before);
        let cause = Error::Ledger(ledger::Error::Fenced { ours: 1, current: 2 });
        let error = supervisor.hear(ended("record", Err(cause)), false).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Storage);
    }

    #[test]
    fn a_stage_that_ends_early_without_a_cause_is_an_error_of_its_own() {
        let mut waited = supervisor(2);
        waited.hear(ended("process", Ok(())), false).unwrap();
        assert_eq!(exit::of(&waited.give_up().unwrap_err()), Exit::Internal);
        let mut alone = supervisor(1);
        let error = alone.hear(ended("process", Ok(())), false).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Internal);
    }

    #[test]
    fn stages_may_end_when_they_were_told_to_or_have_nothing_left() {
        let mut told = supervisor(1);
        told.hear(Event::Signal(Signal::Drain), false).unwrap();
        assert_eq!(told.hear(ended("take", Ok(())), false).unwrap(), Next::End);
        let mut drained = supervisor(1);
        assert_eq!(drained.hear(ended("take", Ok(())), true).unwrap(), Next::End);
        assert!(supervisor(1).give_up().is_ok());
    }
}
