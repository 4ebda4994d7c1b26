//! What commands ask of the leader: one small file each in `<state-dir>/requests/`.
//!
//! A command writes `ID.request`, holds a lock on it as long as it lives, and waits for `ID.answer`; it
//! removes both. So what a killed command has left is known by its lock, and not by its age: while it
//! writes, that of the directory, which it shares with others. The leader alone answers, and a request
//! that has an answer is not carried out again.
//!
//! Not here: what a request does (`ledger`, `pipeline`).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::after;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::fault;
use crate::limits::{REQUEST_BYTES_MAX, REQUEST_SEQS_MAX, REQUESTS_MAX};
use crate::model::{Retried, Seq};

const REQUEST: &str = "request";
const ANSWER: &str = "answer";
const TEMPORARY: &str = "tmp";

/// How long a leader that tidies is waited for, and how often it is looked whether it is done.
const TIDYING_MAX: Duration = Duration::from_secs(5);
const SHARE_AGAIN: Duration = Duration::from_millis(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("create directory `{path}`")]
    Create { path: PathBuf, source: io::Error },
    #[error("list `{path}`")]
    List { path: PathBuf, source: io::Error },
    #[error("write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("read `{path}`")]
    Read { path: PathBuf, source: io::Error },
}

/// The directory of requests.
#[derive(Clone, Debug)]
pub struct Requests {
    path: PathBuf,
}

/// A request that has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// No other request ever has it.
    pub id: String,
    /// Intents to retry.
    pub seqs: Vec<Seq>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    retry: Vec<Seq>,
}

#[derive(Serialize, Deserialize)]
struct Answering {
    answers: Vec<Retried>,
}

/// A request of ours; withdrawn when it is dropped.
#[derive(Debug)]
pub struct Asked {
    request: PathBuf,
    answer: PathBuf,
    /// Locked for as long as somebody waits for the answer.
    _file: File,
}

impl Requests {
    /// Opens the directory below the state directory and makes it when it is missing, for the owner of
    /// the state directory alone.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let path = state_dir.join("requests");
        let create = |source| Error::Create { path: path.clone(), source };
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => give(&path, state_dir).map_err(create)?,
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(source) => return Err(create(source)),
        }
        Ok(Requests { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for a retry of these intents.
    ///
    /// # Errors
    ///
    /// The request cannot be written; nothing was asked for.
    pub fn ask(&self, seqs: &[Seq]) -> Result<Asked, Error> {
        let id = uuid::Uuid::now_v7().to_string();
        let request = self.file(&id, REQUEST);
        let temporary = self.file(&id, TEMPORARY);
        let failed = |source| Error::Write { path: request.clone(), source };
        let _writing = self.share().map_err(failed)?;
        let file = fault::step("request.create", || create(&temporary)).map_err(failed)?;
        let write = || {
            file.try_lock()?;
            // Asked for by root of a service that is not: the service has to read it.
            give(&temporary, &self.path)?;
            let text = serde_json::to_vec(&Asking { retry: seqs.to_vec() })?;
            fault::step("request.write", || (&file).write_all(&text))?;
            fault::step("request.rename", || std::fs::rename(&temporary, &request))
        };
        let written: io::Result<()> = write();
        if let Err(source) = written {
            let _ = std::fs::remove_file(&temporary);
            return Err(failed(source));
        }
        Ok(Asked { answer: self.file(&id, ANSWER), request, _file: file })
    }

    /// Some of the requests that have no answer, the oldest first. What killed commands have left of
    /// others is removed.
    ///
    /// # Errors
    ///
    /// The directory cannot be listed.
    pub fn waiting(&self) -> Result<Vec<Request>, Error> {
        let list = |source| Error::List { path: self.path.clone(), source };
        let (mut ids, mut torn) = (BTreeSet::new(), Vec::new());
        for entry in std::fs::read_dir(&self.path).map_err(list)? {
            let path = entry.map_err(list)?.path();
            let id = path.file_stem().and_then(OsStr::to_str);
            let kind = path.extension().and_then(OsStr::to_str);
            let (Some(id), Some(kind)) = (id, kind) else { continue };
            match kind {
                REQUEST if self.file(id, ANSWER).exists() => self.remove_abandoned(id),
                REQUEST => {
                    ids.insert(id.to_owned());
                    if ids.len() > REQUESTS_MAX {
                        ids.pop_last();
                    }
                }
                // Its command took it, and died before it could remove it.
                ANSWER if !self.file(id, REQUEST).exists() => remove(&path),
                TEMPORARY if torn.len() < REQUESTS_MAX => torn.push(path),
                _ => {}
            }
        }
        // With nobody who writes, all that is not whole was left by those who were killed.
        if !torn.is_empty()
            && let Ok(directory) = File::open(&self.path)
            && directory.try_lock().is_ok()
        {
            torn.iter().for_each(|path| remove(path));
        }
        Ok(ids.into_iter().filter_map(|id| self.read(id)).collect())
    }

    /// Answers a request: from now on it is not carried out again.
    ///
    /// # Errors
    ///
    /// The answer cannot be written: carry the request out again, which changes nothing.
    pub fn answer(&self, id: &str, answers: Vec<Retried>) -> Result<(), Error> {
        let path = self.file(id, ANSWER);
        let temporary = self.file(id, TEMPORARY);
        let write = || {
            let text = serde_json::to_vec(&Answering { answers })?;
            let mut file = create(&temporary)?;
            file.write_all(&text)?;
            give(&temporary, &self.path)?;
            fault::step("request.answer", || std::fs::rename(&temporary, &path))
        };
        let written: io::Result<()> = write();
        written.map_err(|source| Error::Write { path: path.clone(), source })
    }

    /// Reads a request; one that is none of ours, or gone, is none.
    fn read(&self, id: String) -> Option<Request> {
        let path = self.file(&id, REQUEST);
        let asking = match read_whole::<Asking>(&path) {
            Ok(asking) if asking.retry.len() <= REQUEST_SEQS_MAX => asking,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                warn!(path = %path.display(), %error, "a request cannot be read");
                return None;
            }
            _ => {
                warn!(path = %path.display(), "removed what is no request of ours");
                remove(&path);
                return None;
            }
        };
        Some(Request { id, seqs: asking.retry })
    }

    /// Holds off those who tidy, for as long as the file is open.
    fn share(&self) -> io::Result<File> {
        let directory = File::open(&self.path)?;
        let start = Instant::now();
        loop {
            match directory.try_lock_shared() {
                Ok(()) => return Ok(directory),
                Err(TryLockError::Error(source)) => return Err(source),
                // Held for a few removals, unless its holder stands still in the middle of them.
                Err(TryLockError::WouldBlock) if start.elapsed() > TIDYING_MAX => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(TryLockError::WouldBlock) => drop(after(SHARE_AGAIN).recv()),
            }
        }
    }

    fn remove_abandoned(&self, id: &str) {
        let request = self.file(id, REQUEST);
        if is_abandoned(&request) {
            // In this order, so that a kill in between leaves no request without its answer.
            remove(&request);
            remove(&self.file(id, ANSWER));
        }
    }

    fn file(&self, id: &str, kind: &str) -> PathBuf {
        self.path.join(format!("{id}.{kind}"))
    }
}

impl Asked {
    /// The answer, once there is one.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn answer(&self) -> Result<Option<Vec<Retried>>, Error> {
        match read_whole::<Answering>(&self.answer) {
            Ok(answering) => Ok(Some(answering.answers)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path: self.answer.clone(), source }),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        fault::step("request.withdraw", || remove(&self.request));
        remove(&self.answer);
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

/// Gives what root has made to whom `like` belongs to.
fn give(path: &Path, like: &Path) -> io::Result<()> {
    let (made, like) = (std::fs::symlink_metadata(path)?, std::fs::metadata(like)?);
    if made.uid() == like.uid() || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(like.uid()), Some(like.gid()))
}

/// Reads JSON of bounded length from a regular file.
fn read_whole<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut options = OpenOptions::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = options.read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = Vec::new();
    file.take(REQUEST_BYTES_MAX as u64).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Whether nobody holds the lock of the file.
fn is_abandoned(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let opened = options.read(true).custom_flags(flags).open(path);
    opened.is_ok_and(|file| file.try_lock().is_ok())
}

/// What cannot be removed does no harm and is tried again with the next look.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Code;

    fn answers() -> Vec<Retried> {
        let message = "pending again".to_owned();
        vec![Retried { seq: Seq(3), retried: true, code: Some(Code::Forbidden), message }]
    }

    fn names(requests: &Requests) -> Vec<String> {
        let entries = std::fs::read_dir(requests.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_request_waits_until_it_is_answered_and_goes_with_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::open(dir.path()).unwrap();
        let mode = std::fs::metadata(requests.path()).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o700);
        let asked = requests.ask(&[Seq(3), Seq(4)]).unwrap();
        assert_eq!(std::fs::metadata(&asked.request).unwrap().mode() & 0o777, 0o600);
        assert_eq!(asked.answer().unwrap(), None);
        let waiting = requests.waiting().unwrap();
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].seqs, [Seq(3), Seq(4)]);
        requests.answer(&waiting[0].id, answers()).unwrap();
        assert_eq!(requests.waiting().unwrap(), [], "it is answered");
        assert_eq!(names(&requests).len(), 2, "and stays while its command lives");
        assert_eq!(asked.answer().unwrap(), Some(answers()));
        drop(asked);
        assert_eq!(names(&requests), Vec::<String>::new());
    }

    #[test]
    fn what_a_killed_command_left_is_carried_out_once_and_then_removed() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::open(dir.path()).unwrap();
        let text = serde_json::to_vec(&Asking { retry: vec![Seq(1)] }).unwrap();
        std::fs::write(requests.file("a", REQUEST), text).unwrap();
        std::fs::write(requests.file("b", TEMPORARY), "{\"ret").unwrap();
        std::fs::write(requests.file("c", ANSWER), "{}").unwrap();
        let waiting = requests.waiting().unwrap();
        assert_eq!(waiting, [Request { id: "a".to_owned(), seqs: vec![Seq(1)] }]);
        assert_eq!(names(&requests), ["a.request"]);
        requests.answer("a", answers()).unwrap();
        assert_eq!(requests.waiting().unwrap(), []);
        assert_eq!(names(&requests), Vec::<String>::new());
    }

    #[test]
    fn a_request_that_is_being_written_is_not_taken_for_one_that_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::open(dir.path()).unwrap();
        let writing = requests.share().unwrap();
        std::fs::write(requests.file("a", TEMPORARY), "").unwrap();
        assert_eq!(requests.waiting().unwrap(), []);
        assert_eq!(names(&requests), ["a.tmp"]);
        drop(writing);
        assert_eq!(requests.waiting().unwrap(), []);
        assert_eq!(names(&requests), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_request_is_removed_and_what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::open(dir.path()).unwrap();
        let many = Asking { retry: vec![Seq(1); REQUEST_SEQS_MAX + 1] };
        std::fs::write(requests.file("a", REQUEST), serde_json::to_vec(&many).unwrap()).unwrap();
        std::fs::write(requests.file("b", REQUEST), vec![b' '; REQUEST_BYTES_MAX + 9]).unwrap();
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            requests.file("c", REQUEST),
            rustix::fs::Mode::from_raw_mode(0o600),
        )
        .unwrap();
        assert_eq!(requests.waiting().unwrap(), []);
        assert_eq!(names(&requests), Vec::<String>::new());
    }
}
