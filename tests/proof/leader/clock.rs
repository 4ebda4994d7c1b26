//! The wall clock jumps: nothing is decided by it, so nothing may change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::Load;
use super::{launch_with, leader, pause};
use crate::report::{Options, Tally};
use crate::support::{Daemon, wait_until};

/// Where Debian puts it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// From ten days back to a date that a 32-bit time has no room for.
const JUMPS: &[&str] =
    &["-10d", "+3650d", "+0", "-1h", "@2038-01-20 00:00:00", "@1970-01-02 00:00:00"];

/// A clock that the test sets.
struct Clock(PathBuf);

impl Clock {
    fn set(&self, to: &str) {
        let temporary = self.0.with_extension("new");
        std::fs::write(&temporary, format!("{to}\n")).unwrap();
        std::fs::rename(&temporary, &self.0).unwrap();
    }

    fn launch(&self, load: &Load) -> Daemon {
        let file = self.0.to_string_lossy();
        launch_with(
            &load.site,
            &[
                ("LD_PRELOAD", LIBRARY),
                ("FAKETIME_TIMESTAMP_FILE", &file),
                ("FAKETIME_NO_CACHE", "1"),
                // Only the wall clock can jump.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ],
        )
    }
}

/// Starts at once, kills and stops, with a jump between any two of them.
pub fn jumps(options: &Options) -> Tally {
    if !Path::new(LIBRARY).exists() {
        return Tally::skipped("libfaketime is not installed (Debian: faketime)");
    }
    let mut tally = Tally::default();
    let load = Load::start(Duration::from_millis(25));
    let clock = Clock(load.site.root().join("clock"));
    clock.set(JUMPS[0]);
    let mut daemons: Vec<_> = (0..3).map(|_| clock.launch(&load)).collect();
    for round in 0..if options.full { 10 * JUMPS.len() } else { JUMPS.len() } {
        wait_until("one leader, the others standing by", || {
            let said = |what| daemons.iter().filter(|daemon| daemon.has_logged(what)).count();
            said("ready") >= 1 && said("standby") >= daemons.len() - 1
        });
        let current = leader(&mut daemons);
        clock.set(JUMPS[(round + 1) % JUMPS.len()]);
        let before = load.effects();
        wait_until("work after the jump", || load.effects() > before);
        current.signal(libc::SIGSTOP);
        pause(200);
        let led = daemons.iter().any(|daemon| daemon.has_logged("ready"));
        tally.require(!led, || format!("round {round}: a standby led beside a stopped leader"));
        load.kill(current);
        daemons.push(clock.launch(&load));
        tally.fired += 1;
    }
    let last = leader(&mut daemons);
    drop(daemons);
    // The clock did jump: the records show it, and nothing else does.
    let history = load.site.history();
    let times: Vec<_> =
        history.iter().filter_map(|record| record["received_at"].as_str()).collect();
    let back = times.windows(2).any(|pair| pair[0] > pair[1]);
    tally.require(back, || "the clock never went back: the row shows nothing".to_owned());
    tally.add(load.finish(last), "in the end");
    tally
}
