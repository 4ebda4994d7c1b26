//! `diff`: tells what documents would change at each sink, and changes nothing.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use similar::TextDiff;

use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::{inputs, output, setup};
use crate::compose::{Package, compose};
use crate::config::{Loaded, SinkKind, SinkSettings};
use crate::model::{Code, FileName, Intent};
use crate::schema::render;
use crate::sink::cluster::Clusters;
use crate::sink::{Change, Comparison, Fault, git, kubectl, kubernetes, package, porch};

/// Lines around a change, as `diff -u` has them.
const CONTEXT_LINES: usize = 3;

/// What one sink would do with one document.
#[derive(Serialize)]
struct Told<'a> {
    file: &'a FileName,
    sink: &'a str,
    result: &'static str,
    changes: Vec<Change>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

pub fn run(common: &Common, loaded: &Loaded, operands: &[PathBuf]) -> Result<Exit> {
    let config = &loaded.config;
    let rules = setup::rules(config)?;
    let settings = setup::settings(config)?;
    let colour = io::stderr().is_terminal() && output::colours_are_welcome();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut listed = output::List::new(common.output);
    let mut exits = Vec::new();
    let mut clusters = None;
    for document in inputs::expand(operands, &rules.names)? {
        let file = document.file();
        let read = document.read(rules.size_bytes_max);
        let composed = match &read {
            Ok(bytes) => rules
                .schema
                .judge(bytes, &rules.policy)
                .and_then(|intent| Ok((compose(&intent, &settings.compose)?, intent))),
            Err(rejection) => Err(rejection.clone()),
        };
        let (package, intent) = match composed {
            Ok(both) => both,
            Err(rejection) => {
                let text = read.as_deref().unwrap_or_default();
                let shown = render::snippet(&file.to_string(), text, &rejection, colour);
                let _ = writeln!(io::stderr(), "{}", shown.trim_end());
                exits.push(Exit::Refused);
                continue;
            }
        };
        for sink in &config.sinks {
            let compared = compare(sink, &intent, &package, &mut clusters)?;
            let told = tell(&file, sink, compared, &mut exits);
            match common.output {
                None | Some(Format::Table | Format::Wide | Format::Name) => {
                    print(&mut out, &told)?;
                }
                Some(Format::Jsonl) => writeln!(out, "{}", serde_json::to_string(&told)?)?,
                Some(Format::Json | Format::Yaml) => listed.push(&told)?,
            }
        }
    }
    listed.finish(&mut out)?;
    out.flush()?;
    Ok(worst(&exits))
}

/// Asks the sink, without a lock and without a trace.
fn compare(
    sink: &SinkSettings,
    intent: &Intent,
    package: &Package,
    clusters: &mut Option<Clusters>,
) -> Result<Result<Comparison, Fault>> {
    Ok(match &sink.kind {
        SinkKind::Package { dir } => package::compare(dir, package),
        SinkKind::Git(settings) => git::compare(settings, intent, package),
        SinkKind::Kubernetes(settings) => {
            let cluster = setup::clusters(clusters)?.at(settings.access.clone());
            kubernetes::compare(settings, cluster, intent)
        }
        SinkKind::Kubectl(settings) => kubectl::compare(settings, intent),
        SinkKind::Porch(settings) => {
            porch::compare(settings, setup::clusters(clusters)?, intent, package)
        }
        SinkKind::Stdout { .. } | SinkKind::Exec { .. } => Ok(Comparison::Unknown),
    })
}

fn tell<'a>(
    file: &'a FileName,
    sink: &'a SinkSettings,
    compared: Result<Comparison, Fault>,
    exits: &mut Vec<Exit>,
) -> Told<'a> {
    let told = |result, changes| Told {
        file,
        sink: &sink.name,
        result,
        changes,
        code: None,
        message: None,
    };
    match compared {
        Ok(Comparison::Same) => told("same", Vec::new()),
        Ok(Comparison::Unknown) => Told {
            message: Some("only delivering to it would tell".to_owned()),
            ..told("unknown", Vec::new())
        },
        Ok(Comparison::Different(changes)) => {
            exits.push(Exit::Refused);
            told("different", changes)
        }
        Err(Fault { code, message, .. }) => {
            let unreachable = code == Code::SinkUnavailable;
            exits.push(if unreachable { Exit::Unreachable } else { Exit::Refused });
            Told { code: Some(code), message: Some(message), ..told("failed", Vec::new()) }
        }
    }
}

/// What could not be told outweighs what differs.
fn worst(exits: &[Exit]) -> Exit {
    let has = |exit| exits.contains(&exit);
    [Exit::Unreachable, Exit::Refused].into_iter().find(|exit| has(*exit)).unwrap_or(Exit::Done)
}

/// As `diff -u` would print it; what is no difference goes to standard error.
fn print(out: &mut impl Write, told: &Told<'_>) -> Result<()> {
    if let Some(message) = &told.message {
        out.flush()?;
        let _ = writeln!(io::stderr(), "{}: sink `{}`: {message}", told.file, told.sink);
    }
    for change in &told.changes {
        let diff = TextDiff::from_lines(&change.before, &change.after);
        let name = format!("{}/{}", told.sink, change.path);
        let old =
            if change.before.is_empty() { "/dev/null".to_owned() } else { format!("a/{name}") };
        let new = format!("b/{name}");
        write!(out, "{}", diff.unified_diff().context_radius(CONTEXT_LINES).header(&old, &new))?;
    }
    Ok(())
}
