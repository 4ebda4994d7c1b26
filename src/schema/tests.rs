//! One judgement from bytes to verdict: codes, places and words of every kind of fault.

use proptest::prelude::*;
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
fn constraints_and_policy_are_enforced_and_reported_together() {
    check(plus(r#""constraints":{"max_replicas":2}"#), &["CONSTRAINT /replicas 1:74"]);
    check(plus(r#""constraints":{"min_replicas":4}"#), &["CONSTRAINT /replicas 1:74"]);
    check(
        plus(r#""constraints":{"min_replicas":3,"max_replicas":2}"#),
        &["CONSTRAINT /replicas 1:74", "CONSTRAINT /constraints/min_replicas 1:106"],
    );
    check(
        plus(r#""constraints":{"allowed_namespaces":["other"]}"#),
        &["CONSTRAINT /namespace 1:53"],
    );
    check(plus(r#""constraints":{"allowed_namespaces":[]}"#), &["CONSTRAINT /namespace 1:53"]);
    assert!(judge(plus(r#""constraints":{"allowed_namespaces":["other","default"]}"#)).is_ok());
    for namespace in ["kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(codes(with(json!({"namespace": namespace}))), [Code::Policy]);
    }
    let text = with(json!({"namespace": "kube-system", "constraints": {"max_replicas": 1}}));
    assert_eq!(codes(text), [Code::Policy, Code::Constraint]);
}

#[test]
fn a_site_policy_tightens_by_globs_and_bounds() {
    let glob = |text: &str| text.parse::<Glob>().unwrap();
    let policy = Policy {
        allowed_namespaces: vec![glob("ran-*"), glob("core")],
        denied_namespaces: vec![glob("ran-test")],
        allowed_targets: Vec::new(),
        denied_targets: vec![glob("*-db")],
        replicas_min: Some(2),
        replicas_max: Some(50),
        replica_bounds: vec![ReplicaBound {
            namespace: glob("ran-*"),
            target: glob("du-?"),
            min: None,
            max: Some(8),
        }],
    };
    let schema = Schema::builtin();
    for (namespace, target, replicas, pointers) in [
        ("ran-a", "web", 3, &[][..]),
        ("core", "du-1", 50, &[]),
        ("default", "web", 3, &["/namespace"]),
        ("ran-test", "web", 3, &["/namespace"]),
        ("ran-a", "user-db", 3, &["/target"]),
        ("ran-a", "web", 1, &["/replicas"]),
        ("ran-a", "web", 51, &["/replicas"]),
        ("ran-a", "du-1", 9, &["/replicas"]),
        ("ran-a", "du-1", 51, &["/replicas", "/replicas"]),
        ("ran-a", "du-10", 9, &[]),
        ("x", "user-db", 51, &["/namespace", "/target", "/replicas"]),
    ] {
        // The order of keys in the text decides the order of what is reported.
        let text = format!(
            r#"{{"namespace":"{namespace}","target":"{target}","replicas":{replicas},"intent_type":"scaling"}}"#
        );
        let found: Vec<String> = match schema.judge(text.as_bytes(), &policy) {
            Ok(_) => Vec::new(),
            Err(rejection) => rejection
                .violations
                .iter()
                .map(|violation| {
                    assert_eq!(violation.code, Code::Policy);
                    violation.pointer.clone().unwrap()
                })
                .collect(),
        };
        assert_eq!(found, pointers, "{text}");
    }
}

#[test]
fn a_site_schema_tightens_ours_and_never_loosens_it() {
    let site = r#"{"properties":{"replicas":{"maximum":10},"reason":{"pattern":"^INC-[0-9]+$"},
        "source":{"const":"user"},"target":false},
        "required":["reason"],"not":{"required":["priority"]},"additionalProperties":true}"#;
    let schema = Schema::with_site(site).unwrap();
    let places = |fields| {
        let rejection = schema.judge(with(fields).as_bytes(), &Policy::default()).unwrap_err();
        let violations = rejection.violations.into_iter();
        violations.map(|v| (v.code, v.pointer.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(
        places(json!({"replicas": 11, "reason": "x", "source": "test", "priority": 1})),
        [
            (Code::SchemaRule, String::new()),
            (Code::SchemaPattern, "/reason".to_owned()),
            (Code::SchemaMaximum, "/replicas".to_owned()),
            (Code::SchemaEnum, "/source".to_owned()),
            (Code::SchemaRule, "/target".to_owned()),
        ]
    );
    let both = places(json!({"replicas": 101, "x": 1}));
    let maxima = both.iter().filter(|(code, _)| *code == Code::SchemaMaximum).count();
    assert_eq!(maxima, 2, "{both:?}");
    assert!(both.contains(&(Code::SchemaUnknownField, "/x".to_owned())), "{both:?}");
}

#[test]
fn a_site_schema_that_cannot_be_used_is_refused_when_it_is_read() {
    for site in [
        "{",
        "5",
        r#"{"type":"integr"}"#,
        r#"{"$ref":"http://127.0.0.1:9/schema.json"}"#,
        r#"{"$ref":"file:///etc/passwd"}"#,
        r#"{"$schema":"http://127.0.0.1:9/meta"}"#,
        r#"{"properties":{"target":{"pattern":"(?=a)b"}}}"#,
        r#"{"properties":{"target":{"format":"no-such-format"}}}"#,
    ] {
        assert!(Schema::with_site(site).is_err(), "{site}");
    }
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

/// Texts that are nearly intents: pieces of JSON, good and bad, in any order.
fn nearly_json() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\"reason\"",
        "1",
        "-0",
        "-",
        "1.5",
        "1e9",
        "1e999",
        "01",
        "18446744073709551616",
        "true",
        "nul",
        "null",
        "\"\\n\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"\u{202e}\"",
        "\"\u{1}\"",
        "\"",
        "\\",
        "é",
        "\u{0}",
        "\u{feff}",
        "/",
        "\"intent_type\":\"scaling\"",
        "\"replicas\":3",
    ]);
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

/// Values as they may stand in a key of `constraints` that we do not know.
fn further() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has finite numbers", |f| f.is_finite())
            .prop_map(Value::from),
        "[ -~é語😀]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ -~é]{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn judging_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _verdict = judge(&bytes);
    }

    #[test]
    fn a_damaged_intent_is_judged_in_bounds(at in 0..200_usize, byte: u8, cut in 0..400_usize) {
        let mut text = plus(r#""constraints":{"max_replicas":9,"x":[1.5,"é\u00e9"]},"reason":"a\n""#)
            .into_bytes();
        let at = at % text.len();
        text[at] = byte;
        text.truncate(cut);
        if let Err(rejection) = judge(&text) {
            let shown = render::snippet("a.json", &text, &rejection, false);
            prop_assert!(!shown.is_empty());
            for violation in &rejection.violations {
                prop_assert_eq!(violation.line.is_some(), violation.code != Code::Empty);
            }
        }
    }

    #[test]
    fn what_serde_json_refuses_is_refused_with_a_place(text in nearly_json()) {
        let verdict = judge(&text);
        if serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')).is_err() {
            let rejection = verdict.expect_err("serde_json refuses it");
            let violation = &rejection.violations[0];
            prop_assert_eq!(violation.line.is_some(), violation.code != Code::Empty);
        }
    }

    #[test]
    fn the_walk_finds_the_fault_that_the_parser_has_decided_on(text in nearly_json()) {
        let fault = locate::first_fault(&text).map(|fault| fault.code);
        match parse::parse(&text) {
            Ok(_) => prop_assert_eq!(fault, None),
            Err(refused) => {
                let fault = fault.expect("there is a fault to find");
                // The walk tells some kinds of bad syntax apart.
                let finer = matches!(
                    (refused.code, fault),
                    (Code::NotJson | Code::TrailingData, Code::BadCharacter)
                        | (Code::NotJson, Code::SchemaMaximum | Code::SchemaMinimum)
                );
                prop_assert!(finer || refused.code == fault, "{:?} {:?}", refused, fault);
            }
        }
    }

    #[test]
    fn an_accepted_document_says_the_same_when_written_again(
        x in further(), replicas in 1..=100_u32, target in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?",
    ) {
        let document = json!({
            "intent_type": "scaling", "target": target, "namespace": "default",
            "replicas": replicas, "constraints": {"x": x}, "reason": "é\n",
        });
        let judged = judge(document.to_string()).expect("the document follows the schema");
        prop_assert_eq!(&serde_json::to_value(&judged).unwrap(), &document);
        let text = serde_json::to_vec(&judged).unwrap();
        prop_assert_eq!(reread(&text).unwrap(), judged);
    }
}
