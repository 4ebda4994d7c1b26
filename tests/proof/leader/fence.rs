//! A leader that sleeps at the worst moment and wakes after somebody broke its lock.

use std::time::Duration;

use super::load::Load;
use super::{last_words, launch_with, unlink_lock, wait_until_stopped};
use crate::report::{Options, Tally};
use crate::support::{Daemon, wait_until};

/// Points between the look at the epoch and what it allows, each with the only sink of its site. What
/// the sink acts on is locked at each, so nobody else can lead before the sleeper is done, or dead.
const UNDER_THE_SEAL: &[(&str, &str)] = &[
    ("fence.check.after", "package"),
    ("fence.check.after", "emit"),
    ("publish.rename.before", "package"),
    ("child.spawn.before", "emit"),
    ("publish.rename.after", "package"),
    ("child.spawn.after", "emit"),
];

/// Stops the leader under the seal, breaks its lock, starts another one, wakes the leader.
pub fn wakes(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for round in 0..if options.full { 200 } else { 6 } {
        let (point, sink) = UNDER_THE_SEAL[round % UNDER_THE_SEAL.len()];
        // Half of them sleep until the other one gives up, half wake while it waits.
        let gives_up = round == 0 || (options.full && round % 8 == 0);
        tally.add(sleeper_under_the_seal(point, sink, gives_up), point);
    }
    // Outside of the seal the other one leads at once, and the sleeper finds itself fenced.
    for point in ["publish.lock.before", "stage.sync.after", "stage.package.before"] {
        tally.add(overtaken(point), point);
    }
    tally
}

fn sleeper_under_the_seal(point: &str, sink: &str, gives_up: bool) -> Tally {
    let mut tally = Tally::default();
    let load = Load::without();
    load.configure_only(sink);
    let mut sleeper = launch_with(&load.site, &[("FAILPOINTS", &format!("{point}=stop@1"))]);
    sleeper.wait_for_message("ready");
    load.drop_file("intent-a.json", "web", 2);
    wait_until_stopped(&sleeper);
    unlink_lock(&load.site);
    let mut other = load.site.launch(&[]);
    let before = (load.site.history(), load.site.replicas("web"));
    if gives_up {
        // It waits for the seal for a bounded time, and leaves everything as it was.
        tally.require(other.wait_code() == 74, || format!("it led: {:#?}", other.log()));
        let log = last_words(&other);
        tally.require(log.contains("still holds it"), || format!("it does not say why: {log}"));
        let after = (load.site.history(), load.site.replicas("web"));
        tally.require(before == after, || "it gave up and changed something".to_owned());
    } else {
        std::thread::sleep(Duration::from_millis(300));
        tally.require(!other.has_logged("ready"), || "it led beside a renaming one".to_owned());
    }
    tally.fired += 1;
    wake(&load, &sleeper);
    let code = sleeper.wait_code();
    tally.require(code == 74, || format!("the sleeper ends with {code}: {:#?}", sleeper.log()));
    if gives_up {
        other = load.site.launch(&[]);
    }
    other.wait_for_message("ready");
    load.drop_file("intent-b.json", "web", 3);
    tally.add(load.finish(other), "in the end");
    tally
}

/// Lets it go on. What it still does and what is repeated after its end is told apart by the marks.
fn wake(load: &Load, sleeper: &Daemon) {
    load.mark("kill");
    sleeper.signal(libc::SIGCONT);
}

/// Stops the leader at a point where it holds nothing, lets another one do all the work, wakes it.
fn overtaken(point: &str) -> Tally {
    let mut tally = Tally::default();
    let load = Load::without();
    // The other sink's thread would be stopped anywhere, perhaps under its seal.
    load.configure_only("package");
    let mut stale = launch_with(&load.site, &[("FAILPOINTS", &format!("{point}=stop@1"))]);
    stale.wait_for_message("ready");
    load.drop_file("intent-a.json", "web", 2);
    wait_until_stopped(&stale);
    unlink_lock(&load.site);
    let other = load.site.start();
    load.drop_file("intent-b.json", "web", 3);
    let history = load.site.wait_for_records(2);
    let packages = crate::check::tree(&load.site.packages());
    wake(&load, &stale);
    let code = stale.wait_code();
    tally.fired += 1;
    tally.require(code == 74, || format!("the stale one ends with {code}: {:#?}", stale.log()));
    tally.require(load.site.history() == history, || "it changed the ledger".to_owned());
    let after = crate::check::tree(&load.site.packages());
    tally.require(after == packages, || "it changed a package".to_owned());
    tally.add(load.finish(other), "in the end");
    tally
}

/// The claim is not behind the fence: a stale leader may still move a file into `work/`, and cannot
/// accept it there. The one that leads has to take it up, without a restart.
pub fn claims(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..if options.full { 20 } else { 2 } {
        let load = Load::without();
        let stop = [("FAILPOINTS", "claim.rename.before=stop@1")];
        let mut stale = launch_with(&load.site, &stop);
        stale.wait_for_message("ready");
        load.drop_file("intent-a.json", "web", 2);
        wait_until_stopped(&stale);
        unlink_lock(&load.site);
        // Both have seen the file and neither has moved it.
        let other = launch_with(&load.site, &stop);
        wait_until_stopped(&other);
        wake(&load, &stale);
        let code = stale.wait_code();
        tally.require(code == 74, || format!("the stale one ends with {code}: {:#?}", stale.log()));
        let left = load.site.names("work");
        tally.fired += u64::from(left.len() == 1);
        other.signal(libc::SIGCONT);
        tally.add(load.finish(other), "in the end");
    }
    tally
}

/// A leader that sleeps between BEGIN and COMMIT holds the ledger: whoever got its broken lock cannot
/// write, gives up after a bounded time, and says what to do.
pub fn sleeps_in_the_ledger(_: &Options) -> Tally {
    let mut tally = Tally::default();
    let load = Load::without();
    let stop = [("FAILPOINTS", "ledger.commit.before=stop@1")];
    let mut sleeper = launch_with(&load.site, &stop);
    sleeper.wait_for_message("ready");
    load.drop_file("intent-a.json", "web", 2);
    wait_until_stopped(&sleeper);
    unlink_lock(&load.site);
    let mut other = load.site.launch(&[]);
    let code = other.wait_code();
    tally.fired += 1;
    tally.require(code == 74, || format!("the other one ends with {code}: {:#?}", other.log()));
    let log = last_words(&other);
    tally.require(log.contains("another process"), || format!("it does not say what to do: {log}"));
    wake(&load, &sleeper);
    let code = sleeper.wait_code();
    tally.require(code == 74, || format!("the sleeper ends with {code}: {:#?}", sleeper.log()));
    let last = load.site.start();
    tally.add(load.finish(last), "in the end");
    tally
}

/// The old leader sleeps with its ledger open and work in hand; awake, it adds no row.
pub fn open_ledger(options: &Options) -> Tally {
    let mut tally = Tally::default();
    for round in 0..if options.full { 200 } else { 6 } {
        let point = ["ledger.begin.before", "claim.read.after", "stage.package.before"][round % 3];
        let load = Load::without();
        load.configure_only(if round % 3 == 2 { "package" } else { "emit" });
        let stop = format!("{point}=stop@1");
        let mut old = launch_with(&load.site, &[("FAILPOINTS", &stop)]);
        old.wait_for_message("ready");
        load.drop_file("intent-a.json", "web", 2);
        wait_until_stopped(&old);
        unlink_lock(&load.site);
        let other = load.site.start();
        load.drop_file("intent-b.json", "db", 2);
        load.drop_file("intent-c.json", "web", 3);
        let history = load.site.wait_for_records(3);
        wake(&load, &old);
        // More to do for it, if it still did anything.
        load.drop_file("intent-d.json", "web", 4);
        let code = old.wait_code();
        tally.fired += 1;
        tally.require(code == 74, || format!("{stop}: it ends with {code}: {:#?}", old.log()));
        wait_until("the last file", || load.site.names("status").len() == 4);
        let now = load.site.history();
        tally.require(now[..3] == history[..] && now.len() == 4, || format!("{stop}: {now:?}"));
        let newest = now.iter().filter_map(|record| record["epoch"].as_u64()).max();
        tally.require(now[3]["epoch"].as_u64() == newest, || format!("{stop}: {}", now[3]));
        tally.add(load.finish(other), &stop);
    }
    tally
}
