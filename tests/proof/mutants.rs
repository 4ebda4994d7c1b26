//! Deliberate breakages of the protocol: each has to be caught, or the harnesses prove nothing.
//!
//! Every mutant runs beside a control, the same run without the breakage, which has to be clean.

use std::process::{Command, ExitStatus};

use serde_json::json;

use crate::check::{Expect, Log, check, tree};
use crate::crash::disk::Kind;
use crate::crash::ground::Layout;
use crate::crash::point::Fault;
use crate::crash::sweep::Sweep;
use crate::leader::wait_until_stopped;
use crate::points::killed_at;
use crate::report::{Options, Row, Tally, random_seed};
use crate::support::{Daemon, Site, scaling, wait_until};
use crate::workload::{Load, Work};

/// Runs something under a value of `FAILPOINTS` and says what was wrong in the end.
type Harness = fn(&str) -> Tally;

/// A breakage by the name of the point that is left out, what it breaks, what has to be said of it (any
/// violation where that is empty: a lost commit shows in many ways), and what catches it.
type Mutant = (&'static str, &'static str, &'static str, Harness);

const MUTANTS: &[Mutant] = &[
    ("look.list", "trusts events and never lists the inbox", "has no record", there_before),
    ("publish.rename", "says delivered and has published nothing", "is missing", there_before),
    ("ledger.seq", "gives a seq away twice", "does not count up", one_after_the_other),
    ("claim.sync", "accepts a claim that is on no disk", "one record too many", power_cut),
    ("ledger.sync", "acknowledges a commit that is on no disk", "", power_cut),
    ("stage.sync", "publishes a package that is on no disk", "packages/", power_cut),
    (
        "publish.sync",
        "says delivered before the package's name is on the disk",
        "packages/",
        power_cut,
    ),
    ("archive.sync", "forgets a claim before its archive is on the disk", "", power_cut),
    (
        "archive.early",
        "archives before the ledger has accepted",
        "has no record",
        killed_before_accepting,
    ),
    (
        "recovery.known",
        "reads a claim anew that has a row",
        "one record too many",
        killed_before_publishing,
    ),
    (
        "settle.writers",
        "takes a file that is still being written",
        "intent-slow.json",
        half_written,
    ),
    (
        "archive.replace",
        "overwrites an archived file of the same name",
        "processed/ lacks",
        same_name_twice,
    ),
    ("ledger.retry-sync", "goes on after a sync that failed", "fails: exit", failed_sync),
    ("ledger.fence", "commits without looking at the epoch", "", stale_commit),
    (
        "fence.check",
        "publishes without looking at the epoch",
        "a stale leader has published",
        stale_publication,
    ),
    (
        "room.end",
        "makes room over the end of the log instead of behind it",
        "",
        killed_before_emptying_the_log,
    ),
    (
        "sink-package-2/stage.sync",
        "publishes what its second hand has staged on no disk",
        "packages/",
        power_cut_of_a_backlog,
    ),
    (
        "sink-package-2/publish.sync",
        "says delivered before the names of its second hand are on the disk",
        "packages/",
        power_cut_of_a_backlog,
    ),
    (
        "sink-package-2/fence.check",
        "publishes by its second hand without looking at the epoch",
        "a stale leader has published",
        stale_publication_by_the_second_hand,
    ),
];

/// Runs that have to show nothing before a breakage counts as not caught: a thread that does not have it
/// may be the first to notice, and ends the process before it shows.
const TRIES: usize = 4;

pub fn rows() -> Vec<Row> {
    vec![Row { id: "all", what: "each breakage of the protocol is caught", run: all }]
}

fn all(_: &Options) -> Tally {
    let mut tally = Tally::default();
    for (name, what, said, harness) in MUTANTS {
        let control = Tally { fired: 0, ..harness("") };
        if let Some(why) = control.skipped {
            tally.notes.push(format!("SKIPPED {name}: {why}"));
            continue;
        }
        tally.add(control, &format!("control of {name}"));
        tally.fired += 1;
        let mut seen = Vec::new();
        let caught = (1..=TRIES).find_map(|run| {
            let found = harness(&format!("{name}=skip"));
            tally.acked += found.acked;
            let caught = found.violations.iter().find(|text| text.contains(said)).cloned();
            seen.extend(found.violations);
            caught.map(|violation| (run, violation))
        });
        match caught {
            Some((1, it)) => tally.notes.push(format!("{name} ({what}): caught, {it}")),
            Some((run, it)) => {
                tally.notes.push(format!("{name} ({what}): caught in run {run}, {it}"));
            }
            None => tally.violation(format!("{name} ({what}) survives: {seen:?}")),
        }
    }
    tally
}

/// One run over files that are there already.
fn there_before(plan: &str) -> Tally {
    let dir = tempfile::tempdir().unwrap();
    let work = Work::prepare(Load::Few, &[dir.path()], &dir.path().join("records"));
    work.command(plan).output().unwrap();
    Tally { violations: check(&work.site, &work.log), ..Tally::default() }
}

/// Cuts that at least one of them meets the window of any sync; found by `cut` to be plenty.
const CUTS: usize = 200;

/// Power cuts with ledger, inbox and packages on filesystems of their own. The control is `cut`.
fn power_cut(plan: &str) -> Tally {
    cut(Load::Few, plan)
}

fn power_cut_of_a_backlog(plan: &str) -> Tally {
    cut(Load::Backlog, plan)
}

fn cut(load: Load, plan: &str) -> Tally {
    let three = Sweep::of("mutants", "all", Layout::Three(Kind::Ext4));
    let sweep = Sweep { load, plan, stop_at_first: true, ..three };
    let options = Options { full: false, seed: random_seed(), minutes: 0 };
    sweep.sample(&options, Fault::Cut, if plan.is_empty() { 4 } else { CUTS })
}

fn killed_before_accepting(plan: &str) -> Tally {
    killed_at(Load::Few, &[("ledger.accept.before", 1)], plan)
}

fn killed_before_publishing(plan: &str) -> Tally {
    let places = [("publish.rename.before", 1), ("ledger.close.before", 1)];
    killed_at(Load::Few, &places, plan)
}

fn killed_before_emptying_the_log(plan: &str) -> Tally {
    killed_at(Load::Few, &[("ledger.checkpoint.before", 1)], plan)
}

/// Starts a daemon under the plan.
fn start(site: &Site, plan: &str) -> Daemon {
    let mut command = site.command(&["run", "--log-format", "json"]);
    command.env("FAILPOINTS", plan);
    let daemon = Daemon::from(command);
    daemon.wait_for_message("ready");
    daemon
}

/// Waits for so many status files, stops the daemon and checks.
fn settled(site: &Site, daemon: Daemon, log: &mut Log, records: usize) -> Tally {
    wait_until("the records", || site.names("status").len() >= records);
    log.told_by_status(site);
    let (code, lines) = daemon.stop();
    let mut tally = Tally { acked: log.told.len() as u64, ..Tally::default() };
    tally.require(code == Some(0), || format!("the daemon ends with {code:?}: {lines:?}"));
    tally.violations.extend(check(site, log));
    tally
}

fn half_written(plan: &str) -> Tally {
    let (site, mut log) = (Site::new(), Log::default());
    let text = scaling("web", 3);
    let path = site.inbox().join("intent-slow.json");
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, first.as_bytes()).unwrap();
    let daemon = start(&site, plan);
    // Whoever takes half files has taken it when a whole one that came later is done.
    site.drop_file("intent-whole.json", &scaling("db", 2));
    wait_until("the whole one", || !site.names("status").is_empty());
    std::io::Write::write_all(&mut file, second.as_bytes()).unwrap();
    drop(file);
    log.dropped("intent-whole.json", scaling("db", 2), Expect::Admitted);
    log.dropped("intent-slow.json", text, Expect::Admitted);
    settled(&site, daemon, &mut log, 2)
}

fn same_name_twice(plan: &str) -> Tally {
    dropped_in_turn(plan, ["intent-a.json", "intent-a.json"])
}

fn one_after_the_other(plan: &str) -> Tally {
    dropped_in_turn(plan, ["intent-a.json", "intent-b.json"])
}

/// The second file comes when the first is archived.
fn dropped_in_turn(plan: &str, names: [&str; 2]) -> Tally {
    let (site, mut log) = (Site::new(), Log::default());
    let daemon = start(&site, plan);
    for (index, name) in names.into_iter().enumerate() {
        let text = scaling("web", 1 + index as u64);
        site.drop_file(name, &text);
        log.dropped(name, text, Expect::Admitted);
        wait_until("its archive", || {
            site.names("processed").len() + site.names("status").len() > 2 * index
                && site.names("inbox").is_empty()
                && site.names("work").is_empty()
        });
    }
    settled(&site, daemon, &mut log, 2)
}

/// Syncs of the log in a short run: opening, the epoch, accepting, finishing.
const SYNCS: u32 = 6;

/// Each sync of the ledger's log fails once: the process has to end with 74, and the next goes on.
fn failed_sync(plan: &str) -> Tally {
    if Command::new("strace").arg("-V").output().is_err() {
        return Tally::skipped("strace is not installed");
    }
    let mut tally = Tally::default();
    for nth in 1..=SYNCS {
        let dir = tempfile::tempdir().unwrap();
        let mut work = Work::prepare(Load::Few, &[dir.path()], &dir.path().join("records"));
        let trace = dir.path().join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace).arg("-P");
        command.arg(work.site.state().join("ledger.db-wal"));
        command.args(["-e", &format!("inject=fsync,fdatasync:error=EIO:when={nth}")]);
        command.args(["-E", &format!("FAILPOINTS={plan}")]);
        let batch = work.command("");
        command.arg(batch.get_program()).args(batch.get_args());
        let output = command.output().expect("strace starts");
        let fired = std::fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
        let code = output.status.code();
        let part = work.verdict(&String::from_utf8_lossy(&output.stdout));
        tally.add(part, &format!("sync {nth}"));
        tally.require(!fired || code == Some(74), || format!("sync {nth} fails: exit {code:?}"));
        tally.require(fired || nth > 2, || format!("sync {nth} did not fail"));
    }
    tally
}

/// Two leaders: the first stops at `point`, loses its lock, and wakes when the second has worked.
/// Returns how the first one ended.
fn overtaken(
    plan: &str,
    point: &str,
    log: &mut Log,
    before_waking: impl FnOnce(&Site),
) -> (Site, Daemon, ExitStatus) {
    let site = Site::new();
    let first = start(&site, &format!("{point}=stop@1;{plan}"));
    dropped(&site, log, "intent-a.json", "web", 3);
    wait_until_stopped(&first);
    succeeded(site, first, log, 2, before_waking)
}

fn dropped(site: &Site, log: &mut Log, name: &str, target: &str, replicas: u64) {
    let text = scaling(target, replicas);
    site.drop_file(name, &text);
    log.dropped(name, text, Expect::Admitted);
}

/// The second half of it: a leader that stands still is succeeded by one that works until there are so
/// many records, and wakes.
fn succeeded(
    site: Site,
    mut first: Daemon,
    log: &mut Log,
    records: usize,
    before_waking: impl FnOnce(&Site),
) -> (Site, Daemon, ExitStatus) {
    std::fs::remove_file(site.state().join("leader.lock")).unwrap();
    let second = start(&site, "");
    dropped(&site, log, "intent-b.json", "web", 5);
    wait_until("the second leader's work", || site.names("status").len() == records);
    before_waking(&site);
    first.signal(libc::SIGCONT);
    let status = first.wait();
    (site, second, status)
}

fn stale_commit(plan: &str) -> Tally {
    let mut log = Log::default();
    let (site, second, status) = overtaken(plan, "ledger.begin.before", &mut log, |_| {});
    let mut tally = settled(&site, second, &mut log, 2);
    tally.require(!status.success(), || "the stale leader ends as if all were well".to_owned());
    tally
}

fn stale_publication(plan: &str) -> Tally {
    let mut log = Log::default();
    let place = "scale-default-web";
    // Nothing stands in the way of the stale leader's rename but the fence.
    let (site, second, status) = overtaken(plan, "publish.lock.before", &mut log, |site| {
        std::fs::remove_dir_all(site.packages().join(place)).unwrap();
    });
    let stale = tree(&site.packages().join(place));
    let mut tally = Tally::default();
    tally.require(stale.is_empty(), || "a stale leader has published".to_owned());
    tally.require(!status.success(), || "the stale leader ends as if all were well".to_owned());
    // The same intent again puts back what was taken away.
    let _ = std::fs::remove_dir_all(site.packages().join(place));
    let again = json!({
        "intent_type": "scaling", "target": "web", "namespace": "default", "replicas": 6,
    });
    site.drop_file("intent-c.json", &again.to_string());
    log.dropped("intent-c.json", again.to_string(), Expect::Admitted);
    tally.add(settled(&site, second, &mut log, 3), "afterwards");
    tally
}

/// Targets of the stale leader: three batches of two, so that its second hand has one of them.
const TARGETS: [&str; 6] = ["web", "db", "smf", "amf", "upf", "nrf"];

/// A leader that stands still when its second hand is about to publish. It is not to be amid a commit,
/// which would keep its successor out of the ledger, so it may take another try.
fn stopped_in_second_hand(plan: &str) -> (Site, Log, Daemon) {
    let point = "sink-package-2/publish.lock.before";
    loop {
        let (site, mut log) = (Site::new(), Log::default());
        for target in TARGETS {
            dropped(&site, &mut log, &format!("intent-{target}.json"), target, 3);
        }
        let mut command = site.command(&["run", "--log-format", "json"]);
        command.env("FAILPOINTS", format!("package.batch=bound@2;{point}=stop@1;{plan}"));
        let daemon = Daemon::from(command);
        wait_until_stopped(&daemon);
        let ledger = rusqlite::Connection::open(site.state().join("ledger.db")).unwrap();
        ledger.busy_timeout(std::time::Duration::ZERO).unwrap();
        if ledger.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
            return (site, log, daemon);
        }
    }
}

/// The same as [`stale_publication`], by a second hand.
fn stale_publication_by_the_second_hand(plan: &str) -> Tally {
    let (site, mut log, first) = stopped_in_second_hand(plan);
    let records = TARGETS.len() + 1;
    // Nothing stands in the way of the stale leader's renames but the fence.
    let (site, second, status) = succeeded(site, first, &mut log, records, |site| {
        for name in site.names("packages") {
            std::fs::remove_dir_all(site.packages().join(name)).unwrap();
        }
    });
    let mut tally = Tally::default();
    let stale = tree(&site.packages());
    tally.require(stale.is_empty(), || "a stale leader has published".to_owned());
    tally.require(!status.success(), || "the stale leader ends as if all were well".to_owned());
    for target in TARGETS {
        let _ = std::fs::remove_dir_all(site.packages().join(format!("scale-default-{target}")));
        dropped(&site, &mut log, &format!("intent-{target}-again.json"), target, 6);
    }
    tally.add(settled(&site, second, &mut log, records + TARGETS.len()), "afterwards");
    tally
}
