//! The configuration and its keys, shown: as TOML, as a table for the README, as a JSON Schema.

use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

use crate::config::Loaded;
use crate::config::key::{KEYS, Key, SINK_KEYS};
use crate::config::layer::default_of;
use crate::config::value::{Form, REPLICAS, Value};

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
            // A dot in the name would begin another table.
            let name = match sink.contains('.') {
                true => Value::Text(sink.clone()).to_string(),
                false => sink.clone(),
            };
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
    let mut text =
        "| key | takes | default | SIGHUP | what it is |\n|---|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let flag = key.flag.map_or(String::new(), |flag| format!(" (`--{flag}`)"));
        text += &row(&format!("`{}`{flag}", key.path), key);
    }
    for (kind, keys) in SINK_KEYS {
        for key in *keys {
            text += &row(&format!("`[sinks.{kind}]` `{}`", key.path), key);
        }
    }
    text
}

fn row(name: &str, key: &Key) -> String {
    let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
    let reload = if key.live { "yes" } else { "restart" };
    let cells = [name, &key.form.expected(), &default, reload, key.about];
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
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
    top.insert("sinks".to_owned(), sinks_schema());
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

/// A sink whose name is a type may leave `type` out; every other one has to have it.
fn sinks_schema() -> Json {
    let table = |kind: &str, keys: &[Key]| {
        let mut properties = Map::new();
        properties.insert("type".to_owned(), json!({"const": kind}));
        properties.extend(keys.iter().map(|key| (key.path.to_owned(), key_schema(key))));
        json!({"type": "object", "additionalProperties": false, "properties": properties})
    };
    let mut named = Map::new();
    let mut any = Vec::new();
    for (kind, keys) in SINK_KEYS {
        let typed = table(kind, keys);
        let mut required = typed.clone();
        required["required"] = json!(["type"]);
        any.push(required);
        named.insert((*kind).to_owned(), typed);
    }
    // A sink may be named like a type and be of another one.
    let properties: Map<String, Json> = named
        .into_iter()
        .map(|(name, own)| (name, json!({"anyOf": [own, {"oneOf": any.clone()}]})))
        .collect();
    json!({
        "type": "object",
        "description": "sinks by name; `type` defaults to the name",
        "properties": properties,
        "additionalProperties": {"oneOf": any},
    })
}

fn key_schema(key: &Key) -> Json {
    let mut schema = form_schema(key.form);
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

fn form_schema(form: Form) -> Json {
    match form {
        Form::Text | Form::Level => json!({"type": "string"}),
        Form::Path => json!({"type": "string", "minLength": 1}),
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
                    "min": form_schema(REPLICAS),
                    "max": form_schema(REPLICAS),
                },
            },
        }),
    }
}
