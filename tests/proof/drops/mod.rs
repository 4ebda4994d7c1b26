//! The drop directory: whatever producers do to it, every finished file has one outcome, nobody
//! else's bytes get in, and nobody is held up.
//!
//! The ids are those of the test matrix. Ids, names and contents are never used to find
//! duplicates, so a file that is dropped ten times is ten intents.

mod clock;
mod events;
mod many;
mod odd;
mod place;
mod scene;
mod swap;
mod volume;
mod writers;

use crate::report::Row;

pub fn rows() -> Vec<Row> {
    [
        odd::rows,
        swap::rows,
        writers::rows,
        events::rows,
        place::rows,
        many::rows,
        clock::rows,
        volume::rows,
    ]
    .into_iter()
    .flat_map(|rows| rows())
    .collect()
}
