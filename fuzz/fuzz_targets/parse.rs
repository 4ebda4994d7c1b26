//! The text of a document: our parser takes nothing that `serde_json` does not take, reads the same
//! value, and names the same first fault as the walk that locates it.

#![no_main]

use intentd::model::Code;
use intentd::schema::fuzzing;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|text: &str| {
    match fuzzing::parse(text) {
        (Ok(value), fault) => {
            assert_eq!(fault, None, "a fault was found in a text that was taken");
            assert_eq!(serde_json::from_str::<Value>(text).expect("serde_json takes it"), value);
        }
        (Err(code), fault) => {
            let fault = fault.expect("there is a fault to find");
            // The walk tells some kinds of bad syntax apart, and it is the one whose word is told.
            // An escape that is too short, close to the end, is an end to `serde_json`.
            let short_escape = code == Code::Incomplete && text.contains("\\u");
            let finer = matches!(
                (code, fault),
                (Code::NotJson | Code::TrailingData, Code::BadCharacter)
                    | (Code::NotJson, Code::SchemaMaximum | Code::SchemaMinimum | Code::SchemaType)
            ) || (short_escape && matches!(fault, Code::NotJson | Code::BadCharacter));
            assert!(finer || code == fault, "the parser says {code:?}, the walk {fault:?}");
        }
    }
});
