//! The whole judgement: it never panics, what it says is bounded and safe to show, and what it has
//! accepted says the same when it is read again and when it is written again.

#![no_main]

use std::sync::LazyLock;

use intentd::limits::VIOLATIONS_MAX;
use intentd::model::{Code, Rejection, is_refused};
use intentd::schema::{Policy, Schema, render, reread};
use libfuzzer_sys::fuzz_target;

/// Asks for everything that only a site's schema can ask for.
const SITE: &str = r#"{
    "properties": {"reason": {"pattern": "^(INC-[0-9]+|[^ -~]*)$", "format": "email"},
        "constraints": {"propertyNames": {"maxLength": 20}, "maxProperties": 5,
            "additionalProperties": {"type": ["number", "string", "array", "object"],
                "multipleOf": 0.5, "uniqueItems": true, "exclusiveMaximum": 1e300}},
        "priority": {"exclusiveMinimum": 0}, "source": {"const": "user"}},
    "dependentRequired": {"source": ["reason"]}, "not": {"required": ["updated_at"]}
}"#;

static SCHEMAS: LazyLock<[Schema; 2]> = LazyLock::new(|| {
    [Schema::builtin(), Schema::with_site(SITE).expect("the site's schema compiles")]
});

fuzz_target!(|document: &[u8]| {
    for schema in &*SCHEMAS {
        match schema.judge(document, &Policy::default()) {
            Ok(intent) => {
                assert_eq!(reread(document).expect("what was accepted can be read"), intent);
                let written = serde_json::to_vec(&intent).expect("an intent can be written");
                let again = schema.judge(&written, &Policy::default());
                assert_eq!(again.expect("what was accepted stays accepted"), intent);
            }
            Err(rejection) => refused(document, &rejection),
        }
    }
});

fn refused(document: &[u8], rejection: &Rejection) {
    assert!(rejection.violations.len() <= VIOLATIONS_MAX);
    if let Some(first) = rejection.violations.first() {
        assert_eq!(first.code, rejection.code);
    } else {
        assert!(matches!(rejection.code, Code::Empty | Code::SchemaRule), "{rejection:?}");
    }
    let lines = document.split(|byte| *byte == b'\n').count() as u32;
    for violation in &rejection.violations {
        assert!(violation.line.is_none_or(|line| (1..=lines).contains(&line)), "{violation:?}");
        let found = violation.found.as_deref().unwrap_or("");
        for shown in [violation.message.as_str(), found] {
            assert!(!shown.contains(is_refused), "{violation:?}");
        }
    }
    let json = serde_json::to_string(rejection).expect("a refusal can be written");
    assert!(json.len() < 64 << 10, "{} bytes of refusal", json.len());
    let snippet = render::snippet("intent-a.json", document, rejection, false);
    assert!(!snippet.contains(|char| char != '\n' && is_refused(char)), "{snippet:?}");
}
