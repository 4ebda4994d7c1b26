//! The way to a cluster's API server, shared by all sinks that talk to the same one.
//!
//! One pool of connections for the calls to each server with each credentials in a process, and one
//! for the watches. Calls are carried out by the thread that waits for them, which looks after their
//! connections (where several threads wait, one of them does it for all), so that no thread has to wake
//! another one for each of them. Watches go on in the background, on one thread for all.
//!
//! Nothing here retries on its own account, but for what has had no effect: after an answer `401`
//! credentials are read again from their files and the call is repeated once, and what has not gone
//! out on a connection that the server had closed goes out on another.
//!
//! Invariants: every call has a time by which it ends; no answer is read beyond a bound; a redirect
//! is never followed, since the credentials would go with it.

mod access;
mod call;
mod pool;
mod trouble;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::runtime::Builder;

use crate::config::ClusterAccess;

use access::Clients;

pub use call::{Call, Content, Reply, escaped};
pub use trouble::{Cause, Refusal, Trouble};

/// Threads that look up names, read credentials and wait for their plugins; for each cluster one does so
/// at a time.
const BLOCKING_MAX: usize = 16;

/// All clusters that a process talks to.
#[derive(Debug)]
pub struct Clusters {
    runtimes: Arc<Runtimes>,
    known: Mutex<HashMap<ClusterAccess, Arc<Cluster>>>,
    turns: Arc<Turns>,
}

/// Things of servers that take one writer at a time; as many as sinks are configured.
type Turns = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// The right to write to such a thing, until it is dropped.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Clusters {
    /// Starts the thread in the background.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn new() -> io::Result<Self> {
        let calls = Builder::new_current_thread()
            .thread_name("cluster-names")
            .max_blocking_threads(BLOCKING_MAX)
            .enable_all()
            .build()?;
        let background = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("cluster")
            .max_blocking_threads(BLOCKING_MAX)
            .enable_all()
            .build()?;
        let runtimes =
            Runtimes { calls: Runtime(Some(calls)), background: Runtime(Some(background)) };
        Ok(Clusters {
            runtimes: Arc::new(runtimes),
            known: Mutex::default(),
            turns: Arc::default(),
        })
    }

    /// The cluster behind these settings. No file is read and nobody is called yet: what is wrong
    /// with them is told by each call, since files may come and go while the process runs.
    pub fn at(&self, access: ClusterAccess) -> Arc<Cluster> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = known.entry(access.clone()).or_insert_with(|| {
            let (runtimes, turns) = (Arc::clone(&self.runtimes), Arc::clone(&self.turns));
            let (slot, reading) = (Arc::default(), Arc::default());
            Arc::new(Cluster { access, runtimes, turns, slot, reading })
        });
        Arc::clone(cluster)
    }
}

#[derive(Debug)]
struct Runtimes {
    /// Its work is done by those who wait for something in it; where several do, by one for all.
    calls: Runtime,
    background: Runtime,
}

/// A runtime. A task of its own may be the last to let go of it, where waiting for its threads
/// would be a panic, so nobody does.
#[derive(Debug)]
struct Runtime(Option<tokio::runtime::Runtime>);

impl Deref for Runtime {
    type Target = tokio::runtime::Runtime;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is only taken on drop")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// One API server with our credentials there.
pub struct Cluster {
    access: ClusterAccess,
    runtimes: Arc<Runtimes>,
    turns: Arc<Turns>,
    slot: Arc<Mutex<Slot>>,
    /// One reads the credentials at a time: a plugin that hangs, hangs once.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// The clients and how often they have been made anew.
#[derive(Default)]
struct Slot {
    made: u64,
    kept: Option<Arc<Clients>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Runs what calls the server to its end, on this thread. Not to be used inside of a future.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtimes.calls.block_on(async {
            // Nobody has looked after the connections since the last call. The first turn is for what
            // has become of them, the second for dropping those that the server has closed.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            future.await
        })
    }

    /// Starts something that goes on beside the caller until it ends or is aborted.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtimes.background.spawn(future)
    }

    /// Calls the server and waits for the whole answer, until `due` at the latest.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read, the server refuses, or no whole answer came: then nobody
    /// knows whether the call had an effect.
    pub async fn call(&self, call: &Call<'_>, due: Instant) -> Result<Reply, Trouble> {
        let (clients, made) = self.clients(due).await?;
        match call::send(&clients, call, due).await {
            Err(Trouble::Refused(refusal)) if refusal.status == 401 => {
                self.forget(made);
                let (clients, _) = self.clients(due).await?;
                call::send(&clients, call, due).await
            }
            Err(trouble @ (Trouble::Lost { .. } | Trouble::Access { .. })) => {
                // The files may say something else by now: a new certificate, address or plugin.
                self.forget(made);
                Err(trouble)
            }
            answered => answered,
        }
    }

    /// The client for watches, to be used by what was spawned; the number tells it from the ones before.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read, or not until `due`.
    pub async fn watching(&self, due: Instant) -> Result<(kube::Client, u64), Trouble> {
        let (clients, made) = self.clients(due).await?;
        Ok((clients.watcher.clone(), made))
    }

    async fn clients(&self, due: Instant) -> Result<(Arc<Clients>, u64), Trouble> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        tokio::time::timeout_at(due.into(), self.made()).await.unwrap_or_else(|_| {
            let said = "the credentials were not to be had in time".to_owned();
            Err(Trouble::Access { said })
        })
    }

    fn kept(&self) -> Option<(Arc<Clients>, u64)> {
        let slot = self.lock();
        slot.kept.clone().map(|kept| (kept, slot.made))
    }

    /// Makes the clients on a thread of its own: a credential plugin is waited for there.
    async fn made(&self) -> Result<(Arc<Clients>, u64), Trouble> {
        let turn = Arc::clone(&self.reading).lock_owned().await;
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let access = self.access.clone();
        let background = self.runtimes.background.handle().clone();
        let slot = Arc::clone(&self.slot);
        // They are kept also where nobody waits any more.
        let read = move || {
            let _turn = turn;
            let fresh = Arc::new(background.block_on(access::clients(&access))?);
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.made += 1;
            slot.kept = Some(Arc::clone(&fresh));
            Ok((fresh, slot.made))
        };
        self.runtimes.background.spawn_blocking(read).await.unwrap_or_else(|_| {
            let said = "the credentials cannot be used".to_owned();
            Err(Trouble::Access { said })
        })
    }

    /// Waits for the turn at something of the server's that takes one writer at a time. Whoever else
    /// in this process writes to the same thing waits as well, by whatever credentials.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read, or others were at it until `due`.
    pub async fn turn(&self, thing: &str, due: Instant) -> Result<Turn, Trouble> {
        let (clients, _) = self.clients(due).await?;
        let name = format!("{} {thing}", clients.server);
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(name).or_default())
        };
        tokio::time::timeout_at(due.into(), turn.lock_owned())
            .await
            .map_err(|_| Trouble::lost(format!("others wrote to {thing} all the time")))
    }

    /// Has the files read again before the next call, if they were not since.
    pub fn forget(&self, made: u64) {
        let mut slot = self.lock();
        if slot.made == made {
            slot.kept = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A cluster without credentials at this server, whose address has this path.
    fn cluster(clusters: &Clusters, server: &TcpListener, below: &str) -> Arc<Cluster> {
        let dir = tempfile::tempdir().unwrap();
        let cluster = cluster_as(clusters, server, below, dir.path(), "{}");
        cluster.block_on(cluster.clients(Instant::now() + LONG)).unwrap();
        cluster
    }

    fn cluster_as(
        clusters: &Clusters,
        server: &TcpListener,
        below: &str,
        dir: &Path,
        user: &str,
    ) -> Arc<Cluster> {
        let address = format!("{}{below}", server.local_addr().unwrap());
        clusters.at(access(dir, &address, user))
    }

    /// Access by a kubeconfig with this server and this user.
    pub fn access(dir: &Path, address: &str, user: &str) -> ClusterAccess {
        let path = dir.join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             clusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}]\n\
             users:\n- name: a\n  user: {user}\n"
        );
        fs::write(&path, text).unwrap();
        ClusterAccess { kubeconfig: Some(path), context: None }
    }

    /// Takes in a request and gives its path.
    fn request(stream: &TcpStream) -> String {
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        lines.find(String::is_empty).unwrap();
        first.split(' ').nth(1).unwrap().to_owned()
    }

    fn answer(mut stream: &TcpStream) {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    }

    fn answer_once(mut stream: &TcpStream) {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n";
        stream.write_all(format!("{head}{{}}").as_bytes()).unwrap();
    }

    #[test]
    fn calls_share_a_connection_and_go_below_the_path_of_the_servers_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clusters = Clusters::new().unwrap();
        let cluster = cluster(&clusters, &listener, "/k8s/clusters/c-1/");
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let answered = |_| {
                let path = request(&stream);
                answer(&stream);
                path
            };
            (0..3).map(answered).collect::<Vec<String>>()
        });
        for _ in 0..3 {
            let call = Call { query: &[("a", "b c")], ..Call::get("/version") };
            let called = cluster.block_on(cluster.call(&call, Instant::now() + LONG));
            assert_eq!(called.unwrap().status, 200);
        }
        assert_eq!(server.join().unwrap(), ["/k8s/clusters/c-1/version?a=b%20c"; 3]);
    }

    #[test]
    fn a_connection_that_the_server_has_closed_meanwhile_costs_no_call() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clusters = Clusters::new().unwrap();
        let cluster = cluster(&clusters, &listener, "");
        // At the first meeting the call is over, at the second the connection is closed.
        let (meet, met) = crossbeam_channel::bounded(0);
        let server = thread::spawn(move || {
            for _ in 0..50 {
                let (stream, _) = listener.accept().unwrap();
                assert_eq!(request(&stream), "/version");
                answer(&stream);
                meet.send(()).unwrap();
                drop(stream);
                meet.send(()).unwrap();
            }
        });
        for _ in 0..50 {
            let call = Call::get("/version");
            let called = cluster.block_on(cluster.call(&call, Instant::now() + LONG));
            assert_eq!(called.unwrap().status, 200);
            met.recv().unwrap();
            met.recv().unwrap();
        }
        server.join().unwrap();
    }

    #[test]
    fn a_token_that_cannot_be_had_anew_has_the_credentials_read_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clusters = Clusters::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let answers = dir.path().join("answer");
        let says = |status: serde_json::Value| {
            let answer = serde_json::json!({
                "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
                "status": status,
            });
            fs::write(&answers, answer.to_string()).unwrap();
        };
        let user = format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, \
             args: ['{}'], interactiveMode: Never}}}}",
            answers.display()
        );
        let cluster = cluster_as(&clusters, &listener, "", dir.path(), &user);
        let server = thread::spawn(move || {
            for _ in 0..2 {
                let (stream, _) = listener.accept().unwrap();
                request(&stream);
                answer_once(&stream);
            }
        });
        let call = || {
            let call = Call::get("/version");
            cluster.block_on(cluster.call(&call, Instant::now() + LONG)).map(|reply| reply.status)
        };
        says(serde_json::json!({"token": "a", "expirationTimestamp": "2020-01-01T00:00:00Z"}));
        assert_eq!(call(), Ok(200));
        // One without an end cannot take the place of one with an end.
        says(serde_json::json!({"token": "b"}));
        assert!(matches!(call(), Err(Trouble::Access { .. })));
        assert_eq!(call(), Ok(200));
        server.join().unwrap();
    }

    #[test]
    fn whoever_waits_for_an_answer_holds_up_no_other_call() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clusters = Clusters::new().unwrap();
        let cluster = cluster(&clusters, &listener, "");
        let (came, has_come) = crossbeam_channel::bounded(0);
        let server = thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().map(Result::unwrap) {
                match request(&stream).as_str() {
                    "/held" => {
                        held.push(stream);
                        came.send(()).unwrap();
                    }
                    "/quick" => answer_once(&stream),
                    _ => break,
                }
            }
            held.iter().for_each(answer_once);
        });
        let get = |path: &str| {
            let call = Call::get(path);
            cluster.block_on(cluster.call(&call, Instant::now() + LONG)).map(|reply| reply.status)
        };
        thread::scope(|scope| {
            // The first does the work of all, the second is in line for it.
            let waiting = [(); 2].map(|()| {
                let waiting = scope.spawn(|| get("/held"));
                has_come.recv().unwrap();
                waiting
            });
            for _ in 0..3 {
                assert_eq!(get("/quick"), Ok(200));
            }
            assert!(get("/end").is_err(), "the server ends without an answer");
            for waiting in waiting {
                assert_eq!(waiting.join().unwrap(), Ok(200));
            }
        });
        server.join().unwrap();
    }

    #[test]
    fn a_task_of_its_own_may_be_the_last_to_let_go_of_a_cluster() {
        let clusters = Clusters::new().unwrap();
        let cluster = clusters.at(ClusterAccess::default());
        let (gate, opened) = tokio::sync::oneshot::channel::<()>();
        let held = Arc::clone(&cluster);
        let (done, ended) = crossbeam_channel::bounded(1);
        cluster.spawn(async move {
            let _ = opened.await;
            // A panic takes the sender with it.
            drop(held);
            let _ = done.send(());
        });
        drop((clusters, cluster));
        gate.send(()).unwrap();
        assert_eq!(ended.recv(), Ok(()));
    }
}
