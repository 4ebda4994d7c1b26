//! A running daemon meets limits, interruptions, slow syncs, locks and files that cannot be moved.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::check::Log;
use crate::io::disk::done;
use crate::io::full::{drop_some, settled, wait_for};
use crate::io::strace::Plan;
use crate::report::{Options, Tally};
use crate::support::{Daemon, Site};

const NO_STRACE: &str = "strace is not installed";

/// A failed delivery is tried again soon, so that rows end.
const CONFIG: &str = "[retry]\nfirst = \"10ms\"\nmax = \"100ms\"\n";

/// Stops the daemon, which has to end well, and checks the site.
fn ended(daemon: Daemon, site: &Site, log: &mut Log, mut tally: Tally) -> Tally {
    let (code, lines) = daemon.stop();
    tally.require(code == Some(0), || format!("it ends with {code:?}: {:?}", lines.last()));
    log.told_by_status(site);
    tally.add(settled(site, log), "afterwards");
    tally
}

/// Does the work of `count` intents with calls that are made to fail.
fn under(plan: &Plan, count: usize) -> Tally {
    if !super::has("strace") {
        return Tally::skipped(NO_STRACE);
    }
    let (site, mut log) = (Site::with_config(CONFIG), Log::default());
    let daemon = site.start();
    let tracing = plan.attach(daemon.pid(), &site.root().join("trace"));
    for from in (0..count).step_by(10) {
        drop_some(&site, &mut log, from, 10);
        wait_for(&site, from + 10);
    }
    let tally = Tally { fired: tracing.detach().fired(), ..Tally::default() };
    ended(daemon, &site, &mut log, tally)
}

/// B12: syncs take long, and nobody gives up on them.
pub fn slow_syncs(options: &Options) -> Tally {
    let count = if options.full { 600 } else { 30 };
    under(&Plan::inject("fsync,fdatasync,syncfs", "delay_enter=100000", "1+"), count)
}

/// B13: interruptions have no effect. A sync is left out: whatever it says but yes is a failure.
pub fn interrupted(options: &Options) -> Tally {
    let calls = "read,pread64,write,pwrite64,openat,ftruncate,flock";
    under(&Plan::inject(calls, "error=EINTR", "1+3"), if options.full { 1000 } else { 300 })
}

/// Sets a limit of a running process.
fn limit(daemon: &Daemon, limit: &str) {
    assert!(done("prlimit", &["--pid", &daemon.pid().to_string(), limit]), "prlimit works");
}

/// B15: no file may pass 96 KiB, which the ledger soon would; no signal ends the process, and what
/// was written only in part is written again.
pub fn file_size(_: &Options) -> Tally {
    if !super::has("prlimit") {
        return Tally::skipped("prlimit is not installed");
    }
    let (site, mut log) = (Site::with_config(CONFIG), Log::default());
    let mut daemon = site.start();
    drop_some(&site, &mut log, 0, 5);
    wait_for(&site, 5);
    let mut tally = Tally::default();
    // The soft limit, which may be raised again.
    limit(&daemon, "--fsize=98304:unlimited");
    drop_some(&site, &mut log, 5, 60);
    std::thread::sleep(Duration::from_millis(1500));
    tally.fired = u64::from(site.names("processed").len() < 65);
    tally.require(!daemon.has_ended(), || format!("it ended: {:?}", daemon.log().last()));
    log.told_by_status(&site);
    limit(&daemon, "--fsize=unlimited:unlimited");
    if !daemon.has_ended() {
        wait_for(&site, 65);
    }
    ended(daemon, &site, &mut log, tally)
}

/// B16: no descriptor can be had for a while, again and again.
pub fn descriptors(options: &Options) -> Tally {
    if !super::has("prlimit") {
        return Tally::skipped("prlimit is not installed");
    }
    let (site, mut log) = (Site::with_config(CONFIG), Log::default());
    let mut daemon = site.start();
    let mut tally = Tally::default();
    let mut dropped = 0;
    for _ in 0..if options.full { 20 } else { 4 } {
        limit(&daemon, "--nofile=8:1024");
        drop_some(&site, &mut log, dropped, 10);
        dropped += 10;
        std::thread::sleep(Duration::from_millis(700));
        tally.fired += u64::from(site.names("processed").len() < dropped);
        tally.require(!daemon.has_ended(), || format!("it ended: {:?}", daemon.log().last()));
        limit(&daemon, "--nofile=1024:1024");
        wait_for(&site, dropped);
    }
    ended(daemon, &site, &mut log, tally)
}

/// B24: the ledger is locked for writing by somebody else, for less and for more than we wait.
pub fn locked(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for seconds in if options.full { vec![2, 10] } else { vec![2] } {
        let (site, mut log) = (Site::with_config(CONFIG), Log::default());
        let mut daemon = site.start();
        let other = rusqlite::Connection::open(site.state().join("ledger.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        drop_some(&site, &mut log, 0, 10);
        std::thread::sleep(Duration::from_secs(seconds));
        tally.fired += u64::from(site.names("processed").is_empty());
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        // Locked for longer than five seconds it is a storage that failed.
        if seconds > 5 && daemon.has_ended() {
            let code = daemon.wait_code();
            tally.require(code == 74, || format!("it ends with {code}"));
            tally.add(settled(&site, &mut log), "after a long lock");
        } else {
            wait_for(&site, 10);
            tally = ended(daemon, &site, &mut log, tally);
        }
    }
    tally
}

/// B25: reading a claim fails for a while; it is tried again, later and later, and then read.
pub fn unreadable(options: &Options) -> Tally {
    if !super::has("strace") {
        return Tally::skipped(NO_STRACE);
    }
    let (site, mut log) = (Site::with_config(CONFIG), Log::default());
    let daemon = site.start();
    let times = if options.full { 6 } else { 3 };
    let mut plan = Plan::inject("pread64", "error=EIO", &format!("1..{times}"));
    plan.paths.push(site.spool().join("work/1.0.intent-0.json"));
    let tracing = plan.attach(daemon.pid(), &site.root().join("trace"));
    drop_some(&site, &mut log, 0, 5);
    wait_for(&site, 5);
    let tally = Tally { fired: tracing.detach().fired(), ..Tally::default() };
    ended(daemon, &site, &mut log, tally)
}

/// B26: a file that cannot be moved is not taken; all others are, and it is when it can be.
pub fn immutable(_: &Options) -> Tally {
    let (site, mut log) = (Site::with_config(CONFIG), Log::default());
    let daemon = site.start();
    // It must not see the file before that cannot be moved.
    daemon.signal(libc::SIGSTOP);
    drop_some(&site, &mut log, 0, 1);
    let held = site.inbox().join("intent-0.json");
    let shown = held.to_string_lossy().into_owned();
    if !done("chattr", &["+i", &shown]) {
        return Tally::skipped("no file can be made immutable here");
    }
    let _guard = Mutable(&held);
    daemon.signal(libc::SIGCONT);
    drop_some(&site, &mut log, 1, 5);
    wait_for(&site, 5);
    let mut tally = Tally { fired: 1, ..Tally::default() };
    tally.require(site.names("inbox") == ["intent-0.json"], || "it was moved".to_owned());
    let start = Instant::now();
    assert!(done("chattr", &["-i", &shown]), "it can be made mutable again");
    wait_for(&site, 6);
    tally.notes.push(format!("taken {:.1} s after it could be", start.elapsed().as_secs_f64()));
    ended(daemon, &site, &mut log, tally)
}

/// Makes a file mutable again, so that it can be deleted.
struct Mutable<'a>(&'a Path);

impl Drop for Mutable<'_> {
    fn drop(&mut self) {
        done("chattr", &["-i", &self.0.to_string_lossy()]);
    }
}
