//! The log: one event a line on stderr, or in the journal.
//!
//! Invariant: nothing that a stranger can choose, such as a file's name, puts a control character
//! into a line or begins another one; a log that nobody takes any more stops nobody.
//! Not here: what is logged, and which level is asked for (`config`).

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use tracing::Subscriber;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
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
        "json" => json(io::stderr).boxed(),
        _ => text(io::stderr).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init()
        .map_err(|source| Error::Twice { source })?;
    Ok(Log { filter: handle })
}

/// One JSON object a line, with the fields beside `timestamp`, `level` and `message`.
fn json<S, W>(open: impl Fn() -> W + Send + Sync + 'static) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        // The module's path would be called `target`, as the intent's target is.
        .with_target(false)
        .with_current_span(false)
        .with_span_list(false)
        .with_timer(Clock)
        .with_writer(move || Line { to: open(), escape: Escape::Json })
}

/// Never in colour: a colour is an escape sequence, and none may be in a line.
fn text<S, W>(open: impl Fn() -> W + Send + Sync + 'static) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_timer(Clock)
        .with_writer(move || Line { to: open(), escape: Escape::Text })
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

/// What libraries say of failed calls, sinks say in the outcome of the intent; a filter that names
/// such a library hears it all the same.
const SILENT: &str = "kube_client=off,kube_runtime=off";

fn filter(level: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(format!("{SILENT},{level}"))
        .map_err(|source| Error::Filter { filter: level.to_owned(), source })
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

/// Takes one event, and writes it as one line.
#[derive(Debug)]
struct Line<W> {
    to: W,
    escape: Escape,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        // A daemon whose log has gone must go on.
        let _ = self.to.write_all(&escaped(event, self.escape));
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
    use std::sync::{Arc, Mutex};

    use tracing::{info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.split_terminator('\n').map(str::to_owned).collect()
        }
    }

    /// What `log` writes in both forms.
    fn written(log: impl Fn()) -> (Vec<String>, Vec<String>) {
        let (texts, jsons) = (Memory::default(), Memory::default());
        let (to_texts, to_jsons) = (texts.clone(), jsons.clone());
        let layer = text(move || to_texts.clone()).and_then(json(move || to_jsons.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        (texts.lines(), jsons.lines())
    }

    #[test]
    fn hostile_fields_and_messages_stay_in_their_line_without_control_characters() {
        let hostile = "a\nINFO forged\r\t\u{1b}[2J\u{0}\u{7f}\u{85}\u{9b}1m\"}{";
        let (text, json) = written(|| {
            warn!(file = hostile, "field");
            warn!(file = %hostile, "shown");
            warn!(file = ?hostile, "debugged");
            warn!("{hostile}");
        });
        for lines in [&text, &json] {
            assert_eq!(lines.len(), 4, "{lines:#?}");
            assert!(!lines.iter().any(|line| line.chars().any(char::is_control)), "{lines:#?}");
        }
        let values: Vec<serde_json::Value> =
            json.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(values[0]["file"], hostile, "JSON keeps what it was");
        assert_eq!(values[1]["file"], hostile);
        assert_eq!(values[3]["message"], hostile);
    }

    #[test]
    fn a_json_line_has_the_fields_beside_its_time_level_and_message() {
        let (text, json) = written(|| info!(seq = 7_u64, target = "ran/sim", "delivered"));
        let value: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
        assert_eq!(value["level"], "INFO");
        assert_eq!(value["message"], "delivered");
        assert_eq!((&value["seq"], &value["target"]), (&7.into(), &"ran/sim".into()));
        assert_eq!(json[0].matches("\"target\":").count(), 1, "{}", json[0]);
        let time = value["timestamp"].as_str().unwrap();
        let shape = time.replace(|digit: char| digit.is_ascii_digit(), "0");
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        assert!(text[0].ends_with("INFO delivered seq=7 target=\"ran/sim\""), "{}", text[0]);
    }

    #[test]
    fn a_log_that_nobody_takes_stops_nobody() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let layer = text(|| Closed).and_then(json(|| Closed));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || info!("said to nobody"));
    }

    #[test]
    fn the_level_changes_while_the_log_is_in_use_and_a_wrong_one_changes_nothing() {
        let memory = Memory::default();
        let to = memory.clone();
        let (filter, handle) = reload::Layer::new(filter("warn").unwrap());
        let log = Log { filter: handle };
        let subscriber = tracing_subscriber::registry().with(filter).with(text(move || to.clone()));
        tracing::subscriber::with_default(subscriber, || {
            info!("one");
            log.set_level("info").unwrap();
            info!("two");
            assert!(log.set_level("intentd=loud").is_err());
            info!("three");
        });
        let ends: Vec<bool> =
            memory.lines().iter().zip(["two", "three"]).map(|(l, end)| l.ends_with(end)).collect();
        assert_eq!(ends, [true, true], "{:?}", memory.lines());
    }

    #[test]
    fn a_chain_has_every_source_once() {
        let inner = io::Error::other("disk on fire");
        let error = Error::Journal { source: inner };
        assert_eq!(Chain(&error).to_string(), "write to the journal: disk on fire");
    }
}
