//! All tests that need more than one module, in one binary.

mod cases;
mod compose;
mod readme;
mod sinks;
mod support;
mod systemd;
mod tidy;
