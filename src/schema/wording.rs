//! What is said about each kind of finding: message, what was expected, a hint.
//!
//! Not here: where it stands (`locate`), and faults of the text as such (`refusal`).

use std::rc::Rc;

use serde_json::Value;

use crate::limits::FOUND_CHARS_MAX;
use crate::schema::character::shown;

/// The pattern of a DNS-1123 label, as in our schema.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Characters of what is expected, or of a rule in a validator's words: a list of options may be long.
const EXPECTED_CHARS_MAX: usize = 240;

/// What is wrong with a value, a key or an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Wrong {
    Missing {
        field: String,
    },
    Unknown {
        key: String,
        known: Rc<[String]>,
    },
    Type {
        expected: String,
    },
    Option {
        options: Vec<Value>,
    },
    Below {
        limit: String,
        range: Option<String>,
    },
    Above {
        limit: String,
        range: Option<String>,
    },
    Pattern {
        pattern: String,
    },
    Format {
        format: String,
    },
    TooLong {
        count: usize,
        limit: u64,
        unit: &'static str,
    },
    TooShort {
        count: usize,
        limit: u64,
        unit: &'static str,
    },
    /// A rule of another kind, in the validator's words.
    Rule {
        message: String,
    },
    /// A rule between fields or of the site; `message` continues the value that is found.
    Against {
        message: String,
        expected: String,
        hint: Option<String>,
    },
}

/// The words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    pub message: String,
    pub expected: Option<String>,
    pub hint: Option<String>,
    /// Whether the value is worth repeating.
    pub found: bool,
}

impl Wrong {
    /// `found` is the value as it may be shown, `source` as it stands in the text.
    pub fn words(self, found: &str, source: &str) -> Words {
        let said = |message: String, expected: String, hint: Option<String>| Words {
            message,
            expected: Some(shown(&expected, EXPECTED_CHARS_MAX)),
            hint,
            found: true,
        };
        match self {
            Wrong::Missing { field } => {
                let field = shown(&field, FOUND_CHARS_MAX);
                let message = format!("the required field `{field}` is missing");
                Words { found: false, ..said(message, format!("a field `{field}`"), None) }
            }
            Wrong::Unknown { key, known } => {
                let hint = nearest(&key, &known).map(|name| format!("did you mean `{name}`?"));
                let message = format!("`{}` is not a known field", shown(&key, FOUND_CHARS_MAX));
                said(message, listed(&known), hint)
            }
            Wrong::Type { expected } => {
                let hint = retyped(source, &expected);
                said(format!("{found} is not {expected}"), expected, hint)
            }
            Wrong::Option { options } => {
                let texts: Vec<String> = options.iter().map(Value::to_string).collect();
                let hint = serde_json::from_str::<String>(source)
                    .ok()
                    .and_then(|text| nearest(&text, &strings(&options)).map(str::to_owned))
                    .map(|option| format!("did you mean `{option}`?"));
                let expected = match texts.as_slice() {
                    [only] => only.clone(),
                    several => format!("one of {}", several.join(", ")),
                };
                said(format!("{found} is not allowed"), expected, hint)
            }
            Wrong::Below { limit, range } => said(
                format!("{found} is less than the minimum of {limit}"),
                format!("at least {limit}"),
                range.map(|range| format!("use a value {range}")),
            ),
            Wrong::Above { limit, range } => said(
                format!("{found} is greater than the maximum of {limit}"),
                format!("at most {limit}"),
                range.map(|range| format!("use a value {range}")),
            ),
            Wrong::Pattern { pattern } if pattern == LABEL => said(
                format!("{found} is not a DNS-1123 label"),
                "lower-case letters, digits and `-`, with a letter or digit at both ends"
                    .to_owned(),
                relabelled(source),
            ),
            Wrong::Pattern { pattern } => {
                let pattern = shown(&pattern, EXPECTED_CHARS_MAX);
                let message = format!("{found} does not have the form that is asked for");
                said(message, format!("text that matches `{pattern}`"), None)
            }
            Wrong::Format { format } => {
                let hint = (format == "date-time")
                    .then(|| "write it like 2025-08-28T10:30:00Z (RFC 3339)".to_owned());
                let format = shown(&format, FOUND_CHARS_MAX);
                said(format!("{found} is not a valid {format}"), format!("a {format}"), hint)
            }
            Wrong::TooLong { count, limit, unit } => said(
                format!("{count} {unit} are more than the {limit} allowed"),
                format!("at most {limit} {unit}"),
                None,
            ),
            Wrong::TooShort { count: 0, limit, unit } => {
                said("it is empty".to_owned(), format!("at least {limit} {unit}"), None)
            }
            Wrong::TooShort { count, limit, unit } => said(
                format!("{count} {unit} are fewer than the {limit} required"),
                format!("at least {limit} {unit}"),
                None,
            ),
            Wrong::Rule { message } => Words {
                message: shown(&message, EXPECTED_CHARS_MAX),
                expected: None,
                hint: Some("see the site's schema".to_owned()),
                found: true,
            },
            Wrong::Against { message, expected, hint } => {
                said(format!("{found} {message}"), expected, hint)
            }
        }
    }
}

fn listed(known: &[String]) -> String {
    if known.is_empty() {
        "no such field".to_owned()
    } else {
        format!("one of {}", known.join(", "))
    }
}

fn strings(options: &[Value]) -> Vec<String> {
    options.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What to write instead of a value that only looks like the right type.
fn retyped(source: &str, expected: &str) -> Option<String> {
    if expected != "an integer" {
        let scalar = source.starts_with(|char: char| char.is_ascii_alphanumeric() || char == '-');
        let quotable = expected == "a string" && source != "null" && scalar;
        return quotable.then(|| "put it into double quotes".to_owned());
    }
    let bare = source.trim_matches('"');
    let number: f64 = bare.parse().ok()?;
    let whole = number.fract() == 0.0 && number.abs() < 1e15;
    whole.then(|| format!("write {number:.0}").replace("-0", "0"))
}

/// A label that was probably meant.
fn relabelled(source: &str) -> Option<String> {
    let text: String = serde_json::from_str(source).ok()?;
    let label = text.to_ascii_lowercase().replace(['_', '.', ' '], "-");
    let inner = label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let ends = !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    (inner && ends && label.len() <= 63).then(|| format!("did you mean `{label}`?"))
}

/// The known name that differs from `name` in case alone, or else in at most two letters.
fn nearest<'k>(name: &str, known: &'k [String]) -> Option<&'k str> {
    let name: Vec<char> = name.chars().take(FOUND_CHARS_MAX).flat_map(char::to_lowercase).collect();
    known
        .iter()
        .map(|known| (distance(&name, known), known.as_str()))
        // A short word is near everything: at least half of it must be right.
        .filter(|(distance, known)| *distance <= 2 && distance * 2 < known.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// Letters to insert, remove, replace or swap with their neighbour; names are compared in lower case.
fn distance(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().flat_map(char::to_lowercase).collect();
    if left.len().abs_diff(right.len()) > 2 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let replaced = above[j] + usize::from(l != r);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_a_foreign_one_is_not() {
        let known: Vec<String> =
            ["namespace", "replicas", "target", "status"].map(str::to_owned).to_vec();
        for (name, near) in [
            ("namespce", Some("namespace")),
            ("NameSpace", Some("namespace")),
            ("repilcas", Some("replicas")),
            ("REPLICAS", Some("replicas")),
            ("tgt", None),
            ("kind", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_comes_with_what_to_write() {
        for (source, expected, hint) in [
            ("3.0", "an integer", Some("write 3")),
            ("3e0", "an integer", Some("write 3")),
            ("\"3\"", "an integer", Some("write 3")),
            ("-0", "an integer", Some("write 0")),
            ("2.5", "an integer", None),
            ("5", "a string", Some("put it into double quotes")),
            ("null", "a string", None),
            ("{", "a string", None),
        ] {
            assert_eq!(retyped(source, expected).as_deref(), hint, "{source}");
        }
    }
}
