//! Scaling Deployments on a real API server, beside a client that sends the same requests and does
//! nothing else.
//!
//! Both clients use the same number of connections to the same server in turn, and both begin and
//! hold the two watches that a delivery needs; the reference throws away what these say.

use std::fs;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use crate::ground::{Ground, Medium};
use crate::server::{ApiServer, used};
use crate::site::{Site, file_name};
use crate::table::{Goal, Row};
use crate::wire::Wire;
use crate::{Scale, median};

const CONNECTIONS: usize = 8;
const NAMESPACE: &str = "ran-a";

pub fn measure(scale: Scale) -> Vec<Row> {
    if scale == Scale::Smoke {
        return Vec::new();
    }
    let Some(server) = ApiServer::start() else { return Vec::new() };
    let cluster = Cluster { server };
    let (count, rounds) = (scale.of(10, 400, 2_000), scale.of(1, 1, 3));
    cluster.create_all(count);
    // The disk is measured elsewhere; beside a reference that has none it would hide what a call costs.
    let medium = Medium::all(scale).pop().expect("there is always one");
    let ground = Ground::new(medium, 4 * count);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let (mut share, mut raw_share) = (Vec::new(), Vec::new());
    let servers = &cluster.server.servers;
    for round in 0..rounds {
        let (started, before) = (Instant::now(), (used().0, servers.used()));
        let watches = cluster.watch();
        cluster.on_all(count, |wire, index| scale_one(wire, index, 2 * round + 2));
        raw.push(count as f64 / started.elapsed().as_secs_f64());
        watches.end();
        raw_share.push((used().0 - before.0) / (servers.used() - before.1));

        let site = Site::new(&ground.path().join(format!("{round}")));
        let before = (used().1, servers.used());
        ours.push(cluster.drain(&site, count, 2 * round + 3));
        share.push((used().1 - before.0) / (servers.used() - before.1));
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

struct Cluster {
    server: ApiServer,
}

impl Cluster {
    fn create_all(&self, count: usize) {
        let mut wire = self.server.connect();
        wire.must("POST", "/api/v1/namespaces", &json!({"metadata": {"name": NAMESPACE}}));
        self.on_all(count, create_one);
    }

    /// Does something to each Deployment, over all connections.
    fn on_all(&self, count: usize, work: impl Fn(&mut Wire, usize) + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut wire = self.server.connect();
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

    /// Follows all Deployments and autoscalers of the namespace, and looks at nothing of it.
    fn watch(&self) -> Watches {
        let paths = [
            format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"),
            format!("/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers"),
        ];
        let mut watches = Watches { sockets: Vec::new(), threads: Vec::new() };
        for path in paths {
            let mut wire = self.server.connect();
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
        let kubeconfig = self.server.kubeconfig();
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

fn create_one(wire: &mut Wire, index: usize) {
    let labels = json!({"app": format!("web-{index}")});
    let deployment = json!({
        "metadata": {"name": format!("web-{index}")},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "any"}]},
        }},
    });
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments?fieldManager=bench");
    wire.must("POST", &path, &deployment);
}

/// Reads the scale and patches it on that condition.
fn scale_one(wire: &mut Wire, index: usize, replicas: usize) {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/web-{index}/scale");
    let scale = wire.must("GET", &path, &Value::Null);
    let version = &scale["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}});
    wire.must("PATCH", &format!("{path}?fieldManager=bench"), &patch);
}
