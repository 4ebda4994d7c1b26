//! What Porch's refusals mean: by their words, since most of them are a 500.

use crate::model::Code;
use crate::sink::cluster::{Refusal, Trouble};
use crate::sink::{Fault, Retry};

/// Why a request has not had its effect, or has not said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nobody knows whether it had an effect: no answer, or a timeout behind which it goes on.
    Unknown,
    /// Another request for the same object is on its way.
    Busy,
    /// The object, or its lifecycle, has changed since it was read.
    Moved,
    /// A revision of that name is there.
    NameTaken,
    /// The package is there, though no published revision of it was found.
    PackageThere,
    /// What was to be copied is not, or not any more, to be copied.
    SourceGone,
    /// The revision is not there.
    Gone,
    /// It is over, for this reason.
    Fault,
}

/// Words of a refusal, what they mean, and with which status they come (0: any).
const WORDS: &[(u16, &str, Meaning)] = &[
    (409, "another request is already in progress", Meaning::Busy),
    (0, "the object has been modified", Meaning::Moved),
    (0, "workspaceNames must be unique", Meaning::NameTaken),
    (500, "already exists in repository", Meaning::PackageThere),
    (500, "source revision must be published", Meaning::SourceGone),
    (500, "failed to fetch package", Meaning::SourceGone),
    (500, "cannot update a package revision with lifecycle value", Meaning::Moved),
    (422, "can only update package with lifecycle value", Meaning::Moved),
    (422, "value can be only updated to", Meaning::Moved),
    (422, "cannot approve package with", Meaning::Moved),
    (422, "package with Published lifecycle value", Meaning::Moved),
];

/// Words by which a package that cannot be rendered is told.
const RENDERING: &[&str] = &[
    "rror rendering package",
    "failed to heal resources",
    "after render failure",
    "parse Kptfile",
];

/// What a refused or unanswered request means.
pub fn meaning(trouble: &Trouble) -> Meaning {
    let refusal = match trouble {
        Trouble::Access { .. } => return Meaning::Fault,
        Trouble::Lost { .. } => return Meaning::Unknown,
        Trouble::Refused(refusal) => refusal,
    };
    let Refusal { status, message, .. } = &**refusal;
    if *status == 504 {
        return Meaning::Unknown;
    }
    let says = |(code, words, _): &&(u16, &str, Meaning)| {
        (*code == 0 || code == status) && message.contains(words)
    };
    if let Some((_, _, meaning)) = WORDS.iter().find(says) {
        return *meaning;
    }
    match status {
        404 if message.starts_with("packagerevision") => Meaning::Gone,
        _ => Meaning::Fault,
    }
}

/// The fault that ends a delivery; `what` could not be done.
pub fn fault(what: &str, repository: &str, trouble: &Trouble) -> Fault {
    let plain = trouble.fault(what);
    let Trouble::Refused(refusal) = trouble else { return plain };
    let Refusal { status, message, .. } = &**refusal;
    let says = |words: &str| message.contains(words);
    let not_ready = |message, retry| Fault { code: Code::RepositoryNotReady, message, retry };
    match status {
        500 if RENDERING.iter().any(|words| says(words)) => {
            Fault { code: Code::RenderFailed, retry: Retry::Never, ..plain }
        }
        500 if says("packages cannot be nested") => {
            Fault { code: Code::PackageConflict, retry: Retry::Never, ..plain }
        }
        410 => newer(repository),
        _ if says("is managed by v1alpha2") => newer(repository),
        404 if says("repositories.config.porch.kpt.dev") || says("namespaces \"") => {
            not_ready(plain.message, Retry::Later)
        }
        404 if says("page not found") || says("could not find the requested resource") => {
            not_ready(
                format!("cannot {what}: the server has no Porch (porch.kpt.dev/v1alpha1)"),
                Retry::Later,
            )
        }
        409 => Fault { code: Code::SinkUnavailable, ..plain },
        404 => Fault { code: Code::SinkUnavailable, retry: Retry::Later, ..plain },
        _ if meaning(trouble) != Meaning::Fault => {
            Fault { code: Code::SinkUnavailable, retry: Retry::Later, ..plain }
        }
        _ => plain,
    }
}

/// A repository of the newer API.
pub fn newer(repository: &str) -> Fault {
    Fault {
        code: Code::RepositoryNotReady,
        message: format!(
            "repository `{repository}` is served as v1alpha2 only, which is not supported; remove \
             its annotation `porch.kpt.dev/v1alpha2-migration`, or use another repository"
        ),
        retry: Retry::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, message: &str) -> Trouble {
        Trouble::Refused(Box::new(Refusal {
            status,
            message: message.to_owned(),
            ..Refusal::default()
        }))
    }

    #[test]
    fn each_refusal_of_the_table_has_its_meaning() {
        const ISE: &str = "Internal error occurred: ";
        for (status, words, expected) in [
            (
                409,
                "Operation cannot be fulfilled on packagerevisionresources.porch.kpt.dev \"N\": another request is already in progress on package revision resources \"default/N\"",
                Meaning::Busy,
            ),
            (
                500,
                "Operation cannot be fulfilled on packagerevisions.porch.kpt.dev \"N\": the object has been modified; please apply",
                Meaning::Moved,
            ),
            (
                500,
                "package revision workspaceNames must be unique; package revision with name P in repo R with workspaceName W already exists",
                Meaning::NameTaken,
            ),
            (500, "package \"P\" already exists in repository \"R\"", Meaning::PackageThere),
            (500, "source revision must be published", Meaning::SourceGone),
            (
                500,
                "failed to fetch package \"N\": cannot find package revision \"N\"",
                Meaning::SourceGone,
            ),
            (
                500,
                "cannot update a package revision with lifecycle value \"Proposed\"; package must be Draft",
                Meaning::Moved,
            ),
            (
                422,
                "spec.lifecycle: Invalid value: \"Draft\": cannot approve package with Draft lifecycle value; only",
                Meaning::Moved,
            ),
            (
                422,
                "spec.lifecycle: Invalid value: \"Draft\": value can be only updated to Draft,Proposed",
                Meaning::Moved,
            ),
            (
                504,
                "Timeout: request did not complete within requested timeout - context deadline exceeded",
                Meaning::Unknown,
            ),
            (404, "packagerevisions.porch.kpt.dev \"N\" not found", Meaning::Gone),
            (404, "repositories.config.porch.kpt.dev \"R\" not found", Meaning::Fault),
            (503, "service unavailable", Meaning::Fault),
            (
                403,
                "packagerevisions.porch.kpt.dev \"N\" is forbidden: User \"bob\"",
                Meaning::Fault,
            ),
            (
                500,
                "command error on refs/heads/drafts/P/W: pre-receive hook declined",
                Meaning::Fault,
            ),
        ] {
            let said = if status == 500 { format!("{ISE}{words}") } else { words.to_owned() };
            assert_eq!(meaning(&refused(status, &said)), expected, "{words}");
        }
        assert_eq!(meaning(&Trouble::lost("x".to_owned())), Meaning::Unknown);
    }

    #[test]
    fn a_fault_has_the_code_of_who_is_to_mend_it() {
        for (status, words, code, retry) in [
            (
                500,
                "error rendering package in kpt function pipeline. Package NOT pushed",
                Code::RenderFailed,
                Retry::Never,
            ),
            (
                500,
                "failed to heal resources: MalformedYAMLError: yaml: line 1",
                Code::RenderFailed,
                Retry::Never,
            ),
            (
                500,
                "package path \"P/x\" conflicts with existing package \"P\": packages cannot be nested",
                Code::PackageConflict,
                Retry::Never,
            ),
            (
                500,
                "fetch of remote repository default:R::main with retry failed",
                Code::SinkUnavailable,
                Retry::Later,
            ),
            (
                404,
                "repositories.config.porch.kpt.dev \"R\" not found",
                Code::RepositoryNotReady,
                Retry::Later,
            ),
            (404, "404 page not found", Code::RepositoryNotReady, Retry::Later),
            (
                404,
                "packagerevisions.porch.kpt.dev \"N\" not found",
                Code::SinkUnavailable,
                Retry::Later,
            ),
            (409, "another request is already in progress", Code::SinkUnavailable, Retry::Later),
            (
                410,
                "repository \"R\" is managed by v1alpha2; use the v1alpha2 API",
                Code::RepositoryNotReady,
                Retry::Never,
            ),
            (403, "User \"bob\" cannot patch resource", Code::Forbidden, Retry::Later),
            (422, "spec.packageName: Invalid value", Code::AdmissionDenied, Retry::Never),
            (503, "service unavailable", Code::SinkUnavailable, Retry::Later),
            (504, "Timeout: request did not complete", Code::SinkUnavailable, Retry::Later),
        ] {
            let fault = fault("write x", "r", &refused(status, words));
            assert_eq!((fault.code, fault.retry), (code, retry), "{words}");
        }
    }
}
