//! What the kernel lets this process do.

use std::fs;

use rustix::fs::inotify;
use rustix::process::{Resource, getrlimit};

use crate::cli::check::Finding;

/// The kernel's own default; a longer burst only costs a look at all of the inbox.
const EVENTS_MIN: u64 = 16_384;

/// Descriptors: a group of claims (256), sinks with their connections, the ledger, and some reserve.
const FILES_MIN: u64 = 1_024;

/// Only a few are needed; so few are a sign that other programs use them up.
const WATCHES_MIN: u64 = 1_024;

pub fn findings() -> Vec<Finding> {
    vec![watches(), instances(), events(), files(), leases()]
}

fn limit(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?.trim().parse().ok()
}

fn at_least(name: &str, least: u64, otherwise: &str) -> Finding {
    let what = format!("fs.inotify.{name}");
    match limit(name) {
        None => Finding::warn(what, "the kernel does not say"),
        Some(value) if value < least => {
            Finding::warn(what, format!("{value}, which is below {least}: {otherwise}"))
        }
        Some(value) => Finding::ok(what, value.to_string()),
    }
}

fn watches() -> Finding {
    let otherwise = "the inbox may find none left, and is then listed every `watch.poll_interval`";
    at_least("max_user_watches", WATCHES_MIN, otherwise)
}

fn events() -> Finding {
    at_least("max_queued_events", EVENTS_MIN, "a burst is noticed by a look at all of the inbox")
}

/// Takes one and gives it back at once: whether there is one cannot be read anywhere.
fn instances() -> Finding {
    let what = "fs.inotify.max_user_instances";
    let most = limit("max_user_instances").map_or_else(|| "?".to_owned(), |most| most.to_string());
    match inotify::init(inotify::CreateFlags::CLOEXEC) {
        Ok(_) => Finding::ok(what, format!("{most}, and one is free")),
        Err(error) => Finding::warn(
            what,
            format!(
                "{most}, and none is free ({error}): raise it, or the inbox is listed every `watch.poll_interval`"
            ),
        ),
    }
}

fn files() -> Finding {
    let what = "open files";
    match getrlimit(Resource::Nofile).current {
        Some(most) if most < FILES_MIN => Finding::warn(
            what,
            format!("{most}, which is below {FILES_MIN}: raise it (LimitNOFILE=, `ulimit -n`)"),
        ),
        Some(most) => Finding::ok(what, most.to_string()),
        None => Finding::ok(what, "without a limit"),
    }
}

fn leases() -> Finding {
    let what = "CAP_LEASE";
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::LEASE));
    match may {
        true => Finding::ok(what, "the kernel says when a file is finished"),
        false => Finding::warn(
            what,
            "it is missing: files of other users are finished once they are quiet (`settle.quiet`)",
        ),
    }
}
