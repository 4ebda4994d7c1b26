//! The command line as typed. Nothing here looks at the environment or at files.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Overrides, SinkKind, SinkSettings};

/// Take intents out of a directory and give each exactly one outcome
#[derive(Debug, Parser)]
#[command(name = "intentd", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  intentd run --spool /var/spool/intentd
  intentd validate intent-web.json
  intentd batch --spool ./spool --state-dir ./state examples/intents
  intentd history --outcome rejected -o wide";

/// Flags of every command; each is also a key of the configuration and a variable INTENTD_*
#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file [env: INTENTD_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory with inbox, work, processed, failed and status [env: INTENTD_SPOOL]
    #[arg(long, global = true, value_name = "DIR")]
    pub spool: Option<String>,
    /// Directory of the ledger and the lock [env: INTENTD_STATE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<String>,
    /// Directory of the packages [env: INTENTD_PACKAGES]
    #[arg(long, global = true, value_name = "DIR")]
    pub packages: Option<String>,
    /// Deliver to this sink; repeatable [default: package] [env: INTENTD_SINK]
    #[arg(long, global = true, value_name = "NAME")]
    pub sink: Vec<String>,
    /// A JSON Schema of the site, applied as well as the built-in one [env: INTENTD_SCHEMA]
    #[arg(long, global = true, value_name = "FILE")]
    pub schema: Option<String>,
    /// error, warn, info, debug, trace, or a filter [env: INTENTD_LOG_LEVEL]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// auto, text, json or journald [env: INTENTD_LOG_FORMAT]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Do without file events and list the inbox instead [env: INTENTD_WATCH__POLL]
    #[arg(long, global = true)]
    pub poll: bool,
    /// Accept a ledger that is another one, or older, than the spool has seen
    #[arg(long, global = true)]
    pub accept_restored_ledger: bool,
    /// Form of the output
    #[arg(short, long, global = true, value_name = "FORMAT")]
    pub output: Option<Format>,
    /// Say less: no progress, no summary, only errors in the log
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; repeatable
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Show what would be delivered, and change nothing (`batch`)
    #[arg(long, global = true)]
    pub dry_run: bool,
}

impl Common {
    /// The flags that were given, as values of keys.
    pub fn overrides(&self) -> Overrides {
        let mut values = Vec::new();
        let mut add = |key, value: Option<String>| values.extend(value.map(|value| (key, value)));
        add("spool", self.spool.clone());
        add("state_dir", self.state_dir.clone());
        add("packages", self.packages.clone());
        add("sink", (!self.sink.is_empty()).then(|| self.sink.join(",")));
        add("schema", self.schema.clone());
        add("log_format", self.log_format.clone());
        add("watch.poll", self.poll.then(|| "true".to_owned()));
        let level = match (self.quiet, self.verbose) {
            (true, _) => Some("error"),
            (false, 0) => None,
            (false, 1) => Some("debug"),
            (false, _) => Some("trace"),
        };
        add("log_level", self.log_level.clone().or(level.map(str::to_owned)));
        Overrides {
            file: self.config.clone(),
            values,
            accept_restored_ledger: self.accept_restored_ledger,
        }
    }
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Wide,
    Json,
    /// One object a line, written as results arrive
    Jsonl,
    Yaml,
    Name,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: lead when the lock is free, stand by otherwise
    #[command(after_help = "\
Examples:
  intentd run
  intentd run --spool /srv/intents --log-format json
  INTENTD_SINK=package,stdout intentd run -v")]
    Run,
    /// Drain the inbox once, or deliver copies of the named documents, then end
    #[command(after_help = "\
Examples:
  intentd batch
  intentd batch intent-web.json
  producer | intentd batch - -o jsonl")]
    Batch {
        /// Files, directories (not recursive) or `-` for standard input
        #[arg(value_name = "FILE|DIR|-")]
        operands: Vec<PathBuf>,
    },
    /// Check documents; no state, no side effect
    #[command(after_help = "\
Examples:
  intentd validate intent-web.json
  intentd validate -o jsonl inbox/
  jq '.replicas = 3' intent-web.json | intentd validate -")]
    Validate {
        /// Files, directories (not recursive) or `-` for standard input
        #[arg(value_name = "FILE|DIR|-", required = true)]
        operands: Vec<PathBuf>,
    },
    /// Show what documents would change at each sink, and change nothing
    #[command(after_help = "\
Examples:
  intentd diff intent-web.json
  intentd diff --sink package -o json intent-web.json
  jq '.replicas = 3' intent-web.json | intentd diff -")]
    Diff {
        /// Files, directories (not recursive) or `-` for standard input
        #[arg(value_name = "FILE|DIR|-", required = true)]
        operands: Vec<PathBuf>,
    },
    /// Show what became of intents; works while a daemon runs, hangs or is dead
    #[command(after_help = "\
Examples:
  intentd history
  intentd history --outcome parked --since 24h -o wide
  intentd history -o jsonl | jq .code")]
    History {
        /// Only the newest so many [default: 50 for table, wide and name, else all]
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Only this outcome: pending, delivered, unchanged, superseded, rejected, parked
        #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
        outcome: Option<crate::model::Outcome>,
        /// Only what was received within this time, such as 90s, 15m, 24h or 7d
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<std::time::Duration>,
    },
    /// Take up parked intents again; what came of them before stays in the history
    #[command(after_help = "\
Examples:
  intentd retry 12 15
  intentd retry --parked
  intentd history --outcome parked -o jsonl | jq .seq | xargs intentd retry")]
    Retry {
        /// Intents, by the numbers that `history` shows
        #[arg(value_name = "SEQ", required_unless_present = "parked", conflicts_with = "parked")]
        seqs: Vec<u64>,
        /// All that are parked
        #[arg(long)]
        parked: bool,
        /// How long to wait for the answer of the instance that leads
        #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
        timeout: std::time::Duration,
    },
    /// Tell whether a start would succeed and every sink can be reached, and change nothing
    #[command(after_help = "\
Examples:
  intentd check
  intentd check --sink git -o json
  intentd check && systemctl start intentd")]
    Check,
    /// Print the JSON Schema of intents or of the configuration, or the CustomResourceDefinition
    #[command(after_help = "\
Examples:
  intentd schema > intent.schema.json
  intentd schema config > intentd.schema.json
  intentd schema crd | kubectl apply -f -
  intentd schema | jq .properties.replicas")]
    Schema {
        /// What the schema is of
        #[arg(default_value = "intent")]
        which: SchemaName,
    },
    /// Check or show the configuration
    #[command(after_help = "\
Examples:
  intentd config check
  intentd config check --config ./intentd.toml
  intentd config show --origin")]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print the completion script of a shell
    #[command(after_help = "\
Examples:
  intentd completion bash > /etc/bash_completion.d/intentd
  intentd completion zsh > /usr/local/share/zsh/site-functions/_intentd
  intentd completion fish > ~/.config/fish/completions/intentd.fish")]
    Completion {
        /// Shell that the script is for
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    #[command(after_help = "\
Examples:
  intentd man | man -l -
  intentd man /usr/local/share/man/man1")]
    Man {
        /// Directory to write `intentd*.1` to
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Print the version
    #[command(after_help = "\
Examples:
  intentd version
  intentd version -o json")]
    Version,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaName {
    /// The documents that are dropped
    Intent,
    /// The file intentd.toml and those in conf.d
    Config,
    /// The custom resource NetworkIntent, as a CustomResourceDefinition in YAML
    Crd,
}

impl Command {
    /// Its name, as typed.
    fn name(&self) -> &'static str {
        match self {
            Command::Run => "run",
            Command::Batch { .. } => "batch",
            Command::Validate { .. } => "validate",
            Command::Diff { .. } => "diff",
            Command::History { .. } => "history",
            Command::Retry { .. } => "retry",
            Command::Check => "check",
            Command::Schema { .. } => "schema",
            Command::Config { .. } => "config",
            Command::Completion { .. } => "completion",
            Command::Man { .. } => "man",
            Command::Version => "version",
        }
    }

    /// The forms of output that make sense for it.
    fn formats(&self) -> &'static [Format] {
        match self {
            Command::Batch { .. } | Command::Validate { .. } | Command::History { .. } => {
                Format::value_variants()
            }
            Command::Retry { .. } => {
                &[Format::Table, Format::Json, Format::Jsonl, Format::Yaml, Format::Name]
            }
            Command::Diff { .. } => &[Format::Table, Format::Json, Format::Jsonl, Format::Yaml],
            Command::Check | Command::Version => {
                &[Format::Table, Format::Json, Format::Jsonl, Format::Yaml]
            }
            Command::Schema { .. } => &[Format::Json],
            Command::Run
            | Command::Config { .. }
            | Command::Completion { .. }
            | Command::Man { .. } => &[],
        }
    }
}

impl Cli {
    /// What is wrong with a command line that could be parsed.
    pub fn misuse(&self) -> Option<String> {
        let (common, command) = (&self.common, &self.command);
        let name = command.name();
        if common.dry_run && !matches!(command, Command::Batch { .. }) {
            return Some(format!("--dry-run belongs to `batch`, not to `{name}`"));
        }
        let output = common.output?;
        let formats = command.formats();
        if formats.is_empty() {
            return Some(format!("`{name}` has no --output"));
        }
        if !formats.contains(&output) {
            let names: Vec<String> = formats
                .iter()
                .filter_map(|format| Some(format.to_possible_value()?.get_name().to_owned()))
                .collect();
            return Some(format!("--output of `{name}` is one of {}", names.join(", ")));
        }
        None
    }
}

/// Why documents and records cannot both be printed: neither could be told from the other.
pub fn prints_twice(common: &Common, sinks: &[SinkSettings]) -> Option<String> {
    common.output?;
    let stdout = sinks.iter().find(|sink| matches!(sink.kind, SinkKind::Stdout { .. }))?;
    Some(format!("the sink `{}` prints where --output would: use one of the two", stdout.name))
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check what a start would check, and start nothing
    #[command(after_help = "\
Examples:
  intentd config check
  intentd config check --config ./intentd.toml && systemctl reload intentd")]
    Check,
    /// Print what holds
    #[command(after_help = "\
Examples:
  intentd config show
  intentd config show --origin
  intentd config show --config ./intentd.toml > effective.toml")]
    Show {
        /// Also print where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

fn outcome(text: &str) -> Result<crate::model::Outcome, String> {
    crate::model::Outcome::parse(text).ok_or_else(|| {
        "one of pending, delivered, unchanged, superseded, rejected, parked is expected".to_owned()
    })
}

fn time(text: &str) -> Result<std::time::Duration, String> {
    crate::config::parse_time(text)
        .ok_or_else(|| "a time with a unit is expected, such as 90s, 15m, 24h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_that_is_a_key_reaches_the_configuration() {
        let line = "intentd run --spool s --state-dir t --packages p --sink a --sink b --schema x \
                    --log-level warn --log-format json --poll --config c --accept-restored-ledger";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let overrides = cli.common.overrides();
        let mut set: Vec<(&str, &str)> =
            overrides.values.iter().map(|(key, value)| (*key, value.as_str())).collect();
        set.sort_unstable();
        let flags = crate::config::flags();
        let mut keys: Vec<&str> = flags.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert_eq!(set.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
        assert!(set.contains(&("sink", "a,b")) && set.contains(&("watch.poll", "true")));
        assert!(overrides.accept_restored_ledger && overrides.file.is_some());
        let command = Cli::command();
        for (key, flag) in flags {
            let name = format!("INTENTD_{}", key.to_uppercase().replace('.', "__"));
            let argument =
                command.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
            let help = argument.get_help().unwrap().to_string();
            assert!(help.contains(&name), "--{flag} says its variable");
        }
    }

    #[test]
    fn the_level_is_what_was_asked_for_last_and_plainest() {
        for (line, level) in [
            ("intentd run", None),
            ("intentd run -q", Some("error")),
            ("intentd -v run", Some("debug")),
            ("intentd run -vv", Some("trace")),
            ("intentd run -v --log-level warn", Some("warn")),
        ] {
            let overrides = Cli::try_parse_from(line.split(' ')).unwrap().common.overrides();
            let found = overrides.values.iter().find(|(key, _)| *key == "log_level");
            assert_eq!(found.map(|(_, level)| level.as_str()), level, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_misuse() {
        for (line, complaint) in [
            ("batch --dry-run -o jsonl", None),
            ("run --dry-run", Some("--dry-run belongs to `batch`, not to `run`")),
            ("run -o json", Some("`run` has no --output")),
            ("version -o wide", Some("--output of `version` is one of table, json, jsonl, yaml")),
            ("schema -o json", None),
            ("validate -o jsonl x", None),
        ] {
            let cli = Cli::try_parse_from(["intentd"].into_iter().chain(line.split(' '))).unwrap();
            assert_eq!(cli.misuse().as_deref(), complaint, "{line}");
        }
    }
}
