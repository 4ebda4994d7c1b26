//! Names that come to mean another file between two system calls, and what was opened meanwhile.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use intentd::model::{FileName, Layout};
use intentd::spool::{Claimed, Content, Inbox, Spool};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::check::Expect;
use crate::drops::odd::drop_symlinks;
use crate::drops::scene::{Scene, found_below, intent, is_installed};
use crate::report::{Options, Row, Tally};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            id: "C1",
            what: "symbolic links: none is followed, nothing outside is opened",
            run: audit,
        },
        Row {
            id: "C8",
            what: "other files renamed over a name that is being taken",
            run: replaced,
        },
        Row {
            id: "C8-lib",
            what: "what is read is what is claimed, however names change",
            run: claimed,
        },
        Row {
            id: "C9",
            what: "a file and a link to a secret exchanged while it is taken",
            run: exchanged,
        },
        Row { id: "C9-lib", what: "the same, by opens of one name", run: opened },
    ]
}

/// A valid document outside of everything: it would be admitted if anybody read it.
const SECRET: &str = "stolen-by-a-link";

/// The spool and inbox of a directory, as the daemon opens them.
pub fn open_spool(root: &Path) -> (Spool, Inbox) {
    let layout = Layout {
        inbox: root.join("inbox"),
        work: root.join("work"),
        processed: root.join("processed"),
        failed: root.join("failed"),
        status: root.join("status"),
        marker: root.join(".intentd"),
    };
    let spool = Spool::open(&layout, false).unwrap();
    let inbox = Inbox::open(&layout.inbox, &spool).unwrap();
    (spool, inbox)
}

fn exchange(a: &Path, b: &Path) -> bool {
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok()
}

fn opened(options: &Options) -> Tally {
    let count = if options.full { 2_000_000 } else { 200_000 };
    let root = tempfile::tempdir().unwrap();
    let (_spool, inbox) = open_spool(root.path());
    let secret = root.path().join("secret");
    std::fs::write(&secret, intent(SECRET, 2, SECRET)).unwrap();
    let (name, other) = (root.path().join("inbox/intent-a.json"), root.path().join("other"));
    std::fs::write(&name, intent("open", 2, "open")).unwrap();
    std::os::unix::fs::symlink(&secret, &other).unwrap();
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
    let (open, closed) = (inode(&name), inode(&secret));

    let (done, exchanges) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut files, mut none) = (0_u64, 0_u64);
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                exchanges.fetch_add(u64::from(exchange(&name, &other)), Ordering::Relaxed);
            }
        });
        let file = FileName::new("intent-a.json");
        for _ in 0..count {
            match inbox.open_candidate(&file, true) {
                Ok(None) => none += 1,
                Ok(Some(candidate)) if candidate.sighting.print.inode == open => files += 1,
                Ok(Some(candidate)) => {
                    let is_secret = candidate.sighting.print.inode == closed;
                    tally.violation(format!("opened another file; the secret: {is_secret}"));
                }
                Err(error) => tally.violation(format!("an exchange is an error: {error}")),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // Only where both were met was there a race.
    tally.fired = none.min(files);
    let exchanges = exchanges.into_inner();
    tally.notes.push(format!(
        "{count} opens, {exchanges} exchanges: {files} found the file, {none} the link"
    ));
    tally
}

fn exchanged(options: &Options) -> Tally {
    let mut scene = Scene::new("");
    let secret = scene.site.root().join("secret");
    std::fs::write(&secret, intent(SECRET, 2, SECRET)).unwrap();
    scene.start();
    let mut exchanges = 0;
    let mut taken = Vec::new();
    for index in 0..if options.full { 20_000 } else { 500 } {
        let name = format!("intent-{index}.json");
        let text = intent(&format!("t{}", index % 50), 2, &name);
        let (at, other) = (scene.at_inbox(&name), scene.site.root().join("other"));
        std::fs::write(&other, &text).unwrap();
        std::os::unix::fs::symlink(&secret, scene.at_inbox(".link")).unwrap();
        // The one or the other arrives first.
        let first = if index % 2 == 0 { scene.at_inbox(".link") } else { other.clone() };
        std::fs::rename(first, &at).unwrap();
        if index % 2 == 1 {
            std::fs::rename(scene.at_inbox(".link"), &other).unwrap();
        }
        // Until it is taken; a file that goes back to its name for a moment is not.
        let mut misses = 0;
        while misses < 50 {
            match exchange(&at, &other) {
                true => (exchanges, misses) = (exchanges + 1, 0),
                false => misses += 1,
            }
        }
        taken.push((name, text));
        let _ = std::fs::remove_file(other);
    }
    scene.rest();
    // Which of the two was claimed is decided by the race; each has one proper end.
    let history = scene.site.history();
    let (mut links, mut files) = (0, 0);
    let by_file: std::collections::HashMap<&str, &serde_json::Value> =
        history.iter().filter_map(|record| Some((record["file"].as_str()?, record))).collect();
    for (name, text) in &taken {
        let is_link = by_file.get(name.as_str()).is_some_and(|record| record["code"] == "SYMLINK");
        if is_link {
            links += 1;
            scene.log.dropped(name, "", Expect::Rejected("SYMLINK"));
        } else {
            files += 1;
            scene.log.dropped(name, text.as_str(), Expect::Admitted);
        }
    }
    let mut tally = Tally::default();
    for path in found_below(&[scene.site.spool(), scene.site.state()], SECRET) {
        // An archived link is a link; a file that holds the secret was read from it.
        tally.violation(format!("the secret is in {}", path.display()));
    }
    scene.fired = exchanges;
    tally.notes.push(format!("{exchanges} exchanges: {files} files and {links} links were taken"));
    tally.require(files > 0 && links > 0, || "only one of the two was ever taken".to_owned());
    tally.add(scene.verdict(), "exchanged");
    tally
}

fn claimed(options: &Options) -> Tally {
    let claims = if options.full { 100_000 } else { 800 };
    let root = crate::workload::memory();
    let (spool, inbox) = open_spool(root.path());
    let name = root.path().join("inbox/intent-a.json");
    let done = AtomicBool::new(false);
    let replaced = AtomicU64::new(0);
    let mut tally = Tally::default();
    let (mut swapped, mut others) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut version = 0_u64;
            while !done.load(Ordering::Relaxed) {
                version += 1;
                let next = root.path().join("next");
                std::fs::write(&next, intent("web", 2, &version.to_string())).unwrap();
                std::fs::rename(&next, &name).unwrap();
                replaced.fetch_add(1, Ordering::Relaxed);
            }
        });
        let file = FileName::new("intent-a.json");
        let mut n = 0;
        while tally.acked < claims && replaced.load(Ordering::Relaxed) < 100 * claims {
            n += 1;
            let Some(candidate) = inbox.open_candidate(&file, true).unwrap() else { continue };
            let at = |claimed_as: &[u8]| {
                root.path().join("work").join(FileName::new(claimed_as).as_os_str())
            };
            let claim = match inbox.claim(candidate, &spool, 1, n).unwrap() {
                Claimed::Taken(claim) => claim,
                Claimed::Left => {
                    swapped += 1;
                    continue;
                }
                Claimed::Other(claimed_as) => {
                    others += 1;
                    let is_there = std::fs::remove_file(at(&claimed_as)).is_ok();
                    tally.require(is_there, || "a file that cannot go back is lost".to_owned());
                    continue;
                }
            };
            let path = at(&claim.claimed_as);
            if let Ok(Content::Whole(bytes)) = spool.read(&claim, 1 << 20, true) {
                tally.acked += 1;
                let there = std::fs::read(&path).unwrap();
                tally.require(bytes == there, || {
                    let [read, there] = [&bytes, &there].map(|b| String::from_utf8_lossy(b));
                    format!("read {read} and claimed {there}")
                });
            }
            std::fs::remove_file(path).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    tally.fired = replaced.into_inner();
    tally.notes.push(format!(
        "{swapped} times the name had come to mean another file, {others} times even a third"
    ));
    tally
}

/// Drops a file by rename; returns the text of the one that it has taken the name of, which nobody can
/// have claimed: it came out of the inbox by an exchange.
fn drop_over(scene: &Scene, name: &str, text: &str) -> Option<String> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let (path, temporary) = (scene.site.inbox().join(name), scene.site.inbox().join(".over"));
    std::fs::write(&temporary, text).unwrap();
    loop {
        if renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE).is_ok() {
            return None;
        }
        if renameat_with(CWD, &temporary, CWD, &path, RenameFlags::EXCHANGE).is_ok() {
            let old = std::fs::read_to_string(&temporary).unwrap();
            std::fs::remove_file(&temporary).unwrap();
            return Some(old);
        }
    }
}

fn replaced(options: &Options) -> Tally {
    let mut scene = Scene::in_memory("");
    scene.start();
    let count = if options.full { 20_000 } else { 2_000 };
    let mut versions = std::collections::BTreeMap::new();
    for index in 0..count {
        // Few names, so that one is often dropped while another of that name is being taken.
        let name = format!("intent-{}.json", index % 4);
        let text = intent(&format!("t{}", index % 4), 1 + index % 100, &format!("v{index}"));
        if let Some(old) = drop_over(&scene, &name, &text) {
            versions.remove(&old);
            scene.dropped_in_vain(&name, &old);
            scene.fired += 1;
        }
        versions.insert(text, name);
    }
    scene.rest();
    for (text, name) in versions {
        scene.log.dropped(&name, text, Expect::Admitted);
    }
    let history = scene.site.history();
    let in_vain = scene.fired;
    let mut tally = scene.verdict();
    // The checker is lenient with names of which something was replaced: nothing came twice.
    let digests: Vec<_> = history.iter().map(|record| record["digest"].to_string()).collect();
    let different: std::collections::HashSet<_> = digests.iter().collect();
    tally.require(different.len() == digests.len(), || "one file has two records".to_owned());
    tally.notes.push(format!("{in_vain} of {count} were replaced before they were claimed"));
    tally
}

fn audit(_: &Options) -> Tally {
    if !is_installed("strace") {
        return Tally::skipped("strace is not installed");
    }
    let mut scene = Scene::new("");
    let root = scene.site.root().to_owned();
    std::fs::write(root.join("secret"), intent(SECRET, 2, SECRET)).unwrap();
    let trace = root.join("trace");
    let trace_text = trace.to_str().expect("a plain path").to_owned();
    scene.start_behind(
        &["strace", "-D", "-f", "-y", "-qq", "-s", "4096", "-e", "trace=%file", "-o", &trace_text],
        &[],
    );
    drop_symlinks(&mut scene, &root.join("secret"), 100);
    std::os::unix::fs::symlink("/etc/shadow", scene.at_inbox("intent-shadow.json")).unwrap();
    scene.log.dropped("intent-shadow.json", "", Expect::Rejected("SYMLINK"));
    std::fs::create_dir(scene.at_inbox("intent-directory.json")).unwrap();
    for (index, name) in ["intent-$(id).json", "intent-a\nb.json"].iter().enumerate() {
        scene.drop(name, &intent("web", 2, &index.to_string()), Expect::Rejected("BAD_NAME"));
    }
    scene.drop("intent-good.json", &intent("web", 2, "good"), Expect::Admitted);
    wait_until("everything but what is left alone", || {
        scene.site.names("status").len() == scene.log.drops.len()
            && scene.site.names("work").is_empty()
    });
    std::fs::remove_dir(scene.at_inbox("intent-directory.json")).unwrap();
    std::fs::remove_file(scene.at_inbox("notes.txt")).unwrap();
    let declared = [scene.site.spool(), scene.site.state(), scene.site.packages()];
    let mut tally = scene.verdict();
    let trace = Trace::read(&trace);
    tally.require(trace.opens.len() > 100, || format!("only {} opens seen", trace.opens.len()));
    for (path, is_for_writing) in &trace.opens {
        let is_declared = declared.iter().any(|directory| path.starts_with(directory));
        let is_device = path.starts_with("/dev") || path.starts_with("/proc/self");
        tally.require(is_declared || is_device || !is_for_writing, || {
            format!("opened for writing: {}", path.display())
        });
        let is_foreign = path.ends_with("secret") || path.ends_with("shadow") || *path == root;
        tally.require(!is_foreign, || format!("followed a link to {}", path.display()));
    }
    tally.notes.push(format!("{} successful opens audited", trace.opens.len()));
    tally
}

/// The opens of a traced process that succeeded, by what they led to.
struct Trace {
    opens: Vec<(PathBuf, bool)>,
}

impl Trace {
    fn read(path: &Path) -> Self {
        // The tracer may end a moment after the traced.
        let start = Instant::now();
        let mut text = String::new();
        while start.elapsed().as_secs() < 10 && !text.contains("leader.lock") {
            text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        }
        let opens = text.lines().filter_map(|line| {
            let is_open = ["open(", "openat(", "openat2(", "creat("];
            is_open.iter().any(|call| line.contains(call)).then_some(())?;
            // As in `openat(AT_FDCWD</x>, "y", O_RDONLY) = 3</x/y>`: resolved by the kernel.
            let (call, result) = line.rsplit_once(" = ")?;
            let led_to = result.split_once('<')?.1.strip_suffix('>')?;
            let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "creat("];
            let is_for_writing = writes.iter().any(|flag| call.contains(flag));
            Some((PathBuf::from(led_to), is_for_writing))
        });
        Trace { opens: opens.collect() }
    }
}
