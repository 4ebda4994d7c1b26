//! The leader is killed: under load, steadily, and with a command of its that still runs.

use std::time::{Duration, Instant};

use super::load::Load;
use super::{leader, pause};
use crate::report::{Options, Random, Tally, percentile};
use crate::support::{Daemon, Site, names, wait_until};

/// As many instances as wait at any time.
const STANDBYS: usize = 3;

/// Kills as fast as there is a new leader, at random moments.
pub fn under_load(options: &Options) -> Tally {
    let kills = if options.full { 500 } else { 50 };
    let mut random = Random::new(options.seed);
    let mut run = Run::start(Duration::from_millis(15));
    let mut tally = Tally::default();
    for kill in 0..kills {
        pause(random.below(150));
        run.kill(kill, &mut tally);
    }
    run.end(tally)
}

/// Kills once a second for a time, and looks at what a leader holds open.
pub fn steadily(options: &Options) -> Tally {
    let seconds = if options.full { 600 } else { 15 };
    let mut run = Run::start(Duration::from_millis(30));
    let mut tally = Tally::default();
    let mut held = Vec::new();
    let start = Instant::now();
    for kill in 0..seconds {
        let due = start + Duration::from_secs(kill as u64 + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        held.push(held_by(run.leader.as_ref().expect("one leads")));
        run.kill(kill, &mut tally);
    }
    // Every process here is young: what must not grow with the age of the site is what a leader
    // starts with. A few descriptors come and go with the work in hand.
    let (first, second) = held.split_at(held.len() / 2);
    for (what, slack, of) in [
        ("descriptors", 8, (|held: &(usize, usize)| held.0) as fn(&(usize, usize)) -> usize),
        ("threads", 4, |held: &(usize, usize)| held.1),
    ] {
        let least = |part: &[(usize, usize)]| part.iter().map(of).min().unwrap_or_default();
        let (before, after) = (least(first), least(second));
        tally.notes.push(format!("{what} of a leader: {before} at least, later {after}"));
        tally.require(after <= before + slack, || format!("{what} grow from {before} to {after}"));
    }
    run.end(tally)
}

/// Descriptors and threads of a process.
fn held_by(daemon: &Daemon) -> (usize, usize) {
    let count = |part| {
        std::fs::read_dir(format!("/proc/{}/{part}", daemon.pid())).map_or(0, Iterator::count)
    };
    (count("fd"), count("task"))
}

/// A site under load with a leader and standbys.
struct Run {
    load: Load,
    leader: Option<Daemon>,
    standbys: Vec<Daemon>,
    takeovers: Vec<f64>,
}

impl Run {
    fn start(pace: Duration) -> Self {
        let load = Load::start(pace);
        let leader = Some(load.site.start());
        let standbys = (0..STANDBYS).map(|_| load.site.launch(&[])).collect();
        Run { load, leader, standbys, takeovers: Vec::new() }
    }

    /// Kills the leader, and measures the time to the package of a file that is dropped then.
    fn kill(&mut self, kill: usize, tally: &mut Tally) {
        wait_until("a standby", || self.standbys.iter().any(|it| it.has_logged("standby")));
        let old = self.leader.take().expect("one leads");
        let start = Instant::now();
        self.load.kill(old);
        let replicas = 1 + kill as u64 % 100;
        self.load.drop_file(&format!("intent-probe-{kill}.json"), "probe", replicas);
        wait_until("a package of the next leader", || {
            self.load.site.replicas("probe") == Some(replicas)
        });
        self.takeovers.push(start.elapsed().as_secs_f64() * 1000.0);
        let next = leader(&mut self.standbys);
        let leaders = 1 + self.standbys.iter().filter(|it| it.has_logged("ready")).count();
        tally.require(leaders == 1, || format!("kill {kill}: {leaders} lead"));
        self.leader = Some(next);
        self.standbys.push(self.load.site.launch(&[]));
        tally.fired += 1;
    }

    fn end(mut self, mut tally: Tally) -> Tally {
        let (p50, p99) = (percentile(&mut self.takeovers, 50), percentile(&mut self.takeovers, 99));
        let kills = self.takeovers.len();
        tally.notes.push(format!(
            "takeover, kill to the next package, {kills} kills: p50 {p50:.0} ms, p99 {p99:.0} ms"
        ));
        drop(self.standbys);
        tally.add(self.load.finish(self.leader.expect("one leads")), "in the end");
        tally
    }
}

/// A command that outlived its leader would hold nothing: descriptors close on exec, and the kernel
/// kills it with its parent.
pub fn with_a_child(options: &Options) -> Tally {
    let mut tally = Tally::default();
    let site = Site::new();
    let pids = site.root().join("pids");
    std::fs::create_dir(&pids).unwrap();
    let command =
        serde_json::json!(["sh", "-c", "echo > \"$0/$$\"; exec sleep 600", pids, "{intent}"]);
    site.configure(&format!(
        "sink = [\"slow\"]\n[sinks.slow]\ntype = \"exec\"\ntimeout = \"5m\"\ncommand = {command}\n"
    ));
    let mut takeovers = Vec::new();
    site.drop_file("intent-a.json", &crate::support::scaling("web", 2));
    let mut current = site.start();
    for kill in 0..if options.full { 50 } else { 10 } {
        wait_until("a command that runs", || !names(&pids).is_empty());
        let child = names(&pids).remove(0);
        let standby = site.launch(&[]);
        standby.wait_for_message("standby");
        tally.require(is_alive(&child), || format!("kill {kill}: the command had ended before"));
        let start = Instant::now();
        current.kill();
        standby.wait_for_message("leading");
        takeovers.push(start.elapsed().as_secs_f64() * 1000.0);
        wait_until("the end of the command", || !is_alive(&child));
        std::fs::remove_file(pids.join(&child)).unwrap();
        tally.fired += 1;
        current = standby;
    }
    let worst = percentile(&mut takeovers, 100);
    // The command would sleep for minutes more: far less than that is "at once".
    tally.require(worst < 10_000.0, || format!("the lock was free only after {worst:.0} ms"));
    let p50 = percentile(&mut takeovers, 50);
    tally.notes.push(format!("kill to the next leader: p50 {p50:.0} ms, worst {worst:.0} ms"));
    current.kill();
    tally
}

/// Whether there is a process of this number that is no zombie.
fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|text| !text.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}
