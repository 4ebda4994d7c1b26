//! The words of the program: plain data without I/O, clocks or decisions.

mod character;
mod code;
mod digest;
mod intent;
mod layout;
mod name;
mod record;
mod sighting;
mod time;
mod violation;

pub use character::{is_refused, printable_json, printable_json_lines};
pub use code::Code;
pub use digest::Digest;
pub use intent::{
    Constraints, Intent, IntentType, NephioContext, PRIORITY_DEFAULT, Progress, Source, TargetKey,
};
pub use layout::Layout;
pub use name::{FileName, derived};
pub use record::{Earlier, IntentSummary, Mode, Outcome, Receipt, Record, Retried, Seq, SeqMap};
pub use sighting::{FileKind, Fingerprint, Sighting};
pub use time::Timestamp;
pub use violation::{Rejection, Violation};
