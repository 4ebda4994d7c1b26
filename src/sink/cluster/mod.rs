//! The way to a cluster's API server, shared by all sinks that talk to the same one.
//!
//! One client and one connection pool for each server and credentials in a process; one small
//! runtime for all of them. Nothing here retries on its own account, but for one thing: an answer
//! `401` has had no effect, so credentials are read again from their files and the call is repeated
//! once.
//!
//! Invariants: every call has a time by which it ends; no answer is read beyond a bound; a redirect
//! is never followed, since the credentials would go with it.

mod call;
mod trouble;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, header};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::runtime::Runtime;

use crate::config::ClusterAccess;

pub use call::{Call, Content, Reply, escaped};
pub use trouble::{Cause, Refusal, Trouble};

/// Threads of the runtime: they carry bytes and decide nothing.
const THREADS: usize = 2;

/// How long a connection may take to be made; a firewall that drops packets says nothing.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Who we say we are, in watches too.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("intentd/", env!("CARGO_PKG_VERSION")));

/// All clusters that a process talks to.
#[derive(Debug)]
pub struct Clusters {
    runtime: Arc<Threads>,
    known: Mutex<HashMap<ClusterAccess, Arc<Cluster>>>,
    turns: Arc<Turns>,
}

/// Things of servers that take one writer at a time; as many as sinks are configured.
type Turns = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// The right to write to such a thing, until it is dropped.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Clusters {
    /// Starts the runtime.
    ///
    /// # Errors
    ///
    /// Its threads cannot be started.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("cluster")
            .enable_all()
            .build()?;
        let runtime = Arc::new(Threads(Some(runtime)));
        Ok(Clusters { runtime, known: Mutex::default(), turns: Arc::default() })
    }

    /// The cluster behind these settings. No file is read and nobody is called yet: what is wrong
    /// with them is told by each call, since files may come and go while the process runs.
    pub fn at(&self, access: ClusterAccess) -> Arc<Cluster> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = known.entry(access.clone()).or_insert_with(|| {
            let (runtime, turns) = (Arc::clone(&self.runtime), Arc::clone(&self.turns));
            Arc::new(Cluster { access, runtime, turns, client: Mutex::default() })
        });
        Arc::clone(cluster)
    }
}

/// The runtime. A task of its own may be the last to let go of it, where waiting for its threads
/// would be a panic, so nobody does.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn get(&self) -> &Runtime {
        self.0.as_ref().expect("it is only taken on drop")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// One API server with our credentials there.
pub struct Cluster {
    access: ClusterAccess,
    runtime: Arc<Threads>,
    turns: Arc<Turns>,
    client: Mutex<Client>,
}

/// The client and how often it has been made anew.
#[derive(Default)]
struct Client {
    made: u64,
    kept: Option<kube::Client>,
    /// The server's address, once it is known.
    server: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("access", &self.access).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Runs what calls the server to its end, on this thread. Not to be used inside of a future.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.get().block_on(future)
    }

    /// Starts something that goes on beside the caller until it ends or is aborted.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.get().spawn(future)
    }

    /// Calls the server and waits for the whole answer, until `due` at the latest.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read, the server refuses, or no whole answer came: then nobody
    /// knows whether the call had an effect.
    pub async fn call(&self, call: &Call<'_>, due: Instant) -> Result<Reply, Trouble> {
        let (client, made) = self.client().await?;
        match call::send(&client, call, due).await {
            Err(Trouble::Refused(refusal)) if refusal.status == 401 => {
                self.forget(made);
                let (client, _) = self.client().await?;
                call::send(&client, call, due).await
            }
            Err(trouble @ Trouble::Lost { .. }) => {
                // The files may say something else by now: a new certificate, a new address.
                self.forget(made);
                Err(trouble)
            }
            answered => answered,
        }
    }

    /// The client, for watches; the number tells it from the ones before.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read.
    pub async fn client(&self) -> Result<(kube::Client, u64), Trouble> {
        if let Client { made, kept: Some(client), .. } = &*self.lock() {
            return Ok((client.clone(), *made));
        }
        let config = config(&self.access).await.map_err(|error| Trouble::access(&error))?;
        let address = config.cluster_url.to_string();
        let fresh = kube::Client::try_from(config).map_err(|error| Trouble::access(&error))?;
        let mut client = self.lock();
        let Client { made, kept, server } = &mut *client;
        let client = kept.get_or_insert_with(|| {
            *made += 1;
            *server = address;
            fresh
        });
        Ok((client.clone(), *made))
    }

    /// Waits for the turn at something of the server's that takes one writer at a time. Whoever else
    /// in this process writes to the same thing waits as well, by whatever credentials.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read, or others were at it until `due`.
    pub async fn turn(&self, thing: &str, due: Instant) -> Result<Turn, Trouble> {
        self.client().await?;
        let name = format!("{} {thing}", self.lock().server);
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
        let mut client = self.lock();
        if client.made == made {
            client.kept = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there are no usable settings.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("use the kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("use the service account of this pod")]
    InCluster(#[from] kube::config::InClusterError),
}

async fn config(access: &ClusterAccess) -> Result<Config, Error> {
    let options =
        KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let found = match &access.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path)?),
        None => Kubeconfig::from_env()?,
    };
    let mut config = match found {
        Some(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await?,
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Config::incluster()?,
        None => Config::from_kubeconfig(&options).await?,
    };
    // Ours is the only retry there is: kube's own would go on for hours.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_MAX);
    config.headers.push((header::USER_AGENT, USER_AGENT));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

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
