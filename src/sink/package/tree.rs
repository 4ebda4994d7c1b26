//! The packages directory and its staging directory, and the calls on them.
//!
//! Both are opened once; everything below is reached from their descriptors, one component at a
//! time and never through a symbolic link.

use std::ffi::{CStr, CString};
use std::fs::{DirBuilder, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fchmod, fstat, fsync, mkdirat, openat,
    statat, syncfs,
};
use rustix::io::{Errno, retry_on_intr};

use crate::fault;
use crate::sink::Fatal;

/// Where packages are made ready, invisible to those who list packages.
pub const STAGING: &str = ".intentd";

/// Mode of a package directory, whatever the umask: it is made to be read by others.
pub const DIR_MODE: Mode = Mode::from_bits_retain(0o755);

/// Mode of a file in a package.
pub const FILE_MODE: Mode = Mode::from_bits_retain(0o644);

const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Why the packages directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("make `{path}` absolute")]
    Absolute { path: PathBuf, source: io::Error },
    #[error("create the directory `{path}`")]
    Create { path: PathBuf, source: io::Error },
    #[error("open the directory `{path}`")]
    Open { path: PathBuf, source: io::Error },
    #[error("`{path}` lies on another filesystem than the directory it is in")]
    Elsewhere { path: PathBuf },
}

/// The two directories.
#[derive(Debug)]
pub struct Tree {
    /// Absolute.
    pub path: PathBuf,
    pub dir: File,
    pub staging: OwnedFd,
}

impl Tree {
    /// Opens both and creates what is missing.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = std::path::absolute(path)
            .map_err(|source| Error::Absolute { path: path.to_owned(), source })?;
        let created =
            create(&path).map_err(|source| Error::Create { path: path.clone(), source })?;
        let opened = |path: &Path, fd: Result<OwnedFd, Errno>| {
            fd.map_err(|source| Error::Open { path: path.to_owned(), source: source.into() })
        };
        // The last component may be a link of the operator's; what is below it may not.
        let flags = OPEN_DIR.difference(OFlags::NOFOLLOW);
        let dir = opened(&path, openat(CWD, &path, flags, Mode::empty()))?;
        let place = path.join(STAGING);
        let made = mkdirat(&dir, STAGING, Mode::RWXU);
        let made = if made == Err(Errno::EXIST) { Ok(()) } else { made };
        // Ours to open up only if we made it: the umask of a service keeps readers out.
        made.and_then(|()| if created { fchmod(&dir, DIR_MODE) } else { Ok(()) })
            .map_err(|source| Error::Create { path: place.clone(), source: source.into() })?;
        let staging = opened(&place, open_dir(&dir, STAGING))?;
        let device = |fd: &OwnedFd| fstat(fd).map(|about| about.st_dev);
        if device(&dir).ok() != device(&staging).ok() {
            return Err(Error::Elsewhere { path: place });
        }
        Ok(Tree { path, dir: File::from(dir), staging })
    }

    /// Whether the path still leads to the directory that was opened.
    pub fn is_in_place(&self) -> bool {
        let there = statat(CWD, &self.path, AtFlags::empty()).map(|about| identity(&about));
        there.is_ok() && there == fstat(&self.dir).map(|about| identity(&about))
    }

    /// Makes all that was staged durable, in one call for the whole batch.
    pub fn sync_staged(&self) -> Result<(), Fatal> {
        fault::guard("stage.sync", || syncfs(&self.dir))
            .map_err(|source| Fatal::Sync { path: self.path.clone(), source: source.into() })
    }

    /// Makes the renames durable.
    pub fn sync_names(&self) -> Result<(), Fatal> {
        fault::guard("publish.sync", || fsync(&self.dir))
            .map_err(|source| Fatal::Sync { path: self.path.clone(), source: source.into() })
    }
}

fn identity(about: &Stat) -> (u64, u64) {
    (about.st_dev, about.st_ino)
}

/// Whether the directory was made by this call.
fn create(path: &Path) -> io::Result<bool> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).create(parent)?;
    }
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens a directory in `dir`, following no link.
pub fn open_dir(dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    retry_on_intr(|| openat(&dir, name, OPEN_DIR, Mode::empty()))
}

/// Hands each entry but `.` and `..`, with its kind and inode number, to `visit` until it says false.
pub fn each_entry(
    dir: impl AsFd,
    mut visit: impl FnMut(&CStr, FileType, u64) -> Result<bool, Errno>,
) -> Result<(), Errno> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let about = statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(about.st_mode)
            }
            known => known,
        };
        if !visit(name, kind, entry.ino())? {
            return Ok(());
        }
    }
    Ok(())
}

/// At most `limit` names of a directory, and whether there are more.
pub fn names(
    dir: impl AsFd,
    limit: usize,
    mut wanted: impl FnMut(&CStr) -> bool,
) -> Result<(Vec<CString>, bool), Errno> {
    let mut names = Vec::new();
    let mut more = false;
    each_entry(dir, |name, _, _| {
        if wanted(name) {
            more = names.len() == limit;
            if !more {
                names.push(name.to_owned());
            }
        }
        Ok(!more)
    })?;
    Ok((names, more))
}
