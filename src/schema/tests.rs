//! One judgement from bytes to verdict: codes, places and words of every kind of fault.

mod properties;
mod site;

use serde_json::{Value, json};

use super::*;
use crate::limits::{FOUND_CHARS_MAX, VIOLATIONS_MAX};
use crate::model::Violation;

fn judge(text: impl AsRef<[u8]>) -> Result<Intent, Rejection> {
    thread_local!(static SCHEMA: Schema = Schema::builtin());
    SCHEMA.with(|schema| schema.judge(text.as_ref(), &Policy::default()))
}

/// The smallest intent, with fields set (`null` leaves one out) and printed on one line.
fn with(fields: Value) -> String {
    let mut document =
        json!({"intent_type": "scaling", "target": "web", "namespace": "default", "replicas": 3});
    for (key, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(key)),
            value => document[key] = value.clone(),
        }
    }
    document.to_string()
}

/// The smallest intent with `more` as further text behind its fields.
fn plus(more: &str) -> String {
    format!(
        r#"{{"intent_type":"scaling","target":"web","namespace":"default","replicas":3,{more}}}"#
    )
}

/// Each violation as `CODE pointer line:column`.
fn places(text: impl AsRef<[u8]>) -> Vec<String> {
    let rejection = judge(text).expect_err("the document is refused");
    assert_eq!(rejection.code, rejection.violations[0].code);
    rejection
        .violations
        .iter()
        .map(|violation| {
            let place = match (violation.line, violation.column) {
                (Some(line), Some(column)) => format!("{line}:{column}"),
                _ => "-".to_owned(),
            };
            format!("{} {} {place}", violation.code, violation.pointer.as_deref().unwrap_or("-"))
        })
        .collect()
}

#[track_caller]
fn check(text: impl AsRef<[u8]>, expected: &[&str]) {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    assert_eq!(places(text), expected, "{shown:.300}");
}

#[test]
fn faults_of_the_text_stand_where_they_are() {
    check("", &["EMPTY - -"]);
    check("\u{feff} \r\n\t", &["EMPTY - -"]);
    check("{\n  \"a\": 1\n", &["INCOMPLETE - 2:9"]);
    check("{\"a\": \"b", &["INCOMPLETE - 1:9"]);
    check("tru", &["INCOMPLETE - 1:4"]);
    check("{} {}", &["TRAILING_DATA - 1:4"]);
    check("{}\n\nx", &["TRAILING_DATA - 3:1"]);
    check("[]", &["NOT_OBJECT  1:1"]);
    check("\n \"x\"", &["NOT_OBJECT  2:2"]);
    check("{/*c*/}", &["NOT_JSON - 1:2"]);
    check("{\n  \"a\": nul\n}", &["NOT_JSON - 2:11"]);
    check("{\n  \"a\": 01\n}", &["NOT_JSON - 2:9"]);
    check("{\"a\": 1,\n}", &["NOT_JSON - 2:1"]);
    check("{\"a\"\n1}", &["NOT_JSON - 2:1"]);
    check("{\"é\": x}", &["NOT_JSON - 1:7"]);
    check("\u{feff}{\"é\": x}", &["NOT_JSON - 1:7"]);
    check("{\"a\": \"b\nc\"}", &["NOT_JSON - 1:9"]);
    check("{\"a\": \"\\q\"}", &["NOT_JSON - 1:9"]);
    check("{\"a\": \"é\\ud800\"}", &["NOT_JSON - 1:9"]);
    // To `serde_json` an escape that is too short and close to the end is the end.
    check("[\"\\u1\"]", &["NOT_JSON - 1:6"]);
    check(b"{\n\"a\": \"\xc3\xa9\xff\"}", &["NOT_UTF8 - 2:8"]);
    check(b"\xff\xfe{\0}\0", &["NOT_UTF8 - 1:1"]);
    check(r#"{"a":1,"b":{},"a":2}"#, &["DUPLICATE_KEY /a 1:15"]);
    check("{\"x\":[0,{\"a\":1,\n\"\\u0061\":2}]}", &["DUPLICATE_KEY /x/1/a 2:1"]);
    check("{\"a\": \"b\0\"}", &["BAD_CHARACTER - 1:9"]);
    check("{\"a\": \u{200b}1}", &["BAD_CHARACTER - 1:7"]);
    check("{}\0", &["BAD_CHARACTER - 1:3"]);
    check("\u{feff}\u{feff}{}", &["BAD_CHARACTER - 1:1"]);
    check("{\"a\":[\"é\\u00e9\\n\u{202e}\"]}", &["BAD_CHARACTER /a/0 1:15"]);
    check("{\"a\":[\"é\\u00e9\u{202e}\"]}", &["BAD_CHARACTER /a/0 1:15"]);
    check("{\"a\":{\"b\\ufeff\":1}}", &["BAD_CHARACTER /a 1:9"]);
    check("{\"a\":\"x\\udb40\\udc41\"}", &["BAD_CHARACTER /a 1:8"]);
}

#[test]
fn prose_alone_may_hold_newlines_and_tabs() {
    let text = plus(r#""reason":"a\n\tb","description":"c\n""#);
    assert_eq!(judge(text).unwrap().reason.as_deref(), Some("a\n\tb"));
    check(plus(r#""reason":"a\rb""#), &["BAD_CHARACTER /reason 1:87"]);
    check(plus(r#""correlation_id":"a\nb""#), &["BAD_CHARACTER /correlation_id 1:95"]);
    check(plus(r#""constraints":{"reason":"a\nb"}"#), &["BAD_CHARACTER /constraints/reason 1:102"]);
}

#[test]
fn nesting_is_refused_at_the_first_bracket_too_deep() {
    let nested = |depth: usize| {
        let (open, close) = ("{\"a\":".repeat(depth - 2), "}".repeat(depth - 2));
        plus(&format!("\"constraints\":{{\"a\":{open}1{close}}}"))
    };
    assert!(judge(nested(64)).is_ok());
    let pointer = format!("/constraints{}", "/a".repeat(63));
    check(nested(65), &[&format!("TOO_DEEP {pointer} 1:405")]);
    check("[".repeat(20_000), &[&format!("TOO_DEEP {} 1:65", "/0".repeat(64))]);
    check("{\"a\":".repeat(100_000), &[&format!("TOO_DEEP {} 1:{}", "/a".repeat(64), 64 * 5 + 1)]);
}

#[test]
fn each_rule_of_the_schema_has_its_code() {
    check(with(json!({"target": null})), &["SCHEMA_REQUIRED  1:1"]);
    check(plus("\"repilcas\":3"), &["SCHEMA_UNKNOWN_FIELD /repilcas 1:76"]);
    check(plus("\"a/b~c\":3"), &["SCHEMA_UNKNOWN_FIELD /a~1b~0c 1:76"]);
    check(plus(r#""nephio_context":{"x":1}"#), &["SCHEMA_UNKNOWN_FIELD /nephio_context/x 1:94"]);
    check(plus("\"source\":5"), &["SCHEMA_TYPE /source 1:85"]);
    check(plus("\"source\":null"), &["SCHEMA_TYPE /source 1:85"]);
    check(plus("\"source\":\"llm\""), &["SCHEMA_ENUM /source 1:85"]);
    check(plus("\"status\":\"bogus\""), &["SCHEMA_ENUM /status 1:85"]);
    check(plus("\"priority\":-1"), &["SCHEMA_MINIMUM /priority 1:87"]);
    check(plus("\"priority\":11"), &["SCHEMA_MAXIMUM /priority 1:87"]);
    check(plus("\"created_at\":\"2025-13-01T00:00:00Z\""), &["SCHEMA_FORMAT /created_at 1:89"]);
    check(plus("\"target_resources\":[\"a\",\"\"]"), &["SCHEMA_LENGTH /target_resources/1 1:100"]);
    check(with(json!({"reason": "é".repeat(513)})), &["SCHEMA_LENGTH /reason 1:57"]);
    assert!(judge(with(json!({"reason": "é".repeat(512)}))).is_ok());
    assert!(judge(with(json!({"description": "語".repeat(1024)}))).is_ok());
    assert!(judge(with(json!({"correlation_id": "😀".repeat(128)}))).is_ok());
    for target in ["Web", "-a", "a-", "a.b", "a_b", "web\u{e9}", "../x", "a b"] {
        let codes = codes(with(json!({"target": target})));
        assert_eq!(codes, [Code::SchemaPattern], "{target}");
    }
    assert_eq!(codes(with(json!({"target": ""}))), [Code::SchemaLength, Code::SchemaPattern]);
    assert_eq!(codes(with(json!({"target": "a".repeat(64)}))), [Code::SchemaLength]);
    let constraints = |value: Value| codes(with(json!({"constraints": value})));
    assert_eq!(constraints(json!([])), [Code::SchemaType]);
    assert_eq!(constraints(json!({"max_replicas": 0})), [Code::SchemaMinimum]);
    assert_eq!(constraints(json!({"max_replicas": 2_147_483_648_u32})), [Code::SchemaMaximum]);
    assert_eq!(constraints(json!({"allowed_namespaces": ["default", 1]})), [Code::SchemaType]);
}

fn codes(text: String) -> Vec<Code> {
    let rejection = judge(text).expect_err("the document is refused");
    rejection.violations.iter().map(|violation| violation.code).collect()
}

#[test]
fn an_integer_is_one_by_its_text() {
    let replicas = |text: &str| {
        codes(format!(
            r#"{{"intent_type":"scaling","target":"web","namespace":"default","replicas":{text}}}"#
        ))
    };
    for text in
        ["3.0", "3e0", "3E0", "30e-1", "-0", "-0.0", "true", "\"3\"", "null", "1e400", "-1e400"]
    {
        assert_eq!(replicas(text), [Code::SchemaType], "{text}");
    }
    let long = "9".repeat(400);
    for text in ["101", "9223372036854775808", "18446744073709551616", &long] {
        assert_eq!(replicas(text), [Code::SchemaMaximum], "{text}");
    }
    for text in ["0", "-1", "-9223372036854775809", &format!("-{long}")] {
        assert_eq!(replicas(text), [Code::SchemaMinimum], "{text}");
    }
    for field in ["max_replicas", "min_replicas"] {
        let text = plus(&format!("\"constraints\":{{\"{field}\":3.0}}"));
        assert_eq!(codes(text), [Code::SchemaType], "{field}");
    }
    assert_eq!(codes(plus("\"priority\":5.0")), [Code::SchemaType]);
}

#[test]
fn a_number_that_another_reader_would_round_is_refused_anywhere() {
    let further = |number: &str| judge(plus(&format!("\"constraints\":{{\"x\":[{number}]}}")));
    for (number, code) in [
        ("18446744073709551616", Code::SchemaMaximum),
        ("-9223372036854775809", Code::SchemaMinimum),
        ("-0", Code::SchemaType),
        ("1e400", Code::SchemaMaximum),
        ("-1e400", Code::SchemaMinimum),
    ] {
        let rejection = further(number).expect_err(number);
        assert_eq!(rejection.code, code, "{number}");
        assert_eq!(
            rejection.violations[0].pointer.as_deref(),
            Some("/constraints/x/0"),
            "{number}"
        );
        assert_eq!(rejection.violations[0].column, Some(96), "{number}");
    }
    for number in ["18446744073709551615", "-9223372036854775808", "0.1", "1e3", "0", "-1"] {
        assert!(further(number).is_ok(), "{number}");
    }
}

#[test]
fn a_violation_says_what_was_expected_found_and_meant() {
    let rejection = judge(
        "{\n  \"intent_type\": \"scaling\",\n  \"target\": \"Web_1\",\n  \"namespce\": \
                           \"default\",\n  \"replicas\": 500\n}",
    )
    .unwrap_err();
    let violation = |code, pointer: &str, line, column, message: &str| Violation {
        code,
        pointer: Some(pointer.to_owned()),
        line: Some(line),
        column: Some(column),
        message: message.to_owned(),
        expected: None,
        found: None,
        hint: None,
    };
    let said = |text: &str| Some(text.to_owned());
    assert_eq!(
        rejection.violations,
        [
            Violation {
                expected: said("a field `namespace`"),
                ..violation(
                    Code::SchemaRequired,
                    "",
                    1,
                    1,
                    "the required field `namespace` is missing"
                )
            },
            Violation {
                expected: said(
                    "lower-case letters, digits and `-`, with a letter or digit at both ends"
                ),
                found: said("\"Web_1\""),
                hint: said("did you mean `web-1`?"),
                ..violation(
                    Code::SchemaPattern,
                    "/target",
                    3,
                    13,
                    "\"Web_1\" is not a DNS-1123 label"
                )
            },
            Violation {
                expected: said(
                    "one of constraints, correlation_id, created_at, description, intent_type, \
                     namespace, nephio_context, priority, reason, replicas, source, status, target, \
                     target_resources, updated_at"
                ),
                found: said("\"namespce\""),
                hint: said("did you mean `namespace`?"),
                ..violation(
                    Code::SchemaUnknownField,
                    "/namespce",
                    4,
                    3,
                    "`namespce` is not a known field"
                )
            },
            Violation {
                expected: said("at most 100"),
                found: said("500"),
                hint: said("use a value from 1 to 100"),
                ..violation(
                    Code::SchemaMaximum,
                    "/replicas",
                    5,
                    15,
                    "500 is greater than the maximum of 100"
                )
            },
        ]
    );
    assert_eq!(
        rejection.message,
        "the required field `namespace` is missing (line 1, column 1); and 3 more"
    );
}

#[test]
fn a_document_with_very_many_faults_is_answered_with_the_first_ones() {
    let mut text = plus("\"x\":1");
    text.pop();
    for n in 0..10_000 {
        text.push_str(&format!(",\n\"k{n}\":{n}"));
    }
    text.push('}');
    let places = places(text);
    assert_eq!(places.len(), VIOLATIONS_MAX);
    assert_eq!(places[0], "SCHEMA_UNKNOWN_FIELD /x 1:76");
    assert_eq!(places[19], "SCHEMA_UNKNOWN_FIELD /k18 20:1");
    let empty = vec![""; 300_000];
    assert_eq!(codes(with(json!({"target_resources": empty}))), [Code::SchemaLength]);
}

#[test]
fn what_is_reported_of_a_huge_key_or_value_is_cut() {
    let key = "k".repeat(200_000);
    for text in [
        plus(&format!("\"{key}\":1")),
        plus(&format!("\"constraints\":{{\"{key}\":[-0,-0,-0]}}")),
        plus(&format!("\"constraints\":{{\"{key}\":[{}-0]}}", "1.5,".repeat(50_000))),
        plus(&format!("\"source\":\"{key}\"")),
        plus(&format!("\"{key}\":1,\"{key}\":2")),
        plus(&format!("\"x\":0{}", "1".repeat(200_000))),
        format!("{{}}{key}"),
    ] {
        let rejection = judge(text).unwrap_err();
        assert!(serde_json::to_string(&rejection).unwrap().len() < 16_384, "{}", rejection.code);
        for violation in &rejection.violations {
            assert!(
                violation
                    .found
                    .as_ref()
                    .is_none_or(|found| found.chars().count() <= FOUND_CHARS_MAX)
            );
        }
    }
}

#[test]
fn an_accepted_document_is_reread_as_it_was_judged() {
    let text = format!("\u{feff}{}", plus(r#""constraints":{"max_replicas":9,"x":{"y":0.1}}"#));
    let judged = judge(&text).unwrap();
    assert_eq!(reread(text.as_bytes()).unwrap(), judged);
    let denied = with(json!({"namespace": "kube-system"}));
    assert_eq!(reread(denied.as_bytes()).unwrap().namespace, "kube-system");
    assert!(reread(b"[]").is_err());
}

#[test]
fn our_schema_follows_its_meta_schema_and_takes_its_own_examples() {
    let schema: Value = serde_json::from_str(Schema::TEXT).unwrap();
    assert!(jsonschema::meta::validate(&schema).is_ok());
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let examples = schema["examples"].as_array().unwrap();
    assert!(!examples.is_empty());
    for example in examples {
        let judged = judge(example.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&judged).unwrap(), *example);
    }
    for (name, field) in schema["properties"].as_object().unwrap() {
        assert!(field["title"].is_string() && field["description"].is_string(), "{name}");
        for example in field["examples"].as_array().unwrap() {
            let judged = judge(with(json!({ name.as_str(): example })));
            assert!(judged.is_ok(), "{name}: {judged:?}");
        }
    }
}
