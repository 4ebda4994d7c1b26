//! `validate`: judges documents and touches nothing.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::{inputs, output, setup};
use crate::config::Loaded;
use crate::model::{FileName, Rejection, Violation, printable_json};
use crate::pipeline::Operand;
use crate::schema::render;

#[derive(Serialize)]
struct Verdict<'a> {
    file: &'a FileName,
    verdict: &'static str,
    violations: &'a [Violation],
}

pub fn run(common: &Common, loaded: &Loaded, operands: &[PathBuf]) -> Result<Exit> {
    let rules = setup::rules(&loaded.config)?;
    let documents = inputs::expand(operands, &rules.names)?;
    let colour = io::stderr().is_terminal() && output::colours_are_welcome();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut listed = output::List::new(common.output);
    let mut exit = Exit::Done;
    for document in documents {
        let file = document.file();
        let read = document.read(rules.size_bytes_max);
        let text = read.as_deref().unwrap_or_default();
        let judged = match &read {
            Ok(bytes) => rules.schema.judge(bytes, &rules.policy).map(|_| ()),
            Err(rejection) => Err(rejection.clone()),
        };
        let rejection = judged.err().map(with_violation);
        if rejection.is_some() {
            exit = Exit::Refused;
        }
        let verdict = Verdict {
            file: &file,
            verdict: if rejection.is_some() { "reject" } else { "accept" },
            violations: rejection.as_ref().map_or(&[], |rejection| &rejection.violations),
        };
        match common.output {
            None | Some(Format::Table | Format::Wide | Format::Name) => {
                if !common.quiet || rejection.is_some() {
                    writeln!(out, "{file}: {}", verdict.verdict)?;
                }
                if let Some(rejection) = &rejection {
                    out.flush()?;
                    let shown = render::snippet(&file.to_string(), text, rejection, colour);
                    let _ = writeln!(io::stderr(), "{}", shown.trim_end());
                }
            }
            Some(Format::Jsonl) => {
                writeln!(out, "{}", printable_json(&verdict)?)?;
                if matches!(document, Operand::Stdin) {
                    out.flush()?;
                }
            }
            Some(Format::Json | Format::Yaml) => listed.push(&verdict)?,
        }
    }
    listed.finish(&mut out)?;
    out.flush()?;
    Ok(exit)
}

/// A refusal of the file as such is its own violation, so that every reject has one.
fn with_violation(mut rejection: Rejection) -> Rejection {
    if rejection.violations.is_empty() {
        rejection.violations.push(Violation {
            code: rejection.code,
            pointer: None,
            line: None,
            column: None,
            message: rejection.message.clone(),
            expected: None,
            found: None,
            hint: None,
        });
    }
    rejection
}
