//! `validate`: judges documents and touches nothing.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::cli::args::{Common, Format};
use crate::cli::exit::Exit;
use crate::cli::{inputs, output, setup};
use crate::config::Loaded;
use crate::intake::{Intake, Rules};
use crate::model::{FileName, Rejection, Violation, printable_json};
use crate::pipeline::Operand;
use crate::schema::render;

#[derive(Serialize)]
struct Verdict<'a> {
    file: &'a FileName,
    verdict: &'static str,
    violations: &'a [Violation],
}

/// Documents read and judged at a time: all of the largest size stay below 64 MiB.
const GROUP: usize = 64;

/// A document with its bytes, as far as they could be read.
struct Judged {
    text: Vec<u8>,
    rejection: Option<Rejection>,
}

pub fn run(common: &Common, loaded: &Loaded, operands: &[PathBuf]) -> Result<Exit> {
    let rules = setup::rules(&loaded.config)?;
    let documents = inputs::expand(operands, &rules.names)?;
    let intake = Intake::start(loaded.config.intake.workers, false)?;
    let mut verdicts = Verdicts {
        format: common.output,
        quiet: common.quiet,
        colour: io::stderr().is_terminal() && output::colours_are_welcome(),
        out: BufWriter::new(io::stdout().lock()),
        listed: output::List::new(common.output),
        exit: Exit::Done,
    };
    // What stands before the standard input is not to wait for it.
    let alike = |one: &Operand, other: &Operand| {
        !matches!(one, Operand::Stdin) && !matches!(other, Operand::Stdin)
    };
    for group in documents.chunk_by(alike).flat_map(|files| files.chunks(GROUP)) {
        let judged = intake.each(group, |document| judge(&rules, document));
        for (document, judged) in group.iter().zip(judged) {
            verdicts.tell(document, &judged)?;
        }
    }
    verdicts.end()
}

fn judge(rules: &Rules, document: &Operand) -> Judged {
    let (text, judged) = match document.read(rules.size_bytes_max) {
        Ok(text) => {
            let judged = rules.schema.judge(&text, &rules.policy).map(drop);
            (text, judged)
        }
        Err(rejection) => (Vec::new(), Err(rejection)),
    };
    Judged { text, rejection: judged.err().map(with_violation) }
}

/// Where verdicts go, in the order of the documents.
struct Verdicts {
    format: Option<Format>,
    quiet: bool,
    colour: bool,
    out: BufWriter<StdoutLock<'static>>,
    listed: output::List,
    exit: Exit,
}

impl Verdicts {
    fn tell(&mut self, document: &Operand, judged: &Judged) -> Result<()> {
        let file = document.file();
        let rejection = judged.rejection.as_ref();
        if rejection.is_some() {
            self.exit = Exit::Refused;
        }
        let verdict = Verdict {
            file: &file,
            verdict: if rejection.is_some() { "reject" } else { "accept" },
            violations: rejection.map_or(&[], |rejection| &rejection.violations),
        };
        match self.format {
            None | Some(Format::Table | Format::Wide | Format::Name) => {
                if !self.quiet || rejection.is_some() {
                    writeln!(self.out, "{file}: {}", verdict.verdict)?;
                }
                if let Some(rejection) = rejection {
                    self.out.flush()?;
                    let file = file.to_string();
                    let shown = render::snippet(&file, &judged.text, rejection, self.colour);
                    let _ = writeln!(io::stderr(), "{}", shown.trim_end());
                }
            }
            Some(Format::Jsonl) => {
                writeln!(self.out, "{}", printable_json(&verdict)?)?;
                if matches!(document, Operand::Stdin) {
                    self.out.flush()?;
                }
            }
            Some(Format::Json | Format::Yaml) => self.listed.push(&verdict)?,
        }
        Ok(())
    }

    fn end(mut self) -> Result<Exit> {
        self.listed.finish(&mut self.out)?;
        self.out.flush()?;
        Ok(self.exit)
    }
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
