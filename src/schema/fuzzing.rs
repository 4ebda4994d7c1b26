//! The parser by itself, opened for `fuzz/` and absent from every other build.

use serde_json::Value;

use crate::model::Code;
use crate::schema::locate::first_fault;
use crate::schema::parse;

/// What the parser makes of a text, and the first fault that the walk finds in it.
pub fn parse(text: &str) -> (Result<Value, Code>, Option<Code>) {
    let parsed = parse::parse(text);
    (parsed.map(|it| it.value).map_err(|it| it.code), first_fault(text).map(|it| it.code))
}
