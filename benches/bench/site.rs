//! A spool to measure on, and the real binary running on it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::pause;

/// Far above what any step takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub const BINARY: &str = env!("CARGO_BIN_EXE_intentd");

/// The text of one intent for the target of that number.
pub fn document(target: usize) -> String {
    format!(
        r#"{{"intent_type":"scaling","target":"web-{target}","namespace":"ran-a","replicas":{},"reason":"load","source":"test","correlation_id":"c-{target}"}}"#,
        1 + target % 100
    )
}

/// The name of the file of that number.
pub fn file_name(index: usize) -> String {
    format!("intent-{index:07}.json")
}

/// A spool below a directory.
#[derive(Debug)]
pub struct Site {
    pub root: PathBuf,
}

impl Site {
    pub fn new(root: &Path) -> Self {
        fs::create_dir_all(root.join("inbox")).expect("a directory");
        Site { root: root.to_owned() }
    }

    /// Puts `count` intents for `targets` targets into the inbox, and lets the disk come to rest.
    pub fn fill(&self, count: usize, targets: usize) {
        let inbox = self.root.join("inbox");
        for index in 0..count {
            let path = inbox.join(file_name(index));
            fs::write(path, document(index % targets)).expect("a file");
        }
        rustix::fs::sync();
    }

    /// Drops a finished file, and tells when it was visible.
    pub fn drop_file(&self, name: &str, text: &str) -> Instant {
        let temporary = self.root.join("inbox/.new");
        fs::write(&temporary, text).expect("a file");
        let now = Instant::now();
        fs::rename(temporary, self.root.join("inbox").join(name)).expect("a rename");
        now
    }

    pub fn processed(&self, name: &str) -> PathBuf {
        self.root.join("processed").join(name)
    }

    pub fn package(&self, target: usize) -> PathBuf {
        self.root.join(format!("packages/scale-ran-a-web-{target}"))
    }

    /// A command line that is run by another one (`strace`, `taskset`), or by itself.
    pub fn command(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let mut words: Vec<&str> = wrapper.to_vec();
        words.push(BINARY);
        words.extend(arguments);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--spool").arg(&self.root);
        command.arg("--state-dir").arg(self.root.join("state"));
        // A site's own settings are none of a bench's business.
        command.arg("--config").arg(self.configuration()).stdin(Stdio::null());
        command
    }

    fn configuration(&self) -> PathBuf {
        let path = self.root.join("intentd.toml");
        if !path.exists() {
            File::create(&path).and_then(|mut file| file.write_all(b"")).expect("a file");
        }
        path
    }

    /// Drains the inbox; intents a second.
    pub fn drain(&self, wrapper: &[&str], count: usize) -> f64 {
        let start = Instant::now();
        let status = self.command(wrapper, &["batch", "--quiet"]).stdout(Stdio::null()).status();
        let taken = start.elapsed();
        assert!(status.is_ok_and(|status| status.success()), "every intent is delivered");
        count as f64 / taken.as_secs_f64()
    }

    /// Starts the daemon; it is ready when this returns.
    pub fn start(&self, wrapper: &[&str]) -> Daemon {
        self.start_until(wrapper, r#""message":"ready""#)
    }

    /// Starts a daemon beside one that leads.
    pub fn stand_by(&self) -> Daemon {
        self.start_until(&[], r#""message":"standby""#)
    }

    /// Starts a daemon; it has logged this when this returns.
    fn start_until(&self, wrapper: &[&str], words: &str) -> Daemon {
        let started = Instant::now();
        let mut child = self
            .command(wrapper, &["run", "--log-format", "json"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            let read = log.read_line(&mut line).expect("a log");
            assert!(read > 0, "the daemon gets ready");
        }
        let ready = started.elapsed();
        // Read on, since a daemon whose log is full waits.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Daemon { child, ready }
    }
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// From the start of the process to its `ready`.
    pub ready: Duration,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and tells how long that took.
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("the daemon is there");
        let status = self.child.wait().expect("the daemon ends");
        assert!(status.success(), "a clean stop");
        start.elapsed()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks often, with pauses that leave the processor to the daemon.
pub fn wait_for(path: &Path) {
    wait_until(|| path.exists(), &path.display().to_string());
}

pub fn wait_until(mut reached: impl FnMut() -> bool, what: &str) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "{what} comes");
        pause(Duration::from_micros(100));
    }
}

/// Whether a tool can be used; without it its measure is left out, and that is said.
pub fn has(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let there = asked.is_ok_and(|status| status.success());
    if !there {
        eprintln!("SKIPPED: {program} is not installed");
    }
    there
}
