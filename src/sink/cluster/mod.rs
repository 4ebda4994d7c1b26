//! The way to a cluster's API server, shared by all sinks that talk to the same one.
//!
//! One client and one connection pool for each server and credentials in a process; one small
//! runtime for all of them. Nothing here retries on its own account, but for one thing: an answer
//! `401` has had no effect, so credentials are read again from their files and the call is repeated
//! once.
//!
//! Invariants: every call has a time by which it ends; no answer is read beyond a bound; a redirect
//! is never followed, since the credentials would go with it.

mod access;
mod call;
mod trouble;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::runtime::Runtime;

use crate::config::ClusterAccess;

pub use call::{Call, Content, Reply, escaped};
pub use trouble::{Cause, Refusal, Trouble};

/// Threads of the runtime: one, which carries bytes and decides nothing. More of them only wake each
/// other.
const THREADS: usize = 1;

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
    /// Its thread cannot be started.
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
            let (client, reading) = (Arc::default(), Arc::default());
            Arc::new(Cluster { access, runtime, turns, client, reading })
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
    client: Arc<Mutex<Client>>,
    /// One reads the credentials at a time: a plugin that hangs, hangs once.
    reading: Arc<tokio::sync::Mutex<()>>,
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
        let (client, made) = self.client(due).await?;
        match call::send(&client, call, due).await {
            Err(Trouble::Refused(refusal)) if refusal.status == 401 => {
                self.forget(made);
                let (client, _) = self.client(due).await?;
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

    /// The client; the number tells it from the ones before.
    ///
    /// # Errors
    ///
    /// The credentials cannot be read, or not until `due`.
    pub async fn client(&self, due: Instant) -> Result<(kube::Client, u64), Trouble> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        tokio::time::timeout_at(due.into(), self.made()).await.unwrap_or_else(|_| {
            let said = "the credentials were not to be had in time".to_owned();
            Err(Trouble::Access { said })
        })
    }

    /// The client for watches and their lists, no answer of which is read beyond a bound; to be called
    /// by what was spawned.
    ///
    /// # Errors
    ///
    /// As for [`Cluster::client`].
    pub async fn watching(&self, due: Instant) -> Result<(kube::Client, u64), Trouble> {
        let (client, made) = self.client(due).await?;
        Ok((call::bounded(client), made))
    }

    fn kept(&self) -> Option<(kube::Client, u64)> {
        let client = self.lock();
        client.kept.clone().map(|kept| (kept, client.made))
    }

    /// Makes the client on a thread of its own: a credential plugin is waited for there.
    async fn made(&self) -> Result<(kube::Client, u64), Trouble> {
        let turn = Arc::clone(&self.reading).lock_owned().await;
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let (access, runtime) = (self.access.clone(), self.runtime.get().handle().clone());
        let slot = Arc::clone(&self.client);
        // It is kept also where nobody waits any more.
        let read = move || {
            let _turn = turn;
            let (fresh, address) = runtime.block_on(access::client(&access))?;
            let mut client = slot.lock().unwrap_or_else(PoisonError::into_inner);
            client.made += 1;
            client.server = address;
            client.kept = Some(fresh.clone());
            Ok((fresh, client.made))
        };
        self.runtime.get().spawn_blocking(read).await.unwrap_or_else(|_| {
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
        self.client(due).await?;
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
