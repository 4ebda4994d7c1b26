//! Every kind of call of the path fails, once and from then on, at each of its occurrences.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::io::strace::{self, Ended, Plan, Trace};
use crate::report::{Options, Random, Tally};
use crate::support::Site;
use crate::workload::{Load, Work};

/// A fault that has passed holds nobody up for so long.
const BOUND_ONCE: Duration = Duration::from_secs(30);

/// A run that goes on for longer waits for the fault to end.
const BOUND: Duration = Duration::from_millis(1_500);

/// What a CI run does of one sweep; the rest is for `--full`.
const CI_POINTS: usize = 16;

/// Errors of a kind of call.
type Kind = (&'static str, &'static [&'static str]);

/// One place at which a call fails.
#[derive(Clone, Debug)]
struct Point {
    call: &'static str,
    error: &'static str,
    at: u64,
    for_ever: bool,
    paths: Paths,
}

/// Calls on which paths count.
#[derive(Clone, Copy, Debug)]
enum Paths {
    Any,
    /// The site's own files: the loader makes this call too.
    Own,
    /// The ledger's write-ahead log.
    Log,
}

impl Paths {
    fn of(self, site: &Site) -> Vec<PathBuf> {
        match self {
            Paths::Any => Vec::new(),
            Paths::Own => own_paths(site),
            Paths::Log => vec![site.state().join("ledger.db-wal")],
        }
    }
}

impl Point {
    fn plan(&self, site: &Site) -> Plan {
        let (what, when) = (format!("error={}", self.error), self.when());
        Plan { paths: self.paths.of(site), ..Plan::inject(self.call, &what, &when) }
    }

    fn when(&self) -> String {
        format!("{}{}", self.at, if self.for_ever { "+" } else { "" })
    }

    fn shown(&self) -> String {
        let on = match self.paths {
            Paths::Any => "",
            Paths::Own => " on own files",
            Paths::Log => " on the ledger's log",
        };
        format!("{}:error={}:when={}{on}", self.call, self.error, self.when())
    }

    fn is_sync(&self) -> bool {
        matches!(self.call, "fsync" | "fdatasync" | "syncfs")
    }
}

const NO_SYNC: &[&str] = &["EIO", "ENOSPC", "EDQUOT"];
const SYNCS: &[Kind] = &[("fsync", NO_SYNC), ("fdatasync", NO_SYNC), ("syncfs", NO_SYNC)];

/// Failed syncs: never repeated, nothing acknowledged afterwards, 74.
pub fn syncs(options: &Options) -> Tally {
    sweep(options, Load::Few, SYNCS)
}

/// The same while both hands of the package sink are at work.
pub fn syncs_of_a_backlog(options: &Options) -> Tally {
    sweep(options, Load::Backlog, SYNCS)
}

/// How the line of a call shows that it is room for commits that is written, and not a commit.
const ROOM: &str = ", 524288, ";

/// Each write to the ledger's log fails: of commits, and of the room that is made ahead of them.
pub fn log_writes(options: &Options) -> Tally {
    if !super::has("strace") {
        return Tally::skipped("strace is not installed");
    }
    // Each thread counts its own calls, and one that makes a ledger would fail before one that fills it.
    let profile = profile(Load::Later, |site| Plan {
        paths: Paths::Log.of(site),
        trace: "pwrite64".to_owned(),
        ..Plan::default()
    });
    let most = profile.all.get("pwrite64").copied().unwrap_or_default();
    let lasting: &[bool] = if options.full { &[false, true] } else { &[false] };
    let mut points = Vec::new();
    for error in ["ENOSPC", "EIO"] {
        for for_ever in lasting.iter().copied() {
            points.extend((1..=most).map(|at| Point {
                call: "pwrite64",
                error,
                at,
                for_ever,
                paths: Paths::Log,
            }));
        }
    }
    let rooms = AtomicU64::new(0);
    let mut tally = all(Load::Later, &points, |trace| {
        let refused = trace.has(|line| line.contains(ROOM) && line.ends_with("(INJECTED)"));
        rooms.fetch_add(u64::from(refused), Ordering::Relaxed);
    });
    let rooms = rooms.into_inner();
    tally.notes.push(format!("{most} writes; in {rooms} runs it was room that failed"));
    tally.require(rooms >= 2, || "it was never room that failed".to_owned());
    tally
}

/// No room: new work is refused, and a one-shot run goes on for as long as it takes.
pub fn no_room(options: &Options) -> Tally {
    let room = ["ENOSPC", "EDQUOT"].as_slice();
    sweep(
        options,
        Load::Few,
        &[
            ("pwrite64", room),
            ("write", room),
            ("mkdirat", room),
            ("openat", room),
            ("openat2", room),
            ("renameat", room),
            ("renameat2", room),
            ("ftruncate", &["EFBIG"]),
        ],
    )
}

/// Renames that are refused.
pub fn renames(options: &Options) -> Tally {
    let refused = ["EXDEV", "ENOENT", "EACCES", "EIO"].as_slice();
    sweep(options, Load::Few, &[("renameat", refused), ("renameat2", refused)])
}

/// No descriptor, no lock, no answer.
pub fn others(options: &Options) -> Tally {
    let crowded = ["EMFILE", "ENFILE"].as_slice();
    let broken = ["EIO"].as_slice();
    sweep(
        options,
        Load::Few,
        &[
            ("openat", crowded),
            ("openat2", crowded),
            ("openat2", broken),
            ("read", broken),
            ("pread64", broken),
            ("pwrite64", broken),
            ("write", broken),
            ("statx", broken),
            ("newfstatat", broken),
            ("getdents64", broken),
            ("unlinkat", broken),
            ("linkat", broken),
            ("ftruncate", broken),
            ("flock", &["ENOLCK"]),
            ("fcntl", &["ENOLCK"]),
            ("faccessat2", broken),
        ],
    )
}

/// Mappings, among them the ledger's shared memory.
pub fn memory(options: &Options) -> Tally {
    sweep(options, Load::Few, &[("mmap", &["ENOMEM"]), ("mremap", &["ENOMEM"])])
}

/// Interrupted calls.
pub fn interrupted(options: &Options) -> Tally {
    const CALLS: &[&str] = &[
        "read",
        "pread64",
        "write",
        "pwrite64",
        "openat",
        "openat2",
        "fsync",
        "fdatasync",
        "syncfs",
        "flock",
        "ftruncate",
        "renameat2",
        "renameat",
        "statx",
        "getdents64",
        "mkdirat",
        "unlinkat",
    ];
    let kinds: Vec<Kind> = CALLS.iter().map(|call| (*call, ["EINTR"].as_slice())).collect();
    sweep(options, Load::Few, &kinds)
}

fn sweep(options: &Options, load: Load, kinds: &[Kind]) -> Tally {
    if !super::has("strace") {
        return Tally::skipped("strace is not installed");
    }
    let everything = |_: &Site| Plan { trace: "all".to_owned(), ..Plan::default() };
    let groups = groups(kinds, &profile(load, everything));
    let count: usize = groups.iter().map(Vec::len).sum();
    let chosen = if options.full { groups.concat() } else { sample(groups, options.seed) };
    let mut tally = all(load, &chosen, |_| {});
    tally.notes.insert(0, format!("{} of {count} places", chosen.len()));
    tally
}

/// Tries all points, and shows each trace to `look`.
fn all(load: Load, points: &[Point], look: impl Fn(&Trace) + Sync) -> Tally {
    let tally = Mutex::new(Tally::default());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (part, trace) = one(load, point);
                    look(&trace);
                    tally.lock().unwrap().add(part, &point.shown());
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// How often the thread that makes a call most makes it.
struct Profile {
    all: BTreeMap<String, u64>,
    /// Before the program has read its configuration, which no fault of ours is about.
    loader: BTreeMap<String, u64>,
    /// Calls on the site's own files.
    own: BTreeMap<String, u64>,
}

fn profile(load: Load, plan: impl FnOnce(&Site) -> Plan) -> Profile {
    let dir = tempfile::tempdir().unwrap();
    let work = Work::prepare(load, &[dir.path()], &dir.path().join("records"));
    let trace = dir.path().join("trace");
    let command = plan(&work.site).command(&work.command(""), &trace);
    let ended = strace::run(command, Duration::from_secs(60));
    assert_eq!(ended.code, Some(1), "the work without a fault: {}", ended.stderr);
    let trace = Trace::read(&trace);
    let own: Vec<String> = own_paths(&work.site)
        .iter()
        .flat_map(|path| [format!("<{}>", path.display()), format!("\"{}\"", path.display())])
        .collect();
    let mut loading = true;
    Profile {
        all: trace.counts(|_| true),
        loader: trace.counts(|line| {
            loading &= !(line.contains("openat(") && line.contains("intentd.toml"));
            loading
        }),
        own: trace.counts(|line| own.iter().any(|path| line.contains(path))),
    }
}

/// Directories and files that the work touches, under every name that can be known before.
fn own_paths(site: &Site) -> Vec<PathBuf> {
    let (spool, state, packages) = (site.spool(), site.state(), site.packages());
    let mut paths = vec![packages.join(".intentd"), packages, state.clone(), spool.clone()];
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "leader.lock"] {
        paths.push(state.join(name));
    }
    for part in ["inbox", "work", "processed", "failed", "status", ".intentd", ".intentd.tmp"] {
        paths.push(spool.join(part));
    }
    for file in 0..8 {
        let file = format!("intent-{file}.json");
        paths.extend((0..8).map(|n| spool.join(format!("work/1.{n}.{file}"))));
        paths.push(spool.join("inbox").join(file));
    }
    paths
}

/// All places, a group for each call, error and way to fail.
fn groups(kinds: &[Kind], profile: &Profile) -> Vec<Vec<Point>> {
    let mut groups = Vec::new();
    for (call, errors) in kinds {
        let count = |counts: &BTreeMap<String, u64>| counts.get(*call).copied().unwrap_or(0);
        let loader = count(&profile.loader);
        // Where the loader makes the call too, the first ones are reached by the paths instead; a
        // mapping has none.
        let own = loader > 0 && *call != "mmap";
        let first = if own { 1 } else { loader + 1 };
        let most = if own { count(&profile.own) } else { count(&profile.all) };
        for error in *errors {
            for for_ever in [false, true] {
                let paths = if own { Paths::Own } else { Paths::Any };
                let point = |at| Point { call, error, at, for_ever, paths };
                groups.push((first..=most).map(point).collect());
            }
        }
    }
    groups.retain(|group: &Vec<Point>| !group.is_empty());
    groups
}

/// Takes from each group in turn, at random, so that every kind of fault is there.
fn sample(mut groups: Vec<Vec<Point>>, seed: u64) -> Vec<Point> {
    let mut random = Random::new(seed);
    let wanted = CI_POINTS.max(groups.len());
    let mut chosen = Vec::new();
    while chosen.len() < wanted && !groups.is_empty() {
        for group in &mut groups {
            let index = random.below(group.len() as u64) as usize;
            chosen.push(group.swap_remove(index));
        }
        groups.retain(|group| !group.is_empty());
    }
    chosen
}

fn one(load: Load, point: &Point) -> (Tally, Trace) {
    let dir = tempfile::tempdir().unwrap();
    let mut work = Work::prepare(load, &[dir.path()], &dir.path().join("records"));
    let trace = dir.path().join("trace");
    let command = point.plan(&work.site).command(&work.command(""), &trace);
    let bound = if point.for_ever { BOUND } else { BOUND_ONCE };
    let ended = strace::run(command, bound);
    let trace = Trace::read(&trace);
    let mut tally = Tally { fired: trace.fired().min(1), ..Tally::default() };
    if tally.fired > 0 {
        judge(point, &ended, &trace, &work, &mut tally);
    }
    let verdict = work.verdict(&ended.stdout);
    tally.add(verdict, "afterwards");
    leftovers(&work.site, &mut tally);
    (tally, trace)
}

/// What has to hold while the fault lasts.
fn judge(point: &Point, ended: &Ended, trace: &Trace, work: &Work, tally: &mut Tally) {
    let (code, site) = (ended.code, &work.site);
    let why = || format!("ends with {code:?}: {}", ended.stderr.trim());
    if point.is_sync() && point.error != "EINTR" {
        tally.require(code == Some(74), why);
        for object in trace.synced_again() {
            tally.violation(format!("synced again after a failed sync: {object}"));
        }
    }
    tally.require(point.for_ever || code.is_some(), || format!("hangs after one fault: {}", why()));
    // Panics (101) and deaths by signal answer no fault of a disk.
    tally.require(matches!(code, None | Some(0 | 1 | 74)) || may_refuse(point, ended), why);
    if matches!(code, Some(0 | 1)) {
        let left = [site.names("inbox"), site.names("work")].concat();
        tally.require(left.is_empty(), || format!("{}; left behind: {left:?}", why()));
        let (told, all) = (ended.stdout.lines().count(), work.log.drops.len());
        tally.require(told == all, || format!("{}; told of {told} of {all}", why()));
    }
    let no_room = matches!(point.error, "ENOSPC" | "EDQUOT");
    let lasts = no_room || (point.error == "EINTR" && !point.for_ever);
    let lasts = lasts && !point.is_sync();
    // A reader of the ledger needs room for its index; it comes after all that was promised.
    if lasts && ran(site) && !ended.stderr.contains("look for what is pending") {
        tally.require(code != Some(74), why);
    }
}

/// What is said when there is no memory for a thread.
const THREADS: [&str; 2] = ["start thread", "reading threads"];

/// Whether the program may end with 70 or 78: it could not even start its threads or read its
/// configuration, or whoever reads its output does not take it.
fn may_refuse(point: &Point, ended: &Ended) -> bool {
    match ended.code {
        Some(70) => point.call == "write" || THREADS.iter().any(|what| ended.stderr.contains(what)),
        Some(78) => ended.stderr.contains("intentd.toml"),
        _ => false,
    }
}

/// Whether the run had taken the lead: before that there is nothing to keep, and it may end.
fn ran(site: &Site) -> bool {
    !site.names("work").is_empty() || !site.names("status").is_empty()
}

/// Temporary files are cleaned, by the run that made them or by the next.
fn leftovers(site: &Site, tally: &mut Tally) {
    for part in ["status", "failed", "processed", "work"] {
        for name in dot_files(&site.spool().join(part)) {
            tally.violation(format!("a temporary file is left: {part}/{name}"));
        }
    }
}

fn dot_files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with('.')).collect()
}
