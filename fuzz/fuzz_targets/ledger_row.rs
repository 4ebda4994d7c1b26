//! A row of the ledger that says anything: it is refused as damaged, or decoded into a record that
//! can be written; nothing panics.
//!
//! The first byte tells whether the digests are right. Then come the columns: a byte for the type,
//! a byte for the length of what is stored, and that.

#![no_main]

use intentd::ledger::fuzzing::{COLUMNS, read_row};
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::types::Value;

thread_local! {
    static CONNECTION: Connection = Connection::open_in_memory().expect("memory is there");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let sealed = first % 2 == 1;
    let values: Vec<Value> = (0..COLUMNS).map_while(|_| column(&mut rest)).collect();
    CONNECTION.with(|connection| {
        let read = read_row(connection, values.clone(), sealed);
        if !sealed {
            assert!(read.is_err(), "a row with wrong digests was taken: {values:?}");
        } else if let Ok(intent) = read {
            serde_json::to_string(&intent.record).expect("a record can be written");
        }
    });
});

fn column(rest: &mut &[u8]) -> Option<Value> {
    let [kind, len, after @ ..] = *rest else { return None };
    // Texts of JSON may be long; a second kind of text counts in steps of 16 bytes.
    let len = usize::from(*len) * if kind % 6 == 5 { 16 } else { 1 };
    let (stored, after) = after.split_at(len.min(after.len()));
    *rest = after;
    let text = || String::from_utf8_lossy(stored).into_owned();
    let number = || stored.iter().rev().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
    Some(match kind % 6 {
        0 => Value::Null,
        1 => Value::Integer(number()),
        2 => Value::Real(number() as f64 / 3.0),
        3 => Value::Blob(stored.to_vec()),
        _ => Value::Text(text()),
    })
}
