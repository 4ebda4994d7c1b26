//! Hostile documents: what we accept means the same to every other reader of JSON, and what we say
//! of it stays in its line (`lines`).
//!
//! A document that two parsers read differently can be one thing to whoever approves it and another
//! to us. Documents are made and mutated from the seed, judged in this process, and those that we
//! accept are read by another program's parser; both readings are written down in one canonical
//! text, which has to be equal. Integers are compared exactly where the other parser has integers
//! (Python); where it has doubles only (JavaScript), after rounding ours to a double.

mod canonical;
mod lines;
mod mutate;

use std::io::{Seek, SeekFrom, Write};
use std::process::{Command, Stdio};

use intentd::schema::{Policy, Schema};

use crate::report::{Options, Random, Row, Tally};
use canonical::Numbers;

pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "D12p", what: "accepted documents mean the same to Python", run: python },
        Row { id: "D12n", what: "accepted documents mean the same to JavaScript", run: node },
        Row { id: "E7", what: "no name and no text forges a line", run: lines::forged },
    ]
}

/// Another program's parser: reads documents from standard input, each behind a line that has its
/// length, and prints one line for each: its canonical text, or `!` where it refuses.
struct Reader {
    program: &'static str,
    args: &'static [&'static str],
    numbers: Numbers,
}

const PYTHON: Reader = Reader {
    program: "python3",
    args: &["-I", "-c", include_str!("reader.py")],
    numbers: Numbers::Exact,
};

const NODE: Reader =
    Reader { program: "node", args: &["-e", include_str!("reader.js")], numbers: Numbers::Doubles };

/// Mutated documents a run, and how many of them one process of the reader is given at most.
const MUTATED: usize = 20_000;
const MUTATED_FULL: usize = 1_000_000;
const BATCH: usize = 20_000;

fn python(options: &Options) -> Tally {
    differ(&PYTHON, options)
}

fn node(options: &Options) -> Tally {
    differ(&NODE, options)
}

fn differ(reader: &Reader, options: &Options) -> Tally {
    if Command::new(reader.program).arg("--version").output().is_err() {
        return Tally::skipped(&format!("{} is not on PATH", reader.program));
    }
    let schema = Schema::builtin();
    let mut random = Random::new(options.seed);
    let mut tally = Tally::default();
    let mut left = if options.full { MUTATED_FULL } else { MUTATED };
    while left > 0 {
        let mut accepted = Vec::new();
        for _ in 0..left.min(BATCH) {
            let document = mutate::document(&mut random);
            tally.fired += 1;
            if let Ok(intent) = schema.judge(&document, &Policy::default()) {
                let value = serde_json::to_value(&intent).expect("an intent is a value");
                accepted.push((document, canonical::text(&value, reader.numbers)));
            }
        }
        left = left.saturating_sub(BATCH);
        tally.acked += accepted.len() as u64;
        compare(reader, &accepted, &mut tally);
    }
    let (fired, acked) = (tally.fired, tally.acked);
    tally.require(acked * 10 >= fired, || format!("only {acked} of {fired} were accepted"));
    tally.require(acked * 10 <= fired * 9, || format!("{acked} of {fired} were accepted"));
    tally
}

/// Lets the reader read what was accepted, and one document more whose reading has to differ: if it
/// did not, equal readings would show nothing.
fn compare(reader: &Reader, accepted: &[(Vec<u8>, String)], tally: &mut Tally) {
    let Some((_, other)) = accepted.first() else { return };
    let canary = (br#"{"replicas":4}"#.to_vec(), other.clone());
    let all: Vec<_> = accepted.iter().chain([&canary]).collect();
    let readings = readings(reader, all.iter().map(|(document, _)| document.as_slice()));
    tally.require(readings.len() == all.len(), || {
        format!("{} readings of {} documents", readings.len(), all.len())
    });
    let mut differing = Vec::new();
    for (index, ((document, ours), theirs)) in all.iter().zip(&readings).enumerate() {
        if ours != theirs {
            differing.push(index);
            if index < accepted.len() {
                let document = String::from_utf8_lossy(document);
                tally.violation(format!("{document:?}: we read {ours}, they {theirs}"));
            }
        }
    }
    tally.require(differing.last() == Some(&accepted.len()), || {
        "a reading that differs was not noticed".to_owned()
    });
}

fn readings<'a>(reader: &Reader, documents: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut input = tempfile::tempfile().unwrap();
    let mut framed = Vec::new();
    for document in documents {
        framed.extend_from_slice(format!("{}\n", document.len()).as_bytes());
        framed.extend_from_slice(document);
    }
    input.write_all(&framed).unwrap();
    input.seek(SeekFrom::Start(0)).unwrap();
    let output = Command::new(reader.program)
        .args(reader.args)
        .stdin(Stdio::from(input))
        .output()
        .expect("the reader starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}
