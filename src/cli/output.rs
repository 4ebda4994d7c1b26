//! Records and lists in the forms of `-o`.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::args::Format;
use crate::model::{Record, printable_json, printable_json_lines};

/// Whether the person at the terminal has not asked for plain text.
pub fn colours_are_welcome() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Objects that are printed together at the end, as one document.
#[derive(Debug)]
pub struct List {
    format: Option<Format>,
    items: Vec<Value>,
}

impl List {
    pub fn new(format: Option<Format>) -> Self {
        List { format, items: Vec::new() }
    }

    pub fn push(&mut self, item: &impl Serialize) -> Result<()> {
        self.items.push(serde_json::to_value(item)?);
        Ok(())
    }

    /// Prints what was pushed, if the format is one that waits for the end.
    pub fn finish(self, out: &mut impl Write) -> Result<()> {
        let document = json!({"apiVersion": "intentd/v1", "kind": "List", "items": self.items});
        match self.format {
            Some(Format::Json) => writeln!(out, "{}", printable_json_lines(&document)?)?,
            Some(Format::Yaml) => write!(out, "{}", yaml(&document)?)?,
            _ => {}
        }
        Ok(())
    }
}

fn yaml(document: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    Ok(serde_saphyr::to_string_with_options(document, options)?)
}

/// Prints records as they come.
#[derive(Debug)]
pub struct Records<W: Write> {
    out: W,
    format: Format,
    list: List,
    /// Rows that wait for their neighbours, so that columns line up.
    rows: Vec<Vec<String>>,
    headed: bool,
}

/// Rows that are lined up together; a longer table is lined up in parts.
const ROWS: usize = 200;

impl<W: Write> Records<W> {
    pub fn new(out: W, format: Format) -> Self {
        Records { out, format, list: List::new(Some(format)), rows: Vec::new(), headed: false }
    }

    pub fn print(&mut self, record: &Record) -> Result<()> {
        match self.format {
            Format::Jsonl => {
                writeln!(self.out, "{}", printable_json(record)?)?;
                self.out.flush()?;
            }
            Format::Json | Format::Yaml => self.list.push(record)?,
            Format::Name => writeln!(self.out, "intent/{}", record.seq)?,
            Format::Table | Format::Wide => {
                self.rows.push(row(record, self.format == Format::Wide));
                if self.rows.len() >= ROWS {
                    self.flush_rows()?;
                }
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        self.flush_rows()?;
        self.list.finish(&mut self.out)?;
        self.out.flush()?;
        Ok(())
    }

    fn flush_rows(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        if !self.headed {
            let head: &[&str] = match self.format {
                Format::Wide => WIDE,
                _ => TABLE,
            };
            rows.insert(0, head.iter().map(|name| (*name).to_owned()).collect());
            self.headed = true;
        }
        let columns = rows[0].len();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

const TABLE: &[&str] = &["SEQ", "FILE", "TARGET", "REPLICAS", "OUTCOME", "CODE", "RECEIVED"];
const WIDE: &[&str] =
    &["SEQ", "FILE", "TARGET", "REPLICAS", "OUTCOME", "CODE", "RECEIVED", "SECONDS", "MESSAGE"];

fn row(record: &Record, wide: bool) -> Vec<String> {
    let intent = record.intent.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut row = vec![
        record.seq.to_string(),
        record.file.to_string(),
        or_dash(intent.map(|intent| format!("{}/{}", intent.namespace, intent.target))),
        or_dash(intent.map(|intent| intent.replicas.to_string())),
        record.outcome.as_str().to_owned(),
        or_dash(record.code.map(|code| code.to_string())),
        record.received_at.to_string(),
    ];
    if wide {
        row.push(or_dash(record.end_to_end_seconds.map(|seconds| format!("{seconds:.3}"))));
        row.push(or_dash(record.message.clone()));
    }
    row
}

/// Whether a progress bar would be seen.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
