//! The directories between producers and us: inbox, work, processed, failed, status.
//!
//! Everything here is relative to directory descriptors that were opened once, so nobody can swap a
//! path component under us. Names never carry facts: what a file is, is asked of the open file.
//!
//! Not here: decisions (`settle`), events (`watch`), what is in the documents (`intake`).

mod archive;
mod claim;
mod look;
mod marker;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

pub use archive::Archived;
pub use claim::{Candidate, Claim, Claimed, Content, claim_order, leases_work_in};
pub use look::{Look, sort_by_arrival};
pub use marker::Marker;

use crate::fault;
use crate::model::{FileName, Layout};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("create directory `{path}`")]
    Create { path: PathBuf, source: io::Error },
    #[error("open directory `{path}`")]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "`{other}` lies on another filesystem than `{work}`; the parts of a spool must share one, \
         since files are moved between them by rename"
    )]
    OtherFilesystem { work: PathBuf, other: PathBuf },
    #[error(
        "`{other}` lies on another mount than `{work}`, though of the same filesystem; the parts of a \
             spool must share one, since files are moved between them by rename"
    )]
    OtherMount { work: PathBuf, other: PathBuf },
    #[error("`{path}` is not where it was, so what is archived would be where nobody looks")]
    Moved { path: PathBuf },
    #[error(
        "`{path}` lies on a network filesystem, where neither locks nor syncs can be relied on; \
             set `allow_network_filesystem` if you know better"
    )]
    NetworkFilesystem { path: PathBuf },
    #[error("list `{path}`")]
    List { path: PathBuf, source: io::Error },
    #[error("look at `{name}` in the inbox")]
    Look { name: FileName, source: io::Error },
    #[error("claim `{name}`")]
    Claim { name: FileName, source: io::Error },
    #[error("read claim `{name}`")]
    Read { name: FileName, source: io::Error },
    #[error("sync `{path}`")]
    Sync { path: PathBuf, source: io::Error },
    #[error("write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("move claim `{name}` to `{path}`")]
    Archive { name: FileName, path: PathBuf, source: io::Error },
    #[error("move `{name}` from the failed ones back to `{path}`")]
    Restore { name: FileName, path: PathBuf, source: io::Error },
    #[error("read marker `{path}`")]
    Marker { path: PathBuf, source: io::Error },
    #[error("marker `{path}` is not one of ours: `{found}`")]
    MarkerForm { path: PathBuf, found: String },
}

impl Error {
    /// Whether it was the device that failed a write, and not a lack of room or of rights.
    pub fn is_of_the_device(&self) -> bool {
        match self {
            Error::Write { source, .. }
            | Error::Archive { source, .. }
            | Error::Restore { source, .. } => {
                source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            }
            _ => false,
        }
    }
}

/// The directories that are ours alone.
#[derive(Debug)]
pub struct Spool {
    work: Directory,
    processed: Directory,
    failed: Directory,
    status: Directory,
}

/// The directory that producers write to. It is not ours to keep: it may be renamed, replaced or
/// unmounted, and is then opened anew.
#[derive(Debug)]
pub struct Inbox {
    directory: Directory,
}

/// A directory that was opened once.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    fd: File,
    device: u64,
    inode: u64,
    /// Renames work within one mount only, even where two are of the same filesystem.
    mount: u64,
}

/// One of the two directories that documents end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shelf {
    Processed,
    Failed,
}

impl Spool {
    /// Opens our parts of the spool and makes those that are missing.
    ///
    /// # Errors
    ///
    /// A part cannot be made or opened, or the parts do not lie on one local filesystem (unless
    /// `network` allows that).
    pub fn open(layout: &Layout, network: bool) -> Result<Self, Error> {
        let spool = Spool {
            work: Directory::make(&layout.work, 0o700)?,
            processed: Directory::make(&layout.processed, 0o750)?,
            failed: Directory::make(&layout.failed, 0o750)?,
            status: Directory::make(&layout.status, 0o750)?,
        };
        for part in [&spool.processed, &spool.failed, &spool.status] {
            spool.work.require_same_filesystem(part)?;
        }
        if !network && is_network(&spool.work.fd) {
            return Err(Error::NetworkFilesystem { path: layout.work.clone() });
        }
        Ok(spool)
    }

    fn shelf(&self, shelf: Shelf) -> &Directory {
        match shelf {
            Shelf::Processed => &self.processed,
            Shelf::Failed => &self.failed,
        }
    }
}

impl Inbox {
    /// Opens the inbox and makes it when it is missing.
    ///
    /// # Errors
    ///
    /// It cannot be made or opened, or lies on another filesystem than `spool`.
    pub fn open(path: &Path, spool: &Spool) -> Result<Self, Error> {
        Directory::make(path, 0o770)?;
        Inbox::reopen(path, spool)
    }

    /// Opens the inbox if it is there, after it was lost.
    ///
    /// # Errors
    ///
    /// As for [`Inbox::open`], and when it is missing. [`Error::Moved`] when the inbox is back and
    /// the other parts are not: the spool was unmounted and mounted again, and only a new start
    /// finds all of it.
    pub fn reopen(path: &Path, spool: &Spool) -> Result<Self, Error> {
        let directory = Directory::open(path)?;
        match spool.work.require_same_filesystem(&directory) {
            Err(Error::OtherMount { .. }) if !spool.work.is_in_place() => {
                Err(Error::Moved { path: spool.work.path.clone() })
            }
            other => other.map(|()| Inbox { directory }),
        }
    }

    /// Whether the path still leads to the directory that is open; it does not after the directory
    /// was renamed, replaced, mounted over or unmounted. The mount alone does not matter: files of
    /// this directory come in either way.
    pub fn is_in_place(&self) -> bool {
        Directory::open(&self.directory.path).is_ok_and(|now| {
            (now.device, now.inode) == (self.directory.device, self.directory.inode)
        })
    }
}

impl Directory {
    fn make(path: &Path, mode: u32) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(mode);
        fault::step("spool.create", || builder.create(path))
            .map_err(|source| Error::Create { path: path.to_owned(), source })?;
        Directory::open(path)
    }

    /// Whether there is something of this name.
    fn has(&self, name: &[u8]) -> Result<bool, Errno> {
        match rustix::fs::accessat(&self.fd, name, Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn require_same_filesystem(&self, other: &Directory) -> Result<(), Error> {
        let (work, path) = (self.path.clone(), other.path.clone());
        if self.device != other.device {
            return Err(Error::OtherFilesystem { work, other: path });
        }
        if self.mount != other.mount {
            return Err(Error::OtherMount { work, other: path });
        }
        Ok(())
    }

    /// Whether the path still leads to this directory.
    fn is_in_place(&self) -> bool {
        Directory::open(&self.path).is_ok_and(|now| {
            (now.device, now.inode, now.mount) == (self.device, self.inode, self.mount)
        })
    }

    fn open(path: &Path) -> Result<Self, Error> {
        let opened = |source: rustix::io::Errno| Error::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        // Links in the path are the operator's business; the last component must be a directory.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).map_err(opened)?;
        let stat =
            rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::MNT_ID)
                .map_err(opened)?;
        Ok(Directory {
            path: path.to_owned(),
            fd: File::from(fd),
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            // Zero on kernels before 5.8, which do not tell.
            mount: stat.stx_mnt_id,
        })
    }
}

/// Whether a file lies where several machines may write, by the filesystem's magic number.
pub fn is_network(file: &File) -> bool {
    const NFS: u64 = 0x6969;
    const SMB: u64 = 0x517b;
    const SMB2: u64 = 0xfe53_4d42;
    const CIFS: u64 = 0xff53_4d42;
    const FUSE: u64 = 0x6573_5546;
    const NINE_P: u64 = 0x0102_1997;
    const CEPH: u64 = 0x00c3_6400;
    const AFS: u64 = 0x5346_414f;
    rustix::fs::fstatfs(file).is_ok_and(|stat| {
        let magic = stat.f_type as u64 & 0xffff_ffff;
        [NFS, SMB, SMB2, CIFS, FUSE, NINE_P, CEPH, AFS].contains(&magic)
    })
}
