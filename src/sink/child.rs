//! Runs one child to its end: bounded in time and output, and with its whole process group.
//!
//! Who calls gives the program, its arguments and its environment; what is common to all children
//! of sinks is here.
//!
//! Invariant: the group is killed before its leader is reaped, since until then no other process
//! can be given its number.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
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

/// What goes into a child besides its arguments, and what is wanted back besides its last line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pipes<'a> {
    /// Bytes for its standard input, which is closed after them.
    pub input: &'a [u8],
    /// Keep the whole of its standard output, and kill it when there is more than this.
    pub capture_bytes_max: Option<usize>,
}

/// How a command ended; `said` is its last line, fit to be shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    Exited {
        code: i32,
        said: String,
    },
    Killed {
        signal: String,
        said: String,
    },
    TimedOut {
        said: String,
    },
    /// It wrote more than was to be kept, and was killed.
    TooLong {
        said: String,
    },
}

/// A child that has ended, with what it wrote.
#[derive(Debug)]
pub struct Ended {
    pub ending: Ending,
    /// Whole if it was to be captured and the ending is not [`Ending::TooLong`], else its end.
    pub stdout: Vec<u8>,
    /// The end of it.
    pub stderr: Vec<u8>,
}

/// Runs the command until it ends or is killed at `due`.
///
/// # Errors
///
/// It could not be started, or not be watched.
pub fn run(command: Command, due: Instant, pipes: Pipes<'_>) -> io::Result<Ended> {
    let (ending, out, err) = carry(command, due, pipes, None)?;
    let ending = ending.expect("only a listener stops a child before its end");
    Ok(Ended { ending, stdout: out.kept.into(), stderr: err.kept.into() })
}

/// Runs the command and hears what it prints while it prints it, until it ends, is killed at
/// `due`, or is killed because the listener has heard enough or `hangup` becomes readable; of
/// these last two there is no ending to tell.
///
/// # Errors
///
/// It could not be started, or not be watched.
pub fn listen(
    command: Command,
    due: Instant,
    hangup: BorrowedFd<'_>,
    heard: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<Option<Ending>> {
    let ear = Ear { hangup, heard };
    let (ending, _, _) = carry(command, due, Pipes::default(), Some(ear))?;
    Ok(ending)
}

/// Who hears the standard output of a child while that runs.
struct Ear<'a> {
    hangup: BorrowedFd<'a>,
    heard: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
}

/// Runs the command to one of the ends that there are; `None` where the listener made it.
fn carry(
    mut command: Command,
    due: Instant,
    pipes: Pipes<'_>,
    ear: Option<Ear<'_>>,
) -> io::Result<(Option<Ending>, Output, Output)> {
    let stdin = if pipes.input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    sys::die_with_parent(&mut command);
    let mut child = fault::step("child.spawn", || command.spawn())?;
    let group = Pid::from_child(&child);
    let followed = follow(&mut child, group, due, pipes, ear);
    // The group has no right to outlive its answer, whatever became of its leader.
    let _ = kill_process_group(group, Signal::KILL);
    let followed = match followed {
        Ok(followed) => followed,
        Err(error) => {
            child.wait()?;
            return Err(error);
        }
    };
    let Followed { stop, out, err, pidfd } = followed;
    let said = said(&out, &err, pipes.capture_bytes_max.is_some());
    let reaped = stop == Stop::Ended || ready(pidfd.as_fd(), Instant::now() + REAP)?;
    let status = if reaped { Some(child.wait()?) } else { None };
    let ending = match (stop, status) {
        (Stop::Due, _) => Ending::TimedOut { said },
        (Stop::Surplus, _) => Ending::TooLong { said },
        (Stop::Enough, _) => return Ok((None, out, err)),
        (Stop::Ended, status) => match status.and_then(|status| status.code()) {
            Some(code) => Ending::Exited { code, said },
            None => {
                let signal = signal_name(status.and_then(|status| status.signal()));
                Ending::Killed { signal, said }
            }
        },
    };
    Ok((Some(ending), out, err))
}

/// Why a child is followed no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Ended,
    Due,
    /// It wrote more than was to be kept.
    Surplus,
    /// Whoever listened has heard enough, or has hung up.
    Enough,
}

struct Followed {
    stop: Stop,
    out: Output,
    err: Output,
    pidfd: OwnedFd,
}

/// Feeds the child and drains both outputs until one of the reasons to stop.
fn follow(
    child: &mut Child,
    group: Pid,
    due: Instant,
    pipes: Pipes<'_>,
    mut ear: Option<Ear<'_>>,
) -> io::Result<Followed> {
    let pidfd = pidfd_open(group, PidfdFlags::empty())?;
    let mut input = Input::new(child.stdin.take().map(OwnedFd::from), pipes.input)?;
    let mut out = Output::new(child.stdout.take().map(OwnedFd::from), pipes.capture_bytes_max)?;
    let mut err = Output::new(child.stderr.take().map(OwnedFd::from), None)?;
    let stop = loop {
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(ear.as_ref().map(|ear| PollFd::from_borrowed_fd(ear.hangup, PollFlags::IN)));
        let open = [&out, &err].into_iter().filter_map(|output| output.pipe.as_ref());
        fds.extend(open.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(input.pipe.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        let left = due.saturating_duration_since(Instant::now());
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => break Stop::Due,
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let ended = !fds[0].revents().is_empty();
        let hung_up = ear.is_some() && !fds[1].revents().is_empty();
        input.feed();
        let mut heard = ControlFlow::Continue(());
        out.drain(|bytes| {
            if let (Some(ear), ControlFlow::Continue(())) = (&mut ear, heard) {
                heard = (ear.heard)(bytes);
            }
        });
        err.drain(|_| {});
        if hung_up || heard.is_break() {
            break Stop::Enough;
        }
        if out.surplus {
            break Stop::Surplus;
        }
        if ended {
            break Stop::Ended;
        }
        if left.is_zero() {
            break Stop::Due;
        }
    };
    Ok(Followed { stop, out, err, pidfd })
}

/// The last line of stderr, which tells more than stdout; that one may be the product itself.
fn said(out: &Output, err: &Output, is_captured: bool) -> String {
    let shown = [Some(err), Some(out).filter(|_| !is_captured)];
    let mut lines = shown.into_iter().flatten().map(Output::said);
    lines.find(|said| !said.is_empty()).unwrap_or_default()
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

/// What still has to go into the child.
struct Input<'a> {
    pipe: Option<std::fs::File>,
    left: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(pipe: Option<OwnedFd>, left: &'a [u8]) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Input { pipe: pipe.map(std::fs::File::from), left })
    }

    /// Writes what the pipe takes now. A child that does not read to the end is no fault of ours:
    /// its exit code tells.
    fn feed(&mut self) {
        while let Some(pipe) = &mut self.pipe {
            match pipe.write(self.left) {
                Ok(count) if count > 0 => self.left = &self.left[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.left = &[],
            }
            if self.left.is_empty() {
                self.pipe = None;
            }
        }
    }
}

/// What came out of one pipe: all of it up to a limit, or its end.
struct Output {
    pipe: Option<std::fs::File>,
    kept: VecDeque<u8>,
    capture_bytes_max: Option<usize>,
    /// There was more than was to be captured.
    surplus: bool,
}

impl Output {
    fn new(pipe: Option<OwnedFd>, capture_bytes_max: Option<usize>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let pipe = pipe.map(std::fs::File::from);
        Ok(Output { pipe, kept: VecDeque::new(), capture_bytes_max, surplus: false })
    }

    /// Reads what is there, but at most some pipefuls: a child that never stops writing must not
    /// keep us from looking at the clock.
    fn drain(&mut self, mut heard: impl FnMut(&[u8])) {
        let mut buffer = [0; 16 << 10];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    heard(&buffer[..count]);
                    self.kept.extend(&buffer[..count]);
                    let max = self.capture_bytes_max.unwrap_or(OUTPUT_BYTES_MAX);
                    let surplus = self.kept.len().saturating_sub(max);
                    self.kept.drain(..surplus);
                    self.surplus |= surplus > 0 && self.capture_bytes_max.is_some();
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
pub fn shown(line: &[u8]) -> String {
    shown_up_to(line, SAID_CHARS_MAX)
}

/// The same, with another idea of what is too long.
pub fn shown_up_to(line: &[u8], chars_max: usize) -> String {
    let mut shown = String::new();
    for (count, char) in String::from_utf8_lossy(line.trim_ascii()).chars().enumerate() {
        if count == chars_max {
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
        let ended = run(command, started + within, Pipes::default()).unwrap();
        assert_eq!(ended.ending, expected, "{script}");
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

    #[track_caller]
    fn piped(script: &str, input: &[u8], max: usize) -> Ended {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let pipes = Pipes { input, capture_bytes_max: Some(max) };
        run(command, Instant::now() + Duration::from_secs(60), pipes).unwrap()
    }

    #[test]
    fn input_goes_in_and_the_whole_output_comes_back_up_to_its_limit() {
        let input: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
        let ended = piped("cat; echo told >&2", &input, 1 << 20);
        assert_eq!(ended.ending, Ending::Exited { code: 0, said: "told".to_owned() });
        assert!(ended.stdout == input, "every byte, in its place");
        assert_eq!(ended.stderr, b"told\n");

        let ended = piped("echo no >&2; exec cat", &input, (1 << 20) - 1);
        assert_eq!(ended.ending, Ending::TooLong { said: "no".to_owned() });
        assert_eq!(piped("yes", b"", 10).ending, Ending::TooLong { said: String::new() });
        // What is captured is the product: nothing is said of it.
        let ended = piped("cat > /dev/null; printf x", b"", 1);
        assert_eq!(ended.ending, Ending::Exited { code: 0, said: String::new() });
        assert_eq!(ended.stdout, b"x");
        let ended = piped("exec true", &input, 1);
        assert_eq!(ended.ending, Ending::Exited { code: 0, said: String::new() });
    }

    #[test]
    fn a_listener_hears_what_is_printed_at_once_and_ends_it_when_it_likes() {
        let due = Instant::now() + Duration::from_secs(60);
        let command = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        let (reader, writer) = io::pipe().unwrap();
        let mut text = Vec::new();
        let mut until = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            if text.ends_with(b"two\n") {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let script = command("echo one; echo two; sleep 600");
        assert_eq!(listen(script, due, reader.as_fd(), &mut until).unwrap(), None);
        assert_eq!(text, b"one\ntwo\n");

        let exited = |code| Some(Ending::Exited { code, said: "no".to_owned() });
        let mut on = |_: &[u8]| ControlFlow::Continue(());
        let script = command("echo no >&2; exit 3");
        assert_eq!(listen(script, due, reader.as_fd(), &mut on).unwrap(), exited(3));

        let mut writer = Some(writer);
        let mut hang_up = |_: &[u8]| {
            writer = None;
            ControlFlow::Continue(())
        };
        let script = command("echo begun; sleep 600");
        assert_eq!(listen(script, due, reader.as_fd(), &mut hang_up).unwrap(), None);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let due = Instant::now() + Duration::from_secs(5);
        let missing = Command::new("/nonexistent/program");
        let error = run(missing, due, Pipes::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
