//! What holds for every document, tried on many.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{judge, plus};
use crate::model::Code;
use crate::schema::{locate, parse, render, reread};

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
                        | (Code::NotJson, Code::SchemaMaximum | Code::SchemaMinimum | Code::SchemaType)
                        | (Code::Incomplete, Code::NotJson | Code::BadCharacter)
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
