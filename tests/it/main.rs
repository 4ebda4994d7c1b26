//! All integration tests, in one binary so that the crate is linked once.

mod cases;
mod cli;
mod compose;
mod config;
mod readme;
mod sinks;
mod support;
mod systemd;
mod tidy;
