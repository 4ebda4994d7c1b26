//! Judges numbers by their text, which a parsed value no longer has.
//!
//! Where an integer is asked, only `-?(0|[1-9][0-9]*)` other than `-0` will do, though JSON Schema
//! would take `3.0`. Elsewhere (in keys of `constraints` that we do not know) a fraction is as good
//! as any, but an integer past 64 bits, or `-0`, would reach the next reader as another number:
//! those are refused as SCHEMA_MAXIMUM, SCHEMA_MINIMUM and SCHEMA_TYPE.

use crate::limits::VIOLATIONS_MAX;
use crate::model::Code;
use crate::schema::finding::Finding;
use crate::schema::walk::{Token, Walk};
use crate::schema::wording::Wrong;

/// Fields of our schema that hold an integer.
const INTEGER_FIELDS: [&str; 4] =
    ["/replicas", "/priority", "/constraints/max_replicas", "/constraints/min_replicas"];

/// Adds what the numbers of a document have against it, unless the schema has said so already.
/// Only called for a document in which some number does not fit an integer of 64 bits.
pub fn check(text: &str, findings: &mut Vec<Finding>) {
    let mut walk = Walk::over(text);
    let mut found = 0;
    while found < VIOLATIONS_MAX
        && let Ok(Some(token)) = walk.step()
    {
        let Token::Number(span) = token else { continue };
        let number = &text[span];
        if fits(number) {
            continue;
        }
        // A pointer is as long as the keys in it: none is made for each of a million fractions.
        if !is_integer(number) && !may_be_asked(&walk) {
            continue;
        }
        let pointer = walk.pointer(0);
        if !is_integer(number) && !INTEGER_FIELDS.contains(&pointer.as_str()) {
            continue;
        }
        found += 1;
        let code = fault(&pointer, number);
        if findings.iter().any(|other| other.code == code && other.pointer == pointer) {
            continue;
        }
        let wrong = match code {
            Code::SchemaMinimum => Wrong::Below { limit: i64::MIN.to_string(), range: None },
            Code::SchemaMaximum => Wrong::Above { limit: u64::MAX.to_string(), range: None },
            _ => Wrong::Type { expected: "an integer".to_owned() },
        };
        findings.push(Finding { code, pointer, wrong });
    }
}

/// The code for a number that cannot be taken as it is written.
pub fn fault(pointer: &str, number: &str) -> Code {
    if number == "-0" || (!is_integer(number) && INTEGER_FIELDS.contains(&pointer)) {
        Code::SchemaType
    } else if number.starts_with('-') {
        Code::SchemaMinimum
    } else {
        Code::SchemaMaximum
    }
}

/// Whether the current value could be a field that holds an integer, by its own key and depth.
fn may_be_asked(walk: &Walk<'_>) -> bool {
    walk.depth() <= 2
        && walk.segment(0).is_some_and(|key| {
            INTEGER_FIELDS.iter().any(|field| field.rsplit('/').next() == Some(&key))
        })
}

fn fits(number: &str) -> bool {
    number != "-0" && (number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok())
}

fn is_integer(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}
