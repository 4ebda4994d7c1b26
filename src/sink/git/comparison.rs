//! What a delivery would change at the remote, told from a clone of the moment.
//!
//! The sink's own clone belongs to the leader, so this one is made in a temporary directory, holds
//! the newest commit alone, and is gone afterwards.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Instant;

use crate::compose::Package;
use crate::config::GitSettings;
use crate::limits::DELIVERY_MAX;
use crate::model::{Code, Intent, Seq};
use crate::sink::git::Git;
use crate::sink::git::existing::Existing;
use crate::sink::{Change, Comparison, Delivery, Fault, Retry, Sink};

/// Asks the remote and changes nothing there.
///
/// # Errors
///
/// The fault that the delivery would meet.
pub fn compare(
    settings: &GitSettings,
    intent: &Intent,
    package: &Package,
) -> Result<Comparison, Fault> {
    let unusable = |message| Fault { code: Code::SinkUnavailable, message, retry: Retry::Never };
    let scratch = Scratch::new()
        .map_err(|error| unusable(format!("no temporary clone can be made: {error}")))?;
    let mut git = Git::new("diff".to_owned(), settings, &scratch.path)
        .map_err(|error| unusable(error.to_string()))?;
    let due = Instant::now() + DELIVERY_MAX;
    git.clone.only_newest();
    git.clone.prepare(due)?;
    let base = git.clone.fetch(due)?;
    let delivery =
        Delivery { seq: Seq(0), intent, document: b"", file: "", package, step: None, last: None };
    let planned = git.plan(&delivery, base.as_deref(), true, &mut Existing::default(), due)?;
    if planned.is_empty() {
        return Ok(Comparison::Same);
    }
    let before = match &base {
        Some(base) => {
            let names: Vec<String> =
                planned.iter().map(|change| format!("{base}:{}", change.path)).collect();
            git.clone.read(&names, due)?
        }
        None => planned.iter().map(|_| None).collect(),
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let changes = planned.into_iter().zip(before).map(|(change, before)| Change {
        path: change.path,
        before: before.map_or_else(String::new, |object| text(object.bytes)),
        after: change.text,
    });
    Ok(Comparison::Different(changes.collect()))
}

/// Whether the branch can be reached, asked from a temporary directory: the sink's own is the leader's.
///
/// # Errors
///
/// The fault that a delivery would meet now.
pub fn probe(settings: &GitSettings) -> Result<(), Fault> {
    let unusable = |message| Fault { code: Code::SinkUnavailable, message, retry: Retry::Never };
    let scratch = Scratch::new()
        .map_err(|error| unusable(format!("no temporary directory can be made: {error}")))?;
    let mut git = Git::new("check".to_owned(), settings, &scratch.path)
        .map_err(|error| unusable(error.to_string()))?;
    Sink::probe(&mut git)
}

/// A directory of ours alone, removed in the end.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> std::io::Result<Self> {
        // One that is there already is somebody else's, and is refused.
        let name = format!("intentd-diff-{}", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the temporary directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}
