//! A site with a daemon on it, and what producers did to it: the frame of every row here.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use intentd::model::FileName;
use serde_json::json;
use tempfile::TempDir;

use crate::check::{self, Expect, Log};
use crate::report::Tally;
use crate::support::{Daemon, PATIENCE, Site, names};

/// A site, its daemon while there is one, and the log of its producers.
pub struct Scene {
    pub site: Site,
    pub log: Log,
    /// Faults that were seen to happen.
    pub fired: u64,
    daemon: Option<Daemon>,
    /// Holds the site where it lies in memory.
    _memory: Option<TempDir>,
}

impl Scene {
    /// A site on the disk, whose configuration holds `toml`.
    pub fn new(toml: &str) -> Self {
        Scene::of(Site::with_config(toml), None)
    }

    /// A site in memory, for rows whose number of files matters more than the medium.
    pub fn in_memory(toml: &str) -> Self {
        let Ok(memory) = TempDir::with_prefix_in("intentd-", "/dev/shm") else {
            return Scene::new(toml);
        };
        Scene::of(Site::at(&[memory.path()], toml), Some(memory))
    }

    /// A site below directories of the row's own.
    pub fn at(roots: &[&Path], toml: &str) -> Self {
        Scene::of(Site::at(roots, toml), None)
    }

    fn of(site: Site, memory: Option<TempDir>) -> Self {
        Scene { site, log: Log::default(), fired: 0, daemon: None, _memory: memory }
    }

    /// Starts the daemon and waits until it leads and watches.
    pub fn start(&mut self) {
        self.daemon = Some(self.site.start());
    }

    /// Starts it behind another program, whose arguments come first, and waits until it is ready.
    /// The program has to become the daemon itself, so that signals meet it.
    pub fn start_behind(&mut self, program: &[&str], environment: &[(&str, &str)]) {
        let run = self.site.command(&["run", "--log-format", "json"]);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(run.get_program()).args(run.get_args());
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.envs(environment.iter().copied()).env("HOME", self.site.root());
        self.start_as(command);
    }

    /// Starts a prepared command and waits until it is ready.
    pub fn start_as(&mut self, command: Command) {
        let daemon = Daemon::from(command);
        daemon.wait_for_message("ready");
        self.daemon = Some(daemon);
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the row has started it")
    }

    pub fn take_daemon(&mut self) -> Daemon {
        self.daemon.take().expect("the row has started it")
    }

    /// Where a name of the inbox is.
    pub fn at_inbox(&self, name: impl AsRef<Path>) -> PathBuf {
        self.site.inbox().join(name)
    }

    /// Drops a whole file by rename, and notes it.
    pub fn drop(&mut self, name: &str, text: &str, expect: Expect) {
        self.site.drop_file(name, text);
        self.log.dropped(name, text, expect);
    }

    /// Notes a file that may or may not be seen: it was replaced or deleted before it was taken.
    pub fn dropped_in_vain(&mut self, name: &str, text: &str) {
        self.log.dropped(name, text, Expect::Any);
        self.log.drops.last_mut().expect("one was pushed").durable = false;
    }

    /// Waits until nothing is left in the inbox and in `work/`, and every finished file has its
    /// status. What takes long is watched for progress.
    pub fn rest(&mut self) {
        let wanted = self.log.drops.iter().filter(|drop| drop.durable).count();
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let start = Instant::now();
            let count = |part: &str| entries(&self.site.spool().join(part));
            let waiting = count("inbox");
            let (claimed, told) = (count("work"), count("status"));
            if waiting == 0 && claimed == 0 && told >= wanted {
                return;
            }
            if told != last {
                (last, since) = (told, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let log = self.daemon.as_ref().map(Daemon::log).unwrap_or_default();
                let tail = &log[log.len().saturating_sub(20)..];
                panic!(
                    "{waiting} wait, {claimed} claimed, {told} of {wanted} told; log: {tail:#?}"
                );
            }
            // Looking at a large directory must not be all that the machine does.
            std::thread::sleep(Duration::from_millis(5).max(4 * start.elapsed()));
        }
    }

    /// Brings the site to rest, stops the daemon and checks everything.
    pub fn verdict(&mut self) -> Tally {
        self.rest();
        self.log.told_by_status(&self.site);
        let mut tally = Tally { fired: self.fired, ..Tally::default() };
        tally.acked = self.log.told.len() as u64;
        let (code, log) = self.take_daemon().stop();
        tally.require(code == Some(0), || format!("the daemon ends with {code:?}: {log:#?}"));
        tally.violations.extend(check::check(&self.site, &self.log));
        tally
    }
}

/// How many names a directory has, dot-files left out.
fn entries(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let is_plain = |name: &std::ffi::OsStr| !name.as_bytes().starts_with(b".");
    entries.flatten().filter(|entry| is_plain(&entry.file_name())).count()
}

/// A scaling document that tells itself apart from every other by `id`.
pub fn intent(target: &str, replicas: u64, id: &str) -> String {
    json!({
        "intent_type": "scaling", "target": target, "namespace": "default",
        "replicas": replicas, "correlation_id": id,
    })
    .to_string()
}

/// How records show a name.
pub fn shown(name: &[u8]) -> String {
    let shown = serde_json::to_value(FileName::new(name)).expect("a name serialises");
    shown.as_str().expect("a name is a string").to_owned()
}

/// Memory that the process has used at most so far, in bytes.
pub fn memory_peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("the kernel tells the peak") << 10
}

/// Whether the program can be started at all.
pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Whether any file below the directories holds this text.
pub fn found_below(roots: &[PathBuf], text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = roots.to_vec();
    while let Some(directory) = open.pop() {
        for name in names(&directory) {
            let path = directory.join(name);
            let Ok(about) = path.symlink_metadata() else { continue };
            if about.is_dir() {
                open.push(path);
            } else if about.is_file() && about.len() < 64 << 20 {
                let bytes = std::fs::read(&path).unwrap_or_default();
                let holds = bytes.windows(text.len()).any(|part| part == text.as_bytes());
                found.extend(holds.then_some(path));
            }
        }
    }
    found
}
