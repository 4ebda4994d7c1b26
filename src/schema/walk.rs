//! Walks over the text of a document token by token, to find places in it.
//!
//! Only used once a document is refused, or holds a number that has to be looked at as text.
//! `serde_json` has decided what is wrong; a walk knows where everything stands, which `serde_json`
//! tells in bytes and at times a line late.
//!
//! Invariant: no recursion, no panic, and memory bounded by [`DEPTH_MAX`], whatever the text.

use std::borrow::Cow;
use std::ops::Range;

use crate::limits::DEPTH_MAX;

/// One step of a walk; spans are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The `{` or `[` of a value.
    Open(Range<usize>),
    /// The end of an object or array.
    Close,
    /// A key, its quotes included.
    Key(Range<usize>),
    /// A string, its quotes included.
    Text(Range<usize>),
    Number(Range<usize>),
    /// `true`, `false` or `null`.
    Word(Range<usize>),
}

/// Why a walk cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The text ends inside the document.
    End,
    /// Something else stands where `expected` should.
    Unexpected { at: usize, expected: &'static str },
    /// An object or array inside too many others.
    TooDeep { at: usize },
    /// Something stands behind the document.
    Trailing { at: usize },
}

/// An object or array that is open.
#[derive(Clone, Debug)]
enum Level {
    Object { key: Range<usize> },
    Array { index: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Value,
    /// A key, or the end of an object that has just been opened.
    FirstKey,
    /// A value, or the end of an array that has just been opened.
    FirstItem,
    AfterValue,
}

/// A walk over one text.
#[derive(Debug)]
pub struct Walk<'a> {
    text: &'a str,
    at: usize,
    levels: Vec<Level>,
    next: Next,
}

impl<'a> Walk<'a> {
    pub fn over(text: &'a str) -> Self {
        Walk { text, at: 0, levels: Vec::new(), next: Next::Value }
    }

    /// How many objects and arrays are open.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The key or index of the value that is `up` levels above the current one, inside what holds it.
    pub fn segment(&self, up: usize) -> Option<Cow<'a, str>> {
        let level = self.levels.get(self.levels.len().checked_sub(up + 1)?)?;
        Some(self.segment_of(level))
    }

    fn segment_of(&self, level: &Level) -> Cow<'a, str> {
        match level {
            Level::Object { key } => decoded(&self.text[key.clone()]),
            Level::Array { index } => Cow::Owned(index.to_string()),
        }
    }

    /// RFC 6901 pointer to the value that is `up` levels above the current one.
    pub fn pointer(&self, up: usize) -> String {
        let mut pointer = String::new();
        for level in &self.levels[..self.levels.len().saturating_sub(up)] {
            push_segment(&mut pointer, &self.segment_of(level));
        }
        pointer
    }

    /// The next token; `Ok(None)` once the whole text is read.
    pub fn step(&mut self) -> Result<Option<Token>, Stop> {
        self.skip_blanks();
        match self.next {
            Next::AfterValue => self.after_value(),
            Next::FirstKey if self.byte() == Some(b'}') => Ok(Some(self.close())),
            Next::FirstKey => self.key_token("a key in double quotes, or `}`").map(Some),
            Next::FirstItem if self.byte() == Some(b']') => Ok(Some(self.close())),
            Next::FirstItem => self.value("a value, or `]`").map(Some),
            Next::Value => self.value("a value").map(Some),
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// What to answer when `expected` does not stand here.
    fn unexpected(&self, expected: &'static str) -> Stop {
        if self.at >= self.text.len() {
            Stop::End
        } else {
            Stop::Unexpected { at: self.at, expected }
        }
    }

    fn after_value(&mut self) -> Result<Option<Token>, Stop> {
        let Some(level) = self.levels.last_mut() else {
            return match self.byte() {
                None => Ok(None),
                Some(_) => Err(Stop::Trailing { at: self.at }),
            };
        };
        let object = matches!(level, Level::Object { .. });
        let closing = if object { b'}' } else { b']' };
        match self.text.as_bytes().get(self.at) {
            Some(byte) if *byte == closing => Ok(Some(self.close())),
            Some(b',') => {
                if let Level::Array { index } = level {
                    *index += 1;
                }
                self.at += 1;
                self.skip_blanks();
                if object {
                    self.key_token("a key in double quotes").map(Some)
                } else {
                    self.value("a value").map(Some)
                }
            }
            _ if object => Err(self.unexpected("`,` or `}`")),
            _ => Err(self.unexpected("`,` or `]`")),
        }
    }

    fn close(&mut self) -> Token {
        self.at += 1;
        self.levels.pop();
        self.next = Next::AfterValue;
        Token::Close
    }

    /// Reads a key and the colon behind it.
    fn key_token(&mut self, expected: &'static str) -> Result<Token, Stop> {
        if self.byte() != Some(b'"') {
            return Err(self.unexpected(expected));
        }
        let span = self.string()?;
        if let Some(Level::Object { key }) = self.levels.last_mut() {
            *key = span.clone();
        }
        self.next = Next::Value;
        Ok(Token::Key(span))
    }

    fn value(&mut self, expected: &'static str) -> Result<Token, Stop> {
        // A key has been given out; its colon is read late so that a fault of the key comes first.
        if self.next == Next::Value && matches!(self.levels.last(), Some(Level::Object { .. })) {
            if self.byte() != Some(b':') {
                return Err(self.unexpected("`:`"));
            }
            self.at += 1;
            self.skip_blanks();
        }
        let start = self.at;
        match self.byte() {
            Some(b'{') => self.open(Level::Object { key: start..start }, Next::FirstKey),
            Some(b'[') => self.open(Level::Array { index: 0 }, Next::FirstItem),
            Some(b'"') => self.string().map(|span| self.scalar(Token::Text(span))),
            Some(b'-' | b'0'..=b'9') => self.number().map(|span| self.scalar(Token::Number(span))),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.unexpected(expected)),
        }
    }

    fn scalar(&mut self, token: Token) -> Token {
        self.next = Next::AfterValue;
        token
    }

    fn open(&mut self, level: Level, next: Next) -> Result<Token, Stop> {
        if self.levels.len() == DEPTH_MAX {
            return Err(Stop::TooDeep { at: self.at });
        }
        self.levels.push(level);
        self.next = next;
        self.at += 1;
        Ok(Token::Open(self.at - 1..self.at))
    }

    fn word(&mut self, word: &'static str) -> Result<Token, Stop> {
        let start = self.at;
        for expected in word.bytes() {
            if self.byte() != Some(expected) {
                return Err(self.unexpected("`true`, `false` or `null`"));
            }
            self.at += 1;
        }
        Ok(self.scalar(Token::Word(start..self.at)))
    }

    fn number(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at;
        self.skip(b'-');
        // A number starts with 0 only if that is all of its integer part.
        if !self.skip(b'0') {
            self.digits()?;
        } else if matches!(self.byte(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a number without leading zeros"));
        }
        if self.skip(b'.') {
            self.digits()?;
        }
        if self.skip(b'e') || self.skip(b'E') {
            let _sign = self.skip(b'+') || self.skip(b'-');
            self.digits()?;
        }
        Ok(start..self.at)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let there = self.byte() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn digits(&mut self) -> Result<(), Stop> {
        if !matches!(self.byte(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a digit"));
        }
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Range<usize>, Stop> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.byte() {
                None => return Err(Stop::End),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(start..self.at);
                }
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => return Err(self.unexpected("an escape instead of a raw control")),
                Some(_) => self.at += 1,
            }
        }
    }

    /// Reads one escape; a pair of surrogates counts as one.
    fn escape(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let lone = Stop::Unexpected { at: start, expected: "a pair of surrogates" };
                match self.unit()? {
                    0xdc00..=0xdfff => return Err(lone),
                    0xd800..=0xdbff => {
                        for expected in [b'\\', b'u'] {
                            match self.byte() {
                                None => return Err(Stop::End),
                                Some(byte) if byte == expected => {}
                                Some(_) => return Err(lone),
                            }
                            // `unit` reads the `u` itself.
                            self.at += usize::from(expected == b'\\');
                        }
                        if !matches!(self.unit()?, 0xdc00..=0xdfff) {
                            return Err(lone);
                        }
                    }
                    _ => {}
                }
            }
            _ => return Err(self.unexpected("one of the escapes of JSON")),
        }
        Ok(())
    }

    /// Reads `uXXXX`.
    fn unit(&mut self) -> Result<u32, Stop> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            match self.byte().and_then(|byte| char::from(byte).to_digit(16)) {
                Some(digit) => unit = unit * 16 + digit,
                None => return Err(self.unexpected("four hexadecimal digits")),
            }
            self.at += 1;
        }
        Ok(unit)
    }
}

/// The text of a string token; what a walk gave out decodes.
pub fn decoded(token: &str) -> Cow<'_, str> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or("");
    if inner.contains('\\') {
        Cow::Owned(serde_json::from_str(token).unwrap_or_default())
    } else {
        Cow::Borrowed(inner)
    }
}

/// Appends one step to an RFC 6901 pointer.
pub fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for char in segment.chars() {
        match char {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}
