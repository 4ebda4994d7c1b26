//! The log: one event a line on stderr, or in the journal, and nothing raw from a stranger in it.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::model::Timestamp;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{filter}` is no log level or filter")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("write to the journal")]
    Journal { source: io::Error },
    #[error("the log was set up already")]
    Twice { source: tracing_subscriber::util::TryInitError },
    #[error("change the log's filter")]
    Reload { source: reload::Error },
}

/// Changes the level of the running log.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Sets the log up for the whole process. `format` is `auto`, `text`, `json` or `journald`.
///
/// # Errors
///
/// The filter is wrong, or there is no journal.
pub fn init(level: &str, format: &str) -> Result<Log, Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let format = match format {
        "auto" if is_journal() => "journald",
        "auto" => "text",
        other => other,
    };
    let layer: Box<dyn Layer<_> + Send + Sync> = match format {
        "journald" => {
            let journal = tracing_journald::layer().map_err(|source| Error::Journal { source })?;
            journal.with_field_prefix(Some("INTENTD".to_owned())).boxed()
        }
        "json" => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_timer(Clock)
            .with_writer(Stderr { escape: Escape::Json })
            .boxed(),
        _ => tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_timer(Clock)
            .with_writer(Stderr { escape: Escape::Text })
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(|source| Error::Twice { source })?;
    Ok(Log { filter: handle })
}

impl Log {
    /// Puts another level in force.
    ///
    /// # Errors
    ///
    /// The filter is wrong; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), Error> {
        self.filter.reload(filter(level)?).map_err(|source| Error::Reload { source })
    }
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(level).map_err(|source| Error::Filter { filter: level.to_owned(), source })
}

/// An error with all its sources, for a log line or a message.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Whether stderr is the journal's own stream, as systemd sets it up.
fn is_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    let stderr = io::stderr();
    if stderr.is_terminal() {
        return false;
    }
    rustix::fs::fstat(stderr.as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = Timestamp { unix_ms: jiff::Timestamp::now().as_millisecond() };
        write!(writer, "{now}")
    }
}

/// How a control character is written out.
#[derive(Clone, Copy, Debug)]
enum Escape {
    Text,
    Json,
}

/// Stderr, with control characters written out and a closed stream ignored.
#[derive(Clone, Copy, Debug)]
struct Stderr {
    escape: Escape,
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Stderr;

    fn make_writer(&'a self) -> Stderr {
        *self
    }
}

impl Write for Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // A daemon whose log has gone must go on.
        let _ = io::stderr().lock().write_all(&escaped(event, self.escape));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event is one line: only the newline that ends it stays as it is.
fn escaped(event: &[u8], escape: Escape) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let mut clean = String::with_capacity(text.len());
    for char in line.chars() {
        match (char.is_control(), escape) {
            (false, _) => clean.push(char),
            (true, Escape::Text) => clean.push_str(&format!("\\x{:02x}", char as u32)),
            (true, Escape::Json) => clean.push_str(&format!("\\u{:04x}", char as u32)),
        }
    }
    clean.push('\n');
    clean.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_event_has_a_raw_control_character_or_more_than_one_line() {
        let hostile = "a\nb\u{1b}[2J\u{7f}\u{85}\n".as_bytes();
        assert_eq!(escaped(hostile, Escape::Text), b"a\\x0ab\\x1b[2J\\x7f\\x85\n");
        assert_eq!(escaped(hostile, Escape::Json), b"a\\u000ab\\u001b[2J\\u007f\\u0085\n");
        assert_eq!(escaped(b"{\"a\":1}\n", Escape::Json), b"{\"a\":1}\n");
    }

    #[test]
    fn a_chain_has_every_source_once() {
        let inner = io::Error::other("disk on fire");
        let error = Error::Journal { source: inner };
        assert_eq!(Chain(&error).to_string(), "write to the journal: disk on fire");
    }
}
