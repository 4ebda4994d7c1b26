//! Runs one child to its end: bounded in time and output, and with its whole process group.
//!
//! Invariant: the group is killed before its leader is reaped, since until then no other process
//! can be given its number.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::fault;
use crate::sys;

/// Kept of each of the two outputs: 64 KiB in all. The end is what tells of a failure.
const OUTPUT_BYTES_MAX: usize = 32 << 10;

/// Characters of output in a message: a long line on a wide terminal.
const SAID_CHARS_MAX: usize = 200;

/// How long a killed process is waited for: one stuck in the kernel would otherwise hold the sink.
const REAP: Duration = Duration::from_secs(2);

/// How a command ended; `said` is its last line, fit to be shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    Exited { code: i32, said: String },
    Killed { signal: String, said: String },
    TimedOut { said: String },
}

/// Runs the command until it ends or is killed at `due`.
///
/// # Errors
///
/// It could not be started, or not be watched.
pub fn run(mut command: Command, due: Instant) -> io::Result<Ending> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    sys::die_with_parent(&mut command);
    let mut child = fault::step("exec.spawn", || command.spawn())?;
    let group = Pid::from_child(&child);
    let followed = follow(&mut child, group, due);
    // The group has no right to outlive its answer, whatever became of its leader.
    let _ = kill_process_group(group, Signal::KILL);
    let (ended, said, pidfd) = match followed {
        Ok(followed) => followed,
        Err(error) => {
            child.wait()?;
            return Err(error);
        }
    };
    if !ended && !ready(pidfd.as_fd(), Instant::now() + REAP)? {
        return Ok(Ending::TimedOut { said });
    }
    let status = child.wait()?;
    Ok(match (ended, status.code(), status.signal()) {
        (false, ..) => Ending::TimedOut { said },
        (true, Some(code), _) => Ending::Exited { code, said },
        (true, None, signal) => Ending::Killed { signal: signal_name(signal), said },
    })
}

/// Drains both outputs until the leader has ended (true) or `due` has come (false).
fn follow(child: &mut Child, group: Pid, due: Instant) -> io::Result<(bool, String, OwnedFd)> {
    let pidfd = pidfd_open(group, PidfdFlags::empty())?;
    let mut out = Output::new(child.stdout.take().map(OwnedFd::from))?;
    let mut err = Output::new(child.stderr.take().map(OwnedFd::from))?;
    let ended = loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        let open = [&out, &err].into_iter().filter_map(|output| output.pipe.as_ref());
        fds.extend(open.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let left = due.saturating_duration_since(Instant::now());
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => break false,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ended = !fds[0].revents().is_empty();
        out.drain();
        err.drain();
        if ended {
            break true;
        }
        if left.is_zero() {
            break false;
        }
    };
    // Kept lines of stderr tell more than those of stdout, which may be the product itself.
    let said = [&err, &out].into_iter().map(Output::said).find(|said| !said.is_empty());
    Ok((ended, said.unwrap_or_default(), pidfd))
}

fn ready(fd: BorrowedFd<'_>, due: Instant) -> io::Result<bool> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of what came out of one pipe.
struct Output {
    pipe: Option<std::fs::File>,
    kept: VecDeque<u8>,
}

impl Output {
    fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Output { pipe: pipe.map(std::fs::File::from), kept: VecDeque::new() })
    }

    /// Reads what is there, but at most some pipefuls: a child that never stops writing must not
    /// keep us from looking at the clock.
    fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    self.kept.extend(&buffer[..count]);
                    let surplus = self.kept.len().saturating_sub(OUTPUT_BYTES_MAX);
                    self.kept.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
    }

    /// The last line that is not blank.
    fn said(&self) -> String {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let blank = |line: &&[u8]| !line.trim_ascii().is_empty();
        bytes.split(|byte| *byte == b'\n').rfind(blank).map(shown).unwrap_or_default()
    }
}

/// The line without anything that could steer a terminal or break a log, and not too long.
fn shown(line: &[u8]) -> String {
    let mut shown = String::new();
    for (count, char) in String::from_utf8_lossy(line.trim_ascii()).chars().enumerate() {
        if count == SAID_CHARS_MAX {
            shown.push_str("...");
            break;
        }
        if char.is_alphanumeric() || char.is_ascii_graphic() || char == ' ' {
            shown.push(char);
        } else {
            shown.extend(char.escape_unicode());
        }
    }
    shown
}

fn signal_name(signal: Option<i32>) -> String {
    let name = match signal {
        Some(libc::SIGABRT) => "SIGABRT",
        Some(libc::SIGBUS) => "SIGBUS",
        Some(libc::SIGFPE) => "SIGFPE",
        Some(libc::SIGHUP) => "SIGHUP",
        Some(libc::SIGILL) => "SIGILL",
        Some(libc::SIGINT) => "SIGINT",
        Some(libc::SIGKILL) => "SIGKILL",
        Some(libc::SIGPIPE) => "SIGPIPE",
        Some(libc::SIGSEGV) => "SIGSEGV",
        Some(libc::SIGSYS) => "SIGSYS",
        Some(libc::SIGTERM) => "SIGTERM",
        Some(other) => return format!("signal {other}"),
        None => "an unknown signal",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, within: Duration, expected: Ending) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let started = Instant::now();
        assert_eq!(run(command, started + within).unwrap(), expected, "{script}");
        assert!(started.elapsed() < Duration::from_secs(20), "{script}");
    }

    #[test]
    fn an_ending_is_told_with_the_last_line_said() {
        let long = Duration::from_secs(60);
        let said = |text: &str| text.to_owned();
        check("exit 0", long, Ending::Exited { code: 0, said: said("") });
        check(
            "echo out; printf 'first\\n\\033[2Jlast\\n\\n' >&2; exit 3",
            long,
            Ending::Exited { code: 3, said: said("\\u{1b}[2Jlast") },
        );
        check("echo only; exit 4", long, Ending::Exited { code: 4, said: said("only") });
        check("kill -9 $$", long, Ending::Killed { signal: said("SIGKILL"), said: said("") });
        check("kill -64 $$", long, Ending::Killed { signal: said("signal 64"), said: said("") });
        check(
            "i=0; while [ $i -lt 9000 ]; do echo 'a line of thirty-two bytes here.'; \
             i=$((i+1)); done; exit 1",
            long,
            Ending::Exited { code: 1, said: said("a line of thirty-two bytes here.") },
        );
    }

    #[test]
    fn a_group_never_outlives_its_answer() {
        let short = Duration::from_millis(200);
        check("echo begun; sleep 600 & wait", short, Ending::TimedOut { said: "begun".to_owned() });
        check("yes", short, Ending::TimedOut { said: "y".to_owned() });
        // The leader ends, a child of it holds the pipes open: no waiting for that.
        check(
            "sleep 600 & echo done",
            Duration::from_secs(60),
            Ending::Exited { code: 0, said: "done".to_owned() },
        );
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let due = Instant::now() + Duration::from_secs(5);
        let error = run(Command::new("/nonexistent/program"), due).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
