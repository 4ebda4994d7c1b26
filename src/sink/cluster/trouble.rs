//! What can come of a call instead of what was asked for, and what it means for an intent.

use std::time::Duration;

use kube::client::AuthError;
use serde::Deserialize;

use crate::model::Code;
use crate::sink::child::shown_up_to;
use crate::sink::cluster::access::auth_words;
use crate::sink::{Fault, Retry};

/// Characters of a server's message that are kept: a conflict names every owner, a render its package.
const SAID_CHARS_MAX: usize = 600;

/// The first cause: what lies around it says only that a call failed.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn shown(said: &[u8]) -> String {
    let line: Vec<u8> =
        said.iter().map(|b| if matches!(b, b'\n' | b'\r' | b'\t') { b' ' } else { *b }).collect();
    shown_up_to(&line, SAID_CHARS_MAX)
}

/// Why a call has not given what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody was called: there are no usable credentials.
    Access { said: String },
    /// The server said no, or not now. Boxed, since it is large and rare.
    Refused(Box<Refusal>),
    /// No whole answer came: whether the call has had an effect is not known.
    Lost { said: String },
}

/// A refusal in the words of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The code of HTTP.
    pub status: u16,
    /// The word for machines; empty where the answer was no `Status` object.
    pub reason: String,
    /// The sentence for people, fit to be shown.
    pub message: String,
    pub causes: Vec<Cause>,
    pub retry_after: Option<Duration>,
}

/// What a refusal says of one field.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl Trouble {
    pub(super) fn access(said: &str) -> Self {
        Trouble::Access { said: shown(said.as_bytes()) }
    }

    /// What a watch or another call of the client itself has met.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Trouble::of_status(status),
            kube::Error::Service(error) if let Some(error) = error.downcast_ref::<AuthError>() => {
                Trouble::access(&auth_words(error))
            }
            other => Trouble::lost(innermost(other)),
        }
    }

    /// A refusal that came as an object.
    pub fn of_status(status: &kube::core::Status) -> Self {
        Trouble::Refused(Box::new(Refusal {
            reason: status.reason.clone(),
            message: shown(status.message.as_bytes()),
            ..Refusal::bare(status.code)
        }))
    }

    /// No whole answer came.
    pub fn lost(said: String) -> Self {
        Trouble::Lost { said: shown(said.as_bytes()) }
    }

    /// The status of HTTP; 0 where there was no answer.
    pub fn status(&self) -> u16 {
        match self {
            Trouble::Refused(refusal) => refusal.status,
            Trouble::Access { .. } | Trouble::Lost { .. } => 0,
        }
    }

    /// What it means where the caller has nothing to say about its status itself; `what` could not
    /// be done, as in `read deployments/ran-a/web`.
    pub fn fault(&self, what: &str) -> Fault {
        let unavailable = |message, retry| Fault { code: Code::SinkUnavailable, message, retry };
        match self {
            Trouble::Access { said } => unavailable(format!("cannot {what}: {said}"), Retry::Later),
            Trouble::Lost { said } => {
                unavailable(format!("cannot {what}: the API server: {said}"), Retry::Later)
            }
            Trouble::Refused(refusal) => refusal.fault(what),
        }
    }
}

impl Refusal {
    pub(super) fn bare(status: u16) -> Self {
        Refusal { status, ..Refusal::default() }
    }

    /// Reads what the server wrote: a `Status` object, or plain words of something in between.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let wire: Wire = serde_json::from_slice(body).unwrap_or_default();
        let said = if wire.message.is_empty() { body } else { wire.message.as_bytes() };
        let message = match shown(said) {
            empty if empty.is_empty() => format!("it answers {status} and says nothing"),
            message => message,
        };
        let causes = wire.details.unwrap_or_default().causes;
        Refusal { status, reason: wire.reason, message, causes, retry_after: None }
    }

    /// Whether a webhook or a policy has declined it; webhooks choose their status as they like.
    pub fn is_of_admission(&self) -> bool {
        let says = |words| self.message.contains(words);
        says("denied the request") || says("denied request") || says("exceeded quota")
    }

    fn fault(&self, what: &str) -> Fault {
        let Refusal { status, message, retry_after, .. } = self;
        let fault =
            |code, retry| Fault { code, message: format!("cannot {what}: {message}"), retry };
        let later = retry_after.map_or(Retry::Later, Retry::After);
        match status {
            400..500 if self.is_of_admission() => fault(Code::AdmissionDenied, Retry::Never),
            _ if message.contains("because it is being terminated") => {
                fault(Code::TargetTerminating, Retry::Never)
            }
            401 | 403 => fault(Code::Forbidden, Retry::Later),
            404 => fault(Code::TargetNotFound, Retry::Never),
            409 => fault(Code::FieldConflict, later),
            400 | 413 | 422 => fault(Code::AdmissionDenied, Retry::Never),
            _ => fault(Code::SinkUnavailable, later),
        }
    }
}

/// The object `Status` as it comes; nothing of it is there for certain.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, body: &str) -> Fault {
        Trouble::Refused(Box::new(Refusal::read(status, body.as_bytes()))).fault("write x")
    }

    #[test]
    fn each_refusal_has_its_code_and_keeps_the_servers_words() {
        let status = |message: &str| serde_json::json!({"kind": "Status", "message": message});
        let cases = [
            (401, "Unauthorized", Code::Forbidden, Retry::Later),
            (403, "User \"x\" cannot patch", Code::Forbidden, Retry::Later),
            (403, "exceeded quota: q, requested", Code::AdmissionDenied, Retry::Never),
            (
                400,
                "admission webhook \"w\" denied the request: no",
                Code::AdmissionDenied,
                Retry::Never,
            ),
            (
                403,
                "unable to create: because it is being terminated",
                Code::TargetTerminating,
                Retry::Never,
            ),
            (404, "deployments.apps \"x\" not found", Code::TargetNotFound, Retry::Never),
            (422, "spec.replicas: Invalid value", Code::AdmissionDenied, Retry::Never),
            (500, "etcdserver: leader changed", Code::SinkUnavailable, Retry::Later),
        ];
        for (code, message, expected, retry) in cases {
            let fault = fault(code, &status(message).to_string());
            assert_eq!(fault.code, expected, "{message}");
            assert_eq!(fault.message, format!("cannot write x: {message}"));
            assert_eq!(fault.retry, retry, "{message}");
        }
    }

    #[test]
    fn what_a_credential_plugin_prints_is_not_told() {
        use std::os::unix::process::ExitStatusExt;
        let status = std::process::ExitStatus::from_raw(3 << 8);
        let out =
            std::process::Output { status, stdout: b"sesame".into(), stderr: b"sesame".into() };
        let failed = AuthError::AuthExecRun { cmd: "sesame".to_owned(), out: Box::new(out) };
        let trouble = Trouble::of(&kube::Error::Service(Box::new(failed)));
        let said = "the credential plugin of the kubeconfig failed (exit status: 3)".to_owned();
        assert_eq!(trouble, Trouble::Access { said });
    }

    #[test]
    fn what_is_no_status_object_is_told_in_its_own_words() {
        assert_eq!(
            fault(503, "service unavailable\n").message,
            "cannot write x: service unavailable"
        );
        assert_eq!(fault(500, "").message, "cannot write x: it answers 500 and says nothing");
        assert_eq!(fault(404, "[1]").message, "cannot write x: [1]");
    }
}
