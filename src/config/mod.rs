//! The configuration: written in layers, checked once, then plain data for everybody else.
//!
//! Invariant: what is out of range or unknown is refused, with its place and a suggestion; nothing
//! is ever clamped.
//! Not here: what the settings mean for threads and sinks (`cli::setup`).

mod check;
mod key;
mod layer;
mod places;
mod show;
mod sinks;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layer::Origin;
pub use show::{markdown_table, schema};

use crate::breaker;
use crate::compose;
use crate::config::key::{KEYS, SINK_KEYS};
use crate::config::layer::Layers;
use crate::config::places::Places;
use crate::config::value::{Form, Value};
use crate::model::Layout;
use crate::retry;
use crate::schema::Policy;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read configuration `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}:{line}: not TOML: {message}")]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{origin}: there is no key `{key}`{}", hint(nearest.as_deref()))]
    Unknown { key: String, origin: Origin, nearest: Option<String> },
    #[error("{origin}: `{key}` has to be {expected}")]
    Value { key: String, origin: Origin, expected: String },
    #[error("{origin}: sink `{sink}` is of no known type (`{kind}`); there are {}", sink_types())]
    SinkType { sink: String, kind: String, origin: Origin },
    #[error("sink `{sink}` needs `{key}`")]
    SinkNeeds { sink: String, key: &'static str },
    #[error("{origin}: `{first}` must not be above `{second}`")]
    Order { first: &'static str, second: &'static str, origin: Origin },
    #[error("{origin}: there is no user `{user}`")]
    User { user: String, origin: Origin },
    #[error("read the list of users `/etc/passwd`")]
    Users { source: io::Error },
    #[error("read deployment template `{path}`")]
    Template { path: PathBuf, source: io::Error },
    #[error("the variable `{name}` has to be in UTF-8")]
    Variable { name: String },
    #[error("no home directory: set `$HOME`, or name `spool` and `state_dir`")]
    NoHome,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |nearest| format!("; did you mean `{nearest}`?"))
}

fn sink_types() -> String {
    SINK_KEYS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`; it then has to exist.
    pub file: Option<PathBuf>,
    /// Keys of the table and their values.
    pub values: Vec<(&'static str, String)>,
    pub accept_restored_ledger: bool,
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub layout: Layout,
    pub state_dir: PathBuf,
    pub sinks: Vec<SinkSettings>,
    pub schema: Option<PathBuf>,
    pub log_level: String,
    pub log_format: String,
    pub accept_restored_ledger: bool,
    pub allow_network_filesystem: bool,
    pub drain: Duration,
    pub intake: Intake,
    pub settle_lease: bool,
    pub settle_quiet: Duration,
    pub watch: Watch,
    pub policy: Policy,
    pub compose: compose::Settings,
    pub retry: retry::Policy,
    pub breaker: breaker::Policy,
}

#[derive(Clone, Debug)]
pub struct Intake {
    pub size_bytes_max: u64,
    /// User ids; empty means everybody.
    pub owners: Vec<u32>,
    pub patterns: Vec<String>,
    pub workers: usize,
}

#[derive(Clone, Debug)]
pub struct Watch {
    pub poll: bool,
    pub poll_interval: Duration,
    pub rescan: Duration,
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkSettings {
    pub name: String,
    pub kind: SinkKind,
    /// Most deliveries a second, if there is such a bound.
    pub rate: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Package { dir: PathBuf },
    Stdout { format: StdoutFormat },
    Exec { command: Vec<String>, dir: PathBuf, timeout: Duration },
    Git(Box<GitSettings>),
    Kubernetes(Box<KubernetesSettings>),
    Kubectl(Box<KubectlSettings>),
    Porch(Box<PorchSettings>),
}

/// Where a cluster is and who we are there, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterAccess {
    /// `None`: `$KUBECONFIG`, else the cluster that this process runs in, else the home directory's.
    pub kubeconfig: Option<PathBuf>,
    /// `None`: the file's current one.
    pub context: Option<String>,
}

/// A kind with a scale subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As in `apps/v1`.
    pub api_version: String,
    pub kind: String,
    /// The kind's name in addresses.
    pub plural: String,
}

/// What is done where a HorizontalPodAutoscaler targets the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HpaRule {
    Refuse,
    /// Its minimum becomes what is wanted.
    Floor,
    /// What is wanted is kept within its bounds.
    Clamp,
}

/// How much has to be seen before an intent counts as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confirmed {
    /// The server has stored the write.
    Accepted,
    /// The controller has seen it.
    Observed,
    /// All replicas are updated and ready, and there are no others.
    Converged,
}

/// A sink of the type `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    pub access: ClusterAccess,
    pub mode: KubernetesMode,
    pub workload: Workload,
    pub field_manager: String,
    pub force: bool,
    pub hpa: HpaRule,
    pub delivered: Confirmed,
    pub verify_timeout: Duration,
    /// Of one call.
    pub timeout: Duration,
    pub concurrency: usize,
    /// One watch for all namespaces.
    pub whole_cluster: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubernetesMode {
    Scale,
    Ssa,
    NetworkIntent,
}

/// A sink of the type `kubectl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubectlSettings {
    pub access: ClusterAccess,
    pub program: String,
    pub workload: Workload,
    pub hpa: HpaRule,
    pub delivered: Confirmed,
    pub verify_timeout: Duration,
    /// Of one call.
    pub timeout: Duration,
}

/// A sink of the type `porch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PorchSettings {
    pub access: ClusterAccess,
    pub namespace: String,
    pub repository: String,
    pub policy: PorchPolicy,
    /// The package that is edited; packages of our own if there is none.
    pub edit_package: Option<String>,
    /// Of the manifests that are edited.
    pub kind: String,
    /// Value of Nephio's approval annotation.
    pub approval: Option<String>,
    /// Of one call.
    pub timeout: Duration,
}

/// How far a revision is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PorchPolicy {
    Draft,
    Propose,
    Approve,
}

/// A sink of the type `git`, as it is written; what the texts have to look like, the sink knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitSettings {
    pub remote: String,
    pub branch: String,
    /// Change manifests that are there, instead of keeping packages of our own.
    pub edits: bool,
    pub path: String,
    pub kind: String,
    pub author: String,
    pub program: String,
    pub timeout: Duration,
    pub token_file: Option<PathBuf>,
    pub username: String,
    pub ca_file: Option<PathBuf>,
    pub ssh_program: String,
    pub ssh_key: Option<PathBuf>,
    pub known_hosts: Option<PathBuf>,
    pub signing_key: Option<String>,
    pub signing_format: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdoutFormat {
    Yaml,
    Json,
}

/// A configuration with the layers that it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
    layers: Layers,
}

impl Loaded {
    /// Keys whose value differs from `newer` and that a reload does not put in force.
    pub fn changes_for_a_restart(&self, newer: &Loaded) -> Vec<String> {
        let fixed = KEYS.iter().filter(|key| !key.live);
        let value = |layers: &Layers, path| layers.values.get(path).map(|(value, _)| value.clone());
        let mut changed: Vec<String> = fixed
            .filter(|key| value(&self.layers, key.path) != value(&newer.layers, key.path))
            .map(|key| key.path.to_owned())
            .collect();
        if self.config.sinks != newer.config.sinks {
            changed.push("sinks".to_owned());
        }
        changed
    }
}

/// Reads a time with a unit, such as `15m`.
pub fn parse_time(text: &str) -> Option<Duration> {
    match (Form::Time { min_ms: 0, max_ms: u64::MAX }).parse(text) {
        Ok(Value::Time(time)) => Some(time),
        _ => None,
    }
}

/// The keys that are also flags, with the flags' names.
pub fn flags() -> Vec<(&'static str, &'static str)> {
    KEYS.iter().filter_map(|key| Some((key.path, key.flag?))).collect()
}

/// The variables that matter here, as text.
///
/// # Errors
///
/// One of them is not UTF-8: to ignore it would be to use another spool than the one that is meant.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, Error> {
    const OTHERS: &[&str] = &["HOME", "STATE_DIRECTORY", "XDG_CONFIG_HOME", "XDG_STATE_HOME"];
    let mut environment = BTreeMap::new();
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("INTENTD_") || OTHERS.contains(&name.as_str()) {
            let Ok(value) = value.into_string() else { return Err(Error::Variable { name }) };
            environment.insert(name, value);
        }
    }
    Ok(environment)
}

/// Reads all layers and checks them.
///
/// # Errors
///
/// A file cannot be read or a setting is refused.
pub fn load(
    overrides: &Overrides,
    environment: &BTreeMap<String, String>,
    is_root: bool,
) -> Result<Loaded, Error> {
    let places = Places::of(environment, is_root);
    let mut layers = Layers::defaults();
    let named =
        overrides.file.clone().or_else(|| environment.get("INTENTD_CONFIG").map(Into::into));
    if let Some(file) = named.as_ref().or(places.config.as_ref()) {
        match layers.add_file(file) {
            Err(Error::Read { source, .. })
                if named.is_none() && source.kind() == io::ErrorKind::NotFound => {}
            read => read?,
        }
        layers.add_directory(&file.parent().unwrap_or(Path::new("")).join("conf.d"))?;
    }
    layers.add_environment(environment)?;
    for (path, value) in &overrides.values {
        layers.add_flag(path, value)?;
    }
    let warnings = std::mem::take(&mut layers.warnings);
    places.fill(&mut layers)?;
    let config = check::check(&layers, overrides)?;
    Ok(Loaded { config, warnings, layers })
}
