//! The few system calls that no safe crate offers; the only module with `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Signals whose default action ends the process although the call that raised them also reports
/// an error (SIGXFSZ), or although they only tell that somebody wants to write (SIGIO).
const IGNORED: [libc::c_int; 2] = [libc::SIGIO, libc::SIGXFSZ];

/// Ignores the signals that would end this process for no reason of its own.
///
/// SIGIO comes when a lease is broken in the moment in which a [`Lease`] is held, SIGXFSZ
/// when a file passes `ulimit -f`. SIGPIPE is ignored by the Rust runtime already.
///
/// # Errors
///
/// The kernel does not let a signal be ignored.
pub fn ignore_signals() -> io::Result<()> {
    for signal in IGNORED {
        // SAFETY: SIG_IGN installs no handler, so no code of ours runs in a signal's context.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Says that nobody has the file open for writing, under any of its names, mappings included, and that
/// nobody will until this is dropped.
///
/// To be held for a moment: whoever opens the file for writing waits meanwhile.
#[derive(Debug)]
pub struct Lease<'a>(BorrowedFd<'a>);

impl<'a> Lease<'a> {
    /// Takes the lease; `None` where somebody has the file open for writing. The descriptor has to be
    /// open for reading only.
    ///
    /// # Errors
    ///
    /// The kernel does not say: the file is not ours and CAP_LEASE is missing (EACCES), or the
    /// filesystem has no leases (EINVAL, ENOLCK, EOPNOTSUPP).
    pub fn take(file: BorrowedFd<'a>) -> io::Result<Option<Self>> {
        match set_lease(file, libc::F_RDLCK) {
            Ok(()) => Ok(Some(Lease(file))),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Lease<'_> {
    /// Lets go, and tells whether it was held until now: the kernel takes back what is held for too long
    /// while a writer waits (`/proc/sys/fs/lease-break-time`, in seconds).
    pub fn end(self) -> bool {
        let held = set_lease(self.0, libc::F_UNLCK).is_ok();
        std::mem::forget(self);
        held
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let _ = set_lease(self.0, libc::F_UNLCK);
    }
}

fn set_lease(file: BorrowedFd<'_>, lease: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, and F_SETLEASE takes an int.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes the child of this command die when the thread that spawns it ends, however it ends.
///
/// Spawn it from a thread that outlives it. The signals of [`ignore_signals`] are given their
/// default action back in the child, which would inherit that they are ignored.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let set_up = move || {
        // SAFETY: these calls are async-signal-safe and touch no memory of the parent.
        unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the call above: then nobody is left to kill us.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            for signal in IGNORED {
                if libc::signal(signal, libc::SIG_DFL) == libc::SIG_ERR {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing, takes no lock and calls async-signal-safe functions.
    unsafe {
        command.pre_exec(set_up);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[test]
    fn a_lease_is_had_once_the_last_writer_has_closed_and_keeps_others_out_until_it_ends() {
        // The one that waits for the lease sends one.
        ignore_signals().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(Lease::take(reader.as_fd()).unwrap().is_none());
        drop(writer);
        let lease = Lease::take(reader.as_fd()).unwrap().expect("nobody writes");
        let mut open = OpenOptions::new();
        let held = open.append(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap_err();
        assert_eq!(held.kind(), std::io::ErrorKind::WouldBlock);
        assert!(lease.end(), "a writer that waits takes nothing away yet");
        drop(Lease::take(reader.as_fd()).unwrap().expect("nobody writes"));
        OpenOptions::new().append(true).open(&path).unwrap();
    }

    #[test]
    fn a_directory_has_no_lease() {
        let dir = tempfile::tempdir().unwrap();
        let dir = File::open(dir.path()).unwrap();
        assert!(Lease::take(dir.as_fd()).is_err());
    }

    #[test]
    fn a_child_dies_with_the_thread_that_spawned_it() {
        let child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            die_with_parent(&mut command);
            command.spawn().unwrap()
        });
        let status = child.join().unwrap().wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
