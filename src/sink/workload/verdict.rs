//! What an intent is told of a write that is stored, whoever carried it.

use std::time::Duration;

use crate::model::Code;
use crate::sink::workload::rollout::Standing;
use crate::sink::{Fault, Retry};

/// What is still missing where waiting may help; nothing where it has converged.
///
/// # Errors
///
/// The fault of a target that will not get there by waiting.
pub fn missing(location: &str, wanted: u32, standing: Standing) -> Result<String, Fault> {
    let (code, message) = match standing {
        Standing::Accepted { missing } | Standing::Observed { missing } => return Ok(missing),
        Standing::Converged => return Ok(String::new()),
        Standing::Failed { reason, message } => {
            let code = match reason.as_str() {
                "ProgressDeadlineExceeded" => Code::VerifyTimeout,
                _ => Code::AdmissionDenied,
            };
            let said = format!("does not get there ({reason}): {message}; the change stands");
            (code, format!("{location} was set to {wanted} and {said}"))
        }
        Standing::Terminating => {
            let message = format!("{location} was set to {wanted} and is being deleted");
            (Code::TargetTerminating, message)
        }
        Standing::Changed { replicas, by } => {
            let by = by.map_or_else(|| "somebody".to_owned(), |by| format!("`{by}`"));
            let message =
                format!("{location} was set to {wanted}, and then {by} set it to {replicas}");
            (Code::FieldConflict, message)
        }
    };
    Err(Fault { code, message, retry: Retry::Never })
}

/// The time for it is over. `missing` may end with why nothing new was seen.
pub fn timed_out(location: &str, wanted: u32, allowed: Duration, missing: &str) -> Fault {
    let seconds = allowed.as_secs_f64();
    let message = format!(
        "{location} was set to {wanted} and has not followed within {seconds} s: {missing}; the \
         change stands"
    );
    Fault { code: Code::VerifyTimeout, message, retry: Retry::Never }
}

/// It is on its way out, and was left alone.
pub fn terminating(location: &str) -> Fault {
    Fault {
        code: Code::TargetTerminating,
        message: format!("{location} is being deleted; nothing was written"),
        retry: Retry::Never,
    }
}

/// It is not there any more.
pub fn deleted(location: &str) -> Fault {
    let message = format!("{location} was deleted after it was written");
    Fault { code: Code::TargetNotFound, message, retry: Retry::Never }
}
