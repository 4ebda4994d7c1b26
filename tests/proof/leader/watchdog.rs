//! The test plays systemd: it listens on the notify socket and kills who does not report in time.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Load;
use super::pause;
use crate::report::{Options, Tally};
use crate::support::{Daemon, wait_until};

/// WatchdogSec of the unit that is played.
const WATCHDOG: Duration = Duration::from_secs(1);

/// A ledger that is busy is waited for by SQLite itself; longer than the watchdog waits.
const HANG: Duration = Duration::from_millis(4_500);

/// The notify socket of one service.
struct Notify(UnixDatagram);

impl Notify {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Notify(socket)
    }

    /// Waits until a message with `line` comes; `false` after `patience`.
    fn hears(&self, line: &str, patience: Duration) -> bool {
        let start = Instant::now();
        let mut message = [0; 4096];
        while start.elapsed() < patience {
            if let Ok(read) = self.0.recv(&mut message)
                && String::from_utf8_lossy(&message[..read]).lines().any(|said| said == line)
            {
                return true;
            }
        }
        false
    }
}

fn service(load: &Load, name: &str) -> (Daemon, Notify) {
    let path = load.site.root().join(name);
    let notify = Notify::at(&path);
    let mut command = load.site.command(&["run", "--log-format", "json"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    (Daemon::from(command), notify)
}

/// A healthy leader reports, a stopped or hung one does not; once killed it is succeeded.
pub fn fed(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for round in 0..if options.full { 10 } else { 2 } {
        let load = Load::start(Duration::from_millis(30));
        let (first, notify) = service(&load, "first");
        tally.require(notify.hears("READY=1", crate::support::PATIENCE), || "not ready".to_owned());
        let (second, of_standby) = service(&load, "second");
        second.wait_for_message("standby");
        tally.require(notify.hears("WATCHDOG=1", WATCHDOG * 3), || "healthy, not fed".to_owned());
        let _hold = if round % 2 == 0 {
            first.signal(libc::SIGSTOP);
            None
        } else {
            Some(hold_ledger(&load))
        };
        let hung_at = Instant::now();
        // As systemd: each message puts the deadline off.
        while notify.hears("WATCHDOG=1", WATCHDOG) {}
        let noticed = hung_at.elapsed();
        tally.require(of_standby.hears("WATCHDOG=1", WATCHDOG * 3), || "standby".to_owned());
        load.kill(first);
        second.wait_for_message("ready");
        let took = hung_at.elapsed();
        tally.fired += 1;
        let how = if round % 2 == 0 { "stopped" } else { "hung" };
        tally.notes.push(format!(
            "{how}: noticed after {noticed:.1?}, the next one led after {took:.1?} (WatchdogSec {WATCHDOG:?})"
        ));
        pause(50);
        tally.add(load.finish(second), how);
    }
    tally
}

/// Another program that holds the ledger's write lock for a while: the stage that writes hangs.
struct Holder(std::process::Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn hold_ledger(load: &Load) -> Holder {
    let held = load.site.root().join("held");
    let script = "import sqlite3, sys, time\n\
                  c = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)\n\
                  c.execute('BEGIN IMMEDIATE')\n\
                  open(sys.argv[2], 'w').close()\n\
                  time.sleep(float(sys.argv[3]))\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(load.site.state().join("ledger.db")).arg(&held);
    let child = command.arg(HANG.as_secs_f64().to_string()).spawn().expect("python3 starts");
    let holder = Holder(child);
    wait_until("the ledger to be held", || held.exists());
    holder
}
