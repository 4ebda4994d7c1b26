//! From what kubectl says to what it means: the words of the API server, of its own, or of nobody.
//!
//! kubectl prints the server's refusals in forms that have been stable for years; those are turned
//! back into the refusal that the server sent, so that one table of codes serves all sinks that
//! write to a cluster. A text that nobody knows is taken for an unknown outcome.

use crate::model::Code;
use crate::sink::child::shown_up_to;
use crate::sink::cluster::{Refusal, Trouble as Answer};
use crate::sink::{Fault, Retry};

/// Characters of a message that are kept.
const SAID_CHARS_MAX: usize = 600;

/// Why a call of kubectl did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It never came to a call: nothing has changed.
    Nothing(String),
    /// The API server declined.
    Refused(Box<Refusal>),
    /// The object is not the one any more that we had read; nothing has changed.
    Stale(String),
    /// Whether a write has had its effect, nobody knows.
    Unknown(String),
}

/// What its word for machines says of an answer's status.
const REASONS: &[(&str, u16)] = &[
    ("BadRequest", 400),
    ("Unauthorized", 401),
    ("Forbidden", 403),
    ("NotFound", 404),
    ("MethodNotAllowed", 405),
    ("NotAcceptable", 406),
    ("AlreadyExists", 409),
    ("Conflict", 409),
    ("Gone", 410),
    ("Expired", 410),
    ("RequestEntityTooLarge", 413),
    ("UnsupportedMediaType", 415),
    ("Invalid", 422),
    ("TooManyRequests", 429),
    ("InternalError", 500),
    ("ServiceUnavailable", 503),
    ("Timeout", 504),
    ("ServerTimeout", 504),
];

/// Beginnings of what is said before anything was sent: the settings are at fault.
const NOTHING_SENT: &[&str] = &[
    "error: stat ",
    "error: open ",
    "error: error loading config file",
    "error: no configuration has been provided",
    "error: invalid configuration",
    "error: context ",
    "error: exec plugin",
    "error: unknown flag",
    "Error in configuration",
    "Error: unknown flag",
    "Unable to connect to the server: getting credentials",
    "error: getting credentials",
];

impl Trouble {
    /// What is meant by what was written to standard error before exiting with `code`.
    pub fn of_stderr(stderr: &[u8], code: i32) -> Self {
        let text = telling(&String::from_utf8_lossy(stderr));
        let said = || shown_up_to(text.as_bytes(), SAID_CHARS_MAX);
        if text.is_empty() {
            return Trouble::Unknown(format!("kubectl exits with {code} and says nothing"));
        }
        if let Some(rest) = text.strip_prefix("Error from server") {
            return of_server(rest).unwrap_or_else(|| Trouble::Unknown(said()));
        }
        if text.starts_with("error: You must be logged in to the server") {
            return refused(401, "Unauthorized", &text["error: ".len()..]);
        }
        if text.starts_with("error: the server doesn't have a resource type")
            || text.starts_with("the server doesn't have a resource type")
        {
            return refused(404, "NotFound", text.trim_start_matches("error: "));
        }
        // How kubectl prints `Invalid`: the object's kind and name, then the causes.
        if text.starts_with("The ") && text.contains(" is invalid: ")
            || text.starts_with("The request is invalid")
        {
            return refused(422, "Invalid", &text);
        }
        if text.starts_with("error: Expected resource version to be ") {
            return Trouble::Stale(text["error: ".len()..].to_owned());
        }
        match NOTHING_SENT.iter().any(|start| text.starts_with(start)) {
            true => Trouble::Nothing(said()),
            false => Trouble::Unknown(said()),
        }
    }

    /// The server has no such object.
    pub fn not_found(message: &str) -> Self {
        refused(404, "NotFound", message)
    }

    /// Whether it was refused because the object is another than the one that was read.
    pub fn is_stale(&self) -> bool {
        match self {
            Trouble::Stale(_) => true,
            Trouble::Refused(it) => it.reason == "Conflict" && !it.is_of_admission(),
            Trouble::Nothing(_) | Trouble::Unknown(_) => false,
        }
    }

    /// What it means for an intent; `what` could not be done, as in `read deployments/ran-a/web`.
    pub fn fault(&self, what: &str) -> Fault {
        match self {
            Trouble::Refused(refusal) => Answer::Refused(refusal.clone()).fault(what),
            Trouble::Nothing(said) | Trouble::Stale(said) | Trouble::Unknown(said) => Fault {
                code: Code::SinkUnavailable,
                message: format!("cannot {what}: {said}"),
                retry: Retry::Later,
            },
        }
    }
}

fn refused(status: u16, reason: &str, message: &str) -> Trouble {
    let message = shown_up_to(message.as_bytes(), SAID_CHARS_MAX);
    let refusal = Refusal { status, reason: reason.to_owned(), message, ..Refusal::default() };
    Trouble::Refused(Box::new(refusal))
}

/// Reads ` (REASON): MESSAGE`, or `: MESSAGE` of a server that gave no reason.
fn of_server(rest: &str) -> Option<Trouble> {
    if let Some(message) = rest.strip_prefix(": ") {
        // Webhooks choose their status as they like and mostly give no reason; it is a no.
        let denied = Refusal { message: message.to_owned(), ..Refusal::default() };
        return denied.is_of_admission().then(|| refused(400, "", message));
    }
    let (reason, message) = rest.strip_prefix(" (")?.split_once("): ")?;
    let (_, status) = REASONS.iter().find(|(known, _)| *known == reason)?;
    Some(refused(*status, reason, message))
}

/// All that is no log line and no warning, in one line.
fn telling(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let told: Vec<&str> =
        lines.filter(|line| !is_log(line) && !line.starts_with("Warning: ")).collect();
    told.join(" ")
}

/// Such as `E1126 00:44:59.722598    1731 memcache.go:265] ...`.
fn is_log(line: &str) -> bool {
    let mut bytes = line.bytes();
    bytes.next().is_some_and(|level| b"IWEF".contains(&level))
        && bytes.by_ref().take(4).filter(u8::is_ascii_digit).count() == 4
        && bytes.next() == Some(b' ')
        && line.contains("] ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from kubectl 1.36.3 at a real API server 1.36.3, or at a server that sent just this.
    const RECORDED: &[(&str, Code, Retry, &str)] = &[
        (
            "Error from server (NotFound): deployments.apps \"nope\" not found\n",
            Code::TargetNotFound,
            Retry::Never,
            "deployments.apps \"nope\" not found",
        ),
        (
            "Error from server (NotFound): namespaces \"nons\" not found\n",
            Code::TargetNotFound,
            Retry::Never,
            "namespaces \"nons\" not found",
        ),
        (
            "Error from server (NotFound): the server could not find the requested resource\n",
            Code::TargetNotFound,
            Retry::Never,
            "the server could not find the requested resource",
        ),
        (
            "error: the server doesn't have a resource type \"foos\"\n",
            Code::TargetNotFound,
            Retry::Never,
            "the server doesn't have a resource type \"foos\"",
        ),
        (
            "Error from server (Forbidden): deployments.apps \"web\" is forbidden: User \"joe\" cannot \
             get resource \"deployments\" in API group \"apps\" in the namespace \"default\"\n",
            Code::Forbidden,
            Retry::Later,
            "deployments.apps \"web\" is forbidden: User \"joe\" cannot get resource \"deployments\" \
             in API group \"apps\" in the namespace \"default\"",
        ),
        (
            "error: You must be logged in to the server (Unauthorized)\n",
            Code::Forbidden,
            Retry::Later,
            "You must be logged in to the server (Unauthorized)",
        ),
        (
            "The deployments \"web\" is invalid: : ValidatingAdmissionPolicy 'cap' with binding 'cap' \
             denied request: at most 7\n",
            Code::AdmissionDenied,
            Retry::Never,
            "The deployments \"web\" is invalid: : ValidatingAdmissionPolicy 'cap' with binding 'cap' \
             denied request: at most 7",
        ),
        (
            "The HorizontalPodAutoscaler \"hpa-x\" is invalid: spec.maxReplicas: Invalid value: 5: \
             must be greater than or equal to `minReplicas`\n",
            Code::AdmissionDenied,
            Retry::Never,
            "The HorizontalPodAutoscaler \"hpa-x\" is invalid: spec.maxReplicas: Invalid value: 5: \
             must be greater than or equal to `minReplicas`",
        ),
        (
            "Error from server: admission webhook \"w.x\" denied the request: frozen\n",
            Code::AdmissionDenied,
            Retry::Never,
            "admission webhook \"w.x\" denied the request: frozen",
        ),
        (
            "Error from server (Forbidden): deployments.apps \"web\" is forbidden: exceeded quota: q, \
             requested: pods=9, used: pods=1, limited: pods=5\n",
            Code::AdmissionDenied,
            Retry::Never,
            "deployments.apps \"web\" is forbidden: exceeded quota: q, requested: pods=9, used: \
             pods=1, limited: pods=5",
        ),
        (
            "Error from server (Forbidden): unable to create new content in namespace a because it is \
             being terminated\n",
            Code::TargetTerminating,
            Retry::Never,
            "unable to create new content in namespace a because it is being terminated",
        ),
        (
            "Error from server (Conflict): Operation cannot be fulfilled on \
             horizontalpodautoscalers.autoscaling \"hpa-x\": the object has been modified; please \
             apply your changes to the latest version and try again\n",
            Code::FieldConflict,
            Retry::Later,
            "Operation cannot be fulfilled on horizontalpodautoscalers.autoscaling \"hpa-x\": the \
             object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            "error: Expected resource version to be 280, was 298\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Expected resource version to be 280, was 298",
        ),
        (
            "Error from server (InternalError): Internal error occurred: etcdserver: leader changed\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Internal error occurred: etcdserver: leader changed",
        ),
        (
            "Error from server (InternalError): Internal error occurred: failed calling webhook \
             \"w.x\": failed to call webhook: Post \"https://w\": connection refused\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Internal error occurred: failed calling webhook \"w.x\": failed to call webhook: Post \
             \"https://w\": connection refused",
        ),
        (
            "Error from server (InternalError): an error on the server (\"oops\") has prevented the \
             request from succeeding (get deployments.apps web)\n",
            Code::SinkUnavailable,
            Retry::Later,
            "an error on the server (\"oops\") has prevented the request from succeeding (get \
             deployments.apps web)",
        ),
        (
            "Error from server (ServiceUnavailable): the server is currently unable to handle the \
             request (get deployments.apps web)\n",
            Code::SinkUnavailable,
            Retry::Later,
            "the server is currently unable to handle the request (get deployments.apps web)",
        ),
        (
            "Error from server (Timeout): Timeout: request did not complete within requested timeout \
             - context deadline exceeded\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Timeout: request did not complete within requested timeout - context deadline exceeded",
        ),
        (
            "E1126 00:47:27.364971   16479 request.go:1196] \"Unexpected error when reading response \
             body\" err=\"unexpected EOF\"\nerror: unexpected error when reading response body. \
             Please retry. Original error: unexpected EOF\n",
            Code::SinkUnavailable,
            Retry::Later,
            "error: unexpected error when reading response body. Please retry. Original error: \
             unexpected EOF",
        ),
        (
            "error: serializer for text/html doesn't exist\n",
            Code::SinkUnavailable,
            Retry::Later,
            "error: serializer for text/html doesn't exist",
        ),
        (
            "E1126 00:44:59.722598    1731 memcache.go:265] \"Unhandled Error\" err=\"couldn't get \
             current server API group list: Get \\\"https://127.0.0.1:1/api?timeout=32s\\\": dial tcp \
             127.0.0.1:1: connect: connection refused\"\nThe connection to the server 127.0.0.1:1 was \
             refused - did you specify the right host or port?\n",
            Code::SinkUnavailable,
            Retry::Later,
            "The connection to the server 127.0.0.1:1 was refused - did you specify the right host \
             or port?",
        ),
        (
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate is \
             valid for localhost, kubernetes.default.svc, not nope\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate \
             is valid for localhost, kubernetes.default.svc, not nope",
        ),
        (
            "Error in configuration: context was not found for specified context: nope\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Error in configuration: context was not found for specified context: nope",
        ),
        (
            "error: stat /nonexistent: no such file or directory\n",
            Code::SinkUnavailable,
            Retry::Later,
            "error: stat /nonexistent: no such file or directory",
        ),
        (
            "Error from server: teapot says no\n",
            Code::SinkUnavailable,
            Retry::Later,
            "Error from server: teapot says no",
        ),
    ];

    #[test]
    fn each_recorded_text_has_its_code() {
        for (stderr, code, retry, said) in RECORDED {
            let fault = Trouble::of_stderr(stderr.as_bytes(), 1).fault("scale x");
            let expected =
                Fault { code: *code, message: format!("cannot scale x: {said}"), retry: *retry };
            assert_eq!(fault, expected, "{stderr}");
        }
    }

    #[test]
    fn silence_noise_and_steering_characters_are_told_plainly() {
        let said = |stderr: &str| Trouble::of_stderr(stderr.as_bytes(), 3).fault("read x").message;
        assert_eq!(said(""), "cannot read x: kubectl exits with 3 and says nothing");
        assert_eq!(said("\n\n"), "cannot read x: kubectl exits with 3 and says nothing");
        assert_eq!(
            said("Warning: v1 is deprecated\nerror: a\nb\n"),
            "cannot read x: error: a b",
            "warnings are left out, lines are joined"
        );
        assert_eq!(said("a\u{1b}[2J"), "cannot read x: a\\u{1b}[2J");
        assert_eq!(said("Error from server (New): x"), "cannot read x: Error from server (New): x");
    }
}
