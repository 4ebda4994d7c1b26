//! `retry`: asks whoever leads to take up parked intents again, or does it where nobody leads.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::output::List;
use crate::cli::setup;
use crate::config::{Config, Loaded};
use crate::leader::{Attempt, Holder, Lock};
use crate::ledger::{Filter, Reader};
use crate::limits::REQUEST_SEQS_MAX;
use crate::model::{Outcome, Retried, Seq, printable_json};
use crate::pipeline;
use crate::request::{Asked, Requests};
use crate::telemetry;
use crate::watch::{Collector, Watch};

/// How often it is looked whether somebody leads: a leader that has died answers no more.
const LOOK: Duration = Duration::from_millis(500);

/// Which intents to retry.
#[derive(Debug)]
pub enum Which {
    Named(Vec<u64>),
    Parked,
}

pub fn run(common: &Common, loaded: &Loaded, which: &Which, timeout: Duration) -> Result<Exit> {
    setup::harden()?;
    let config = &loaded.config;
    // What happens to each intent is the output; the log is for what goes wrong.
    let level = if config.log_level == "info" { "warn" } else { &config.log_level };
    telemetry::init(level, &config.log_format)
        .map_err(|source| setup::refused("set up the log", source.into()))?;
    let seqs = seqs(&config.state_dir.join("ledger.db"), which)?;
    let say = |text: &str| {
        if !common.quiet {
            let _ = writeln!(io::stderr(), "intentd: {text}");
        }
    };
    if seqs.is_empty() {
        say("nothing is parked");
    }
    let requests = Requests::open(&config.state_dir)?;
    let (collector, woken) = Collector::new();
    let _watch = Watch::start(requests.path(), &collector).ok();
    let mut report = Report::new(common.output);
    let mut led = false;
    for part in seqs.chunks(REQUEST_SEQS_MAX) {
        let asked = requests.ask(part)?;
        let start = Instant::now();
        let answers = loop {
            if let Some(answers) = asked.answer()? {
                break answers;
            }
            let Some(holder) = lead(config)? else {
                led = true;
                continue;
            };
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                report.finish()?;
                return Ok(give_up(asked, &holder, timeout));
            }
            // Woken or not: the answer is looked for again.
            let _ = woken.recv_timeout(left.min(LOOK));
        };
        report.take(&answers)?;
    }
    if led && report.retried {
        say("nobody leads: the next `run` or `batch` delivers what is pending again");
    }
    report.finish()
}

/// The intents to retry, by the ledger as it is now.
fn seqs(ledger: &Path, which: &Which) -> Result<Vec<Seq>> {
    let reader = Reader::open(ledger)
        .with_context(|| format!("look for intents in `{}`", ledger.display()))?;
    let mut seqs = Vec::new();
    match which {
        Which::Named(named) => seqs.extend(named.iter().copied().map(Seq)),
        Which::Parked => {
            let filter = Filter { outcome: Some(Outcome::Parked), ..Filter::default() };
            reader.history(&filter, |record| {
                seqs.push(record.seq);
                true
            })?;
        }
    }
    // Across all parts, so that of two on one target the older one comes first.
    seqs.sort_unstable();
    seqs.dedup();
    Ok(seqs)
}

/// Carries out what waits if nobody leads, else says who does.
fn lead(config: &Config) -> Result<Option<String>> {
    let path = config.state_dir.join("leader.lock");
    match Lock::attempt(&path, pipeline::now()).map_err(pipeline::Error::Lock)? {
        Attempt::Busy(holder) => Ok(Some(Holder::shown(holder.as_ref()))),
        Attempt::Held(lock) => {
            pipeline::retry_alone(setup::claimant(config)?.lead(lock)?)?;
            Ok(None)
        }
    }
}

/// Withdraws the request that nobody answers.
fn give_up(asked: Asked, holder: &str, timeout: Duration) -> Exit {
    drop(asked);
    let seconds = timeout.as_secs_f64();
    let _ = writeln!(
        io::stderr(),
        "intentd: the leader ({holder}) has not answered within {seconds} s; the request is withdrawn, \
         and `history` shows what is pending again"
    );
    Exit::Held
}

/// Prints answers as they come.
struct Report {
    out: BufWriter<io::Stdout>,
    format: Option<Format>,
    list: List,
    retried: bool,
    refused: bool,
}

impl Report {
    fn new(format: Option<Format>) -> Self {
        let out = BufWriter::new(io::stdout());
        Report { out, format, list: List::new(format), retried: false, refused: false }
    }

    fn take(&mut self, answers: &[Retried]) -> Result<()> {
        for answer in answers {
            self.retried |= answer.retried;
            self.refused |= !answer.retried;
            match self.format {
                Some(Format::Json | Format::Yaml) => self.list.push(answer)?,
                Some(Format::Jsonl) => writeln!(self.out, "{}", printable_json(answer)?)?,
                Some(Format::Name) if !answer.retried => {}
                Some(Format::Name) => writeln!(self.out, "intent/{}", answer.seq)?,
                _ => writeln!(self.out, "intent {}: {}", answer.seq, answer.message)?,
            }
        }
        Ok(self.out.flush()?)
    }

    fn finish(mut self) -> Result<Exit> {
        self.list.finish(&mut self.out)?;
        self.out.flush()?;
        Ok(if self.refused { Exit::Refused } else { Exit::Done })
    }
}
