//! What is wrong with a document, in a form that both a person and a program can use.

use serde::{Deserialize, Serialize};

use crate::model::Code;

/// One fault of a document. What is unknown is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub code: Code,
    /// RFC 6901 pointer to the value (or to the key that should not be there).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// Line of the value, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column of the value in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// One sentence without a full stop; no control characters.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What stands there, escaped and cut to 80 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Why a document is refused: the document's fault, and therefore data and not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub code: Code,
    /// One sentence that a person can act on.
    pub message: String,
    /// At most [`crate::limits::VIOLATIONS_MAX`], in document order.
    pub violations: Vec<Violation>,
}

impl Rejection {
    /// A refusal of the file as such, with nothing inside it to point at.
    pub fn of_file(code: Code, message: impl Into<String>) -> Self {
        Rejection { code, message: message.into(), violations: Vec::new() }
    }

    /// A refusal of what the document says; `violations` is not empty.
    pub fn of_document(violations: Vec<Violation>) -> Self {
        let first = &violations[0];
        let mut message = match &first.pointer {
            Some(pointer) if !pointer.is_empty() => format!("{pointer}: {}", first.message),
            _ => first.message.clone(),
        };
        if let (Some(line), Some(column)) = (first.line, first.column) {
            message.push_str(&format!(" (line {line}, column {column})"));
        }
        if let Some(hint) = &first.hint {
            message.push_str(&format!("; {hint}"));
        }
        if violations.len() > 1 {
            message.push_str(&format!("; and {} more", violations.len() - 1));
        }
        Rejection { code: first.code, message, violations }
    }
}
