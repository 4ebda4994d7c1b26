//! `intentd`: an intent ingestion daemon. Start with `src/ARCHITECTURE.md`.

#![deny(unsafe_code, rust_2018_idioms)]

pub mod batch;
pub mod breaker;
pub mod cli;
pub mod compose;
pub mod config;
pub mod fault;
pub mod intake;
pub mod leader;
pub mod ledger;
pub mod limits;
pub mod model;
pub mod pipeline;
pub mod processor;
pub mod rate;
pub mod request;
pub mod retry;
pub mod schema;
pub mod sequence;
pub mod settle;
pub mod sink;
pub mod spool;
pub mod sys;
pub mod telemetry;
pub mod watch;
