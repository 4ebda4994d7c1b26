//! The file: its tables, its settings, and the refusal of files that are not ours.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::fault;
use crate::ledger::census::Census;
use crate::ledger::{Error, failed, row};

/// "intd" in the file's header, so that `file` and we know whose it is.
const APPLICATION_ID: i32 = 0x696e_7464;

/// The format below; a change adds a step to [`migrate`].
const FORMAT: i32 = 3;

/// The oldest format that is brought to the current one by [`migrate`], and can be read as it is.
const FORMAT_MIN: i32 = 2;

/// STRICT keeps types honest; `intents` is append-only, and so is `outcomes` but for what `retry` moves
/// to `earlier`; `open` lists what is not archived; `targets` has what was last finished for a target
/// at a sink.
const TABLES: &str = "
CREATE TABLE meta (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, sum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE intents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL, mode TEXT NOT NULL, received_at INTEGER NOT NULL,
    file BLOB NOT NULL, claim BLOB, digest BLOB, source TEXT, intent TEXT, document BLOB,
    sum BLOB NOT NULL
) STRICT;
CREATE TABLE outcomes (
    seq INTEGER PRIMARY KEY,
    outcome TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, superseded_by INTEGER,
    finished_at INTEGER NOT NULL, archived_as BLOB, violations TEXT NOT NULL,
    receipts TEXT NOT NULL, sum BLOB NOT NULL
) STRICT;
CREATE TABLE open (seq INTEGER PRIMARY KEY) STRICT;
CREATE TABLE deliveries (
    seq INTEGER NOT NULL, sink TEXT NOT NULL,
    attempts INTEGER NOT NULL, spent_ms INTEGER NOT NULL, step TEXT, receipt TEXT,
    sum BLOB NOT NULL, PRIMARY KEY (seq, sink)
) STRICT, WITHOUT ROWID;
CREATE TABLE targets (
    sink TEXT NOT NULL, intent_type TEXT NOT NULL, namespace TEXT NOT NULL, target TEXT NOT NULL,
    seq INTEGER NOT NULL, digest BLOB NOT NULL, sum BLOB NOT NULL,
    PRIMARY KEY (sink, intent_type, namespace, target)
) STRICT, WITHOUT ROWID;
";

/// What format 3 added: outcomes that `retry` has taken back, `n` from 1 for each intent.
const EARLIER: &str = "
CREATE TABLE IF NOT EXISTS earlier (
    seq INTEGER NOT NULL, n INTEGER NOT NULL, request TEXT NOT NULL, retried_at INTEGER NOT NULL,
    outcome TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL,
    finished_at INTEGER NOT NULL, archived_as BLOB, receipts TEXT NOT NULL, sum BLOB NOT NULL,
    PRIMARY KEY (seq, n)
) STRICT, WITHOUT ROWID;
";

/// Settings of the writing connection; each is read back, since SQLite ignores what it cannot do.
const SETTINGS: &[(&str, &str, &str)] = &[
    // name, value to set, value to read back
    ("journal_mode", "WAL", "wal"),
    // NORMAL would lose acknowledged commits in a power cut.
    ("synchronous", "FULL", "2"),
    ("foreign_keys", "ON", "1"),
    // A statement of many rows keeps what it changes until it has ended: not in a file elsewhere, whose
    // directory may be full or absent.
    ("temp_store", "MEMORY", "2"),
    ("trusted_schema", "OFF", "0"),
    ("cell_size_check", "ON", "1"),
    // The writer copies pages back itself, where it can see an error: SQLite's own hook hides them.
    ("wal_autocheckpoint", "0", "0"),
    ("journal_size_limit", "67108864", "67108864"),
];

/// Opens the ledger for writing and creates it when missing; readable for the group, mode 0640.
pub fn open_for_writing(path: &Path) -> Result<Connection, Error> {
    let create = |source| Error::Create { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o640);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = fault::step("ledger.create", || options.open(path)).map_err(create)?;
    let metadata = file.metadata().map_err(create)?;
    if !metadata.is_file() {
        return Err(create(std::io::Error::other("it is not a regular file")));
    }
    // The umask of a service may have taken the group's right away again.
    if metadata.len() == 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o640)).map_err(create)?;
    }
    drop(file);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = open(path, flags)?;
    for (name, value, read_back) in SETTINGS {
        connection
            .pragma_update(None, name, value)
            .or_else(|source| match source {
                rusqlite::Error::ExecuteReturnedResults => Ok(()),
                other => Err(other),
            })
            .map_err(failed("set up"))?;
        let found: rusqlite::types::Value = connection
            .pragma_query_value(None, name, |row| row.get(0))
            .map_err(failed("set up"))?;
        let found = match found {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(number) => number.to_string(),
            other => format!("{other:?}"),
        };
        if found != *read_back {
            return Err(Error::Setting { name, wanted: read_back, found });
        }
    }
    if fault::is_mutant("ledger.sync") {
        connection.pragma_update(None, "synchronous", "OFF").map_err(failed("set up"))?;
    }
    // Keeps `-wal` and `-shm` after a clean stop, so that readers without write permission work.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed("set up"))?;
    migrate(path, &connection)?;
    Ok(connection)
}

/// Opens the ledger for reading only; works without permission to write.
pub fn open_for_reading(path: &Path) -> Result<Connection, Error> {
    let connection =
        open(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    check_ours(path, &connection)?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, Error> {
    let opened = |source| Error::Open { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, flags).map_err(opened)?;
    // Another process may be reading or, for a moment, recovering the WAL.
    connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(opened)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Brings an empty file, and one of an older format, to the current one, whole or not at all; refuses
/// what is not ours or newer than we are.
fn migrate(path: &Path, connection: &Connection) -> Result<(), Error> {
    let step = failed("create the tables");
    let empty: bool = connection
        .query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
        .map_err(&step)?;
    if !empty {
        if check_ours(path, connection)? < FORMAT {
            let add = format!("BEGIN IMMEDIATE; {EARLIER} PRAGMA user_version = {FORMAT}; COMMIT");
            fault::step("ledger.migrate", || connection.execute_batch(&add))
                .map_err(failed("bring the tables to the current format"))?;
        }
        return Ok(());
    }
    let ledger_id = uuid::Uuid::now_v7().to_string();
    connection.execute_batch("BEGIN IMMEDIATE").map_err(&step)?;
    connection.execute_batch(TABLES).map_err(&step)?;
    connection.execute_batch(EARLIER).map_err(&step)?;
    row::write_meta(connection, "ledger_id", &ledger_id).map_err(&step)?;
    row::write_meta(connection, "epoch", "0").map_err(&step)?;
    Census::default().write(connection).map_err(&step)?;
    let end =
        format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT");
    fault::step("ledger.migrate", || connection.execute_batch(&end)).map_err(&step)
}

/// The format of a ledger that is ours and not too old or too new.
fn check_ours(path: &Path, connection: &Connection) -> Result<i32, Error> {
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .map_err(|source| Error::Open { path: path.to_owned(), source })
    };
    let path = path.to_owned();
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, found) if (FORMAT_MIN..=FORMAT).contains(&found) => Ok(found),
        (APPLICATION_ID, found) if found > FORMAT => {
            Err(Error::Newer { path, found, known: FORMAT })
        }
        (APPLICATION_ID, found) => Err(Error::Older { path, found, known: FORMAT }),
        (found, _) => Err(Error::Foreign { path, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Filter, Reader, Writer};

    /// A ledger as the version before wrote it.
    fn older(path: &Path) -> String {
        let writer = Writer::open(path).unwrap();
        let id = writer.id().to_owned();
        writer.close().unwrap();
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch("DROP TABLE earlier; PRAGMA user_version = 2")
            .expect("format 2 is format 3 without that table");
        row::write_meta(&connection, crate::ledger::census::KEY, "0 0 0 0 0 0").unwrap();
        id
    }

    #[test]
    fn a_ledger_of_the_format_before_is_read_as_it_is_and_brought_up_by_the_next_leader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let id = older(&path);
        let reader = Reader::open(&path).unwrap();
        reader.history(&Filter::default(), |_| panic!("it is empty")).unwrap();
        for _ in 0..2 {
            let writer = Writer::open(&path).unwrap();
            assert_eq!(writer.id(), id);
            assert!(writer.open_intents().unwrap().is_empty());
            writer.close().unwrap();
            let connection = Connection::open(&path).unwrap();
            assert_eq!(check_ours(&path, &connection).unwrap(), FORMAT);
        }
        reader.history(&Filter::default(), |_| panic!("it is empty")).unwrap();
    }
}
