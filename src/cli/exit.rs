//! Exit codes, as the contract has them.

use std::process::ExitCode;

use crate::config::Origin;
use crate::pipeline::Error as PipelineError;
use crate::{compose, config, ledger, request, schema, sink, spool};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; each document of this run has what it asked for, or something newer.
    Done = 0,
    /// A document was rejected, parked, is pending, or would change something (`diff`).
    Refused = 1,
    Usage = 2,
    /// A sink cannot be reached.
    Unreachable = 69,
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
    if error.is::<Misuse>() {
        return Some(Exit::Usage);
    }
    if let Some(error) = error.downcast_ref::<config::Error>() {
        return Some(of_config(error));
    }
    if error.is::<schema::Error>() || error.is::<compose::Error>() || error.is::<Refused>() {
        return Some(Exit::Configuration);
    }
    if let Some(error) = error.downcast_ref::<PipelineError>() {
        return Some(of_pipeline(error));
    }
    if let Some(error) = error.downcast_ref::<sink::package::Error>() {
        return Some(match error {
            sink::package::Error::Elsewhere { .. } => Exit::Configuration,
            _ => Exit::Storage,
        });
    }
    let of_storage = error.is::<ledger::Error>() || error.is::<request::Error>();
    of_storage.then_some(Exit::Storage)
}

/// A command line that says what cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// A setting that only shows to be wrong when the part is opened.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    pub what: String,
    pub source: anyhow::Error,
}

/// A wrong value is the command line's fault where a flag gave it, and the configuration's elsewhere.
fn of_config(error: &config::Error) -> Exit {
    match error {
        config::Error::Value { origin: Origin::Flag(_), .. } => Exit::Usage,
        _ => Exit::Configuration,
    }
}

fn of_pipeline(error: &PipelineError) -> Exit {
    match error {
        PipelineError::Spool(
            spool::Error::OtherFilesystem { .. }
            | spool::Error::OtherMount { .. }
            | spool::Error::NetworkFilesystem { .. },
        ) => Exit::Configuration,
        PipelineError::Spool(_)
        | PipelineError::Ledger(_)
        | PipelineError::Lock(_)
        | PipelineError::Requests(_)
        | PipelineError::Sink { .. }
        | PipelineError::RestoredLedger { .. } => Exit::Storage,
        PipelineError::Intake(_)
        | PipelineError::Thread { .. }
        | PipelineError::EndedEarly { .. }
        | PipelineError::Panicked { .. } => Exit::Internal,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[track_caller]
    fn check(error: impl Into<anyhow::Error>, exit: Exit) {
        let error: anyhow::Error = error.into();
        assert_eq!(of(&error), exit, "{error:#}");
        // What was being done meanwhile changes nothing.
        assert_eq!(of(&Err::<(), _>(error).context("do it").unwrap_err()), exit);
    }

    #[test]
    fn an_error_has_the_exit_code_of_its_cause() {
        let value = |origin| config::Error::Value {
            key: "drain".to_owned(),
            origin,
            expected: "a time".to_owned(),
        };
        check(Misuse("no".to_owned()), Exit::Usage);
        check(value(Origin::Flag("log-format")), Exit::Usage);
        check(value(Origin::Environment("INTENTD_DRAIN".to_owned())), Exit::Configuration);
        check(config::Error::NoHome, Exit::Configuration);
        check(schema::Error::NoPattern, Exit::Configuration);
        check(compose::Error::Character { code: 7 }, Exit::Configuration);
        let source = anyhow::anyhow!("missing");
        check(Refused { what: "read it".to_owned(), source }, Exit::Configuration);
        check(std::io::Error::other("odd"), Exit::Internal);
        let (path, source) = ("packages".into(), std::io::ErrorKind::StorageFull.into());
        check(sink::package::Error::Create { path, source }, Exit::Storage);
        check(sink::package::Error::Elsewhere { path: "packages".into() }, Exit::Configuration);
    }
}
