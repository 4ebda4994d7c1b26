//! Applies a compiled JSON schema to a document and names what it finds by our codes.
//!
//! Invariant: no network, no file, and patterns match in linear time, whatever a site's schema says.
//! Not here: what an integer is by its text (`mod`), words (`wording`).

use std::rc::Rc;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::model::Code;
use crate::schema::finding::Finding;
use crate::schema::parse::Parsed;
use crate::schema::walk::push_segment;
use crate::schema::wording::Wrong;

/// Values of a document up to which all its faults are collected. Of a larger one, where each of a
/// million items could be a fault, only the first is.
const COLLECT_VALUES_MAX: usize = 16_384;

/// Bytes that the paths of all faults may take together, for the same reason.
const COLLECT_PATH_BYTES_MAX: usize = 16 << 20;

/// A schema, compiled, with its text for looking up what stands beside a broken rule.
#[derive(Debug)]
pub struct Compiled {
    validator: Validator,
    schema: Value,
}

impl Compiled {
    /// # Errors
    ///
    /// The schema breaks its meta-schema, refers to another one, has a pattern that cannot be
    /// matched in linear time, or asks for an unknown format.
    pub fn new(schema: Value) -> Result<Self, Box<ValidationError<'static>>> {
        let validator = jsonschema::options()
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .build(&schema)
            .map_err(Box::new)?;
        Ok(Compiled { validator, schema })
    }

    /// Applies the schema once.
    pub fn check(&self, document: &Parsed, findings: &mut Vec<Finding>) {
        let path_bytes = document.values.saturating_mul(document.key_bytes_max);
        if document.values > COLLECT_VALUES_MAX || path_bytes > COLLECT_PATH_BYTES_MAX {
            if let Err(error) = self.validator.validate(&document.value) {
                self.name(&error, findings);
            }
            return;
        }
        for error in self.validator.iter_errors(&document.value) {
            self.name(&error, findings);
        }
    }

    fn name(&self, error: &ValidationError<'_>, findings: &mut Vec<Finding>) {
        let pointer = error.instance_path().as_str();
        let found = |code, wrong| Finding { code, pointer: pointer.to_owned(), wrong };
        let limit = |limit: &Value| (limit.to_string(), self.range(error));
        findings.push(match error.kind() {
            ValidationErrorKind::Required { property } => {
                let field = property.as_str().map_or_else(|| property.to_string(), str::to_owned);
                found(Code::SchemaRequired, Wrong::Missing { field })
            }
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.known(error);
                findings.extend(unexpected.iter().map(|key| {
                    let mut pointer = pointer.to_owned();
                    push_segment(&mut pointer, key);
                    let wrong = Wrong::Unknown { key: key.clone(), known: Rc::clone(&known) };
                    Finding { code: Code::SchemaUnknownField, pointer, wrong }
                }));
                return;
            }
            ValidationErrorKind::Type { kind } => {
                found(Code::SchemaType, Wrong::Type { expected: types(kind) })
            }
            ValidationErrorKind::Enum { options } => {
                let options = options.as_array().cloned().unwrap_or_default();
                found(Code::SchemaEnum, Wrong::Option { options })
            }
            ValidationErrorKind::Constant { expected_value } => {
                let options = vec![Value::clone(expected_value)];
                found(Code::SchemaEnum, Wrong::Option { options })
            }
            ValidationErrorKind::Minimum { limit: least } => {
                let (limit, range) = limit(least);
                found(Code::SchemaMinimum, Wrong::Below { limit, range })
            }
            ValidationErrorKind::ExclusiveMinimum { limit: bound } => found(
                Code::SchemaMinimum,
                Wrong::Against {
                    message: format!("is not greater than {bound}"),
                    expected: format!("greater than {bound}"),
                    hint: None,
                },
            ),
            ValidationErrorKind::Maximum { limit: most } => {
                let (limit, range) = limit(most);
                found(Code::SchemaMaximum, Wrong::Above { limit, range })
            }
            ValidationErrorKind::ExclusiveMaximum { limit: bound } => found(
                Code::SchemaMaximum,
                Wrong::Against {
                    message: format!("is not less than {bound}"),
                    expected: format!("less than {bound}"),
                    hint: None,
                },
            ),
            ValidationErrorKind::Pattern { pattern } => {
                found(Code::SchemaPattern, Wrong::Pattern { pattern: pattern.clone() })
            }
            ValidationErrorKind::Format { format } => {
                found(Code::SchemaFormat, Wrong::Format { format: format.clone() })
            }
            ValidationErrorKind::MaxLength { limit } | ValidationErrorKind::MaxItems { limit } => {
                let (count, unit) = counted(error.instance());
                found(Code::SchemaLength, Wrong::TooLong { count, limit: *limit, unit })
            }
            ValidationErrorKind::MinLength { limit } | ValidationErrorKind::MinItems { limit } => {
                let (count, unit) = counted(error.instance());
                found(Code::SchemaLength, Wrong::TooShort { count, limit: *limit, unit })
            }
            // What only a site's schema can ask for.
            _ => {
                let message = error.masked_with("the value").to_string();
                found(Code::SchemaRule, Wrong::Rule { message })
            }
        });
    }

    /// The fields that are known where an unknown one stands.
    fn known(&self, error: &ValidationError<'_>) -> Rc<[String]> {
        self.beside(error)
            .and_then(|schema| schema.get("properties")?.as_object())
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The schema object that holds the broken rule.
    fn beside(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let (parent, _) = error.schema_path().as_str().rsplit_once('/')?;
        self.schema.pointer(parent)
    }

    fn range(&self, error: &ValidationError<'_>) -> Option<String> {
        let schema = self.beside(error)?;
        Some(format!("from {} to {}", schema.get("minimum")?, schema.get("maximum")?))
    }
}

fn types(kind: &TypeKind) -> String {
    let articled = |name: &str| match name {
        "null" => "null".to_owned(),
        "integer" | "object" | "array" => format!("an {name}"),
        other => format!("a {other}"),
    };
    match kind {
        TypeKind::Single(kind) => articled(kind.as_str()),
        TypeKind::Multiple(kinds) => {
            let names: Vec<String> = kinds.iter().map(|kind| articled(kind.as_str())).collect();
            names.join(" or ")
        }
    }
}

fn counted(value: &Value) -> (usize, &'static str) {
    match value {
        Value::String(text) => (text.chars().count(), "characters"),
        Value::Array(items) => (items.len(), "items"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => (0, "items"),
    }
}
