//! An API server in this process, for tests: it answers as version 1.36 does, in milliseconds.
//!
//! [`Cluster`] is the handle of a test: it puts objects, sets rules and faults, and reads what was
//! asked. What it answers is held against a real API server by `scenarios`, step by step. It is
//! strict: a request without a user agent, a write without a field manager, a parameter nobody
//! knows are answered as the real server would, and fail the test when the handle is dropped.
//!
//! Another fake on the same server, with state of its own, is a [`Routes`].

// Each part of the tests uses another part of it.
#![allow(dead_code, unused_imports)]

pub mod client;
mod cluster;
mod controllers;
mod faults;
mod fields;
mod http;
mod kube;
pub mod porch;
mod resource;
mod rules;
mod scenarios;
mod seen;
mod server;
mod status;
mod store;
mod tests;
mod tls;
mod validate;
mod watch;
mod write;

pub use cluster::{Cluster, workload};
pub use controllers::Pace;
pub use faults::{Fault, Wrong};
pub use fields::Writer;
pub use http::{Body, Lines, Request, Response, Stream};
pub use kube::Target;
pub use resource::Resource;
pub use rules::Refusal;
pub use server::Routes;
pub use store::{Key, Store, Write, now};
pub use tls::Certificate;

/// Answers for [`Routes`], in the API server's words.
pub mod answers {
    pub use super::status::*;
}
