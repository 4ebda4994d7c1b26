//! The decoder of rows by itself, opened for `fuzz/` and absent from every other build.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::ledger::{Error, OpenIntent, row};

/// Columns of an intent and its outcome, as `ledger::row` reads them.
pub const COLUMNS: usize = 20;

/// Where the digests of the intent and of the outcome stand among them.
const SUMS: [usize; 2] = [9, 19];

/// Where `superseded_by`, whose absence is summed as 0, stands in what the outcome's digest covers.
const SUPERSEDED_BY: usize = 4;

/// Decodes a row that holds these values. `sealed` puts the digests right, so that damage has to be
/// noticed by what comes after them.
///
/// # Errors
///
/// The row is damaged.
pub fn read_row(
    connection: &Connection,
    mut values: Vec<Value>,
    sealed: bool,
) -> Result<OpenIntent, Error> {
    values.resize(COLUMNS, Value::Null);
    if sealed {
        values[SUMS[0]] = Value::Blob(seal(&values[1..9], Some(&values[10])));
        let mut outcome = [&values[..1], &values[11..19]].concat();
        if outcome[SUPERSEDED_BY] == Value::Null {
            outcome[SUPERSEDED_BY] = Value::Integer(0);
        }
        values[SUMS[1]] = Value::Blob(seal(&outcome, None));
    }
    let marks = vec!["?"; COLUMNS].join(", ");
    let failed = crate::ledger::failed("read a row");
    let mut statement = connection.prepare_cached(&format!("SELECT {marks}")).map_err(&failed)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(&failed)?;
    let row = rows.next().map_err(&failed)?.expect("a SELECT without a table has one row");
    row::read_intent(row)
}

fn seal(values: &[Value], last: Option<&Value>) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = values.iter().chain(last).map(bytes).collect();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    row::sum(&parts).to_vec()
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => Vec::new(),
        Value::Integer(number) => number.to_le_bytes().to_vec(),
        Value::Real(number) => number.to_le_bytes().to_vec(),
        Value::Text(text) => text.as_bytes().to_vec(),
        Value::Blob(blob) => blob.clone(),
    }
}
