//! Which system calls change something that outlives the process.

use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// What decides whether a call of this name counts.
#[derive(Clone, Copy, PartialEq)]
enum Counts {
    Always,
    /// Where its descriptor is a file or standard output, and not a pipe or an eventfd.
    OnFiles,
    /// Where it may create or cut a file, by the flags in this argument.
    Creating(usize),
    /// Likewise, by the first word that this argument points to.
    CreatingAt(usize),
}

use Counts::{Always, Creating, CreatingAt, OnFiles};

const CALLS: &[(libc::c_long, &str, Counts)] = &[
    (libc::SYS_write, "write", OnFiles),
    (libc::SYS_pwrite64, "pwrite64", Always),
    (libc::SYS_writev, "writev", OnFiles),
    (libc::SYS_pwritev, "pwritev", Always),
    (libc::SYS_pwritev2, "pwritev2", Always),
    (libc::SYS_copy_file_range, "copy_file_range", Always),
    (libc::SYS_sendfile, "sendfile", OnFiles),
    (libc::SYS_fsync, "fsync", Always),
    (libc::SYS_fdatasync, "fdatasync", Always),
    (libc::SYS_sync_file_range, "sync_file_range", Always),
    (libc::SYS_sync, "sync", Always),
    (libc::SYS_syncfs, "syncfs", Always),
    (libc::SYS_msync, "msync", Always),
    (libc::SYS_ftruncate, "ftruncate", Always),
    (libc::SYS_truncate, "truncate", Always),
    (libc::SYS_fallocate, "fallocate", Always),
    (libc::SYS_openat, "openat", Creating(2)),
    (libc::SYS_openat2, "openat2", CreatingAt(2)),
    (libc::SYS_renameat, "renameat", Always),
    (libc::SYS_renameat2, "renameat2", Always),
    (libc::SYS_linkat, "linkat", Always),
    (libc::SYS_symlinkat, "symlinkat", Always),
    (libc::SYS_unlinkat, "unlinkat", Always),
    (libc::SYS_mkdirat, "mkdirat", Always),
    (libc::SYS_fchmod, "fchmod", Always),
    (libc::SYS_fchmodat, "fchmodat", Always),
    (libc::SYS_flock, "flock", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Creating(1)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, "creat", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir", Always),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod", Always),
];

/// What a write is called that makes room in the ledger's log: nothing else writes so much at once.
pub const ROOM: &str = "pwrite64 (room)";

/// No document of the workload is longer, and no page.
const ROOM_MIN: u64 = 128 << 10;

/// The name of the call that a thread is about to make, if it changes anything.
pub fn changing(process: Pid, thread: Pid) -> nix::Result<Option<&'static str>> {
    let (number, args) = registers(thread)?;
    let Some((_, name, counts)) = CALLS.iter().find(|(known, ..)| *known == number) else {
        return Ok(None);
    };
    let creates = |flags: u64| flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0;
    let changes = match *counts {
        Always => true,
        OnFiles => matches!(args[0], 1 | 2) || is_file(process, args[0]),
        Creating(flags) => creates(args[flags]),
        CreatingAt(how) => creates(ptrace::read(thread, args[how] as ptrace::AddressType)? as u64),
    };
    let is_room = number == libc::SYS_pwrite64 && args[2] > ROOM_MIN;
    Ok(changes.then_some(if is_room { ROOM } else { name }))
}

/// Whether a file is behind the descriptor.
fn is_file(process: Pid, descriptor: u64) -> bool {
    let link = format!("/proc/{process}/fd/{descriptor}");
    std::fs::read_link(link).is_ok_and(|path| path.is_absolute())
}

/// Whether this kind of machine is known here.
pub const KNOWN: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

#[cfg(target_arch = "x86_64")]
fn registers(thread: Pid) -> nix::Result<(libc::c_long, [u64; 6])> {
    let regs = ptrace::getregs(thread)?;
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
    Ok((regs.orig_rax as libc::c_long, args))
}

#[cfg(target_arch = "aarch64")]
fn registers(thread: Pid) -> nix::Result<(libc::c_long, [u64; 6])> {
    let regs = ptrace::getregs(thread)?.regs;
    Ok((regs[8] as libc::c_long, std::array::from_fn(|index| regs[index])))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_: Pid) -> nix::Result<(libc::c_long, [u64; 6])> {
    Err(nix::errno::Errno::ENOSYS)
}
