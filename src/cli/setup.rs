//! From the checked configuration to the parts that are started.

use std::sync::Arc;

use anyhow::{Context, Result};
use crossbeam_channel::Sender;

use crate::cli::exit::Refused;
use crate::config::{Config, SinkKind, SinkSettings};
use crate::intake::Rules;
use crate::model::Record;
use crate::pipeline::{Claimant, InboxOptions, Leadership, Live, Options, Source, Until};
use crate::processor::Settings;
use crate::schema::{NameRule, Schema};
use crate::sink::cluster::Clusters;
use crate::sink::exec::Exec;
use crate::sink::git::Git;
use crate::sink::kubectl::Kubectl;
use crate::sink::kubernetes::Kubernetes;
use crate::sink::package::Package;
use crate::sink::porch::Porch;
use crate::sink::stdout::Stdout;
use crate::sink::{self, Sink};
use crate::{compose, config, sys};

/// Prepares the process for long or hostile work, before any thread is started.
pub fn harden() -> Result<()> {
    sys::ignore_signals().context("ignore signals")?;
    // Every mode is given where a file is made; a strict mask would take rights away from readers.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

/// A setting that only shows to be wrong when it is used.
pub fn refused(what: &str, source: anyhow::Error) -> anyhow::Error {
    Refused { what: what.to_owned(), source }.into()
}

/// What documents are judged by.
pub fn rules(config: &Config) -> Result<Rules> {
    let schema = match &config.schema {
        None => Schema::builtin(),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| {
                refused(&format!("read site schema `{}`", path.display()), source.into())
            })?;
            Schema::with_site(&text)
                .with_context(|| format!("use site schema `{}`", path.display()))?
        }
    };
    Ok(Rules {
        schema,
        policy: config.policy.clone(),
        names: NameRule::new(&config.intake.patterns).context("use `intake.patterns`")?,
        owners: config.intake.owners.clone(),
        size_bytes_max: config.intake.size_bytes_max,
    })
}

/// What packages are composed and delivered by, for a process that goes on.
pub fn settings(config: &Config) -> Result<Settings> {
    if let Some(template) = &config.compose.deployment_template {
        compose::check_template(template).context("use `compose.deployment_template`")?;
    }
    Ok(Settings {
        compose: config.compose.clone(),
        retry: config.retry,
        breaker: config.breaker,
        outages_count: false,
    })
}

/// The parts that a reload swaps; `outages_count` where the command has to end although a target
/// cannot be reached.
pub fn live(config: &Config, outages_count: bool) -> Result<Arc<Live>> {
    let settings = Settings { outages_count, ..settings(config)? };
    Ok(Arc::new(Live::new(rules(config)?, settings)))
}

/// The inbox as a source of documents.
pub fn inbox(config: &Config, until: Until) -> Source {
    Source::Inbox(InboxOptions {
        path: config.layout.inbox.clone(),
        rescan: config.watch.rescan,
        poll_interval: config.watch.poll_interval,
        poll: config.watch.poll,
        until,
    })
}

/// What the stages need besides the leadership; `records` gets every final record.
pub fn options(
    config: &Config,
    leadership: &Leadership,
    records: Option<Sender<Vec<Record>>>,
) -> Options {
    Options {
        workers: config.intake.workers,
        leases: config.settle_lease && leadership.spool.leases_work(),
        quiet: config.settle_quiet,
        rates: config
            .sinks
            .iter()
            .filter_map(|sink| Some((sink.name.clone(), sink.rate?)))
            .collect(),
        records,
    }
}

/// Everything that is needed to take the lead.
pub fn claimant(config: &Config) -> Result<Claimant> {
    let mut clusters = None;
    let mut open = |sink| open_sink(config, sink, &mut clusters);
    let claimant = Claimant {
        state_dir: config.state_dir.clone(),
        layout: config.layout.clone(),
        sinks: config.sinks.iter().map(&mut open).collect::<Result<_>>()?,
        accept_restored_ledger: config.accept_restored_ledger,
        allow_network_filesystem: config.allow_network_filesystem,
    };
    claimant.prepare()?;
    Ok(claimant)
}

/// The clusters of the process, started when the first sink asks for one.
pub fn clusters(clusters: &mut Option<Clusters>) -> Result<&Clusters> {
    if clusters.is_none() {
        *clusters = Some(Clusters::new().context("start the threads that call API servers")?);
    }
    Ok(clusters.as_ref().expect("they were just started"))
}

/// Opens a sink as a start would.
pub fn open_sink(
    config: &Config,
    settings: &SinkSettings,
    clusters: &mut Option<Clusters>,
) -> Result<Box<dyn Sink>> {
    let name = settings.name.clone();
    let opened = || format!("open sink `{}`", settings.name);
    Ok(match &settings.kind {
        SinkKind::Package { dir } => Box::new(Package::open(name, dir).with_context(opened)?),
        SinkKind::Stdout { format } => {
            let format = match format {
                config::StdoutFormat::Yaml => sink::stdout::Format::Yaml,
                config::StdoutFormat::Json => sink::stdout::Format::Json,
            };
            Box::new(Stdout::new(name, format, std::io::stdout()))
        }
        SinkKind::Exec { command, dir, timeout } => {
            let scratch = config.state_dir.join("exec").join(&settings.name);
            Box::new(Exec::new(name, command, dir, *timeout, &scratch).with_context(opened)?)
        }
        SinkKind::Git(git) => {
            let dir = config.state_dir.join("git").join(&settings.name);
            Box::new(Git::new(name, git, &dir).map_err(|error| refused(&opened(), error.into()))?)
        }
        SinkKind::Kubernetes(kubernetes) => {
            let clusters = self::clusters(clusters).with_context(opened)?;
            let cluster = clusters.at(kubernetes.access.clone());
            Box::new(Kubernetes::new(name, kubernetes, cluster))
        }
        SinkKind::Kubectl(kubectl) => {
            let cache = config.state_dir.join("kubectl").join(&settings.name);
            let kubectl = Kubectl::new(name, kubectl, Some(cache));
            Box::new(kubectl.map_err(|error| refused(&opened(), error.into()))?)
        }
        SinkKind::Porch(porch) => {
            let clusters = self::clusters(clusters).with_context(opened)?;
            let porch = Porch::new(name, porch, clusters);
            Box::new(porch.map_err(|error| refused(&opened(), error.into()))?)
        }
    })
}
