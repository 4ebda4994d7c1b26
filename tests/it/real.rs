//! A real API server with its controllers and simulated nodes, where its binaries are at hand.
//!
//! `KUBEBUILDER_ASSETS` names the directory of the binaries, `INTENTD_TOOLS` the folder with
//! `kube/up` and `kube/down` (`../shared/tools` beside this repository when it is not set). Without
//! them the tests that want it say so aloud and pass.

// Each part of the tests uses another part of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::compose::skipped;
use crate::support::{Finished, wait_until};

/// Starts and holds the cluster: ends when our end of its input closes, however this process dies
/// and whenever, and takes all servers with it. Says when the cluster is up, and where the proxy is:
/// plain HTTP, for clients that know neither TLS nor certificates.
const GUARD: &str = r#"
kubectl=$1 up=$2 down=$3 dir=$4 nodes=$5
"$up" "$dir" "$nodes" </dev/null || { rm -rf "$dir"; exit 1; }
"$kubectl" --kubeconfig="$dir/kubeconfig" proxy --port=0 2>"$dir/proxy.log" &
proxy=$!
cat >"$dir/guard.log"
kill "$proxy"
"$down" "$dir"
rm -rf "$dir"
"#;

/// A running cluster; all of it ends when this is dropped, or when this process ends.
pub struct Cluster {
    dir: PathBuf,
    kubectl: PathBuf,
    url: String,
    guard: Child,
    /// Kept open, as the proxy writes to it.
    _stdout: BufReader<ChildStdout>,
}

/// The one cluster that all tests of this process share; each uses namespaces of its own.
pub fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(1)).as_ref()
}

/// Where a part of the tools lies, if it is there; what is missing is said aloud.
pub fn tool(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tools");
    let tools = std::env::var_os("INTENTD_TOOLS").map_or_else(beside, PathBuf::from);
    let tool = tools.join(name);
    if tool.is_file() {
        return Some(tool);
    }
    skipped(&format!(
        "there is no {}: set INTENTD_TOOLS to the folder that has it",
        tool.display()
    ));
    None
}

impl Cluster {
    /// One of its own, with so many nodes; takes 6 to 15 seconds.
    pub fn start(nodes: u32) -> Option<Self> {
        let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
            skipped(
                "no real API server: set KUBEBUILDER_ASSETS to a directory with etcd, \
                 kube-apiserver, kube-controller-manager, kube-scheduler, kubectl and kwok",
            );
            return None;
        };
        let (up, down) = (tool("kube/up")?, tool("kube/down")?);
        let dir = tempfile::tempdir().expect("a temporary directory").keep();
        let kubectl = assets.join("kubectl");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).args([&kubectl, &up, &down, &dir]);
        guard.arg(nodes.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Its own group, so that what ends this process from a terminal leaves it to clean up.
        let mut guard = guard.process_group(0).spawn().expect("sh is there");
        let mut stdout = BufReader::new(guard.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("it says that the cluster is up");
        assert!(!line.is_empty(), "kube/up has failed; it says why above");
        line.clear();
        stdout.read_line(&mut line).expect("the proxy says where it is");
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        assert!(address.starts_with("127.0.0.1:"), "the proxy says {line:?}");
        Some(Cluster { url: format!("http://{address}"), dir, kubectl, guard, _stdout: stdout })
    }

    /// The administrator's API without TLS and without a credential.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Of the administrator, with a client certificate.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Of the administrator, with a bearer token.
    pub fn token_kubeconfig(&self) -> PathBuf {
        self.dir.join("token.kubeconfig")
    }

    /// Logs, certificates and commands of the servers.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A kubectl that is the administrator.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.dir.join("cache"));
        command.args(args);
        command
    }

    /// What a kubectl that has to succeed prints.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        let finished = Finished::from(self.command(args).output().expect("kubectl starts"));
        assert_eq!(finished.code, Some(0), "kubectl {args:?}: {}", finished.stderr);
        finished.stdout
    }

    /// Applies manifests of YAML or JSON.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        let mut command = self.command(&["apply", "-f", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("kubectl starts");
        child.stdin.take().expect("it is piped").write_all(manifests.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "kubectl apply of {manifests}");
    }

    /// A new namespace that nobody else uses, with its service account.
    #[track_caller]
    pub fn namespace(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("it-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name]);
        name
    }

    /// Kills a server, such as `kube-apiserver`; [`Cluster::revive`] starts it again on its port
    /// and data. Not for the shared cluster.
    pub fn kill(&self, server: &str) {
        let pids = std::fs::read_to_string(self.dir.join("pids")).unwrap();
        let (its, others): (Vec<&str>, Vec<&str>) =
            pids.lines().partition(|line| line.split(' ').nth(1) == Some(server));
        for line in its {
            let pid = line.split(' ').next().and_then(|pid| pid.parse().ok());
            let pid = pid.and_then(rustix::process::Pid::from_raw).expect("a process id");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            wait_until("its end", || has_ended(pid.as_raw_nonzero().get()));
        }
        std::fs::write(self.dir.join("pids"), others.join("\n") + "\n").unwrap();
    }

    /// Starts a killed server again and waits until the API is ready.
    pub fn revive(&self, server: &str) {
        let script =
            r#"setsid bash "$0/$1.sh" </dev/null >>"$0/$1.log" 2>&1 & echo "$! $1" >>"$0/pids""#;
        let status = Command::new("bash").args(["-c", script]).arg(&self.dir).arg(server).status();
        assert!(status.unwrap().success());
        wait_until("a ready API server", || {
            let ready = self.command(&["get", "--raw", "/readyz"]).output();
            ready.is_ok_and(|output| output.status.success())
        });
    }
}

/// Whether a killed process has let go of its port: its last thread is dead, reaped or not. Its
/// command line is gone earlier than that.
fn has_ended(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    threads <= 1 && stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
