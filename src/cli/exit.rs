//! Exit codes, as the contract has them.

use std::process::ExitCode;

use crate::pipeline::Error as PipelineError;
use crate::{config, ledger, schema, spool};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; each document of this run has what it asked for, or something newer.
    Done = 0,
    /// A document was rejected, parked or is pending.
    Refused = 1,
    Usage = 2,
    Internal = 70,
    Storage = 74,
    /// Another instance holds the lock.
    Held = 75,
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// The exit code of an error that ended a command.
pub fn of(error: &anyhow::Error) -> Exit {
    error.chain().find_map(classify).unwrap_or(Exit::Internal)
}

fn classify(error: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if error.is::<config::Error>() || error.is::<schema::Error>() || error.is::<Refused>() {
        return Some(Exit::Configuration);
    }
    if let Some(error) = error.downcast_ref::<PipelineError>() {
        return Some(of_pipeline(error));
    }
    error.is::<ledger::Error>().then_some(Exit::Storage)
}

/// A setting that only shows to be wrong when the part is opened.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    pub what: String,
    pub source: anyhow::Error,
}

fn of_pipeline(error: &PipelineError) -> Exit {
    match error {
        PipelineError::Spool(
            spool::Error::OtherFilesystem { .. } | spool::Error::NetworkFilesystem { .. },
        ) => Exit::Configuration,
        PipelineError::Spool(_)
        | PipelineError::Ledger(_)
        | PipelineError::Lock(_)
        | PipelineError::Sink { .. }
        | PipelineError::RestoredLedger { .. } => Exit::Storage,
        PipelineError::Intake(_)
        | PipelineError::Thread { .. }
        | PipelineError::EndedEarly { .. }
        | PipelineError::Panicked { .. } => Exit::Internal,
    }
}
