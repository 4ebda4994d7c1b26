//! Writers that are slow, die, share a file, map it, or rewrite it while it is read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use intentd::model::FileName;
use intentd::spool::{Claimed, Content};
use rustix::fs::{AtFlags, CWD};

use crate::check::{Expect, digest};
use crate::drops::scene::{Scene, intent, is_installed};
use crate::drops::swap::open_spool;
use crate::report::{Options, Row, Tally};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row { id: "C6", what: "slow writers, killed writers, two writers on one file", run: slow },
        Row {
            id: "C7",
            what: "files rewritten in place, by name, until they are taken",
            run: rewritten,
        },
        Row {
            id: "C7-lib",
            what: "files rewritten through an old descriptor while they are read",
            run: blended,
        },
        Row { id: "C18", what: "every way to get a file into a directory", run: arrivals },
    ]
}

/// A writer in a process of its own that has written half of its file and keeps it open.
struct Halfway(Child);

impl Halfway {
    fn start(path: &Path, text: &str) -> Self {
        let script = "exec 3>\"$0\"; printf %s \"$1\" >&3; exec sleep 600";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(path).arg(text).stdin(Stdio::null());
        Halfway(command.spawn().expect("a shell starts"))
    }
}

impl Drop for Halfway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn slow(options: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    let count = if options.full { 100 } else { 30 };
    let pause = Duration::from_millis(if options.full { 100 } else { 25 });
    let text = |index: usize| intent(&format!("t{index:03}"), 2, &format!("{index:03}"));
    let mut files = Vec::new();
    let mut halves = Vec::new();
    let mut pairs = Vec::new();
    for index in 0..count {
        let at = |kind: &str| scene.at_inbox(format!("intent-{kind}-{index}.json"));
        files.push(File::create(at("slow")).unwrap());
        halves.push(Halfway::start(&at("killed"), &text(index)[..40]));
        // Two writers: the first closes long before the second, which writes the rest.
        let mut first = File::create(at("shared")).unwrap();
        pairs.push(OpenOptions::new().append(true).open(at("shared")).unwrap());
        first.write_all(&text(index).as_bytes()[..40]).unwrap();
    }
    let length = text(0).len();
    for at in 0..length {
        for (index, file) in files.iter_mut().enumerate() {
            file.write_all(&text(index).as_bytes()[at..=at]).unwrap();
        }
        std::thread::sleep(pause);
    }
    let mut tally = Tally::default();
    let early = scene.site.names("status");
    tally.require(early.is_empty(), || format!("taken while they were written: {early:?}"));
    drop(halves);
    for (index, mut second) in pairs.into_iter().enumerate() {
        second.write_all(&text(index).as_bytes()[40..]).unwrap();
    }
    drop(files);
    for index in 0..count {
        let name = |kind: &str| format!("intent-{kind}-{index}.json");
        scene.log.dropped(&name("slow"), text(index), Expect::Admitted);
        scene.log.dropped(&name("shared"), text(index), Expect::Admitted);
        scene.log.dropped(&name("killed"), &text(index)[..40], Expect::Rejected("INCOMPLETE"));
        scene.fired += 3;
    }
    tally.add(scene.verdict(), "writers");
    tally
}

/// Versions of one length, whose first and last bytes say which they are.
fn version(target: &str, replicas: u64, length: usize) -> String {
    let padding = " ".repeat(length);
    format!(
        "{{\"intent_type\":\"scaling\",\"replicas\":{replicas},{padding}\"namespace\":\"default\",\
         \"target\":\"{target}\",\"correlation_id\":\"{replicas}\"}}"
    )
}

fn rewritten(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    let wanted = if options.full { 100_000 } else { 10_000 };
    let mut rewrites = 0;
    let mut files = Vec::new();
    while rewrites < wanted {
        let index = files.len();
        let name = format!("intent-{index}.json");
        let versions =
            [11, 22].map(|replicas| version(&format!("t{}", index % 20), replicas, 64 << 10));
        let path = scene.at_inbox(&name);
        let mut writer = File::create(&path).unwrap();
        writer.write_all(versions[0].as_bytes()).unwrap();
        // Many while it is open, then opened anew until it is gone from its name.
        for turn in 0..100 {
            writer.write_all_at(versions[turn % 2].as_bytes(), 0).unwrap();
            rewrites += 1;
        }
        drop(writer);
        while let Ok(writer) = OpenOptions::new().write(true).open(&path) {
            writer.write_all_at(versions[rewrites % 2].as_bytes(), 0).unwrap();
            rewrites += 1;
        }
        files.push((name, versions));
    }
    scene.rest();
    let history = scene.site.history();
    let seen: std::collections::HashMap<&str, &str> = history
        .iter()
        .filter_map(|record| Some((record["file"].as_str()?, record["digest"].as_str()?)))
        .collect();
    for (name, versions) in files {
        let [first, second] = versions;
        // Which of the two was there when the last writer let go is known by the digest alone.
        let is_second = seen.get(name.as_str()) == Some(&digest(second.as_bytes()).as_str());
        scene.log.dropped(&name, if is_second { second } else { first }, Expect::Admitted);
    }
    scene.fired = rewrites as u64;
    let mut tally = scene.verdict();
    tally.notes.push(format!("{rewrites} rewrites of {} files", history.len()));
    tally
}

/// A writer may keep a descriptor from before the claim and write through it at any time. What has
/// been read must be one of the versions, or not count as read. There is no site to check: the
/// files go on changing in the archive.
fn blended(options: &Options) -> Tally {
    // A lease that is broken while it is held sends one that would end this process.
    intentd::sys::ignore_signals().unwrap();
    let mut tally = Tally::default();
    let disk = tempfile::tempdir().unwrap();
    let memory = crate::workload::memory();
    let wanted = if options.full { 100_000 } else { 5_000 };
    for (place, root) in [("on disk", disk.path()), ("in memory", memory.path())] {
        tally.add(blended_at(root, wanted), place);
    }
    tally
}

fn blended_at(root: &Path, wanted: u64) -> Tally {
    let (spool, inbox) = open_spool(root);
    let versions = [11, 22].map(|replicas| version("web", replicas, 512 << 10));
    let path = root.join("inbox/intent-a.json");
    std::fs::write(&path, &versions[0]).unwrap();
    let old = File::open(&path).unwrap();
    let candidate = inbox.open_candidate(&FileName::new("intent-a.json"), true).unwrap();
    let claimed = inbox.claim(candidate.expect("it is there"), &spool, 1, 1).unwrap();
    let Claimed::Taken(claim) = claimed else { panic!("nobody else is there") };

    let (done, rewrites) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut whole, mut unsettled) = (0, 0);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let again = format!("/proc/self/fd/{}", old.as_raw_fd());
            let mut turn = 0;
            while !done.load(Ordering::Relaxed) {
                let writer = OpenOptions::new().write(true).open(&again).unwrap();
                turn += 1;
                writer.write_all_at(versions[turn % 2].as_bytes(), 0).unwrap();
                drop(writer);
                rewrites.fetch_add(1, Ordering::Relaxed);
                // A pause, in some turns, in which a whole read fits.
                if turn % 4 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        });
        while rewrites.load(Ordering::Relaxed) < wanted {
            // As a claim that was not settled is taken up again: opened anew.
            let (claim, _) = spool.reclaim(&claim.claimed_as).unwrap().expect("it is there");
            match spool.read(&claim, 1 << 20, true).unwrap() {
                Content::Whole(bytes) => {
                    whole += 1;
                    let is_version = versions.iter().any(|version| version.as_bytes() == bytes);
                    tally.require(is_version, || "two versions were read as one".to_owned());
                }
                _ => unsettled += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // What fired is a rewrite that met a read.
    tally.fired = unsettled;
    tally.notes.push(format!("{whole} reads were whole, {unsettled} were given up"));
    tally.require(whole > 0, || "no read came to an end".to_owned());
    tally
}

/// One way to get a whole file under a name; `scratch` is on the same filesystem.
type Arrival = (&'static str, fn(&Path, &Path, &str));

const ARRIVALS: &[Arrival] = &[
    ("renamed", |to, scratch, text| {
        std::fs::write(scratch, text).unwrap();
        std::fs::rename(scratch, to).unwrap();
    }),
    ("linked", |to, scratch, text| {
        std::fs::write(scratch, text).unwrap();
        std::fs::hard_link(scratch, to).unwrap();
        std::fs::remove_file(scratch).unwrap();
    }),
    ("unnamed", |to, scratch, text| {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o644).custom_flags(libc::O_TMPFILE);
        let mut file = options.open(scratch.parent().expect("it is in a directory")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let through = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, through, CWD, to, AtFlags::SYMLINK_FOLLOW).unwrap();
    }),
    ("mapped", |to, _, text| map_in(to, text)),
    ("copied", |to, scratch, text| {
        std::fs::write(scratch, text).unwrap();
        assert!(Command::new("cp").arg(scratch).arg(to).status().unwrap().success());
    }),
    ("kept", |to, scratch, text| {
        std::fs::write(scratch, text).unwrap();
        assert!(Command::new("cp").arg("-p").arg(scratch).arg(to).status().unwrap().success());
    }),
    ("shell", |to, _, text| {
        let mut command = Command::new("sh");
        command.args(["-c", "printf %s \"$1\" > \"$0\""]).arg(to).arg(text);
        assert!(command.status().unwrap().success());
    }),
    ("rsynced", |to, scratch, text| {
        std::fs::write(scratch, text).unwrap();
        assert!(Command::new("rsync").arg(scratch).arg(to).status().unwrap().success());
    }),
];

/// Writes by a shared mapping after the descriptor was closed: no event tells of the stores.
fn map_in(to: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(true).read(true).write(true).open(to).unwrap();
    file.set_len(text.len() as u64).unwrap();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the file has the length that is mapped, and the mapping is used only until it is
    // unmapped below.
    unsafe {
        let start = std::ptr::null_mut();
        let map = libc::mmap(start, text.len(), access, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED, "the file can be mapped");
        drop(file);
        std::thread::sleep(Duration::from_millis(2));
        std::ptr::copy_nonoverlapping(text.as_ptr(), map.cast::<u8>(), text.len());
        libc::munmap(map, text.len());
    }
}

fn arrivals(options: &Options) -> Tally {
    let mut scene = Scene::new("");
    scene.start();
    let has_rsync = is_installed("rsync");
    let mut tally = Tally::default();
    for (way, drop) in ARRIVALS {
        if *way == "rsynced" && !has_rsync {
            tally.notes.push("without rsync, which is not installed".to_owned());
            continue;
        }
        for index in 0..if options.full { 100 } else { 25 } {
            let name = format!("intent-{way}-{index}.json");
            let text = intent(&format!("{way}-{}", index % 10), 1 + index % 100, &name);
            let scratch = scene.site.root().join("scratch");
            drop(&scene.at_inbox(&name), &scratch, &text);
            scene.log.dropped(&name, text, Expect::Admitted);
            scene.fired += 1;
        }
    }
    // All by events: well before the inbox is listed by the clock.
    let before = std::time::Instant::now();
    wait_until("all of them", || scene.site.names("status").len() == scene.log.drops.len());
    let took = before.elapsed();
    tally.require(took < Duration::from_secs(20), || format!("only a rescan saw them: {took:?}"));
    tally.add(scene.verdict(), "arrivals");
    tally
}
