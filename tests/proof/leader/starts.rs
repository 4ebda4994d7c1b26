//! Starts at once, and a leader that is stopped for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use super::load::Load;
use super::{leader, pause};
use crate::report::{Options, Tally};
use crate::support::{Daemon, wait_until};

/// Two to five instances start at the same moment, round after round on one site.
pub fn at_once(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let load = Load::without();
    let mut epochs = BTreeSet::new();
    let rounds = if options.full { 100 } else { 15 };
    for round in 0..rounds {
        let count = 2 + round % 4;
        let mut daemons: Vec<_> = (0..count).map(|_| load.site.launch(&[])).collect();
        wait_until("one leader, the others standing by", || {
            let said = |what| daemons.iter().filter(|daemon| daemon.has_logged(what)).count();
            said("ready") >= 1 && said("standby") >= count - 1
        });
        load.drop_file(&format!("intent-{round:03}.json"), "web", 1 + round as u64 % 100);
        let history = load.site.wait_for_records(round + 1);
        let ready = daemons.iter().filter(|daemon| daemon.has_logged("ready")).count();
        tally.require(ready == 1, || format!("round {round}: {ready} of {count} lead"));
        tally.fired += 1;
        epochs.insert(history[round]["epoch"].as_u64());
        // The standbys first: nobody else leads before the next round.
        let last = leader(&mut daemons);
        daemons.into_iter().for_each(Daemon::kill);
        load.kill(last);
    }
    let distinct = epochs.len();
    tally.require(distinct == rounds, || format!("{distinct} epochs in {rounds} rounds"));
    let last = load.site.start();
    tally.add(load.finish(last), "in the end");
    tally
}

/// The kernel does not take a lock away from a process that is only stopped.
pub fn stopped(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let load = Load::start(Duration::from_millis(20));
    let first = load.site.start();
    let second = load.site.launch(&[]);
    second.wait_for_message("standby");
    let (rounds, milliseconds) = if options.full { (20, 30_000) } else { (2, 1_500) };
    for round in 0..rounds {
        let before = load.effects();
        wait_until("work of the leader", || load.effects() > before);
        first.signal(libc::SIGSTOP);
        // A command that was started before may still end.
        pause(300);
        let stopped_at = load.effects();
        pause(milliseconds);
        let during = load.effects() - stopped_at;
        tally.require(during == 0, || {
            format!("round {round}: {during} effects while it stood still")
        });
        tally.require(!second.has_logged("ready"), || format!("round {round}: the standby led"));
        tally.fired += 1;
        first.signal(libc::SIGCONT);
    }
    drop(second);
    tally.add(load.finish(first), "in the end");
    tally
}
