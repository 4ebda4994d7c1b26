//! Scaling Deployments on a real API server, beside a client that sends the same requests and does
//! nothing else.
//!
//! The controllers are ended first: what they do with a scaled Deployment costs several times what
//! is measured. Both clients use the same number of connections to the same server in turn, and both
//! begin and hold the two watches that a delivery needs; the reference throws away what these say.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ground::{Ground, Medium};
use crate::site::{Site, file_name};
use crate::table::{Goal, Row};
use crate::{Scale, median};

const CONNECTIONS: usize = 8;
const NAMESPACE: &str = "ran-a";

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke {
        return Vec::new();
    }
    let Some(cluster) = Cluster::start() else { return Vec::new() };
    let (count, rounds) = (scale.of(10, 400, 2_000), scale.of(1, 1, 3));
    cluster.create_all(count);
    // The disk is measured elsewhere; beside a reference that has none it would hide what a call costs.
    let medium = Medium::all(scale).pop().expect("there is always one");
    let ground = Ground::new(medium, 4 * count);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let (mut share, mut raw_share) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (started, before) = (Instant::now(), (used().0, cluster.used()));
        let watches = cluster.watch();
        cluster.on_all(count, |wire, index| wire.scale(index, 2 * round + 2));
        raw.push(count as f64 / started.elapsed().as_secs_f64());
        watches.end();
        raw_share.push((used().0 - before.0) / (cluster.used() - before.1));

        let site = Site::new(&ground.path().join(format!("{round}")));
        let before = (used().1, cluster.used());
        ours.push(cluster.drain(&site, count, 2 * round + 3));
        share.push((used().1 - before.0) / (cluster.used() - before.1));
    }
    vec![
        Row {
            name: format!(
                "scale {count} Deployments, {CONNECTIONS} connections, {}",
                medium.name()
            ),
            unit: "/s",
            ours: median(ours),
            reference: Some((median(raw), "the same requests alone")),
            goal: Goal::Least(0.9),
        },
        Row {
            name: "processor time of that, of the servers'".to_owned(),
            unit: "x",
            ours: median(share),
            reference: Some((median(raw_share), "the same requests alone")),
            goal: Goal::Value(0.1),
        },
    ]
}

/// A throw-away API server with its etcd.
struct Cluster {
    dir: TempDir,
    down: PathBuf,
    address: String,
    token: String,
    tls: Arc<ClientConfig>,
}

impl Cluster {
    fn start() -> Option<Self> {
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tools");
        let tools =
            std::env::var_os("INTENTD_TOOLS").map_or_else(beside, PathBuf::from).join("kube");
        if std::env::var_os("KUBEBUILDER_ASSETS").is_none() || !tools.join("up").is_file() {
            eprintln!("SKIPPED: KUBEBUILDER_ASSETS or the folder INTENTD_TOOLS is not there");
            return None;
        }
        let dir = TempDir::new().expect("a directory");
        let up = Command::new(tools.join("up")).arg(dir.path()).stdout(Stdio::null()).status();
        assert!(up.is_ok_and(|status| status.success()), "the cluster starts");
        let kubeconfig = fs::read_to_string(dir.path().join("token.kubeconfig")).expect("a file");
        let word = |key: &str| {
            let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(key));
            line.expect("a kubeconfig of the tools").trim().to_owned()
        };
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(dir.path().join("pki/ca.crt"));
        roots.add(authority.expect("a certificate")).expect("an authority");
        let tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        let cluster = Cluster {
            address: word("server: https://"),
            token: word("token:"),
            tls: Arc::new(tls),
            down: tools.join("down"),
            dir,
        };
        for (pid, name) in cluster.servers() {
            if !matches!(name.as_str(), "etcd" | "kube-apiserver") {
                let pid = rustix::process::Pid::from_raw(pid).expect("a number");
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                    .expect("a server");
            }
        }
        Some(cluster)
    }

    fn servers(&self) -> Vec<(i32, String)> {
        let pids = fs::read_to_string(self.dir.path().join("pids")).expect("a file");
        let line = |line: &str| {
            let (pid, name) = line.split_once(' ').expect("PID NAME");
            (pid.parse().expect("a number"), name.to_owned())
        };
        pids.lines().map(line).collect()
    }

    /// Processor time of the API server and etcd, in seconds.
    fn used(&self) -> f64 {
        let of = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
            let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
            (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) / 100.0
        };
        let serves = |name: &str| matches!(name, "etcd" | "kube-apiserver");
        self.servers().iter().filter(|(_, name)| serves(name)).map(|(pid, _)| of(*pid)).sum()
    }

    fn create_all(&self, count: usize) {
        let mut wire = self.connect();
        wire.must("POST", "/api/v1/namespaces", &json!({"metadata": {"name": NAMESPACE}}));
        self.on_all(count, Wire::create);
    }

    /// Does something to each Deployment, over all connections.
    fn on_all(&self, count: usize, work: impl Fn(&mut Wire, usize) + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut wire = self.connect();
                    loop {
                        match next.fetch_add(1, Ordering::Relaxed) {
                            index if index < count => work(&mut wire, index),
                            _ => break,
                        }
                    }
                });
            }
        });
    }

    fn connect(&self) -> Wire {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).expect("a session");
        let stream = BufReader::new(StreamOwned::new(tls, stream));
        Wire { stream, authorization: format!("Authorization: Bearer {}", self.token) }
    }

    /// Follows all Deployments and autoscalers of the namespace, and looks at nothing of it.
    fn watch(&self) -> Watches {
        let paths = [
            format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"),
            format!("/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers"),
        ];
        let mut watches = Watches { sockets: Vec::new(), threads: Vec::new() };
        for path in paths {
            let mut wire = self.connect();
            let list = wire.must("GET", &path, &Value::Null);
            let version = list["metadata"]["resourceVersion"].as_str().expect("a version");
            let watch = format!("{path}?watch=true&resourceVersion={version}");
            let head =
                format!("GET {watch} HTTP/1.1\r\nHost: cluster\r\n{}\r\n\r\n", wire.authorization);
            wire.stream.get_mut().write_all(head.as_bytes()).expect("a request");
            watches.sockets.push(wire.stream.get_ref().sock.try_clone().expect("a socket"));
            let drain = move || drop(io::copy(&mut wire.stream, &mut io::sink()));
            watches.threads.push(std::thread::spawn(drain));
        }
        watches
    }

    /// Delivers to all Deployments with the real binary; deliveries a second.
    fn drain(&self, site: &Site, count: usize, replicas: usize) -> f64 {
        // The same credentials: a certificate costs the server a check of its chain for each request.
        let kubeconfig = self.dir.path().join("token.kubeconfig");
        let settings = format!(
            "[sinks.kubernetes]\nkubeconfig = \"{}\"\ndelivered = \"accepted\"\nconcurrency = {CONNECTIONS}\n",
            kubeconfig.display()
        );
        fs::write(site.root.join("intentd.toml"), settings).expect("a file");
        for index in 0..count {
            let text = json!({
                "intent_type": "scaling", "target": format!("web-{index}"), "namespace": NAMESPACE,
                "replicas": replicas,
            });
            fs::write(site.root.join("inbox").join(file_name(index)), text.to_string())
                .expect("a file");
        }
        let started = Instant::now();
        let status = site.command(&[], &["batch", "--quiet", "--sink", "kubernetes"]).status();
        assert!(status.is_ok_and(|status| status.success()), "every intent is delivered");
        count as f64 / started.elapsed().as_secs_f64()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new(&self.down).arg(self.dir.path()).status();
    }
}

/// Open watches.
struct Watches {
    sockets: Vec<TcpStream>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Watches {
    fn end(self) {
        for socket in self.sockets {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        for thread in self.threads {
            thread.join().expect("a thread that only reads");
        }
    }
}

/// Processor time of this process and of all its children that have ended, in seconds.
fn used() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").expect("our own times");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    ((ticks(12) + ticks(13)) / 100.0, (ticks(14) + ticks(15)) / 100.0)
}

/// One connection.
struct Wire {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    authorization: String,
}

impl Wire {
    fn create(&mut self, index: usize) {
        let labels = json!({"app": format!("web-{index}")});
        let deployment = json!({
            "metadata": {"name": format!("web-{index}")},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "any"}]},
            }},
        });
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments?fieldManager=bench");
        self.must("POST", &path, &deployment);
    }

    /// Reads the scale and patches it on that condition.
    fn scale(&mut self, index: usize, replicas: usize) {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web-{index}/scale");
        let scale = self.must("GET", &path, &Value::Null);
        let version = &scale["metadata"]["resourceVersion"];
        let patch =
            json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
        self.must("PATCH", &format!("{path}?fieldManager=bench"), &patch);
    }

    fn must(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.send(method, path, body).expect("an answer");
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    fn send(&mut self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: cluster\r\n{}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.authorization,
            body.len()
        );
        self.stream.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let (mut status, mut length, mut chunked) = (0, 0, false);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                None if line.is_empty() => break,
                None => status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0),
                Some(("content-length", value)) => length = value.parse().unwrap_or(0),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
            }
        }
        let mut text = Vec::new();
        if chunked {
            loop {
                let mut size = String::new();
                self.stream.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk)?;
                text.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else {
            text.resize(length, 0);
            self.stream.read_exact(&mut text)?;
        }
        Ok((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }
}
