//! The one system call that no safe crate offers.

#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use rustix::ioctl::{Setter, ioctl, opcode};

/// What a filesystem still does when it is shut down.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Shutdown {
    /// It writes its journal: what the journal holds, data that belongs to it not.
    JournalFlushed = 1,
    /// Nothing: what was not synced is gone.
    NothingFlushed = 2,
}

/// Shuts down the filesystem that is mounted here, as a power cut would (`FS_IOC_SHUTDOWN`).
///
/// # Errors
///
/// The filesystem knows no such thing (ENOTTY), or this is not root (EPERM).
pub fn shut_down(mounted: &Path, how: Shutdown) -> std::io::Result<()> {
    const SHUTDOWN: u32 = opcode::read::<u32>(b'X', 125);
    let root = File::open(mounted)?;
    // SAFETY: the ioctl reads one u32 through the pointer that it is given, and keeps none.
    unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(how as u32))? };
    Ok(())
}
