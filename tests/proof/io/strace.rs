//! Runs the program under `strace`, which makes its system calls fail.
//!
//! The program is our own child (`-D`), so that its end is seen as it is; programs that it starts
//! are let go at `execve`. `when=N` counts for each name of a call and each thread.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is looked at, and what is made to fail.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// As behind `-e trace=`.
    pub trace: String,
    /// As behind `-e inject=`, each.
    pub inject: Vec<String>,
    /// Only calls on these paths, exactly.
    pub paths: Vec<PathBuf>,
}

impl Plan {
    /// A plan that only makes one kind of call fail.
    pub fn inject(call: &str, what: &str, when: &str) -> Plan {
        Plan {
            trace: call.to_owned(),
            inject: vec![format!("{call}:{what}:when={when}")],
            paths: Vec::new(),
        }
    }

    /// The command under this plan, with nothing else in its environment; what happens goes to `trace`.
    pub fn command(&self, plain: &Command, trace: &Path) -> Command {
        let mut command = Command::new("strace");
        let set = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().envs(set);
        command.args(["-D", "-f", "-qq", "-y", "-b", "execve", "-o"]).arg(trace);
        command.args(["-e", "signal=none", "-e", &format!("trace={}", self.trace)]);
        for inject in &self.inject {
            command.args(["-e", &format!("inject={inject}")]);
        }
        for path in &self.paths {
            command.arg("-P").arg(path);
        }
        command.arg(plain.get_program()).args(plain.get_args());
        command
    }

    /// Attaches to a running process and returns once it is traced; dropping it detaches.
    pub fn attach(&self, pid: i32, trace: &Path) -> Attached {
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-y", "-o"]).arg(trace);
        command.args(["-e", "signal=none", "-e", &format!("trace={}", self.trace)]);
        for inject in &self.inject {
            command.args(["-e", &format!("inject={inject}")]);
        }
        for path in &self.paths {
            command.arg("-P").arg(path);
        }
        command.args(["-p", &pid.to_string()]).stderr(Stdio::null());
        let tracer = command.spawn().expect("strace starts");
        let traced = || {
            std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| {
                tasks.flatten().all(|task| {
                    let status = std::fs::read_to_string(task.path().join("status"));
                    status.is_ok_and(|text| !text.contains("TracerPid:\t0\n"))
                })
            })
        };
        crate::support::wait_until("strace to attach", traced);
        Attached { tracer, trace: trace.to_owned() }
    }
}

/// A running `strace -p`.
pub struct Attached {
    tracer: Child,
    trace: PathBuf,
}

impl Attached {
    /// Lets the process go and returns what was traced.
    pub fn detach(mut self) -> Trace {
        self.end();
        Trace::read(&self.trace)
    }

    fn end(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.tracer.id() as i32).expect("a child's pid");
        // Not SIGKILL: strace lets its tracees go on only when it may end in order.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        let _ = self.tracer.wait();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.tracer.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end();
        }
    }
}

/// How a run under a bound of time ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code, or 128 and the signal; `None` when it went on until the bound.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command, and kills it when it goes on for longer than `bound`.
pub fn run(mut command: Command, bound: Duration) -> Ended {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let start = Instant::now();
    let mut bounded = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if !bounded && start.elapsed() >= bound {
            bounded = true;
            child.kill().expect("it is our child");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    let text = |thread: JoinHandle<String>| thread.join().expect("a reader does not panic");
    Ended { code: (!bounded).then_some(code), stdout: text(stdout), stderr: text(stderr) }
}

/// Reads to the end, which comes when tracer and program have both ended.
fn collect(from: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    let mut from = from.expect("it is piped");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// What `strace` wrote.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Vec<String>,
}

impl Trace {
    pub fn read(path: &Path) -> Trace {
        let text = std::fs::read(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        Trace { lines: text.lines().map(str::to_owned).collect() }
    }

    /// Whether there is such a line.
    pub fn has(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.lines.iter().any(|line| wanted(line))
    }

    /// Calls that were made to fail or to wait.
    pub fn fired(&self) -> u64 {
        let injected = |line: &&String| line.ends_with("(INJECTED)") || line.ends_with("(DELAYED)");
        self.lines.iter().filter(injected).count() as u64
    }

    /// How often the thread that makes a call most makes it, of the lines that are wanted.
    pub fn counts(&self, mut wanted: impl FnMut(&str) -> bool) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
        for line in self.lines.iter().filter(|line| wanted(line)) {
            let Some((thread, call)) = call(line) else { continue };
            *counts.entry(call.to_owned()).or_default().entry(thread).or_default() += 1;
        }
        let most = |threads: BTreeMap<&str, u64>| threads.into_values().max().unwrap_or_default();
        counts.into_iter().map(|(call, threads)| (call, most(threads))).collect()
    }

    /// Objects that were synced again after a sync of them had failed.
    pub fn synced_again(&self) -> Vec<String> {
        let mut failed: Vec<&str> = Vec::new();
        let mut again = Vec::new();
        for line in &self.lines {
            let Some(object) = synced(line) else { continue };
            // When the first tables are not made, SQLite rolls them back, by syncs of its own.
            if object.ends_with("/ledger.db>") || object.ends_with("-journal>") {
                continue;
            }
            if failed.contains(&object) {
                again.push(object.to_owned());
            }
            if line.ends_with("(INJECTED)") {
                failed.push(object);
            }
        }
        again
    }
}

/// Thread and name of the call that a line shows the beginning of.
fn call(line: &str) -> Option<(&str, &str)> {
    let (thread, rest) = line.split_once(' ')?;
    let (name, _) = rest.trim_start().split_once('(')?;
    (!name.contains(' ')).then_some((thread, name))
}

/// What a line shows to be synced: `syncfs(5</a/b>)` gives `syncfs(5</a/b>`.
fn synced(line: &str) -> Option<&str> {
    let start = ["fsync(", "fdatasync(", "syncfs("].iter().find_map(|call| line.find(call))?;
    let end = start + line[start..].find('>')?;
    Some(&line[start..=end])
}
