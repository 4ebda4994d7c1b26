//! Room in the write-ahead log, written before it is needed.
//!
//! A commit that makes the log longer has to wait for a commit of the filesystem's journal too; one
//! that writes over what is there already waits for its own pages only, which takes a third of the
//! time. So while commits are small the log is made longer by a stretch of zeros now and then; under
//! load the journal's share is small, and writing everything twice is not worth it.
//!
//! Invariant: only bytes past the end of the log's file are written, and only while the ledger's
//! write lock is held, so that no commit of anybody can be there. SQLite takes zeros for no commit, and
//! so does `wal`, wherever a power cut has left them to end.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::fault;

/// What is added at a time: some ten lone intents. A static, so that it takes no room in the program.
static STRETCH: [u8; 512 << 10] = [0; 512 << 10];

/// A commit that adds more than this is one of many intents.
const SMALL: u64 = 128 << 10;

/// What the mutant writes over, of the last commit.
const PAGE: u64 = 4096;

/// Watches how the log grows.
#[derive(Debug)]
pub struct Room {
    path: PathBuf,
    /// Opened when it is first needed: there is no log before the first commit.
    file: Option<File>,
    len: u64,
    wanted: bool,
}

impl Room {
    /// Of the log that belongs to the ledger at `path`.
    pub fn new(path: &Path) -> Self {
        let mut log: OsString = path.as_os_str().to_owned();
        log.push("-wal");
        Room { path: log.into(), file: None, len: 0, wanted: false }
    }

    /// Adds a stretch if the last commit was small and made the log longer. Call it with the write
    /// lock held. What cannot be written is done without: the next commit then meets the full disk.
    pub fn extend(&mut self) {
        if !std::mem::take(&mut self.wanted) {
            return;
        }
        if let Some((file, len)) = self.file().and_then(|file| Some((file, len_of(file)?))) {
            let end = if fault::is_mutant("room.end") { len.saturating_sub(PAGE) } else { len };
            let _ = fault::step("room.write", || file.write_all_at(&STRETCH, end));
        }
        self.len = self.file().and_then(len_of).unwrap_or(0);
    }

    /// Sees how long the log is after a commit.
    pub fn look(&mut self) {
        let len = self.file().and_then(len_of).unwrap_or(0);
        self.wanted = len > self.len && len - self.len <= SMALL;
        self.len = len;
    }

    fn file(&mut self) -> Option<&File> {
        if self.file.is_none() {
            self.file = OpenOptions::new().write(true).open(&self.path).ok();
        }
        self.file.as_ref()
    }
}

fn len_of(file: &File) -> Option<u64> {
    file.metadata().ok().map(|about| about.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets the log grow by so much, as a commit does, and tells how long it is after the next one
    /// has begun.
    fn grow(room: &mut Room, bytes: u64) -> u64 {
        let log = OpenOptions::new().append(true).create(true).open(&room.path).unwrap();
        let len = len_of(&log).unwrap();
        log.write_all_at(&vec![7; bytes as usize], len).unwrap();
        room.look();
        room.extend();
        len_of(&log).unwrap() - len
    }

    #[test]
    fn room_is_made_after_small_commits_that_made_the_log_longer() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Room::new(&dir.path().join("ledger.db"));
        room.extend();
        room.look();
        let stretch = STRETCH.len() as u64;
        assert_eq!(grow(&mut room, 9_000), 9_000 + stretch);
        assert_eq!(grow(&mut room, 0), 0, "it wrote over what is there");
        assert_eq!(grow(&mut room, SMALL + 1), SMALL + 1, "a commit of many");
        assert_eq!(grow(&mut room, SMALL), SMALL + stretch);
        let log = std::fs::read(&room.path).unwrap();
        let written = log.iter().filter(|byte| **byte == 7).count() as u64;
        assert_eq!(written, 9_000 + 2 * SMALL + 1, "nothing was written over");
    }
}
