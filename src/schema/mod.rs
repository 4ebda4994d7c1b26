//! Judges documents and names: is this an intent, and may it be delivered?
//!
//! One judgement, in this order: text (`parse`), schema once (`check`), typed conversion, then the
//! document's own constraints and the site's policy (`policy`). An accepted document has been read
//! by exactly one parser, once; positions are looked up only for one that is refused.
//!
//! Invariant: judging never panics, whatever the bytes, and takes time and memory in proportion to
//! their number. Not here: reading files and their size (`intake`).

mod character;
mod check;
mod finding;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod glob;
mod locate;
mod name;
mod number;
mod parse;
mod policy;
mod refusal;
pub mod render;
mod walk;
mod wording;

use serde::Deserialize;
use serde_json::Value;

use crate::model::{Code, Intent, Rejection};
use crate::schema::check::Compiled;
use crate::schema::finding::{Finding, report};
use crate::schema::policy::check_constraints;

pub use glob::Glob;
pub use name::NameRule;
pub use policy::{Policy, ReplicaBound};

/// Characters of a message that quotes another library.
const MESSAGE_CHARS_MAX: usize = 240;

const BOM: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("parse the site schema as JSON")]
    SiteSchemaText { source: serde_json::Error },
    #[error("compile the site schema at `{at}`")]
    SiteSchema { at: String, source: Box<jsonschema::ValidationError<'static>> },
    #[error("convert the accepted document")]
    Convert { source: serde_json::Error },
    #[error(
        "the pattern `{glob}` may hold lower-case letters, digits, `-`, `*` and `?`, and not be empty"
    )]
    Glob { glob: String },
    #[error(
        "the name pattern `{pattern}` must hold one `*`, among letters, digits, `.`, `_` and `-`, and \
         not begin with a dot"
    )]
    Pattern { pattern: String },
    #[error("at least one name pattern is needed")]
    NoPattern,
}

/// What documents are checked against: our schema, and a site's as well where there is one.
#[derive(Debug)]
pub struct Schema {
    ours: Compiled,
    site: Option<Compiled>,
}

impl Schema {
    /// The text of our schema.
    pub const TEXT: &'static str = include_str!("../../schemas/intent.v1.schema.json");

    /// Compiles our schema.
    pub fn builtin() -> Schema {
        let schema = serde_json::from_str(Schema::TEXT).expect("a test shows that it is JSON");
        let ours = Compiled::new(schema).expect("a test shows that it compiles");
        Schema { ours, site: None }
    }

    /// Compiles our schema and a site's, which can only tighten it.
    ///
    /// # Errors
    ///
    /// The site's schema is not JSON, not a schema, or refers to another one.
    pub fn with_site(site_schema_text: &str) -> Result<Schema, Error> {
        let schema = serde_json::from_str(site_schema_text)
            .map_err(|source| Error::SiteSchemaText { source })?;
        let site = Compiled::new(schema).map_err(|source| Error::SiteSchema {
            at: source.instance_path().as_str().to_owned(),
            source,
        })?;
        Ok(Schema { site: Some(site), ..Schema::builtin() })
    }

    /// Judges a document.
    ///
    /// # Errors
    ///
    /// The refusal, which is the document's fault: the first fault of its text, or everything that
    /// the schemas have against it, or everything that its constraints and the policy have.
    pub fn judge(&self, bytes: &[u8], policy: &Policy) -> Result<Intent, Rejection> {
        let text = std::str::from_utf8(without_bom(bytes))
            .map_err(|error| refusal::not_utf8(without_bom(bytes), error))?;
        let parsed = parse::parse(text).map_err(|refused| {
            let blank = text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
            if blank { refusal::empty() } else { refusal::unreadable(text, refused) }
        })?;
        if let Some(kind) = other_than_object(&parsed.value) {
            return Err(refusal::not_object(text, kind));
        }
        let mut findings = Vec::new();
        for schema in [Some(&self.ours), self.site.as_ref()].into_iter().flatten() {
            schema.check(&parsed, &mut findings);
        }
        if parsed.floats {
            number::check(text, &mut findings);
        }
        settle(text, findings)?;
        // The schema has accepted every field. Were that ever wrong, one document must not stop us.
        let intent = Intent::deserialize(parsed.value).map_err(|error| {
            let message = format!("the document cannot be converted: {error}");
            Rejection::of_file(Code::SchemaRule, character::shown(&message, MESSAGE_CHARS_MAX))
        })?;
        let mut findings = Vec::new();
        if let Some(constraints) = &intent.constraints {
            check_constraints(&intent, constraints, &mut findings);
        }
        policy.check(&intent, &mut findings);
        settle(text, findings)?;
        Ok(intent)
    }
}

/// Reads a document again that was accepted before: accepted stays accepted, whatever the schema
/// and the policy say by now.
///
/// # Errors
///
/// The bytes are not those that were accepted.
pub fn reread(bytes: &[u8]) -> Result<Intent, Error> {
    serde_json::from_slice(without_bom(bytes)).map_err(|source| Error::Convert { source })
}

fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

fn other_than_object(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(_) => None,
        Value::Null => Some("null"),
        Value::Bool(_) => Some("a boolean"),
        Value::Number(_) => Some("a number"),
        Value::String(_) => Some("a string"),
        Value::Array(_) => Some("an array"),
    }
}

fn settle(text: &str, findings: Vec<Finding>) -> Result<(), Rejection> {
    if findings.is_empty() {
        return Ok(());
    }
    Err(Rejection::of_document(report(text, findings)))
}

#[cfg(test)]
mod tests;
