//! Listing the inbox: bounded in memory whatever waits there.

use std::collections::BinaryHeap;
use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, FileType, RawDir, Statx, StatxFlags};
use rustix::io::Errno;

use crate::limits::WAITING_MAX;
use crate::model::{FileKind, FileName, Fingerprint, Sighting};
use crate::spool::{Directory, Error, Inbox, Spool};

/// What one look at the inbox found.
#[derive(Debug, Default)]
pub struct Look {
    /// In the order of arrival: by ctime, then by name.
    pub sightings: Vec<Sighting>,
    /// There was more than could be held: what came later is for another look.
    pub more: bool,
    /// Names that could not be looked at, as far as anybody could wait for them.
    pub unseen: Vec<FileName>,
}

impl Inbox {
    /// Lists the inbox: the files whose name `takes` accepts, the `max` oldest of them.
    ///
    /// # Errors
    ///
    /// The directory cannot be listed.
    pub fn look(&self, takes: impl Fn(&[u8]) -> bool, max: usize) -> Result<Look, Error> {
        let mut oldest = BinaryHeap::<Arrival>::new();
        let mut more = false;
        let mut unseen = Vec::new();
        each_name(&self.directory, |name, file_type| {
            if file_type == FileType::Directory || !takes(name) {
                return;
            }
            let name = FileName::new(name);
            let sighting = match self.sight(&name) {
                Ok(Some(sighting)) => sighting,
                Ok(None) => return,
                Err(_) if unseen.len() < WAITING_MAX => return unseen.push(name),
                Err(_) => return,
            };
            oldest.push(Arrival(sighting));
            if oldest.len() > max {
                oldest.pop();
                more = true;
            }
        })?;
        let sightings = oldest.into_sorted_vec().into_iter().map(|Arrival(s)| s).collect();
        Ok(Look { sightings, more, unseen })
    }

    /// Looks at one name in the inbox without opening it; `None` when there is no such file.
    ///
    /// # Errors
    ///
    /// The name cannot be looked at.
    pub fn sight(&self, name: &FileName) -> Result<Option<Sighting>, Error> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match rustix::fs::statx(&self.directory.fd, name.as_bytes(), flags, StatxFlags::BASIC_STATS)
        {
            Ok(stat) => Ok(Some(sighting(name.clone(), &stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(source) => Err(Error::Look { name: name.clone(), source: source.into() }),
        }
    }
}

impl Spool {
    /// The names in `work/`, in no order.
    ///
    /// # Errors
    ///
    /// The directory cannot be listed.
    pub fn claimed_names(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = Vec::new();
        each_name(&self.work, |name, _| names.push(name.to_vec()))?;
        Ok(names)
    }
}

/// A sighting, ordered by arrival.
#[derive(PartialEq, Eq)]
struct Arrival(Sighting);

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |arrival: &'_ Self| arrival.0.print.ctime_ns;
        key(self).cmp(&key(other)).then_with(|| self.0.name.cmp(&other.0.name))
    }
}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Puts sightings in the order of arrival.
pub fn sort_by_arrival(sightings: &mut [Sighting]) {
    sightings
        .sort_by(|a, b| a.print.ctime_ns.cmp(&b.print.ctime_ns).then_with(|| a.name.cmp(&b.name)));
}

pub(super) fn sighting(name: FileName, stat: &Statx) -> Sighting {
    Sighting {
        name,
        kind: kind(stat),
        print: fingerprint(stat),
        links: stat.stx_nlink,
        owner: stat.stx_uid,
    }
}

pub(super) fn kind(stat: &Statx) -> FileKind {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Special,
    }
}

pub(super) fn fingerprint(stat: &Statx) -> Fingerprint {
    let nanoseconds = |time: rustix::fs::StatxTimestamp| {
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    Fingerprint {
        device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        len: stat.stx_size,
        mtime_ns: nanoseconds(stat.stx_mtime),
        ctime_ns: nanoseconds(stat.stx_ctime),
    }
}

/// Calls `take` with each name of the directory but `.` and `..`, without holding them.
fn each_name(directory: &Directory, mut take: impl FnMut(&[u8], FileType)) -> Result<(), Error> {
    let listed =
        |source: Errno| Error::List { path: directory.path.clone(), source: source.into() };
    rustix::fs::seek(&directory.fd, rustix::fs::SeekFrom::Start(0)).map_err(listed)?;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 64 << 10];
    let mut entries = RawDir::new(&directory.fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(listed)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            take(name, entry.file_type());
        }
    }
    Ok(())
}
