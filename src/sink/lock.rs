//! The exclusive hold on a directory under which a sink asks the fence and acts: a new leader takes it
//! before it raises the epoch. Waiting is done in the kernel and for a bounded time.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::retry_on_intr;

use crate::sink::{Fatal, Seal};

/// How long a lock that came too late is offered before it is let go.
const HANDOVER: Duration = Duration::from_millis(100);

/// One wish for the lock; at most one thread waits for it.
#[derive(Debug, Default)]
pub struct Lock {
    waiting: Option<Receiver<io::Result<File>>>,
}

impl Lock {
    /// The locked directory, which unlocks when it is closed; `None` when somebody else held it
    /// until `due`.
    ///
    /// # Errors
    ///
    /// The filesystem does not lock.
    pub fn acquire(&mut self, dir: &File, due: Instant) -> io::Result<Option<File>> {
        loop {
            // A description of its own: the kernel counts a lock by that, and not by process.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let own: OwnedFd = retry_on_intr(|| openat(dir, c".", flags, Mode::empty()))?;
            let own = File::from(own);
            match own.try_lock() {
                Ok(()) => return Ok(Some(own)),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {
                    continue;
                }
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) => {}
            }
            let waiting = match self.waiting.take() {
                Some(waiting) => waiting,
                None => wait(own)?,
            };
            match waiting.recv_deadline(due) {
                Ok(locked) => return locked.map(Some),
                Err(RecvTimeoutError::Timeout) => {
                    self.waiting = Some(waiting);
                    return Ok(None);
                }
                // An earlier wait ended unobserved; its lock is free again.
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

/// Holds the directory for a new leader, waiting for an older one that acts under it right now.
///
/// # Errors
///
/// It is still held when `wait` is over, or cannot be locked.
pub fn seal(dir: &File, path: &Path, wait: Duration) -> Result<Seal, Fatal> {
    let failed = |source| Fatal::Lock { path: path.to_owned(), source };
    match Lock::default().acquire(dir, Instant::now() + wait).map_err(failed)? {
        Some(directory) => Ok(Seal { _directory: directory }),
        None => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            "another process still holds it, perhaps an older leader that stands still; end that \
             process (`fuser` names it), then start again",
        ))),
    }
}

fn wait(dir: File) -> io::Result<Receiver<io::Result<File>>> {
    let (sender, receiver) = bounded(0);
    thread::Builder::new().name("package-lock".to_owned()).spawn(move || {
        let locked = loop {
            match dir.lock() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => break done.map(|()| dir),
            }
        };
        // Nobody there any more: what was to be sent is dropped, and with it the lock.
        let _ = sender.send_timeout(locked, HANDOVER);
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_waited_for_and_not_longer_than_asked() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        let soon = || Instant::now() + Duration::from_millis(50);
        let held = Lock::default().acquire(&dir, soon()).unwrap().expect("nobody holds it");
        let mut lock = Lock::default();
        for _ in 0..3 {
            assert!(lock.acquire(&dir, soon()).unwrap().is_none());
        }
        let later = thread::spawn(move || {
            lock.acquire(&dir, Instant::now() + Duration::from_secs(60)).unwrap().is_some()
        });
        drop(held);
        assert!(later.join().unwrap());
    }
}
