//! The floor: what the kernel asks for a synced claim, one package, one status file and one archive an
//! intent, with one sync a batch and step; no ledger, no checks.
//!
//! It goes the cheapest way we know: directories are opened once, names are made ready before, nothing
//! is allocated an intent. What makes it faster belongs into the product too.

use std::fs;
use std::path::Path;
use std::time::Instant;

use intentd::compose::{self, File};
use intentd::schema::{Policy, Schema};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, StatxFlags, fsync, mkdirat, openat, renameat,
    renameat_with, statx, syncfs,
};

use crate::site::document;

const BATCH: usize = 256;

/// Status files of ours are as long.
const STATUS: [u8; 900] = [b'x'; 900];

/// How the work is spread.
#[derive(Clone, Copy, Debug)]
pub enum Threads {
    One,
    /// Each has its own half of the inbox.
    Halves,
    /// One claims and stages, the other publishes and archives.
    Stages,
}

struct Places {
    inbox: OwnedFd,
    work: OwnedFd,
    staging: OwnedFd,
    packages: OwnedFd,
    status: OwnedFd,
    processed: OwnedFd,
}

/// The names of one intent.
struct Names {
    file: String,
    temporary: String,
    package: String,
    /// Of the package's files in staging: its directory need not be opened.
    paths: Vec<String>,
}

/// Drains an inbox that was filled before; intents a second.
pub fn run(root: &Path, threads: Threads) -> f64 {
    let places = Places::open(root);
    let files = package();
    let start = Instant::now();
    let names = list(root, &files);
    match threads {
        Threads::One => names.chunks(BATCH).for_each(|batch| places.whole(batch, &files)),
        Threads::Halves => std::thread::scope(|scope| {
            for half in names.chunks(names.len().div_ceil(2).max(1)) {
                let (places, files) = (&places, &files);
                scope
                    .spawn(move || half.chunks(BATCH).for_each(|batch| places.whole(batch, files)));
            }
        }),
        Threads::Stages => std::thread::scope(|scope| {
            let (send, staged) = crossbeam_channel::bounded::<&[Names]>(2);
            let places = &places;
            scope.spawn(move || staged.iter().for_each(|batch| places.finish(batch)));
            for batch in names.chunks(BATCH) {
                places.stage(batch, &files);
                send.send(batch).expect("the other thread works until we end");
            }
        }),
    }
    names.len() as f64 / start.elapsed().as_secs_f64()
}

fn list(root: &Path, files: &[File]) -> Vec<Names> {
    let entries = fs::read_dir(root.join("inbox")).expect("an inbox");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    let made = |file: String| Names {
        temporary: format!(".{file}"),
        package: format!("scale-{file}"),
        paths: files.iter().map(|part| format!("scale-{file}/{}", part.name)).collect(),
        file,
    };
    names.into_iter().map(made).collect()
}

/// The files of a package of ours.
fn package() -> Vec<File> {
    let judged = Schema::builtin().judge(document(7).as_bytes(), &Policy::default());
    let intent = judged.expect("the document is right");
    let settings = compose::Settings { deployment_image: None, deployment_template: None };
    compose::compose(&intent, &settings).expect("it can be composed").files
}

impl Places {
    fn open(root: &Path) -> Self {
        let open = |part: &str| {
            let path = root.join(part);
            fs::create_dir_all(&path).expect("a directory");
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, &path, flags, Mode::empty()).expect("a directory")
        };
        Places {
            inbox: open("inbox"),
            work: open("work"),
            packages: open("packages"),
            staging: open("packages/.staging"),
            status: open("status"),
            processed: open("processed"),
        }
    }

    fn whole(&self, batch: &[Names], files: &[File]) {
        self.stage(batch, files);
        self.finish(batch);
    }

    fn stage(&self, batch: &[Names], files: &[File]) {
        let mut buffer = [0; 4096];
        let mut claimed = Vec::with_capacity(BATCH);
        for Names { file, .. } in batch {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = openat(&self.inbox, file, flags, Mode::empty()).expect("a file");
            statx(&fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).expect("a stat");
            move_to(&self.inbox, file, &self.work, file);
            claimed.push(fd);
        }
        fsync(&self.work).expect("a sync");
        for fd in claimed {
            assert!(rustix::io::read(&fd, &mut buffer).expect("text") > 0);
        }
        for Names { package, paths, .. } in batch {
            mkdirat(&self.staging, package, Mode::from_raw_mode(0o755)).expect("a directory");
            let parts = paths.iter().zip(files);
            parts.for_each(|(path, file)| write(&self.staging, path, file.text.as_bytes()));
        }
        syncfs(&self.staging).expect("a sync");
    }

    fn finish(&self, batch: &[Names]) {
        for Names { package, .. } in batch {
            move_to(&self.staging, package, &self.packages, package);
        }
        fsync(&self.packages).expect("a sync");
        for Names { file, temporary, .. } in batch {
            write(&self.status, temporary, &STATUS);
            renameat(&self.status, temporary, &self.status, file).expect("a rename");
            move_to(&self.work, file, &self.processed, file);
        }
        syncfs(&self.status).expect("a sync");
    }
}

fn write(dir: impl AsFd, name: &str, bytes: &[u8]) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, Mode::from_raw_mode(0o644)).expect("a file");
    assert_eq!(rustix::io::write(&fd, bytes).expect("a write"), bytes.len());
}

fn move_to(from: impl AsFd, name: &str, to: impl AsFd, new: &str) {
    renameat_with(from, name, to, new, RenameFlags::NOREPLACE).expect("a rename");
}
