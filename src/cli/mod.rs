//! The commands.

mod args;
mod batch;
mod check;
mod diff;
mod exit;
mod history;
mod inputs;
mod output;
mod retry;
mod run;
mod setup;
mod supervise;
mod validate;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};

use crate::cli::args::{Cli, Command, ConfigCommand, Format, SchemaName};
use crate::cli::exit::{Exit, Misuse};
use crate::config::{self, Loaded, Overrides};
use crate::schema::Schema;

/// Runs the command line of this process and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version that were asked for are no error.
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    // The panic has been reported by its hook; its exit code is ours to choose.
    match std::panic::catch_unwind(|| dispatch(cli)) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(error)) if is_closed_pipe(&error) => Exit::Done.into(),
        Ok(Err(error)) => {
            let _ = writeln!(io::stderr(), "intentd: {}", shown(&error));
            exit::of(&error).into()
        }
        Err(_) => Exit::Internal.into(),
    }
}

fn dispatch(cli: Cli) -> Result<Exit> {
    refuse(cli.misuse())?;
    let Cli { common, command } = cli;
    let overrides = common.overrides();
    match command {
        Command::Run => run::run(&overrides),
        Command::Batch { operands } => {
            let loaded = load(&overrides)?;
            refuse(args::prints_twice(&common, &loaded.config.sinks))?;
            batch::run(&common, loaded, &operands)
        }
        Command::Validate { operands } => validate::run(&common, &load(&overrides)?, &operands),
        Command::Diff { operands } => diff::run(&common, &load(&overrides)?, &operands),
        Command::History { limit, outcome, since } => {
            let query = history::Query { limit, outcome, since };
            history::run(&load(&overrides)?, common.output, &query)
        }
        Command::Retry { parked, seqs, timeout } => {
            let which = if parked { retry::Which::Parked } else { retry::Which::Named(seqs) };
            retry::run(&common, &load(&overrides)?, &which, timeout)
        }
        Command::Check => check::run(common.output, &load(&overrides)?),
        Command::Schema { which } => schema(which),
        Command::Config { command: ConfigCommand::Check } => check_config(&load(&overrides)?),
        Command::Config { command: ConfigCommand::Show { origin } } => {
            print(&load(&overrides)?.show(origin))
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "intentd", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man { directory } => man(directory.as_deref()),
        Command::Version => version(common.output),
    }
}

fn refuse(misuse: Option<String>) -> Result<()> {
    misuse.map_or(Ok(()), |complaint| Err(Misuse(complaint).into()))
}

/// Reads the configuration of this process.
pub(crate) fn load(overrides: &Overrides) -> Result<Loaded> {
    let environment = config::environment(std::env::vars_os())?;
    Ok(config::load(overrides, &environment, rustix::process::geteuid().is_root())?)
}

fn check_config(loaded: &Loaded) -> Result<Exit> {
    for warning in &loaded.warnings {
        let _ = writeln!(io::stderr(), "intentd: {warning}");
    }
    setup::rules(&loaded.config)?;
    setup::settings(&loaded.config)?;
    print("the configuration is valid\n")
}

fn schema(which: SchemaName) -> Result<Exit> {
    match which {
        SchemaName::Intent => print(Schema::TEXT),
        SchemaName::Config => {
            let text = serde_json::to_string_pretty(&config::schema())?;
            print(&format!("{text}\n"))
        }
        SchemaName::Crd => print(&crate::sink::kubernetes::crd()?),
    }
}

fn man(directory: Option<&Path>) -> Result<Exit> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return print(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .with_context(|| format!("write manual pages to `{}`", directory.display()))?;
    Ok(Exit::Done)
}

fn version(output: Option<Format>) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    match output {
        Some(Format::Json | Format::Jsonl) => print(&format!("{{\"version\":\"{version}\"}}\n")),
        Some(Format::Yaml) => print(&format!("version: {version}\n")),
        _ => print(&format!("intentd {version}\n")),
    }
}

/// Writes to standard output at once.
fn print(text: &str) -> Result<Exit> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).context("write the output")?;
    Ok(Exit::Done)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(closed))
}

/// The chain in one line, with nothing raw in it.
fn shown(error: &anyhow::Error) -> String {
    let chain = format!("{error:#}");
    chain.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
