//! The end of a file: its reason, its status, and its place in `processed/` or `failed/`.

use std::fs::File;
use std::io::{Read, Write};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::fault;
use crate::model::{FileName, derived};
use crate::spool::{Directory, Error, Shelf, Spool};

/// More than any reason of ours has: a sentence, and the violations that are reported at most.
const REASON_BYTES_MAX: u64 = 1 << 20;

/// Where a document ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Archived {
    /// Under the name that was planned.
    AsPlanned,
    /// Somebody had put another file there: under this name.
    Elsewhere(Vec<u8>),
    /// The claim is not in `work/`: it was moved before a crash, or taken away by hand.
    Gone,
}

impl Spool {
    /// Whether the name is in use in `processed/` or `failed/`.
    ///
    /// # Errors
    ///
    /// The directory cannot be asked.
    pub fn is_taken(&self, shelf: Shelf, name: &[u8]) -> Result<bool, Error> {
        let shelf = self.shelf(shelf);
        if fault::is_mutant("archive.replace") {
            return Ok(false);
        }
        let failed =
            |source: Errno| Error::List { path: shelf.path.clone(), source: source.into() };
        shelf.has(name).map_err(failed)
    }

    /// Writes `status/<name>` whole or not at all; an older one is replaced.
    ///
    /// # Errors
    ///
    /// Writing or renaming failed; nothing is visible.
    pub fn write_status(&self, name: &[u8], text: &[u8]) -> Result<(), Error> {
        write_whole(&self.status, name, text)
    }

    /// Writes `failed/<name>` (a reason) whole or not at all.
    ///
    /// # Errors
    ///
    /// As for [`Spool::write_status`].
    pub fn write_reason(&self, name: &[u8], text: &[u8]) -> Result<(), Error> {
        write_whole(&self.failed, name, text)
    }

    /// Moves a claim to its place. Nothing is ever overwritten: if the planned name has come into
    /// use, `spare` is taken. Safe to repeat.
    ///
    /// # Errors
    ///
    /// The rename failed; the claim is still in `work/`.
    pub fn archive(
        &self,
        claimed_as: &[u8],
        shelf: Shelf,
        planned: &[u8],
        spare: impl FnOnce() -> Vec<u8>,
    ) -> Result<Archived, Error> {
        let shelf = self.shelf(shelf);
        let flags = if fault::is_mutant("archive.replace") {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        let moved = |name: &[u8]| {
            fault::step("archive.rename", || {
                rustix::fs::renameat_with(&self.work.fd, claimed_as, &shelf.fd, name, flags)
            })
        };
        let failed = |source: Errno| Error::Archive {
            name: FileName::new(claimed_as),
            path: shelf.path.clone(),
            source: source.into(),
        };
        match moved(planned) {
            Ok(()) => Ok(Archived::AsPlanned),
            // It may as well be the shelf that is gone: then the claim must not be forgotten.
            Err(Errno::NOENT) if self.work.has(claimed_as) == Ok(false) => Ok(Archived::Gone),
            Err(Errno::EXIST) => {
                let spare = spare();
                moved(&spare).map_err(failed)?;
                Ok(Archived::Elsewhere(spare))
            }
            Err(source) => Err(failed(source)),
        }
    }

    /// Moves a document from `failed/` back to its claim in `work/`, if `failed/<name>` holds these bytes:
    /// somebody may have put another file there. Safe to repeat: what is in `work/` stays as it is.
    ///
    /// # Errors
    ///
    /// Reading or renaming failed; the document is where it was.
    pub fn restore(&self, name: &[u8], claimed_as: &[u8], document: &[u8]) -> Result<bool, Error> {
        let failed = |source: std::io::Error| Error::Restore {
            name: FileName::new(name),
            path: self.work.path.clone(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.failed.fd, name, flags, Mode::empty());
        let file = match retry_on_intr(open) {
            Ok(file) => File::from(file),
            // A link or a socket is no document that we have moved there.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(false),
            Err(source) => return Err(failed(source.into())),
        };
        if !file.metadata().map_err(failed)?.is_file() {
            return Ok(false);
        }
        let mut found = Vec::with_capacity(document.len() + 1);
        file.take(document.len() as u64 + 1).read_to_end(&mut found).map_err(failed)?;
        if found != document {
            return Ok(false);
        }
        let moved = fault::step("retry.rename", || {
            let (from, to) = (&self.failed.fd, &self.work.fd);
            rustix::fs::renameat_with(from, name, to, claimed_as, RenameFlags::NOREPLACE)
        });
        match moved {
            Ok(()) => Ok(true),
            Err(Errno::EXIST | Errno::NOENT) => Ok(false),
            Err(source) => Err(failed(source.into())),
        }
    }

    /// The text of `failed/<name>` (a reason), as far as it is one of ours; `None` when there is none.
    pub fn read_reason(&self, name: &[u8]) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.failed.fd, name, flags, Mode::empty());
        let file = File::from(retry_on_intr(open).ok()?);
        let mut text = Vec::new();
        file.take(REASON_BYTES_MAX).read_to_end(&mut text).ok()?;
        Some(text)
    }

    /// Removes `failed/<name>` (a reason) of an intent that is pending again.
    ///
    /// # Errors
    ///
    /// It is still there.
    pub fn remove_reason(&self, name: &[u8]) -> Result<(), Error> {
        let unlink = || rustix::fs::unlinkat(&self.failed.fd, name, AtFlags::empty());
        match fault::step("retry.reason", unlink) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(source) => Err(Error::Write {
                path: self.failed.path.join(FileName::new(name).as_os_str()),
                source: source.into(),
            }),
        }
    }

    /// Makes all that was archived so far durable.
    ///
    /// # Errors
    ///
    /// The sync failed: never try again, stop.
    pub fn sync_archive(&self) -> Result<(), Error> {
        fault::guard("archive.sync", || rustix::fs::syncfs(&self.status.fd))
            .map_err(|source| Error::Sync { path: self.status.path.clone(), source: source.into() })
    }
}

/// Writes under a temporary name first, so that a reader finds all of the file or none.
fn write_whole(directory: &Directory, name: &[u8], text: &[u8]) -> Result<(), Error> {
    let path = || directory.path.join(FileName::new(name).as_os_str());
    let failed = |source: std::io::Error| Error::Write { path: path(), source };
    let temporary = derived(".", name, ".tmp");
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o640);
    let create = || rustix::fs::openat(&directory.fd, temporary.as_slice(), flags, mode);
    let fd = fault::step("shown.create", || retry_on_intr(create))
        .map_err(|source| failed(source.into()))?;
    let written = fault::step("shown.write", || File::from(fd).write_all(text));
    let renamed = written.and_then(|()| {
        fault::step("shown.rename", || {
            rustix::fs::renameat(&directory.fd, temporary.as_slice(), &directory.fd, name)
        })
        .map_err(Into::into)
    });
    renamed.map_err(|source| {
        // A file that could not be completed must not be left to fill a full disk further.
        let _ = rustix::fs::unlinkat(&directory.fd, temporary.as_slice(), AtFlags::empty());
        failed(source)
    })
}
