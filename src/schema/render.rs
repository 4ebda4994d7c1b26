//! Shows violations to people: each with the line it stands in, in the manner of a compiler.
//!
//! Invariant: nothing of the document reaches the terminal that could move its cursor or hide text,
//! and a line of a megabyte is shown as the few words around the fault.
//! Not here: the same for programs, which is the JSON of the violations.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::model::{Code, Rejection, Violation};
use crate::schema::character::{is_refused, shown};
use crate::schema::locate::character_len;
use crate::schema::without_bom;

/// Renders a refusal of the document `text`, which was found in `file`; all of its violations.
pub fn snippet(file: &str, text: &[u8], rejection: &Rejection, color: bool) -> String {
    let file = shown(file, usize::MAX);
    let text = String::from_utf8_lossy(without_bom(text));
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    if rejection.violations.is_empty() {
        let title = Level::ERROR.primary_title(rejection.message.as_str());
        let title = title.id(rejection.code.as_str());
        return renderer.render(&[title.element(Origin::path(file.as_str()))]);
    }
    let violations = rejection.violations.iter();
    let rendered: Vec<String> =
        violations.map(|violation| renderer.render(&groups(&file, &text, violation))).collect();
    rendered.join("\n\n")
}

/// The fault itself, and the hint where there is one.
fn groups<'a>(file: &'a str, text: &str, violation: &'a Violation) -> Vec<Group<'a>> {
    let pointer = violation.pointer.as_deref().unwrap_or("");
    let title = match pointer.strip_prefix('/') {
        None => violation.message.clone(),
        Some(field) => format!("{field}: {}", violation.message),
    };
    let title = Level::ERROR.primary_title(title).id(violation.code.as_str());
    let fault = match (violation.line, violation.column) {
        (Some(line), Some(column)) => {
            let line = line as usize;
            let excerpt = Excerpt::of(text, line, column as usize, violation.code);
            let mark = AnnotationKind::Primary.span(excerpt.mark.clone());
            let mark = if pointer.is_empty() { mark } else { mark.label(format!("at {pointer}")) };
            let source = Snippet::source(excerpt.line).line_start(line).path(file);
            title.element(source.annotation(mark))
        }
        _ => title.element(Origin::path(file)),
    };
    let hint = violation.hint.as_deref();
    let help = hint.map(|hint| Group::with_title(Level::HELP.secondary_title(hint)));
    std::iter::once(fault).chain(help).collect()
}

/// The part of a line that is shown, and what is marked in it.
struct Excerpt {
    line: String,
    mark: std::ops::Range<usize>,
}

impl Excerpt {
    fn of(text: &str, line: usize, column: usize, code: Code) -> Self {
        let whole = text.split('\n').nth(line - 1).unwrap_or("");
        let whole = whole.strip_suffix('\r').unwrap_or(whole);
        let start = whole.char_indices().nth(column - 1).map_or(whole.len(), |(at, _)| at);
        let len = match code {
            Code::BadCharacter | Code::NotUtf8 | Code::NotJson => character_len(&whole[start..]),
            _ => token_len(&whole[start..]),
        };
        let end = whole.floor_char_boundary((start + len).min(whole.len())).max(start);
        let [before, marked, after] =
            [&whole[..start], &whole[start..end], &whole[end..]].map(harmless);
        let mark = before.len()..before.len() + marked.len();
        Excerpt { line: [before, marked, after].concat(), mark }
    }
}

/// Bytes of the JSON token at the start of `text`; of an object or array, its bracket.
fn token_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'"') => {
            let mut at = 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at + 1
        }
        Some(b'{' | b'}' | b'[' | b']' | b',' | b':') => 1,
        _ => text.find([',', ':', '{', '}', '[', ']', ' ', '\t']).unwrap_or(text.len()),
    }
}

/// Each refused character becomes one that stands for it, so that columns stay.
fn harmless(text: &str) -> String {
    let replaced = |char| if is_refused(char) && char != '\t' { '\u{fffd}' } else { char };
    text.chars().map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Policy, Schema};

    fn rendered(text: &[u8]) -> String {
        let rejection = Schema::builtin().judge(text, &Policy::default()).unwrap_err();
        snippet("/var/spool/intentd/inbox/intent-a.json", text, &rejection, false)
    }

    #[test]
    fn a_violation_is_shown_in_its_line_with_pointer_and_hint() {
        let text = "{\n  \"intent_type\": \"scaling\",\n  \"target\": \"web\",\n  \"namespace\": \
                    \"default\",\n  \"replicas\": 500\n}\n";
        assert_eq!(
            rendered(text.as_bytes()),
            r#"
error[SCHEMA_MAXIMUM]: replicas: 500 is greater than the maximum of 100
 --> /var/spool/intentd/inbox/intent-a.json:5:15
  |
5 |   "replicas": 500
  |               ^^^ at /replicas
  |
help: use a value from 1 to 100"#
                .trim_start()
        );
    }

    #[test]
    fn all_violations_are_shown_and_neither_bom_nor_tab_shifts_the_mark() {
        let text = "\u{feff}{\r\n\t\"intent_type\": \"scale\",\r\n\t\"target\": \"web\",\r\n\t\
                    \"namespce\": \"default\", \"replicas\": 1}";
        assert_eq!(
            rendered(text.as_bytes()),
            r#"
error[SCHEMA_REQUIRED]: the required field `namespace` is missing
 --> /var/spool/intentd/inbox/intent-a.json:1:1
  |
1 | {
  | ^

error[SCHEMA_ENUM]: intent_type: "scale" is not allowed
 --> /var/spool/intentd/inbox/intent-a.json:2:17
  |
2 |     "intent_type": "scale",
  |                    ^^^^^^^ at /intent_type

error[SCHEMA_UNKNOWN_FIELD]: namespce: `namespce` is not a known field
 --> /var/spool/intentd/inbox/intent-a.json:4:2
  |
4 |     "namespce": "default", "replicas": 1}
  |     ^^^^^^^^^^ at /namespce
  |
help: did you mean `namespace`?"#
                .trim_start()
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_fault() {
        let text = format!("{{\"reason\":\"{}\" \"x\":\"{}\"}}", "r".repeat(500), "x".repeat(500));
        let shown = rendered(text.as_bytes());
        assert!(shown.contains("intent-a.json:1:514"), "{shown}");
        assert!(shown.contains("rrr\" \"x\":\"xxx"), "{shown}");
        assert!(shown.lines().all(|line| line.len() < 160), "{shown}");
    }

    #[test]
    fn no_raw_control_of_the_document_or_its_name_is_printed() {
        for text in ["{\"a\u{9b}2J\u{202e}\": \"\u{1b}[2J\"}", "{\"a\": \"\u{1b}[2J\r\"}", "\u{1b}"]
        {
            let rejection =
                Schema::builtin().judge(text.as_bytes(), &Policy::default()).unwrap_err();
            let shown = snippet("a\u{1b}[2J.json", text.as_bytes(), &rejection, false);
            assert!(!shown.chars().any(|char| is_refused(char) && char != '\n'), "{shown:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_shown_where_they_stand() {
        let shown = rendered(b"{\n \"a\": \"b\xff\"}");
        assert!(shown.contains("intent-a.json:2:9"), "{shown}");
        assert!(shown.contains("\"a\": \"b\u{fffd}\"}"), "{shown}");
    }

    #[test]
    fn a_refusal_without_a_place_names_the_file() {
        let file = "--> /var/spool/intentd/inbox/intent-a.json";
        let empty = rendered(b" \n");
        assert!(empty.starts_with("error[EMPTY]: ") && empty.ends_with(file), "{empty}");
        let large = Rejection::of_file(Code::TooLarge, "the file is too large");
        let shown = snippet("a.json", b"", &large, false);
        assert_eq!(shown, "error[TOO_LARGE]: the file is too large\n--> a.json");
    }

    #[test]
    fn colour_is_given_only_where_it_is_asked_for() {
        let large = Rejection::of_file(Code::TooLarge, "the file is too large");
        assert!(snippet("a.json", b"", &large, true).contains("\u{1b}["));
        assert!(!snippet("a.json", b"", &large, false).contains('\u{1b}'));
    }
}
