//! Looks at what stands where a package is to go, and changes nothing.
//!
//! Ours is a directory of regular files with a `Kptfile` and an `intent.yaml` of our form for the
//! same target. Everything else is foreign and never touched.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat, accessat, fstat, openat};
use rustix::io::{Errno, retry_on_intr};

use crate::compose::{self, INTENT_FILE, KPTFILE, Package};
use crate::sink::package::tree::{each_entry, open_dir};

/// Further files carried from one version of a package to the next; each costs a link every time.
const FURTHER_MAX: usize = 256;

/// An `intent.yaml` above this is not ours: the largest document, six bytes for each of its own,
/// escaped again by YAML.
const READ_MAX: u64 = 16 << 20;

/// What stands under the package's name.
#[derive(Debug)]
pub enum Standing {
    Nothing,
    Ours(Ours),
    /// The end of a sentence that begins with the path.
    Foreign(String),
}

/// A package of ours.
#[derive(Debug)]
pub struct Ours {
    pub dir: OwnedFd,
    pub identity: Identity,
    /// Nothing has to be written.
    pub equal: bool,
    /// Regular files that are not ours, to be carried on.
    pub further: Vec<CString>,
}

/// Tells whether a directory is the one that was looked at, with the same entries.
#[derive(Clone, Debug)]
pub struct Identity {
    dev: u64,
    ino: u64,
    mtime: (i64, i64),
    /// Inode numbers and names, sorted.
    entries: Vec<(u64, CString)>,
}

impl Identity {
    fn new(about: &Stat, mut entries: Vec<(u64, CString)>) -> Self {
        entries.sort_unstable();
        Identity { dev: about.st_dev, ino: about.st_ino, mtime: mtime(about), entries }
    }

    /// Whether the directory that has come to `name` is that one.
    ///
    /// The time of change answers for the entries where it is the same. Where it is not, the move may
    /// have changed it: XFS does so. A file of before keeps its inode number from being used again
    /// where we carry it on, and what we do not carry on is ours to replace.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn is_at(&self, dir: impl AsFd, name: &str) -> Result<bool, Errno> {
        let found = open_dir(dir, name)?;
        let about = fstat(&found)?;
        if (about.st_dev, about.st_ino) != (self.dev, self.ino) {
            return Ok(false);
        }
        if mtime(&about) == self.mtime {
            return Ok(true);
        }
        let mut entries = Vec::with_capacity(self.entries.len());
        each_entry(&found, |name, _, ino| {
            entries.push((ino, name.to_owned()));
            Ok(entries.len() <= self.entries.len())
        })?;
        entries.sort_unstable();
        Ok(entries == self.entries)
    }
}

fn mtime(about: &Stat) -> (i64, i64) {
    (about.st_mtime, about.st_mtime_nsec as i64)
}

/// Compares what stands there with the package.
///
/// # Errors
///
/// It cannot be read.
pub fn look(packages: impl AsFd, package: &Package) -> io::Result<Standing> {
    let name = package.name.as_str();
    // Of most targets nothing stands there yet, and asking costs less than an attempt to open.
    if accessat(&packages, name, Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW) == Err(Errno::NOENT) {
        return Ok(Standing::Nothing);
    }
    let dir = match open_dir(packages, name) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Standing::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => return foreign("is not a directory"),
        Err(error) => return Err(error.into()),
    };
    // The time comes before the entries: what changes while they are read has another one.
    let about = fstat(&dir)?;
    let (mut kptfile, mut intent) = (false, false);
    let mut further = Vec::new();
    let mut entries = Vec::new();
    let mut strange = None;
    each_entry(&dir, |name, kind, ino| {
        entries.push((ino, name.to_owned()));
        let bytes = name.to_bytes();
        if kind != FileType::RegularFile {
            strange = Some(format!("holds `{}`, which is not a regular file", shown(name)));
        } else if package.files.iter().all(|file| file.name.as_bytes() != bytes) {
            further.push(name.to_owned());
            if further.len() > FURTHER_MAX {
                strange = Some(format!("holds more than {FURTHER_MAX} further files"));
            }
        }
        kptfile |= bytes == KPTFILE.as_bytes();
        intent |= bytes == INTENT_FILE.as_bytes();
        Ok(strange.is_none())
    })?;
    if let Some(strange) = strange {
        return Ok(Standing::Foreign(strange));
    }
    if !kptfile {
        return foreign("has no Kptfile");
    }
    if !intent {
        return foreign("has no intent.yaml");
    }
    let identity = Identity::new(&about, entries);
    match compare(&dir, package)? {
        Compared::Equal => Ok(Standing::Ours(Ours { dir, identity, equal: true, further })),
        Compared::Different => Ok(Standing::Ours(Ours { dir, identity, equal: false, further })),
        Compared::Foreign(reason) => Ok(Standing::Foreign(reason)),
    }
}

fn foreign(reason: &str) -> io::Result<Standing> {
    Ok(Standing::Foreign(reason.to_owned()))
}

enum Compared {
    Equal,
    Different,
    Foreign(String),
}

/// `intent.yaml` first: it says whose package this is, and as a rule differs when anything does.
fn compare(dir: &OwnedFd, package: &Package) -> io::Result<Compared> {
    let mut files: Vec<_> = package.files.iter().collect();
    files.sort_by_key(|file| file.name != INTENT_FILE);
    for file in files {
        let Some(text) = read(dir, file.name)? else { return Ok(Compared::Different) };
        if text == file.text.as_bytes() {
            continue;
        }
        let text = std::str::from_utf8(&text).unwrap_or_default();
        if file.name == INTENT_FILE {
            return Ok(match compose::read_key(text) {
                Some(key) if key == package.key => Compared::Different,
                Some(key) => {
                    Compared::Foreign(format!("is the package of {} {key}", key.intent_type))
                }
                None => Compared::Foreign("has an intent.yaml that is not of our form".to_owned()),
            });
        }
        if file.name != KPTFILE || !compose::same_kptfile(text, &file.text) {
            return Ok(Compared::Different);
        }
    }
    Ok(Compared::Equal)
}

/// The text of one file of a package that was looked at; empty where there is none.
///
/// # Errors
///
/// It cannot be read.
pub fn text(ours: &Ours, name: &str) -> io::Result<String> {
    let bytes = read(&ours.dir, name)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The bytes of a file; `None` when there is none, or more than we would ever write.
fn read(dir: &OwnedFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match retry_on_intr(|| openat(dir, name, flags, Mode::empty())) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let about = fstat(&file)?;
    let size = u64::try_from(about.st_size).unwrap_or(u64::MAX);
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile || size > READ_MAX {
        return Ok(if name == INTENT_FILE { Some(Vec::new()) } else { None });
    }
    let mut bytes = Vec::with_capacity(size as usize + 1);
    File::from(file).take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn shown(name: &CStr) -> String {
    crate::model::FileName::new(name.to_bytes()).to_string()
}
