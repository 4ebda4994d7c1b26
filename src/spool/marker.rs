//! The file that ties a spool to its ledger, so that a ledger restored from an old copy is noticed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault;
use crate::spool::Error;

/// Which ledger the spool belongs to, and the newest epoch that led on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    pub ledger_id: String,
    pub epoch: u64,
    /// Commits that the ledger had at least: what is archived rests on them.
    #[serde(default)]
    pub commits: u64,
}

impl Marker {
    /// Reads the marker; `None` while there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not of our form.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|_| Error::MarkerForm {
                path: path.to_owned(),
                found: text.chars().take(80).flat_map(char::escape_default).collect(),
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Marker { path: path.to_owned(), source }),
        }
    }

    /// Writes the marker and makes it durable before it returns.
    ///
    /// # Errors
    ///
    /// Writing or syncing failed; the old marker stands, or the new one.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(self).expect("a string and a number always serialise");
        let temporary = temporary(path, self.epoch);
        let failed = |source| Error::Write { path: path.to_owned(), source };
        let mut file = fault::step("marker.create", || File::create(&temporary)).map_err(failed)?;
        fault::step("marker.write", || file.write_all(format!("{text}\n").as_bytes()))
            .map_err(failed)?;
        let synced = |source| Error::Sync { path: path.to_owned(), source };
        fault::guard("marker.sync", || file.sync_all()).map_err(synced)?;
        fault::step("marker.rename", || std::fs::rename(&temporary, path)).map_err(failed)?;
        let parent = path.parent().unwrap_or(Path::new("."));
        fault::guard("marker.sync-name", || File::open(parent)?.sync_all()).map_err(synced)
    }

    /// Removes what the leader of an older epoch left of a marker that it was writing.
    pub fn tidy(path: &Path, epoch: u64) {
        // There is none as a rule; and what stays does no harm.
        let _ = std::fs::remove_file(temporary(path, epoch));
    }
}

/// Each leader has a name of its own: one that wakes late must not write into what has become the
/// marker of another.
fn temporary(path: &Path, epoch: u64) -> PathBuf {
    path.with_extension(format!("{epoch}.tmp"))
}
