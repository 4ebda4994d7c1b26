//! The order in which sighted files are taken: by arrival, and by turns among owners in a crowd.
//!
//! One user's flood must not make another one wait behind all of it. As long as few files wait they
//! are taken as they came, whoever dropped them. In a crowd each owner has a turn for each file, and
//! less may be moving, so that whoever comes new finds a short way through the stages behind.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::limits::{GROUP_MAX, IN_FLIGHT_MAX};
use crate::model::Sighting;

/// An owner counts as one of several for so long after its last file: longer than any good producer
/// that is worth the trouble pauses.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Owners that are told apart; those beyond share the turn of the last one.
const OWNERS_MAX: usize = 1024;

/// On their way into the ledger, or as refused ones into the archive, while several owners drop files
/// and a crowd waits: what is ahead of a file that comes new, and still enough to share a commit.
const SHARED_MOVING_MAX: usize = GROUP_MAX / 16;

/// Files that wait to be claimed.
#[derive(Debug, Default)]
pub struct Line {
    owners: BTreeMap<u32, VecDeque<Sighting>>,
    len: usize,
    /// Whose turn was last.
    last: u32,
    /// When each owner was last seen.
    seen: BTreeMap<u32, Instant>,
}

impl Line {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn clear(&mut self) {
        self.owners.clear();
        self.len = 0;
    }

    /// Adds files in the order of their arrival.
    pub fn extend(&mut self, sightings: Vec<Sighting>, now: Instant) {
        self.seen.retain(|_, seen| now.duration_since(*seen) < REMEMBERED);
        for sighting in sightings {
            let full = self.seen.len() >= OWNERS_MAX && !self.seen.contains_key(&sighting.owner);
            let owner = if full { u32::MAX } else { sighting.owner };
            self.seen.insert(owner, now);
            self.owners.entry(owner).or_default().push_back(sighting);
            self.len += 1;
        }
    }

    /// Forgets the newest files of whoever has most, until so many are left; they are found again.
    pub fn truncate(&mut self, len: usize) {
        while self.len > len {
            let most = self.owners.values_mut().max_by_key(|waiting| waiting.len());
            let Some(most) = most else { return };
            let surplus = self.len - len;
            let kept = most.len().saturating_sub(surplus);
            self.len -= most.len() - kept;
            most.truncate(kept);
        }
        self.owners.retain(|_, waiting| !waiting.is_empty());
    }

    /// All files, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Sighting> {
        self.owners.values().flatten()
    }

    /// The next file; [`Line::pop`] takes it.
    pub fn peek(&self) -> Option<&Sighting> {
        self.owners.get(&self.next()?)?.front()
    }

    pub fn pop(&mut self) -> Option<Sighting> {
        let owner = self.next()?;
        let waiting = self.owners.get_mut(&owner)?;
        let sighting = waiting.pop_front();
        if waiting.is_empty() {
            self.owners.remove(&owner);
        }
        self.len -= 1;
        self.last = owner;
        sighting
    }

    /// How many intents may be moving at once: see `Window::admit`.
    pub fn moving_max(&self) -> usize {
        if self.seen.len() > 1 && self.len > GROUP_MAX { SHARED_MOVING_MAX } else { IN_FLIGHT_MAX }
    }

    /// Whose file is next.
    fn next(&self) -> Option<u32> {
        if self.len > GROUP_MAX {
            let after = self.owners.range((Bound::Excluded(self.last), Bound::Unbounded)).next();
            return after.or_else(|| self.owners.iter().next()).map(|(owner, _)| *owner);
        }
        let first = |(_, waiting): &(&u32, &VecDeque<Sighting>)| {
            waiting.front().map(|first| (first.print.ctime_ns, first.name.clone()))
        };
        self.owners.iter().min_by_key(first).map(|(owner, _)| *owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FileKind, FileName, Fingerprint};

    fn sighting(owner: u32, arrival: i128) -> Sighting {
        let print = Fingerprint { device: 1, inode: 1, len: 9, mtime_ns: 0, ctime_ns: arrival };
        let name = FileName::new(format!("intent-{owner}-{arrival}.json"));
        Sighting { name, kind: FileKind::Regular, print, links: 1, owner }
    }

    fn arrivals(line: &mut Line, count: usize) -> Vec<(u32, i128)> {
        std::iter::from_fn(|| line.pop())
            .take(count)
            .map(|sighting| (sighting.owner, sighting.print.ctime_ns))
            .collect()
    }

    #[test]
    fn a_few_files_are_taken_as_they_came_whoever_dropped_them() {
        let mut line = Line::default();
        let now = Instant::now();
        line.extend(vec![sighting(7, 1), sighting(3, 2), sighting(7, 3)], now);
        line.extend(vec![sighting(3, 4)], now);
        assert_eq!(arrivals(&mut line, 9), [(7, 1), (3, 2), (7, 3), (3, 4)]);
        assert_eq!(line.moving_max(), IN_FLIGHT_MAX);
    }

    #[test]
    fn in_a_crowd_each_owner_has_its_turn_and_keeps_its_own_order() {
        let mut line = Line::default();
        let now = Instant::now();
        line.extend((0..5_000).map(|arrival| sighting(3, arrival)).collect(), now);
        assert_eq!(line.moving_max(), IN_FLIGHT_MAX, "one owner has all of it");
        line.extend(vec![sighting(7, 5_001), sighting(7, 5_002)], now);
        assert_eq!(line.moving_max(), SHARED_MOVING_MAX);
        assert_eq!(
            arrivals(&mut line, 6),
            [(3, 0), (7, 5_001), (3, 1), (7, 5_002), (3, 2), (3, 3)],
            "nobody waits behind another one's flood"
        );
        assert_eq!(line.len(), 4_996);
    }

    #[test]
    fn a_line_that_is_too_long_loses_the_newest_of_whoever_has_most() {
        let mut line = Line::default();
        let now = Instant::now();
        line.extend((0..1_000).map(|arrival| sighting(3, arrival)).collect(), now);
        line.extend(vec![sighting(7, 2_000)], now);
        line.truncate(501);
        assert_eq!((line.len(), line.iter().count()), (501, 501));
        assert_eq!(line.iter().filter(|sighting| sighting.owner == 7).count(), 1);
        assert!(line.iter().all(|sighting| sighting.print.ctime_ns < 500 || sighting.owner == 7));
    }

    #[test]
    fn an_owner_is_forgotten_after_a_while() {
        let mut line = Line::default();
        let now = Instant::now();
        line.extend(vec![sighting(7, 1)], now);
        line.pop();
        line.extend((0..5_000).map(|arrival| sighting(3, arrival)).collect(), now + REMEMBERED);
        assert_eq!(line.moving_max(), IN_FLIGHT_MAX);
    }
}
