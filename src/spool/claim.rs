//! From a name in the inbox to bytes that cannot change any more.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::fault;
use crate::model::{FileKind, FileName, Fingerprint, Sighting, derived};
use crate::settle::{Peek, Writers};
use crate::spool::look::{fingerprint, kind, sighting};
use crate::spool::{Directory, Error, Inbox, Spool};
use crate::sys::Lease;

/// No intent is shorter: below this a file is read to tell blank ones from half ones.
const SHORTEST_INTENT: usize = 64;

/// A file of the inbox that was opened and looked at.
#[derive(Debug)]
pub struct Candidate {
    pub sighting: Sighting,
    pub peek: Peek,
    fd: File,
}

/// A file in `work/`. The claim promises nothing: only the ledger does.
#[derive(Debug)]
pub struct Claim {
    /// The name in `work/`.
    pub claimed_as: Vec<u8>,
    /// The name in the inbox.
    pub file: FileName,
    pub print: Fingerprint,
    /// Open for reading; absent where reading is not allowed, or makes no sense.
    fd: Option<File>,
}

/// What came of an attempt to claim.
#[derive(Debug)]
pub enum Claimed {
    /// The file that was seen is in `work/`.
    Taken(Claim),
    /// The name had come to mean nothing, or another file, which is left where it is.
    Left,
    /// The name had come to mean another file, which could not go back since a third one has the
    /// name by now. It is in `work/` as this, and nothing is known of it: take it up like a claim
    /// that a killed leader left.
    Other(Vec<u8>),
}

/// What reading a claim gave.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Vec<u8>),
    /// More than the limit; nothing more than that was read.
    TooLarge,
    /// Somebody still writes, or has written while we read: not settled after all.
    Unsettled,
    /// We may not read it.
    Unreadable,
}

impl Inbox {
    /// Opens a regular file of the inbox and looks at it, without blocking and without following
    /// anything. `None` when it is gone or no regular file any more: look again.
    ///
    /// # Errors
    ///
    /// [`Error::Look`] with `EACCES` when we may not read it; other failures are ours.
    pub fn open_candidate(
        &self,
        name: &FileName,
        leases: bool,
    ) -> Result<Option<Candidate>, Error> {
        let look = |source: Errno| Error::Look { name: name.clone(), source: source.into() };
        let fd = match open_beneath(&self.directory, name.as_bytes()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::XDEV) => return Ok(None),
            Err(source) => return Err(look(source)),
        };
        let sighting = sighting(name.clone(), &stat_open(&fd).map_err(look)?);
        if sighting.kind != FileKind::Regular || sighting.links == 0 {
            return Ok(None);
        }
        let writers = if leases { writers_of(&fd) } else { Writers::Unknown };
        let blank = match sighting.print.len {
            0 => true,
            len if len < SHORTEST_INTENT as u64 => is_blank(&fd),
            _ => false,
        };
        Ok(Some(Candidate { sighting, peek: Peek { writers, blank }, fd }))
    }

    /// Moves a candidate into `work/` under the number `n` of the epoch.
    ///
    /// # Errors
    ///
    /// The rename failed; the file is still in the inbox.
    pub fn claim(
        &self,
        candidate: Candidate,
        spool: &Spool,
        epoch: u64,
        n: u64,
    ) -> Result<Claimed, Error> {
        let Candidate { sighting, fd, .. } = candidate;
        Ok(match self.claim_unopened(&sighting, spool, epoch, n)? {
            Claimed::Taken(claim) => Claimed::Taken(Claim { fd: Some(fd), ..claim }),
            other => other,
        })
    }

    /// Like [`Inbox::claim`] for what is not opened: links, devices, files we may not read.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn claim_unopened(
        &self,
        sighting: &Sighting,
        spool: &Spool,
        epoch: u64,
        n: u64,
    ) -> Result<Claimed, Error> {
        let file = sighting.name.clone();
        let claimed_as = derived(&format!("{epoch}.{n}."), file.as_bytes(), "");
        let renamed = fault::step("claim.rename", || {
            rename(&self.directory, file.as_bytes(), &spool.work, &claimed_as)
        });
        match renamed {
            Ok(()) => {}
            // It may as well be `work/` that is gone.
            Err(Errno::NOENT) if self.directory.has(file.as_bytes()) == Ok(false) => {
                return Ok(Claimed::Left);
            }
            Err(source) => return Err(Error::Claim { name: file, source: source.into() }),
        }
        // From here on it is in `work/`, so whatever fails must not make anybody forget it.
        let Ok(now) = stat_at(&spool.work, &claimed_as) else {
            return Ok(Claimed::Other(claimed_as));
        };
        let print = fingerprint(&now);
        // The number of an inode is used again: a link may have become a file under it.
        let is_same = kind(&now) == sighting.kind
            && (print.device, print.inode) == (sighting.print.device, sighting.print.inode);
        if is_same {
            return Ok(Claimed::Taken(Claim { claimed_as, file, print, fd: None }));
        }
        match rename(&spool.work, &claimed_as, &self.directory, file.as_bytes()) {
            Ok(()) => Ok(Claimed::Left),
            Err(_) => Ok(Claimed::Other(claimed_as)),
        }
    }
}

impl Spool {
    /// Takes up a claim that is in `work/` already; `None` when it is gone.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub fn reclaim(&self, claimed_as: &[u8]) -> Result<Option<(Claim, Sighting)>, Error> {
        let file = original_name(claimed_as);
        match stat_at(&self.work, claimed_as) {
            Ok(stat) => {
                let sighting = sighting(file.clone(), &stat);
                let claimed_as = claimed_as.to_vec();
                let print = sighting.print;
                Ok(Some((Claim { claimed_as, file, print, fd: None }, sighting)))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(Error::Look { name: file, source: source.into() }),
        }
    }

    /// Makes the claims durable. Unsynced, a power cut would put a file back into the inbox after
    /// its row is final, and an old 3 would run after a newer 5.
    ///
    /// # Errors
    ///
    /// The sync failed: never try again, stop.
    pub fn sync_claims(&self) -> Result<(), Error> {
        fault::guard("claim.sync", || self.work.fd.sync_all())
            .map_err(|source| Error::Sync { path: self.work.path.clone(), source })
    }

    /// Reads a claim once and whole, at most `size_max` bytes of it.
    ///
    /// # Errors
    ///
    /// Reading failed for a reason that is ours; the claim stays in `work/`.
    pub fn read(&self, claim: &Claim, size_max: u64, leases: bool) -> Result<Content, Error> {
        let read = |source: std::io::Error| Error::Read { name: claim.file.clone(), source };
        let reopened;
        let fd = match &claim.fd {
            Some(fd) => fd,
            None => match open_beneath(&self.work, &claim.claimed_as) {
                Ok(fd) => {
                    reopened = fd;
                    &reopened
                }
                Err(Errno::ACCESS | Errno::PERM) => return Ok(Content::Unreadable),
                Err(source) => return Err(read(source.into())),
            },
        };
        // Nobody can open it by its old name any more, but a descriptor from before may be opened
        // anew, and stores to a mapping in memory show nowhere: the lease keeps both out until it ends.
        let asks = leases && !fault::is_mutant("settle.writers");
        let lease = match asks.then(|| Lease::take(fd.as_fd())) {
            Some(Ok(None)) => return Ok(Content::Unsettled),
            Some(Ok(lease)) => lease,
            // The looks before and after the reading are all that there is.
            Some(Err(_)) | None => None,
        };
        // What was seen right after the rename: a change since then shows as well as one while we read.
        let before = claim.print;
        if before.len > size_max {
            return Ok(Content::TooLarge);
        }
        let bytes =
            fault::step("claim.read", || read_whole(fd, before.len as usize)).map_err(read)?;
        let after = fingerprint(&stat_open(fd).map_err(|source| read(source.into()))?);
        let is_alone = lease.is_none_or(Lease::end);
        if before != after || bytes.len() as u64 != before.len || !is_alone {
            return Ok(Content::Unsettled);
        }
        Ok(Content::Whole(bytes))
    }

    /// Whether leases can be had on files that we own here; producers' files need CAP_LEASE too.
    pub fn leases_work(&self) -> bool {
        leases_work_in(&self.work.fd)
    }
}

/// Whether the filesystem of a directory has leases; asked with a file that never has a name.
pub fn leases_work_in(directory: &File) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let probe = rustix::fs::openat(directory, c".", flags, Mode::RUSR | Mode::WUSR);
    // Our own probe is open for writing, so "somebody writes" is the answer that shows it works.
    probe.is_ok_and(|fd| Lease::take(fd.as_fd()).is_ok())
}

/// The epoch and number that a name in `work/` begins with; `None` for what is no claim.
pub fn claim_order(claimed_as: &[u8]) -> Option<(u64, u64)> {
    let mut parts = claimed_as.splitn(3, |byte| *byte == b'.');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse().ok();
    Some((number()?, number()?))
}

fn original_name(claimed_as: &[u8]) -> FileName {
    FileName::new(claimed_as.splitn(3, |byte| *byte == b'.').nth(2).unwrap_or(claimed_as))
}

fn open_beneath(directory: &Directory, name: &[u8]) -> Result<File, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    retry_on_intr(|| rustix::fs::openat2(&directory.fd, name, flags, Mode::empty(), resolve))
        .map(File::from)
}

fn rename(from: &Directory, old: &[u8], to: &Directory, new: &[u8]) -> Result<(), Errno> {
    rustix::fs::renameat_with(&from.fd, old, &to.fd, new, RenameFlags::NOREPLACE)
}

fn stat_open(fd: &File) -> Result<Statx, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

fn stat_at(directory: &Directory, name: &[u8]) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(&directory.fd, name, flags, StatxFlags::BASIC_STATS)
}

fn writers_of(fd: &File) -> Writers {
    if fault::is_mutant("settle.writers") {
        return Writers::None;
    }
    match Lease::take(fd.as_fd()) {
        Ok(Some(_lease)) => Writers::None,
        Ok(None) => Writers::Some,
        Err(_) => Writers::Unknown,
    }
}

/// Reads from the start, one byte more than there ought to be: a shorter answer is the end of the file,
/// so that a second call need not ask for it.
fn read_whole(fd: &File, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len + 1);
    while bytes.len() < len {
        let at = bytes.len() as u64;
        match rustix::io::pread(fd, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

fn is_blank(fd: &File) -> bool {
    let mut start = [0; SHORTEST_INTENT];
    fd.read_at(&mut start, 0).is_ok_and(|read| start[..read].trim_ascii().is_empty())
}
