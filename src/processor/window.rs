//! The bound on what is between claim and archive: past it, files wait in the inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};

/// Counts intents and bytes in flight, and those of them that are on their way into the ledger or the
/// archive without anybody to wait for. One thread admits; any thread lets go.
#[derive(Debug)]
pub struct Window {
    held: Arc<Held>,
    freed: Receiver<()>,
}

#[derive(Debug)]
struct Held {
    intents: AtomicUsize,
    moving: AtomicUsize,
    bytes: AtomicUsize,
    freed: Sender<()>,
}

/// One intent's share of the window, given back on drop.
#[derive(Debug)]
pub struct Token {
    held: Arc<Held>,
    bytes: usize,
    moving: bool,
}

impl Default for Window {
    fn default() -> Self {
        // One message suffices: it only says that it is worth looking at the counters again.
        let (send, freed) = bounded(1);
        let zero = || AtomicUsize::new(0);
        let held = Held { intents: zero(), moving: zero(), bytes: zero(), freed: send };
        Window { held: Arc::new(held), freed }
    }
}

impl Window {
    /// Takes a share for a document of `bytes`, if fewer than `moving_max` are moving and there is
    /// room for it.
    pub fn admit(&self, bytes: usize, moving_max: usize) -> Option<Token> {
        let intents = self.held.intents.load(Ordering::Acquire);
        let held = self.held.bytes.load(Ordering::Acquire);
        let moving = self.held.moving.load(Ordering::Acquire);
        let full = held + bytes > IN_FLIGHT_BYTES_MAX && held > 0;
        if intents >= IN_FLIGHT_MAX || moving >= moving_max || full {
            return None;
        }
        self.held.moving.fetch_add(1, Ordering::AcqRel);
        Some(self.force(bytes).moving())
    }

    /// Whether so many further intents would be within the bounds.
    pub fn has_room(&self, intents: usize) -> bool {
        self.held.intents.load(Ordering::Acquire) + intents <= IN_FLIGHT_MAX
            && self.held.bytes.load(Ordering::Acquire) < IN_FLIGHT_BYTES_MAX
    }

    /// Takes a share whatever the bound says: for what is in the ledger already.
    pub fn force(&self, bytes: usize) -> Token {
        self.held.intents.fetch_add(1, Ordering::AcqRel);
        self.held.bytes.fetch_add(bytes, Ordering::AcqRel);
        Token { held: Arc::clone(&self.held), bytes, moving: false }
    }

    /// Has a message when something was let go since the last one was taken.
    pub fn freed(&self) -> &Receiver<()> {
        &self.freed
    }
}

impl Token {
    fn moving(mut self) -> Self {
        self.moving = true;
        self
    }

    /// Says that the intent now waits for its turn and its sinks, which may take long.
    pub fn rest(&mut self) {
        if std::mem::take(&mut self.moving) {
            self.held.moving.fetch_sub(1, Ordering::AcqRel);
            let _ = self.held.freed.try_send(());
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.rest();
        self.held.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.held.intents.fetch_sub(1, Ordering::AcqRel);
        let _ = self.held.freed.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_closes_at_its_bounds_and_opens_when_tokens_go() {
        let window = Window::default();
        let tokens: Vec<_> = std::iter::from_fn(|| window.admit(1, IN_FLIGHT_MAX)).collect();
        assert_eq!(tokens.len(), IN_FLIGHT_MAX);
        assert!(window.freed().try_recv().is_err());
        drop(tokens);
        assert!(window.freed().try_recv().is_ok());
        assert_eq!(
            std::iter::from_fn(|| window.admit(1, IN_FLIGHT_MAX)).collect::<Vec<_>>().len(),
            IN_FLIGHT_MAX
        );

        let mut resting = window.admit(1, 1).expect("nothing moves");
        assert!(window.admit(1, 1).is_none(), "one moves");
        resting.rest();
        assert!(window.freed().try_recv().is_ok() && window.admit(1, 1).is_some());
        drop(resting);

        let large = window
            .admit(IN_FLIGHT_BYTES_MAX * 2, IN_FLIGHT_MAX)
            .expect("a lone document always fits");
        assert!(window.admit(1, IN_FLIGHT_MAX).is_none());
        drop(large);
        assert!(window.admit(1, IN_FLIGHT_MAX).is_some());
    }
}
