//! Rows that go in several at a time: to run a statement costs about as much as to write two rows.

use rusqlite::{Connection, Statement, ToSql};

/// Rows of one statement; a commit's last few go in one by one.
const MANY: usize = 8;

/// The values of one row, to be given in the order of the columns.
#[derive(Debug)]
pub struct Values<'a, 'c> {
    statement: &'a mut Statement<'c>,
    given: usize,
}

impl Values<'_, '_> {
    pub fn give(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.given += 1;
        self.statement.raw_bind_parameter(self.given, value)
    }
}

/// Puts a row for each of `items` into a table, in their order. `into` is all of the statement up to its
/// rows, which have so many columns.
pub fn insert<T>(
    connection: &Connection,
    into: &str,
    columns: usize,
    items: &[T],
    row: impl Fn(&T, &mut Values<'_, '_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let statement = |rows: usize| {
        let row = format!("({})", vec!["?"; columns].join(", "));
        let rows = vec![row; rows].join(", ");
        connection.prepare_cached(&format!("{into} VALUES {rows}"))
    };
    let (full, rest) = items.as_chunks::<MANY>();
    if !full.is_empty() {
        let mut statement = statement(MANY)?;
        for items in full {
            put(&mut statement, items, &row)?;
        }
    }
    if !rest.is_empty() {
        let mut statement = statement(1)?;
        for item in rest {
            put(&mut statement, std::slice::from_ref(item), &row)?;
        }
    }
    Ok(())
}

fn put<T>(
    statement: &mut Statement<'_>,
    items: &[T],
    row: impl Fn(&T, &mut Values<'_, '_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut values = Values { statement: &mut *statement, given: 0 };
    for item in items {
        row(item, &mut values)?;
    }
    statement.raw_execute().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_becomes_one_row_in_its_order_however_many_there_are() {
        for count in [0, 1, MANY - 1, MANY, 3 * MANY + 2] {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)").unwrap();
            let items: Vec<usize> = (0..count).collect();
            insert(&connection, "INSERT INTO t (n, text)", 2, &items, |item, values| {
                values.give(*item as u64)?;
                values.give(item.to_string())
            })
            .unwrap();
            let mut read = connection.prepare("SELECT text FROM t ORDER BY n").unwrap();
            let found = read.query_map([], |row| row.get::<_, String>(0)).unwrap();
            let found: Vec<usize> = found.map(|text| text.unwrap().parse().unwrap()).collect();
            assert_eq!(found, items);
        }
    }
}
