//! Sorts what a killed leader left, before anything new is taken.

use std::collections::HashSet;
use std::sync::Arc;

use crate::fault;
use crate::ledger::{Error, OpenIntent};
use crate::processor::{Item, Window, archive};
use crate::schema;
use crate::spool::claim_order;

/// What recovery has to do.
#[derive(Debug, Default)]
pub struct Left {
    /// Claimed, but not in the ledger: to be read anew, in the order of the claims.
    pub unread: Vec<Vec<u8>>,
    /// All claims that were there, in the ledger or not. What an older epoch claims later is not
    /// among them, and has to be read anew as well.
    pub seen: HashSet<Vec<u8>>,
    /// Accepted and not finished: to be delivered again, oldest first.
    pub undelivered: Vec<OpenIntent>,
    /// Finished and perhaps not archived: the last step again, oldest first.
    pub unarchived: Vec<OpenIntent>,
}

/// Sorts the open rows of the ledger and the names in `work/`.
pub fn sort(open: Vec<OpenIntent>, mut claimed: Vec<Vec<u8>>) -> Left {
    let seen = claimed.iter().cloned().collect();
    let known: HashSet<Vec<u8>> = open.iter().filter_map(|intent| intent.claim.clone()).collect();
    if !fault::is_mutant("recovery.known") {
        claimed.retain(|name| !known.contains(name));
    }
    // What is no claim of ours (put there by hand) comes last, by name; it is judged like any file.
    claimed.sort_by(|a, b| {
        let order = |name: &[u8]| claim_order(name).unwrap_or((u64::MAX, u64::MAX));
        order(a).cmp(&order(b)).then_with(|| a.cmp(b))
    });
    let (unarchived, undelivered) = open.into_iter().partition(|intent| intent.finished.is_some());
    Left { unread: claimed, seen, undelivered, unarchived }
}

/// An accepted intent of an earlier leader, from its row alone; `None` if it was not admitted.
///
/// # Errors
///
/// The row's document cannot be read back: the ledger is damaged.
pub fn resumed(open: OpenIntent, window: &Window) -> Result<Option<Item>, Error> {
    let Some(document) = open.document else { return Ok(None) };
    let damaged = |_| Error::Damaged { row: format!("intents {}", open.record.seq) };
    let intent = schema::reread(&document).map_err(damaged)?;
    Ok(Some(Item {
        claim: open.claim,
        key: Arc::new(intent.key()),
        intent: Arc::new(intent),
        token: window.force(document.len()),
        document: document.into(),
        progress: open.progress,
        resumed: true,
        record: Box::new(open.record),
    }))
}

/// The last step of an intent that an earlier leader finished; `None` if it is not finished.
pub fn repeated(open: OpenIntent, window: &Window) -> Option<archive::Request> {
    let finished = open.finished?;
    Some(archive::request(Box::new(open.record), open.claim, finished, window.force(0)))
}
