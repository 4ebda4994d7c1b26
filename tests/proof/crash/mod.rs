//! Crashes at any system call: SIGKILL (`kill`) and power cuts (`cut`), without touching the program.
//!
//! The program runs under ptrace over a small workload. It is held before or after its N-th call that
//! changes something, then killed, or the filesystems below it are shut down so that they forget
//! what was not synced. Then it is started again, and the checker decides. What it had printed
//! is what it had acknowledged.

mod calls;
mod disk;
mod ground;
mod point;
mod rows;
mod sweep;
mod sys;
mod trace;

pub use rows::{cuts, kills};
