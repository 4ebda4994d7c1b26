//! A look at the write-ahead log before SQLite reads it.
//!
//! SQLite takes the log up to the first frame whose checksum is wrong and forgets the rest without a
//! word. After a power cut that is right: the commit that was being written had not been acknowledged.
//! But each commit is synced before the next one begins, so at most the last one can be torn: a wrong
//! frame with a commit *before the end* behind it is damage to what was acknowledged.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::ledger::Error;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// A live writer appends while a reader looks: what is wrong because of that is right a moment later.
const LOOKS: usize = 3;

/// How the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole commit, or before the first.
    Whole,
    /// With frames of a commit that was never acknowledged. The log has to be emptied before the next
    /// commit: a later one that is torn in front of them would look like damage.
    Torn,
}

/// Tells how the log ends, and refuses one in which acknowledged commits are damaged. Opens only `-wal`, on which SQLite holds
/// no locks that closing it could drop.
///
/// # Errors
///
/// [`Error::Missing`]; a log that cannot be read is left to SQLite to complain about.
pub fn check(ledger: &Path) -> Result<End, Error> {
    let mut path = ledger.to_owned().into_os_string();
    path.push("-wal");
    let path = Path::new(&path);
    let look = || File::open(path).and_then(|file| end(&mut BufReader::new(file)));
    let look = |_| look().unwrap_or(Some(End::Whole));
    if let Some(end) = (0..LOOKS).find_map(look) {
        return Ok(end);
    }
    Err(Error::Missing { what: format!("commits in `{}` are unreadable", path.display()) })
}

/// How the log ends; `None` if an acknowledged commit is behind a wrong frame.
fn end(from: &mut impl Read) -> io::Result<Option<End>> {
    let mut header = [0; HEADER];
    if !fill(from, &mut header)? || header == [0; HEADER] {
        return Ok(Some(End::Whole));
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let big_endian = word(0) & 1 == 1;
    let mut sum = Sum { words: [0, 0], big_endian };
    sum.add(&header[..24]);
    let page = word(8) as usize;
    let is_header = word(0) & !1 == 0x377f_0682
        && sum.words == [word(24), word(28)]
        && (512..=65_536).contains(&page);
    if !is_header {
        // It is synced before the first frame is written.
        let mut frame = [0; FRAME_HEADER];
        return Ok(if fill(from, &mut frame)? { None } else { Some(End::Torn) });
    }
    let mut frame = vec![0; FRAME_HEADER + page];
    let (mut wrong, mut torn, mut commit_behind) = (false, false, false);
    while fill(from, &mut frame)? {
        let of_this_log = frame[8..16] == header[16..24];
        if of_this_log && commit_behind {
            return Ok(None);
        }
        if !wrong {
            sum.add(&frame[..8]);
            sum.add(&frame[FRAME_HEADER..]);
            wrong = !of_this_log || frame[16..24] != sum.bytes();
        }
        torn |= wrong && of_this_log;
        commit_behind |= wrong && of_this_log && frame[4..8] != [0; 4];
    }
    Ok(Some(if torn { End::Torn } else { End::Whole }))
}

/// Reads until the buffer is full; `false` when the file ends before.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The running checksum of the log.
struct Sum {
    words: [u32; 2],
    big_endian: bool,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        let [mut a, mut b] = self.words;
        for pair in bytes.chunks_exact(8) {
            let word = |at: usize| {
                let bytes = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
                if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            a = a.wrapping_add(word(0)).wrapping_add(b);
            b = b.wrapping_add(word(4)).wrapping_add(a);
        }
        self.words = [a, b];
    }

    /// As it stands in a frame.
    fn bytes(&self) -> [u8; 8] {
        let [a, b] = self.words.map(u32::to_be_bytes);
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A log of three commits.
    fn log() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        connection.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        std::fs::read(directory.path().join("a.db-wal")).unwrap()
    }

    fn whole(bytes: &[u8]) -> bool {
        end(&mut io::Cursor::new(bytes)).unwrap().is_some()
    }

    #[test]
    fn a_last_commit_that_is_torn_is_told_from_a_whole_one() {
        let mut log = log();
        assert_eq!(end(&mut io::Cursor::new(&log)).unwrap(), Some(End::Whole));
        *log.last_mut().unwrap() ^= 1;
        assert_eq!(end(&mut io::Cursor::new(&log)).unwrap(), Some(End::Torn));
    }

    #[test]
    fn a_log_that_ends_anywhere_may_have_been_torn_by_a_power_cut() {
        let log = log();
        assert!((0..log.len()).step_by(97).all(|length| whole(&log[..length])));
        assert!(whole(&log));
    }

    #[test]
    fn room_behind_the_end_changes_nothing_about_it() {
        let log = log();
        for room in [1, FRAME_HEADER, 4096, FRAME_HEADER + 4096, 100_000] {
            let mut bytes = log.clone();
            bytes.resize(log.len() + room, 0);
            assert_eq!(end(&mut io::Cursor::new(&bytes)).unwrap(), Some(End::Whole), "{room}");
            bytes[log.len() - 1] ^= 1;
            assert_eq!(end(&mut io::Cursor::new(&bytes)).unwrap(), Some(End::Torn), "{room}");
        }
    }

    #[test]
    fn a_wrong_byte_before_the_last_commit_is_damage() {
        let log = log();
        let frame = FRAME_HEADER + 4096;
        let last = log.len() - frame;
        // With other salts it looks like a frame of an older log that was not overwritten yet.
        let salts = last - frame + 8..last - frame + 16;
        for at in (0..log.len()).step_by(61) {
            let mut bytes = log.clone();
            bytes[at] ^= 4;
            let unknown = at >= last || salts.contains(&at);
            assert_eq!(whole(&bytes), unknown, "byte {at} of {}", log.len());
        }
    }
}
