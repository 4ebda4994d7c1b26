//! One leads: many starts, kills, stops, broken locks, and a leader that wakes when it is too late.

mod clock;
mod fence;
mod kills;
mod load;
mod lockfile;
mod places;
mod starts;
mod watchdog;

use std::time::Duration;

use crate::report::Row;
use crate::support::{Daemon, Site, scaling, wait_until};

pub fn rows() -> Vec<Row> {
    let row = |id, what, run| Row { id, what, run };
    vec![
        row(
            "F1",
            "2 to 5 starts at once: one leads, each round in an epoch of its own",
            starts::at_once,
        ),
        row("F2", "the leader is killed under load: the next one goes on", kills::under_load),
        row("F3", "the leader is stopped under load: its standby stays out", starts::stopped),
        row(
            "F4",
            "a stopped or hung leader does not feed the watchdog; once killed it is succeeded",
            watchdog::fed,
        ),
        row(
            "F5",
            "the lock is unlinked, renamed, replaced: the old leader stops and writes nothing",
            lockfile::broken,
        ),
        row("F6", "what is no lock file of ours is refused", lockfile::refused),
        row(
            "F7",
            "the leader is killed while a command of its lives: the lock is free at once",
            kills::with_a_child,
        ),
        row("F8", "a filesystem that does not lock: nobody leads", lockfile::not_lockable),
        row("F9", "the state directory on tmpfs", places::on_tmpfs),
        row(
            "F10",
            "a leader that wakes between its look at the epoch and its rename",
            fence::wakes,
        ),
        row(
            "F10c",
            "a leader that wakes before it claims: the file has its outcome all the same",
            fence::claims,
        ),
        row(
            "F10l",
            "a leader that sleeps amid a ledger write keeps others out, and they say so",
            fence::sleeps_in_the_ledger,
        ),
        row("F11", "an old leader with an open ledger writes no row", fence::open_ledger),
        row(
            "F12",
            "a kill a second with three standbys: descriptors and threads stay",
            kills::steadily,
        ),
        row("F13", "a ledger behind the spool's epoch is refused", places::lower_epoch),
        row("F14", "the clock jumps: starts, kills and stops as before", clock::jumps),
    ]
}

/// Waits until one of them leads and takes it out; the others stand by.
fn leader(daemons: &mut Vec<Daemon>) -> Daemon {
    let leads = |daemon: &Daemon| daemon.has_logged("ready");
    wait_until("a leader", || daemons.iter().any(leads));
    let place = daemons.iter().position(leads).expect("one was there just now");
    daemons.swap_remove(place)
}

/// Starts a daemon with variables in its environment, and waits for nothing.
fn launch_with(site: &Site, variables: &[(&str, &str)]) -> Daemon {
    let mut command = site.command(&["run", "--log-format", "json"]);
    command.envs(variables.iter().copied());
    Daemon::from(command)
}

/// Waits until the process is stopped, as `FAILPOINTS` stops it.
pub fn wait_until_stopped(daemon: &Daemon) {
    let stat = format!("/proc/{}/stat", daemon.pid());
    wait_until("a stopped process", || {
        std::fs::read_to_string(&stat)
            .is_ok_and(|text| text.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
    });
}

/// Breaks the lock by hand: nobody should, and somebody will.
fn unlink_lock(site: &Site) {
    std::fs::remove_file(site.state().join("leader.lock")).unwrap();
}

/// What a process that has ended said. The thread that collects it may be a moment behind.
fn last_words(daemon: &Daemon) -> String {
    for _ in 0..500 {
        if !daemon.log().is_empty() {
            break;
        }
        pause(10);
    }
    daemon.log().join("\n")
}

/// Shows that a site works, by one intent.
fn works(site: &Site, name: &str, replicas: u64) {
    site.drop_file(name, &scaling("probe", replicas));
    wait_until("a package", || site.replicas("probe") == Some(replicas));
}

fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
