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

/// What packages are composed and delivered by.
pub fn settings(config: &Config) -> Result<Settings> {
    if let Some(template) = &config.compose.deployment_template {
        compose::check_template(template).context("use `compose.deployment_template`")?;
    }
    Ok(Settings { compose: config.compose.clone(), retry: config.retry })
}

/// The parts that a reload swaps.
pub fn live(config: &Config) -> Result<Arc<Live>> {
    Ok(Arc::new(Live::new(rules(config)?, settings(config)?)))
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
        records,
    }
}

/// Everything that is needed to take the lead.
pub fn claimant(config: &Config) -> Result<Claimant> {
    let clusters = Clusters::new().context("start what calls API servers")?;
    let open = |sink| open_sink(config, &clusters, sink);
    let claimant = Claimant {
        state_dir: config.state_dir.clone(),
        layout: config.layout.clone(),
        sinks: config.sinks.iter().map(open).collect::<Result<_>>()?,
        accept_restored_ledger: config.accept_restored_ledger,
        allow_network_filesystem: config.allow_network_filesystem,
    };
    claimant.prepare()?;
    Ok(claimant)
}

fn open_sink(
    config: &Config,
    clusters: &Clusters,
    settings: &SinkSettings,
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
        SinkKind::Kubernetes(_) => anyhow::bail!("kubernetes"),
        SinkKind::Kubectl(_) => anyhow::bail!("kubectl"),
        SinkKind::Porch(porch) => {
            let porch = Porch::new(name, porch, clusters);
            Box::new(porch.map_err(|error| refused(&opened(), error.into()))?)
        }
    })
}
