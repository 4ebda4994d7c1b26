//! Throw-away servers of a cluster, started and ended by the tools that build them.

use std::ffi::OsStr;
use std::fs;
use std::io::BufReader;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::wire::Wire;

/// What one of the tools has started, in a directory of its own; ended on drop.
pub struct Servers {
    dir: TempDir,
    down: PathBuf,
}

impl Servers {
    /// Starts what `tool` starts; `None`, said aloud, without the tool or the binaries that the
    /// variable `assets` names.
    pub fn start(
        tool: &str,
        assets: &str,
        arguments: impl IntoIterator<Item = String>,
        variables: &[(&str, &OsStr)],
    ) -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tools");
        let tools = std::env::var_os("INTENTD_TOOLS").map_or_else(beside, PathBuf::from).join(tool);
        if std::env::var_os(assets).is_none() || !tools.join("up").is_file() {
            eprintln!("SKIPPED: {assets} or the folder INTENTD_TOOLS is not there");
            return None;
        }
        let dir = TempDir::new().expect("a directory");
        let mut up = Command::new(tools.join("up"));
        up.arg(dir.path()).args(arguments).envs(variables.iter().copied());
        let up = up.stdout(Stdio::null()).status();
        assert!(up.is_ok_and(|status| status.success()), "{tool}/up works");
        Some(Servers { dir, down: tools.join("down") })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn all(&self) -> Vec<(i32, String)> {
        let pids = fs::read_to_string(self.path("pids")).expect("a file");
        let line = |line: &str| {
            let (pid, name) = line.split_once(' ').expect("PID NAME");
            (pid.parse().expect("a number"), name.to_owned())
        };
        pids.lines().map(line).collect()
    }

    /// Ends all but these.
    pub fn keep(&self, names: &[&str]) {
        for (pid, name) in self.all() {
            if !names.contains(&name.as_str()) {
                let pid = Pid::from_raw(pid).expect("a number");
                kill_process(pid, Signal::KILL).expect("a server");
            }
        }
    }

    /// Processor time of those that run, in seconds, with that of children that have ended.
    pub fn used(&self) -> f64 {
        let of = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            times(&stat).map_or(0.0, |times| times.iter().sum())
        };
        self.all().iter().map(|(pid, _)| of(*pid)).sum()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = Command::new(&self.down).arg(self.dir.path()).status();
    }
}

/// Processor time of this process and of all its children that have ended, in seconds.
pub fn used() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").expect("our own times");
    let [user, system, of_children, system_of_children] = times(&stat).expect("our own times");
    (user + system, of_children + system_of_children)
}

/// Seconds in user and system mode, of a process and of its children that have ended.
fn times(stat: &str) -> Option<[f64; 4]> {
    let fields: Vec<&str> = stat.rsplit(')').next()?.split(' ').collect();
    let seconds = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / 100.0);
    Some([seconds(12)?, seconds(13)?, seconds(14)?, seconds(15)?])
}

/// An API server with its etcd. Its controllers are ended: what they do costs several times what is
/// measured.
pub struct ApiServer {
    pub servers: Servers,
    address: String,
    token: String,
    tls: Arc<ClientConfig>,
}

impl ApiServer {
    pub fn start() -> Option<Self> {
        let servers = Servers::start("kube", "KUBEBUILDER_ASSETS", [], &[])?;
        servers.keep(&["etcd", "kube-apiserver"]);
        let kubeconfig = fs::read_to_string(servers.path("token.kubeconfig")).expect("a file");
        let word = |key: &str| {
            let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(key));
            line.expect("a kubeconfig of the tools").trim().to_owned()
        };
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(servers.path("pki/ca.crt"));
        roots.add(authority.expect("a certificate")).expect("an authority");
        let tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        Some(ApiServer {
            address: word("server: https://"),
            token: word("token:"),
            tls: Arc::new(tls),
            servers,
        })
    }

    /// A new connection of the administrator's.
    pub fn connect(&self) -> Wire {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).expect("a session");
        let stream = BufReader::new(StreamOwned::new(tls, stream));
        Wire { stream, authorization: format!("Authorization: Bearer {}", self.token) }
    }

    /// With the credentials that bare requests have: a certificate costs the server a check of its
    /// chain for each request.
    pub fn kubeconfig(&self) -> PathBuf {
        self.servers.path("token.kubeconfig")
    }
}
