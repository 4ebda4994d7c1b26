//! The configuration: written in layers, checked once, then plain data for everybody else.
//!
//! Invariant: what is out of range or unknown is refused, with its place and a suggestion; nothing
//! is ever clamped.
//! Not here: what the settings mean for threads and sinks (`cli::setup`).

mod key;
mod layer;
mod show;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layer::Origin;
pub use show::{markdown_table, schema};

use crate::compose;
use crate::config::key::{KEYS, SINK_KEYS, find};
use crate::config::layer::{Layers, Placed, sink_keys};
use crate::config::value::{Form, Value};
use crate::model::Layout;
use crate::retry;
use crate::schema::{Glob, Policy, ReplicaBound};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read configuration `{path}`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}:{line}: not TOML: {message}")]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{origin}: there is no key `{key}`{}", hint(nearest.as_deref()))]
    Unknown { key: String, origin: Origin, nearest: Option<String> },
    #[error("{origin}: `{key}` has to be {expected}")]
    Value { key: String, origin: Origin, expected: String },
    #[error("{}sink `{sink}` is of no known type (`{kind}`); there are {}", place(origin.as_ref()), sink_types())]
    SinkType { sink: String, kind: String, origin: Option<Origin> },
    #[error("sink `{sink}` needs `{key}`")]
    SinkNeeds { sink: String, key: &'static str },
    #[error("{origin}: `{first}` must not be above `{second}`")]
    Order { first: &'static str, second: &'static str, origin: Origin },
    #[error("there is no user `{user}` ({origin})")]
    User { user: String, origin: Origin },
    #[error("no home directory: set `$HOME`, or name `spool` and `state_dir`")]
    NoHome,
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |nearest| format!("; did you mean `{nearest}`?"))
}

fn place(origin: Option<&Origin>) -> String {
    origin.map_or(String::new(), |origin| format!("{origin}: "))
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
#[derive(Clone, Debug)]
pub struct SinkSettings {
    pub name: String,
    pub kind: SinkKind,
}

#[derive(Clone, Debug)]
pub enum SinkKind {
    Package { dir: PathBuf },
    Stdout { format: StdoutFormat },
    Exec { command: Vec<String>, dir: PathBuf, timeout: Duration },
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
        if format!("{:?}", self.config.sinks) != format!("{:?}", newer.config.sinks) {
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
    let file = named.clone().or_else(|| places.config.clone());
    if let Some(file) = file {
        if named.is_some() || file.exists() {
            layers.add_file(&file)?;
        }
        layers.add_directory(&file.parent().unwrap_or(Path::new(".")).join("conf.d"))?;
    }
    layers.add_environment(environment)?;
    for (path, value) in &overrides.values {
        layers.add_flag(path, value)?;
    }
    let warnings = std::mem::take(&mut layers.warnings);
    places.fill(&mut layers)?;
    let config = check(&layers, overrides)?;
    Ok(Loaded { config, warnings, layers })
}

/// Where things lie by default: for a system service, or for a user.
struct Places {
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    spool: Option<PathBuf>,
}

impl Places {
    /// A system service is what systemd has given a state directory, or what runs as root.
    fn of(environment: &BTreeMap<String, String>, is_root: bool) -> Self {
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        if let Some(state) = variable("STATE_DIRECTORY").or(is_root.then_some(&String::new())) {
            let state = match state.split(':').next() {
                Some(first) if !first.is_empty() => PathBuf::from(first),
                _ => PathBuf::from("/var/lib/intentd"),
            };
            return Places {
                config: Some("/etc/intentd/intentd.toml".into()),
                state_dir: Some(state),
                spool: Some("/var/spool/intentd".into()),
            };
        }
        let below_home = |name: &str, rest: &str| {
            variable(name)
                .map(PathBuf::from)
                .or_else(|| variable("HOME").map(|home| Path::new(home).join(rest)))
                .map(|base| base.join("intentd"))
        };
        let state_dir = below_home("XDG_STATE_HOME", ".local/state");
        Places {
            config: below_home("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("intentd.toml")),
            spool: state_dir.as_ref().map(|dir| dir.join("spool")),
            state_dir,
        }
    }

    fn fill(self, layers: &mut Layers) -> Result<(), Error> {
        let mut fill = |path: &'static str, place: Option<PathBuf>| {
            if layers.values.contains_key(path) {
                return Ok(());
            }
            let place = place.ok_or(Error::NoHome)?;
            let value = Value::Text(place.to_string_lossy().into_owned());
            layers.values.insert(path, (value, Origin::Default));
            Ok(())
        };
        fill("state_dir", self.state_dir)?;
        fill("spool", self.spool)?;
        let spool = PathBuf::from(text(layers, "spool").expect("it was filled just now"));
        for part in ["inbox", "work", "processed", "failed", "status", "packages"] {
            let place = Value::Text(spool.join(part).to_string_lossy().into_owned());
            layers.values.entry(part).or_insert((place, Origin::Default));
        }
        Ok(())
    }
}

fn check(layers: &Layers, overrides: &Overrides) -> Result<Config, Error> {
    let path = |key: &str| PathBuf::from(text(layers, key).unwrap_or_default());
    let retry = retry::Policy {
        budget: time(layers, "retry.budget"),
        first: time(layers, "retry.first"),
        max: time(layers, "retry.max"),
    };
    if retry.first > retry.max {
        return Err(order(layers, "retry.first", "retry.max"));
    }
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Config {
        layout: Layout {
            inbox: path("inbox"),
            work: path("work"),
            processed: path("processed"),
            failed: path("failed"),
            status: path("status"),
            marker: path("spool").join(".intentd"),
        },
        state_dir: path("state_dir"),
        sinks: sinks(layers)?,
        schema: text(layers, "schema").map(PathBuf::from),
        log_level: text(layers, "log_level").unwrap_or_default(),
        log_format: text(layers, "log_format").unwrap_or_default(),
        accept_restored_ledger: overrides.accept_restored_ledger,
        allow_network_filesystem: is_set(layers, "allow_network_filesystem"),
        drain: time(layers, "drain"),
        intake: Intake {
            size_bytes_max: number(layers, "intake.size_bytes_max").unwrap_or_default(),
            owners: owners(layers)?,
            patterns: list(layers, "intake.patterns"),
            workers: number(layers, "intake.workers").map_or(workers, |count| count as usize),
        },
        settle_lease: is_set(layers, "settle.lease"),
        settle_quiet: time(layers, "settle.quiet"),
        watch: Watch {
            poll: is_set(layers, "watch.poll"),
            poll_interval: time(layers, "watch.poll_interval"),
            rescan: time(layers, "watch.rescan"),
        },
        policy: policy(layers)?,
        compose: compose_settings(layers)?,
        retry,
    })
}

fn compose_settings(layers: &Layers) -> Result<compose::Settings, Error> {
    let template = text(layers, "compose.deployment_template").map(PathBuf::from);
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
    };
    Ok(compose::Settings {
        deployment_image: text(layers, "compose.deployment_image"),
        deployment_template: template.map(read).transpose()?,
    })
}

fn policy(layers: &Layers) -> Result<Policy, Error> {
    let glob = |key: &'static str, text: &str| {
        text.parse::<Glob>().map_err(|error| Error::Value {
            key: key.to_owned(),
            origin: origin(layers, key),
            expected: error.to_string(),
        })
    };
    let globs = |key: &'static str| {
        list(layers, key).iter().map(|text| glob(key, text)).collect::<Result<Vec<_>, _>>()
    };
    let count = |key| number(layers, key).map(|count| count as u32);
    let mut replica_bounds = Vec::new();
    if let Some((Value::Bounds(bounds), _)) = layers.values.get("policy.bounds") {
        for bound in bounds {
            replica_bounds.push(ReplicaBound {
                namespace: glob("policy.bounds", &bound.namespace)?,
                target: glob("policy.bounds", &bound.target)?,
                min: bound.min,
                max: bound.max,
            });
        }
    }
    let (min, max) = (count("policy.replicas_min"), count("policy.replicas_max"));
    if min > max && max.is_some() {
        return Err(order(layers, "policy.replicas_min", "policy.replicas_max"));
    }
    Ok(Policy {
        allowed_namespaces: globs("policy.allowed_namespaces")?,
        denied_namespaces: globs("policy.denied_namespaces")?,
        allowed_targets: globs("policy.allowed_targets")?,
        denied_targets: globs("policy.denied_targets")?,
        replicas_min: min,
        replicas_max: max,
        replica_bounds,
    })
}

fn sinks(layers: &Layers) -> Result<Vec<SinkSettings>, Error> {
    let mut sinks = Vec::<SinkSettings>::new();
    for name in list(layers, "sink") {
        if sinks.iter().any(|sink| sink.name == name) {
            continue;
        }
        let empty = BTreeMap::new();
        let table = layers.sinks.get(&name).unwrap_or(&empty);
        let kind = sink_kind(layers, &name, table)?;
        sinks.push(SinkSettings { name, kind });
    }
    if sinks.is_empty() {
        let expected = "at least one name".to_owned();
        return Err(Error::Value { key: "sink".into(), origin: origin(layers, "sink"), expected });
    }
    Ok(sinks)
}

fn sink_kind(
    layers: &Layers,
    name: &str,
    table: &BTreeMap<String, Placed>,
) -> Result<SinkKind, Error> {
    let kind = match table.get("type") {
        Some((Value::Text(kind), _)) => kind.as_str(),
        _ => name,
    };
    let keys = sink_keys(kind).ok_or_else(|| {
        let origin = Some(origin(layers, "sink"));
        Error::SinkType { sink: name.to_owned(), kind: kind.to_owned(), origin }
    })?;
    let value = |key: &str| {
        let declared = keys.iter().find(|it| it.path == key)?;
        let set = table.get(key).map(|(value, _)| value.clone());
        set.or_else(|| (!declared.default.is_empty()).then(|| layer::default_of(declared)))
    };
    let path = |key: &str, default: &Path| match value(key) {
        Some(Value::Text(path)) => PathBuf::from(path),
        _ => default.to_owned(),
    };
    let spool = PathBuf::from(text(layers, "spool").unwrap_or_default());
    Ok(match kind {
        "stdout" => SinkKind::Stdout {
            format: match value("format") {
                Some(Value::Text(format)) if format == "json" => StdoutFormat::Json,
                _ => StdoutFormat::Yaml,
            },
        },
        "exec" => SinkKind::Exec {
            command: match value("command") {
                Some(Value::List(command)) if !command.is_empty() => command,
                _ => return Err(Error::SinkNeeds { sink: name.to_owned(), key: "command" }),
            },
            dir: path("dir", &spool.join("out")),
            timeout: match value("timeout") {
                Some(Value::Time(timeout)) => timeout,
                _ => crate::limits::DELIVERY_MAX,
            },
        },
        _ => {
            let packages = PathBuf::from(text(layers, "packages").unwrap_or_default());
            // `--packages` and its variable win over the file, as everywhere.
            let flagged = matches!(
                layers.values.get("packages"),
                Some((_, Origin::Flag(_) | Origin::Environment(_)))
            );
            let dir = if flagged && name == "package" { packages } else { path("dir", &packages) };
            SinkKind::Package { dir }
        }
    })
}

/// User ids from numbers, or from names as `/etc/passwd` has them.
fn owners(layers: &Layers) -> Result<Vec<u32>, Error> {
    let named = list(layers, "intake.owners");
    let passwd = match named.iter().all(|user| user.parse::<u32>().is_ok()) {
        true => String::new(),
        false => {
            let path = PathBuf::from("/etc/passwd");
            std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?
        }
    };
    let look_up = |user: &String| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
        line.split(':').nth(2)?.parse().ok()
    };
    named
        .iter()
        .map(|user| {
            user.parse().ok().or_else(|| look_up(user)).ok_or_else(|| Error::User {
                user: user.clone(),
                origin: origin(layers, "intake.owners"),
            })
        })
        .collect()
}

fn order(layers: &Layers, first: &'static str, second: &'static str) -> Error {
    Error::Order { first, second, origin: origin(layers, first) }
}

fn origin(layers: &Layers, key: &str) -> Origin {
    layers.values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
}

fn text(layers: &Layers, key: &str) -> Option<String> {
    debug_assert!(find(key).is_some(), "`{key}` is in the table");
    match layers.values.get(key) {
        Some((Value::Text(text), _)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn list(layers: &Layers, key: &str) -> Vec<String> {
    match layers.values.get(key) {
        Some((Value::List(items), _)) => items.clone(),
        _ => Vec::new(),
    }
}

fn number(layers: &Layers, key: &str) -> Option<u64> {
    match layers.values.get(key) {
        Some((Value::Count(number) | Value::Size(number), _)) => Some(*number),
        _ => None,
    }
}

fn time(layers: &Layers, key: &str) -> Duration {
    match layers.values.get(key) {
        Some((Value::Time(time), _)) => *time,
        _ => Duration::ZERO,
    }
}

fn is_set(layers: &Layers, key: &str) -> bool {
    matches!(layers.values.get(key), Some((Value::Flag(true), _)))
}
