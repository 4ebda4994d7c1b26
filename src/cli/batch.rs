//! `batch`: the same path as `run`, once.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, at, bounded, never, select};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::info;

use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::output::{self, Records};
use crate::cli::supervise::{Next, Supervisor};
use crate::cli::{inputs, setup};
use crate::compose::compose;
use crate::config::{Config, Loaded, SinkKind};
use crate::fault;
use crate::leader::{Attempt, Holder};
use crate::ledger::Reader;
use crate::limits::{GROUPS_SHOWN_MAX, LOOK_MAX};
use crate::model::{FileName, Mode, Record};
use crate::pipeline::signals;
use crate::pipeline::{self, Event, Live, Operand, Source, Until};
use crate::telemetry;

pub fn run(common: &Common, loaded: Loaded, operands: &[PathBuf]) -> Result<Exit> {
    setup::harden()?;
    let config = &loaded.config;
    // What happens to each document is the output; the log is for what goes wrong.
    let level = if config.log_level == "info" { "warn" } else { &config.log_level };
    telemetry::init(level, &config.log_format)
        .map_err(|source| setup::refused("set up the log", source.into()))?;
    let live = setup::live(config, true)?;
    let documents = inputs::expand(operands, &live.rules().names)?;
    if common.dry_run {
        return dry_run(config, &live, operands, documents);
    }
    let (events, heard) = pipeline::events();
    signals::listen(events.clone())?;
    let claimant = setup::claimant(config)?;
    let lock = match claimant.attempt(pipeline::now())? {
        Attempt::Held(lock) => lock,
        Attempt::Busy(holder) => {
            let holder = Holder::shown(holder.as_ref());
            let _ = writeln!(io::stderr(), "intentd: the lock is held by {holder}");
            return Ok(Exit::Held);
        }
    };
    let leadership = claimant.lead(lock)?;
    let epoch = leadership.lead.epoch;
    let expected = (!operands.is_empty()).then_some(documents.len());
    let source = match expected {
        Some(_) => Source::Operands(documents),
        None => setup::inbox(config, Until::Drained),
    };
    let (records, finished) = bounded(GROUPS_SHOWN_MAX);
    let options = setup::options(config, &leadership, Some(records));
    let running = pipeline::start(leadership, source, live, options, &events)?;
    let report = Report::new(common, config, epoch, expected);
    listen(Supervisor::new(running, config.drain), report, &heard, &finished)?
        .end(&config.state_dir.join("ledger.db"))
}

/// Reports records as they come, until the stages have ended or the time for that is over.
fn listen(
    mut supervisor: Supervisor,
    mut report: Report,
    heard: &Receiver<Event>,
    finished: &Receiver<Vec<Record>>,
) -> Result<Report> {
    loop {
        let deadline = supervisor.deadline().map_or_else(never, at);
        select! {
            recv(finished) -> record => match record {
                Ok(records) => report.take(&records)?,
                // The shelf is closed; how it went, the events tell.
                Err(_) => match supervisor.hear(heard.recv()?, true)? {
                    Next::End => break,
                    next => report.hear(next),
                },
            },
            recv(heard) -> event => match supervisor.hear(event?, true)? {
                Next::End => break,
                next => report.hear(next),
            },
            recv(deadline) -> _ => {
                supervisor.give_up()?;
                break;
            }
        }
    }
    for records in finished.try_iter() {
        report.take(&records)?;
    }
    Ok(report)
}

/// What this run has to say: of its own documents only.
struct Report {
    records: Option<Records<BufWriter<io::Stdout>>>,
    bar: ProgressBar,
    quiet: bool,
    epoch: u64,
    /// How many operands there are; an inbox has as many as it has.
    expected: Option<usize>,
    counts: BTreeMap<&'static str, usize>,
    refused: bool,
}

impl Report {
    fn new(common: &Common, config: &Config, epoch: u64, expected: Option<usize>) -> Self {
        let prints = |kind: &SinkKind| matches!(kind, SinkKind::Stdout { .. });
        let stdout_is_taken = config.sinks.iter().any(|sink| prints(&sink.kind));
        let format = common.output.unwrap_or(Format::Table);
        let silent = stdout_is_taken || (common.quiet && common.output.is_none());
        let bar = match expected {
            Some(count) => ProgressBar::new(count as u64),
            None => ProgressBar::no_length(),
        };
        if common.quiet || !output::is_watched() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} intents, {elapsed}") {
            bar.set_style(style);
        }
        Report {
            records: (!silent).then(|| Records::new(BufWriter::new(io::stdout()), format)),
            bar,
            quiet: common.quiet,
            epoch,
            expected,
            counts: BTreeMap::new(),
            refused: false,
        }
    }

    /// A record that was left by an earlier leader is finished, but is not ours to report.
    fn is_ours(&self, record: &Record) -> bool {
        record.epoch == self.epoch && record.mode == Mode::Batch
    }

    fn take(&mut self, records: &[Record]) -> Result<()> {
        records.iter().try_for_each(|record| self.take_one(record))
    }

    fn take_one(&mut self, record: &Record) -> Result<()> {
        if !self.is_ours(record) {
            info!(seq = record.seq.0, "finished what an earlier run had left");
            return Ok(());
        }
        *self.counts.entry(record.outcome.as_str()).or_default() += 1;
        self.refused |= !record.outcome.is_success();
        self.bar.inc(1);
        if let Some(records) = &mut self.records {
            fault::step("output.record", || self.bar.suspend(|| records.print(record)))?;
        }
        Ok(())
    }

    fn hear(&self, next: Next) {
        let Next::StillWritten(names) = next else { return };
        for name in names {
            let _ = writeln!(io::stderr(), "intentd: `{name}` is still being written; it stays");
        }
    }

    /// Prints what is left to print; what was accepted and has no outcome yet counts as refused.
    fn end(mut self, ledger: &std::path::Path) -> Result<Exit> {
        self.bar.finish_and_clear();
        let reader = Reader::open(ledger).context("look for what is pending")?;
        let mut pending = Vec::new();
        reader.pending(|record| {
            if self.is_ours(&record) {
                pending.push(record);
            }
            true
        })?;
        self.take(&pending)?;
        if let Some(records) = self.records.take() {
            records.finish()?;
        }
        let total: usize = self.counts.values().sum();
        let untaken = self.expected.map_or(0, |expected| expected.saturating_sub(total));
        if !self.quiet {
            let mut parts: Vec<String> =
                self.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
            if untaken > 0 {
                parts.push(format!("{untaken} not taken"));
            }
            let parts =
                if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
            let intents = if total == 1 { "intent" } else { "intents" };
            let _ = writeln!(io::stderr(), "{total} {intents}{parts}");
        }
        Ok(if self.refused || untaken > 0 { Exit::Refused } else { Exit::Done })
    }
}

/// Judges and composes, and prints what would be delivered; takes no lock and leaves no trace.
fn dry_run(
    config: &Config,
    live: &Live,
    operands: &[PathBuf],
    mut documents: Vec<Operand>,
) -> Result<Exit> {
    let (rules, settings) = (live.rules(), live.settings());
    if operands.is_empty() && config.layout.inbox.is_dir() {
        documents = inputs::expand(std::slice::from_ref(&config.layout.inbox), &rules.names)?;
        documents.truncate(LOOK_MAX);
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut exit = Exit::Done;
    for document in documents {
        let file: FileName = document.file();
        let composed = document
            .read(rules.size_bytes_max)
            .and_then(|bytes| rules.schema.judge(&bytes, &rules.policy))
            .and_then(|intent| compose(&intent, &settings.compose));
        match composed {
            Ok(package) => {
                for part in &package.files {
                    write!(out, "---\n# {}/{}\n{}", package.name, part.name, part.text)?;
                }
            }
            Err(rejection) => {
                exit = Exit::Refused;
                let (code, message) = (rejection.code, rejection.message);
                let _ = writeln!(io::stderr(), "intentd: {file}: {code}: {message}");
            }
        }
    }
    out.flush()?;
    Ok(exit)
}
