//! A YAML stream as mappings with the places of their scalars: just enough to find one value.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::limits::DEPTH_MAX;

/// Why a text cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("is not YAML: {source}")]
    Scan { source: Box<ScanError> },
    #[error("is nested more than {DEPTH_MAX} deep")]
    Depth,
    #[error("ends in the middle")]
    End,
}

/// A node of a document.
#[derive(Debug)]
pub enum Node {
    Scalar(Scalar),
    /// In the order of the text.
    Mapping(Vec<(Node, Node)>),
    /// A sequence or an alias: nothing that is looked for is in there.
    Other,
}

/// A scalar and where it stands.
#[derive(Debug)]
pub struct Scalar {
    pub text: String,
    /// Bytes of the text.
    pub range: Range<usize>,
    /// From 1.
    pub line: usize,
    /// Neither quoted nor a block, and without anchor and tag.
    pub is_bare: bool,
}

impl Node {
    /// The value of the key in a mapping; of two, the last, as most readers have it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Node::Mapping(entries) = self else { return None };
        let named = |node: &Node| node.text() == Some(key);
        entries.iter().rev().find(|(name, _)| named(name)).map(|(_, value)| value)
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match self {
            Node::Scalar(scalar) => Some(&scalar.text),
            Node::Mapping(_) | Node::Other => None,
        }
    }

    /// The text of the scalar below a key.
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }
}

/// The roots of all documents of a text.
///
/// # Errors
///
/// It is not YAML, or is nested too deep.
pub fn documents(text: &str) -> Result<Vec<Node>, Error> {
    let mut events = Parser::new_from_str(text);
    let mut roots = Vec::new();
    loop {
        match next(&mut events)? {
            (Event::StreamEnd, _) => return Ok(roots),
            (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
            (event, span) => roots.push(node(event, &span, &mut events, DEPTH_MAX)?),
        }
    }
}

type Events<'a> = Parser<'a, granit_parser::StrInput<'a>>;

/// The next event that is data. Comments are events wherever any crate in the build asks for them.
fn next<'a>(events: &mut Events<'a>) -> Result<(Event<'a>, Span), Error> {
    loop {
        let event = events.next_event().ok_or(Error::End)?;
        match event.map_err(|source| Error::Scan { source: source.into() })? {
            (Event::Comment(..), _) => {}
            data => return Ok(data),
        }
    }
}

fn node<'a>(
    event: Event<'a>,
    span: &Span,
    events: &mut Events<'a>,
    depth: usize,
) -> Result<Node, Error> {
    let below = || depth.checked_sub(1).ok_or(Error::Depth);
    Ok(match event {
        Event::Scalar(text, style, anchor, tag) => Node::Scalar(Scalar {
            text: text.into_owned(),
            range: span.byte_range().ok_or(Error::End)?,
            line: span.start.line(),
            is_bare: style == ScalarStyle::Plain && anchor == 0 && tag.is_none(),
        }),
        Event::MappingStart(..) => {
            let depth = below()?;
            let mut entries = Vec::new();
            loop {
                let key = match next(events)? {
                    (Event::MappingEnd, _) => return Ok(Node::Mapping(entries)),
                    (event, span) => node(event, &span, events, depth)?,
                };
                let (event, span) = next(events)?;
                entries.push((key, node(event, &span, events, depth)?));
            }
        }
        Event::SequenceStart(..) => {
            let depth = below()?;
            loop {
                match next(events)? {
                    (Event::SequenceEnd, _) => return Ok(Node::Other),
                    (event, span) => node(event, &span, events, depth)?,
                };
            }
        }
        _ => Node::Other,
    })
}
