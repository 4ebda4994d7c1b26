//! From the settings to a client: where the server is and who we are there.
//!
//! Invariant: nothing of what is in the files or of what a credential plugin prints is told, since
//! it may be a secret; only where and how it is wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{Full, Limited};
use hyper::body::Incoming;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{AuthError, ConfigExt};
use kube::config::{Config, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use secrecy::ExposeSecret;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder};

use crate::config::ClusterAccess;
use crate::sink::cluster::Trouble;
use crate::sink::cluster::pool::{Exchanges, Pool};
use crate::telemetry::Chain;

/// How long a connection may take to be made; a firewall that drops packets says nothing.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Who we say we are, in watches too.
const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("intentd/", env!("CARGO_PKG_VERSION")));

/// Most of a page of a list, or of a minute of a watch: five hundred objects of 128 KiB, where one
/// has ten or so.
const WATCHED_BYTES_MAX: usize = 64 << 20;

/// Makes an exchange over a connection of a [`Pool`], with our credentials.
pub type Caller = BoxCloneSyncService<Request<Full<Bytes>>, Response<Bytes>, BoxError>;

/// What it takes to call a server.
pub struct Clients {
    /// For requests and their whole answers.
    pub caller: Caller,
    /// For watches and their lists, no answer of which is read beyond a bound.
    pub watcher: kube::Client,
    /// The server's address.
    pub server: String,
}

/// The clients of one server with our credentials. A plugin of the kubeconfig is run and waited for.
///
/// # Errors
///
/// There are no usable credentials.
pub async fn clients(access: &ClusterAccess) -> Result<Clients, Trouble> {
    let config = config(access).await.map_err(|said| Trouble::access(&said))?;
    made(config).map_err(|error| Trouble::access(&words(&error)))
}

/// Two clients, since the connections of each live where it is used.
fn made(config: Config) -> Result<Clients, kube::Error> {
    let mut connector = HttpConnector::new();
    // The layer above it speaks TLS.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let mut connector = TimeoutConnector::new(connector);
    connector.set_connect_timeout(Some(CONNECT_MAX));
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);

    let (auth, headers) = (config.auth_layer()?, config.extra_headers_layer()?);
    let pool = Pool::new(connector.clone(), config.cluster_url.clone());
    let exchanges = Exchanges(Arc::new(pool.map_err(kube::Error::Service)?));
    let caller = ServiceBuilder::new()
        .option_layer(auth.as_ref())
        .layer(&headers)
        .map_err(BoxError::from)
        .service(exchanges);
    let watcher = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(auth.as_ref())
        .layer(&headers)
        .map_response(|response: Response<Incoming>| {
            response.map(|body| Limited::new(body, WATCHED_BYTES_MAX))
        })
        .map_err(BoxError::from)
        .service(Client::builder(TokioExecutor::new()).build(connector));
    Ok(Clients {
        caller: BoxCloneSyncService::new(caller),
        watcher: kube::Client::new(watcher, config.default_namespace),
        server: config.cluster_url.to_string(),
    })
}

/// What an error of the client's about credentials may be told as.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => auth_words(error),
        other => Chain(other).to_string(),
    }
}

/// The same, of the part that gets the credentials.
pub fn auth_words(error: &AuthError) -> String {
    let plugin = |what: String| format!("the credential plugin of the kubeconfig {what}");
    match error {
        // It prints credentials, and its command line may hold some.
        AuthError::AuthExecRun { out, .. } => plugin(format!("failed ({})", out.status)),
        AuthError::AuthExecParse(_) => plugin("gave something else than credentials".to_owned()),
        other => Chain(other).to_string(),
    }
}

async fn config(access: &ClusterAccess) -> Result<Config, String> {
    let options =
        KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let found = match &access.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path)),
        None => Kubeconfig::from_env().transpose(),
    };
    let found = found.transpose().map_err(|error| unusable(&error))?;
    let chosen = async |file: Kubeconfig| Config::from_custom_kubeconfig(file, &options).await;
    let mut config = match found {
        Some(file) => chosen(file).await.map_err(|error| unusable(&error))?,
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => Config::incluster()
            .map_err(|error: InClusterError| {
                format!("use the service account of this pod: {}", Chain(&error))
            })?,
        None => Config::from_kubeconfig(&options).await.map_err(|error| unusable(&error))?,
    };
    if let Some(token) = &config.auth_info.token
        && HeaderValue::from_str(token.expose_secret()).is_err()
    {
        return Err("use the kubeconfig: its token has a line break or another character that no \
                    token has"
            .to_owned());
    }
    if let Some(proxy) = &config.proxy_url {
        let host = proxy.host().unwrap_or_default();
        return Err(format!("go by the proxy `{host}`: proxies are not supported"));
    }
    config.headers.push((header::USER_AGENT, USER_AGENT));
    Ok(config)
}

/// A parser's own sentence quotes the lines around what is wrong.
fn unusable(error: &KubeconfigError) -> String {
    let said = match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(at) => format!("line {}, column {}: it cannot be read", at.line(), at.column()),
            None => "it cannot be read".to_owned(),
        },
        other => Chain(other).to_string(),
    };
    format!("use the kubeconfig: {said}")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::sink::cluster::{Call, Cluster, Clusters};

    const SECRET: &str = "sesame-1234";

    /// A cluster by a kubeconfig whose user is this.
    fn cluster(dir: &Path, user: &str) -> Arc<Cluster> {
        let access = crate::sink::cluster::tests::access(dir, "127.0.0.1:1", user);
        Clusters::new().unwrap().at(access)
    }

    fn plugin(dir: &Path, script: &str) -> String {
        let path = dir.join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        format!(
            "{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {}, args: [{SECRET}], \
             interactiveMode: Never}}}}",
            path.display()
        )
    }

    fn said(cluster: &Cluster, within: Duration) -> String {
        let call = Call::get("/version");
        let called = cluster.block_on(cluster.call(&call, Instant::now() + within));
        called.unwrap_err().fault("call").message
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_wrong_with_credentials_is_told_without_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let fails = plugin(dir, &format!("echo {SECRET}; echo {SECRET} >&2; exit 3"));
        let cases = [
            (SECRET.to_owned(), "use the kubeconfig: line 8, column 9: it cannot be read"),
            (format!("{{token: \"{SECRET}\", tokenFile: [{SECRET}]}}"), "it cannot be read"),
            (format!("{{token: \"{SECRET}\\n\"}}"), "its token has a line break"),
            (fails, "the credential plugin of the kubeconfig failed (exit status: 3)"),
        ];
        for (user, words) in cases {
            let said = said(&cluster(dir, &user), LONG);
            assert!(said.contains(words), "{said}");
            assert!(!said.contains(SECRET), "{said}");
        }
        let user =
            plugin(dir, &format!("echo '{{\"kind\": \"{SECRET}\", \"status\": \"{SECRET}\"}}'"));
        let said = said(&cluster(dir, &user), LONG);
        assert!(said.contains("gave something else than credentials"), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }

    #[test]
    fn a_credential_plugin_that_hangs_is_run_once_and_holds_up_no_call_beyond_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, runs) = (dir.path().join("gate"), dir.path().join("runs"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &gate, mode).unwrap();
        let answer = serde_json::json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": SECRET},
        });
        let (runs_at, gate_at) = (runs.display(), gate.display());
        let script = format!("echo run >>'{runs_at}'\nread go <'{gate_at}'\necho '{answer}'");
        let cluster = cluster(dir.path(), &plugin(dir.path(), &script));
        for _ in 0..2 {
            let said = said(&cluster, Duration::from_millis(500));
            assert_eq!(said, "cannot call: the credentials were not to be had in time");
        }
        assert_eq!(fs::read_to_string(&runs).unwrap().lines().count(), 1);
        // A client runs it several times: for a token, and for a certificate that might be there.
        let mut gate = fs::OpenOptions::new().read(true).write(true).open(&gate).unwrap();
        gate.write_all(&b"go\n".repeat(16)).unwrap();
        let said = said(&cluster, LONG);
        assert!(said.contains("Connection refused"), "its late answer is of use: {said}");
    }
}
