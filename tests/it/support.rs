//! A site to test with: a spool in a temporary directory, and the real binary running on it.

// Shared with `tests/proof`; each of the two uses a part of it.
#![allow(dead_code)]
// Another process's state can only be looked at again and again, with a pause in between.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Far above what any step takes on a loaded machine; a test that meets it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A spool, a state directory and a configuration of its own.
pub struct Site {
    root: PathBuf,
    spool: PathBuf,
    state: PathBuf,
    packages: PathBuf,
    composition: String,
    /// Deletes the root in the end, where it is ours.
    _dir: Option<TempDir>,
}

impl Site {
    pub fn new() -> Self {
        Site::with_config("")
    }

    /// A site whose configuration file holds `toml` besides the directories.
    pub fn with_config(toml: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let site = Site::at(&[dir.path()], toml);
        Site { _dir: Some(dir), ..site }
    }

    /// A site in directories of the caller's: spool, state and packages below the one, or each
    /// below one of three, which may be filesystems of their own.
    pub fn at(roots: &[&Path], toml: &str) -> Self {
        let [spool, state, packages] = match *roots {
            [root] => [root.join("spool"), root.join("state"), root.join("spool/packages")],
            [a, b, c] => [a.join("spool"), b.join("state"), c.join("packages")],
            _ => panic!("one root, or three"),
        };
        let (root, composition) = (roots[0].to_owned(), toml.to_owned());
        let site = Site { root, spool, state, packages, composition, _dir: None };
        std::fs::create_dir_all(site.inbox()).unwrap();
        site.configure(toml);
        site
    }

    /// Writes the configuration file anew.
    pub fn configure(&self, toml: &str) {
        let Site { spool, state, packages, .. } = self;
        let mut head = format!("spool = {spool:?}\nstate_dir = {state:?}\n");
        if !packages.starts_with(spool) {
            head += &format!("packages = {packages:?}\n");
        }
        std::fs::write(self.root().join("intentd.toml"), head + toml).unwrap();
    }

    /// What the configuration file holds besides the directories, as it was at the start.
    pub fn composition(&self) -> String {
        self.composition.clone()
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn spool(&self) -> PathBuf {
        self.spool.clone()
    }

    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    pub fn inbox(&self) -> PathBuf {
        self.spool().join("inbox")
    }

    pub fn packages(&self) -> PathBuf {
        self.packages.clone()
    }

    /// Drops a file as a good producer does: whole, by rename.
    pub fn drop_file(&self, name: &str, text: &str) {
        let temporary = self.inbox().join(format!(".{name}.tmp"));
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, self.inbox().join(name)).unwrap();
    }

    /// A command of the binary on this site, with a clean environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentd"));
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.root());
        command.args(args).arg("--config").arg(self.root().join("intentd.toml"));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        Finished::from(self.command(args).output().expect("the binary starts"))
    }

    /// Starts the daemon and waits until it leads and watches.
    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub fn start_with(&self, args: &[&str]) -> Daemon {
        let daemon = self.launch(args);
        daemon.wait_for_message("ready");
        daemon
    }

    /// Starts the daemon and waits for nothing.
    pub fn launch(&self, args: &[&str]) -> Daemon {
        let mut all = vec!["run", "--log-format", "json"];
        all.extend(args);
        Daemon::from(self.command(&all))
    }

    /// All records that `history` shows, oldest first.
    pub fn history(&self) -> Vec<Value> {
        let finished = self.run(&["history", "-o", "jsonl"]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.jsonl()
    }

    /// Waits until `count` records are final and archived, and returns the history.
    pub fn wait_for_records(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} status files"), || {
            names(&self.spool().join("status")).len() >= count
        });
        wait_until("an empty work directory", || names(&self.spool().join("work")).is_empty());
        self.history()
    }

    /// Names in a part of the spool, sorted.
    pub fn names(&self, part: &str) -> Vec<String> {
        names(&self.spool().join(part))
    }

    /// The reason file of an archived name.
    pub fn reason(&self, archived: &str) -> Value {
        let path = self.spool().join("failed").join(format!("{archived}.reason.json"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        serde_json::from_str(&text).unwrap()
    }

    /// The replicas that a scaling package asks for.
    pub fn replicas(&self, target: &str) -> Option<u64> {
        let path = self.packages().join(format!("scale-default-{target}/deployment.yaml"));
        let text = std::fs::read_to_string(path).ok()?;
        text.lines().find_map(|line| line.trim().strip_prefix("replicas: ")?.parse().ok())
    }
}

/// Names in a directory without dot-files, sorted; lossy where they are not UTF-8.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .map(|entries| {
            entries
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|name| !name.starts_with('.'))
                .collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

/// A scaling intent for a target in the namespace `default`.
pub fn scaling(target: &str, replicas: u64) -> String {
    json!({"intent_type": "scaling", "target": target, "namespace": "default", "replicas": replicas})
        .to_string()
}

/// Waits for a state (not for a change), looking often; fails the test after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a command ended.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// Standard output, one JSON document a line.
    pub fn jsonl(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl From<Command> for Daemon {
    fn from(mut command: Command) -> Self {
        let mut child =
            command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let stderr = child.stderr.take().expect("it is piped");
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let collected = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                collected.lock().unwrap().push(line);
            }
        });
        Daemon { child, lines }
    }
}

impl Daemon {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Whether a line with this message has been logged.
    pub fn has_logged(&self, message: &str) -> bool {
        self.log().iter().any(|line| {
            serde_json::from_str::<Value>(line).is_ok_and(|line| line["message"] == message)
        })
    }

    #[track_caller]
    pub fn wait_for_message(&self, message: &str) {
        let start = Instant::now();
        while !self.has_logged(message) {
            assert!(start.elapsed() < PATIENCE, "no `{message}` in {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a child has a pid");
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a known signal");
        rustix::process::kill_process(pid, signal).expect("the child is there");
    }

    /// Kills it as the kernel would, and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and returns the exit code and its log.
    pub fn stop(mut self) -> (Option<i32>, Vec<String>) {
        self.signal(libc::SIGTERM);
        let status = self.wait();
        (status.code(), self.log())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {:#?}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for its end; the exit code, or 128 and the signal.
    #[track_caller]
    pub fn wait_code(&mut self) -> i32 {
        let status = self.wait();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
