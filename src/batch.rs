//! Decides when a group of intents is full.
//!
//! A group closes at once when nothing more is at hand: a lone intent never waits for company. Under
//! load the next group fills while the previous one is being written, so no timer is needed: the
//! time limit of a batch is the time that its predecessor takes.

use crate::limits::{GROUP_BYTES_MAX, GROUP_MAX};

/// What still fits into a group.
#[derive(Clone, Debug)]
pub struct Room {
    intents: usize,
    bytes: usize,
    empty: bool,
}

impl Room {
    /// Room for at most this much; a first intent fits whatever its size.
    pub fn new(intents: usize, bytes: usize) -> Self {
        Room { intents, bytes, empty: true }
    }

    /// Counts an intent of `bytes` in, unless it does not fit.
    pub fn takes(&mut self, bytes: usize) -> bool {
        if self.intents == 0 || (bytes > self.bytes && !self.empty) {
            return false;
        }
        self.empty = false;
        self.intents -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

impl Default for Room {
    fn default() -> Self {
        Room::new(GROUP_MAX, GROUP_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_full_at_its_count_or_its_bytes_whichever_comes_first() {
        let taken = |intents, bytes, sizes: &[usize]| {
            let mut room = Room::new(intents, bytes);
            sizes.iter().take_while(|size| room.takes(**size)).count()
        };
        assert_eq!(taken(2, 100, &[10, 10, 10]), 2);
        assert_eq!(taken(9, 100, &[60, 40, 1]), 2);
        assert_eq!(taken(9, 100, &[500, 1]), 1, "a large intent goes alone rather than never");
        assert_eq!(taken(0, 100, &[1]), 0);
    }
}
