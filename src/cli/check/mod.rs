//! `check`: tells whether a start would succeed and its sinks can be reached, and changes nothing.
//!
//! No directory is made and no lock is taken. What can only be known by writing is left out: the
//! ledger is not opened.

mod kernel;
mod places;

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use serde::Serialize;

use crate::cli::args::Format;
use crate::cli::exit::Exit;
use crate::cli::{output, setup};
use crate::config::{Config, Loaded, SinkKind, SinkSettings};
use crate::model::Code;
use crate::sink::cluster::Clusters;
use crate::sink::kubectl::Kubectl;
use crate::sink::{Sink, git};

/// How one thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, and less well than it could.
    Warn,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub what: String,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// One sentence.
    pub message: String,
    /// What the command ends with on its account.
    #[serde(skip)]
    pub exit: Exit,
}

impl Finding {
    pub fn ok(what: impl Into<String>, message: impl Into<String>) -> Self {
        let (what, message) = (what.into(), message.into());
        Finding { what, state: State::Ok, code: None, message, exit: Exit::Done }
    }

    pub fn warn(what: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { state: State::Warn, ..Finding::ok(what, message) }
    }

    pub fn failed(exit: Exit, what: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { state: State::Failed, exit, ..Finding::ok(what, message) }
    }
}

pub fn run(format: Option<Format>, loaded: &Loaded) -> Result<Exit> {
    let config = &loaded.config;
    setup::rules(config)?;
    setup::settings(config)?;
    let mut report = Report::new(format);
    for warning in &loaded.warnings {
        report.tell(&Finding::warn("configuration", warning.clone()))?;
    }
    report.tell(&Finding::ok("configuration", "it is valid"))?;
    let ground = kernel::findings().into_iter().chain(places::findings(config));
    ground.into_iter().try_for_each(|finding| report.tell(&finding))?;
    // Each may take long: what is known by then is on the screen.
    let mut clusters = None;
    for sink in &config.sinks {
        report.tell(&reach(config, sink, &mut clusters))?;
    }
    report.end()
}

/// Asks a sink whether its target can be reached.
fn reach(config: &Config, sink: &SinkSettings, clusters: &mut Option<Clusters>) -> Finding {
    let what = format!("sink `{}`", sink.name);
    let probed = match &sink.kind {
        // Opened, it would make its directory.
        SinkKind::Package { dir } => return places::packages(&what, dir),
        // In a clone that is thrown away: the one in the state directory is the leader's.
        SinkKind::Git(settings) => git::probe(settings),
        // Without its cache, which would lie in the state directory.
        SinkKind::Kubectl(settings) => match Kubectl::new(sink.name.clone(), settings, None) {
            Ok(mut sink) => sink.probe(),
            Err(error) => return Finding::failed(Exit::Configuration, what, error.to_string()),
        },
        _ => match setup::open_sink(config, sink, clusters) {
            Ok(mut sink) => sink.probe(),
            Err(error) => {
                return Finding::failed(Exit::Configuration, what, format!("{error:#}"));
            }
        },
    };
    match probed {
        Ok(()) => Finding::ok(what, "it can be reached"),
        Err(fault) => Finding {
            code: Some(fault.code),
            ..Finding::failed(Exit::Unreachable, what, fault.message)
        },
    }
}

struct Report {
    format: Option<Format>,
    out: BufWriter<io::StdoutLock<'static>>,
    listed: output::List,
    exits: Vec<Exit>,
}

impl Report {
    fn new(format: Option<Format>) -> Self {
        let (out, listed) = (BufWriter::new(io::stdout().lock()), output::List::new(format));
        Report { format, out, listed, exits: Vec::new() }
    }

    fn tell(&mut self, finding: &Finding) -> Result<()> {
        self.exits.push(finding.exit);
        match self.format {
            Some(Format::Json | Format::Yaml) => self.listed.push(finding)?,
            Some(Format::Jsonl) => {
                writeln!(self.out, "{}", crate::model::printable_json(finding)?)?;
            }
            _ => {
                let state = match finding.state {
                    State::Ok => "[ok]",
                    State::Warn => "[warn]",
                    State::Failed => "[failed]",
                };
                writeln!(self.out, "{state:<8} {}: {}", finding.what, plain(&finding.message))?;
            }
        }
        self.out.flush()?;
        Ok(())
    }

    fn end(mut self) -> Result<Exit> {
        self.listed.finish(&mut self.out)?;
        self.out.flush()?;
        Ok(worst(&self.exits))
    }
}

/// What has to be mended first: without a configuration there is no storage, without storage no sink.
fn worst(exits: &[Exit]) -> Exit {
    [Exit::Configuration, Exit::Storage, Exit::Unreachable]
        .into_iter()
        .find(|exit| exits.contains(exit))
        .unwrap_or(Exit::Done)
}

/// One line with nothing raw in it: a sink may repeat what its target said.
fn plain(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_is_that_of_what_has_to_be_mended_first() {
        use Exit::{Configuration, Done, Storage, Unreachable};
        for (exits, exit) in [
            (&[][..], Done),
            (&[Done, Done], Done),
            (&[Unreachable, Done], Unreachable),
            (&[Unreachable, Storage], Storage),
            (&[Storage, Configuration, Unreachable], Configuration),
        ] {
            assert_eq!(worst(exits), exit, "{exits:?}");
        }
    }
}
