//! Decides when a file in the inbox is finished, and what is wrong with it as a file.
//!
//! Whether anybody still writes is asked of the kernel, by a lease, and is an argument here. Where
//! the kernel cannot tell, a file is finished once it has not changed for `quiet`. Two states get a
//! grace, since honest producers pass through them: an empty file (touch, then write) and a second
//! link (link, then unlink).
//!
//! Pure: fed with sightings and the time, it answers with decisions; it neither opens nor sleeps.
//! Not here: listing and opening (`spool`), what the bytes say (`schema`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limits::WAITING_MAX;
use crate::model::{Code, FileKind, FileName, Fingerprint, Sighting};

/// For a producer that creates the file and fills it in a second step.
const EMPTY_GRACE: Duration = Duration::from_secs(2);

/// For a producer that links the file in and then unlinks its first name.
const LINK_GRACE: Duration = Duration::from_secs(5);

/// A file that is being written is looked at again this soon, and less and less often.
const BUSY_FIRST: Duration = Duration::from_millis(5);
const BUSY_MAX: Duration = Duration::from_secs(1);

/// What is known about other processes that have the file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    None,
    Some,
    /// The kernel does not tell us: not our file and no CAP_LEASE, or a network filesystem.
    Unknown,
}

/// What to do with a file now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Claim it and read it.
    Claim,
    /// Claim it and refuse it with this code, unread.
    Refuse(Code),
    /// Look again after this time; `writing` says that somebody has it open.
    Wait { again: Duration, writing: bool },
    /// Not ours to touch.
    Leave,
}

/// What a look into an opened file adds to its sighting.
#[derive(Clone, Copy, Debug)]
pub struct Peek {
    pub writers: Writers,
    /// Nothing but white space, or nothing at all.
    pub blank: bool,
}

/// Remembers the files that are not finished.
#[derive(Debug)]
pub struct Settle {
    quiet: Duration,
    waiting: HashMap<FileName, Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    print: Fingerprint,
    links: u32,
    /// Since when the fingerprint is the same.
    since: Instant,
    /// Since when the file has been empty or doubly linked; a change of content ends that.
    grace_since: Option<Instant>,
    looks: u32,
}

impl Settle {
    /// `quiet` is how long a file must not change where the kernel does not tell about writers.
    pub fn new(quiet: Duration) -> Self {
        Settle { quiet, waiting: HashMap::new() }
    }

    /// Decides about a file that is not regular, which needs no opening.
    pub fn unopened(kind: FileKind) -> Option<Decision> {
        match kind {
            FileKind::Regular => None,
            FileKind::Directory => Some(Decision::Leave),
            FileKind::Symlink => Some(Decision::Refuse(Code::Symlink)),
            FileKind::Special => Some(Decision::Refuse(Code::NotAFile)),
        }
    }

    /// Decides about a regular file that was opened and looked at. The sighting is that of the
    /// open file; `size_max` is the largest that will be read.
    pub fn opened(
        &mut self,
        sighting: &Sighting,
        peek: Peek,
        size_max: u64,
        now: Instant,
    ) -> Decision {
        let decision = self.decide(sighting, peek, size_max, now);
        if !matches!(decision, Decision::Wait { .. }) {
            self.waiting.remove(&sighting.name);
        }
        decision
    }

    /// Forgets a file that is gone.
    pub fn forget(&mut self, name: &FileName) {
        self.waiting.remove(name);
    }

    fn decide(&mut self, sighting: &Sighting, peek: Peek, size_max: u64, now: Instant) -> Decision {
        if peek.writers == Writers::Some {
            let looks = self.remember(sighting, None, now).looks;
            let again = BUSY_FIRST.saturating_mul(1 << looks.min(16)).min(BUSY_MAX);
            return Decision::Wait { again, writing: true };
        }
        let (grace, code) = match sighting.links {
            0 | 1 if peek.blank => (EMPTY_GRACE, Code::Empty),
            0 | 1 => (Duration::ZERO, Code::Empty),
            _ => (LINK_GRACE, Code::HardLink),
        };
        if !grace.is_zero() {
            let since = self.remember(sighting, Some(now), now).grace_since.unwrap_or(now);
            return match grace.checked_sub(now.duration_since(since)) {
                Some(left) if !left.is_zero() => Decision::Wait { again: left, writing: false },
                _ => Decision::Refuse(code),
            };
        }
        if peek.writers == Writers::Unknown {
            let since = self.remember(sighting, None, now).since;
            return match self.quiet.checked_sub(now.duration_since(since)) {
                Some(left) if !left.is_zero() => Decision::Wait { again: left, writing: false },
                _ if sighting.print.len > size_max => Decision::Refuse(Code::TooLarge),
                _ => Decision::Claim,
            };
        }
        if sighting.print.len > size_max {
            return Decision::Refuse(Code::TooLarge);
        }
        Decision::Claim
    }

    /// Notes the look; what changed since the last one starts its time anew.
    fn remember(
        &mut self,
        sighting: &Sighting,
        grace_since: Option<Instant>,
        now: Instant,
    ) -> Waiting {
        let fresh = Waiting {
            print: sighting.print,
            links: sighting.links,
            since: now,
            grace_since,
            looks: 0,
        };
        let next = match self.waiting.get(&sighting.name) {
            Some(known) if known.print == fresh.print && known.links == fresh.links => Waiting {
                since: known.since,
                grace_since: grace_since.map(|new| known.grace_since.unwrap_or(new)),
                looks: known.looks + 1,
                ..fresh
            },
            // Another writer's pace: it is written to, so look often again, but not at once.
            Some(known) => Waiting { looks: known.looks + 1, ..fresh },
            None => fresh,
        };
        // Past the bound nothing is remembered: the file is decided anew at each rescan, later.
        if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&sighting.name) {
            self.waiting.insert(sighting.name.clone(), next);
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `ms len links writers` looks at one file and returns the decisions.
    fn play(script: &[(u64, u64, u32, Writers)]) -> Vec<Decision> {
        let start = Instant::now();
        let mut settle = Settle::new(Duration::from_millis(250));
        script
            .iter()
            .map(|(ms, len, links, writers)| {
                let print = Fingerprint {
                    device: 1,
                    inode: 2,
                    len: *len,
                    mtime_ns: i128::from(*len),
                    ctime_ns: 0,
                };
                let sighting = Sighting {
                    name: FileName::new("intent-a.json"),
                    kind: FileKind::Regular,
                    print,
                    links: *links,
                    owner: 0,
                };
                let peek = Peek { writers: *writers, blank: *len == 0 };
                settle.opened(&sighting, peek, 1000, start + Duration::from_millis(*ms))
            })
            .collect()
    }

    fn wait(ms: u64, writing: bool) -> Decision {
        Decision::Wait { again: Duration::from_millis(ms), writing }
    }

    #[test]
    fn a_file_that_nobody_writes_is_claimed_at_once() {
        assert_eq!(play(&[(0, 10, 1, Writers::None)]), [Decision::Claim]);
    }

    #[test]
    fn a_file_that_is_written_is_looked_at_less_and_less_often() {
        let looks: Vec<_> = (0..12).map(|look| (look, 10 + look, 1, Writers::Some)).collect();
        let mut expected: Vec<_> =
            [5, 10, 20, 40, 80, 160, 320, 640].map(|ms| wait(ms, true)).to_vec();
        expected.resize(12, wait(1000, true));
        assert_eq!(play(&looks), expected);
    }

    #[test]
    fn without_leases_a_growing_file_waits_until_it_rests() {
        assert_eq!(
            play(&[
                (0, 10, 1, Writers::Unknown),
                (200, 64, 1, Writers::Unknown),
                (300, 64, 1, Writers::Unknown),
                (450, 64, 1, Writers::Unknown),
            ]),
            [wait(250, false), wait(250, false), wait(150, false), Decision::Claim]
        );
    }

    #[test]
    fn an_empty_file_gets_two_seconds() {
        assert_eq!(
            play(&[
                (0, 0, 1, Writers::None),
                (1500, 0, 1, Writers::None),
                (2000, 0, 1, Writers::None),
            ]),
            [wait(2000, false), wait(500, false), Decision::Refuse(Code::Empty)]
        );
        assert_eq!(
            play(&[(0, 0, 1, Writers::None), (1500, 9, 1, Writers::None)]),
            [wait(2000, false), Decision::Claim]
        );
    }

    #[test]
    fn a_second_link_gets_five_seconds() {
        assert_eq!(
            play(&[(0, 9, 2, Writers::None), (5000, 9, 2, Writers::None)]),
            [wait(5000, false), Decision::Refuse(Code::HardLink)]
        );
        assert_eq!(
            play(&[(0, 9, 2, Writers::None), (4000, 9, 1, Writers::None)]),
            [wait(5000, false), Decision::Claim]
        );
    }

    #[test]
    fn the_grace_starts_when_the_writer_lets_go() {
        assert_eq!(
            play(&[
                (0, 0, 1, Writers::Some),
                (3000, 0, 1, Writers::None),
                (4000, 0, 1, Writers::None),
                (5000, 0, 1, Writers::None),
            ]),
            [wait(5, true), wait(2000, false), wait(1000, false), Decision::Refuse(Code::Empty)]
        );
    }

    #[test]
    fn a_file_over_the_limit_is_refused_unread_once_it_is_finished() {
        assert_eq!(
            play(&[(0, 2000, 1, Writers::Some), (9, 2000, 1, Writers::None)]),
            [wait(5, true), Decision::Refuse(Code::TooLarge)]
        );
    }

    #[test]
    fn what_is_no_regular_file_needs_no_opening() {
        assert_eq!(Settle::unopened(FileKind::Regular), None);
        assert_eq!(Settle::unopened(FileKind::Directory), Some(Decision::Leave));
        assert_eq!(Settle::unopened(FileKind::Symlink), Some(Decision::Refuse(Code::Symlink)));
        assert_eq!(Settle::unopened(FileKind::Special), Some(Decision::Refuse(Code::NotAFile)));
    }
}
