//! Where things lie.

use std::path::PathBuf;

/// Where the parts of the spool lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub inbox: PathBuf,
    pub work: PathBuf,
    pub processed: PathBuf,
    pub failed: PathBuf,
    pub status: PathBuf,
    /// The file that ties the spool to its ledger.
    pub marker: PathBuf,
}
