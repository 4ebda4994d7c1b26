//! The cases that every implementation of the contract has to agree on, in
//! `tests/cases/documents-and-names.jsonl`: each is a file with a name, bytes and a verdict.

use intentd::limits::DOCUMENT_BYTES_MAX;
use intentd::schema::{NameRule, Policy, Schema};
use serde_json::{Value, json};

/// What has to happen to the file of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Accept,
    /// Moved to `failed/` with a reason.
    Reject,
    /// Left where it is.
    Ignore,
}

/// One case, ready to be dropped.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    pub name: Vec<u8>,
    pub bytes: Vec<u8>,
    pub verdict: Verdict,
    /// The size limit that the case is meant for.
    pub size_bytes_max: u64,
}

/// All cases, in the order of the file.
pub fn cases() -> Vec<Case> {
    include_str!("../cases/documents-and-names.jsonl")
        .lines()
        .map(|line| case(&serde_json::from_str(line).expect("each line is a case")))
        .collect()
}

fn case(case: &Value) -> Case {
    let input = &case["input"];
    let text = |key: &str| input[key].as_str().map(str::to_owned);
    let name = text("file").or(text("name")).map(String::into_bytes);
    let bytes = match (text("body").as_deref(), text("body_b64")) {
        (Some("<valid-min>"), _) => smallest().to_string().into_bytes(),
        (Some(body), _) => body.as_bytes().to_vec(),
        (None, Some(base64)) => decode(&base64),
        (None, None) => generate(&input["gen"]).into_bytes(),
    };
    Case {
        id: case["id"].as_str().expect("a case has an id").to_owned(),
        name: name.unwrap_or_else(|| decode(&text("name_b64").expect("a case has a name"))),
        bytes,
        verdict: match case["expect"]["verdict"].as_str() {
            Some("accept") => Verdict::Accept,
            Some("reject") => Verdict::Reject,
            Some("ignore") => Verdict::Ignore,
            other => panic!("no verdict {other:?}"),
        },
        // The one kind of case about size speaks of 5 MiB.
        size_bytes_max: match input["gen"]["type"].as_str() {
            Some("pad_spaces") => 5 << 20,
            _ => DOCUMENT_BYTES_MAX,
        },
    }
}

fn smallest() -> Value {
    json!({"intent_type": "scaling", "target": "web", "namespace": "default", "replicas": 3})
}

/// Makes the text of a case that would be too long to write down.
fn generate(how: &Value) -> String {
    let number = |key: &str| {
        let number = how[key].as_u64().unwrap_or_else(|| panic!("no number `{key}` in {how}"));
        usize::try_from(number).expect("the number fits")
    };
    let mut document = smallest();
    match how["type"].as_str() {
        Some("field_repeat") => {
            let field = how["field"].as_str().expect("a field is named");
            let char = how["char"].as_str().expect("a character is given");
            document[field] = char.repeat(number("count")).into();
            document.to_string()
        }
        Some("pad_spaces") => {
            let text = document.to_string();
            let spaces = number("total_bytes") - text.len();
            text + &" ".repeat(spaces)
        }
        Some("nest_objects_in_constraints") => {
            // The top object and `constraints` itself are two of them.
            let inner = number("total_depth") - 2;
            let nested = format!("{}1{}", "{\"a\":".repeat(inner), "}".repeat(inner));
            document["constraints"] = json!({"a": 0});
            document.to_string().replace("{\"a\":0}", &format!("{{\"a\":{nested}}}"))
        }
        Some("nest_arrays") => {
            let depth = number("depth");
            "[".repeat(depth) + &"]".repeat(depth)
        }
        Some("many_extra_keys") => {
            for index in 0..number("count") {
                document[format!("extra{index}")] = index.into();
            }
            document.to_string()
        }
        other => panic!("no way to generate {other:?}"),
    }
}

fn decode(base64: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held) = (0_u32, 0);
    let mut bytes = Vec::new();
    for byte in base64.trim_end_matches('=').bytes() {
        let digit = alphabet.iter().position(|other| *other == byte).expect("it is base64");
        bits = bits << 6 | digit as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bytes
}

#[test]
fn every_case_is_judged_as_agreed() {
    let names = NameRule::new(&["intent-*.json", "*.intent.json"].map(str::to_owned)).unwrap();
    let schema = Schema::builtin();
    let cases = cases();
    assert!(cases.len() >= 84, "{} cases", cases.len());
    for case in cases {
        let verdict = if !names.takes(&case.name) {
            Verdict::Ignore
        } else if let Err(rejection) = names.check(&case.name) {
            assert!(rejection.message.contains("`intent-<id>.json`"), "{}", rejection.message);
            Verdict::Reject
        } else if case.bytes.len() as u64 > case.size_bytes_max
            || schema.judge(&case.bytes, &Policy::default()).is_err()
        {
            Verdict::Reject
        } else {
            Verdict::Accept
        };
        assert_eq!(verdict, case.verdict, "{}", case.id);
    }
}
