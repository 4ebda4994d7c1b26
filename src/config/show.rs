//! The configuration and its keys, shown: as TOML, as a table for the README, as a JSON Schema.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use crate::config::Loaded;
use crate::config::key::{KEYS, Key, SINK_KEYS};
use crate::config::layer::{default_of, sink_keys};
use crate::config::value::{Form, Value};

impl Loaded {
    /// What holds, as TOML that could be read again; with `origin`, where each value comes from.
    pub fn show(&self, origin: bool) -> String {
        let mut text = String::new();
        let mut section = "";
        for key in KEYS {
            let Some((value, from)) = self.layers.values.get(key.path) else { continue };
            let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if above != section {
                let _ = write!(text, "\n[{above}]\n");
                section = above;
            }
            let _ = write!(text, "{name} = {value}");
            let _ = if origin { writeln!(text, "  # {from}") } else { writeln!(text) };
        }
        for (sink, table) in &self.layers.sinks {
            let name = Value::Text(sink.clone()).to_string();
            let _ = write!(text, "\n[sinks.{name}]\n");
            for (key, (value, from)) in table {
                let _ = write!(text, "{key} = {value}");
                let _ = if origin { writeln!(text, "  # {from}") } else { writeln!(text) };
            }
        }
        text
    }
}

/// The table of all keys for the README.
pub fn markdown_table() -> String {
    let mut text = "| key | takes | default | what it is |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let flag = key.flag.map_or(String::new(), |flag| format!(" (`--{flag}`)"));
        let _ = row(&mut text, &format!("`{}`{flag}", key.path), key);
    }
    for (kind, keys) in SINK_KEYS {
        for key in *keys {
            let _ = row(&mut text, &format!("`[sinks.{kind}]` `{}`", key.path), key);
        }
    }
    text
}

fn row(text: &mut String, name: &str, key: &Key) -> std::fmt::Result {
    let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
    let about = key.about.replace('|', "\\|");
    writeln!(text, "| {name} | {} | {default} | {about} |", key.form.expected())
}

/// A JSON Schema of the configuration file, for editors.
pub fn schema() -> Json {
    let mut top = Map::new();
    for key in KEYS {
        match key.path.split_once('.') {
            None => {
                top.insert(key.path.to_owned(), key_schema(key));
            }
            Some((section, name)) => {
                let section = top
                    .entry(section)
                    .or_insert_with(|| json!({"type": "object", "additionalProperties": false}));
                section["properties"][name] = key_schema(key);
            }
        }
    }
    let kinds: Vec<&str> = SINK_KEYS.iter().map(|(kind, _)| *kind).collect();
    let mut sink = Map::new();
    sink.insert("type".to_owned(), json!({"type": "string", "enum": kinds}));
    for kind in &kinds {
        for key in sink_keys(kind).unwrap_or_default() {
            sink.insert(key.path.to_owned(), key_schema(key));
        }
    }
    top.insert(
        "sinks".to_owned(),
        json!({
            "type": "object",
            "description": "sinks by name; `type` defaults to the name",
            "additionalProperties":
                {"type": "object", "additionalProperties": false, "properties": sink},
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:intentd:schema:config:v1",
        "title": "intentd configuration",
        "description": "The file intentd.toml and the files in conf.d beside it.",
        "type": "object",
        "additionalProperties": false,
        "properties": top,
    })
}

fn key_schema(key: &Key) -> Json {
    let mut schema = match key.form {
        Form::Text | Form::Path => json!({"type": "string"}),
        Form::Flag => json!({"type": "boolean"}),
        Form::List => json!({"type": "array", "items": {"type": "string"}}),
        Form::Count { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Form::Time { .. } => json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}),
        Form::Size { .. } => json!({"type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$"}),
        Form::Choice(choices) => json!({"type": "string", "enum": choices}),
        Form::Bounds => json!({
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "namespace": {"type": "string"},
                    "target": {"type": "string"},
                    "min": {"type": "integer", "minimum": 1, "maximum": 100},
                    "max": {"type": "integer", "minimum": 1, "maximum": 100},
                },
            },
        }),
    };
    schema["description"] = json!(format!("{}; takes {}", key.about, key.form.expected()));
    if !key.default.is_empty() {
        schema["default"] = match default_of(key) {
            Value::Text(text) => json!(text),
            Value::Flag(flag) => json!(flag),
            Value::Count(number) => json!(number),
            Value::List(items) => json!(items),
            Value::Bounds(_) => json!([]),
            shown @ (Value::Time(_) | Value::Size(_)) => {
                json!(shown.to_string().trim_matches('"'))
            }
        };
    }
    schema
}
