//! What to do next, from what was seen, what is wanted, and what was noted before a crash.
//!
//! Pure: it is asked anew after each answer. Whatever was interrupted is so continued from the
//! lifecycle that the server shows, and no write is repeated that has had its effect.
//!
//! Invariant: `Done` is said only of a revision whose lifecycle was in an answer, with files that
//! were read or written by us; `Create` only when our revision is known not to be there.

use crate::compose::edit::Files;
use crate::config::PorchPolicy;
use crate::model::Code;
use crate::sink::porch::seen::{Lifecycle, Look, Note, Revision, Seen, Stage, Texts};
use crate::sink::porch::wanted::{Content, Plan, Wanted, closed_gate};
use crate::sink::{Fault, Retry};

/// One request, or the end.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Looks at all revisions of the package at once: nothing of ours has ended there yet, so there is
    /// no long history.
    Survey,
    /// Lists unpublished revisions of ours for the target.
    ListOurs,
    /// Looks for the newest published revision.
    FindLatest,
    /// Reads the files of the newest published revision.
    ReadLatest {
        name: String,
    },
    /// Reads the files of an earlier revision of ours.
    ReadCandidate {
        name: String,
    },
    /// Looks whether the intent's own revision is there.
    Get {
        round: u32,
    },
    /// Reads the files of the intent's own revision.
    ReadOwn {
        name: String,
    },
    /// Looks whether what the revision was copied from is still the newest.
    CheckSource {
        source: Option<String>,
    },
    /// Makes a Proposed revision a Draft again.
    Withdraw {
        revision: Box<Revision>,
    },
    /// Removes a Draft.
    Delete {
        revision: Box<Revision>,
    },
    Create {
        round: u32,
        source: Option<String>,
    },
    Write {
        revision: Box<Revision>,
        changes: Files,
        /// Look meanwhile whether what the revision was copied from is still the newest.
        checks: bool,
    },
    /// Puts our marks on what our creation has left without them.
    Adopt {
        revision: Box<Revision>,
        source: Option<String>,
    },
    /// Has Nephio's controller take over.
    Annotate {
        revision: Box<Revision>,
    },
    Propose {
        revision: Box<Revision>,
    },
    Approve {
        revision: Box<Revision>,
    },
    /// Waits for a readiness gate.
    Wait {
        gate: String,
    },
    Done {
        revision: Box<Revision>,
        unchanged: bool,
    },
    Refuse(Fault),
}

impl Decision {
    /// The step to be noted before it is carried out; none for what changes nothing.
    pub fn stage(&self, wanted: &Wanted<'_>) -> Option<Stage> {
        Some(match self {
            Decision::Withdraw { revision } | Decision::Delete { revision } => {
                if wanted.owns(revision) { Stage::Restart } else { Stage::Clear }
            }
            Decision::Create { .. } => Stage::Create,
            Decision::Adopt { .. } => Stage::Adopt,
            Decision::Write { .. } => Stage::Write,
            Decision::Annotate { .. } => Stage::Annotate,
            Decision::Propose { .. } => Stage::Propose,
            Decision::Approve { .. } => Stage::Approve,
            Decision::Survey
            | Decision::ListOurs
            | Decision::FindLatest
            | Decision::ReadLatest { .. }
            | Decision::ReadCandidate { .. }
            | Decision::Get { .. }
            | Decision::ReadOwn { .. }
            | Decision::CheckSource { .. }
            | Decision::Wait { .. }
            | Decision::Done { .. }
            | Decision::Refuse(_) => return None,
        })
    }
}

/// The next request, or the end. `note` is what was kept last.
pub fn decide(seen: &Seen, wanted: &Wanted<'_>, note: Option<&Note>) -> Decision {
    let announced = note.filter(|note| note.step != Stage::Clear);
    match (&seen.own, announced) {
        (Look::Unknown, Some(note)) => Decision::Get { round: note.round },
        (Look::Found(own), _) => go_on(seen, wanted, note, own),
        (Look::Unknown | Look::Absent, _) => begin(seen, wanted, note),
    }
}

/// There is no revision of this intent, or none that could still be written.
fn begin(seen: &Seen, wanted: &Wanted<'_>, note: Option<&Note>) -> Decision {
    let Some(ours) = &seen.unpublished else {
        let is_blank = wanted.is_first && seen.latest == Look::Unknown;
        return if is_blank { Decision::Survey } else { Decision::ListOurs };
    };
    let latest = match &seen.latest {
        Look::Unknown => return Decision::FindLatest,
        Look::Absent => None,
        Look::Found(latest) => Some(latest),
    };
    if let Some(latest) = latest
        && let Some(owner) = &latest.owner
    {
        return Decision::Refuse(owned(wanted, owner));
    }
    let candidate = candidate(ours, wanted, latest);
    if let Some(candidate) = candidate {
        match &seen.candidate {
            Some((name, texts)) if *name == candidate.name => {
                if is_as_wanted(texts, wanted) {
                    let unchanged = note.is_none();
                    return Decision::Done { revision: Box::new(candidate.clone()), unchanged };
                }
            }
            _ => return Decision::ReadCandidate { name: candidate.name.clone() },
        }
    }
    if let Some(old) = ours.iter().find(|revision| wanted.supersedes(revision)) {
        return remove(old);
    }
    let Some(latest) = latest else {
        return match &wanted.content {
            Content::Own(_) => create(seen, note, None),
            Content::Edit { .. } => Decision::Refuse(Fault {
                code: Code::TargetNotFound,
                message: format!("package `{}` has no published revision", wanted.package),
                retry: Retry::Never,
            }),
        };
    };
    let Some(texts) = &seen.latest_files else {
        return Decision::ReadLatest { name: latest.name.clone() };
    };
    match wanted.plan(&texts.files, false) {
        Plan::Same => {
            Decision::Done { revision: Box::new(latest.clone()), unchanged: note.is_none() }
        }
        Plan::Change(_) => create(seen, note, Some(latest.name.clone())),
        Plan::Refused(fault) => Decision::Refuse(fault),
    }
}

/// An earlier revision of ours that has come as far as the policy takes one, and wants the same.
fn candidate<'a>(
    ours: &'a [Revision],
    wanted: &Wanted<'_>,
    latest: Option<&Revision>,
) -> Option<&'a Revision> {
    let reached = match wanted.policy {
        PorchPolicy::Draft => Lifecycle::Draft,
        PorchPolicy::Propose => Lifecycle::Proposed,
        PorchPolicy::Approve => return None,
    };
    let latest = latest.map(|latest| latest.name.as_str());
    let digest = wanted.digest();
    ours.iter().find(|revision| {
        wanted.supersedes(revision)
            && !revision.is_going
            && revision.lifecycle >= reached
            && revision.digest.as_deref() == Some(&digest)
            && revision.source.as_deref() == latest
            && (wanted.approval.is_none() || revision.approval.as_deref() == wanted.approval)
    })
}

fn is_as_wanted(texts: &Texts, wanted: &Wanted<'_>) -> bool {
    texts.render_error.is_none() && wanted.plan(&texts.files, true) == Plan::Same
}

fn create(seen: &Seen, note: Option<&Note>, source: Option<String>) -> Decision {
    let round = match note {
        None => 0,
        Some(note) if matches!(seen.own, Look::Found(_)) => note.round + 1,
        // It was there, or was written to: a name that the server has lost may come back.
        Some(note) if seen.is_lost || is_past_creation(note.step) => note.round + 1,
        Some(note) => note.round,
    };
    Decision::Create { round, source }
}

fn is_past_creation(step: Stage) -> bool {
    match step {
        Stage::Clear | Stage::Create | Stage::Restart => false,
        Stage::Adopt
        | Stage::Write
        | Stage::Annotate
        | Stage::Wait
        | Stage::Propose
        | Stage::Approve => true,
    }
}

/// A Draft goes at once; a Proposed becomes one first, so that nobody publishes it meanwhile. What is
/// going already is deleted again: a deletion that was cut off has left it in git.
fn remove(revision: &Revision) -> Decision {
    let boxed = Box::new(revision.clone());
    match revision.lifecycle {
        _ if revision.is_going => Decision::Delete { revision: boxed },
        Lifecycle::Draft => Decision::Delete { revision: boxed },
        _ => Decision::Withdraw { revision: boxed },
    }
}

/// The intent's own revision is there.
fn go_on(seen: &Seen, wanted: &Wanted<'_>, note: Option<&Note>, own: &Revision) -> Decision {
    let is_half = wanted.began(own, note);
    if is_half && own.lifecycle < Lifecycle::Published {
        let source = note.and_then(|note| note.source.clone());
        return Decision::Adopt { revision: Box::new(own.clone()), source };
    }
    if !is_half && !wanted.owns(own) {
        return Decision::Refuse(Fault {
            code: Code::PackageConflict,
            message: format!("revision `{}` is not ours; remove it, then retry", own.name),
            retry: Retry::Never,
        });
    }
    if let Some(owner) = &own.owner {
        return Decision::Refuse(owned(wanted, owner));
    }
    let step = note.map(|note| note.step);
    // Only what was as wanted is ever proposed by us, and what is proposed cannot be written to.
    let was_proposed = matches!(step, Some(Stage::Propose | Stage::Approve));
    if own.lifecycle >= Lifecycle::Published {
        return match &seen.own_files {
            _ if was_proposed => published(own),
            None => Decision::ReadOwn { name: own.name.clone() },
            Some(texts) if wanted.plan(&texts.files, true) == Plan::Same => published(own),
            // Somebody has published it before it was written: what is wanted follows upon it.
            Some(_) => begin(seen, wanted, note),
        };
    }
    let is_proven = own.lifecycle == Lifecycle::Proposed && was_proposed;
    if !is_proven {
        let Some(texts) = &seen.own_files else {
            return Decision::ReadOwn { name: own.name.clone() };
        };
        if let Some(decision) = write(seen, wanted, own, texts) {
            return decision;
        }
    }
    match (own.lifecycle, wanted.policy) {
        (Lifecycle::Draft, PorchPolicy::Draft) => handed_over(wanted, own),
        (Lifecycle::Draft, PorchPolicy::Propose | PorchPolicy::Approve) => {
            let gate = seen.own_files.as_ref().and_then(|texts| closed_gate(&texts.files));
            match gate {
                Some(gate) => Decision::Wait { gate },
                None => onward(seen, note, own),
            }
        }
        (_, PorchPolicy::Approve) => onward(seen, note, own),
        (_, PorchPolicy::Draft | PorchPolicy::Propose) => {
            Decision::Done { revision: Box::new(own.clone()), unchanged: false }
        }
    }
}

fn published(own: &Revision) -> Decision {
    Decision::Done { revision: Box::new(own.clone()), unchanged: false }
}

/// What has to be written before the revision may go any further.
fn write(seen: &Seen, wanted: &Wanted<'_>, own: &Revision, texts: &Texts) -> Option<Decision> {
    let changes = match (&texts.render_error, wanted.plan(&texts.files, true)) {
        (_, Plan::Refused(fault)) => return Some(Decision::Refuse(fault)),
        (Some(said), _) if seen.has_written => return Some(unrendered(own, said)),
        (None, Plan::Same) => return None,
        (Some(said), Plan::Same) => return Some(unrendered(own, said)),
        (_, Plan::Change(changes)) => changes,
    };
    let revision = Box::new(own.clone());
    if own.lifecycle == Lifecycle::Proposed {
        return Some(Decision::Withdraw { revision });
    }
    if seen.has_written {
        let paths: Vec<&str> = changes.keys().map(String::as_str).collect();
        let said = format!("it makes something else of {}", paths.join(", "));
        return Some(unrendered(own, &said));
    }
    let checks = wanted.policy != PorchPolicy::Draft && seen.is_source_latest.is_none();
    Some(Decision::Write { revision, changes, checks })
}

fn unrendered(own: &Revision, said: &str) -> Decision {
    Decision::Refuse(Fault {
        code: Code::RenderFailed,
        message: format!("Porch renders `{}`: {said}", own.name),
        retry: Retry::Never,
    })
}

/// Nobody must have published another one since ours was copied.
fn onward(seen: &Seen, note: Option<&Note>, own: &Revision) -> Decision {
    let revision = Box::new(own.clone());
    match (seen.is_source_latest, own.lifecycle) {
        (None, _) => Decision::CheckSource { source: copied_from(own, note) },
        (Some(false), _) => remove(own),
        (Some(true), Lifecycle::Draft) => Decision::Propose { revision },
        (Some(true), _) => Decision::Approve { revision },
    }
}

/// The revision that this one of ours was copied from; none for a package's first.
pub fn copied_from(own: &Revision, note: Option<&Note>) -> Option<String> {
    own.source.clone().or_else(|| note.and_then(|note| note.source.clone()))
}

/// With an annotation of Nephio's, its controller goes on from the draft.
fn handed_over(wanted: &Wanted<'_>, own: &Revision) -> Decision {
    let revision = Box::new(own.clone());
    match wanted.approval {
        Some(_) if own.approval.as_deref() != wanted.approval => Decision::Annotate { revision },
        _ => Decision::Done { revision, unchanged: false },
    }
}

/// What an owner that makes the package itself is to a change of ours.
pub fn owned(wanted: &Wanted<'_>, owner: &str) -> Fault {
    Fault {
        code: Code::PackageConflict,
        message: format!(
            "package `{}` is made by the {owner}, which would undo the change; change that instead",
            wanted.package
        ),
        retry: Retry::Never,
    }
}
