//! Documents of a seed: intents of every shape, written in every way that JSON allows, some of them
//! damaged afterwards.

use serde_json::{Map, Value, json};

use crate::report::Random;

/// Characters with a way of their own through some parser.
const CHARS: &[char] = &[
    'a',
    'Z',
    '0',
    ' ',
    '"',
    '\\',
    '/',
    '\'',
    '<',
    '&',
    '\u{a0}',
    'é',
    'ß',
    '\u{300}',
    '\u{7ff}',
    '\u{800}',
    '語',
    '\u{d7ff}',
    '\u{e000}',
    '\u{fffd}',
    '😀',
    '\u{10fffd}',
    '$',
    '{',
    ':',
    ',',
];

/// Numbers in forms that readers may disagree on.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "7",
    "1.0",
    "0.1",
    "1e3",
    "1E+2",
    "-0.0",
    "2.5e-3",
    "1e308",
    "5e-324",
    "1e-400",
    "0.30000000000000004",
    "123456789012345678901234567890e-20",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "-9223372036854775808",
    "2.2250738585072011e-308",
    "1.7976931348623157e308",
    "4503599627370496.5",
    "0e0",
    "100e-2",
    "18446744073709551616",
    "-9223372036854775809",
    "-0",
    "1e400",
];

/// Pieces that damage a document, or nearly.
const PIECES: &[&str] = &[
    ",",
    ":",
    "\"",
    "{",
    "}",
    "[",
    "]",
    " ",
    "\n",
    "\t",
    "null",
    "true",
    "1",
    "-",
    ".",
    "e9",
    "\\",
    "\\u0061",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\u202e",
    "\\/",
    "\\n",
    "\u{202e}",
    "\u{feff}",
    "\u{0}",
    "\"replicas\":9,",
    "\"\\u0072eplicas\":9,",
    "\"x\":1,",
    "//",
    "/**/",
    "NaN",
    "0",
    "00",
    "+",
];

/// A document, of which the next one knows nothing.
pub fn document(random: &mut Random) -> Vec<u8> {
    let mut text = String::new();
    if random.below(16) == 0 {
        text.push('\u{feff}');
    }
    blanks(random, &mut text);
    write(&intent(random), 0, random, &mut text);
    blanks(random, &mut text);
    let mut bytes = text.into_bytes();
    if random.below(2) == 0 {
        for _ in 0..=random.below(3) {
            damage(random, &mut bytes);
        }
    }
    bytes
}

fn one_of<T: Copy>(random: &mut Random, list: &[T]) -> T {
    list[random.below(list.len() as u64) as usize]
}

fn words(random: &mut Random) -> String {
    (0..random.below(12)).map(|_| one_of(random, CHARS)).collect()
}

/// An intent with some of the optional fields; the schema takes nearly all of them.
fn intent(random: &mut Random) -> Value {
    let mut intent = json!({
        "intent_type": one_of(random, &["scaling", "deployment", "configuration"]),
        "target": one_of(random, &["web", "1e3", "no", "a-b"]), "namespace": "default",
        "replicas": random.below(100) + 1,
    });
    let further = [
        ("reason", json!(words(random))),
        ("source", json!(one_of(random, &["user", "planner", "test", ""]))),
        ("correlation_id", json!(words(random))),
        ("priority", json!(random.below(11))),
        ("constraints", further(random)),
        ("created_at", json!("2025-08-28T10:30:00.5+02:00")),
        ("status", json!("pending")),
        ("target_resources", json!([format!("r{}", words(random)), "b"])),
        ("description", json!(words(random) + one_of(random, &["", "\n", "\t"]))),
        ("nephio_context", json!({"workload_cluster": words(random)})),
    ];
    for (key, value) in further {
        if random.below(3) == 0 {
            intent[key] = value;
        }
    }
    intent
}

/// What may stand in `constraints`, which is open to other keys. A number is a string that begins
/// with `#` until it is written, since its form would not live in a value.
fn further(random: &mut Random) -> Value {
    let mut object = Map::new();
    object.insert("max_replicas".to_owned(), json!(100));
    for _ in 0..random.below(4) {
        let key = one_of(random, &["__proto__", "1", "10", "2", "a", "x", "toString", ""]);
        let value = match random.below(6) {
            0 => Value::Null,
            1 => json!(random.below(2) == 0),
            2 => json!({words(random): [words(random), {}], "0": []}),
            3 => json!(words(random)),
            _ => json!([format!("#{}", one_of(random, NUMBERS)), words(random)]),
        };
        object.insert(key.to_owned() + &words(random), value);
    }
    Value::Object(object)
}

fn blanks(random: &mut Random, text: &mut String) {
    for _ in 0..random.below(6).saturating_sub(3) {
        text.push(one_of(random, &[' ', '\n', '\t', '\r']));
    }
}

fn write(value: &Value, depth: usize, random: &mut Random, text: &mut String) {
    match value {
        Value::String(string) => match string.strip_prefix('#') {
            Some(number) if depth > 1 => text.push_str(number),
            _ => quote(string, random, text),
        },
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                blanks(random, text);
                write(item, depth + 1, random, text);
                blanks(random, text);
            }
            text.push(']');
        }
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            for index in 1..entries.len() {
                entries.swap(index, random.below(index as u64 + 1) as usize);
            }
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                text.push_str(if index == 0 { "" } else { "," });
                blanks(random, text);
                quote(key, random, text);
                blanks(random, text);
                text.push(':');
                blanks(random, text);
                write(value, depth + 1, random, text);
                blanks(random, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}

/// Writes a string with each character raw or escaped in one of the ways that there are.
fn quote(string: &str, random: &mut Random, text: &mut String) {
    text.push('"');
    for char in string.chars() {
        let short = match char {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '/' => Some("\\/"),
            '\n' => Some("\\n"),
            '\t' => Some("\\t"),
            _ => None,
        };
        let must = matches!(char, '"' | '\\' | '\n' | '\t');
        match (short, random.below(8)) {
            (_, 0) => {
                let upper = random.below(2) == 0;
                for unit in char.encode_utf16(&mut [0; 2]) {
                    let escape =
                        if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
                    text.push_str(&escape);
                }
            }
            (Some(short), choice) if must || choice < 4 => text.push_str(short),
            _ => text.push(char),
        }
    }
    text.push('"');
}

fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    let len = bytes.len() as u64;
    if len == 0 {
        return;
    }
    let at = random.below(len) as usize;
    let end = (at + 1 + random.below(8) as usize).min(bytes.len());
    match random.below(6) {
        0 => bytes[at] = random.next() as u8,
        1 => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = one_of(random, PIECES).as_bytes();
            bytes.splice(at..at, piece.iter().copied());
        }
        4 => {
            let copied = bytes[at..end].to_vec();
            let to = random.below(len) as usize;
            bytes.splice(to..to, copied);
        }
        _ => bytes.truncate(at),
    }
}
