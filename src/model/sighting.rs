//! A file in the inbox as a listing shows it: nothing has been opened or believed yet.

use crate::model::FileName;

/// A name, what it stands for, and by what a change of it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub name: FileName,
    pub kind: FileKind,
    pub print: Fingerprint,
    /// Names that the inode has.
    pub links: u32,
    pub owner: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Regular,
    Directory,
    Symlink,
    /// FIFO, socket or device.
    Special,
}

/// Tells one state of one file from another. Inode numbers are reused, so none alone suffices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub device: u64,
    pub inode: u64,
    pub len: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Nanoseconds since 1970; a rename sets it, so it says when the file arrived.
    pub ctime_ns: i128,
}
