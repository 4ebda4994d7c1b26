//! `intentd`: an intent ingestion daemon. Start with `src/ARCHITECTURE.md`.

#![deny(unsafe_code, missing_debug_implementations, rust_2018_idioms)]

pub mod compose;
pub mod limits;
pub mod model;
pub mod sink;
pub mod sys;
