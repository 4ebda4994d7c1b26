//! Refusals of a text that is no proper document, each with the place of its first fault.

use crate::limits::{DEPTH_MAX, FOUND_CHARS_MAX};
use crate::model::{Code, Rejection, Violation};
use crate::schema::character::{named, shown};
use crate::schema::finding::bounded;
use crate::schema::locate::{Fault, Position, first_fault};
use crate::schema::parse::Refused;
use crate::schema::walk::decoded;

/// The bytes are not UTF-8.
pub fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> Rejection {
    let (before, rest) = bytes.split_at(error.valid_up_to());
    let before = std::str::from_utf8(before).expect("the error says that this part is UTF-8");
    let bad = &rest[..error.error_len().unwrap_or(rest.len())];
    let found: String = bad.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let hint = if utf16 { "it is UTF-16; save it as UTF-8" } else { "save the file as UTF-8" };
    Rejection::of_document(vec![Violation {
        expected: Some("UTF-8".to_owned()),
        found: Some(found),
        hint: Some(hint.to_owned()),
        ..at(Code::NotUtf8, before, before.len(), "the bytes are not UTF-8".to_owned())
    }])
}

/// There is nothing but blanks.
pub fn empty() -> Rejection {
    let message = "the document is empty; write it before you let go of the file".to_owned();
    let violation = at(Code::Empty, "", 0, message);
    // No position: there is nothing to look at.
    Rejection::of_document(vec![Violation { line: None, column: None, ..violation }])
}

/// The document is JSON, but not an object.
pub fn not_object(text: &str, kind: &'static str) -> Rejection {
    let start = text.len() - text.trim_start_matches([' ', '\t', '\r', '\n']).len();
    Rejection::of_document(vec![Violation {
        pointer: Some(String::new()),
        expected: Some("an object".to_owned()),
        found: Some(kind.to_owned()),
        hint: Some("write one intent, in braces, to a file".to_owned()),
        ..at(Code::NotObject, text, start, format!("the document is {kind}, not an object"))
    }])
}

/// The text was refused while it was read.
pub fn unreadable(text: &str, refused: Refused) -> Rejection {
    let Some(fault) = first_fault(text) else {
        let message = shown(&refused.message, FOUND_CHARS_MAX);
        let violation = at(refused.code, "", 0, message);
        return Rejection::of_document(vec![Violation { line: None, column: None, ..violation }]);
    };
    let source = &text[fault.span.clone()];
    let char = source.chars().next();
    let words = words(&fault, source, text);
    let found = match fault.code {
        Code::BadCharacter => decoded_char(source).map(named),
        Code::TrailingData => Some(shown(&text[fault.span.start..], FOUND_CHARS_MAX)),
        Code::Incomplete | Code::TooDeep => None,
        _ => char.map(|_| shown(source, FOUND_CHARS_MAX)),
    };
    Rejection::of_document(vec![Violation {
        pointer: fault.pointer.map(bounded),
        expected: words.expected,
        found,
        hint: words.hint,
        ..at(fault.code, text, fault.span.start, words.message)
    }])
}

struct Words {
    message: String,
    expected: Option<String>,
    hint: Option<String>,
}

fn words(fault: &Fault, source: &str, text: &str) -> Words {
    let said = |message: String, hint: Option<&str>| Words {
        message,
        expected: fault.expected.map(str::to_owned),
        hint: hint.map(str::to_owned),
    };
    match fault.code {
        Code::Incomplete => said(
            "the document ends in the middle".to_owned(),
            Some("write to a temporary name and rename the file when it is complete"),
        ),
        Code::TrailingData => {
            said("something follows the document".to_owned(), Some("write one document to a file"))
        }
        Code::DuplicateKey => {
            let key = shown(&decoded(source), FOUND_CHARS_MAX);
            said(format!("the key `{key}` stands here a second time"), Some("keep one of the two"))
        }
        Code::BadCharacter => {
            let name = decoded_char(source).map_or_else(|| "the character".to_owned(), named);
            let message = format!("the character {name} is not allowed here");
            said(message, Some(Code::BadCharacter.remedy()))
        }
        Code::TooDeep => {
            let message = format!("objects and arrays are nested more than {DEPTH_MAX} deep");
            let expected = Some(format!("at most {DEPTH_MAX} levels, the top object counted"));
            Words { message, expected, hint: Some("flatten the document".to_owned()) }
        }
        Code::SchemaType => {
            said(format!("{} is not an integer", shown(source, FOUND_CHARS_MAX)), None)
        }
        Code::SchemaMinimum => said("the number is too small for any reader".to_owned(), None),
        Code::SchemaMaximum => said("the number is too large for any reader".to_owned(), None),
        _ => {
            let message = match fault.expected {
                Some(expected) => {
                    format!("{expected} is expected where `{}` stands", shown(source, 8))
                }
                None => "the document is not JSON".to_owned(),
            };
            said(message, syntax_hint(source, &text[..fault.span.start]))
        }
    }
}

/// What to do about the usual slips.
fn syntax_hint(found: &str, before: &str) -> Option<&'static str> {
    match found {
        "/" | "#" => Some("JSON has no comments"),
        "'" => Some("use double quotes"),
        "}" | "]" if before.trim_end().ends_with(',') => Some("remove the comma before it"),
        "\n" | "\r" => Some("write \\n in place of the line break"),
        "\t" => Some("write \\t in place of the tab"),
        _ => None,
    }
}

fn decoded_char(source: &str) -> Option<char> {
    if source.starts_with('\\') {
        decoded(&format!("\"{source}\"")).chars().next()
    } else {
        source.chars().next()
    }
}

fn at(code: Code, text: &str, at: usize, message: String) -> Violation {
    let Position { line, column } = Position::of(text, at);
    Violation {
        code,
        pointer: None,
        line: Some(line),
        column: Some(column),
        message,
        expected: None,
        found: None,
        hint: None,
    }
}
