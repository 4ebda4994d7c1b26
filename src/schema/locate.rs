//! Finds where in the text a refused document is wrong.
//!
//! Everything here runs on the error path alone. Each search is one walk over the text, whatever
//! the number of places wanted, so a hostile document costs time in proportion to its length.
//!
//! Not here: whether something is wrong (`parse`, `check`).

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::model::Code;
use crate::schema::character::{is_refused, refused_in};
use crate::schema::number;
use crate::schema::parse::may_break;
use crate::schema::walk::{Stop, Token, Walk, decoded};

/// Line and column from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    /// The position of a byte that starts a character of `text`, or of its end.
    pub fn of(text: &str, at: usize) -> Self {
        let before = &text[..text.floor_char_boundary(at)];
        let line = before.bytes().filter(|byte| *byte == b'\n').count();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start..].chars().count();
        let from_one = |count: usize| u32::try_from(count + 1).unwrap_or(u32::MAX);
        Position { line: from_one(line), column: from_one(column) }
    }
}

/// The first fault of a text that is not a proper document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// To the value, or to the key that is meant; absent where the text is not JSON.
    pub pointer: Option<String>,
    pub span: Range<usize>,
    /// What JSON asks for there.
    pub expected: Option<&'static str>,
}

/// Finds the first fault in document order; `None` if there is none that a walk can see.
pub fn first_fault(text: &str) -> Option<Fault> {
    let mut walk = Walk::over(text);
    // The keys of each open object; empty for arrays.
    let mut keys: Vec<HashSet<String>> = Vec::new();
    loop {
        let token = match walk.step() {
            Ok(Some(token)) => token,
            Ok(None) => return None,
            Err(stop) => return Some(fault_of(stop, text, &walk)),
        };
        match token {
            Token::Open(_) => keys.push(HashSet::new()),
            Token::Close => drop(keys.pop()),
            Token::Number(span) if !in_range(&text[span.clone()]) => {
                let pointer = walk.pointer(0);
                let code = number::fault(&pointer, &text[span.clone()]);
                let expected = match code {
                    Code::SchemaType => "an integer",
                    _ => "a number that fits 64 bits",
                };
                return Some(Fault {
                    code,
                    pointer: Some(pointer),
                    span,
                    expected: Some(expected),
                });
            }
            Token::Number(_) | Token::Word(_) => {}
            Token::Key(span) => {
                let key = decoded(&text[span.clone()]);
                if let Some(char) = refused_in(&key, false) {
                    // The key itself cannot be shown, so the object that has it is pointed at.
                    return Some(bad_character(text, span, char, walk.pointer(1)));
                }
                if let Some(seen) = keys.last_mut()
                    && !seen.insert(key.into_owned())
                {
                    let pointer = Some(walk.pointer(0));
                    return Some(Fault { code: Code::DuplicateKey, pointer, span, expected: None });
                }
            }
            Token::Text(span) => {
                let breaks =
                    walk.depth() == 1 && walk.segment(0).is_some_and(|key| may_break(0, &key));
                if let Some(char) = refused_in(&decoded(&text[span.clone()]), breaks) {
                    return Some(bad_character(text, span, char, walk.pointer(0)));
                }
            }
        }
    }
}

fn fault_of(stop: Stop, text: &str, walk: &Walk<'_>) -> Fault {
    let end = text.trim_end_matches([' ', '\t', '\r', '\n']).len();
    let (code, at, expected) = match stop {
        Stop::End => (Code::Incomplete, end, None),
        Stop::Trailing { at } => (Code::TrailingData, at, Some("the end of the file")),
        Stop::Unexpected { at, expected } => (Code::NotJson, at, Some(expected)),
        Stop::TooDeep { at } => {
            let (pointer, span) = (Some(walk.pointer(0)), at..at + 1);
            return Fault { code: Code::TooDeep, pointer, span, expected: None };
        }
    };
    let char = text[at..].chars().next();
    let span = at..at + char.map_or(0, char::len_utf8);
    match char {
        // A raw newline or tab in a string is bad syntax; any other hidden character is the fault.
        Some(char) if is_refused(char) && !matches!(char, '\n' | '\t' | '\r') => {
            Fault { code: Code::BadCharacter, pointer: None, span, expected: None }
        }
        _ => Fault { code, pointer: None, span, expected },
    }
}

/// Places the refused character of a string token, raw or escaped.
fn bad_character(text: &str, token: Range<usize>, bad: char, pointer: String) -> Fault {
    let mut at = token.start + 1;
    let mut span = token.clone();
    while at < token.end {
        let len = character_len(&text[at..token.end]);
        let char = match &text[at..at + len] {
            escape if escape.starts_with('\\') => {
                decoded(&format!("\"{escape}\"")).chars().next().unwrap_or(bad)
            }
            raw => raw.chars().next().unwrap_or(bad),
        };
        if char == bad {
            span = at..at + len;
            break;
        }
        at += len;
    }
    Fault { code: Code::BadCharacter, pointer: Some(pointer), span, expected: None }
}

/// Bytes of the first character of a piece of a string token, as an escape or raw.
pub fn character_len(piece: &str) -> usize {
    let bytes = piece.as_bytes();
    let len = match bytes {
        [b'\\', b'u', b'd' | b'D', b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B', ..] => 12,
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        _ => piece.chars().next().map_or(1, char::len_utf8),
    };
    piece.floor_char_boundary(len.min(piece.len())).max(1)
}

fn in_range(number: &str) -> bool {
    number.parse::<f64>().is_ok_and(f64::is_finite)
}

/// Where keys and values stand, for the pointers that were asked for.
#[derive(Debug)]
pub struct Places {
    nodes: Vec<Node>,
}

/// One step of a wanted pointer; the root is node 0.
#[derive(Debug, Default)]
struct Node {
    inner: HashMap<String, usize>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

impl Places {
    /// Looks for all pointers in one walk. Of an object or array, the value is its bracket.
    pub fn find<'p>(text: &str, pointers: impl IntoIterator<Item = &'p str>) -> Self {
        let mut places = Places { nodes: vec![Node::default()] };
        for pointer in pointers {
            places.want(pointer);
        }
        places.walk(text);
        places
    }

    pub fn key(&self, pointer: &str) -> Option<Range<usize>> {
        self.node(pointer)?.key.clone()
    }

    pub fn value(&self, pointer: &str) -> Option<Range<usize>> {
        self.node(pointer)?.value.clone()
    }

    fn want(&mut self, pointer: &str) {
        let mut node = 0;
        for segment in segments(pointer) {
            node = match self.nodes[node].inner.get(&segment) {
                Some(inner) => *inner,
                None => {
                    self.nodes.push(Node::default());
                    let inner = self.nodes.len() - 1;
                    self.nodes[node].inner.insert(segment, inner);
                    inner
                }
            };
        }
    }

    fn node(&self, pointer: &str) -> Option<&Node> {
        segments(pointer)
            .try_fold(0, |node, segment| self.nodes[node].inner.get(&segment).copied())
            .map(|node| &self.nodes[node])
    }

    fn walk(&mut self, text: &str) {
        let mut walk = Walk::over(text);
        // The node of each open object or array, if something inside it is wanted.
        let mut open: Vec<Option<usize>> = Vec::new();
        while let Ok(Some(token)) = walk.step() {
            let span = match token {
                Token::Close => {
                    open.pop();
                    continue;
                }
                Token::Key(span) => {
                    if let Some(node) = self.current(&open, &decoded(&text[span.clone()])) {
                        self.nodes[node].key.get_or_insert(span);
                    }
                    continue;
                }
                Token::Open(span) => {
                    let node = self.current_value(&open, &walk, 1);
                    open.push(node);
                    if let Some(node) = node {
                        self.nodes[node].value.get_or_insert(span);
                    }
                    continue;
                }
                Token::Text(span) | Token::Number(span) | Token::Word(span) => span,
            };
            if let Some(node) = self.current_value(&open, &walk, 0) {
                self.nodes[node].value.get_or_insert(span);
            }
        }
    }

    fn current(&self, open: &[Option<usize>], segment: &str) -> Option<usize> {
        let parent = (*open.last()?)?;
        self.nodes[parent].inner.get(segment).copied()
    }

    /// The node of the value that the walk has just come to, `up` levels above where it is.
    fn current_value(&self, open: &[Option<usize>], walk: &Walk<'_>, up: usize) -> Option<usize> {
        if open.is_empty() {
            return Some(0);
        }
        // Nothing is decoded where nothing is wanted.
        (*open.last()?)?;
        self.current(open, &walk.segment(up)?)
    }
}

fn segments(pointer: &str) -> impl Iterator<Item = String> {
    pointer.split('/').skip(1).map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}
