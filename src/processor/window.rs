//! The bound on what is between claim and archive: past it, files wait in the inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits::IN_FLIGHT_BYTES_MAX;

/// Counts intents and bytes in flight. One thread admits; any thread lets go.
#[derive(Debug)]
pub struct Window {
    held: Arc<Held>,
    freed: Receiver<()>,
}

#[derive(Debug)]
struct Held {
    intents: AtomicUsize,
    bytes: AtomicUsize,
    freed: Sender<()>,
}

/// One intent's share of the window, given back on drop.
#[derive(Debug)]
pub struct Token {
    held: Arc<Held>,
    bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        // One message suffices: it only says that it is worth looking at the counters again.
        let (send, freed) = bounded(1);
        let held = Held { intents: AtomicUsize::new(0), bytes: AtomicUsize::new(0), freed: send };
        Window { held: Arc::new(held), freed }
    }
}

impl Window {
    /// Takes a share for a document of `bytes`, if fewer than `intents_max` are in flight and there
    /// is room for it.
    pub fn admit(&self, bytes: usize, intents_max: usize) -> Option<Token> {
        let intents = self.held.intents.load(Ordering::Acquire);
        let held = self.held.bytes.load(Ordering::Acquire);
        if intents >= intents_max || (held + bytes > IN_FLIGHT_BYTES_MAX && held > 0) {
            return None;
        }
        Some(self.force(bytes))
    }

    /// Takes a share whatever the bound says: for what is in the ledger already.
    pub fn force(&self, bytes: usize) -> Token {
        self.held.intents.fetch_add(1, Ordering::AcqRel);
        self.held.bytes.fetch_add(bytes, Ordering::AcqRel);
        Token { held: Arc::clone(&self.held), bytes }
    }

    /// Has a message when something was let go since the last one was taken.
    pub fn freed(&self) -> &Receiver<()> {
        &self.freed
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.held.intents.fetch_sub(1, Ordering::AcqRel);
        let _ = self.held.freed.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::IN_FLIGHT_MAX;

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

        let large = window
            .admit(IN_FLIGHT_BYTES_MAX * 2, IN_FLIGHT_MAX)
            .expect("a lone document always fits");
        assert!(window.admit(1, IN_FLIGHT_MAX).is_none());
        drop(large);
        assert!(window.admit(1, IN_FLIGHT_MAX).is_some());
    }
}
