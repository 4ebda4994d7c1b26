//! The command line from outside: what goes where, and how it ends.

use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Finished, Site};

const COMMANDS: [&[&str]; 12] = [
    &[],
    &["run"],
    &["batch"],
    &["validate"],
    &["history"],
    &["schema"],
    &["config"],
    &["config", "check"],
    &["config", "show"],
    &["version"],
    &["completion"],
    &["man"],
];

fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentd"));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

fn run(args: &[&str]) -> Finished {
    Finished::from(bare().args(args).output().unwrap())
}

#[test]
fn every_command_has_help_with_examples_on_standard_output() {
    for command in COMMANDS {
        let help = run(&[command, &["--help"]].concat());
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command:?}");
        assert!(help.stdout.contains("Examples:\n  intentd"), "{command:?}: {}", help.stdout);
        assert!(!help.stdout.contains('\u{1b}'), "{command:?} is plain off a terminal");
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_standard_error_alone() {
    for args in [
        &["runn"][..],
        &["run", "--no-such"],
        &["validate"],
        &["history", "--since", "3"],
        &["history", "--outcome", "lost"],
        &["completion", "tcsh"],
        &["version", "-o", "xml"],
        &["version", "-o", "wide"],
        &["run", "-o", "json"],
        &["run", "--dry-run"],
        &["config", "show", "--log-format", "xml"],
        &["config", "show", "--log-level", "inof"],
        &["batch", "--sink", "stdout", "-o", "jsonl"],
        &[],
    ] {
        let finished = run(args);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn batch_prints_documents_or_records_however_the_sink_was_named() {
    let site = Site::with_config("sink = [\"mine\"]\nsinks.mine.type = \"stdout\"\n");
    let finished = site.run(&["batch", "-o", "jsonl"]);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""));
    assert_eq!(
        finished.stderr,
        "intentd: the sink `mine` prints where --output would: use one of the two\n"
    );
}

#[test]
fn a_refused_configuration_ends_with_78_and_its_place() {
    let site = Site::with_config("rescan = \"1s\"\n");
    let file = site.root().join("intentd.toml").display().to_string();
    let expected =
        format!("intentd: {file}:3: there is no key `rescan`; did you mean `watch.rescan`?\n");
    for command in [&["config", "check"][..], &["config", "show"], &["run"], &["history"]] {
        let finished = site.run(command);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""), "{command:?}");
        assert_eq!(finished.stderr, expected);
    }
    for args in [
        &["config", "check", "--schema", "/no/such/schema.json"][..],
        &["config", "check", "--sink", "git"],
        &["config", "check", "--config", "/no/such/file.toml"],
    ] {
        assert_eq!(run(args).code, Some(78), "{args:?}");
    }
}

#[test]
fn a_template_or_site_schema_that_cannot_be_used_is_found_by_the_check() {
    for (name, text) in [("template.yaml", "a: [\n"), ("schema.json", "{\"type\": 7}")] {
        let site = Site::new();
        std::fs::write(site.root().join(name), text).unwrap();
        site.configure("schema = \"schema.json\"\n");
        if name == "template.yaml" {
            site.configure("compose.deployment_template = \"template.yaml\"\n");
        }
        let finished = site.run(&["config", "check"]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""), "{name}");
        assert!(finished.stderr.contains(name.split('.').next().unwrap()), "{}", finished.stderr);
    }
}

#[test]
fn a_checked_configuration_is_valid_with_warnings_on_standard_error() {
    let site = Site::new();
    let mut command = site.command(&["config", "check"]);
    let finished = Finished::from(command.env("INTENTD_SPOL", "/x").output().unwrap());
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.stdout, "the configuration is valid\n");
    assert_eq!(
        finished.stderr,
        "intentd: nobody reads the variable `INTENTD_SPOL`; did you mean `INTENTD_SPOOL`?\n"
    );
}

#[test]
fn show_says_where_each_value_comes_from() {
    let site = Site::with_config("drain = \"1s\"\n");
    let mut command = site.command(&["config", "show", "--origin", "--packages", "/p"]);
    let finished = Finished::from(command.env("INTENTD_LOG_LEVEL", "warn").output().unwrap());
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let file = site.root().join("intentd.toml").display().to_string();
    for line in [
        format!("drain = \"1s\"  # {file}:3"),
        "log_level = \"warn\"  # $INTENTD_LOG_LEVEL".to_owned(),
        "packages = \"/p\"  # --packages".to_owned(),
        "dir = \"/p\"  # --packages".to_owned(),
        "rescan = \"30s\"  # default".to_owned(),
    ] {
        assert!(finished.stdout.lines().any(|shown| shown == line), "{line}: {}", finished.stdout);
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_refused_and_not_ignored() {
    let odd = std::ffi::OsString::from_vec(vec![b'/', 0xff]);
    let finished =
        Finished::from(bare().args(["config", "show"]).env("INTENTD_SPOOL", odd).output().unwrap());
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(78), ""));
    assert_eq!(finished.stderr, "intentd: the variable `INTENTD_SPOOL` has to be in UTF-8\n");
}

#[test]
fn version_and_schemas_are_data() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(run(&["version"]).stdout, format!("intentd {version}\n"));
    assert_eq!(run(&["--version"]).stdout, format!("intentd {version}\n"));
    let json: Value = serde_json::from_str(&run(&["version", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["version"], version);
    assert_eq!(run(&["schema"]).stdout, run(&["schema", "intent"]).stdout);
    for (which, id) in [("intent", "intent"), ("config", "config")] {
        let finished = run(&["schema", which]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        let schema: Value = serde_json::from_str(&finished.stdout).unwrap();
        assert!(schema["$id"].as_str().unwrap().contains(id), "{schema}");
        assert!(jsonschema::meta::is_valid(&schema));
    }
}

#[test]
fn there_are_completions_and_manual_pages_for_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let finished = run(&["completion", shell]);
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
        for word in ["validate", "history", "accept-restored-ledger"] {
            assert!(finished.stdout.contains(word), "{word} for {shell}");
        }
    }
    assert!(run(&["man"]).stdout.contains(".TH intentd 1"));
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    assert_eq!(run(&["man", pages.to_str().unwrap()]).code, Some(0));
    for command in COMMANDS {
        let name = [&["intentd"], command].concat().join("-");
        let page = std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Examples:"), "{name}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    for args in [&["schema", "config"][..], &["--help"], &["completion", "zsh"], &["man"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = bare().args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_closed_standard_error_changes_no_exit_code() {
    for (args, code) in [
        (&["config", "show", "--sink", "git"][..], 78),
        (&["no-such-command"], 2),
        (&["run", "--sink", "git"], 78),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = bare().args(args).stdout(Stdio::null()).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn messages_hold_no_control_character_of_what_they_name() {
    let mut child = bare()
        .args(["config", "show", "--config", "/no/\u{1b}[2Jsuch"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(78));
    assert!(said.contains("such") && !said.contains('\u{1b}'), "{said:?}");
}
