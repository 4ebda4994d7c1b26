//! Reads the text of a document into a value, once, and refuses what a lenient reader would let by.
//!
//! `serde_json` decides what JSON is. The visitor here adds, at no second pass: no key twice (however
//! it is escaped), nesting of at most [`DEPTH_MAX`], no hidden characters in keys and strings.
//!
//! Invariant: the visitor and [`crate::schema::locate::first_fault`] stop at the same first fault; a
//! property test and a fuzz target hold them to it. What it is called is `first_fault`'s word, which
//! is finer. Not here: where a fault stands (`locate`).

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Number, Value};

use crate::limits::DEPTH_MAX;
use crate::model::Code;
use crate::schema::character::refused_in;

/// A document as read.
#[derive(Debug)]
pub struct Parsed {
    pub value: Value,
    /// Values of all kinds in it, at any depth.
    pub values: usize,
    /// Bytes of the longest key.
    pub key_bytes_max: usize,
    /// Some number was not written as an integer that fits 64 bits.
    pub floats: bool,
}

/// Why the text was refused; `message` is `serde_json`'s, for a fault that cannot be located.
#[derive(Debug)]
pub struct Refused {
    pub code: Code,
    pub message: String,
}

/// Reads a text without BOM.
///
/// # Errors
///
/// The first fault in document order.
pub fn parse(text: &str) -> Result<Parsed, Refused> {
    let seen = Seen::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let value =
        Node { seen: &seen, depth: 0, breaks: false }.deserialize(&mut json).map_err(|error| {
            let code = seen.fault.get().unwrap_or(match error.classify() {
                Category::Eof => Code::Incomplete,
                Category::Syntax | Category::Data | Category::Io => Code::NotJson,
            });
            Refused { code, message: error.to_string() }
        })?;
    json.end().map_err(|error| Refused { code: Code::TrailingData, message: error.to_string() })?;
    let (values, key_bytes_max) = (seen.values.get(), seen.key_bytes_max.get());
    Ok(Parsed { value, values, key_bytes_max, floats: seen.floats.get() })
}

/// What the visitors of all levels have come across.
#[derive(Default)]
struct Seen {
    fault: Cell<Option<Code>>,
    values: Cell<usize>,
    key_bytes_max: Cell<usize>,
    floats: Cell<bool>,
}

/// One value that is about to be read.
#[derive(Clone, Copy)]
struct Node<'a> {
    seen: &'a Seen,
    /// Objects and arrays around it.
    depth: usize,
    /// Whether newlines and tabs may stand in it.
    breaks: bool,
}

impl Node<'_> {
    /// Stops the parse; the text of the error is never shown.
    fn refuse<E: serde::de::Error>(self, code: Code) -> E {
        self.seen.fault.set(Some(code));
        E::custom(code.title())
    }

    fn check<E: serde::de::Error>(self, text: &str, breaks: bool) -> Result<(), E> {
        match refused_in(text, breaks) {
            None => Ok(()),
            Some(_) => Err(self.refuse(Code::BadCharacter)),
        }
    }

    /// A value inside this one.
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.refuse(Code::TooDeep));
        }
        Ok(Node { depth: self.depth + 1, breaks: false, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.seen.values.set(self.seen.values.get() + 1);
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.seen.floats.set(true);
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.check(text, self.breaks)?;
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        self.check(&text, self.breaks)?;
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.check(&key, false)?;
            if object.contains_key(&key) {
                return Err(self.refuse(Code::DuplicateKey));
            }
            self.seen.key_bytes_max.set(self.seen.key_bytes_max.get().max(key.len()));
            let breaks = may_break(self.depth, &key);
            let value = entries.next_value_seed(Node { breaks, ..inner })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Whether the string under `key`, in an object with `depth` objects and arrays around it, may hold
/// newlines and tabs: only the two fields that people write prose into.
pub fn may_break(depth: usize, key: &str) -> bool {
    depth == 0 && matches!(key, "reason" | "description")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, code: Code) {
        assert_eq!(parse(text).expect_err("the text is refused").code, code, "{text:.80}");
    }

    #[test]
    fn each_fault_of_the_text_has_its_code() {
        check(r#"{"a":1,"a":2}"#, Code::DuplicateKey);
        check(r#"{"a":1,"\u0061":2}"#, Code::DuplicateKey);
        check(r#"[{"b":{"a":1,"a":1}}]"#, Code::DuplicateKey);
        check(r#"{"a\u202e":1}"#, Code::BadCharacter);
        check(r#"{"a":"\u007f"}"#, Code::BadCharacter);
        check(r#"{"target":"a\nb"}"#, Code::BadCharacter);
        check(r#"{"constraints":{"reason":"a\nb"}}"#, Code::BadCharacter);
        check(r#"{"reason":["a\nb"]}"#, Code::BadCharacter);
        check(r#"[{"reason":"a\nb"}]"#, Code::BadCharacter);
        check(r#"{"a":1"#, Code::Incomplete);
        check(r#"{"a":1} x"#, Code::TrailingData);
        check(r#"{"a":1}{"a":1}"#, Code::TrailingData);
        check(r#"{a:1}"#, Code::NotJson);
        check(&"[".repeat(20_000), Code::TooDeep);
    }

    #[test]
    fn depth_is_counted_from_the_top_value_and_its_limit_is_allowed() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        check(&nested(DEPTH_MAX + 1), Code::TooDeep);
    }

    #[test]
    fn prose_may_hold_newlines_and_tabs() {
        let parsed = parse(r#"{"reason":"a\nb","description":"\t","n":1}"#).unwrap();
        assert_eq!(parsed.value["reason"], "a\nb");
        assert_eq!((parsed.values, parsed.floats), (4, false));
    }

    #[test]
    fn a_number_that_is_no_integer_of_64_bits_is_noticed() {
        for (text, floats) in [
            ("3", false),
            ("18446744073709551615", false),
            ("-9223372036854775808", false),
            ("3.0", true),
            ("3e0", true),
            ("-0", true),
            ("18446744073709551616", true),
            ("-9223372036854775809", true),
        ] {
            assert_eq!(parse(text).unwrap().floats, floats, "{text}");
        }
    }
}
