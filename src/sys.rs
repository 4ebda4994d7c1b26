//! The few system calls that no library wraps safely. The only place with `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Whether any process has the file open for writing, mapped writable included.
///
/// The kernel grants a read lease only on a file that nobody writes; the lease is given back at
/// once, since a writer that comes while it is held would be blocked.
///
/// # Errors
///
/// Leases cannot be had on this file: it is not ours and we lack CAP_LEASE, or its filesystem has
/// none.
pub fn someone_writes(file: impl AsFd) -> io::Result<bool> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: F_SETLEASE takes an integer and touches no memory of ours; the fd is borrowed.
    let set = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) };
    if set == -1 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EAGAIN) { Ok(true) } else { Err(error) };
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    Ok(false)
}

/// Ignores the signals whose default would kill the daemon in the middle of its work: SIGIO, which
/// announces a lease that somebody wants, and SIGXFSZ, which a file size limit sends with EFBIG.
pub fn ignore_deadly_signals() {
    for signal in [libc::SIGIO, libc::SIGXFSZ] {
        // SAFETY: SIG_IGN installs no handler of ours, so there is nothing to be async-signal-safe.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}
