//! The one path of every intent, from the ledger's acceptance to its archive.
//!
//! `Desk` decides: who goes next, what an answer means, when an intent has ended. It is a state
//! machine over plain data with time passed in; threads, channels and disks sit around it in
//! `pipeline`. `archive` carries out the last step, `recovery` sorts what a killed leader left.

pub mod archive;
mod desk;
mod item;
mod lane;
mod names;
pub mod recovery;
mod submission;
mod window;

pub use desk::{Desk, Ended, Settings, Turned};
pub use item::{Item, Job};
pub use lane::{Answered, Capacity};
pub use names::Names;
pub use submission::{Admission, Submission};
pub use window::{Token, Window};
