//! The lock file is broken while it is held, is no lock file, or lies where nothing can be locked.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::load::Load;
use super::{is_root, last_words};
use crate::report::{Options, Tally};
use crate::support::{Daemon, Site, wait_until};

/// An account that no other one trusts.
const NOBODY: u32 = 65534;

/// Ways to break a lock that is held, by name.
type Break = (&'static str, fn(&Path));

const BREAKS: &[Break] = &[
    ("unlinked", |lock| std::fs::remove_file(lock).unwrap()),
    ("renamed", |lock| std::fs::rename(lock, lock.with_extension("old")).unwrap()),
    ("recreated", |lock| {
        std::fs::remove_file(lock).unwrap();
        std::fs::write(lock, "").unwrap();
    }),
    ("replaced", |lock| {
        let other = lock.with_extension("new");
        std::fs::write(&other, "").unwrap();
        std::fs::rename(&other, lock).unwrap();
    }),
];

/// Breaks the lock of a leader under load and starts a second one.
pub fn broken(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let rounds = if options.full { 200 } else { 8 };
    let load = Load::start(Duration::from_millis(20));
    let mut current = load.site.start();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let (how, act) = BREAKS[round % BREAKS.len()];
        let before = load.effects();
        wait_until("work of the leader", || load.effects() > before);
        load.mark("kill");
        let start = Instant::now();
        act(&load.site.state().join("leader.lock"));
        let mut next = load.site.launch(&[]);
        let code = current.wait_code();
        slowest = slowest.max(start.elapsed());
        load.mark("killed");
        tally.require(code == 74, || format!("{how}: the old one ends with {code}"));
        let log = last_words(&current);
        tally.require(log.contains("was replaced") || log.contains("has taken the lead"), || {
            format!("{how}: the old one does not say why: {log}")
        });
        wait_until("the next leader", || next.has_logged("ready") || next.has_ended());
        if next.has_ended() {
            // It came while the old one wrote, and refused.
            tally.require(next.wait_code() == 74, || format!("{how}: {:#?}", next.log()));
            next = load.site.start();
        }
        tally.fired += 1;
        current = next;
    }
    tally.notes.push(format!("a leader without its lock stops after {slowest:.1?} at most"));
    tally.require(slowest < Duration::from_secs(10), || format!("it took {slowest:?}"));
    tally.add(load.finish(current), "in the end");
    tally
}

/// What is no lock file of ours is refused with 74, by the daemon and by `batch`, and left as it is.
pub fn refused(_: &Options) -> Tally {
    let mut tally = Tally::default();
    let fake: &[Break] = &[
        ("a symlink", |lock| symlink("/dev/null", lock).unwrap()),
        ("a dangling symlink", |lock| symlink("nowhere", lock).unwrap()),
        ("a FIFO", |lock| {
            assert!(Command::new("mkfifo").arg(lock).status().unwrap().success());
        }),
        ("a directory", |lock| std::fs::create_dir(lock).unwrap()),
        ("a file of two names", |lock| {
            std::fs::write(lock, "").unwrap();
            std::fs::hard_link(lock, lock.with_extension("second")).unwrap();
        }),
    ];
    for (what, make) in fake {
        let site = Site::new();
        std::fs::create_dir(site.state()).unwrap();
        make(&site.state().join("leader.lock"));
        tally.fired += refuses(&site, what, None, &mut tally);
    }
    if !is_root() {
        tally.notes.push("SKIPPED: 0444 and another owner, which takes root to try".to_owned());
        return tally;
    }
    for (what, mode, owner) in
        [("a file of mode 0444", 0o444, NOBODY), ("a file of another owner", 0o600, 0)]
    {
        let site = Site::new();
        std::fs::create_dir(site.state()).unwrap();
        give_to(site.root(), NOBODY);
        let lock = site.state().join("leader.lock");
        std::fs::write(&lock, "").unwrap();
        std::os::unix::fs::chown(&lock, Some(owner), Some(owner)).unwrap();
        std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(mode)).unwrap();
        tally.fired += refuses(&site, what, Some(NOBODY), &mut tally);
    }
    tally
}

/// Whether both commands refuse the lock; 1 when they came to that point.
fn refuses(site: &Site, what: &str, user: Option<u32>, tally: &mut Tally) -> u64 {
    for args in [&["run", "--log-format", "json"][..], &["batch"]] {
        let mut command = site.command(args);
        if let Some(user) = user {
            use std::os::unix::process::CommandExt;
            command.uid(user).gid(user);
        }
        let mut process = Daemon::from(command);
        let code = process.wait_code();
        let log = last_words(&process);
        let named = log.contains("leader.lock");
        tally.require(code == 74 && named, || format!("{what}: {args:?} ends with {code}: {log}"));
    }
    1
}

/// Gives a tree to a user, so that a daemon of that user can work in it.
fn give_to(root: &Path, user: u32) {
    let status = Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(root).status();
    assert!(status.unwrap().success());
}

/// `flock` fails: that is broken (74), not held (75), and nobody leads.
pub fn not_lockable(_: &Options) -> Tally {
    if Command::new("strace").arg("-V").output().is_err() {
        return Tally::skipped("strace is not installed");
    }
    let mut tally = Tally::default();
    for error in ["ENOLCK", "EIO", "EOPNOTSUPP"] {
        let site = Site::new();
        for args in [&["run", "--log-format", "json"][..], &["batch"]] {
            let trace = site.root().join("trace");
            let inner = site.command(args);
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-e", "trace=flock", "-o"]).arg(&trace);
            command.arg("-e").arg(format!("inject=flock:error={error}"));
            command.arg(inner.get_program()).args(inner.get_args());
            let mut process = Daemon::from(command);
            let code = process.wait_code();
            let led = process.has_logged("leading") || process.has_logged("ready");
            tally.require(code == 74 && !led, || {
                format!("{error}: {args:?} ends with {code}: {:#?}", process.log())
            });
            let trace = std::fs::read_to_string(&trace).unwrap_or_default();
            tally.fired += u64::from(trace.contains("INJECTED"));
        }
        tally.require(!site.state().join("ledger.db").exists(), || {
            format!("{error}: there is a ledger although nobody led")
        });
    }
    tally
}
