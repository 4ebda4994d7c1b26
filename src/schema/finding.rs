//! Something wrong with a document that is JSON, and how findings become violations.
//!
//! A finding is cheap and says what is wrong where; only those that are reported are looked up in
//! the text and put into words, so ten thousand unknown keys cost no more than their walk.
//!
//! Invariant: violations stand in document order, at most [`VIOLATIONS_MAX`], none said twice.

use std::collections::HashSet;
use std::ops::Range;

use crate::limits::{FOUND_CHARS_MAX, VIOLATIONS_MAX};
use crate::model::{Code, Violation};
use crate::schema::character::shown;
use crate::schema::locate::{Places, Position};
use crate::schema::wording::Wrong;

/// Longest pointer that is reported; a longer one is cut to what contains it.
const POINTER_BYTES_MAX: usize = 512;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub code: Code,
    /// To the value, to the object that lacks a field, or to the key that should not be there.
    pub pointer: String,
    pub wrong: Wrong,
}

/// Puts findings into document order, into words and into bounds. Of a value of the wrong type
/// nothing else is said.
pub fn report(text: &str, mut findings: Vec<Finding>) -> Vec<Violation> {
    let mistyped: HashSet<String> = findings
        .iter()
        .filter(|finding| finding.code == Code::SchemaType)
        .map(|finding| finding.pointer.clone())
        .collect();
    findings
        .retain(|finding| finding.code == Code::SchemaType || !mistyped.contains(&finding.pointer));
    let places = Places::find(text, findings.iter().map(|finding| finding.pointer.as_str()));
    let mut placed: Vec<(Option<Range<usize>>, Finding)> = findings
        .into_iter()
        .map(|finding| {
            let span = match finding.wrong {
                Wrong::Unknown { .. } => places.key(&finding.pointer),
                _ => places.value(&finding.pointer),
            };
            (span, finding)
        })
        .collect();
    placed.sort_by_key(|(span, _)| span.as_ref().map_or(usize::MAX, |span| span.start));
    let mut violations: Vec<Violation> = Vec::new();
    for (span, finding) in placed {
        if violations.len() == VIOLATIONS_MAX {
            break;
        }
        let violation = violation(text, span, finding);
        if !violations.contains(&violation) {
            violations.push(violation);
        }
    }
    violations
}

fn violation(text: &str, span: Option<Range<usize>>, finding: Finding) -> Violation {
    let position = span.as_ref().map(|span| Position::of(text, span.start));
    let source = span.map_or("", |span| &text[span]);
    let shown_source = match source {
        "{" => "an object".to_owned(),
        "[" => "an array".to_owned(),
        scalar => shown(scalar, FOUND_CHARS_MAX),
    };
    let words = finding.wrong.words(&shown_source, source);
    Violation {
        code: finding.code,
        pointer: Some(bounded(finding.pointer)),
        line: position.map(|position| position.line),
        column: position.map(|position| position.column),
        message: words.message,
        expected: words.expected,
        found: words.found.then_some(shown_source),
        hint: words.hint,
    }
}

/// Cuts a pointer between segments, so that what is left still points at something.
pub fn bounded(mut pointer: String) -> String {
    while pointer.len() > POINTER_BYTES_MAX {
        pointer.truncate(pointer.rfind('/').unwrap_or(0));
    }
    pointer
}
