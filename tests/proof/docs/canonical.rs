//! One text for one meaning, which is easily written in any language.
//!
//! `null`, `true`, `false`; an integer as `i` and its digits; another number as `f` and the 16 hex
//! digits of its double; a string as `s` and the hex digits of its UTF-8; `[…,…]`; `{key:value,…}`
//! with keys in hex, sorted. `reader.py` and `reader.js` write the same.

use serde_json::{Number, Value};

/// What numbers the other parser has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Integers of any size, and doubles.
    Exact,
    /// Doubles only: every number is one.
    Doubles,
}

pub fn text(value: &Value, numbers: Numbers) -> String {
    match value {
        Value::Null | Value::Bool(_) => value.to_string(),
        Value::Number(number) => match (integer(number), numbers) {
            (Some(integer), Numbers::Exact) => format!("i{integer}"),
            (Some(integer), Numbers::Doubles) => double(integer as f64),
            (None, _) => double(number.as_f64().expect("it is a double")),
        },
        Value::String(text) => format!("s{}", hex(text)),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| text(item, numbers)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(object) => {
            let entry =
                |(key, value): (&String, _)| format!("{}:{}", hex(key), text(value, numbers));
            let mut entries: Vec<String> = object.iter().map(entry).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
    }
}

fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or(number.as_u64().map(i128::from))
}

fn double(number: f64) -> String {
    format!("f{:016x}", number.to_bits())
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}
