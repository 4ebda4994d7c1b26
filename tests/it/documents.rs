//! Documents as hostile as they come: what is JSON and what is not, by a suite that others keep,
//! and bounds that hold however deep, long or many the parts of a document are.
//!
//! Not here: single rules of schema and text (`src/schema/tests`), the agreed cases (`cases`), and
//! documents that change at random (`tests/proof`, `fuzz/`).

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use intentd::compose::{Settings, compose};
use intentd::limits::DOCUMENT_BYTES_MAX;
use intentd::model::Code;
use intentd::schema::{Policy, Schema};
use serde_json::{Value, json};

use crate::support::Site;

thread_local!(static SCHEMA: Schema = Schema::builtin());

/// The code of the refusal; `None` for a document that is accepted.
fn code(document: impl AsRef<[u8]>) -> Option<Code> {
    let judge = |schema: &Schema| schema.judge(document.as_ref(), &Policy::default());
    SCHEMA.with(judge).err().map(|rejection| rejection.code)
}

/// The smallest intent with `more` as further text behind its fields.
fn plus(more: &str) -> String {
    format!(
        r#"{{"intent_type":"scaling","target":"web","namespace":"default","replicas":3,{more}}}"#
    )
}

/// The parser has read these to their end; only what they say was refused.
const READ: [Code; 2] = [Code::NotObject, Code::SchemaRequired];

/// Refusals of what is no JSON.
const NO_JSON: [Code; 6] = [
    Code::NotJson,
    Code::Incomplete,
    Code::TrailingData,
    Code::NotUtf8,
    Code::Empty,
    Code::TooDeep,
];

/// JSON, and still refused as a text: what another reader would read otherwise, or not see.
const STRICTER: [(&str, Code); 21] = [
    ("y_object_duplicated_key.json", Code::DuplicateKey),
    ("y_object_duplicated_key_and_value.json", Code::DuplicateKey),
    ("y_object_escaped_null_in_key.json", Code::BadCharacter),
    ("y_string_allowed_escapes.json", Code::BadCharacter),
    ("y_string_escaped_control_character.json", Code::BadCharacter),
    ("y_string_escaped_noncharacter.json", Code::BadCharacter),
    ("y_string_last_surrogates_1_and_2.json", Code::BadCharacter),
    ("y_string_nonCharacterInUTF-8_U+10FFFF.json", Code::BadCharacter),
    ("y_string_nonCharacterInUTF-8_U+FFFF.json", Code::BadCharacter),
    ("y_string_null_escape.json", Code::BadCharacter),
    ("y_string_u+2028_line_sep.json", Code::BadCharacter),
    ("y_string_u+2029_par_sep.json", Code::BadCharacter),
    ("y_string_uescaped_newline.json", Code::BadCharacter),
    ("y_string_unescaped_char_delete.json", Code::BadCharacter),
    ("y_string_unicode_U+10FFFE_nonchar.json", Code::BadCharacter),
    ("y_string_unicode_U+1FFFE_nonchar.json", Code::BadCharacter),
    ("y_string_unicode_U+200B_ZERO_WIDTH_SPACE.json", Code::BadCharacter),
    ("y_string_unicode_U+2064_invisible_plus.json", Code::BadCharacter),
    ("y_string_unicode_U+FDD0_nonchar.json", Code::BadCharacter),
    ("y_string_unicode_U+FFFE_nonchar.json", Code::BadCharacter),
    ("y_string_with_del_character.json", Code::BadCharacter),
];

/// What the suite leaves to the parser. Read are a byte order mark and numbers that a double can
/// round; that such a number stands for no integer is judged after the parser, and shown in
/// `src/schema/tests`. Refused are numbers past a double, text that is not UTF-8, half surrogates
/// and nesting past our bound.
const FREE: [(&str, Code); 35] = [
    ("i_number_double_huge_neg_exp.json", Code::NotObject),
    ("i_number_huge_exp.json", Code::SchemaMaximum),
    ("i_number_neg_int_huge_exp.json", Code::SchemaMinimum),
    ("i_number_pos_double_huge_exp.json", Code::SchemaMaximum),
    ("i_number_real_neg_overflow.json", Code::SchemaMinimum),
    ("i_number_real_pos_overflow.json", Code::SchemaMaximum),
    ("i_number_real_underflow.json", Code::NotObject),
    ("i_number_too_big_neg_int.json", Code::NotObject),
    ("i_number_too_big_pos_int.json", Code::NotObject),
    ("i_number_very_big_negative_int.json", Code::NotObject),
    ("i_object_key_lone_2nd_surrogate.json", Code::NotJson),
    ("i_string_1st_surrogate_but_2nd_missing.json", Code::NotJson),
    ("i_string_1st_valid_surrogate_2nd_invalid.json", Code::NotJson),
    ("i_string_UTF-16LE_with_BOM.json", Code::NotUtf8),
    ("i_string_UTF-8_invalid_sequence.json", Code::NotUtf8),
    ("i_string_UTF8_surrogate_U+D800.json", Code::NotUtf8),
    ("i_string_incomplete_surrogate_and_escape_valid.json", Code::NotJson),
    ("i_string_incomplete_surrogate_pair.json", Code::NotJson),
    ("i_string_incomplete_surrogates_escape_valid.json", Code::NotJson),
    ("i_string_invalid_lonely_surrogate.json", Code::NotJson),
    ("i_string_invalid_surrogate.json", Code::NotJson),
    ("i_string_invalid_utf-8.json", Code::NotUtf8),
    ("i_string_inverted_surrogates_U+1D11E.json", Code::NotJson),
    ("i_string_iso_latin_1.json", Code::NotUtf8),
    ("i_string_lone_second_surrogate.json", Code::NotJson),
    ("i_string_lone_utf8_continuation_byte.json", Code::NotUtf8),
    ("i_string_not_in_unicode_range.json", Code::NotUtf8),
    ("i_string_overlong_sequence_2_bytes.json", Code::NotUtf8),
    ("i_string_overlong_sequence_6_bytes.json", Code::NotUtf8),
    ("i_string_overlong_sequence_6_bytes_null.json", Code::NotUtf8),
    ("i_string_truncated-utf-8.json", Code::NotUtf8),
    ("i_string_utf16BE_no_BOM.json", Code::NotUtf8),
    ("i_string_utf16LE_no_BOM.json", Code::NotUtf8),
    ("i_structure_500_nested_arrays.json", Code::TooDeep),
    ("i_structure_UTF-8_BOM_empty_object.json", Code::SchemaRequired),
];

#[test]
fn the_json_test_suite_is_judged_as_documented() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/json-test-suite");
    let documented: BTreeMap<&str, Code> = STRICTER.into_iter().chain(FREE).collect();
    let (mut counts, mut seen, mut wrong) = (BTreeMap::new(), 0, Vec::new());
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((kind @ ("y" | "n" | "i"), _)) = name.split_once('_') else { continue };
        *counts.entry(kind.to_owned()).or_insert(0) += 1;
        // None of them is an intent.
        let code = code(std::fs::read(&path).unwrap()).expect("a refusal");
        let right = match (documented.get(name), kind) {
            (Some(expected), _) => {
                seen += 1;
                code == *expected
            }
            (None, "y") => READ.contains(&code),
            // A hidden character between two tokens is named as such.
            (None, _) => NO_JSON.contains(&code) || code == Code::BadCharacter,
        };
        if !right {
            wrong.push(format!("{name}: {code}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let expected = [("i", 35), ("n", 188), ("y", 95)].map(|(kind, n)| (kind.to_owned(), n));
    assert_eq!(counts, BTreeMap::from(expected));
    assert_eq!(seen, documented.len());
}

/// How long the judgement of a document takes, and its code; on a stack of half of what the
/// threads have that judge.
fn timed(document: String) -> (Duration, Option<Code>) {
    let judge = move || {
        SCHEMA.with(|_| ());
        let start = Instant::now();
        let code = code(document);
        (start.elapsed(), code)
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(judge).unwrap();
    thread.join().expect("no panic")
}

#[test]
fn a_document_past_a_bound_is_refused_with_a_small_stack_and_in_linear_time() {
    let nested = |open: &str, depth: usize, close: &str| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    let constraint = |value: String| plus(&format!(r#""constraints":{{"x":{value}}}"#));
    let keys =
        |count: usize| (0..count).map(|n| format!(r#""k{n}":0"#)).collect::<Vec<_>>().join(",");
    let long = 1 << 20;
    let cases = [
        ("127 deep", nested("[", 127, "]"), Some(Code::TooDeep)),
        ("128 deep", nested("[", 128, "]"), Some(Code::TooDeep)),
        ("100,000 deep", nested("[", 100_000, "]"), Some(Code::TooDeep)),
        ("100,000 objects deep", nested("{\"a\":", 100_000, "}"), Some(Code::TooDeep)),
        ("100,000 deep inside", constraint(nested("[", 100_000, "]")), Some(Code::TooDeep)),
        ("never closed", "[".repeat(long), Some(Code::TooDeep)),
        ("many keys", plus(&keys(20_000)), Some(Code::SchemaUnknownField)),
        ("many keys inside", constraint(format!("{{{}}}", keys(20_000))), None),
        (
            "many of one key",
            plus(r#""x":0,"#.repeat(150_000).trim_end_matches(',')),
            Some(Code::DuplicateKey),
        ),
        ("a long integer", constraint("1".repeat(long)), Some(Code::SchemaMaximum)),
        ("a long fraction", constraint(format!("0.{}", "1".repeat(long))), None),
        ("a long exponent", constraint(format!("1e-{}", "9".repeat(long))), None),
        ("a long string", constraint(format!("\"{}\"", "a".repeat(long))), None),
        (
            "a long reason",
            plus(&format!(r#""reason":"{}""#, "é".repeat(long / 2))),
            Some(Code::SchemaLength),
        ),
        (
            "a long target",
            plus("\"x\":0").replace("web", &"a".repeat(long)),
            Some(Code::SchemaLength),
        ),
        // A matcher that tries again and again would not come back from these.
        (
            "a pattern's near miss",
            plus("\"x\":0").replace("web", &format!("{}-", "a-".repeat(32_768))),
            Some(Code::SchemaLength),
        ),
        (
            "a time of digits",
            plus(&format!(r#""created_at":"{}""#, "1".repeat(65_536))),
            Some(Code::SchemaFormat),
        ),
        (
            "a time of fractions",
            plus(&format!(r#""created_at":"2025-01-01T00:00:00.{}""#, "1".repeat(65_536))),
            Some(Code::SchemaFormat),
        ),
    ];
    // What an ordinary document of the largest size costs, here and now: eight times what an eighth
    // of it costs.
    let ordinary = constraint(format!("[{}0]", r#"{"a":[1,2.5,"b"]},"#.repeat(long / 8 / 18)));
    let (unit, verdict) = timed(ordinary);
    assert_eq!(verdict, None);
    let unit = unit * 8;
    for (what, document, expected) in cases {
        let (taken, code) = timed(document);
        assert_eq!(code, expected, "{what}");
        assert!(taken < unit * 10 + Duration::from_millis(200), "{what}: {taken:?} of {unit:?}");
    }
}

#[test]
fn a_site_schema_with_an_explosive_pattern_answers_in_linear_time() {
    let site = r#"{"properties":{"reason":{"pattern":"^(a+)+$"},"description":{"pattern":"(.*a){20}$"},
        "correlation_id":{"pattern":"^(a|aa)+$"}}}"#;
    let schema = Schema::with_site(site).unwrap();
    for field in ["reason", "description", "correlation_id"] {
        let document = plus(&format!(r#""{field}":"{}!""#, "a".repeat(65_536)));
        let start = Instant::now();
        assert!(schema.judge(document.as_bytes(), &Policy::default()).is_err(), "{field}");
        // One that backtracks needs longer than the world will last.
        assert!(start.elapsed() < Duration::from_secs(10), "{field}: {:?}", start.elapsed());
    }
}

#[test]
fn a_document_past_the_size_limit_is_refused_unread() {
    let site = Site::new();
    let path = site.root().join("large.json");
    let keys: String = (0..200_000).map(|n| format!(r#","k{n}":0"#)).collect();
    std::fs::write(&path, format!("{{\"a\":0{keys}}}")).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > DOCUMENT_BYTES_MAX);
    let finished = site.run(&["validate", "-o", "jsonl", path.to_str().unwrap()]);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert_eq!(finished.jsonl()[0]["violations"][0]["code"], "TOO_LARGE", "{}", finished.stdout);
}

#[test]
fn a_reference_in_a_document_or_a_schema_is_never_followed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/schema.json", listener.local_addr().unwrap());
    for key in ["$ref", "$schema", "$id", "$dynamicRef", "__proto__", "constructor", "toString"] {
        let unknown = plus(&format!(r#""{key}":"{url}""#));
        assert_eq!(code(unknown), Some(Code::SchemaUnknownField), "{key}");
        // Below `constraints`, which is open, it is a key like any other.
        let data = plus(&format!(r#""constraints":{{"{key}":"{url}"}}"#));
        let intent = SCHEMA.with(|schema| schema.judge(data.as_bytes(), &Policy::default()));
        assert_eq!(intent.unwrap().constraints.unwrap().further[key], url.as_str());
    }
    for site in [
        json!({"$ref": url}),
        json!({"$schema": url}),
        json!({"$dynamicRef": url}),
        json!({"properties": {"target": {"$ref": format!("{url}#/x")}}}),
        json!({"$id": url, "properties": {"target": {"$ref": "other.json"}}}),
    ] {
        assert!(Schema::with_site(&site.to_string()).is_err(), "{site}");
    }
    let met = listener.accept().expect_err("nobody has called");
    assert_eq!(met.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn names_are_labels_of_rfc_1123_or_refused() {
    let (longest, longer) = ("a".repeat(63), "a".repeat(64));
    let proper = ["a", "0", "web", "w-1", "1-w", "a--b", "xn--bcher-kva", "1e3", "no", &longest];
    let improper = [
        "",
        "-",
        "-a",
        "a-",
        "A",
        "Web",
        "a.b",
        "a_b",
        "a/b",
        "a\\b",
        "..",
        ".",
        "../x",
        "a b",
        " a",
        "a ",
        "a\u{a0}",
        "é",
        "ａ",
        "а",
        "a\u{2024}b",
        "a\u{ff0e}b",
        "a\u{3002}b",
        "a\u{2010}b",
        "a\u{2215}b",
        "a%2fb",
        "a:b",
        "a@b",
        "a,b",
        "a;b",
        "a|b",
        "a&b",
        "a$b",
        "$(id)",
        "`id`",
        "{{.}}",
        "*",
        "~",
        "#a",
        "a#",
        "?",
        "--kubeconfig=/x",
        "-n kube-system",
        "a=b",
        "a'b",
        "\\\"",
        "<a>",
        "%",
        "\\n",
        "\\t",
        "a\\n",
        &longer,
        &"a".repeat(253),
        &"a".repeat(254),
    ];
    let with = |field: &str, name: &str| {
        let smallest = plus(r#""reason":"""#);
        let value = if field == "target" { "\"web\"" } else { "\"default\"" };
        smallest.replace(value, &format!("\"{name}\""))
    };
    for field in ["target", "namespace"] {
        for name in proper {
            assert_eq!(code(with(field, name)), None, "{field} {name}");
        }
        for name in improper {
            assert!(code(with(field, name)).is_some(), "{field} {name}");
        }
    }
}

#[test]
fn no_document_makes_a_label_or_an_annotation_that_kubernetes_refuses() {
    let long = "n".repeat(63);
    for kind in ["scaling", "deployment", "configuration"] {
        let document = json!({
            "intent_type": kind, "target": long, "namespace": long, "replicas": 1,
            "reason": "é".repeat(512), "description": "語".repeat(1024),
            "correlation_id": "c".repeat(128), "target_resources": vec!["r".repeat(600); 1024],
        });
        assert_eq!(code(document.to_string()), None);
        let settings =
            Settings { deployment_image: Some("a/b:1".to_owned()), ..Settings::default() };
        let package = compose(&serde_json::from_value(document).unwrap(), &settings).unwrap();
        assert!(package.name.len() <= 63, "{}", package.name);
        for file in &package.files {
            let resource: Value = serde_saphyr::from_str(&file.text).unwrap();
            let texts = |key: &str| {
                let texts = resource["metadata"][key].as_object().into_iter().flatten();
                texts.map(|(_, text)| text.as_str().unwrap().len()).collect::<Vec<_>>()
            };
            assert!(texts("labels").iter().all(|len| *len <= 63), "{}", file.text);
            assert!(texts("annotations").iter().sum::<usize>() < 256 << 10, "{}", file.text);
            assert!(resource["metadata"]["name"].as_str().unwrap().len() <= 253);
        }
    }
}
