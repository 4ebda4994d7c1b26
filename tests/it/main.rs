//! All integration tests, in one binary so that the crate is linked once.

mod batch;
mod cases;
mod check;
mod cli;
mod compose;
mod config;
mod crash;
mod diff;
mod documents;
mod fake;
mod inbox;
mod leader;
mod lifecycle;
mod outage;
mod readme;
mod real;
mod retry;
mod sinks;
mod support;
mod systemd;
mod tidy;
