//! Runs the program under ptrace and holds it at its N-th call that changes anything.
//!
//! Calls are counted over all threads of the process, from its first one on; children that it forks
//! run untraced. Threads are scheduled as they like, so the N-th call of two runs need not be the
//! same one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::process::{Child, Command};
use std::thread;

use crossbeam_channel::{RecvTimeoutError, Sender};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls;
use crate::support::PATIENCE;

/// How far a run came.
pub enum Reached {
    /// The call, before or after which everything now stands still.
    Point(&'static str),
    /// The end, with this exit code, after so many calls.
    End { code: Option<i32>, calls: u64 },
}

/// A traced process; killed when dropped.
pub struct Traced {
    child: Child,
    process: Pid,
    /// Threads that stand still until they are resumed.
    held: HashSet<Pid>,
    ended: Option<WaitStatus>,
    /// The only calls that are counted, by their name; all of them where there is none.
    only: Option<&'static str>,
    /// Calls that changed something so far.
    calls: u64,
    inside: HashMap<Pid, Inside>,
    /// While it is there, a process that does not end by itself is ended in time.
    _bound: Sender<()>,
}

/// A counted call between its entry and its exit.
struct Inside {
    name: &'static str,
    number: u64,
}

impl Traced {
    /// Starts the command with its output in these files; it runs once it is asked
    /// [`until`](Self::until) where.
    pub fn start(command: &Command, only: Option<&'static str>, output: [File; 2]) -> Self {
        let [stdout, stderr] = output;
        let child = stopped(command).stdout(stdout).stderr(stderr).spawn().expect("sh starts");
        let process = Pid::from_raw(child.id() as i32);
        let mut traced = Traced {
            child,
            process,
            held: HashSet::new(),
            ended: None,
            only,
            calls: 0,
            inside: HashMap::new(),
            _bound: bound(process),
        };
        traced.seize();
        traced
    }

    /// Takes over the shell, which has stopped itself, and runs it to its exec.
    fn seize(&mut self) {
        let status = waitpid(self.process, Some(WaitPidFlag::WUNTRACED)).expect("it is a child");
        assert!(matches!(status, WaitStatus::Stopped(..)), "the shell stops itself: {status:?}");
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(self.process, options).expect("a child may be traced");
        kill(self.process, Signal::SIGCONT).expect("it is there");
        loop {
            match self.wait() {
                WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) => return,
                WaitStatus::PtraceEvent(pid, ..) => resume(ptrace::cont(pid, None)),
                WaitStatus::Stopped(pid, signal) => resume(ptrace::cont(pid, signal)),
                status => panic!("the shell runs the program: {status:?}"),
            }
        }
    }

    /// Runs to the entry of call `number`, or to its exit; 0 is no call, so the run goes to its end.
    pub fn until(&mut self, number: u64, after: bool) -> Reached {
        for thread in std::mem::take(&mut self.held) {
            resume(ptrace::syscall(thread, None));
        }
        loop {
            let status = self.wait();
            if let Some(status) = self.ended {
                let code = match status {
                    WaitStatus::Exited(_, code) => Some(code),
                    _ => None,
                };
                return Reached::End { code, calls: self.calls };
            }
            match status {
                WaitStatus::PtraceSyscall(thread) => match self.step(thread, number, after) {
                    Ok(Some(name)) => return Reached::Point(name),
                    Ok(None) => self.go_on(thread, None),
                    Err(Errno::ESRCH) => {}
                    Err(error) => panic!("trace thread {thread}: {error}"),
                },
                WaitStatus::PtraceEvent(thread, ..) => self.go_on(thread, None),
                WaitStatus::Stopped(thread, signal) => self.go_on(thread, Some(signal)),
                _ => {}
            }
        }
    }

    /// Looks at a thread at the entry or exit of a call; the name when it is where it was to go.
    fn step(&mut self, thread: Pid, number: u64, after: bool) -> nix::Result<Option<&'static str>> {
        if ptrace::syscall_info(thread)?.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            let Some(call) = calls::changing(self.process, thread)? else { return Ok(None) };
            if self.only.is_some_and(|only| only != call) {
                return Ok(None);
            }
            self.calls += 1;
            self.inside.insert(thread, Inside { name: call, number: self.calls });
            return Ok((self.calls == number && !after).then_some(call));
        }
        let Some(inside) = self.inside.remove(&thread) else { return Ok(None) };
        Ok((inside.number == number && after).then_some(inside.name))
    }

    fn go_on(&mut self, thread: Pid, signal: Option<Signal>) {
        self.held.remove(&thread);
        resume(ptrace::syscall(thread, signal));
    }

    /// Holds all threads where they are, so that nobody does or says anything more.
    pub fn freeze(&mut self) {
        while self.ended.is_none() {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process));
            let tasks = tasks.into_iter().flatten().flatten();
            let tasks = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
            let running: Vec<Pid> =
                tasks.map(Pid::from_raw).filter(|task| !self.held.contains(task)).collect();
            if running.is_empty() {
                return;
            }
            for thread in &running {
                // One that is ending is no longer there to be interrupted.
                let _ = ptrace::interrupt(*thread);
            }
            self.wait();
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = kill(self.process, Signal::SIGKILL);
        while self.ended.is_none() {
            self.wait();
        }
    }

    /// Waits for the next thing to happen in any thread.
    fn wait(&mut self) -> WaitStatus {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let status = loop {
            match waitpid(Pid::from_raw(-1), Some(flags)) {
                Err(Errno::EINTR) => {}
                other => break other.expect("there is a traced child"),
            }
        };
        let thread = status.pid().expect("it is about a thread");
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                self.held.remove(&thread);
                if thread == self.process {
                    self.ended = Some(status);
                }
            }
            _ => {
                self.held.insert(thread);
            }
        }
        status
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
        // Already waited for; this only tells the handle.
        let _ = self.child.try_wait();
    }
}

/// Kills the process after a time that nobody needs, unless what is returned is dropped before.
fn bound(process: Pid) -> Sender<()> {
    let (held, dropped) = crossbeam_channel::bounded(0);
    thread::spawn(move || {
        if dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(process, Signal::SIGKILL);
        }
    });
    held
}

/// The same command, which stops itself before it becomes the program.
fn stopped(command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell
}

/// A thread that a SIGKILL took out of its stop is no longer there to be resumed.
fn resume(result: nix::Result<()>) {
    match result {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("resume a thread: {error}"),
    }
}
