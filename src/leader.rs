//! Who leads: a lock on a file that is never deleted.
//!
//! The lock only saves work; what keeps a stale leader harmless is the epoch in the ledger. Nothing
//! is decided by what the file says: that is for the people who are told "held by ...".

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::bounded;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::fault;
use crate::model::Timestamp;

/// How long the lock of a dead holder is waited for. A child that was forked and has not come to its
/// exec still has the lock, and is about to let go of it: long for that, short for a person.
const DYING: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open lock file `{path}`")]
    Open { path: PathBuf, source: io::Error },
    #[error("`{path}` is not a regular file with one name, so no lock on it means anything")]
    NotALockFile { path: PathBuf },
    #[error("lock `{path}`")]
    Lock { path: PathBuf, source: io::Error },
    #[error("write our name into lock file `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("lock file `{path}` was replaced while we held it; another instance may lead")]
    Replaced { path: PathBuf },
}

/// Who holds the lock, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub host: String,
    pub since: String,
}

impl Holder {
    /// The holder's name for a message, also when it has not written one yet.
    pub fn shown(holder: Option<&Holder>) -> String {
        holder.map_or_else(|| "another instance".to_owned(), ToString::to_string)
    }

    /// Whether it ran on this host and is dead.
    fn is_gone(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        self.host == host()
            && pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The file is only as trustworthy as its directory: nothing raw reaches a terminal.
        let (host, since) = (self.host.escape_default(), self.since.escape_default());
        write!(f, "pid {} on {host} since {since}", self.pid)
    }
}

/// The held lock; let go on drop, also by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// What a try to lock gave.
#[derive(Debug)]
pub enum Attempt {
    Held(Lock),
    /// Another instance has it; its name, if it has written one.
    Busy(Option<Holder>),
}

/// What a look at the lock shows, without touching it.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    Free,
    Held(Option<Holder>),
}

/// Looks who leads, and takes nothing: the kernel's list of locks tells, not a try.
///
/// # Errors
///
/// The file or the list cannot be read.
pub fn look(path: &Path) -> Result<Seen, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Seen::Free),
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(Error::NotALockFile { path: path.to_owned() });
    }
    let locks = std::fs::read_to_string("/proc/locks")
        .map_err(|source| Error::Lock { path: path.to_owned(), source })?;
    let holder = holder(file);
    let pid = holder.as_ref().map(|holder| holder.pid);
    match is_listed(&locks, metadata.dev(), metadata.ino(), pid) {
        true => Ok(Seen::Held(holder)),
        false => Ok(Seen::Free),
    }
}

/// Whether the kernel's list has a `flock` on that file. Some filesystems have another device number
/// there than `stat` tells; the holder's own pid then has to stand beside the inode.
fn is_listed(locks: &str, device: u64, inode: u64, holder: Option<u32>) -> bool {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let (file, end) = (format!("{major:02x}:{minor:02x}:{inode}"), format!(":{inode}"));
    locks.lines().any(|line| {
        // As in `1: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF`; those that wait have an arrow.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", pid, at, ..] = fields[..] else { return false };
        at == file || (at.ends_with(&end) && pid.parse().ok() == holder && holder.is_some())
    })
}

impl Lock {
    /// Tries to take the lock and does not wait, unless its holder has just died.
    ///
    /// # Errors
    ///
    /// The lock is broken: no regular file, or one that cannot be locked. That is not "busy".
    pub fn attempt(path: &Path, since: Timestamp) -> Result<Attempt, Error> {
        loop {
            let file = open(path)?;
            match fault::step("lock.take", || file.try_lock()) {
                Ok(()) if leads_to(path, &file)? => {
                    return Lock::held(file, path, since).map(Attempt::Held);
                }
                Ok(()) => {} // Replaced between open and lock: take the one that is there now.
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(file);
                    if holder.as_ref().is_some_and(Holder::is_gone)
                        && let Some(file) = Lock::wait_for(path, DYING)?
                    {
                        return Lock::held(file, path, since).map(Attempt::Held);
                    }
                    return Ok(Attempt::Busy(holder));
                }
                Err(TryLockError::Error(source)) => {
                    return Err(Error::Lock { path: path.to_owned(), source });
                }
            }
        }
    }

    /// Waits in the kernel until the lock is ours. Runs on a thread of its own: it cannot be
    /// interrupted, and ends with the process.
    ///
    /// # Errors
    ///
    /// As for [`Lock::attempt`].
    pub fn wait(path: &Path) -> Result<File, Error> {
        loop {
            let file = open(path)?;
            file.lock().map_err(|source| Error::Lock { path: path.to_owned(), source })?;
            if leads_to(path, &file)? {
                return Ok(file);
            }
        }
    }

    /// Like [`Lock::wait`] for a limited time. A lock that comes too late is let go at once.
    fn wait_for(path: &Path, time: Duration) -> Result<Option<File>, Error> {
        let (sender, receiver) = bounded(0);
        let waited = path.to_owned();
        std::thread::Builder::new()
            .name("lock".to_owned())
            .spawn(move || sender.send(Lock::wait(&waited)))
            .map_err(|source| Error::Lock { path: path.to_owned(), source })?;
        receiver.recv_timeout(time).ok().transpose()
    }

    /// Makes the lock of a file that [`Lock::wait`] returned.
    ///
    /// # Errors
    ///
    /// Our name cannot be written.
    pub fn waited(file: File, path: &Path, since: Timestamp) -> Result<Lock, Error> {
        Lock::held(file, path, since)
    }

    /// Checks that the path still leads to the locked file.
    ///
    /// # Errors
    ///
    /// [`Error::Replaced`]: somebody else may hold a lock on another file of that name.
    pub fn check(&self) -> Result<(), Error> {
        match leads_to(&self.path, &self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Replaced { path: self.path.clone() }),
            Err(error) => Err(error),
        }
    }

    fn held(mut file: File, path: &Path, since: Timestamp) -> Result<Lock, Error> {
        let holder = Holder { pid: std::process::id(), host: host(), since: since.to_string() };
        let text = serde_json::to_string(&holder).expect("strings and numbers always serialise");
        let mut name = || {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())
        };
        fault::step("lock.name", &mut name)
            .map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Lock { file, path: path.to_owned() })
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let opened = |source| Error::Open { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(opened)?;
    // A FIFO can be locked too, and every opener would get its own.
    let metadata = file.metadata().map_err(opened)?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(Error::NotALockFile { path: path.to_owned() });
    }
    Ok(file)
}

/// Whether the path leads to this very file.
fn leads_to(path: &Path, file: &File) -> Result<bool, Error> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    let held = uninterrupted(|| file.metadata()).map_err(failed)?;
    match uninterrupted(|| std::fs::symlink_metadata(path)) {
        Ok(there) => Ok((there.dev(), there.ino(), there.nlink()) == (held.dev(), held.ino(), 1)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed(source)),
    }
}

/// The standard library does not repeat these.
fn uninterrupted<T>(look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match look() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn holder(mut file: File) -> Option<Holder> {
    let mut text = String::new();
    Read::by_ref(&mut file).take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp { unix_ms: 0 };

    #[test]
    fn a_look_tells_who_leads_and_neither_makes_nor_takes_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leader.lock");
        assert_eq!(look(&path).unwrap(), Seen::Free);
        assert!(!path.exists());
        let Attempt::Held(lock) = attempt(&path) else { panic!("nobody has it") };
        match look(&path).unwrap() {
            Seen::Held(Some(holder)) => assert_eq!(holder.pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert_eq!(look(&path).unwrap(), Seen::Free, "what the file says is no lock");
    }

    #[test]
    fn a_lock_is_found_by_its_file_or_by_its_inode_and_holder() {
        let device = rustix::fs::makedev(8, 2);
        let line = "7: FLOCK  ADVISORY  WRITE 1234 08:02:5678 0 EOF";
        assert!(is_listed(line, device, 5678, None));
        assert!(!is_listed(line, device, 567, Some(1234)));
        let other = line.replace("08:02", "00:1c");
        assert!(is_listed(&other, device, 5678, Some(1234)), "btrfs has two numbers");
        assert!(
            !is_listed(&other, device, 5678, Some(99)) && !is_listed(&other, device, 5678, None)
        );
        assert!(!is_listed(&line.replace("FLOCK", "POSIX"), device, 5678, Some(1234)));
        assert!(!is_listed(&line.replace("7: ", "7: -> "), device, 5678, Some(1234)), "it waits");
    }

    fn attempt(path: &Path) -> Attempt {
        Lock::attempt(path, NOW).unwrap()
    }

    #[test]
    fn one_holds_the_lock_and_the_other_is_told_who() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leader.lock");
        let Attempt::Held(lock) = attempt(&path) else { panic!("nobody else is here") };
        let Attempt::Busy(Some(holder)) = attempt(&path) else { panic!("it is held") };
        assert_eq!(
            (holder.pid, holder.since.as_str()),
            (std::process::id(), "1970-01-01T00:00:00.000Z")
        );
        assert!(lock.check().is_ok());
        drop(lock);
        assert!(matches!(attempt(&path), Attempt::Held(_)));
    }

    #[test]
    fn what_a_dying_child_of_a_dead_holder_still_holds_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leader.lock");
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let holder = Holder { pid: dead.id(), host: host(), since: NOW.to_string() };
        std::fs::write(&path, serde_json::to_string(&holder).unwrap()).unwrap();
        let child = File::open(&path).unwrap();
        child.lock().unwrap();
        let (attempted, seen) = bounded(1);
        std::thread::scope(|scope| {
            scope.spawn(|| attempted.send(attempt(&path)));
            let early = seen.recv_timeout(Duration::from_millis(50));
            drop(child);
            assert!(early.is_err(), "the attempt waits: {early:?}");
            assert!(matches!(seen.recv(), Ok(Attempt::Held(_))));
        });
    }

    #[test]
    fn a_holder_notices_that_its_file_was_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("leader.lock");
        let Attempt::Held(lock) = attempt(&path) else { panic!("nobody else is here") };
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(lock.check(), Err(Error::Replaced { .. })));
        File::create(&path).unwrap();
        assert!(matches!(lock.check(), Err(Error::Replaced { .. })));
    }

    #[test]
    fn what_is_no_lock_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        File::create(&file).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(Lock::attempt(&link, NOW), Err(Error::Open { .. })));
        std::fs::hard_link(&file, directory.path().join("second")).unwrap();
        assert!(matches!(Lock::attempt(&file, NOW), Err(Error::NotALockFile { .. })));
        assert!(matches!(Lock::attempt(directory.path(), NOW), Err(Error::Open { .. })));
    }
}
