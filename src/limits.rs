//! The bounds that are not settings, each with its reason.
//!
//! A bound that an operator may want to move is a setting in `config`; what stands here follows from
//! the kernel, from the arithmetic of another bound, or from what a person can read.

/// Deepest nesting of a document: far above any intent, far below `serde_json`'s own stop at 128.
pub const DEPTH_MAX: usize = 64;

/// Violations reported for one document: more than a person mends in one go.
pub const VIOLATIONS_MAX: usize = 20;

/// Largest document unless `intake.size_bytes_max` says otherwise: 1 MiB.
pub const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// Longest file name that Linux filesystems take.
pub const NAME_BYTES_MAX: usize = 255;

/// Names remembered as hints; past this the answer is "look at everything" (some 8 MiB of names).
pub const HINTS_MAX: usize = 65_536;

/// Files held from one look at the inbox, the oldest first (some 16 MiB); the rest waits on disk.
pub const LOOK_MAX: usize = 131_072;

/// Files waiting for their writer that are looked at one by one; more are left to the next rescan.
pub const WAITING_MAX: usize = 4_096;

/// Intents claimed, accepted or committed together: at 256 rows the ledger's sync is amortised.
pub const GROUP_MAX: usize = 256;

/// Groups of finished records that may wait to be shown: the shelf waits for a slow terminal.
pub const GROUPS_SHOWN_MAX: usize = 4;

/// Bytes of documents in one group or batch: one group of the largest documents stays below it.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Intents between claim and archive: sixteen groups, so that accept, delivery and archive overlap
/// and superseding has something to fold; more wait in the inbox.
pub const IN_FLIGHT_MAX: usize = 16 * GROUP_MAX;

/// Bytes of documents between claim and archive.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Characters of a found value shown in a violation.
pub const FOUND_CHARS_MAX: usize = 80;

const _: () = assert!(DEPTH_MAX < 128, "our depth limit must come before serde_json's");
const _: () = assert!(IN_FLIGHT_MAX >= GROUP_MAX && IN_FLIGHT_BYTES_MAX >= GROUP_BYTES_MAX);
const _: () = assert!(GROUP_BYTES_MAX as u64 >= DOCUMENT_BYTES_MAX);

/// Time for one batch at one sink: far above a healthy one, so that only a hung target meets it.
pub const DELIVERY_MAX: std::time::Duration = std::time::Duration::from_secs(300);

/// Intents that one request of `retry` names: their documents come into memory together.
pub const REQUEST_SEQS_MAX: usize = IN_FLIGHT_BYTES_MAX / DOCUMENT_BYTES_MAX as usize;

/// Bytes of a request, and of the answer to it: so many answers with a sentence each take some 8 KiB.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Requests that are looked at together; more wait in their directory.
pub const REQUESTS_MAX: usize = 64;

/// Wakes of pending deliveries that may wait; they are hints, so a full queue loses nothing.
pub const WAKES_MAX: usize = 1024;
