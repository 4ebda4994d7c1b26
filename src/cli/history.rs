//! `history`: reads the ledger and nothing else.

use std::io::{self, BufWriter};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::args::Format;
use crate::cli::exit::Exit;
use crate::cli::output::Records;
use crate::config::Loaded;
use crate::ledger::{Filter, Reader};
use crate::model::{Outcome, Timestamp};
use crate::pipeline;

/// What a person wants to see at once.
const NEWEST: u64 = 50;

#[derive(Debug)]
pub struct Query {
    pub limit: Option<u64>,
    pub outcome: Option<Outcome>,
    pub since: Option<Duration>,
}

pub fn run(loaded: &Loaded, output: Option<Format>, query: &Query) -> Result<Exit> {
    let format = output.unwrap_or(Format::Table);
    let path = loaded.config.state_dir.join("ledger.db");
    let reader =
        Reader::open(&path).with_context(|| format!("read the history of `{}`", path.display()))?;
    let newest = match format {
        Format::Table | Format::Wide | Format::Name => Some(query.limit.unwrap_or(NEWEST)),
        Format::Json | Format::Jsonl | Format::Yaml => query.limit,
    };
    let since = query.since.map(|since| Timestamp {
        unix_ms: pipeline::now().unix_ms.saturating_sub(since.as_millis() as i64),
    });
    let filter = Filter { newest, outcome: query.outcome, since };
    let mut records = Records::new(BufWriter::new(io::stdout().lock()), format);
    let mut printed = Ok(());
    reader.history(&filter, |record| {
        printed = records.print(&record);
        printed.is_ok()
    })?;
    printed?;
    records.finish()?;
    Ok(Exit::Done)
}
