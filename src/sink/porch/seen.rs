//! What is known of the server, as plain data, and what was noted before a crash.

use serde::{Deserialize, Serialize};

use crate::compose::edit::Files;

/// One revision of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The name that the server gave it.
    pub name: String,
    /// Opaque: never compared with another but for being the same.
    pub version: String,
    pub lifecycle: Lifecycle,
    /// 0 until it is published, and -1 for the branch itself.
    pub number: i64,
    pub is_latest: bool,
    /// It has a time of deletion: Porch has dropped it, whatever else its answer says, or was cut off
    /// while it deleted it.
    pub is_going: bool,
    /// The object that makes and changes it, such as a PackageVariant.
    pub owner: Option<String>,
    /// What it was made for, if it is ours.
    pub target: Option<String>,
    pub intent: Option<String>,
    pub digest: Option<String>,
    pub source: Option<String>,
    pub approval: Option<String>,
    /// How it was made; it stands in git, and outlives a creation that was cut off half-way, unlike
    /// labels and annotations.
    pub origin: Option<Origin>,
}

/// The task that a revision was made by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    New { description: String },
    Copy { source: String },
}

/// How far a revision is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Lifecycle {
    Draft,
    Proposed,
    Published,
    DeletionProposed,
}

impl Lifecycle {
    pub fn as_str(self) -> &'static str {
        match self {
            Lifecycle::Draft => "Draft",
            Lifecycle::Proposed => "Proposed",
            Lifecycle::Published => "Published",
            Lifecycle::DeletionProposed => "DeletionProposed",
        }
    }
}

/// The files of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub version: String,
    pub files: Files,
    pub render_error: Option<String>,
    /// As of a revision.
    pub is_going: bool,
}

/// Something that was looked for, or not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Look<T> {
    #[default]
    Unknown,
    Absent,
    Found(T),
}

/// What this delivery has seen of the server so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Revisions of ours for the same target that are not published; `None` until they are listed.
    pub unpublished: Option<Vec<Revision>>,
    /// The newest published revision of the package, or what stands on the branch without one.
    pub latest: Look<Revision>,
    pub latest_files: Option<Texts>,
    /// The revision of this very intent.
    pub own: Look<Revision>,
    pub own_files: Option<Texts>,
    /// The files were written by this delivery: what they are now, the render made of them.
    pub has_written: bool,
    /// Whether what our revision was copied from is still the newest.
    pub is_source_latest: Option<bool>,
    /// Our revision is known to have been there, and is not any more.
    pub is_lost: bool,
    /// The files of an earlier revision of ours that may be just what is wanted.
    pub candidate: Option<(String, Texts)>,
}

/// What is given to the ledger before each write, and is in it before each that a delivery could not be
/// resumed after without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub step: Stage,
    /// How many revisions of this intent the server has lost before this one.
    pub round: u32,
    /// What the revision is copied from; nothing for a package's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How long its readiness gates were waited for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_seconds: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The write that was about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// An earlier revision of ours is taken back or deleted; there is none of this intent yet.
    Clear,
    Create,
    /// Our revision is given the labels and annotations that its creation left out.
    Adopt,
    Write,
    Annotate,
    /// Nothing is written until its readiness gates are open.
    Wait,
    Propose,
    Approve,
    /// Our own revision is taken back or deleted, since it is a copy of what is not the newest.
    Restart,
}

impl Stage {
    /// Whether a delivery that knows only the step before is resumed as well: what the server shows
    /// tells the rest.
    pub fn may_follow_unseen(self, before: Stage) -> bool {
        matches!((before, self), (Stage::Create, Stage::Write) | (Stage::Propose, Stage::Approve))
    }
}

impl Note {
    /// What was kept; none when it is of another version's form, so that all is looked up anew.
    pub fn read(step: &str) -> Option<Self> {
        serde_json::from_str(step).ok()
    }

    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a note becomes JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_a_strange_one_is_none() {
        let note = Note { step: Stage::Create, round: 0, source: None, waited_seconds: 0 };
        assert_eq!(note.text(), r#"{"step":"create","round":0}"#);
        let long = Note {
            step: Stage::Wait,
            round: 2,
            source: Some("r.p.w".to_owned()),
            waited_seconds: 9,
        };
        for note in [note, long] {
            assert_eq!(Note::read(&note.text()), Some(note));
        }
        for strange in ["", "{}", r#"{"step":"fly","round":0}"#, r#"{"commit":"abc"}"#] {
            assert_eq!(Note::read(strange), None, "{strange}");
        }
    }
}
