//! The configuration as it is documented, held against the one that the code has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use intentd::config::{self, Overrides};
use serde_json::Value;

use crate::support::Site;

#[test]
fn the_example_as_it_is_changes_nothing() {
    let shown = |file: PathBuf| {
        let overrides = Overrides { file: Some(file), ..Overrides::default() };
        let loaded = config::load(&overrides, &BTreeMap::new(), true).unwrap();
        // The example has a table for every type, which shows their defaults.
        let shown = loaded.show(false);
        shown.split("\n[sinks.").next().unwrap().to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("intentd.toml");
    std::fs::write(&empty, "").unwrap();
    assert_eq!(shown(root().join("examples/intentd.toml")), shown(empty));
}

#[test]
fn the_example_has_every_key_of_the_code_once_and_shows_its_default() {
    let example = example();
    let active = leaves(&parsed(&example));
    let all = leaves(&parsed(&uncommented(&example)));
    let mut expected = BTreeMap::new();
    let schema = config::schema();
    for (name, property) in schema["properties"].as_object().unwrap() {
        match property["properties"].as_object() {
            Some(_) if name == "sinks" => {}
            Some(inner) => expected.extend(
                inner
                    .iter()
                    .map(|(key, value)| (format!("{name}.{key}"), value["default"].clone())),
            ),
            None => {
                expected.insert(name.clone(), property["default"].clone());
            }
        }
    }
    for table in schema["properties"]["sinks"]["additionalProperties"]["oneOf"].as_array().unwrap()
    {
        let kind = table["properties"]["type"]["const"].as_str().unwrap();
        for (key, value) in table["properties"].as_object().unwrap() {
            let default = if key == "type" { kind.into() } else { value["default"].clone() };
            expected.insert(format!("sinks.{kind}.{key}"), default);
        }
    }
    let keys = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&all), keys(&expected));
    expected.retain(|_, default| !default.is_null());
    assert_eq!(active, expected, "what is not behind a `#` is a default");
}

#[test]
fn the_examples_are_right_by_the_schema_of_the_configuration() {
    let schema = config::schema();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::validator_for(&schema).unwrap();
    let policy = std::fs::read_to_string(root().join("examples/site-policy.toml")).unwrap();
    for text in [example(), uncommented(&example()), policy] {
        let errors: Vec<String> =
            validator.iter_errors(&parsed(&text)).map(|error| error.to_string()).collect();
        assert_eq!(errors, [] as [&str; 0]);
    }
    for wrong in [
        "spol = 1",
        "drain = 25",
        "settle.quiet = \"250\"",
        "sinks.exec.format = \"json\"",
        "sinks.mine.dir = \"/x\"",
        "sinks.mine.type = \"gti\"",
        "policy.replicas_max = 101",
    ] {
        assert!(!validator.is_valid(&parsed(wrong)), "{wrong}");
    }
    for right in
        ["sinks.mine = { type = \"exec\", timeout = \"3s\" }", "sinks.exec.timeout = \"3s\""]
    {
        assert!(validator.is_valid(&parsed(right)), "{right}");
    }
}

#[test]
fn the_examples_of_a_site_are_accepted_by_the_program() {
    let site = Site::new();
    let drop_ins = site.root().join("conf.d");
    std::fs::create_dir(&drop_ins).unwrap();
    std::fs::copy(root().join("examples/site-policy.toml"), drop_ins.join("policy.toml")).unwrap();
    let schema = root().join("examples/site.schema.json").display().to_string();
    let finished = site.run(&["config", "check", "--schema", &schema]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    let shown = site.run(&["config", "show", "--origin"]).stdout;
    let line = shown.lines().find(|line| line.starts_with("replicas_max = 40")).unwrap();
    assert!(line.ends_with("conf.d/policy.toml:14"), "{line}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example() -> String {
    std::fs::read_to_string(root().join("examples/intentd.toml")).unwrap()
}

/// With the settings that stand right behind a `#`; prose has a space there.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase()) => rest.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn parsed(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}"));
    serde_json::to_value(table).unwrap()
}

/// Everything that is no table, by its whole key.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (name, value) in value.as_object().unwrap() {
        match value {
            Value::Object(_) => found.extend(
                leaves(value).into_iter().map(|(key, leaf)| (format!("{name}.{key}"), leaf)),
            ),
            leaf => {
                found.insert(name.clone(), leaf.clone());
            }
        }
    }
    found
}
